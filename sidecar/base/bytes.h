/*
 * A borrowed view of bytes. Never owns, never ends in NUL by promise, may be {NULL, 0}.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"

struct bytes {
    const uint8_t *data; /* borrowed, always */
    size_t size;
};

/* A view of a string literal, usable in initialisers. */
#define BYTES_LITERAL(text)                                                                        \
    {                                                                                              \
        (const uint8_t *)("" text), sizeof(text) - 1                                               \
    }
#define BYTES(text) ((struct bytes)BYTES_LITERAL(text))

static inline struct bytes bytes_make(const void *data, size_t size)
{
    return (struct bytes){data, size};
}

/* A view of a NUL-terminated string; NULL gives the empty view. */
static inline struct bytes bytes_from_string(const char *text)
{
    return (struct bytes){(const uint8_t *)text, text == NULL ? 0 : strlen(text)};
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Is it that NUL-terminated string? */
static inline bool bytes_is(struct bytes bytes, const char *text)
{
    return bytes_equal(bytes, bytes_from_string(text));
}

static inline bool bytes_starts_with(struct bytes bytes, struct bytes prefix)
{
    return bytes.size >= prefix.size &&
           (prefix.size == 0 || memcmp(bytes.data, prefix.data, prefix.size) == 0);
}

/* The view less its first `count` bytes; `count` is at most its size. */
static inline struct bytes bytes_skip(struct bytes bytes, size_t count)
{
    return (struct bytes){bytes.data == NULL ? NULL : bytes.data + count, bytes.size - count};
}

static inline struct bytes bytes_first(struct bytes bytes, size_t count)
{
    return (struct bytes){bytes.data, count < bytes.size ? count : bytes.size};
}

/* ASCII only, as HTTP wants it: locale never matters. */
static inline uint8_t byte_lower(uint8_t byte)
{
    return (uint8_t)(byte - 'A') < 26 ? (uint8_t)(byte | 0x20) : byte;
}

/* Equal when ASCII letters are compared without case. */
bool bytes_equal_nocase(struct bytes a, struct bytes b);

/* Three-way comparison by bytes, then by length: negative, zero or positive. */
int bytes_compare(struct bytes a, struct bytes b);

/* Index of the first `byte`, or `bytes.size` when there is none. */
size_t bytes_find(struct bytes bytes, uint8_t byte);

/* Index of the first occurrence of `needle`, or `bytes.size` when there is none. */
size_t bytes_find_bytes(struct bytes bytes, struct bytes needle);

/*
 * The UTF-8 character that `text`, which is not empty, begins with: its size, and its code point in
 * `ret_code_point` (may be NULL). 0 when it begins with none (RFC 3629: no surrogates, no overlong
 * forms).
 */
size_t bytes_first_character(struct bytes text, uint32_t *ret_code_point);

/* Without leading and trailing SP and HTAB (RFC 9110 5.6.3: OWS). */
struct bytes bytes_trim(struct bytes bytes);

/*
 * Split at the first `separator`: returns what stands before it and leaves what stands after it in
 * `*rest`; without a separator all is returned and `*rest` is {NULL, 0}.
 */
struct bytes bytes_split(struct bytes *rest, uint8_t separator);

/*
 * Parse decimal digits only: no sign, no space, no empty input. Leading zeros are taken.
 * Errors: ERROR_SYNTAX; ERROR_LIMIT above `max`.
 */
FALLIBLE bytes_parse_decimal(struct bytes bytes, uint64_t max, uint64_t *ret_value);

/* Write `value` in decimal to `out` (at least 20 bytes); returns the number of digits. No NUL is
 * written. */
size_t bytes_print_decimal(uint64_t value, uint8_t *out);

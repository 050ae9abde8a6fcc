/*
 * How far a class of bytes reaches: sixteen bytes a step where the compiler has SSE2, one by one
 * elsewhere. Hot: heads are mostly scanned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Nonzero for the characters of a token (RFC 9110 5.6.2). */
extern const uint8_t scan_token_table[256];

/* May stand in a field value: everything but controls, of which only HTAB (RFC 9110 5.5, the
 * stricter reading). */
static inline bool scan_is_value(uint8_t byte)
{
    return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

/* May stand in a request target on the wire: visible ASCII, no fragment. */
static inline bool scan_is_target(uint8_t byte)
{
    return byte > 0x20 && byte < 0x7f && byte != '#';
}

#if defined(__SSE2__)

static inline __m128i scan_load(const uint8_t *data)
{
    return _mm_loadu_si128((const __m128i *)(const void *)data);
}

/* Lanes whose byte is at most `limit`, unsigned. */
static inline __m128i scan_at_most(__m128i bytes, uint8_t limit)
{
    return _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8((char)limit)), bytes);
}

static inline __m128i scan_equal(__m128i bytes, uint8_t byte)
{
    return _mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)byte));
}

/* Index of the first byte that may not stand in a field value, or `size`. */
static inline size_t scan_value(const uint8_t *data, size_t size)
{
    size_t i = 0;
    for (; size - i >= 16; i += 16) {
        __m128i bytes = scan_load(data + i);
        __m128i control = _mm_andnot_si128(scan_equal(bytes, '\t'), scan_at_most(bytes, 0x1f));
        unsigned bad = (unsigned)_mm_movemask_epi8(_mm_or_si128(control, scan_equal(bytes, 0x7f)));
        if (bad != 0) {
            return i + (size_t)__builtin_ctz(bad);
        }
    }
    while (i < size && scan_is_value(data[i])) {
        i++;
    }
    return i;
}

/* Index of the first byte that may not stand in a target, or `size`. */
static inline size_t scan_target(const uint8_t *data, size_t size)
{
    size_t i = 0;
    for (; size - i >= 16; i += 16) {
        __m128i bytes = scan_load(data + i);
        __m128i high = scan_at_most(_mm_xor_si128(bytes, _mm_set1_epi8((char)0xff)), 0x80);
        __m128i out = _mm_or_si128(scan_at_most(bytes, 0x20), high);
        unsigned bad = (unsigned)_mm_movemask_epi8(_mm_or_si128(out, scan_equal(bytes, '#')));
        if (bad != 0) {
            return i + (size_t)__builtin_ctz(bad);
        }
    }
    while (i < size && scan_is_target(data[i])) {
        i++;
    }
    return i;
}

/* Index of the first byte that is not of a token, or `size`. Letters, digits, "-" and "_" go
 * sixteen at a time. */
static inline size_t scan_token(const uint8_t *data, size_t size)
{
    size_t i = 0;
    while (size - i >= 16) {
        __m128i bytes = scan_load(data + i);
        __m128i lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        __m128i usual = scan_at_most(_mm_sub_epi8(lower, _mm_set1_epi8('a')), 25);
        usual = _mm_or_si128(usual, scan_at_most(_mm_sub_epi8(bytes, _mm_set1_epi8('0')), 9));
        usual = _mm_or_si128(usual, scan_equal(bytes, '-'));
        usual = _mm_or_si128(usual, scan_equal(bytes, '_'));
        unsigned unusual = (unsigned)_mm_movemask_epi8(usual) ^ 0xffffu;
        if (unusual == 0) {
            i += 16;
            continue;
        }
        i += (size_t)__builtin_ctz(unusual);
        if (data[i] == ':' || scan_token_table[data[i]] == 0) {
            return i;
        }
        i++;
    }
    while (i < size && scan_token_table[data[i]] != 0) {
        i++;
    }
    return i;
}

#else

static inline size_t scan_value(const uint8_t *data, size_t size)
{
    size_t i = 0;
    while (i < size && scan_is_value(data[i])) {
        i++;
    }
    return i;
}

static inline size_t scan_target(const uint8_t *data, size_t size)
{
    size_t i = 0;
    while (i < size && scan_is_target(data[i])) {
        i++;
    }
    return i;
}

static inline size_t scan_token(const uint8_t *data, size_t size)
{
    size_t i = 0;
    while (i < size && scan_token_table[data[i]] != 0) {
        i++;
    }
    return i;
}

#endif

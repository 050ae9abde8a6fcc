/*
 * Bump allocator: many allocations, one end. Used for a stream's heads and results, for a YAML
 * document, for a compiled table. Nothing is freed singly; a mark gives back what came after it.
 *
 * Thread: the owner's. Not shared.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *newest; /* owned chain, newest first */
    uint8_t *next;              /* within the newest chunk */
    uint8_t *end;
    size_t total_bytes; /* of all chunks */
    size_t cap_bytes;
    uint32_t chunk_bytes;
    uint32_t fail_after; /* test hook: allocations until one fails; 0 = never */
};

/* A point to come back to. */
struct arena_mark {
    struct arena_chunk *newest;
    uint8_t *next;
};

/* Make an empty arena that grows by chunks of `chunk_bytes` (or one allocation, when larger) up to
 * `cap_bytes` in all. */
void arena_init(struct arena *arena, size_t chunk_bytes, size_t cap_bytes);

/* Release everything. The arena may be used again afterwards. */
void arena_finish(struct arena *arena);

/* Forget every allocation but keep the first chunk, so that the next use allocates nothing. */
void arena_reset(struct arena *arena);

/*
 * `size` bytes, aligned for any type, not zeroed; NULL when the cap or the system refuses.
 * A size of 0 gives a valid pointer.
 */
void *arena_alloc(struct arena *arena, size_t size) MUST_USE;

/* The same for an array, zeroed, checked against overflow. */
void *arena_alloc_zero(struct arena *arena, size_t count, size_t size) MUST_USE;

/* A copy of `bytes` followed by a NUL (not counted); {NULL, 0} when refused. */
struct bytes arena_copy(struct arena *arena, struct bytes bytes) MUST_USE;

/* As arena_copy, as a C string; NULL when refused. */
char *arena_copy_string(struct arena *arena, struct bytes bytes) MUST_USE;

/* Formatted text, NUL-terminated; NULL when refused. */
char *arena_format(struct arena *arena, const char *format, ...) MUST_USE
    __attribute__((format(printf, 2, 3)));

/* Where the arena stands now, for arena_rewind. */
struct arena_mark arena_mark(const struct arena *arena);

/* Give back everything allocated after `mark`, which came from the same arena since its last reset.
 */
void arena_rewind(struct arena *arena, struct arena_mark mark);

/* Test hook: let the `n`th allocation from now fail (1 = the next); 0 switches it off. */
void arena_fail_after(struct arena *arena, uint32_t n);

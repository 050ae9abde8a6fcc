/* Bump allocator over malloc'd chunks; under ASan unused space is poisoned. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/poison.h"

enum {
    ARENA_ALIGNMENT = 16
};

struct arena_chunk {
    struct arena_chunk *older; /* owned */
    size_t size;               /* of data */
    alignas(ARENA_ALIGNMENT) uint8_t data[];
};

void arena_init(struct arena *arena, size_t chunk_bytes, size_t cap_bytes)
{
    CHECK(chunk_bytes > 0 && chunk_bytes <= UINT32_MAX);
    *arena = (struct arena){.chunk_bytes = (uint32_t)chunk_bytes, .cap_bytes = cap_bytes};
}

/* Free chunks newer than `keep`; its space then ends the arena. */
static void free_newer(struct arena *arena, const struct arena_chunk *keep)
{
    while (arena->newest != keep) {
        struct arena_chunk *chunk = arena->newest;
        arena->newest = chunk->older;
        arena->total_bytes -= chunk->size;
        MEMORY_UNPOISON(chunk->data, chunk->size);
        free(chunk);
    }
}

void arena_finish(struct arena *arena)
{
    free_newer(arena, NULL);
    arena->next = NULL;
    arena->end = NULL;
}

void arena_reset(struct arena *arena)
{
    if (arena->newest == NULL) {
        return;
    }
    const struct arena_chunk *first = arena->newest;
    while (first->older != NULL) {
        first = first->older;
    }
    free_newer(arena, first);
    arena->next = arena->newest->data;
    arena->end = arena->newest->data + arena->newest->size;
    MEMORY_POISON(arena->next, arena->newest->size);
}

/* Put a chunk that can hold `size` bytes in front; false when the cap or malloc refuses. */
static bool grow(struct arena *arena, size_t size)
{
    size_t chunk_bytes = size > arena->chunk_bytes ? size : arena->chunk_bytes;
    if (chunk_bytes > arena->cap_bytes - arena->total_bytes) {
        chunk_bytes = size; /* the last chunk may be smaller than usual */
    }
    if (chunk_bytes > arena->cap_bytes - arena->total_bytes) {
        return false;
    }
    struct arena_chunk *chunk = malloc(sizeof(*chunk) + chunk_bytes);
    if (chunk == NULL) {
        return false;
    }
    chunk->older = arena->newest;
    chunk->size = chunk_bytes;
    arena->newest = chunk;
    arena->total_bytes += chunk_bytes;
    arena->next = chunk->data;
    arena->end = chunk->data + chunk_bytes;
    MEMORY_POISON(chunk->data, chunk_bytes);
    return true;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    if (__builtin_expect(arena->fail_after != 0, 0) && --arena->fail_after == 0) {
        return NULL;
    }
    if (size > SIZE_MAX - ARENA_ALIGNMENT) {
        return NULL;
    }
    size_t step = (size + ARENA_ALIGNMENT - 1) & ~(size_t)(ARENA_ALIGNMENT - 1);
    if (step > (size_t)(arena->end - arena->next) || arena->next == NULL) {
        if (!grow(arena, step)) {
            return NULL;
        }
    }
    void *memory = arena->next;
    arena->next += step;
    MEMORY_UNPOISON(memory, size);
    return memory;
}

void *arena_alloc_zero(struct arena *arena, size_t count, size_t size)
{
    size_t total = 0;
    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    void *memory = arena_alloc(arena, total);
    if (memory != NULL) {
        memset(memory, 0, total);
    }
    return memory;
}

char *arena_copy_string(struct arena *arena, struct bytes bytes)
{
    if (bytes.size == SIZE_MAX) {
        return NULL;
    }
    char *copy = arena_alloc(arena, bytes.size + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (bytes.size > 0) {
        memcpy(copy, bytes.data, bytes.size);
    }
    copy[bytes.size] = '\0';
    return copy;
}

struct bytes arena_copy(struct arena *arena, struct bytes bytes)
{
    char *copy = arena_copy_string(arena, bytes);
    return copy == NULL ? (struct bytes){0} : bytes_make(copy, bytes.size);
}

char *arena_format(struct arena *arena, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    CHECK(size >= 0);
    char *text = arena_alloc(arena, (size_t)size + 1);
    if (text == NULL) {
        return NULL;
    }
    va_start(arguments, format);
    vsnprintf(text, (size_t)size + 1, format, arguments);
    va_end(arguments);
    return text;
}

struct arena_mark arena_mark(const struct arena *arena)
{
    return (struct arena_mark){arena->newest, arena->next};
}

void arena_rewind(struct arena *arena, struct arena_mark mark)
{
    if (mark.newest == NULL) {
        arena_reset(arena);
        return;
    }
    free_newer(arena, mark.newest);
    arena->next = mark.next;
    arena->end = arena->newest->data + arena->newest->size;
    MEMORY_POISON(arena->next, (size_t)(arena->end - arena->next));
}

void arena_fail_after(struct arena *arena, uint32_t n)
{
    arena->fail_after = n;
}

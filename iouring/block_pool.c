/*
 * Lent blocks are one mapping; heap blocks are malloc'ed in a few sizes and kept in small free
 * lists, so that a steady load does not reach malloc.
 */
#include "iouring/block_pool.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/poison.h"

enum lent_place {
    LENT_FREE,
    LENT_KERNEL,
    LENT_OUT,
};

enum {
    LENT_COUNT_MAX = 32768, /* of a buffer ring */
    HEAP_CLASSES = 4,
    HEAP_HANDY_BYTES = 1900,           /* for take(1): a message head fits */
    HEAP_CACHED_BYTES_MAX = 128 << 10, /* kept for each size */
};

/* Sizes of the allocation, header included; the last one holds a TLS record with its overhead. */
static const uint32_t heap_class_bytes[HEAP_CLASSES] = {512, 2048, 4096, 18 << 10};

struct heap_class {
    struct block *cached;
    uint32_t cached_bytes;
};

struct block_pool {
    struct block_source heap; /* first: the source is the pool */
    uint32_t block_bytes;
    uint32_t block_count;
    uint8_t *memory; /* block_count * block_bytes, mapped */
    struct block *blocks;
    uint8_t *places; /* enum lent_place of each */
    struct block *free;
    uint32_t out;
    uint64_t heap_bytes;
    uint64_t heap_bytes_max;
    struct heap_class classes[HEAP_CLASSES];
};

/* ---- lent blocks ---- */

static void put_free(struct block_pool *pool, struct block *block)
{
    MEMORY_POISON(block->data, pool->block_bytes);
    pool->places[block->id] = LENT_FREE;
    block->next = pool->free;
    pool->free = block;
}

static void release_lent(struct block *block)
{
    struct block_pool *pool = block->supplier;
    CHECK(block->id < pool->block_count && pool->places[block->id] == LENT_OUT);
    pool->out--;
    put_free(pool, block);
}

struct block *block_pool_lend(struct block_pool *pool)
{
    struct block *block = pool->free;
    if (block == NULL) {
        return NULL;
    }
    CHECK(pool->places[block->id] == LENT_FREE && block->refs == 0);
    pool->free = block->next;
    block->next = NULL;
    pool->places[block->id] = LENT_KERNEL;
    return block;
}

struct block *block_pool_receive(struct block_pool *pool, uint16_t id, uint32_t size)
{
    /* The kernel names the block, not a peer: a wrong id is a broken ring, and memory that two
     * owners write into. */
    CHECK(id < pool->block_count && pool->places[id] == LENT_KERNEL && size <= pool->block_bytes);
    struct block *block = &pool->blocks[id];
    CHECK(block->refs == 0);
    pool->places[id] = LENT_OUT;
    pool->out++;
    block->refs = 1;
    MEMORY_UNPOISON(block->data, size);
    return block;
}

void block_pool_take_back(struct block_pool *pool, uint16_t id)
{
    CHECK(id < pool->block_count && pool->places[id] == LENT_KERNEL);
    put_free(pool, &pool->blocks[id]);
}

struct block *block_pool_take(struct block_pool *pool)
{
    const struct block *block = block_pool_lend(pool);
    return block == NULL ? NULL : block_pool_receive(pool, block->id, pool->block_bytes);
}

uint32_t block_pool_out(const struct block_pool *pool)
{
    return pool->out;
}

uint32_t block_pool_available(const struct block_pool *pool)
{
    return pool->block_count - pool->out;
}

bool block_pool_is_scarce(const struct block_pool *pool)
{
    return pool->block_count - pool->out < pool->block_count / 4 + 1;
}

/* ---- the heap slab ---- */

static void release_heap(struct block *block)
{
    struct block_pool *pool = block->supplier;
    uint32_t bytes = block->capacity + (uint32_t)sizeof(*block);
    CHECK(block->refs == 0 && pool->heap_bytes >= bytes);
    pool->heap_bytes -= bytes;
    for (uint32_t i = 0; i < HEAP_CLASSES; i++) {
        struct heap_class *class = &pool->classes[i];
        if (heap_class_bytes[i] == bytes && class->cached_bytes + bytes <= HEAP_CACHED_BYTES_MAX) {
            MEMORY_POISON(block->data, block->capacity);
            block->next = class->cached;
            class->cached = block;
            class->cached_bytes += bytes;
            return;
        }
    }
    free(block);
}

/* The smallest class that holds `size` bytes of data; NULL for none. */
static struct heap_class *class_for(struct block_pool *pool, size_t size, uint32_t *ret_bytes)
{
    for (uint32_t i = 0; i < HEAP_CLASSES; i++) {
        if (size + sizeof(struct block) <= heap_class_bytes[i]) {
            *ret_bytes = heap_class_bytes[i];
            return &pool->classes[i];
        }
    }
    return NULL;
}

static struct block *take_heap(struct block_source *source, size_t size_min)
{
    struct block_pool *pool = (struct block_pool *)(void *)source;
    size_t size = size_min <= 1 ? HEAP_HANDY_BYTES : size_min;
    if (size > UINT32_MAX / 2) {
        return NULL;
    }
    uint32_t bytes = (uint32_t)(size + sizeof(struct block));
    struct heap_class *class = class_for(pool, size, &bytes);
    if (bytes > pool->heap_bytes_max - pool->heap_bytes) {
        return NULL;
    }
    struct block *block = class == NULL ? NULL : class->cached;
    if (block != NULL) {
        class->cached = block->next;
        class->cached_bytes -= bytes;
    } else {
        block = malloc(bytes);
        if (block == NULL) {
            return NULL;
        }
    }
    *block = (struct block){.data = (uint8_t *)(block + 1),
                            .capacity = bytes - (uint32_t)sizeof(*block),
                            .refs = 1,
                            .release = release_heap,
                            .supplier = pool};
    MEMORY_UNPOISON(block->data, block->capacity);
    pool->heap_bytes += bytes;
    return block;
}

struct block_source *block_pool_heap(struct block_pool *pool)
{
    return &pool->heap;
}

uint64_t block_pool_heap_bytes(const struct block_pool *pool)
{
    return pool->heap_bytes;
}

uint64_t block_pool_heap_room(const struct block_pool *pool)
{
    return pool->heap_bytes_max - pool->heap_bytes;
}

/* ---- lifetime ---- */

struct error block_pool_create(uint32_t block_bytes, uint32_t block_count, uint64_t heap_bytes_max,
                               struct block_pool **ret_pool)
{
    CHECK(block_bytes > 0 && block_count > 0 && block_count <= LENT_COUNT_MAX);
    struct block_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    pool->heap.take = take_heap;
    pool->block_bytes = block_bytes;
    pool->block_count = block_count;
    pool->heap_bytes_max = heap_bytes_max;
    pool->blocks = calloc(block_count, sizeof(*pool->blocks));
    pool->places = calloc(block_count, sizeof(*pool->places));
    void *memory = mmap(NULL, (size_t)block_bytes * block_count, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    pool->memory = memory == MAP_FAILED ? NULL : memory;
    if (pool->blocks == NULL || pool->places == NULL || pool->memory == NULL) {
        block_pool_destroy(pool);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = block_count; i-- > 0;) {
        pool->blocks[i] = (struct block){.data = pool->memory + (size_t)i * block_bytes,
                                         .capacity = block_bytes,
                                         .used = block_bytes,
                                         .id = (uint16_t)i,
                                         .is_lent = true,
                                         .release = release_lent,
                                         .supplier = pool};
        put_free(pool, &pool->blocks[i]);
    }
    *ret_pool = pool;
    return OK;
}

void block_pool_destroy(struct block_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    CHECK(pool->out == 0 && pool->heap_bytes == 0);
    for (uint32_t i = 0; i < HEAP_CLASSES; i++) {
        while (pool->classes[i].cached != NULL) {
            struct block *block = pool->classes[i].cached;
            pool->classes[i].cached = block->next;
            MEMORY_UNPOISON(block->data, block->capacity);
            free(block);
        }
    }
    if (pool->memory != NULL) {
        /* A later mapping at this address must not inherit our poison. */
        MEMORY_UNPOISON(pool->memory, (size_t)pool->block_bytes * pool->block_count);
        munmap(pool->memory, (size_t)pool->block_bytes * pool->block_count);
    }
    free(pool->blocks);
    free(pool->places);
    free(pool);
}

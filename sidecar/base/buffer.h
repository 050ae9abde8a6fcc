/*
 * An owned queue of bytes made of slices of reference-counted blocks. Bytes move between buffers by
 * moving slices; they are copied only on request.
 *
 * A block belongs to one thread and so do all buffers that hold slices of it. Where a block comes
 * from and goes to is its supplier's business (iouring/block_pool.c): base needs neither the ring
 * nor the heap budget.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

struct block {
    uint8_t *data;
    uint32_t capacity;
    uint32_t used; /* bytes written by buffer_append; a block on loan from the kernel is full from
                      the start */
    uint32_t refs; /* plain: one thread */
    uint16_t id;   /* the supplier's */
    bool is_lent;  /* from the ring's pool: scarce, must go back soon (design 4.4) */
    void (*release)(struct block *block); /* called when refs falls to 0 */
    void *supplier;                       /* borrowed: outlives the block */
    struct block *next;                   /* the supplier's free list */
};

static inline void block_ref(struct block *block)
{
    block->refs++;
}

static inline void block_unref(struct block *block)
{
    if (--block->refs == 0) {
        block->release(block);
    }
}

/* Gives blocks to write into: refs 1, used 0, at least `size_min` bytes; NULL when the budget is
 * used up. */
struct block_source {
    struct block *(*take)(struct block_source *source, size_t size_min);
};

/* Blocks from malloc without a budget; for tests, tools and the control thread. */
struct block_source *block_source_heap(void);

struct slice {
    struct block *block; /* one reference is owned */
    uint8_t *data;       /* within the block */
    uint32_t size;       /* never 0 in a buffer */
};

/*
 * May not be moved in memory by assignment while it holds something; embed it. All zero is a valid,
 * empty buffer. Small, because an idle connection has several: one slice lives in the buffer, more
 * of them in a ring on the heap.
 */
struct buffer {
    union {
        struct slice only;    /* capacity 0 */
        struct slice *slices; /* a ring of `capacity`, owned */
    };

    uint32_t first;
    uint32_t count;
    uint32_t capacity; /* a power of two; 0: at most one slice, in place */
    size_t size;       /* bytes in all */
};

_Static_assert(sizeof(struct buffer) == 48, "an idle connection has several of these");

static inline bool buffer_is_empty(const struct buffer *buffer)
{
    return buffer->size == 0;
}

/* Release everything; the buffer is empty and valid afterwards. */
void buffer_clear(struct buffer *buffer);

/* The `index`th slice; index < count. Valid until the buffer changes. */
struct slice *buffer_slice(struct buffer *buffer, uint32_t index);

/* The first contiguous bytes; {NULL, 0} when empty. Valid until the buffer changes. */
struct bytes buffer_front(const struct buffer *buffer);

/* Add bytes of `block` without copying; takes a reference of its own. Empty views add nothing.
 * Errors: ERROR_NO_MEMORY. */
FALLIBLE buffer_append_slice(struct buffer *buffer, struct block *block, struct bytes bytes);

/*
 * Add a copy of `bytes`, written behind the last slice where its block is ours alone and has room,
 * else to new blocks. Errors: ERROR_NO_MEMORY when the source or malloc refuses; some of the bytes
 * may then have been added: the message that they belong to is lost and the caller ends the
 * connection.
 */
FALLIBLE buffer_append(struct buffer *buffer, struct block_source *source, struct bytes bytes);

/*
 * Room for `size` contiguous bytes behind the last one, to be written by the caller and then
 * counted by buffer_commit. Nothing else may touch the buffer in between. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE buffer_reserve(struct buffer *buffer, struct block_source *source, size_t size,
                        uint8_t **ret_data);

/* Count the first `size` bytes of the last reservation as part of the buffer. */
void buffer_commit(struct buffer *buffer, size_t size);

/* Drop the first `size` bytes; size is at most buffer->size. */
void buffer_consume(struct buffer *buffer, size_t size);

/* Move the first `size` bytes (at most from->size) to the end of `to`, by slices. Errors:
 * ERROR_NO_MEMORY, nothing moved. */
FALLIBLE buffer_move(struct buffer *from, struct buffer *to, size_t size);

/* Copy the first `size` bytes (at most buffer->size) to `out` without taking them. */
void buffer_copy_out(const struct buffer *buffer, size_t size, uint8_t *out);

/* The same from `offset` on; offset + size is at most buffer->size. */
void buffer_copy_range(const struct buffer *buffer, size_t offset, size_t size, uint8_t *out);

/*
 * Replace slices of blocks on loan by copies in blocks of `source`, so that the ring gets its
 * blocks back. Errors: ERROR_NO_MEMORY: as much as could be copied was.
 */
FALLIBLE buffer_unlend(struct buffer *buffer, struct block_source *source);

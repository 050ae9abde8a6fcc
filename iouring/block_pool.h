/*
 * The blocks of one thread: a fixed number that is lent out for receiving, and a budgeted slab on
 * the heap for what we write ourselves and for copies.
 *
 * A lent block is in one of three places: free (with the pool), in the kernel (in the buffer ring),
 * or out (with owners, refs > 0). Each move checks where it comes from, so a block that returns
 * twice stops the process instead of being filled twice. Under AddressSanitizer its bytes may be
 * touched only while it is out, and then only those that were received.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

struct block_pool;

/*
 * `block_count` blocks of `block_bytes` to lend (at most 32768), and at most `heap_bytes_max` on
 * the heap. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE block_pool_create(uint32_t block_bytes, uint32_t block_count, uint64_t heap_bytes_max,
                           struct block_pool **ret_pool);

/* Every block must have come back. Accepts NULL. */
void block_pool_destroy(struct block_pool *pool);

/* Take a free block for the kernel to write into; NULL when none is free. */
struct block *block_pool_lend(struct block_pool *pool);

/* Block `id`, which the kernel had, came back with `size` bytes in it: refs 1, the caller's. */
struct block *block_pool_receive(struct block_pool *pool, uint16_t id, uint32_t size);

/* The kernel gave block `id` back unused (its buffer ring is gone). */
void block_pool_take_back(struct block_pool *pool, uint16_t id);

/*
 * For back ends that read with a system call: a free block to read into, refs 1, the caller's; NULL
 * when none is free: the socket is starved.
 */
struct block *block_pool_take(struct block_pool *pool);

/* Lent blocks that are with owners, and those that are not. */
uint32_t block_pool_out(const struct block_pool *pool);
uint32_t block_pool_available(const struct block_pool *pool);

/* Fewer than a quarter is available: whoever holds lent blocks for long must copy (design 4.4). */
bool block_pool_is_scarce(const struct block_pool *pool);

/* The heap slab. `take` with size 1 means "as much as is handy" (about 2 KiB). */
struct block_source *block_pool_heap(struct block_pool *pool);

/* Bytes of heap blocks in use, headers included, and what is left of the budget. */
uint64_t block_pool_heap_bytes(const struct block_pool *pool);
uint64_t block_pool_heap_room(const struct block_pool *pool);

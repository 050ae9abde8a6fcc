/* The places of a lent block, the budget of the heap, and that misuse stops the process. */
#include "iouring/block_pool.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

static struct block_pool *pool_of(uint32_t count, uint64_t heap_bytes_max)
{
    struct block_pool *pool = NULL;
    cr_assert(!error_is(block_pool_create(4096, count, heap_bytes_max, &pool)));
    return pool;
}

Test(block_pool, lends_every_block_once)
{
    struct block_pool *pool = pool_of(8, 0);
    bool is_seen[8] = {false};
    for (int i = 0; i < 8; i++) {
        const struct block *block = block_pool_lend(pool);
        cr_assert_not_null(block);
        cr_assert(!is_seen[block->id]);
        is_seen[block->id] = true;
    }
    cr_assert_null(block_pool_lend(pool));
    cr_assert_null(block_pool_take(pool));
    cr_assert_eq(block_pool_out(pool), 0, "what the kernel has is not out");
    struct block *block = block_pool_receive(pool, 3, 100);
    memset(block->data, 1, 100);
    cr_assert(block->is_lent);
    cr_assert_eq(block_pool_out(pool), 1);
    block_unref(block);
    cr_assert_eq(block_pool_out(pool), 0);
    block = block_pool_take(pool);
    cr_assert_eq(block->id, 3);
    memset(block->data, 2, 4096);
    block_unref(block);
    block_pool_destroy(pool);
}

Test(block_pool, is_scarce_below_a_quarter)
{
    struct block_pool *pool = pool_of(8, 0);
    struct block *blocks[8];
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(block_pool_is_scarce(pool), i > 5, "%d", i);
        blocks[i] = block_pool_take(pool);
        cr_assert_eq(block_pool_available(pool), (uint32_t)(7 - i));
    }
    for (int i = 0; i < 8; i++) {
        block_unref(blocks[i]);
    }
    cr_assert(!block_pool_is_scarce(pool));
    block_pool_destroy(pool);
}

Test(block_pool, keeps_the_heap_within_its_budget)
{
    static const size_t sizes[] = {1, 100, 500, 2000, 4000, 16406, 18000, 70000};
    struct block_pool *pool = pool_of(1, 100000);
    struct block_source *heap = block_pool_heap(pool);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            struct block *block = heap->take(heap, sizes[i]);
            cr_assert_not_null(block);
            cr_assert(!block->is_lent && block->used == 0 && block->refs == 1);
            cr_assert_geq(block->capacity, sizes[i]);
            memset(block->data, 3, block->capacity);
            cr_assert_geq(block_pool_heap_bytes(pool), sizes[i]);
            block_unref(block);
            cr_assert_eq(block_pool_heap_bytes(pool), 0);
        }
    }
    struct block *first = heap->take(heap, 70000);
    cr_assert_null(heap->take(heap, 70000));
    struct block *second = heap->take(heap, 16000);
    cr_assert_not_null(second);
    cr_assert_null(heap->take(heap, 16000));
    block_unref(first);
    block_unref(second);
    cr_assert_eq(block_pool_heap_room(pool), 100000);
    block_pool_destroy(pool);
}

Test(block_pool, stops_on_a_block_that_returns_twice, .signal = SIGABRT)
{
    struct block_pool *pool = pool_of(2, 0);
    struct block *block = block_pool_take(pool);
    block_unref(block);
    block->refs = 1;
    block_unref(block);
}

Test(block_pool, stops_on_a_block_that_the_kernel_did_not_have, .signal = SIGABRT)
{
    struct block_pool *pool = pool_of(2, 0);
    (void)block_pool_receive(pool, 1, 10);
}

Test(block_pool, stops_on_an_id_out_of_range, .signal = SIGABRT)
{
    struct block_pool *pool = pool_of(2, 0);
    (void)block_pool_lend(pool);
    (void)block_pool_lend(pool);
    (void)block_pool_receive(pool, 2, 10);
}

Test(block_pool, stops_when_it_ends_with_blocks_out, .signal = SIGABRT)
{
    struct block_pool *pool = pool_of(2, 0);
    (void)block_pool_take(pool);
    block_pool_destroy(pool);
}

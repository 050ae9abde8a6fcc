/* Byte queues: compared with a plain array through random operations, and balance of block
 * references. */
#include "base/buffer.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static int blocks_out;

static void release_counted(struct block *block)
{
    blocks_out--;
    free(block);
}

static struct block *take_counted(struct block_source *source, size_t size_min)
{
    (void)source;
    size_t capacity = size_min > 8 ? size_min : 8;
    struct block *block = calloc(1, sizeof(*block) + capacity);
    cr_assert_not_null(block);
    block->data = (uint8_t *)(block + 1);
    block->capacity = (uint32_t)capacity;
    block->refs = 1;
    block->release = release_counted;
    blocks_out++;
    return block;
}

static struct block *take_nothing(struct block_source *source, size_t size_min)
{
    (void)source;
    (void)size_min;
    return NULL;
}

static struct block_source counted = {.take = take_counted};
static struct block_source nothing = {.take = take_nothing};

static void expect_content(const struct buffer *buffer, const uint8_t *want, size_t size)
{
    uint8_t have[4096];
    cr_assert_eq(buffer->size, size);
    buffer_copy_out(buffer, size, have);
    cr_assert_arr_eq(have, want, size);
}

/* One random operation on two buffers and their models. */
static void step(unsigned *seed, struct buffer *a, struct buffer *b, uint8_t model_a[],
                 uint8_t model_b[])
{
    size_t size = (size_t)(rand_r(seed) % 40);
    uint8_t bytes[40];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)rand_r(seed);
    }
    switch (rand_r(seed) % 4) {
    case 0:
        if (a->size + size < 2000) {
            memcpy(model_a + a->size, bytes, size);
            cr_assert_not(error_is(buffer_append(a, &counted, bytes_make(bytes, size))));
        }
        break;
    case 1: {
        struct block *block = take_counted(&counted, 40);
        memcpy(block->data, bytes, size);
        block->used = 40;
        block->is_lent = true;
        if (a->size + size < 2000) {
            memcpy(model_a + a->size, bytes, size);
            cr_assert_not(
                error_is(buffer_append_slice(a, block, bytes_make(block->data, size / 2))));
            cr_assert_not(error_is(buffer_append_slice(
                a, block, bytes_make(block->data + size / 2, size - size / 2))));
        }
        block_unref(block);
        break;
    }
    case 2:
        size = size < a->size ? size : a->size;
        if (b->size + size < 2000) {
            memcpy(model_b + b->size, model_a, size);
            memmove(model_a, model_a + size, a->size - size);
            cr_assert_not(error_is(buffer_move(a, b, size)));
        }
        break;
    default:
        size = size < b->size ? size : b->size;
        memmove(model_b, model_b + size, b->size - size);
        buffer_consume(b, size);
        break;
    }
}

Test(buffer, behaves_like_an_array_through_random_operations)
{
    for (unsigned seed = 1; seed <= 200; seed++) {
        unsigned state = seed;
        struct buffer a = {0};
        struct buffer b = {0};
        uint8_t model_a[2048];
        uint8_t model_b[2048];
        for (int i = 0; i < 300; i++) {
            step(&state, &a, &b, model_a, model_b);
            expect_content(&a, model_a, a.size);
            expect_content(&b, model_b, b.size);
        }
        if (seed % 2 == 0) {
            cr_assert_not(error_is(buffer_unlend(&a, &counted)));
            expect_content(&a, model_a, a.size);
        }
        buffer_clear(&a);
        buffer_clear(&b);
        cr_assert_eq(blocks_out, 0, "seed %u leaks %d blocks", seed, blocks_out);
    }
}

Test(buffer, reserves_and_commits_less_or_nothing)
{
    struct buffer buffer = {0};
    uint8_t *data = NULL;
    cr_assert_not(error_is(buffer_reserve(&buffer, &counted, 100, &data)));
    memcpy(data, "abc", 3);
    buffer_commit(&buffer, 3);
    cr_assert_not(error_is(buffer_reserve(&buffer, &counted, 200, &data)));
    buffer_commit(&buffer, 0);
    expect_content(&buffer, (const uint8_t *)"abc", 3);
    cr_assert_eq(blocks_out, 1);
    buffer_clear(&buffer);
    cr_assert_eq(blocks_out, 0);
}

Test(buffer, never_writes_into_a_block_that_another_buffer_shares)
{
    struct buffer a = {0};
    struct buffer b = {0};
    cr_assert_not(error_is(buffer_append(&a, block_source_heap(), BYTES("hello world"))));
    cr_assert_not(error_is(buffer_move(&a, &b, 6)));
    cr_assert_not(error_is(buffer_append(&b, block_source_heap(), BYTES("X"))));
    expect_content(&a, (const uint8_t *)"world", 5);
    expect_content(&b, (const uint8_t *)"hello X", 7);
    buffer_clear(&a);
    buffer_clear(&b);
}

Test(buffer, appends_where_its_last_slice_ends_and_not_where_its_block_does)
{
    struct buffer a = {0};
    struct buffer b = {0};
    cr_assert_not(error_is(buffer_append(&a, block_source_heap(), BYTES("hello world"))));
    cr_assert_not(error_is(buffer_move(&a, &b, 6)));
    buffer_clear(&a);
    cr_assert_not(error_is(buffer_append(&b, block_source_heap(), BYTES("X"))));
    expect_content(&b, (const uint8_t *)"hello X", 7);
    buffer_clear(&b);
}

Test(buffer, reports_an_exhausted_source_and_stays_valid)
{
    struct buffer buffer = {0};
    cr_assert_eq(buffer_append(&buffer, &nothing, BYTES("x")).code, ERROR_NO_MEMORY);
    cr_assert(buffer_is_empty(&buffer));
    cr_assert_not(error_is(buffer_append(&buffer, &counted, BYTES("12345678"))));
    cr_assert_eq(buffer_append(&buffer, &nothing, BYTES("9")).code, ERROR_NO_MEMORY);
    expect_content(&buffer, (const uint8_t *)"12345678", 8);
    buffer_clear(&buffer);
}

Test(buffer, copies_any_range_over_slices)
{
    struct buffer buffer = {0};
    uint8_t all[100];
    for (size_t i = 0; i < sizeof(all); i++) {
        all[i] = (uint8_t)i;
        cr_assert(!error_is(buffer_append(&buffer, &counted, bytes_make(&all[i], 1))));
    }
    for (size_t from = 0; from <= sizeof(all); from++) {
        for (size_t to = from; to <= sizeof(all); to++) {
            uint8_t out[100];
            buffer_copy_range(&buffer, from, to - from, out);
            cr_assert_arr_eq(out, all + from, to - from);
        }
    }
    buffer_clear(&buffer);
    cr_assert_eq(blocks_out, 0);
}

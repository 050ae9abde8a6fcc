/* Arena: alignment, caps, marks, resets and the failure hook. */
#include "base/arena.h"

#include <criterion/criterion.h>

Test(arena, gives_aligned_memory_until_the_cap)
{
    struct arena arena;
    arena_init(&arena, 64, 160);
    size_t count = 0;
    for (void *memory = arena_alloc(&arena, 1); memory != NULL; memory = arena_alloc(&arena, 1)) {
        cr_assert_eq((uintptr_t)memory % 16, 0);
        count++;
    }
    cr_assert_eq(count, 10);
    arena_finish(&arena);
    cr_assert_not_null(arena_alloc(&arena, 16));
    arena_finish(&arena);
}

Test(arena, rewinds_to_a_mark_and_keeps_what_came_before)
{
    struct arena arena;
    arena_init(&arena, 32, 4096);
    char *kept = arena_copy_string(&arena, BYTES("kept"));
    struct arena_mark mark = arena_mark(&arena);
    for (int i = 0; i < 20; i++) {
        cr_assert_not_null(arena_alloc(&arena, 30));
    }
    arena_rewind(&arena, mark);
    cr_assert_eq(arena.total_bytes, 32);
    cr_assert_str_eq(kept, "kept");
    arena_finish(&arena);
}

Test(arena, rewinding_to_the_empty_mark_is_a_reset)
{
    struct arena arena;
    arena_init(&arena, 32, 4096);
    struct arena_mark mark = arena_mark(&arena);
    cr_assert_not_null(arena_alloc(&arena, 100));
    arena_rewind(&arena, mark);
    cr_assert_not_null(arena_alloc(&arena, 100));
    arena_finish(&arena);
}

Test(arena, reset_allocates_nothing_the_second_time)
{
    struct arena arena;
    arena_init(&arena, 256, 4096);
    void *first = arena_alloc(&arena, 100);
    cr_assert_not_null(arena_alloc(&arena, 300));
    arena_reset(&arena);
    cr_assert_eq(arena_alloc(&arena, 100), first);
    cr_assert_eq(arena.total_bytes, 256);
    arena_finish(&arena);
}

Test(arena, fails_where_the_hook_says)
{
    struct arena arena;
    arena_init(&arena, 256, 4096);
    arena_fail_after(&arena, 2);
    cr_assert_not_null(arena_alloc(&arena, 1));
    cr_assert_null(arena_alloc(&arena, 1));
    cr_assert_not_null(arena_alloc(&arena, 1));
    arena_finish(&arena);
}

Test(arena, refuses_overflowing_arrays)
{
    struct arena arena;
    arena_init(&arena, 256, SIZE_MAX);
    cr_assert_null(arena_alloc_zero(&arena, SIZE_MAX / 2, 4));
    cr_assert_null(arena_alloc_zero(&arena, SIZE_MAX / 4 + 2, 4)); /* wraps to 4 */
    cr_assert_null(arena_alloc(&arena, SIZE_MAX - 3));
    cr_assert_str_eq(arena_format(&arena, "%s-%d", "a", 7), "a-7");
    arena_finish(&arena);
}

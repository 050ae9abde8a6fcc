/* Slab: bounds, reuse, and what survives it. */
#include "base/slab.h"

#include <criterion/criterion.h>

Test(slab, gives_no_more_than_its_bound_and_takes_back)
{
    struct slab slab = {0};
    cr_assert(!error_is(slab_init(&slab, 24, 3)));
    void *objects[3];
    for (int i = 0; i < 3; i++) {
        objects[i] = slab_take(&slab);
        cr_assert_not_null(objects[i]);
        cr_assert_eq((uintptr_t)objects[i] % 16, 0);
    }
    cr_assert_null(slab_take(&slab));
    slab_put(&slab, objects[1]);
    cr_assert_eq(slab.used, 2);
    cr_assert_eq(slab_take(&slab), objects[1]);
    cr_assert_null(slab_take(&slab));
    slab_finish(&slab);
}

Test(slab, keeps_the_bytes_of_an_object_between_its_lives)
{
    struct slab slab = {0};
    cr_assert(!error_is(slab_init(&slab, 64, 8)));
    unsigned char *object = slab_take(&slab);
    for (int i = 0; i < 64; i++) {
        cr_assert_eq(object[i], 0);
        object[i] = (unsigned char)i;
    }
    slab_put(&slab, object);
    unsigned char *again = slab_take(&slab);
    cr_assert_eq(again, object);
    cr_assert_eq(again[0], 0);
    cr_assert_eq(again[63], 63);
    cr_assert_eq(slab_at(&slab, 0), object);
    slab_finish(&slab);
}

Test(slab, fails_where_the_hook_says)
{
    struct slab slab = {0};
    cr_assert(!error_is(slab_init(&slab, 8, 8)));
    slab.fail_after = 2;
    cr_assert_not_null(slab_take(&slab));
    cr_assert_null(slab_take(&slab));
    cr_assert_not_null(slab_take(&slab));
    slab_finish(&slab);
}

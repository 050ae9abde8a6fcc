/* A reload on top of what was there is a load from nothing, only cheaper. */
#include "routes/reload_random.h"

#include <criterion/criterion.h>

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum {
    SEEDS = 6,
    STEPS = 120 / OUTRIGGER_TEST_DIVISOR,
};

Test(reload, says_and_is_the_same_as_a_load_from_nothing)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = (uint64_t)now.tv_sec;
    (void)fprintf(stderr, "seed %" PRIu64 ": %d x %d steps\n", seed, SEEDS, STEPS);
    struct reload_report sum = {0};
    for (uint64_t i = 0; i < SEEDS; i++) {
        struct reload_report report = reload_compare(seed + i, STEPS);
        cr_assert_eq(report.differences, 0, "seed %" PRIu64, seed + i);
        cr_assert_eq(report.steps, STEPS);
        sum.taken += report.taken;
        sum.files_shared += report.files_shared;
        sum.objects_shared += report.objects_shared;
        sum.tables_shared += report.tables_shared;
    }
    /* It proves nothing when little is taken or nothing is shared. */
    cr_assert_gt(sum.taken, SEEDS * STEPS / 4, "seed %" PRIu64 ": %" PRIu64, seed, sum.taken);
    cr_assert(sum.files_shared > 0 && sum.objects_shared > 0 && sum.tables_shared > 0,
              "seed %" PRIu64, seed);
}

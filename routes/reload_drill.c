/*
 * Reloads compared with loads from nothing, in full length.
 *
 *     reload_drill [SEEDS [STEPS [FIRST_SEED]]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/bytes.h"
#include "routes/reload_random.h"

/* A number of the command line, or `absent`. */
static uint64_t take_number(const char *text, uint64_t absent)
{
    uint64_t number = 0;
    bool is_number = text != NULL &&
                     !error_is(bytes_parse_decimal(bytes_from_string(text), UINT64_MAX, &number));
    return is_number ? number : absent;
}

int main(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seeds = take_number(argc > 1 ? argv[1] : NULL, 50);
    uint32_t steps = (uint32_t)take_number(argc > 2 ? argv[2] : NULL, 400);
    uint64_t first = take_number(argc > 3 ? argv[3] : NULL, (uint64_t)now.tv_sec);
    struct reload_report sum = {0};
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        struct reload_report report = reload_compare(seed, steps);
        sum.steps += report.steps;
        sum.taken += report.taken;
        sum.refused += report.refused;
        sum.files_shared += report.files_shared;
        sum.objects_shared += report.objects_shared;
        sum.tables_shared += report.tables_shared;
        sum.differences += report.differences;
    }
    printf("seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " steps, %" PRIu64 " taken, %" PRIu64
           " refused; shared: %" PRIu64 " files, %" PRIu64 " objects, %" PRIu64 " tables; %" PRIu64
           " differences\n",
           first, first + seeds - 1, sum.steps, sum.taken, sum.refused, sum.files_shared,
           sum.objects_shared, sum.tables_shared, sum.differences);
    return sum.differences == 0 ? 0 : 1;
}

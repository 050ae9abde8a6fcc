/*
 * The long form of the comparison of index and naive walk.
 *
 *   match_drill [SEED [TABLES [REQUESTS]]]      without arguments: seed of the clock, 2000 tables,
 * 500 requests on each
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"
#include "routes/table_random.h"

int main(int argc, char **argv)
{
    uint64_t numbers[3] = {(uint64_t)time(NULL), 2000, 500};
    for (int i = 1; i < argc; i++) {
        if (i > 3 ||
            error_is(bytes_parse_decimal(bytes_from_string(argv[i]),
                                         i == 1 ? UINT64_MAX : UINT32_MAX, &numbers[i - 1]))) {
            (void)fprintf(stderr, "usage: match_drill [SEED [TABLES [REQUESTS]]]\n");
            return 2;
        }
    }
    struct random_report report =
        random_compare(numbers[0], (uint32_t)numbers[1], (uint32_t)numbers[2]);
    (void)printf("seed=%" PRIu64 " tables=%" PRIu64 " requests=%" PRIu64 " matched=%" PRIu64
                 " unmatched=%" PRIu64 " over_limit=%" PRIu64 " needed_body=%" PRIu64
                 " preflights=%" PRIu64 " disagreements=%" PRIu64 "\n",
                 numbers[0], report.tables, report.requests, report.matched, report.unmatched,
                 report.over_limit, report.needed_body, report.preflights, report.disagreements);
    return report.disagreements == 0 ? 0 : 1;
}

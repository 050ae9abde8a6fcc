/*
 * Random edits of a configuration from a seed, each loaded twice: on top of the configuration
 * before it, and from nothing. The two must say and be the same. For tests and the drill only; not
 * part of the library.
 */
#pragma once

#include <stdint.h>

struct reload_report {
    uint64_t steps;
    uint64_t taken;
    uint64_t refused;
    uint64_t files_shared;
    uint64_t objects_shared; /* of files that were parsed */
    uint64_t tables_shared;
    uint64_t differences;
};

/* Make `steps` edits of one configuration in a directory of its own. The first differences are
 * printed to standard error with what is needed to repeat them. */
struct reload_report reload_compare(uint64_t seed, uint32_t steps);

/*
 * How cells lie in memory. Private to stats.c, where a worker writes them, and stats_read.c, where
 * the control thread reads them.
 *
 * Read by the control thread: `all` up to `count`, and the cells. The hash table is the worker's
 * alone.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "control/stats.h"
#include "proxy/cause.h"

enum {
    STATS_SERIES_MAX = 8192,
    STATS_SLOTS = 2 * STATS_SERIES_MAX, /* a power of two: the table is at most half full */
    STATS_BUCKETS = 16,
    LABELS_MAX = 5,
};

enum series_kind {
    SERIES_REQUESTS,         /* labels: parent, route, rule, backend */
    SERIES_DURATION,         /* parent, route */
    SERIES_RULE_HITS,        /* parent, route, rule */
    SERIES_ENDPOINT_FAILURE, /* backend */
    SERIES_FALLBACK,         /* backend */
    SERIES_KIND_COUNT
};

/* Upper bounds in seconds, the same for every histogram. */
extern const double stats_bucket_seconds[STATS_BUCKETS];

/* What makes a series: its kind, its texts and its small numbers packed into one word. */
struct series_key {
    enum series_kind kind;
    uint32_t numbers; /* direction, code and grpc status; or a cause */
    struct bytes labels[LABELS_MAX];
    uint32_t labels_count;
};

struct series {
    uint64_t hash;
    struct series_key key;    /* its texts live behind the struct */
    struct stats_cell count;  /* of everything */
    struct stats_cell sum_us; /* SERIES_DURATION */
    struct stats_cell *buckets;
};

struct stats {
    struct stats_cell connections[STATS_DIRECTION_COUNT][STATS_PROTOCOL_COUNT][2];
    struct stats_cell active[STATS_DIRECTION_COUNT];
    struct stats_cell received[STATS_DIRECTION_COUNT];
    struct stats_cell sent[STATS_DIRECTION_COUNT];
    struct stats_cell refused[CAUSE_COUNT];
    struct stats_cell destinations[STATS_DESTINATION_COUNT];
    struct stats_cell folded;
    _Atomic uint32_t count;
    struct series *_Atomic all[STATS_SERIES_MAX + SERIES_KIND_COUNT];
    struct series *slots[STATS_SLOTS];
    struct series *others[SERIES_KIND_COUNT];
    uint32_t worker;
};

/* Is it the same series? */
bool stats_key_equal(const struct series_key *a, const struct series_key *b);

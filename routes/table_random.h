/*
 * Random routes and random requests from a seed, made to meet each other often. For tests, the
 * drill and the benchmark only; not part of the library.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "routes/match.h"
#include "routes/resource.h"
#include "routes/table.h"

struct random_source {
    uint64_t state;
};

/* The next number (splitmix64); any seed is good. */
uint64_t random_next(struct random_source *random);

/* A number below `bound`. */
uint32_t random_below(struct random_source *random, uint32_t bound);

/* Routes of one kind with everything that can be matched on, small alphabets, ties, repeated names
 * and, now and then, so many matches on one path that the index divides them. CHECKs that the arena
 * suffices. */
struct route_table_port random_port(struct random_source *random, struct arena *arena);

/* A request that may well match what random_port makes. */
struct route_request random_request(struct random_source *random, enum route_kind kind,
                                    struct arena *arena);

/* Let the routes of random_port go. */
void random_port_release(const struct route_table_port *port);

/* A resolver that finds every backend valid, and a BodyMatch for every name but "missing". */
void random_resolver_init(struct route_table_resolver *resolver);

/* Let what it holds go. */
void random_resolver_finish(struct route_table_resolver *resolver);

struct random_report {
    uint64_t tables;
    uint64_t requests;
    uint64_t matched;
    uint64_t unmatched;
    uint64_t over_limit;
    uint64_t needed_body;
    uint64_t preflights;
    uint64_t disagreements;
};

/* Compile `tables` random tables, judge `requests` random requests on each by route_match and by
 * the naive walk of explain, and print the first disagreements to standard error with what is
 * needed to repeat them. */
struct random_report random_compare(uint64_t seed, uint32_t tables, uint32_t requests);

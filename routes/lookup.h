/*
 * The index of a port's candidates: from what a request shows (path, gRPC service and method, SNI)
 * to the few candidates that it can match, in order of rank. Internal to routes/: table.c builds
 * it, match.c reads it.
 *
 * Candidates that the index cannot tell apart by these are one list. A list lies wholly before or
 * after another in precedence (exact before prefixes, the longer prefix first, regular expressions
 * last), so match.c takes lists in that order and stops at the first that holds. A long list whose
 * candidates ask for exact headers or query parameters is divided again, by one such predicate of
 * each candidate, its `fact`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/candidate.h"
#include "routes/table.h"

#define ROUTE_LIST_NONE UINT32_MAX
#define ROUTE_LIST_LONG 8 /* from here on a list is divided by facts */
#define ROUTE_HASH_SEED UINT64_C(0xcbf29ce484222325)

struct route_slot {
    uint64_t hash;
    struct bytes key; /* borrowed from the candidate; NULL where the hash alone is compared */
    uint32_t value;   /* of a list, or the first rank of a group */
    uint32_t last;    /* of a group: its last rank so far */
    bool is_used;
};

/* Open addressing, never more than half full; built once. */
struct route_hash {
    struct route_slot *slots; /* NULL while empty */
    uint32_t mask;
};

struct route_list {
    uint32_t first; /* chain of all: candidate.next_in_list */
    uint32_t last;
    uint32_t count;
    uint32_t plain; /* chain of those without a fact: candidate.next_in_group */
    bool is_divided;
    bool is_regex; /* never divided: what such a list costs is the expressions */
};

struct route_lookup {
    struct route_hash exact;   /* path; "/service/method"; host name */
    struct route_hash prefix;  /* path; "/service"; ".suffix.of.a.host" */
    struct route_hash regexes; /* HTTPRoute: whole segments that an expression begins with */
    struct route_hash method;  /* gRPC method of any service */
    struct route_hash groups;  /* fact of a list */
    struct route_hash names;   /* of headers and query parameters that facts are made of */
    struct route_list *lists;
    uint32_t lists_count;
    uint32_t regex; /* list of the other expressions, or NONE */
    uint32_t any;   /* list, or NONE */
    uint32_t exact_bytes_max;
    uint32_t prefix_bytes_max;
    uint32_t regexes_bytes_max;
};

struct route_rules {
    enum route_kind kind;
    enum route_set set;
    struct route_candidate *candidates; /* by rank */
    uint32_t candidates_count;
    struct route_table_rule *rules;
    uint32_t rules_count;
    struct route_lookup lookup;
};

/* FNV-1a, because it goes byte by byte and so gives the hash of every prefix of a path on the way.
 */
static inline uint64_t route_hash_byte(uint64_t hash, uint8_t byte)
{
    return (hash ^ byte) * UINT64_C(0x100000001b3);
}

static inline uint64_t route_hash_bytes(uint64_t hash, struct bytes bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        hash = route_hash_byte(hash, bytes.data[i]);
    }
    return hash;
}

static inline uint64_t route_hash_bytes_lower(uint64_t hash, struct bytes bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        hash = route_hash_byte(hash, byte_lower(bytes.data[i]));
    }
    return hash;
}

/* Where facts begin: a header and a query parameter of one name are two. */
enum route_fact_kind {
    ROUTE_FACT_HEADER,
    ROUTE_FACT_QUERY_PARAM,
};

/* The hash of a name that facts are made of; `name` of a header in any case, of a parameter
 * decoded. */
static inline uint64_t route_fact_name(enum route_fact_kind kind, struct bytes name)
{
    uint64_t hash = route_hash_byte(ROUTE_HASH_SEED, (uint8_t)kind);
    hash = kind == ROUTE_FACT_HEADER ? route_hash_bytes_lower(hash, name)
                                     : route_hash_bytes(hash, name);
    return route_hash_byte(hash, '=');
}

/* A fact (name and value) within one list. */
static inline uint64_t route_fact_in_list(uint64_t fact, uint32_t list)
{
    return (fact ^ list) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline struct route_slot *route_hash_find(const struct route_hash *table, uint64_t hash,
                                                 struct bytes key)
{
    if (table->slots == NULL) {
        return NULL;
    }
    /* The high bits of FNV are its good ones. */
    uint32_t at = (uint32_t)(hash ^ (hash >> 32)) & table->mask;
    while (table->slots[at].is_used) {
        struct route_slot *slot = &table->slots[at];
        if (slot->hash == hash && (slot->key.data == NULL || bytes_equal(slot->key, key))) {
            return slot;
        }
        at = (at + 1) & table->mask;
    }
    return NULL;
}

/* Build `rules->lookup` from its candidates, which are sorted and ranked. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_lookup_build(struct route_rules *rules, struct arena *arena);

/*
 * Candidates come in order of rank, so appending each to its list keeps every chain in that order.
 */
#include "routes/lookup.h"

#include <stdlib.h>

#include "base/check.h"

static struct error hash_init(struct route_hash *table, uint32_t entries_max, struct arena *arena)
{
    if (entries_max == 0) {
        return OK;
    }
    CHECK(entries_max <= UINT32_MAX / 4);
    uint32_t size = 4;
    while (size < entries_max * 2) {
        size *= 2;
    }
    table->slots = arena_alloc_zero(arena, size, sizeof(*table->slots));
    if (table->slots == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    table->mask = size - 1;
    return OK;
}

/* The slot of that key, made when it was not there yet. */
static struct route_slot *hash_insert(struct route_hash *table, uint64_t hash, struct bytes key)
{
    struct route_slot *found = route_hash_find(table, hash, key);
    if (found != NULL) {
        return found;
    }
    uint32_t at = (uint32_t)(hash ^ (hash >> 32)) & table->mask;
    while (table->slots[at].is_used) {
        at = (at + 1) & table->mask;
    }
    table->slots[at] = (struct route_slot){
        .hash = hash,
        .key = key,
        .value = ROUTE_LIST_NONE,
        .last = ROUTE_LIST_NONE,
        .is_used = true,
    };
    return &table->slots[at];
}

/* Which of the index's parts a candidate is found by. */
enum place {
    PLACE_EXACT,
    PLACE_PREFIX,
    PLACE_METHOD,
    PLACE_REGEX_PREFIX,
    PLACE_REGEX,
    PLACE_ANY,
    PLACE_COUNT,
};

/* The whole segments at the beginning of an expression's literal: "/api/v" gives "/api". */
static struct bytes find_segments(const struct route_candidate *candidate)
{
    struct bytes literal = {0};
    if (candidate->kind == ROUTE_KIND_HTTP_ROUTE) {
        literal = route_regex_literal(candidate->path_regex);
    }
    while (literal.size > 0 && literal.data[literal.size - 1] != '/') {
        literal.size--;
    }
    return literal.size > 1 ? bytes_first(literal, literal.size - 1) : (struct bytes){0};
}

static enum place find_place(const struct route_candidate *candidate)
{
    if (candidate->type == ROUTE_MATCH_REGEX) {
        return find_segments(candidate).size > 0 ? PLACE_REGEX_PREFIX : PLACE_REGEX;
    }
    if (candidate->kind == ROUTE_KIND_GRPC_ROUTE) {
        if (candidate->service.data != NULL) {
            return candidate->method.data != NULL ? PLACE_EXACT : PLACE_PREFIX;
        }
        return candidate->method.data != NULL ? PLACE_METHOD : PLACE_ANY;
    }
    if (candidate->type == ROUTE_MATCH_EXACT) {
        return PLACE_EXACT;
    }
    return candidate->type == ROUTE_MATCH_PREFIX ? PLACE_PREFIX : PLACE_ANY;
}

/* What the request's bytes are compared with; for gRPC table_candidate.c has put "/service/method"
 * in `path`.
 */
static uint64_t hash_key(const struct route_candidate *candidate, struct bytes key)
{
    return candidate->kind == ROUTE_KIND_TLS_ROUTE ? route_hash_bytes_lower(ROUTE_HASH_SEED, key)
                                                   : route_hash_bytes(ROUTE_HASH_SEED, key);
}

static uint32_t new_list(struct route_lookup *lookup)
{
    lookup->lists[lookup->lists_count] = (struct route_list){
        .first = ROUTE_RANK_NONE, .last = ROUTE_RANK_NONE, .plain = ROUTE_RANK_NONE};
    return lookup->lists_count++;
}

static uint32_t find_list(struct route_lookup *lookup, const struct route_candidate *candidate)
{
    enum place place = find_place(candidate);
    struct route_hash *table = NULL;
    struct bytes key = candidate->path;
    switch (place) {
    case PLACE_EXACT:
        table = &lookup->exact;
        break;
    case PLACE_PREFIX:
        table = &lookup->prefix;
        break;
    case PLACE_METHOD:
        table = &lookup->method;
        key = candidate->method;
        break;
    case PLACE_REGEX_PREFIX:
        table = &lookup->regexes;
        key = find_segments(candidate);
        break;
    case PLACE_REGEX:
    case PLACE_ANY:
    case PLACE_COUNT:
        break;
    }
    uint32_t *list = place == PLACE_REGEX ? &lookup->regex : &lookup->any;
    if (table != NULL) {
        list = &hash_insert(table, hash_key(candidate, key), key)->value;
    }
    if (*list == ROUTE_LIST_NONE) {
        *list = new_list(lookup);
        lookup->lists[*list].is_regex = candidate->type == ROUTE_MATCH_REGEX;
    }
    return *list;
}

static void append(struct route_rules *rules, struct route_list *list,
                   struct route_candidate *candidate)
{
    candidate->next_in_list = ROUTE_RANK_NONE;
    candidate->next_in_group = ROUTE_RANK_NONE;
    if (list->last == ROUTE_RANK_NONE) {
        list->first = candidate->rank;
        list->plain = candidate->rank;
    } else {
        rules->candidates[list->last].next_in_list = candidate->rank;
        rules->candidates[list->last].next_in_group = candidate->rank;
    }
    list->last = candidate->rank;
    list->count++;
}

/* ---- Long lists, divided by facts ---- */

static int compare_hashes(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static uint64_t fact_of(enum route_fact_kind kind, const struct route_value_predicate *predicate)
{
    return route_hash_bytes(route_fact_name(kind, predicate->name), predicate->value);
}

/* Every exact predicate of the list's candidates as a fact; returns how many there are. */
static uint32_t collect_facts(const struct route_rules *rules, const struct route_list *list,
                              uint64_t *facts)
{
    uint32_t count = 0;
    for (uint32_t rank = list->first; rank != ROUTE_RANK_NONE;
         rank = rules->candidates[rank].next_in_list) {
        const struct route_candidate *candidate = &rules->candidates[rank];
        for (uint32_t i = 0; i < candidate->headers_count; i++) {
            if (candidate->headers[i].regex == NULL) {
                facts[count++] = fact_of(ROUTE_FACT_HEADER, &candidate->headers[i]);
            }
        }
        for (uint32_t i = 0; i < candidate->query_params_count; i++) {
            if (candidate->query_params[i].regex == NULL) {
                facts[count++] = fact_of(ROUTE_FACT_QUERY_PARAM, &candidate->query_params[i]);
            }
        }
    }
    return count;
}

static uint32_t count_predicates(const struct route_rules *rules, const struct route_list *list)
{
    uint32_t count = 0;
    for (uint32_t rank = list->first; rank != ROUTE_RANK_NONE;
         rank = rules->candidates[rank].next_in_list) {
        count += rules->candidates[rank].headers_count;
        count += rules->candidates[rank].query_params_count;
    }
    return count;
}

struct facts {
    const uint64_t *sorted;
    uint32_t count;
};

static uint32_t count_fact(const struct facts *facts, uint64_t fact)
{
    uint32_t low = 0;
    uint32_t high = facts->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (facts->sorted[middle] < fact) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    uint32_t count = 0;
    while (low + count < facts->count && facts->sorted[low + count] == fact) {
        count++;
    }
    return count;
}

struct choice {
    uint64_t fact;
    uint64_t name;
    uint32_t count; /* UINT32_MAX: none */
};

static void consider(const struct facts *facts, enum route_fact_kind kind,
                     const struct route_value_predicate *predicates, uint32_t count,
                     struct choice *choice)
{
    for (uint32_t i = 0; i < count; i++) {
        if (predicates[i].regex != NULL) {
            continue;
        }
        uint64_t fact = fact_of(kind, &predicates[i]);
        uint32_t shared_by = count_fact(facts, fact);
        if (shared_by < choice->count) {
            *choice = (struct choice){fact, route_fact_name(kind, predicates[i].name), shared_by};
        }
    }
}

/* Put every candidate under the fact that it shares with the fewest others. */
static void divide(struct route_rules *rules, uint32_t list_index, const struct facts *facts)
{
    struct route_lookup *lookup = &rules->lookup;
    struct route_list *list = &lookup->lists[list_index];
    uint32_t *plain_end = &list->plain;
    list->plain = ROUTE_RANK_NONE;
    list->is_divided = true;
    for (uint32_t rank = list->first; rank != ROUTE_RANK_NONE;
         rank = rules->candidates[rank].next_in_list) {
        struct route_candidate *candidate = &rules->candidates[rank];
        struct choice choice = {.count = UINT32_MAX};
        consider(facts, ROUTE_FACT_HEADER, candidate->headers, candidate->headers_count, &choice);
        consider(facts, ROUTE_FACT_QUERY_PARAM, candidate->query_params,
                 candidate->query_params_count, &choice);
        candidate->next_in_group = ROUTE_RANK_NONE;
        if (choice.count == UINT32_MAX) {
            *plain_end = rank;
            plain_end = &candidate->next_in_group;
            continue;
        }
        (void)hash_insert(&lookup->names, choice.name, (struct bytes){0});
        struct route_slot *group = hash_insert(
            &lookup->groups, route_fact_in_list(choice.fact, list_index), (struct bytes){0});
        if (group->last == ROUTE_LIST_NONE) {
            group->value = rank;
        } else {
            rules->candidates[group->last].next_in_group = rank;
        }
        group->last = rank;
    }
}

static struct error divide_long_lists(struct route_rules *rules, struct arena *arena)
{
    struct route_lookup *lookup = &rules->lookup;
    uint32_t members = 0;
    for (uint32_t i = 0; i < lookup->lists_count; i++) {
        if (!lookup->lists[i].is_regex && lookup->lists[i].count >= ROUTE_LIST_LONG) {
            members += lookup->lists[i].count;
        }
    }
    if (members == 0) {
        return OK;
    }
    TRY(hash_init(&lookup->groups, members, arena));
    TRY(hash_init(&lookup->names, members, arena));
    for (uint32_t i = 0; i < lookup->lists_count; i++) {
        struct route_list *list = &lookup->lists[i];
        if (list->is_regex || list->count < ROUTE_LIST_LONG) {
            continue;
        }
        struct arena_mark mark = arena_mark(arena);
        uint64_t *sorted =
            arena_alloc_zero(arena, count_predicates(rules, list) + 1, sizeof(*sorted));
        if (sorted == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        struct facts facts = {sorted, collect_facts(rules, list, sorted)};
        qsort(sorted, facts.count, sizeof(*sorted), compare_hashes);
        if (facts.count > 0) {
            divide(rules, i, &facts);
        }
        arena_rewind(arena, mark);
    }
    return OK;
}

static void raise_to(uint32_t *max, size_t size)
{
    *max = size > *max ? (uint32_t)size : *max;
}

struct error route_lookup_build(struct route_rules *rules, struct arena *arena)
{
    CHECK(rules != NULL);
    struct route_lookup *lookup = &rules->lookup;
    *lookup = (struct route_lookup){.regex = ROUTE_LIST_NONE, .any = ROUTE_LIST_NONE};
    uint32_t counts[PLACE_COUNT] = {0};
    for (uint32_t i = 0; i < rules->candidates_count; i++) {
        const struct route_candidate *candidate = &rules->candidates[i];
        enum place place = find_place(candidate);
        counts[place]++;
        if (place == PLACE_EXACT) {
            raise_to(&lookup->exact_bytes_max, candidate->path.size);
        } else if (place == PLACE_PREFIX) {
            raise_to(&lookup->prefix_bytes_max, candidate->path.size);
        } else if (place == PLACE_REGEX_PREFIX) {
            raise_to(&lookup->regexes_bytes_max, find_segments(candidate).size);
        }
    }
    TRY(hash_init(&lookup->exact, counts[PLACE_EXACT], arena));
    TRY(hash_init(&lookup->prefix, counts[PLACE_PREFIX], arena));
    TRY(hash_init(&lookup->regexes, counts[PLACE_REGEX_PREFIX], arena));
    TRY(hash_init(&lookup->method, counts[PLACE_METHOD], arena));
    lookup->lists = arena_alloc_zero(arena, rules->candidates_count, sizeof(*lookup->lists));
    if (lookup->lists == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < rules->candidates_count; i++) {
        struct route_candidate *candidate = &rules->candidates[i];
        append(rules, &lookup->lists[find_list(lookup, candidate)], candidate);
    }
    return divide_long_lists(rules, arena);
}

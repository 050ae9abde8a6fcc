/*
 * Lists are visited in order of precedence; within one, the chain of candidates without a fact and
 * the groups of the facts that the request shows. The first list with an answer ends the search,
 * and within it the lowest rank.
 *
 * A regular expression over its limit is an answer too (500), at its rank: what ranks above may
 * still take the request, what ranks below may not.
 */
#include "routes/match.h"

#include "base/check.h"
#include "routes/candidate.h"
#include "routes/lookup.h"

enum {
    FACTS_MAX = 64, /* of a request; with more, divided lists are walked whole */
    PREFIXES_MAX =
        513, /* a PathPrefix has at most 1024 bytes, so at most 512 segments, and the root */
    REGEX_PREFIXES_MAX = 33, /* an expression's literal has at most 64 bytes */
    RESUME_PREFLIGHT = 1 << 30,
};

struct search {
    const struct route_rules *rules;
    const struct route_request *request;
    struct route_scratch *scratch;
    uint32_t rank_min; /* candidates before this were judged in an earlier call */
    uint32_t rank;     /* best so far, or ROUTE_RANK_NONE */
    enum route_answer answer;
    bool has_facts;
    bool has_too_many_facts;
    uint32_t facts_count;
    uint64_t facts[FACTS_MAX];
};

/* ---- Facts: what the request shows of the names that divided lists ask for ---- */

static void add_fact(struct search *search, uint64_t fact)
{
    if (search->facts_count == FACTS_MAX) {
        search->has_too_many_facts = true;
        return;
    }
    search->facts[search->facts_count++] = fact;
}

static bool is_wanted(const struct search *search, uint64_t name)
{
    return route_hash_find(&search->rules->lookup.names, name, (struct bytes){0}) != NULL;
}

/* Hash the value of the field at `first`, joined with those of the same name after it; false when
 * one came before. */
static bool hash_field(const struct route_request *request, size_t first, uint64_t *hash)
{
    struct bytes name = route_request_field(request, first)->name;
    for (size_t i = 0; i < request->fields_count; i++) {
        const struct route_field *field = route_request_field(request, i);
        if (i == first) {
            *hash = route_hash_bytes(*hash, field->value);
        } else if (bytes_equal_nocase(field->name, name)) {
            if (i < first) {
                return false;
            }
            *hash = route_hash_bytes(*hash, route_field_separator(name));
            *hash = route_hash_bytes(*hash, field->value);
        }
    }
    return true;
}

static void find_header_facts(struct search *search)
{
    const struct route_request *request = search->request;
    for (size_t i = 0; i < request->fields_count; i++) {
        uint64_t hash = route_fact_name(ROUTE_FACT_HEADER, route_request_field(request, i)->name);
        if (is_wanted(search, hash) && hash_field(request, i, &hash)) {
            add_fact(search, hash);
        }
    }
    uint64_t host = route_fact_name(ROUTE_FACT_HEADER, BYTES("host"));
    if (is_wanted(search, host)) {
        add_fact(search, route_hash_bytes(host, request->authority));
    }
}

static uint64_t hash_decoded(uint64_t hash, struct bytes encoded)
{
    uint8_t decoded[256];
    while (encoded.size > 0) {
        /* In pieces, none of which may end within a "%xx". */
        struct bytes piece = bytes_first(encoded, sizeof(decoded));
        if (piece.size < encoded.size) {
            size_t back = piece.data[piece.size - 1] == '%'   ? 1
                          : piece.data[piece.size - 2] == '%' ? 2
                                                              : 0;
            piece.size -= back;
        }
        size_t size = route_query_decode(piece, decoded);
        hash = route_hash_bytes(hash, bytes_make(decoded, size));
        encoded = bytes_skip(encoded, piece.size);
    }
    return hash;
}

/* A repeated key gives a fact for each of its values; the predicate itself then looks at the first
 * only. */
static void find_query_facts(struct search *search)
{
    struct bytes query = search->request->query;
    struct bytes key;
    struct bytes value;
    while (route_query_next(&query, &key, &value) && !search->has_too_many_facts) {
        uint64_t name = route_hash_byte(ROUTE_HASH_SEED, (uint8_t)ROUTE_FACT_QUERY_PARAM);
        name = route_hash_byte(hash_decoded(name, key), '=');
        if (is_wanted(search, name)) {
            add_fact(search, hash_decoded(name, value));
        }
    }
}

/* ---- Lists ---- */

static void judge(struct search *search, const struct route_candidate *candidate)
{
    struct route_failure failure = {0};
    if (candidate->rank < search->rank_min) {
        return;
    }
    enum route_answer answer =
        route_candidate_check_rest(candidate, search->request, search->scratch, &failure);
    if (answer != ROUTE_NO) {
        search->rank = candidate->rank;
        search->answer = answer;
    }
}

/* Judge a chain up to the first answer, or to the rank of the one that is known. */
static void judge_group(struct search *search, uint32_t first)
{
    const struct route_candidate *candidates = search->rules->candidates;
    for (uint32_t rank = first; rank < search->rank; rank = candidates[rank].next_in_group) {
        judge(search, &candidates[rank]);
    }
}

static void judge_all(struct search *search, uint32_t first)
{
    const struct route_candidate *candidates = search->rules->candidates;
    for (uint32_t rank = first; rank < search->rank; rank = candidates[rank].next_in_list) {
        judge(search, &candidates[rank]);
    }
}

/* Judge a list; true when it has the answer. */
static bool judge_list(struct search *search, uint32_t list_index)
{
    if (list_index == ROUTE_LIST_NONE) {
        return false;
    }
    const struct route_lookup *lookup = &search->rules->lookup;
    const struct route_list *list = &lookup->lists[list_index];
    if (list->is_divided && !search->has_facts) {
        find_header_facts(search);
        find_query_facts(search);
        search->has_facts = true;
    }
    if (list->is_divided && search->has_too_many_facts) {
        judge_all(search, list->first);
        return search->rank != ROUTE_RANK_NONE;
    }
    judge_group(search, list->plain);
    for (uint32_t i = 0; list->is_divided && i < search->facts_count; i++) {
        const struct route_slot *group = route_hash_find(
            &lookup->groups, route_fact_in_list(search->facts[i], list_index), (struct bytes){0});
        if (group != NULL) {
            judge_group(search, group->value);
        }
    }
    return search->rank != ROUTE_RANK_NONE;
}

/* ---- Kinds ---- */

/* The lists that a path leads to, shortest prefix first. */
struct path_lists {
    uint32_t prefixes[PREFIXES_MAX];
    uint32_t prefixes_count;
    uint32_t regexes[REGEX_PREFIXES_MAX];
    uint32_t regexes_count;
};

/* Add what is found under the first `size` bytes of the path, whose hash is `hash`. */
static void visit_prefix(const struct route_lookup *lookup, struct bytes prefix, uint64_t hash,
                         struct path_lists *lists)
{
    if (prefix.size <= lookup->prefix_bytes_max && lists->prefixes_count < PREFIXES_MAX) {
        const struct route_slot *slot = route_hash_find(&lookup->prefix, hash, prefix);
        if (slot != NULL) {
            lists->prefixes[lists->prefixes_count++] = slot->value;
        }
    }
    if (prefix.size <= lookup->regexes_bytes_max && lists->regexes_count < REGEX_PREFIXES_MAX) {
        const struct route_slot *slot = route_hash_find(&lookup->regexes, hash, prefix);
        if (slot != NULL) {
            lists->regexes[lists->regexes_count++] = slot->value;
        }
    }
}

static size_t longest_key(const struct route_lookup *lookup)
{
    size_t longest = lookup->exact_bytes_max;
    longest = lookup->prefix_bytes_max > longest ? lookup->prefix_bytes_max : longest;
    return lookup->regexes_bytes_max > longest ? lookup->regexes_bytes_max : longest;
}

static void search_http(struct search *search)
{
    const struct route_lookup *lookup = &search->rules->lookup;
    struct bytes path = search->request->path;
    struct path_lists lists;
    lists.prefixes_count = 0; /* only what is counted is written */
    lists.regexes_count = 0;
    size_t longest = longest_key(lookup);
    uint64_t hash = ROUTE_HASH_SEED;
    size_t at = 0;
    for (; at < path.size && at <= longest; at++) {
        if (path.data[at] == '/') {
            visit_prefix(lookup, bytes_first(path, at), hash, &lists);
        }
        hash = route_hash_byte(hash, path.data[at]);
    }
    if (at == path.size) {
        const struct route_slot *exact = route_hash_find(&lookup->exact, hash, path);
        if (exact != NULL && judge_list(search, exact->value)) {
            return;
        }
        const struct route_slot *whole = route_hash_find(&lookup->prefix, hash, path);
        if (whole != NULL && judge_list(search, whole->value)) {
            return;
        }
    }
    while (lists.prefixes_count > 0) {
        if (judge_list(search, lists.prefixes[--lists.prefixes_count])) {
            return;
        }
    }
    /* Expressions are ordered by their own length, not by where they are found: the lowest rank of
     * all lists. */
    (void)judge_list(search, lookup->regex);
    for (uint32_t i = 0; i < lists.regexes_count; i++) {
        (void)judge_list(search, lists.regexes[i]);
    }
}

static bool judge_key(struct search *search, const struct route_hash *table, struct bytes key)
{
    const struct route_slot *slot =
        route_hash_find(table, route_hash_bytes(ROUTE_HASH_SEED, key), key);
    return slot != NULL && judge_list(search, slot->value);
}

static void search_grpc(struct search *search)
{
    const struct route_lookup *lookup = &search->rules->lookup;
    struct bytes path = search->request->path;
    struct bytes service;
    struct bytes method;
    if (!route_request_is_grpc(search->request)) {
        return;
    }
    if (route_grpc_split(path, &service, &method)) {
        if (judge_key(search, &lookup->exact, path) ||
            judge_key(search, &lookup->prefix, bytes_first(path, service.size + 1)) ||
            judge_key(search, &lookup->method, method) || judge_list(search, lookup->regex)) {
            return;
        }
    }
    (void)judge_list(search, lookup->any);
}

static bool judge_name(struct search *search, const struct route_hash *table, struct bytes name)
{
    uint8_t lower[256];
    if (name.size > sizeof(lower)) {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        lower[i] = byte_lower(name.data[i]);
    }
    return judge_key(search, table, bytes_make(lower, name.size));
}

static void search_tls(struct search *search)
{
    const struct route_lookup *lookup = &search->rules->lookup;
    struct bytes sni = search->request->sni;
    if (sni.size > 0 && judge_name(search, &lookup->exact, sni)) {
        return;
    }
    for (size_t i = 1; i < sni.size; i++) {
        if (sni.data[i] == '.' && judge_name(search, &lookup->prefix, bytes_skip(sni, i))) {
            return;
        }
    }
    (void)judge_list(search, lookup->any);
}

static void run_search(struct search *search)
{
    enum route_kind kind = search->rules->kind;
    if (kind == ROUTE_KIND_HTTP_ROUTE) {
        search_http(search);
    } else if (kind == ROUTE_KIND_GRPC_ROUTE) {
        search_grpc(search);
    } else if (kind == ROUTE_KIND_TLS_ROUTE) {
        search_tls(search);
    } else {
        (void)judge_list(search,
                         search->rules->lookup.any); /* TCP and UDP: the port is the match */
    }
}

/* ---- Decisions ---- */

bool route_is_preflight(const struct route_request *request)
{
    return bytes_equal(request->method, BYTES("OPTIONS")) &&
           route_request_find(request, BYTES("origin")) != NULL &&
           route_request_find(request, BYTES("access-control-request-method")) != NULL;
}

static void decide(const struct search *search, bool is_preflight,
                   struct route_decision *ret_decision)
{
    if (search->rank == ROUTE_RANK_NONE) {
        *ret_decision = (struct route_decision){.outcome = ROUTE_OUTCOME_NONE};
        return;
    }
    const struct route_candidate *candidate = &search->rules->candidates[search->rank];
    *ret_decision = (struct route_decision){
        .outcome = search->answer == ROUTE_OVER_LIMIT   ? ROUTE_OUTCOME_OVER_LIMIT
                   : candidate->body_matches_count != 0 ? ROUTE_OUTCOME_NEEDS_BODY
                                                        : ROUTE_OUTCOME_RULE,
        .rule = candidate->rule,
        .candidate = candidate,
        .position = candidate->position,
        .match_index = candidate->match_index,
        .prefix_bytes =
            candidate->kind == ROUTE_KIND_HTTP_ROUTE && candidate->type == ROUTE_MATCH_PREFIX
                ? candidate->path.size
                : 0,
        .is_preflight = is_preflight,
        .body_matches = candidate->body_matches,
        .body_matches_count = candidate->body_matches_count,
        .body_bytes_max = candidate->body_bytes_max,
        .resume = (search->rank + 1) | (is_preflight ? RESUME_PREFLIGHT : 0),
    };
}

void route_match(const struct route_rules *rules, const struct route_request *request,
                 struct route_scratch *scratch, struct route_decision *ret_decision)
{
    CHECK(rules != NULL && request != NULL);
    CHECK(scratch != NULL && ret_decision != NULL);
    struct search search;
    search.rules = rules;
    search.request = request;
    search.scratch = scratch;
    search.rank = ROUTE_RANK_NONE;
    search.answer = ROUTE_NO;
    search.rank_min = request->resume & (RESUME_PREFLIGHT - 1);
    search.has_facts = false;
    search.has_too_many_facts = false;
    search.facts_count = 0; /* the facts themselves are only written where they are counted */

    if ((request->resume & RESUME_PREFLIGHT) == 0) {
        run_search(&search);
        if (search.rank != ROUTE_RANK_NONE || rules->kind != ROUTE_KIND_HTTP_ROUTE ||
            !route_is_preflight(request)) {
            decide(&search, false, ret_decision);
            return;
        }
        search.rank_min = 0;
    }
    /* A browser asks with OPTIONS whether it may send another method, and it is the rule of that
     * method that knows. */
    struct route_request asked = *request;
    const struct route_field *method =
        route_request_find(request, BYTES("access-control-request-method"));
    asked.method = method != NULL ? method->value : request->method;
    search.request = &asked;
    run_search(&search);
    decide(&search, true, ret_decision);
}

const struct route_table_backend *route_pick(const struct route_table_rule *rule, uint64_t random)
{
    CHECK(rule != NULL);
    if (rule->weights_sum == 0) {
        return NULL;
    }
    /* 16 weights of at most 1,000,000 leave 8 bits to spare; the bias is one in 2^8 of a millionth.
     */
    uint64_t point = ((random >> 32) * rule->weights_sum) >> 32;
    for (uint32_t i = 0; i < rule->backends_count; i++) {
        if (point < rule->backends[i].weight) {
            return &rule->backends[i];
        }
        point -= rule->backends[i].weight;
    }
    CHECK(false && "weights_sum is the sum of the weights");
    return NULL;
}

/*
 * Why a request goes where it goes: every match of a port, judged in order of precedence by the
 * predicates of the data path but without its index. So it is also the oracle that the index is
 * tested against.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/match.h"
#include "routes/regex.h"
#include "routes/table.h"

/* A match that does not take the request: which of its predicates failed (or "precedence": it would
 * hold, but another comes first), what that asks for and what the request has. */
struct route_rejection {
    const struct route_table_rule *rule;
    uint32_t match_index;
    const struct route_position *position;
    const char
        *predicate; /* path, method, header, queryParam, service, sni, protocol, body, precedence */
    const char *wanted;
    const char *got;
};

struct route_explanation {
    struct route_decision
        decision; /* never NEEDS_BODY: without a body that predicate is undecided, so it fails */
    const struct route_rejection *rejections; /* in order of precedence */
    uint32_t rejections_count;
};

/*
 * Explain what route_match decides for `request`. Texts and rejections are made in `arena`.
 * Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_explain(const struct route_rules *rules, const struct route_request *request,
                       struct route_scratch *scratch, struct arena *arena,
                       struct route_explanation *ret_explanation);

/* The decision alone, by the naive walk, with NEEDS_BODY as route_match has it. For tests. */
void route_explain_decide(const struct route_rules *rules, const struct route_request *request,
                          struct route_scratch *scratch, struct route_decision *ret_decision);

/* A match in words: "path PathPrefix /a, method GET, header x-a: 1". In `arena`; NULL without
 * memory. */
const char *route_explain_match(const struct route_candidate *candidate, struct arena *arena);

/* One match of a port, for listings. */
struct route_listing {
    const struct route_table_rule *rule;
    uint32_t match_index;
    const struct route_position *position;
    const char *when; /* in words, as route_explain_match */
};

/* How many matches a port has, and the one at `rank`, in order of precedence. `arena` holds `when`.
 */
uint32_t route_rules_matches_count(const struct route_rules *rules);
void route_rules_match_at(const struct route_rules *rules, uint32_t rank, struct arena *arena,
                          struct route_listing *ret_listing);

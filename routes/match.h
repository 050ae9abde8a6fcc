/*
 * From a request to the rule that takes it, by the precedence of the specification, through the
 * index of the compiled table.
 *
 * Thread: any; tables are immutable and `scratch` is the caller's own.
 * Owns: nothing. Everything is borrowed: the request for the call, the results from the table, so
 * they live as long as the snapshot that the caller holds. Cost: no allocation; time bounded by the
 * size of the request and, where many matches share a path, by their number.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "routes/regex.h"
#include "routes/table.h"

struct route_field {
    struct bytes name; /* any case */
    struct bytes value;
};

struct route_request {
    struct bytes method;
    struct bytes path;  /* of route_target_parse */
    struct bytes query; /* without "?" */
    struct bytes
        authority;    /* Host or :authority; what a match on the header `host` is compared with */
    struct bytes sni; /* TLSRoute; empty: none was sent */
    /* The fields, without pseudo-fields. Each begins with a struct route_field; the next is
     * `fields_stride` bytes on (0: sizeof(struct route_field)). */
    const struct route_field *fields;
    size_t fields_count;
    size_t fields_stride;
    uint32_t resume; /* 0, or `resume` of a decision whose body predicate did not hold */
};

enum route_outcome {
    ROUTE_OUTCOME_RULE,       /* `rule` takes it; look at rule->fault first */
    ROUTE_OUTCOME_NONE,       /* no route matches: 404; gRPC UNIMPLEMENTED; TLS reset */
    ROUTE_OUTCOME_NEEDS_BODY, /* `rule` takes it if its body predicates hold, see below */
    ROUTE_OUTCOME_OVER_LIMIT, /* a regular expression reached its limit: 500 */
};

/* One match of one rule, compiled (table.c). */
struct route_candidate;

struct route_decision {
    enum route_outcome outcome;
    const struct route_table_rule *rule;     /* NULL for NONE */
    const struct route_candidate *candidate; /* the match that decided; NULL for NONE */
    const struct route_position *position;   /* of that match (or its rule) in the configuration */
    uint32_t match_index;                    /* within its rule, from 0 */
    size_t prefix_bytes; /* how much of the path its PathPrefix covers, for ReplacePrefixMatch */
    bool is_preflight;   /* a CORS preflight that matched as the method which it asks for */
    /* NEEDS_BODY: buffer up to `body_bytes_max` bytes and evaluate `body_matches` (all must hold).
     * True: go on as if the outcome were RULE. False or undecided: call again with request->resume
     * = resume. */
    const struct route_body_match *const *body_matches;
    uint32_t body_matches_count;
    uint32_t body_bytes_max;
    uint32_t resume;
};

/* Find the rule for `request`. Complete for every kind: HTTPRoute and GRPCRoute look at the head,
 * TLSRoute at the SNI, TCPRoute and UDPRoute at nothing. */
void route_match(const struct route_rules *rules, const struct route_request *request,
                 struct route_scratch *scratch, struct route_decision *ret_decision);

/*
 * Choose a backend of `rule` by weight, from `random`, which is uniform over 64 bits. Stateless, so
 * workers share nothing. NULL: the rule has no backend, or all weights are 0 (500, gRPC 14). The
 * backend may have a fault: then this request is its share.
 */
const struct route_table_backend *route_pick(const struct route_table_rule *rule, uint64_t random);

/* Is the content type one of gRPC? */
bool route_request_is_grpc(const struct route_request *request);

/* Is this a CORS preflight: OPTIONS with Origin and Access-Control-Request-Method? */
bool route_is_preflight(const struct route_request *request);

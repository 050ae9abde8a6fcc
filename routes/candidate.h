/*
 * One match of one rule, compiled, and the predicates that it consists of.
 *
 * match.c and explain.c both judge a request with route_candidate_check, so they cannot disagree
 * about what a predicate means; they differ in which candidates they look at. Internal to routes/:
 * table_candidate.c makes candidates.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "routes/match.h"
#include "routes/regex.h"
#include "routes/resource.h"
#include "routes/table.h"

/* A header or a query parameter that a request must have. */
struct route_value_predicate {
    struct bytes name; /* of a header: in lower case */
    struct bytes value;
    const struct route_regex *regex; /* NULL: the value is compared as it is */
};

#define ROUTE_RANK_NONE UINT32_MAX

struct route_candidate {
    enum route_kind kind;
    uint32_t rank; /* index in the table's order of precedence */
    const struct route_table_rule *rule;
    const struct route_position *position;
    uint32_t match_index;

    /* HTTPRoute: EXACT, PREFIX or REGEX. GRPCRoute: EXACT or REGEX of its method, else UNSUPPORTED,
     * which here is any. TLSRoute: EXACT host name, PREFIX (a wildcard, which is a suffix of the
     * name), else any. */
    enum route_match_type type;
    struct bytes path;    /* as compared: a prefix without its last "/"; of TLSRoute the host name
                             without "*" */
    struct bytes method;  /* HTTPRoute: NULL any. GRPCRoute: name of the method, NULL any */
    struct bytes service; /* GRPCRoute: NULL any */
    const struct route_regex *path_regex; /* of the path, or of the gRPC service */
    const struct route_regex *method_regex;
    const struct route_value_predicate *headers;
    const struct route_value_predicate *query_params;
    uint16_t headers_count; /* without entries whose name came before */
    uint16_t query_params_count;
    const struct route_body_match *const *body_matches;
    uint32_t body_matches_count;
    uint32_t body_bytes_max;

    /* Chains of the index (lookup.h): by rank, ROUTE_RANK_NONE at the end. */
    uint32_t next_in_list;
    uint32_t next_in_group;
};

/* Which predicate of a candidate did not hold. */
enum route_predicate {
    ROUTE_PREDICATE_NONE,
    ROUTE_PREDICATE_PROTOCOL, /* GRPCRoute: the request is none of gRPC */
    ROUTE_PREDICATE_PATH,
    ROUTE_PREDICATE_GRPC_SERVICE,
    ROUTE_PREDICATE_GRPC_METHOD,
    ROUTE_PREDICATE_SNI,
    ROUTE_PREDICATE_METHOD,
    ROUTE_PREDICATE_HEADER,
    ROUTE_PREDICATE_QUERY_PARAM,
    ROUTE_PREDICATE_BODY, /* only explain says so: nobody gave it a body */
};

struct route_failure {
    enum route_predicate predicate;
    uint32_t index; /* of the header or query parameter within the candidate */
};

/* A whole candidate, path first; on ROUTE_NO and ROUTE_OVER_LIMIT `ret_failure` says at which
 * predicate. Bodies are not looked at. */
enum route_answer route_candidate_check(const struct route_candidate *candidate,
                                        const struct route_request *request,
                                        struct route_scratch *scratch,
                                        struct route_failure *ret_failure);

/* What is left to judge when the index has found the candidate under the request's path, service or
 * name. */
enum route_answer route_candidate_check_rest(const struct route_candidate *candidate,
                                             const struct route_request *request,
                                             struct route_scratch *scratch,
                                             struct route_failure *ret_failure);

/* The field at `index`, whatever struct the caller keeps its fields in. */
static inline const struct route_field *route_request_field(const struct route_request *request,
                                                            size_t index)
{
    size_t stride =
        request->fields_stride != 0 ? request->fields_stride : sizeof(struct route_field);
    const uint8_t *first = (const uint8_t *)(const void *)request->fields;
    return (const struct route_field *)(const void *)(first + index * stride);
}

/* What lies between the values of a repeated field: "," but "; " for the crumbs of a Cookie (RFC
 * 9113 8.2.3). */
struct bytes route_field_separator(struct bytes name);

/* The first field of that name (any case), or NULL. */
const struct route_field *route_request_find(const struct route_request *request,
                                             struct bytes name);

/* Compare a query key or value as it came with `plain`: percent-decoded, "+" stays what it is. */
bool route_query_equal(struct bytes encoded, struct bytes plain);

/* Decode into `out`, which has room for encoded.size; returns the size. */
size_t route_query_decode(struct bytes encoded, uint8_t *out);

/* Take the next key and value off `*query`; false at its end. A key without "=" has an empty value.
 */
bool route_query_next(struct bytes *query, struct bytes *ret_key, struct bytes *ret_value);

/* Split "/service/method"; false when the path has another shape. */
bool route_grpc_split(struct bytes path, struct bytes *ret_service, struct bytes *ret_method);

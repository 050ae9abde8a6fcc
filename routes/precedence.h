/*
 * Which of two matches comes first: the order of the specification, one row for each of its steps,
 * and what decided, so that explain can say it.
 */
#pragma once

#include "routes/candidate.h"

/* The steps, in order. */
enum route_precedence {
    ROUTE_PRECEDENCE_PATH_TYPE,      /* exact, prefix, regular expression */
    ROUTE_PRECEDENCE_PATH_LENGTH,    /* longer first */
    ROUTE_PRECEDENCE_METHOD,         /* HTTPRoute: with before without */
    ROUTE_PRECEDENCE_SERVICE_LENGTH, /* GRPCRoute */
    ROUTE_PRECEDENCE_METHOD_LENGTH,  /* GRPCRoute */
    ROUTE_PRECEDENCE_HEADERS,        /* more first */
    ROUTE_PRECEDENCE_QUERY_PARAMS,
    ROUTE_PRECEDENCE_BODY, /* with before without (contract 5) */
    ROUTE_PRECEDENCE_AGE,  /* oldest, then namespace/name */
    ROUTE_PRECEDENCE_RULE, /* earlier in the route */
    ROUTE_PRECEDENCE_MATCH,
    ROUTE_PRECEDENCE_SAME,
    ROUTE_PRECEDENCE_COUNT,
};

/* Like memcmp; `ret_deciding` is the step that told them apart. Both are of one kind. */
int route_precedence_compare(const struct route_candidate *a, const struct route_candidate *b,
                             enum route_precedence *ret_deciding);

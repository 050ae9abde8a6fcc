/*
 * Each step as a number of which the larger comes first. HTTPRoute: reference 2.6 without the host
 * names, which the mesh ignores. GRPCRoute: 2.7, and exact before regular expression before no
 * method. TLSRoute: exact before wildcard before none, the longer name first.
 */
#include "routes/precedence.h"

#include "base/check.h"

static int64_t rank_type(const struct route_candidate *candidate)
{
    switch (candidate->type) {
    case ROUTE_MATCH_EXACT:
        return 3;
    case ROUTE_MATCH_PREFIX:
        return 2;
    case ROUTE_MATCH_REGEX:
        return 1;
    case ROUTE_MATCH_UNSUPPORTED:
        return 0;
    }
    return 0;
}

static int64_t value_of(const struct route_candidate *candidate, enum route_precedence step)
{
    bool is_grpc = candidate->kind == ROUTE_KIND_GRPC_ROUTE;
    switch (step) {
    case ROUTE_PRECEDENCE_PATH_TYPE:
        return rank_type(candidate);
    case ROUTE_PRECEDENCE_PATH_LENGTH:
        return is_grpc ? 0 : (int64_t)candidate->path.size;
    case ROUTE_PRECEDENCE_METHOD:
        return !is_grpc && candidate->method.data != NULL;
    case ROUTE_PRECEDENCE_SERVICE_LENGTH:
        return is_grpc ? (int64_t)candidate->service.size : 0;
    case ROUTE_PRECEDENCE_METHOD_LENGTH:
        return is_grpc ? (int64_t)candidate->method.size : 0;
    case ROUTE_PRECEDENCE_HEADERS:
        return candidate->headers_count;
    case ROUTE_PRECEDENCE_QUERY_PARAMS:
        return candidate->query_params_count;
    case ROUTE_PRECEDENCE_BODY:
        return candidate->body_matches_count != 0;
    case ROUTE_PRECEDENCE_RULE:
        return -(int64_t)candidate->rule->index;
    case ROUTE_PRECEDENCE_MATCH:
        return -(int64_t)candidate->match_index;
    case ROUTE_PRECEDENCE_AGE:
    case ROUTE_PRECEDENCE_SAME:
    case ROUTE_PRECEDENCE_COUNT:
        return 0;
    }
    return 0;
}

int route_precedence_compare(const struct route_candidate *a, const struct route_candidate *b,
                             enum route_precedence *ret_deciding)
{
    CHECK(a != NULL && b != NULL);
    for (enum route_precedence step = 0; step < ROUTE_PRECEDENCE_SAME; step++) {
        *ret_deciding = step;
        if (step == ROUTE_PRECEDENCE_AGE) {
            int order = route_object_compare_age(&a->rule->route->object, &b->rule->route->object);
            if (order != 0) {
                return order;
            }
            continue;
        }
        int64_t left = value_of(a, step);
        int64_t right = value_of(b, step);
        if (left != right) {
            return left > right ? -1 : 1;
        }
    }
    *ret_deciding = ROUTE_PRECEDENCE_SAME;
    return 0;
}

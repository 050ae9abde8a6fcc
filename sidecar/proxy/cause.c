/* The public list of causes: what is answered, counted and logged for each. */
#include "proxy/cause.h"

#include "base/check.h"

#define ROW(name_, status_, grpc_, error_, text_)                                                  \
    {                                                                                              \
        .name = BYTES_LITERAL(name_), .status = (status_), .grpc_status = (grpc_),                 \
        .proxy_error = BYTES_LITERAL(error_), .text = BYTES_LITERAL(text_)                         \
    }

const struct cause_info *cause_info(enum cause cause)
{
    static const struct cause_info rows[CAUSE_COUNT] = {
        [CAUSE_NONE] = ROW("none", 0, 0, "", ""),
        [CAUSE_NO_ROUTE] =
            ROW("no_route", 404, 12, "destination_not_found", "no route matches this request"),
        [CAUSE_NO_BACKEND] =
            ROW("no_backend", 500, 14, "proxy_configuration_error", "the rule has no backend"),
        [CAUSE_INVALID_BACKEND] = ROW("invalid_backend", 500, 14, "proxy_configuration_error",
                                      "the rule or its backend cannot be used"),
        [CAUSE_NO_ENDPOINTS] =
            ROW("no_endpoints", 503, 14, "destination_unavailable", "the backend has no endpoint"),
        [CAUSE_CONNECT_REFUSED] = ROW("connect_refused", 503, 14, "connection_refused",
                                      "no endpoint accepted a connection"),
        [CAUSE_CONNECT_TIMEOUT] =
            ROW("connect_timeout", 503, 14, "connection_timeout", "no endpoint answered in time"),
        [CAUSE_UPSTREAM_RESET] = ROW("upstream_reset", 502, 14, "connection_terminated",
                                     "the upstream ended its response too early"),
        [CAUSE_UPSTREAM_MALFORMED] = ROW("upstream_malformed", 502, 14, "http_protocol_error",
                                         "the upstream broke the protocol"),
        [CAUSE_REQUEST_MALFORMED] =
            ROW("request_malformed", 400, 13, "http_request_error", "the request is malformed"),
        [CAUSE_REQUEST_TIMEOUT] = ROW("request_timeout", 504, 4, "http_response_timeout",
                                      "the request took longer than its route allows"),
        [CAUSE_BACKEND_TIMEOUT] = ROW("backend_timeout", 504, 4, "http_response_timeout",
                                      "the backend took longer than its route allows"),
        [CAUSE_DOWNSTREAM_RESET] = ROW("downstream_reset", 0, 1, "", "the downstream went away"),
        [CAUSE_DENIED] = ROW("denied", 403, 7, "http_request_denied", "denied by policy"),
        [CAUSE_PLAINTEXT_REFUSED] = ROW("plaintext_refused", 0, 7, "", "plaintext is refused"),
        [CAUSE_LOOP] =
            ROW("loop", 508, 13, "proxy_loop_detected", "the destination is the proxy itself"),
        [CAUSE_REGISTRY_ONLY] = ROW("registry_only", 0, 14, "destination_not_found",
                                    "the destination is not a known Service"),
        [CAUSE_IDLE] = ROW("idle", 0, 0, "", "idle for too long"),
        [CAUSE_DRAIN] = ROW("drain", 0, 14, "", "cut off at the drain deadline"),
        [CAUSE_LIMIT_CONNECTIONS] =
            ROW("limit_connections", 503, 14, "connection_limit_reached", "too many connections"),
        [CAUSE_LIMIT_BUFFER] =
            ROW("limit_buffer", 503, 14, "proxy_internal_error", "a memory bound was reached"),
        [CAUSE_LIMIT_REGEX] = ROW("limit_regex", 500, 13, "proxy_internal_error",
                                  "a regular expression took too long"),
    };
    CHECK((unsigned)cause < CAUSE_COUNT);
    return &rows[cause];
}

/*
 * Why an exchange or a connection did not go as its client wished: the one public list (contract.md
 * section 3). It is the access log's `cause`, a metric label, and the details of proxy-status (RFC
 * 9209); nobody else maps failures to statuses.
 */
#pragma once

#include <stdint.h>

#include "base/bytes.h"

enum cause {
    CAUSE_NONE,
    CAUSE_NO_ROUTE,        /* routes are attached and none matches */
    CAUSE_NO_BACKEND,      /* the rule has no backend, or all weights are 0 */
    CAUSE_INVALID_BACKEND, /* the chosen reference cannot be resolved, or a filter cannot be
                              honoured */
    CAUSE_NO_ENDPOINTS,    /* the backend has no endpoint and no ClusterIP */
    CAUSE_CONNECT_REFUSED, /* refused, unreachable, reset before a byte */
    CAUSE_CONNECT_TIMEOUT,
    CAUSE_UPSTREAM_RESET,     /* the upstream ended or reset before its response was complete */
    CAUSE_UPSTREAM_MALFORMED, /* the upstream broke the protocol */
    CAUSE_REQUEST_MALFORMED,  /* the downstream broke the protocol */
    CAUSE_REQUEST_TIMEOUT,    /* the route's request timeout, or the downstream's own slowness */
    CAUSE_BACKEND_TIMEOUT,    /* the route's backendRequest timeout */
    CAUSE_DOWNSTREAM_RESET,   /* the downstream went away first */
    CAUSE_DENIED,
    CAUSE_PLAINTEXT_REFUSED,
    CAUSE_LOOP,          /* the original destination is the proxy itself */
    CAUSE_REGISTRY_ONLY, /* unknown destination under --outbound-policy registry-only */
    CAUSE_IDLE,          /* closed after its idle time */
    CAUSE_DRAIN,         /* cut off at the drain deadline */
    CAUSE_LIMIT_CONNECTIONS,
    CAUSE_LIMIT_BUFFER, /* a buffer or memory bound */
    CAUSE_LIMIT_REGEX,  /* a regular expression over its limit */
    CAUSE_COUNT
};

struct cause_info {
    struct bytes name;        /* "no_route" */
    uint16_t status;          /* HTTP status of the answer; 0: none is given */
    uint8_t grpc_status;      /* of the answer to a gRPC request */
    struct bytes proxy_error; /* RFC 9209 2.3 error type, for proxy-status */
    struct bytes text;        /* a short sentence for people: the body of the answer and the log */
};

/* The row of `cause`; static storage. */
const struct cause_info *cause_info(enum cause cause);

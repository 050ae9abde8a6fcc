/*
 * What there is to say about one request, before it is JSON or text. Internal to explanation.c and
 * explained.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "cli/explanation.h"
#include "proxy/cause.h"
#include "routes/attach.h"
#include "routes/explain.h"
#include "routes/load.h"
#include "routes/path.h"
#include "routes/service.h"

/* An answer that the proxy gives itself. */
struct explained_answer {
    bool is_given;
    bool is_reset;   /* no HTTP: the connection is refused (UDP: dropped) */
    uint16_t status; /* of HTTP; 200 with grpc_status for gRPC */
    bool has_grpc_status;
    uint8_t grpc_status;
    enum cause cause; /* NONE: a redirect, or the answer to a preflight */
    struct bytes location;
};

struct explained_backend {
    const struct route_table_backend *backend;
    double share;       /* 0..1 */
    uint32_t endpoints; /* ready ones, or 1 for a ClusterIP without slices */
    struct explained_answer answer;
    struct bytes host; /* as forwarded */
    struct bytes target;
};

struct explained {
    struct bytes service;            /* "web.shop"; empty: the address belongs to no Service */
    struct bytes destination;        /* as dialled */
    uint16_t port;                   /* of the Service */
    const struct route_rules *rules; /* NULL: none applies */
    bool is_udp;
    bool is_direct;       /* an endpoint was dialled, so there are no routes */
    bool is_assumed_grpc; /* nothing said so, but the port has a GRPCRoute */
    bool is_malformed;
    struct route_request request;
    struct route_target target;
    struct route_explanation why;
    struct explained_answer answer; /* of every request like this one */
    const struct explained_backend *backends;
    uint32_t backends_count;
    /* What routes that name this Service have been told: why one of them is not in force here, or
     * not all of it. */
    const struct route_condition *const *notes;
    uint32_t notes_count;
};

/* Find it all out; everything in `arena`. Errors: as explanation_json. */
FALLIBLE explained_find(const struct route_config *config,
                        const struct explanation_request *request, struct arena *arena,
                        struct explained *ret_explained, char *message, size_t size);

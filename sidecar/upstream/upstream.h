/*
 * A connection to an endpoint: transport and client codec, in use by one attempt at a time, or by
 * many where the protocol interleaves exchanges, or idle in the pool. Connecting has its timeout
 * here; what a failure means is the stream's business.
 *
 * Thread: the worker's. From the worker's slab.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "http/codec.h"
#include "proxy/connection.h"
#include "upstream/cluster.h"

struct attempt;
struct worker;

enum upstream_state {
    UPSTREAM_STATE_CONNECTING,
    UPSTREAM_STATE_BUSY,
    UPSTREAM_STATE_IDLE, /* in the pool; any byte or end closes it */
    UPSTREAM_STATE_CLOSING,
};

struct upstream {
    struct connection connection; /* first */
    struct worker *worker;        /* borrowed */
    struct endpoint *endpoint;    /* held by endpoint_connect; NULL: a bare address */
    struct list attempts;         /* whose it is; empty when idle or closing */
    uint32_t attempts_count;
    struct list open;
    struct list shared;     /* of its endpoint, where several attempts may use it */
    struct list idle;       /* of its endpoint, the newest first */
    struct list idle_order; /* of the pool, the oldest first */
    struct io_timer timer;
    uint64_t opened_ns;
    uint64_t idle_since_ns;
    enum upstream_state state;
    uint8_t protocol; /* enum codec_protocol */
    bool is_reused;   /* an exchange was finished on it before */
    bool is_given_up; /* closed for want of descriptors */
};

struct upstream_options {
    struct worker *worker;         /* borrowed */
    struct endpoint *endpoint;     /* NULL: a bare address */
    const struct address *address; /* borrowed for the call */
    enum codec_protocol protocol;
    uint64_t timeout_ns; /* until connected */
    struct attempt *attempt;
};

/*
 * Start connecting. After: attempt_on_connected or attempt_on_connect_failed, never within this
 * call, unless upstream_cancel comes first.
 * Errors: ERROR_LIMIT (slab, cluster or descriptors), ERROR_OS, as io_socket_connect.
 */
FALLIBLE upstream_connect(const struct upstream_options *options, struct upstream **ret_upstream);

/* One more attempt uses `upstream`, which conn_pool_take gave. */
void upstream_attach(struct upstream *upstream, struct attempt *attempt);

/* May another attempt use it, beside those that do? Only where exchanges interleave. */
bool upstream_has_room(const struct upstream *upstream);

/* Give a connected HTTP upstream its codec, or (opaque) prepare it for bytes through a codec.
 * Errors: ERROR_NO_MEMORY. */
FALLIBLE upstream_start_codec(struct upstream *upstream);

/* `attempt`, whose exchange is done, takes its hands off: the connection is pooled when it can be
 * used again, else closed behind what was written. */
void upstream_release(struct upstream *upstream, struct attempt *attempt);

/* `attempt` takes its hands off before its exchange is done, which was reset if it had begun:
 * unless others use the connection, it ends with RST. */
void upstream_cancel(struct upstream *upstream, struct attempt *attempt);

/* Nobody uses the connection: it ends, with FIN behind what was written, or with RST. */
void upstream_close(struct upstream *upstream);
void upstream_abort(struct upstream *upstream);

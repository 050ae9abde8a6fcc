/*
 * Idle upstream connections of one worker, by endpoint and protocol. The newest is taken first, so
 * that the others can age and close; all have the same idle time, so one list in order of age and
 * one timer are enough.
 */
#pragma once

#include <stdint.h>

#include "base/list.h"
#include "http/codec.h"
#include "iouring/io.h"

struct endpoint;
struct upstream;

struct conn_pool {
    struct io *io; /* borrowed */
    struct list oldest_first;
    struct io_timer timer;
    uint64_t idle_timeout_ns;
    uint32_t count;
};

/* Begin empty. */
void conn_pool_init(struct conn_pool *pool, struct io *io, uint64_t idle_timeout_ns);

/* The connection to `endpoint` that was used last, out of the pool; where exchanges interleave, one
 * that others use, too. NULL when there is none. upstream_attach is next. */
struct upstream *conn_pool_take(struct conn_pool *pool, struct endpoint *endpoint,
                                enum codec_protocol protocol);

/* Keep `upstream`, which has nothing open. */
void conn_pool_put(struct conn_pool *pool, struct upstream *upstream);

/* The connection that has idled longest, still in the pool; NULL when there is none. */
struct upstream *conn_pool_oldest(const struct conn_pool *pool);

/* Out of the pool: it closes. */
void conn_pool_remove(struct conn_pool *pool, struct upstream *upstream);

/* Close all idle connections, of one endpoint or of everyone. */
void conn_pool_close_endpoint(struct endpoint *endpoint);
void conn_pool_close_all(struct conn_pool *pool);

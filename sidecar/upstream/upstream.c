/* Connections to endpoints: from connecting to the pool and to the end. */
#include "upstream/upstream.h"

#include "base/check.h"
#include "limits.h"
#include "proxy/stream.h"
#include "proxy/worker_state.h"

static struct transport_options transport_options_of(enum codec_protocol protocol)
{
    return (struct transport_options){
        .receive_window_bytes = RECEIVE_WINDOW_BYTES,
        .send_high_bytes = SEND_HIGH_BYTES,
        /* A server that answers and resets, because it did not read all of the request, has
         * answered: a slow client gets the whole response (RFC 9112 9.6). */
        .is_tail_wanted = protocol != CODEC_OPAQUE,
    };
}

static struct upstream *upstream_of(struct transport *transport)
{
    return LIST_OWNER(transport, struct upstream, connection.transport);
}

static bool is_shared(const struct upstream *upstream)
{
    return upstream->protocol == CODEC_HTTP2 && upstream->endpoint != NULL;
}

static struct attempt *first_attempt(const struct upstream *upstream)
{
    return list_is_empty(&upstream->attempts)
               ? NULL
               : LIST_OWNER(upstream->attempts.next, struct attempt, of_upstream);
}

static void detach(struct upstream *upstream, struct attempt *attempt)
{
    CHECK(upstream->attempts_count > 0);
    list_remove(&attempt->of_upstream);
    upstream->attempts_count--;
}

/* ---- events of the transport ---- */

static void on_open(struct transport *transport)
{
    struct upstream *upstream = upstream_of(transport);
    CHECK(upstream->state == UPSTREAM_STATE_CONNECTING);
    io_timer_stop(upstream->worker->io, &upstream->timer);
    upstream->state = UPSTREAM_STATE_BUSY;
    if (upstream->endpoint != NULL) {
        endpoint_on_connected(upstream->endpoint);
    }
    struct list waiting;
    struct list *node = NULL;
    list_init(&waiting);
    list_move_all(&upstream->attempts, &waiting);
    while ((node = list_take(&waiting)) != NULL) {
        list_append(&upstream->attempts, node);
        attempt_on_connected(LIST_OWNER(node, struct attempt, of_upstream));
    }
}

/* Nobody could be connected: each attempt goes its own way. */
static void fail_connecting(struct upstream *upstream, struct error error)
{
    struct attempt *attempt = NULL;
    upstream_close(upstream);
    while ((attempt = first_attempt(upstream)) != NULL) {
        detach(upstream, attempt);
        attempt_on_connect_failed(attempt, error);
    }
}

static void on_received(struct transport *transport)
{
    struct upstream *upstream = upstream_of(transport);
    struct attempt *attempt = first_attempt(upstream);
    if (upstream->state == UPSTREAM_STATE_IDLE && !is_shared(upstream)) {
        upstream_abort(upstream); /* nobody asked for these bytes (RFC 9112 9.2) */
    } else if (upstream->connection.codec != NULL) {
        connection_on_received(&upstream->connection);
    } else if (attempt != NULL) {
        attempt_on_bytes(attempt);
    }
}

static void on_end(struct transport *transport, enum codec_end end)
{
    struct upstream *upstream = upstream_of(transport);
    if (upstream->state == UPSTREAM_STATE_IDLE) {
        upstream_close(upstream);
    } else if (upstream->connection.codec != NULL) {
        connection_on_end(&upstream->connection, end);
    } else if (first_attempt(upstream) != NULL) {
        attempt_on_bytes_end(first_attempt(upstream), end);
    }
}

static void on_room(struct transport *transport)
{
    connection_on_room(&upstream_of(transport)->connection);
}

static void on_failed(struct transport *transport, struct error error)
{
    struct upstream *upstream = upstream_of(transport);
    struct attempt *attempt = first_attempt(upstream);
    switch (upstream->state) {
    case UPSTREAM_STATE_CONNECTING:
        fail_connecting(upstream, error);
        return;
    case UPSTREAM_STATE_BUSY:
        if (upstream->connection.codec != NULL) {
            codec_receive_end(upstream->connection.codec, CODEC_END_RESET);
        } else if (attempt != NULL) {
            attempt_on_bytes_end(attempt, CODEC_END_RESET);
        }
        upstream_abort(upstream);
        return;
    case UPSTREAM_STATE_IDLE:
        upstream_close(upstream);
        return;
    case UPSTREAM_STATE_CLOSING:
        return;
    }
}

static void on_closed(struct transport *transport)
{
    struct upstream *upstream = upstream_of(transport);
    struct worker *worker = upstream->worker;
    upstream->state = UPSTREAM_STATE_CLOSING;
    io_timer_stop(worker->io, &upstream->timer);
    connection_finish(&upstream->connection);
    CHECK(upstream->attempts_count == 0);
    list_remove(&upstream->open);
    if (upstream->endpoint != NULL) {
        endpoint_disconnect(upstream->endpoint);
    }
    bool is_given_up = upstream->is_given_up;
    slab_put(&worker->upstream_slab, upstream);
    if (is_given_up) {
        shortage_on_closed(&worker->shortage);
    }
}

static const struct transport_events transport_events = {
    .on_open = on_open,
    .on_received = on_received,
    .on_end = on_end,
    .on_room = on_room,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

/* ---- events of the codec ---- */

/* A malformed response is a reset of its exchange; what is left is to close. */
static void on_malformed(struct codec *codec, uint16_t status, const char *reason)
{
    (void)status;
    (void)reason;
    connection_mark(codec->owner);
}

/* The stream releases the connection when its exchange is done. */
static void on_idle(struct codec *codec)
{
    (void)codec;
}

static const struct codec_events codec_events = {
    .on_malformed = on_malformed,
    .on_output = connection_on_output,
    .on_input_wanted = connection_on_input_wanted,
    .on_idle = on_idle,
};

/* ---- the attempt's calls ---- */

static void on_timer(struct io_timer *timer)
{
    struct upstream *upstream = LIST_OWNER(timer, struct upstream, timer);
    CHECK(upstream->state == UPSTREAM_STATE_CONNECTING);
    fail_connecting(upstream, error_make(ERROR_TIMED_OUT, 0));
}

FALLIBLE upstream_connect(const struct upstream_options *options, struct upstream **ret_upstream)
{
    struct worker *worker = options->worker;
    struct endpoint *endpoint = options->endpoint;
    if (endpoint != NULL && !cluster_has_room(endpoint->cluster)) {
        return error_make(ERROR_LIMIT, 0);
    }
    struct upstream *upstream = slab_take(&worker->upstream_slab);
    if (upstream == NULL) {
        return error_make(ERROR_LIMIT, 0);
    }
    *upstream = (struct upstream){.worker = worker,
                                  .endpoint = endpoint,
                                  .opened_ns = io_now(worker->io),
                                  .state = UPSTREAM_STATE_CONNECTING,
                                  .protocol = (uint8_t)options->protocol};
    struct transport_options transport_options = transport_options_of(options->protocol);
    struct error error =
        transport_connect(&upstream->connection.transport, worker->io, options->address, NULL,
                          &transport_options, &transport_events);
    if (error_is(error)) {
        slab_put(&worker->upstream_slab, upstream);
        return error;
    }
    connection_init(&upstream->connection, &worker->flusher);
    list_init(&upstream->idle);
    list_init(&upstream->idle_order);
    list_init(&upstream->open);
    list_init(&upstream->shared);
    list_init(&upstream->attempts);
    list_append(&worker->upstreams, &upstream->open);
    if (endpoint != NULL) {
        endpoint_connect(endpoint);
        if (is_shared(upstream)) {
            list_append(&endpoint->shared, &upstream->shared);
        }
    }
    upstream_attach(upstream, options->attempt);
    struct transport_filter *filter =
        worker->make_filter == NULL ? NULL : worker->make_filter(worker, CODEC_ROLE_CLIENT);
    if (filter != NULL) {
        /* Not connected yet: nothing can fail. */
        error_ignore(transport_set_filter(&upstream->connection.transport, filter));
    }
    io_timer_start(worker->io, &upstream->timer,
                   clock_add(upstream->opened_ns, options->timeout_ns), on_timer);
    *ret_upstream = upstream;
    return OK;
}

void upstream_attach(struct upstream *upstream, struct attempt *attempt)
{
    list_init(&attempt->of_upstream);
    list_append(&upstream->attempts, &attempt->of_upstream);
    upstream->attempts_count++;
    if (upstream->state == UPSTREAM_STATE_IDLE) {
        upstream->state = UPSTREAM_STATE_BUSY;
    }
}

bool upstream_has_room(const struct upstream *upstream)
{
    const struct codec *codec = upstream->connection.codec;
    if (connection_is_closing(&upstream->connection) ||
        upstream->attempts_count >= SHARED_EXCHANGES_MAX) {
        return false;
    }
    return codec == NULL || (codec->is_reusable && !upstream->connection.is_broken);
}

FALLIBLE upstream_start_codec(struct upstream *upstream)
{
    struct codec *codec = NULL;
    struct worker *worker = upstream->worker;
    TRY(worker->codecs[upstream->protocol](worker, CODEC_ROLE_CLIENT, &codec_events,
                                           &upstream->connection, &codec));
    connection_set_codec(&upstream->connection, codec);
    return OK;
}

static void leave(struct upstream *upstream)
{
    if (upstream->state == UPSTREAM_STATE_IDLE) {
        conn_pool_remove(&upstream->worker->pool, upstream);
    }
    upstream->state = UPSTREAM_STATE_CLOSING;
    list_remove(&upstream->shared);
    io_timer_stop(upstream->worker->io, &upstream->timer);
}

static bool is_reusable(const struct upstream *upstream)
{
    const struct connection *connection = &upstream->connection;
    const struct codec *codec = connection->codec;
    return codec != NULL && codec->is_reusable && codec->exchanges_open == 0 &&
           !connection->is_broken && !connection_is_closing(connection) &&
           !connection->transport.is_end_delivered &&
           (is_shared(upstream) || transport_received_size(&connection->transport) == 0) &&
           upstream->endpoint != NULL && !upstream->endpoint->is_gone &&
           !upstream->worker->is_stopping;
}

void upstream_release(struct upstream *upstream, struct attempt *attempt)
{
    CHECK(upstream->state == UPSTREAM_STATE_BUSY);
    detach(upstream, attempt);
    if (upstream->attempts_count > 0) {
        return;
    }
    if (!is_reusable(upstream)) {
        upstream_close(upstream);
        return;
    }
    upstream->is_reused = true;
    upstream->state = UPSTREAM_STATE_IDLE;
    conn_pool_put(&upstream->worker->pool, upstream);
}

void upstream_cancel(struct upstream *upstream, struct attempt *attempt)
{
    if (is_shared(upstream) && upstream->state == UPSTREAM_STATE_BUSY) {
        upstream_release(upstream, attempt);
        return;
    }
    detach(upstream, attempt);
    if (upstream->attempts_count == 0) {
        upstream_abort(upstream);
    }
}

void upstream_close(struct upstream *upstream)
{
    leave(upstream);
    connection_close(&upstream->connection, CONNECTION_CLOSE_FLUSHED);
}

void upstream_abort(struct upstream *upstream)
{
    leave(upstream);
    connection_close(&upstream->connection, CONNECTION_CLOSE_ABORT);
}

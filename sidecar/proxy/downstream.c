/*
 * Accepted connections: which protocol they speak, and their time limits. Where they were meant to
 * go is in target.c, what exchanges do in stream.c.
 */
#include "proxy/downstream.h"

#include "base/check.h"
#include "limits.h"
#include "proxy/detect.h"
#include "proxy/stream.h"
#include "proxy/worker_state.h"

static const struct transport_options transport_defaults = {
    .receive_window_bytes = RECEIVE_WINDOW_BYTES, .send_high_bytes = SEND_HIGH_BYTES};

static void on_timer(struct io_timer *timer);

static struct downstream *downstream_of(struct transport *transport)
{
    return LIST_OWNER(transport, struct downstream, connection.transport);
}

static void start_timer(struct downstream *downstream, uint64_t span_ns)
{
    struct io *io = downstream->worker->io;
    io_timer_start(io, &downstream->timer, clock_add(io_now(io), span_ns), on_timer);
}

static struct stream *only_stream(const struct downstream *downstream)
{
    return list_is_empty(&downstream->streams)
               ? NULL
               : LIST_OWNER(downstream->streams.next, struct stream, of_downstream);
}

/* ---- where it was meant to go ---- */

struct address downstream_destination(const struct downstream *downstream)
{
    return destination_address(&downstream->destination);
}

const struct target *downstream_target(struct downstream *downstream)
{
    struct target *target = &downstream->target;
    uint64_t generation = worker_snapshot(downstream->worker)->generation;
    if (target->generation == generation) {
        return target;
    }
    *target = (struct target){.generation = generation};
    target_aim(downstream->worker, downstream->source, &downstream->destination, target);
    return target;
}

/* ---- which protocol it speaks ---- */

/* Does anybody dial a ClusterIP? Where a socket-level load balancer rewrites addresses before the
 * redirection, nobody does, and no route ever matches (design 6). */
static void count_destination(struct downstream *downstream)
{
    if (downstream->source->kind != LISTENER_OUTBOUND) {
        return;
    }
    const struct target *target = downstream_target(downstream);
    enum stats_destination destination = STATS_DESTINATION_OTHER;
    if (target->port != NULL) {
        destination = STATS_DESTINATION_CLUSTER_IP;
    } else if (target->parent != NULL && target->parent->cluster_ip != NULL) {
        destination = STATS_DESTINATION_ENDPOINT;
    }
    stats_count_destination(downstream->worker->options.stats, destination);
}

static void count_connection(struct downstream *downstream, enum stats_protocol protocol)
{
    count_destination(downstream);
    downstream->protocol = (uint8_t)protocol;
    stats_count_connection(downstream->worker->options.stats, downstream->direction, protocol,
                           downstream->connection.transport.filter != NULL);
}

/* After the stream that it has become was counted: a drain must not see none in between. */
static void end_detection(struct downstream *downstream)
{
    if (downstream->is_detecting) {
        downstream->is_detecting = false;
        worker_count_exchange(downstream->worker, -1);
    }
}

static void start_opaque(struct downstream *downstream, struct bytes sni)
{
    downstream->state = DOWNSTREAM_STATE_OPAQUE;
    count_connection(downstream, STATS_PROTOCOL_TCP);
    start_timer(downstream, HALF_CLOSED_IDLE_NS);
    if (!stream_begin_opaque(downstream, sni)) {
        stats_count_refused(downstream->worker->options.stats, CAUSE_LIMIT_CONNECTIONS);
        downstream_abort(downstream);
    }
    end_detection(downstream);
}

static struct exchange *on_exchange(struct codec *codec)
{
    struct downstream *downstream = codec->owner;
    if (downstream->state == DOWNSTREAM_STATE_OPAQUE) {
        return &only_stream(downstream)->down;
    }
    /* The last one on this connection, where we drain: its answer says so. */
    codec->is_draining = codec->is_draining || downstream->worker->is_draining;
    return stream_begin(downstream); /* NULL: the codec answers, and on_malformed counts */
}

/* The parent's label, where there is one. */
static struct bytes label_of(struct downstream *downstream)
{
    if (downstream->target.generation == 0) {
        return (struct bytes){0};
    }
    const struct target *target = downstream_target(downstream);
    return target->parent == NULL ? (struct bytes){0} : target->parent->label;
}

/* The line of what ended before it became a stream: a connection, or a request (`status`). */
static void log_without_stream(struct downstream *downstream, uint16_t status, enum cause cause)
{
    const struct worker *worker = downstream->worker;
    if (worker->settings->access_log == ACCESS_LOG_OFF) {
        return;
    }
    struct access_log_entry entry = {.direction = downstream->direction,
                                     .protocol = downstream->protocol,
                                     .generation = worker_snapshot(worker)->generation,
                                     .connection = downstream->number,
                                     .destination = downstream_destination(downstream),
                                     .parent = label_of(downstream),
                                     .status = status,
                                     .grpc_status = STATS_NO_GRPC,
                                     .cause = cause};
    if (status == 0) {
        entry.total_ns = io_now(worker->io) - downstream->accepted_ns;
    }
    /* A peer that is gone has no address any more. */
    error_ignore(io_socket_address(&downstream->connection.transport.socket, IO_ADDRESS_PEER,
                                   &entry.downstream));
    access_log_write(worker->options.access_log, worker->settings->access_log, &entry);
}

/* Count and log what was refused before it became a stream. */
static void note_refusal(struct downstream *downstream, uint16_t status, enum cause cause,
                         const char *reason)
{
    const struct worker *worker = downstream->worker;
    stats_count_refused(worker->options.stats, cause);
    if (status != 0) {
        const struct stats_request_key key = {.direction = downstream->direction,
                                              .parent = label_of(downstream),
                                              .code = status,
                                              .grpc_status = STATS_NO_GRPC};
        stats_count_request(worker->options.stats, &key, 0);
    }
    if (log_is_on(LOG_DEBUG)) {
        log_line(worker->options.log, LOG_DEBUG,
                 "msg=refused worker=%u connection=%lu cause=%s status=%u reason=\"%s\"",
                 worker->options.index, (unsigned long)downstream->number,
                 (const char *)cause_info(cause)->name.data, status, reason);
    }
    log_without_stream(downstream, status, cause);
}

static void on_malformed(struct codec *codec, uint16_t status, const char *reason)
{
    enum cause cause = status == 408   ? CAUSE_REQUEST_TIMEOUT
                       : status == 503 ? CAUSE_LIMIT_BUFFER
                                       : CAUSE_REQUEST_MALFORMED;
    note_refusal(codec->owner, status, cause, reason);
}

static void on_idle(struct codec *codec)
{
    (void)codec;
}

static const struct codec_events codec_events = {
    .on_exchange = on_exchange,
    .on_malformed = on_malformed,
    .on_output = connection_on_output,
    .on_input_wanted = connection_on_input_wanted,
    .on_idle = on_idle,
};

/* After the codec worked: is it in the middle of a head, which may not take for ever? */
static void watch_head(struct downstream *downstream)
{
    const struct codec *codec = downstream->connection.codec;
    if (codec == NULL || !codec->is_head_timeout_wanted) {
        downstream->is_head_timed = false;
    } else if (!downstream->is_head_timed) {
        downstream->is_head_timed = true;
        downstream->timed_bytes = io_now(downstream->worker->io);
        start_timer(downstream, HEAD_TIMEOUT_NS);
    }
}

static void start_http(struct downstream *downstream, enum codec_protocol protocol)
{
    struct worker *worker = downstream->worker;
    struct codec *codec = NULL;
    struct error error = worker->codecs[protocol](worker, CODEC_ROLE_SERVER, &codec_events,
                                                  &downstream->connection, &codec);
    if (error_is(error)) {
        stats_count_refused(worker->options.stats, CAUSE_LIMIT_BUFFER);
        downstream_abort(downstream);
        return;
    }
    downstream->state = DOWNSTREAM_STATE_CODEC;
    count_connection(downstream,
                     protocol == CODEC_HTTP2 ? STATS_PROTOCOL_HTTP2 : STATS_PROTOCOL_HTTP1);
    start_timer(downstream, DOWNSTREAM_IDLE_NS);
    if (worker->is_draining) {
        codec->is_draining = true; /* served, and closed behind its first answer */
    }
    connection_set_codec(&downstream->connection, codec);
    watch_head(downstream);
    if (downstream->is_ended) {
        connection_on_end(&downstream->connection, CODEC_END_CLEAN);
    }
    end_detection(downstream);
}

/* Without an HTTP/2 codec its bytes pass through. */
static void start_http2(struct downstream *downstream)
{
    if (downstream->worker->codecs[CODEC_HTTP2] != NULL) {
        start_http(downstream, CODEC_HTTP2);
    } else {
        start_opaque(downstream, (struct bytes){0});
    }
}

FALLIBLE downstream_start_opaque_codec(struct downstream *downstream)
{
    struct codec *codec = NULL;
    struct worker *worker = downstream->worker;
    TRY(worker->codecs[CODEC_OPAQUE](worker, CODEC_ROLE_SERVER, &codec_events,
                                     &downstream->connection, &codec));
    connection_set_codec(&downstream->connection, codec);
    if (downstream->is_ended) {
        connection_on_end(&downstream->connection, CODEC_END_CLEAN);
    }
    return OK;
}

/* A TLSRoute chooses by the server name, whatever the port declares. */
static bool wants_sni(const struct target *target)
{
    return target->port != NULL && target->port->rules != NULL &&
           route_rules_kind(target->port->rules) == ROUTE_KIND_TLS_ROUTE;
}

/* The first bytes, as far as they are there. */
static void detect_now(struct downstream *downstream)
{
    struct detect_hello hello;
    bool is_tls_routed = wants_sni(downstream_target(downstream));
    switch (detect(transport_received(&downstream->connection.transport), &hello)) {
    case DETECT_NEEDS_MORE:
        if (downstream->is_ended) {
            start_opaque(downstream, (struct bytes){0});
        }
        return;
    case DETECT_TLS:
        start_opaque(downstream, detect_hello_sni(&hello));
        return;
    case DETECT_HTTP1:
        if (!is_tls_routed) {
            start_http(downstream, CODEC_HTTP1);
            return;
        }
        break;
    case DETECT_HTTP2:
        if (!is_tls_routed) {
            start_http2(downstream);
            return;
        }
        break;
    case DETECT_OPAQUE:
        break;
    }
    start_opaque(downstream, (struct bytes){0});
}

static bool is_server_first(const struct worker *worker, const struct target *target)
{
    uint64_t now_ns = io_now(worker->io);
    for (int i = 0; i < SERVER_FIRST_MAX; i++) {
        if (worker->server_first[i].cluster_hash == target->parent->hash &&
            worker->server_first[i].until_ns > now_ns) {
            return true;
        }
    }
    return false;
}

void downstream_note_server_first(struct downstream *downstream)
{
    struct worker *worker = downstream->worker;
    const struct target *target = downstream_target(downstream);
    if (target->parent != NULL) {
        worker->server_first[worker->server_first_next++ % SERVER_FIRST_MAX] =
            (struct server_first){.cluster_hash = target->parent->hash,
                                  .until_ns = io_now(worker->io) + SERVER_FIRST_MEMORY_NS};
    }
}

static void begin_detection(struct downstream *downstream, uint64_t timeout_ns)
{
    downstream->state = DOWNSTREAM_STATE_DETECT;
    downstream->is_detecting = true;
    worker_count_exchange(downstream->worker, 1);
    start_timer(downstream, timeout_ns);
}

static void decide_protocol(struct downstream *downstream)
{
    const struct target *target = downstream_target(downstream);
    if (wants_sni(target)) {
        begin_detection(downstream, HEAD_TIMEOUT_NS);
        return;
    }
    switch (target->protocol) {
    case ROUTE_PROTOCOL_HTTP:
        start_http(downstream, CODEC_HTTP1);
        return;
    case ROUTE_PROTOCOL_HTTP2:
    case ROUTE_PROTOCOL_GRPC:
        if (downstream->worker->codecs[CODEC_HTTP2] != NULL) {
            start_http(downstream, CODEC_HTTP2);
        } else {
            begin_detection(downstream, HEAD_TIMEOUT_NS); /* HTTP/1 may come all the same */
        }
        return;
    case ROUTE_PROTOCOL_UNDECLARED:
        if (target->parent != NULL && !is_server_first(downstream->worker, target)) {
            begin_detection(downstream, downstream->worker->settings->detect_timeout_ns);
            return;
        }
        break;
    case ROUTE_PROTOCOL_TCP:
    case ROUTE_PROTOCOL_TLS:
    case ROUTE_PROTOCOL_HTTPS:
    case ROUTE_PROTOCOL_WSS:
        break;
    }
    start_opaque(downstream, (struct bytes){0});
}

/* ---- time limits ---- */

static void on_http_timer(struct downstream *downstream)
{
    struct codec *codec = downstream->connection.codec;
    uint64_t now_ns = io_now(downstream->worker->io);
    uint64_t since_ns = downstream->active_ns;
    uint64_t span_ns = DOWNSTREAM_IDLE_NS;
    if (codec->is_head_timeout_wanted) {
        since_ns = downstream->timed_bytes;
        span_ns = HEAD_TIMEOUT_NS;
    } else if (!codec->is_idle_timeout_wanted) {
        stream_expire_idle(downstream);
        start_timer(downstream, DOWNSTREAM_IDLE_NS);
        return;
    }
    if (clock_add(since_ns, span_ns) > now_ns) {
        start_timer(downstream, since_ns + span_ns - now_ns);
        return;
    }
    codec_expire(codec);
    connection_mark(&downstream->connection);
    start_timer(downstream, DOWNSTREAM_IDLE_NS); /* should that not have closed it */
}

/* An opaque connection is asked now and then whether bytes passed. */
static void on_opaque_timer(struct downstream *downstream)
{
    const struct io_socket *socket = &downstream->connection.transport.socket;
    uint64_t now_ns = io_now(downstream->worker->io);
    uint64_t bytes = socket->received_bytes + socket->sent_bytes;
    if (bytes != downstream->timed_bytes) {
        downstream->timed_bytes = bytes;
        downstream->active_ns = now_ns;
    }
    struct stream *stream = only_stream(downstream);
    if (stream == NULL) {
        return;
    }
    uint64_t limit_ns = stream_is_half_closed(stream) ? HALF_CLOSED_IDLE_NS : OPAQUE_IDLE_NS;
    if (now_ns - downstream->active_ns >= limit_ns) {
        stream_expire_idle(downstream);
        return;
    }
    start_timer(downstream, HALF_CLOSED_IDLE_NS);
}

static void on_timer(struct io_timer *timer)
{
    struct downstream *downstream = LIST_OWNER(timer, struct downstream, timer);
    switch (downstream->state) {
    case DOWNSTREAM_STATE_DETECT:
        downstream->is_quiet = transport_received_size(&downstream->connection.transport) == 0;
        start_opaque(downstream, (struct bytes){0});
        break;
    case DOWNSTREAM_STATE_CODEC:
        if (downstream->connection.codec != NULL &&
            !connection_is_closing(&downstream->connection)) {
            on_http_timer(downstream);
        }
        break;
    case DOWNSTREAM_STATE_OPAQUE:
        on_opaque_timer(downstream);
        break;
    case DOWNSTREAM_STATE_CLOSING:
        break;
    }
}

/* ---- events of the transport ---- */

static void on_received(struct transport *transport)
{
    struct downstream *downstream = downstream_of(transport);
    downstream->active_ns = io_now(downstream->worker->io);
    worker_refresh_date(downstream->worker);
    switch (downstream->state) {
    case DOWNSTREAM_STATE_DETECT:
        detect_now(downstream);
        break;
    case DOWNSTREAM_STATE_CODEC:
        connection_on_received(&downstream->connection);
        watch_head(downstream);
        break;
    case DOWNSTREAM_STATE_OPAQUE:
        if (downstream->connection.codec != NULL) {
            connection_on_received(&downstream->connection);
        } else if (!list_is_empty(&downstream->streams)) {
            stream_on_bytes(only_stream(downstream));
        }
        break;
    case DOWNSTREAM_STATE_CLOSING:
        break;
    }
}

static void on_end(struct transport *transport, enum codec_end end)
{
    struct downstream *downstream = downstream_of(transport);
    if (downstream->state == DOWNSTREAM_STATE_CLOSING) {
        return;
    }
    downstream->is_ended = true;
    if (downstream->connection.codec != NULL) {
        connection_on_end(&downstream->connection, end);
    } else if (downstream->state == DOWNSTREAM_STATE_DETECT) {
        detect_now(downstream);
    } else if (!list_is_empty(&downstream->streams)) {
        stream_on_bytes_end(only_stream(downstream), end);
    }
}

static void on_room(struct transport *transport)
{
    connection_on_room(&downstream_of(transport)->connection);
}

static void on_failed(struct transport *transport, struct error error)
{
    (void)error;
    struct downstream *downstream = downstream_of(transport);
    if (downstream->is_detecting) { /* it went before it was anything */
        count_connection(downstream, STATS_PROTOCOL_TCP);
        log_without_stream(downstream, 0, CAUSE_DOWNSTREAM_RESET);
    }
    downstream_abort(downstream);
}

static void on_closed(struct transport *transport)
{
    struct downstream *downstream = downstream_of(transport);
    struct worker *worker = downstream->worker;
    downstream->state = DOWNSTREAM_STATE_CLOSING;
    end_detection(downstream);
    io_timer_stop(worker->io, &downstream->timer);
    connection_finish(&downstream->connection);
    while (!list_is_empty(&downstream->streams)) {
        stream_on_downstream_closed(only_stream(downstream));
    }
    list_remove(&downstream->open);
    worker->active[downstream->direction]--;
    stats_set_active(worker->options.stats, downstream->direction,
                     worker->active[downstream->direction]);
    stats_add(&worker->taken_back, 1);
    slab_put(&worker->downstream_slab, downstream);
}

static const struct transport_events transport_events = {
    .on_received = on_received,
    .on_end = on_end,
    .on_room = on_room,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

/* ---- beginning and end ---- */

/* Find the original destination; false: this connection must not be served. */
static bool find_destination(struct downstream *downstream)
{
    if (downstream->source->kind == LISTENER_NAMED) {
        return true;
    }
    const struct io_socket *socket = &downstream->connection.transport.socket;
    struct address address = {0};
    struct error error = io_socket_address(socket, IO_ADDRESS_ORIGINAL, &address);
    if (error_is(error)) {
        error = io_socket_address(socket, IO_ADDRESS_LOCAL, &address);
    }
    if (error_is(error)) {
        return false;
    }
    struct destination *destination = &downstream->destination;
    destination->family = address.family;
    destination->port = address.port;
    memcpy(destination->ip, address.ip, sizeof(destination->ip));
    return !address_is_loopback(&address) && !worker_is_own(downstream->worker, &address);
}

static void refuse(struct downstream *downstream, enum cause cause)
{
    stats_count_connection(downstream->worker->options.stats, downstream->direction,
                           STATS_PROTOCOL_TCP, false);
    note_refusal(downstream, 0, cause, (const char *)cause_info(cause)->text.data);
    downstream_abort(downstream);
}

void downstream_accept(struct worker *worker, const struct worker_listener *source, int fd)
{
    struct downstream *downstream = slab_take(&worker->downstream_slab);
    if (downstream == NULL) {
        stats_count_refused(worker->options.stats, CAUSE_LIMIT_CONNECTIONS);
        stats_add(&worker->taken_back, 1);
        worker_close_descriptor(worker, fd);
        return;
    }
    bool is_inbound = source->kind == LISTENER_INBOUND;
    *downstream = (struct downstream){.worker = worker,
                                      .source = source,
                                      .number = ++worker->connections_counter,
                                      .accepted_ns = io_now(worker->io),
                                      .active_ns = io_now(worker->io),
                                      .direction = is_inbound ? STATS_INBOUND : STATS_OUTBOUND};
    list_init(&downstream->open);
    list_init(&downstream->streams);
    struct error error = transport_adopt(&downstream->connection.transport, worker->io, fd,
                                         &transport_defaults, &transport_events);
    if (error_is(error)) {
        stats_add(&worker->taken_back, 1);
        slab_put(&worker->downstream_slab, downstream);
        return;
    }
    connection_init(&downstream->connection, &worker->flusher);
    list_append(&worker->downstreams, &downstream->open);
    worker->active[downstream->direction]++;
    stats_set_active(worker->options.stats, downstream->direction,
                     worker->active[downstream->direction]);
    if (worker->is_stopping) {
        downstream_abort(downstream);
        return;
    }
    if (!find_destination(downstream)) {
        refuse(downstream, CAUSE_LOOP);
        return;
    }
    if (destination_is_self_test(&downstream->destination)) {
        downstream_abort(downstream); /* it arrived: that is all it asks */
        return;
    }
    const struct target *target = downstream_target(downstream);
    if (target->refusal != CAUSE_NONE) {
        refuse(downstream, target->refusal);
        return;
    }
    struct transport_filter *transport_filter =
        worker->make_filter == NULL ? NULL : worker->make_filter(worker, CODEC_ROLE_SERVER);
    if (transport_filter != NULL &&
        error_is(transport_set_filter(&downstream->connection.transport, transport_filter))) {
        refuse(downstream, CAUSE_LIMIT_BUFFER);
        return;
    }
    decide_protocol(downstream);
}

void downstream_drain(struct downstream *downstream)
{
    switch (downstream->state) {
    case DOWNSTREAM_STATE_CODEC:
        if (downstream->connection.codec != NULL) {
            codec_drain(downstream->connection.codec);
            connection_mark(&downstream->connection);
        }
        break;
    case DOWNSTREAM_STATE_DETECT: /* its client has yet to speak, or its server */
    case DOWNSTREAM_STATE_OPAQUE:
    case DOWNSTREAM_STATE_CLOSING:
        break;
    }
}

void downstream_abort(struct downstream *downstream)
{
    if (downstream->state == DOWNSTREAM_STATE_CLOSING) {
        connection_close(&downstream->connection, CONNECTION_CLOSE_ABORT);
        return;
    }
    downstream->state = DOWNSTREAM_STATE_CLOSING;
    connection_close(&downstream->connection, CONNECTION_CLOSE_ABORT);
    struct codec *codec = downstream->connection.codec;
    if (codec != NULL) {
        codec_receive_end(codec, CODEC_END_RESET);
    } else if (!list_is_empty(&downstream->streams)) {
        stream_on_bytes_end(only_stream(downstream), CODEC_END_RESET);
    }
}

void downstream_on_opaque_over(struct downstream *downstream)
{
    downstream->state = DOWNSTREAM_STATE_CLOSING;
    io_timer_stop(downstream->worker->io, &downstream->timer);
}

/*
 * Streams: their life, the table of steps, the steps that answer and finish, and how a stream
 * fails. The order of the steps is the life of a request in the README.
 */
#include "proxy/stream.h"

#include "base/check.h"
#include "control/access_log.h"
#include "limits.h"
#include "proxy/filter.h"
#include "proxy/reply.h"
#include "proxy/stream_steps.h"
#include "proxy/worker_state.h"

static void on_timer(struct io_timer *timer);

/* ---- life ---- */

static struct stream *take_stream(struct downstream *downstream)
{
    struct worker *worker = downstream->worker;
    struct stream *stream = slab_take(&worker->stream_slab);
    if (stream == NULL) {
        return NULL;
    }
    struct arena arena = stream->arena;
    uint64_t now_ns = io_now(worker->io);
    *stream = (struct stream){.arena = arena,
                              .worker = worker,
                              .downstream = downstream,
                              .hold = worker_hold(worker),
                              .number = downstream->number,
                              .began_ns = now_ns,
                              .active_ns = now_ns,
                              .request_deadline_ns = CLOCK_NEVER,
                              .backend_deadline_ns = CLOCK_NEVER,
                              .grpc_status = STATS_NO_GRPC};
    if (arena.chunk_bytes == 0) {
        arena_init(&stream->arena, STREAM_ARENA_CHUNK_BYTES, STREAM_ARENA_BYTES_MAX);
    }
    stream->generation = stream->hold->snapshot->generation;
    stream->attempt.stream = stream;
    list_init(&stream->attempt.of_upstream);
    list_init(&stream->open);
    list_init(&stream->of_downstream);
    list_init(&stream->short_of);
    list_append(&worker->streams, &stream->open);
    list_append(&downstream->streams, &stream->of_downstream);
    worker_count_exchange(worker, 1);
    return stream;
}

struct exchange *stream_begin(struct downstream *downstream)
{
    struct stream *stream = take_stream(downstream);
    if (stream == NULL) {
        return NULL;
    }
    stream->down.events = stream_down_events();
    stream->down.arena = &stream->arena;
    return &stream->down;
}

bool stream_begin_opaque(struct downstream *downstream, struct bytes sni)
{
    struct stream *stream = take_stream(downstream);
    if (stream == NULL) {
        return false;
    }
    stream->is_opaque = true;
    if (sni.size > 0) { /* without memory as if none was sent: no match */
        stream->sni = arena_copy(&stream->arena, sni);
    }
    stream->began_ns = downstream->accepted_ns;
    stream->is_server_watched = downstream->is_quiet;
    stream->is_down_ended = downstream->is_ended;
    stream_run(stream);
    return true;
}

static void drop_hold(struct stream *stream)
{
    if (stream->hold != NULL) {
        struct snapshot_hold *hold = stream->hold;
        stream->hold = NULL;
        stream->rule = NULL;
        stream->backend = NULL;
        worker_release(stream->worker, hold);
    }
}

void stream_detach(struct stream *stream)
{
    if (stream->hold == NULL || !stream->is_response_begun) {
        return;
    }
    /* Without memory the log line lacks them. */
    stream->route_name = arena_copy(&stream->arena, stream->route_name);
    stream->rule_name = arena_copy(&stream->arena, stream->rule_name);
    stream->file = arena_copy(&stream->arena, stream->file);
    drop_hold(stream);
}

static void release(struct io_task *task)
{
    struct stream *stream = LIST_OWNER(task, struct stream, release);
    struct worker *worker = stream->worker;
    CHECK(stream->down.codec == NULL && stream->attempt.upstream == NULL);
    list_remove(&stream->open);
    buffer_clear(&stream->request_data);
    drop_hold(stream);
    if (stream->cluster != NULL) {
        cluster_release(stream->cluster);
    }
    if (stream->parent != NULL) {
        cluster_release(stream->parent);
    }
    arena_reset(&stream->arena);
    slab_put(&worker->stream_slab, stream);
}

/* ---- for the steps ---- */

enum step stream_fail_step(struct stream *stream, enum cause cause)
{
    stream_fail(stream, cause);
    return STEP_NEXT;
}

void stream_start_timer(struct stream *stream)
{
    uint64_t deadline_ns = stream->request_deadline_ns < stream->backend_deadline_ns
                               ? stream->request_deadline_ns
                               : stream->backend_deadline_ns;
    if (deadline_ns != CLOCK_NEVER) {
        io_timer_start(stream->worker->io, &stream->timer, deadline_ns, on_timer);
    }
}

/* ---- EXCHANGE ---- */

static enum step exchange(struct stream *stream)
{
    if (stream->attempt.upstream == NULL || stream->is_request_sent || stream->is_pumped) {
        return STEP_WAIT;
    }
    if (stream->is_opaque) {
        stream_relay_bytes(stream);
    } else {
        const struct route_rule *rule = stream->rule == NULL ? NULL : stream->rule->source;
        if (rule != NULL && rule->timeout_backend_request_ms > 0) {
            stream->backend_deadline_ns =
                clock_add(io_now(stream->worker->io),
                          (uint64_t)rule->timeout_backend_request_ms * CLOCK_NS_PER_MS);
            stream_start_timer(stream);
        }
        stream_relay_start(stream);
    }
    return stream->state == STREAM_STATE_EXCHANGE ? STEP_WAIT : STEP_NEXT;
}

/* ---- REPLY ---- */

/* An opaque client is told by a reset. */
static enum step reply_opaque(struct stream *stream)
{
    struct downstream *downstream = stream->downstream;
    stream->state = STREAM_STATE_FINISH;
    stream->is_down_over = true;
    stats_count_refused(stream->worker->options.stats, stream->cause);
    exchange_reset(&stream->down, EXCHANGE_RESET_INTERNAL);
    downstream_on_opaque_over(downstream);
    connection_close(&downstream->connection, CONNECTION_CLOSE_ABORT);
    return STEP_NEXT;
}

static struct error make_reply(struct stream *stream, struct reply *ret_reply)
{
    if (stream->redirect == NULL) {
        return reply_make(&stream->arena, stream->request, stream->cause, ret_reply);
    }
    const struct filter_request request = {.arena = &stream->arena,
                                           .decision = &stream->decision,
                                           .target = &stream->target,
                                           .service_port = stream->parent->port};
    struct bytes location = {0};
    const struct route_redirect *redirect = stream->redirect;
    TRY(filter_redirect_location(&request, redirect, stream->request, &location));
    return reply_make_redirect(&stream->arena, stream->request, redirect->status_code, location,
                               ret_reply);
}

static struct error send_reply(struct stream *stream)
{
    struct reply reply = {0};
    struct exchange *down = &stream->down;
    TRY(make_reply(stream, &reply));
    bool is_end = reply.body.size == 0 || stream->request->is_head_request;
    stream->status = reply.head->status;
    TRY(exchange_send_head(down, reply.head, is_end));
    stream->is_response_begun = true;
    if (is_end) {
        return OK;
    }
    struct buffer body = {0};
    struct error error = buffer_append(&body, io_blocks(stream->worker->io), reply.body);
    if (!error_is(error)) {
        error = exchange_send_data(down, &body);
    }
    buffer_clear(&body);
    return error_is(error) ? error : exchange_send_end(down);
}

static enum step reply(struct stream *stream)
{
    stream_cancel_attempt(stream);
    if (stream->is_opaque) {
        return reply_opaque(stream);
    }
    stream->state = STREAM_STATE_FINISH;
    if (stream->is_down_over) {
        return STEP_NEXT;
    }
    if (stream->is_grpc && stream->cause != CAUSE_NONE) {
        stream->grpc_status = cause_info(stream->cause)->grpc_status;
    }
    struct error error = send_reply(stream);
    if (error_is(error)) {
        exchange_reset(&stream->down, EXCHANGE_RESET_INTERNAL);
        stream->is_down_over = true;
    }
    return STEP_NEXT;
}

/* ---- FINISH ---- */

static void log_stream(const struct stream *stream, uint64_t now_ns)
{
    const struct worker *worker = stream->worker;
    const struct downstream *downstream = stream->downstream;
    const struct message_head *head = stream->request;
    struct access_log_entry entry = {
        .direction = downstream->direction,
        .protocol = downstream->protocol,
        .generation = stream->generation,
        .connection = stream->number,
        .destination = downstream_destination(downstream),
        .parent = stream->parent == NULL ? (struct bytes){0} : stream->parent->label,
        .route = stream->route_name,
        .rule = stream->rule_name,
        .file = stream->file,
        .line = stream->line,
        .backend = stream->cluster == NULL ? (struct bytes){0} : stream->cluster->reference,
        .status = stream->status,
        .grpc_status = stream->grpc_status,
        .cause = stream->cause,
        .attempts = stream->attempts,
        .is_cluster_ip_fallback = stream->is_fallback,
        .received_bytes = stream->received_bytes,
        .sent_bytes = stream->sent_bytes,
        .total_ns = now_ns - stream->began_ns,
    };
    /* A peer that is gone has no address any more. */
    error_ignore(io_socket_address(&downstream->connection.transport.socket, IO_ADDRESS_PEER,
                                   &entry.downstream));
    if (stream->picked_ns != 0) {
        entry.routing_ns = stream->picked_ns - stream->began_ns;
    }
    entry.endpoint = stream->dialled; /* the last one that was dialled, also where it failed */
    if (stream->connected_ns != 0) {
        entry.connect_ns = stream->connected_ns - stream->picked_ns;
        if (stream->first_byte_ns != 0) {
            entry.first_byte_ns = stream->first_byte_ns - stream->connected_ns;
        }
    }
    if (head != NULL) {
        entry.method = head->method;
        entry.authority = head->authority;
        entry.path = stream->asked_target;
        const struct message_field *id = message_find(head, MESSAGE_FIELD_X_REQUEST_ID);
        if (id != NULL) {
            entry.request_id = id->value;
        }
    }
    access_log_write(worker->options.access_log, worker->settings->access_log, &entry);
}

static enum step finish(struct stream *stream)
{
    if (!stream->is_down_over || stream->attempt.upstream != NULL) {
        return STEP_WAIT;
    }
    struct worker *worker = stream->worker;
    struct downstream *downstream = stream->downstream;
    uint64_t now_ns = io_now(worker->io);
    if (!stream->is_opaque) {
        stream->received_bytes = stream->down.received_bytes;
        stream->sent_bytes = stream->down.sent_bytes;
    }
    const struct stats_request_key key = {
        .direction = downstream->direction,
        .parent = stream->parent == NULL ? (struct bytes){0} : stream->parent->label,
        .route = stream->route_name,
        .rule = stream->rule_name,
        .backend = stream->cluster == NULL ? (struct bytes){0} : stream->cluster->reference,
        .code = stream->status,
        .grpc_status = stream->grpc_status};
    stats_count_request(worker->options.stats, &key, now_ns - stream->began_ns);
    stats_count_bytes(worker->options.stats, downstream->direction, stream->received_bytes,
                      stream->sent_bytes);
    if (worker->settings->access_log != ACCESS_LOG_OFF) {
        log_stream(stream, now_ns);
    }
    io_timer_stop(worker->io, &stream->timer);
    shortage_leave(&worker->shortage, stream);
    downstream->active_ns = now_ns;
    list_remove(&stream->of_downstream);
    stream->downstream = NULL;
    stream->state = STREAM_STATE_DONE;
    worker_count_exchange(worker, -1);
    io_task_schedule(worker->io, &stream->release, release);
    return STEP_DONE;
}

static enum step done(struct stream *stream)
{
    (void)stream;
    return STEP_DONE;
}

void stream_run(struct stream *stream)
{
    static enum step (*const steps[STREAM_STATE_COUNT])(struct stream *) = {
        [STREAM_STATE_AUTHORIZE] = stream_authorize,
        [STREAM_STATE_ROUTE] = stream_route,
        [STREAM_STATE_FILTER] = stream_filter,
        [STREAM_STATE_PICK] = stream_pick,
        [STREAM_STATE_CONNECT] = stream_connect,
        [STREAM_STATE_EXCHANGE] = exchange,
        [STREAM_STATE_REPLY] = reply,
        [STREAM_STATE_FINISH] = finish,
        [STREAM_STATE_DONE] = done,
    };

    while (steps[stream->state](stream) == STEP_NEXT) {
    }
}

/* ---- ends of streams ---- */

void stream_fail(struct stream *stream, enum cause cause)
{
    if (stream->state >= STREAM_STATE_REPLY) {
        return; /* it is being answered or over already */
    }
    stream->cause = cause;
    if (!stream->is_down_over && !stream->is_response_begun) {
        stream->state = STREAM_STATE_REPLY;
        return;
    }
    stream_cancel_attempt(stream);
    if (!stream->is_down_over) {
        exchange_reset(&stream->down, cause == CAUSE_UPSTREAM_RESET ? EXCHANGE_RESET_CONNECTION
                                                                    : EXCHANGE_RESET_INTERNAL);
        stream->is_down_over = true;
        if (stream->is_opaque) {
            downstream_on_opaque_over(stream->downstream);
            connection_close(&stream->downstream->connection, CONNECTION_CLOSE_ABORT);
        }
    }
    stream->state = STREAM_STATE_FINISH;
}

void stream_check_over(struct stream *stream)
{
    if (stream->is_down_over && stream->attempt.upstream == NULL &&
        stream->state != STREAM_STATE_DONE) {
        stream->state = STREAM_STATE_FINISH;
        stream_run(stream);
    }
}

static void on_timer(struct io_timer *timer)
{
    struct stream *stream = LIST_OWNER(timer, struct stream, timer);
    uint64_t now_ns = io_now(stream->worker->io);
    if (stream->request_deadline_ns <= now_ns) {
        stream_fail(stream, CAUSE_REQUEST_TIMEOUT);
    } else if (stream->backend_deadline_ns <= now_ns) {
        stream_fail(stream, CAUSE_BACKEND_TIMEOUT);
    } else {
        stream_start_timer(stream);
        return;
    }
    stream_run(stream);
}

void stream_on_downstream_closed(struct stream *stream)
{
    exchange_reset(&stream->down, EXCHANGE_RESET_CONNECTION);
    stream->is_down_over = true;
    stream_cancel_attempt(stream);
    stream_check_over(stream);
    CHECK(stream->state == STREAM_STATE_DONE);
}

void stream_expire_idle(struct downstream *downstream)
{
    uint64_t now_ns = io_now(downstream->worker->io);
    struct list *node = downstream->streams.next;
    while (node != &downstream->streams) {
        struct stream *stream = LIST_OWNER(node, struct stream, of_downstream);
        node = node->next;
        bool is_idle = stream->is_pumped || now_ns - stream->active_ns >= STREAM_IDLE_NS;
        if (!is_idle) {
            continue;
        }
        if (stream->state == STREAM_STATE_FINISH) {
            /* Its client has not taken the answer. */
            stream_cancel_attempt(stream);
            exchange_reset(&stream->down, EXCHANGE_RESET_INTERNAL);
            stream->is_down_over = true;
        } else {
            bool is_silent = !stream->is_opaque && !stream->is_response_begun;
            stream_fail(stream, is_silent ? CAUSE_BACKEND_TIMEOUT : CAUSE_IDLE);
        }
        stream_run(stream);
    }
}

const char *stream_state_name(enum stream_state state)
{
    static const char *const names[STREAM_STATE_COUNT] = {
        "authorize", "route", "filter", "pick", "connect", "exchange", "reply", "finish", "done"};
    return (unsigned)state < STREAM_STATE_COUNT ? names[state] : "unknown";
}

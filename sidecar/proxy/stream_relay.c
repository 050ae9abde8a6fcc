/*
 * The middle of a stream: what one exchange brings goes to the other, with grants against the flow.
 * The sink's room is what the source is granted, so neither side holds more than a window.
 */
#include "base/check.h"
#include "limits.h"
#include "proxy/filter.h"
#include "proxy/stream_steps.h"
#include "proxy/worker_state.h"
#include "upstream/upstream.h"

static struct stream *stream_of_down(struct exchange *exchange)
{
    return LIST_OWNER(exchange, struct stream, down);
}

static struct stream *stream_of_up(struct exchange *exchange)
{
    return LIST_OWNER(exchange, struct stream, attempt.exchange);
}

static void touch(struct stream *stream)
{
    stream->active_ns = io_now(stream->worker->io);
}

/* ---- from the downstream to the upstream ---- */

/* Let the downstream send what the upstream has room for. */
static void grant_request(struct stream *stream)
{
    struct exchange *down = &stream->down;
    struct exchange *up = &stream->attempt.exchange;
    if (down->is_receive_over || up->codec == NULL || up->is_send_over ||
        !buffer_is_empty(&stream->request_data)) {
        return;
    }
    uint64_t room = exchange_room(up);
    uint64_t wanted = room < EXCHANGE_WINDOW_BYTES ? room : EXCHANGE_WINDOW_BYTES;
    if (wanted > down->granted_bytes) {
        exchange_grant(down, wanted - down->granted_bytes);
    }
}

/* What waited for the upstream goes on as far as there is room. Errors: of the upstream's codec. */
static struct error send_waiting_data(struct stream *stream)
{
    struct exchange *up = &stream->attempt.exchange;
    if (buffer_is_empty(&stream->request_data)) {
        return OK;
    }
    uint64_t room = exchange_room(up);
    if (room == 0) {
        return OK;
    }
    stream->is_body_lost = true;
    if (room >= stream->request_data.size) {
        return exchange_send_data(up, &stream->request_data);
    }
    struct buffer part = {0};
    struct error error = buffer_move(&stream->request_data, &part, room);
    if (!error_is(error)) {
        error = exchange_send_data(up, &part);
    }
    buffer_clear(&part);
    return error;
}

static struct error send_request_rest(struct stream *stream)
{
    struct exchange *up = &stream->attempt.exchange;
    if (up->codec == NULL || up->is_send_over || !stream->is_request_sent) {
        return OK;
    }
    TRY(send_waiting_data(stream));
    if (!buffer_is_empty(&stream->request_data)) {
        return OK;
    }
    if (stream->is_request_whole) {
        if (stream->request_trailers != NULL) {
            TRY(exchange_send_trailers(up, stream->request_trailers));
        }
        return exchange_send_end(up);
    }
    grant_request(stream);
    return OK;
}

/* Our own side cannot go on with what the downstream sent. */
static void fail_request(struct stream *stream, struct error error)
{
    stream_fail(stream,
                error.code == ERROR_PROTOCOL ? CAUSE_REQUEST_MALFORMED : CAUSE_LIMIT_BUFFER);
    stream_run(stream);
}

static void push_request(struct stream *stream)
{
    struct error error = send_request_rest(stream);
    if (error_is(error)) {
        fail_request(stream, error);
    }
}

static void down_on_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct stream *stream = stream_of_down(exchange);
    CHECK(stream->state == STREAM_STATE_AUTHORIZE && stream->request == NULL);
    touch(stream);
    stream->request = head;
    stream->asked_target = head->target;
    stream->is_grpc = head->is_grpc;
    stream->is_request_whole = is_end;
    stream_run(stream);
}

static void down_on_data(struct exchange *exchange, struct buffer *data)
{
    struct stream *stream = stream_of_down(exchange);
    struct exchange *up = &stream->attempt.exchange;
    touch(stream);
    struct error error = OK;
    if (stream->is_request_sent && up->codec != NULL && !up->is_send_over &&
        buffer_is_empty(&stream->request_data)) {
        stream->is_body_lost = true;
        error = exchange_send_data(up, data);
        if (!error_is(error)) {
            grant_request(stream);
        }
    } else if (stream->state < STREAM_STATE_EXCHANGE ||
               (stream->state == STREAM_STATE_EXCHANGE && up->codec != NULL && !up->is_send_over)) {
        error = buffer_move(data, &stream->request_data, data->size);
    }
    /* Else it was answered already: nobody wants the rest. */
    if (error_is(error)) {
        fail_request(stream, error);
    }
}

static void down_on_trailers(struct exchange *exchange, struct message_head *trailers)
{
    stream_of_down(exchange)->request_trailers = trailers;
}

static void down_on_end(struct exchange *exchange)
{
    struct stream *stream = stream_of_down(exchange);
    touch(stream);
    stream->is_request_whole = true;
    push_request(stream);
}

static void down_on_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    (void)error;
    struct stream *stream = stream_of_down(exchange);
    stream->is_down_over = true;
    if (stream->cause == CAUSE_NONE) {
        stream->cause =
            reason == EXCHANGE_RESET_PROTOCOL ? CAUSE_REQUEST_MALFORMED : CAUSE_DOWNSTREAM_RESET;
    }
    stream_cancel_attempt(stream);
    stream_check_over(stream);
}

static void down_on_done(struct exchange *exchange)
{
    struct stream *stream = stream_of_down(exchange);
    stream->is_down_over = true;
    stream_check_over(stream);
}

/* ---- from the upstream to the downstream ---- */

static void grant_response(struct stream *stream)
{
    struct exchange *down = &stream->down;
    struct exchange *up = &stream->attempt.exchange;
    if (up->codec == NULL || up->is_receive_over || down->codec == NULL) {
        return;
    }
    /* Before the response's head nothing can be sent down, but its first bytes may come along. */
    uint64_t room = exchange_room(down);
    uint64_t wanted = room < EXCHANGE_WINDOW_BYTES ? room : EXCHANGE_WINDOW_BYTES;
    if (wanted > up->granted_bytes) {
        exchange_grant(up, wanted - up->granted_bytes);
    }
}

static void down_on_room(struct exchange *exchange)
{
    grant_response(stream_of_down(exchange));
}

static void up_on_room(struct exchange *exchange)
{
    push_request(stream_of_up(exchange));
}

/* Our own side cannot go on with what the upstream sent. */
static void fail_response(struct stream *stream, struct error error)
{
    stream_fail(stream,
                error.code == ERROR_PROTOCOL ? CAUSE_UPSTREAM_MALFORMED : CAUSE_LIMIT_BUFFER);
    stream_run(stream);
}

static void note_grpc_status(struct stream *stream, struct message_head *head)
{
    if (!stream->is_grpc) {
        return;
    }
    const struct message_field *field = message_find_name(head, BYTES("grpc-status"));
    uint64_t status = 0;
    if (field != NULL && !error_is(bytes_parse_decimal(field->value, 254, &status))) {
        stream->grpc_status = (uint8_t)status;
    }
}

static void up_on_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct stream *stream = stream_of_up(exchange);
    touch(stream);
    stream->first_byte_ns = stream->active_ns;
    stream->status = head->status;
    note_grpc_status(stream, head);
    struct error error = OK;
    if (stream->rule != NULL) {
        error = filter_response_apply(&stream->arena, stream->rule, stream->backend, head);
    }
    if (!error_is(error)) {
        error = exchange_send_head(&stream->down, head, is_end);
    }
    if (error_is(error)) {
        fail_response(stream, error);
        return;
    }
    stream->is_response_begun = true;
    if (head->status == 101) {
        /* The route's time is that of a response; a tunnel has only its idle time. */
        io_timer_stop(stream->worker->io, &stream->timer);
    }
    if (!stream->hold->is_current) {
        stream_detach(stream);
    }
    grant_response(stream);
}

static void up_on_interim(struct exchange *exchange, struct message_head *head)
{
    struct stream *stream = stream_of_up(exchange);
    touch(stream);
    struct error error = exchange_send_interim(&stream->down, head);
    if (error_is(error)) {
        fail_response(stream, error);
    }
}

static void up_on_data(struct exchange *exchange, struct buffer *data)
{
    struct stream *stream = stream_of_up(exchange);
    touch(stream);
    struct error error = exchange_send_data(&stream->down, data);
    if (error_is(error)) {
        fail_response(stream, error);
        return;
    }
    grant_response(stream);
}

static void up_on_trailers(struct exchange *exchange, struct message_head *trailers)
{
    struct stream *stream = stream_of_up(exchange);
    note_grpc_status(stream, trailers);
    struct error error = exchange_send_trailers(&stream->down, trailers);
    if (error_is(error)) {
        fail_response(stream, error);
    }
}

static void up_on_end(struct exchange *exchange)
{
    struct stream *stream = stream_of_up(exchange);
    touch(stream);
    struct error error = exchange_send_end(&stream->down);
    if (error_is(error)) {
        fail_response(stream, error);
    }
}

static enum cause cause_of_reset(enum exchange_reset reason)
{
    switch (reason) {
    case EXCHANGE_RESET_PROTOCOL:
        return CAUSE_UPSTREAM_MALFORMED;
    case EXCHANGE_RESET_INTERNAL:
        return CAUSE_LIMIT_BUFFER;
    case EXCHANGE_RESET_CANCEL:
    case EXCHANGE_RESET_REFUSED:
    case EXCHANGE_RESET_CONNECTION:
    case EXCHANGE_RESET_TRUNCATED:
        break;
    }
    return CAUSE_UPSTREAM_RESET;
}

static void up_on_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    (void)error;
    struct stream *stream = stream_of_up(exchange);
    if (stream_can_retry(stream, reason)) {
        stream->is_pool_tried = true;
        stream_cancel_attempt(stream);
        stream->state = STREAM_STATE_PICK;
    } else {
        stream_fail(stream, cause_of_reset(reason));
    }
    stream_run(stream);
}

static void up_on_done(struct exchange *exchange)
{
    struct stream *stream = stream_of_up(exchange);
    stream_finish_attempt(stream);
    stream_check_over(stream);
}

static const struct exchange_events down_events = {
    .on_head = down_on_head,
    .on_data = down_on_data,
    .on_trailers = down_on_trailers,
    .on_end = down_on_end,
    .on_reset = down_on_reset,
    .on_room = down_on_room,
    .on_done = down_on_done,
};

static const struct exchange_events up_events = {
    .on_head = up_on_head,
    .on_interim = up_on_interim,
    .on_data = up_on_data,
    .on_trailers = up_on_trailers,
    .on_end = up_on_end,
    .on_reset = up_on_reset,
    .on_room = up_on_room,
    .on_done = up_on_done,
};

const struct exchange_events *stream_down_events(void)
{
    return &down_events;
}

static struct error open_upstream(struct stream *stream)
{
    struct attempt *attempt = &stream->attempt;
    struct connection *connection = &attempt->upstream->connection;
    if (connection->codec == NULL) {
        TRY(upstream_start_codec(attempt->upstream));
    }
    attempt->exchange = (struct exchange){.events = &up_events, .arena = &stream->arena};
    return exchange_open(connection->codec, &attempt->exchange);
}

void stream_relay_start(struct stream *stream)
{
    struct exchange *up = &stream->attempt.exchange;
    struct error error = open_upstream(stream);
    if (!error_is(error)) {
        bool is_end = stream->is_request_whole && buffer_is_empty(&stream->request_data) &&
                      stream->request_trailers == NULL;
        error = exchange_send_head(up, stream->request, is_end);
    }
    if (!error_is(error)) {
        stream->is_request_sent = true;
        error = send_request_rest(stream);
    }
    if (error_is(error)) {
        stream_fail(stream,
                    error.code == ERROR_PROTOCOL ? CAUSE_REQUEST_MALFORMED : CAUSE_LIMIT_BUFFER);
        return;
    }
    grant_response(stream);
}

/* ---- bytes without heads ---- */

/* Through the opaque codecs: one of the transports has a filter. */
static struct error relay_through_codecs(struct stream *stream)
{
    TRY(open_upstream(stream));
    stream->is_request_sent = true;
    stream->is_response_begun = true;
    stream->down.events = &down_events;
    stream->down.arena = &stream->arena;
    TRY(downstream_start_opaque_codec(stream->downstream));
    if (stream->state != STREAM_STATE_EXCHANGE) {
        return OK; /* what had been received has ended it already */
    }
    grant_request(stream);
    grant_response(stream);
    return OK;
}

static struct error relay_by_pump(struct stream *stream, struct transport *down,
                                  struct transport *up)
{
    TRY(transport_pump(down, up));
    TRY(transport_pump(up, down));
    stream->is_pumped = true;
    stream->is_response_begun = true;
    if (stream->is_down_ended) {
        transport_send_end(up);
    }
    if (stream->is_up_ended) {
        transport_send_end(down);
    }
    return OK;
}

void stream_relay_bytes(struct stream *stream)
{
    struct transport *down = &stream->downstream->connection.transport;
    struct transport *up = &stream->attempt.upstream->connection.transport;
    bool is_plain = transport_can_pump(down, up);
    if (is_plain && stream->is_server_watched) {
        bool is_silent = down->socket.received_bytes == 0 && up->socket.received_bytes == 0 &&
                         !stream->is_down_ended && !stream->is_up_ended;
        if (is_silent) {
            return; /* stream_on_bytes or attempt_on_bytes comes back here */
        }
        stream->is_server_watched = false;
        if (down->socket.received_bytes == 0 && up->socket.received_bytes > 0) {
            downstream_note_server_first(stream->downstream);
        }
    }
    struct error error = is_plain ? relay_by_pump(stream, down, up) : relay_through_codecs(stream);
    if (error_is(error)) {
        stream_fail(stream, CAUSE_LIMIT_BUFFER);
        return;
    }
    if (stream->is_pumped && !stream->hold->is_current) {
        stream_detach(stream);
    }
}

static void count_bytes(struct stream *stream)
{
    stream->received_bytes = stream->downstream->connection.transport.socket.received_bytes;
    if (stream->attempt.upstream != NULL) {
        stream->sent_bytes = stream->attempt.upstream->connection.transport.socket.received_bytes;
    }
}

/* Both directions have ended: what is queued still goes. */
static void finish_bytes(struct stream *stream)
{
    count_bytes(stream);
    struct downstream *downstream = stream->downstream;
    stream->is_down_over = true;
    downstream_on_opaque_over(downstream);
    connection_close(&downstream->connection, CONNECTION_CLOSE_LINGERING);
    stream_finish_attempt(stream);
    stream_check_over(stream);
}

void stream_on_bytes(struct stream *stream)
{
    if (stream->state == STREAM_STATE_EXCHANGE && stream->is_server_watched) {
        stream_relay_bytes(stream);
        stream_run(stream);
    }
}

void attempt_on_bytes(struct attempt *attempt)
{
    stream_on_bytes(attempt->stream);
}

void stream_on_bytes_end(struct stream *stream, enum codec_end end)
{
    if (stream->is_down_over) {
        return;
    }
    touch(stream);
    if (end != CODEC_END_CLEAN) {
        count_bytes(stream);
        stream->is_down_over = true;
        if (stream->cause == CAUSE_NONE) {
            stream->cause = CAUSE_DOWNSTREAM_RESET;
        }
        downstream_on_opaque_over(stream->downstream);
        connection_close(&stream->downstream->connection, CONNECTION_CLOSE_ABORT);
        stream_cancel_attempt(stream);
        stream_check_over(stream);
        return;
    }
    stream->is_down_ended = true;
    if (stream->is_pumped) {
        transport_send_end(&stream->attempt.upstream->connection.transport);
        if (stream->is_up_ended) {
            finish_bytes(stream);
        }
        return;
    }
    stream_on_bytes(stream);
}

void attempt_on_bytes_end(struct attempt *attempt, enum codec_end end)
{
    struct stream *stream = attempt->stream;
    touch(stream);
    if (end != CODEC_END_CLEAN) {
        count_bytes(stream);
        stream_fail(stream, CAUSE_UPSTREAM_RESET);
        stream_run(stream);
        return;
    }
    stream->is_up_ended = true;
    if (stream->is_pumped) {
        transport_send_end(&stream->downstream->connection.transport);
        if (stream->is_down_ended) {
            finish_bytes(stream);
        }
        return;
    }
    stream_on_bytes(stream);
}

bool stream_is_half_closed(const struct stream *stream)
{
    if (stream->down.codec != NULL) {
        return stream->down.is_receive_over || stream->down.is_send_over;
    }
    return stream->is_down_ended || stream->is_up_ended;
}

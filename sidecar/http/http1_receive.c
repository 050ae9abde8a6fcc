/*
 * Receiving over HTTP/1.1: content by its framing (RFC 9112 6, 7), one step of the state after the
 * other while bytes and grants last, and what the end of the peer's bytes means in each state.
 */
#include "base/check.h"
#include "http/http1_parse.h"
#include "http/http1_state.h"
#include "limits.h"

/* Take up to `size` granted bytes of the input into `delivery`, which is emptied on failure.
 * Errors: ERROR_NO_MEMORY. */
static struct error take(struct http1 *http1, struct buffer *input, uint64_t size,
                         struct buffer *delivery, uint64_t *ret_taken)
{
    struct exchange *exchange = http1->exchange;
    uint64_t part = size < input->size ? size : input->size;
    part = part < exchange->granted_bytes ? part : exchange->granted_bytes;
    struct error error;
    if (http1->receive_state == RECEIVE_CHUNK_DATA && part <= LIMIT_CHUNK_COPY_BYTES) {
        uint8_t copy[LIMIT_CHUNK_COPY_BYTES];
        buffer_copy_out(input, part, copy);
        error = buffer_append(delivery, http1->codec.blocks, bytes_make(copy, part));
        if (!error_is(error)) {
            buffer_consume(input, part);
        }
    } else {
        error = buffer_move(input, delivery, part);
    }
    if (error_is(error)) {
        buffer_clear(delivery);
        return error;
    }
    exchange->granted_bytes -= part;
    exchange->received_bytes += part;
    *ret_taken = part;
    return OK;
}

/* Give the owner its data; what it leaves is dropped. */
static void deliver(struct http1 *http1, struct buffer *delivery)
{
    if (delivery->size > 0) {
        CHECK(http1->exchange != NULL);
        http1->exchange->events->on_data(http1->exchange, delivery);
        buffer_clear(delivery);
    }
}

static struct error receive_length(struct http1 *http1, struct buffer *input)
{
    uint64_t taken = 0;
    struct buffer delivery = {0};
    TRY(take(http1, input, http1->receive_left, &delivery, &taken));
    http1->receive_left -= taken;
    bool is_end = http1->receive_left == 0;
    deliver(http1, &delivery);
    if (is_end && http1->exchange != NULL) {
        http1_end_receive(http1);
    }
    return OK;
}

/* To the end of the connection, or of this way of the tunnel. */
static struct error receive_open_ended(struct http1 *http1, struct buffer *input)
{
    uint64_t taken = 0;
    struct buffer delivery = {0};
    TRY(take(http1, input, UINT64_MAX, &delivery, &taken));
    deliver(http1, &delivery);
    return OK;
}

/* One chunk's line: false when it is not whole yet or is wrong, which `fault` then says. */
static bool receive_chunk_line(struct http1 *http1, struct buffer *input, enum http1_fault *fault)
{
    enum {
        LINE_BYTES_MAX = LIMIT_CHUNK_LINE_BYTES + 2
    };

    uint8_t copy[LINE_BYTES_MAX];
    struct bytes line = buffer_front(input);
    if (bytes_find(line, '\n') == line.size) {
        size_t size = input->size < LINE_BYTES_MAX ? input->size : LINE_BYTES_MAX;
        buffer_copy_out(input, size, copy);
        line = bytes_make(copy, size);
    }
    size_t end = bytes_find(line, '\n');
    if (end == line.size || end >= LINE_BYTES_MAX) {
        http1->is_starved = line.size < LINE_BYTES_MAX;
        *fault = http1->is_starved ? HTTP1_FAULT_NONE : HTTP1_FAULT_CHUNK;
        return false;
    }
    size_t extension_bytes = 0;
    bool is_sound =
        end > 0 && line.data[end - 1] == '\r' &&
        http1_parse_chunk_line(bytes_first(line, end - 1), &http1->receive_left, &extension_bytes);
    http1->extension_bytes += extension_bytes;
    if (!is_sound || http1->extension_bytes > LIMIT_CHUNK_EXTENSIONS_BYTES) {
        *fault = HTTP1_FAULT_CHUNK;
        return false;
    }
    buffer_consume(input, end + 1);
    http1->scanned = 0;
    http1->receive_state = http1->receive_left == 0 ? RECEIVE_TRAILERS : RECEIVE_CHUNK_DATA;
    return true;
}

/* The CRLF behind a chunk. A wrong byte is refused as soon as it is there. */
static bool receive_chunk_end(struct http1 *http1, struct buffer *input, enum http1_fault *fault)
{
    uint8_t end[2] = {'\r', '\n'};
    size_t size = input->size < 2 ? input->size : 2;
    buffer_copy_out(input, size, end);
    if (end[0] != '\r' || end[1] != '\n') {
        *fault = HTTP1_FAULT_CHUNK;
        return false;
    }
    if (size < 2) {
        http1->is_starved = true;
        return false;
    }
    buffer_consume(input, 2);
    http1->receive_state = RECEIVE_CHUNK_LINE;
    return true;
}

/* Chunks as far as the input and the grants go, delivered as one. */
static struct error receive_chunks(struct http1 *http1, struct buffer *input)
{
    const struct exchange *exchange = http1->exchange;
    CHECK(exchange != NULL);
    enum http1_fault fault = HTTP1_FAULT_NONE;
    struct buffer delivery = {0};
    bool goes_on = true;
    while (goes_on && input->size > 0) {
        if (http1->receive_state == RECEIVE_CHUNK_LINE) {
            goes_on = receive_chunk_line(http1, input, &fault);
        } else if (http1->receive_state == RECEIVE_CHUNK_END) {
            goes_on = receive_chunk_end(http1, input, &fault);
        } else if (http1->receive_state == RECEIVE_CHUNK_DATA) {
            uint64_t taken = 0;
            TRY(take(http1, input, http1->receive_left, &delivery, &taken));
            http1->receive_left -= taken;
            goes_on = http1->receive_left == 0;
            if (goes_on) {
                http1->receive_state = RECEIVE_CHUNK_END;
            }
        } else {
            goes_on = false;
        }
    }
    deliver(http1,
            &delivery); /* also what stood before a fault, so that it does not depend on the cuts */
    if (fault != HTTP1_FAULT_NONE && http1->exchange == exchange) {
        http1_refuse(http1, fault);
    }
    return OK;
}

/* ---- The connection's calls ---- */

/* Client: bytes of a response that nobody waits for (F1). */
static void drop_unsolicited(struct http1 *http1, struct buffer *input)
{
    buffer_consume(input, input->size);
    if (http1->exchange != NULL) {
        /* Opened, but its request was not sent: the connection died before it. */
        http1_abort(http1);
        http1_fail_exchange(http1, EXCHANGE_RESET_CONNECTION,
                            http1_fault_error(HTTP1_FAULT_UNSOLICITED));
        return;
    }
    http1_refuse(http1, HTTP1_FAULT_UNSOLICITED);
}

/* One step; `ret_goes_on` says whether another may do more. */
static struct error step(struct http1 *http1, struct buffer *input, bool *ret_goes_on)
{
    size_t before = input->size;
    enum receive_state state = http1->receive_state;
    const struct exchange *exchange = http1->exchange;
    bool may_deliver = exchange != NULL && exchange->granted_bytes > 0;
    struct error error = OK;
    http1->is_starved = false;
    switch (state) {
    case RECEIVE_HEAD:
        if (!http1_is_server(http1) && (exchange == NULL || http1->send_state == SEND_HEAD)) {
            drop_unsolicited(http1, input);
        } else {
            error = http1_receive_head(http1, input);
        }
        break;
    case RECEIVE_LENGTH:
        error = may_deliver ? receive_length(http1, input) : OK;
        break;
    case RECEIVE_CHUNK_DATA:
        error = may_deliver ? receive_chunks(http1, input) : OK;
        break;
    case RECEIVE_CHUNK_LINE:
    case RECEIVE_CHUNK_END:
        error = receive_chunks(http1, input);
        break;
    case RECEIVE_TRAILERS:
        error = http1_receive_trailers(http1, input);
        break;
    case RECEIVE_UNTIL_CLOSE:
    case RECEIVE_TUNNEL:
        error = may_deliver ? receive_open_ended(http1, input) : OK;
        break;
    case RECEIVE_UPGRADE:
        break;
    case RECEIVE_COMPLETE:
        if (!http1_is_server(http1)) {
            http1->is_closing = true; /* bytes behind the response: nobody asked for them (F1) */
            buffer_consume(input, input->size);
        }
        break;
    case RECEIVE_DEAD:
        buffer_consume(input, input->size);
        break;
    }
    *ret_goes_on = input->size > 0 && (input->size != before || http1->receive_state != state);
    return error;
}

/* The end of the peer's bytes, as soon as no byte that can still be used stands before it. */
void http1_apply_end(struct http1 *http1)
{
    struct exchange *exchange = http1->exchange;
    if (http1->has_input && !http1->is_starved) {
        return;
    }
    switch (http1->receive_state) {
    case RECEIVE_HEAD:
        if (exchange != NULL) { /* client: the answer that was waited for does not come */
            bool has_begun = exchange->is_receive_begun;
            http1_close(http1);
            http1_fail_exchange(http1,
                                has_begun ? EXCHANGE_RESET_TRUNCATED : EXCHANGE_RESET_CONNECTION,
                                error_make(ERROR_CLOSED, 0));
            return;
        }
        http1_close(http1);
        http1_tell_idle(http1);
        return;
    case RECEIVE_LENGTH:
    case RECEIVE_CHUNK_LINE:
    case RECEIVE_CHUNK_DATA:
    case RECEIVE_CHUNK_END:
    case RECEIVE_TRAILERS:
        if (http1_is_server(http1)) {
            http1_refuse(http1, HTTP1_FAULT_TRUNCATED);
            return;
        }
        http1_close(http1);
        http1_fail_exchange(http1, EXCHANGE_RESET_TRUNCATED, error_make(ERROR_TRUNCATED, 0));
        return;
    case RECEIVE_UNTIL_CLOSE:
    case RECEIVE_TUNNEL:
        if (http1->end == CODEC_END_CLEAN) {
            http1->is_closing = true;
            http1_end_receive(http1);
            http1_finish_if_over(http1);
            return;
        }
        http1_abort(http1);
        http1_fail_exchange(http1, EXCHANGE_RESET_TRUNCATED, error_make(ERROR_TRUNCATED, 0));
        return;
    case RECEIVE_UPGRADE: /* the tunnel will have nothing to say, if it comes to be */
    case RECEIVE_COMPLETE:
        http1->is_closing = true;
        return;
    case RECEIVE_DEAD:
        return;
    }
}

struct error http1_receive(struct codec *codec, struct buffer *input)
{
    struct http1 *http1 = http1_from(codec);
    struct error error = OK;
    bool goes_on = true;
    http1->is_receiving = true;
    while (goes_on && !error_is(error)) {
        goes_on = false;
        if (input->size > 0) {
            error = step(http1, input, &goes_on);
        }
        if (!error_is(error) && input->size > 0 && http1->receive_state == RECEIVE_COMPLETE &&
            !http1_is_server(http1)) {
            goes_on = true; /* look at what stands behind the response before it is over */
            continue;
        }
        http1->has_input = input->size > 0;
        if (http1_finish_if_over(http1)) {
            goes_on = input->size > 0;
        }
    }
    http1->is_receiving = false;
    http1->has_input = input->size > 0;
    if (error_is(error)) {
        return error;
    }
    if (http1->has_ended) {
        http1_apply_end(http1);
    }
    http1_update_timeouts(http1);
    return OK;
}

void http1_receive_end(struct codec *codec, enum codec_end end)
{
    struct http1 *http1 = http1_from(codec);
    if (end == CODEC_END_RESET) {
        http1_abort(http1);
        if (http1->exchange != NULL) {
            http1_fail_exchange(http1, EXCHANGE_RESET_CONNECTION, error_make(ERROR_RESET, 0));
        } else {
            http1_tell_idle(http1);
        }
        return;
    }
    http1->has_ended = true;
    http1->end = end;
    http1_apply_end(http1);
    http1_update_timeouts(http1);
}

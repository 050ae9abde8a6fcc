/*
 * Sending over HTTP/1.1: which framing a message gets (RFC 9112 6), its content in that framing,
 * its end. The head decides the state, and the state which calls are valid; after a head that could
 * not be sent the state is SEND_HEAD as before.
 */
#include "base/check.h"
#include "http/http1_state.h"
#include "http/http1_write.h"
#include "http/websocket.h"
#include "limits.h"

void http1_drop_framing(struct http1 *http1)
{
    if (http1->framing != NULL) {
        block_unref(http1->framing);
        http1->framing = NULL;
    }
}

struct error http1_open(struct codec *codec, struct exchange *exchange)
{
    struct http1 *http1 = http1_from(codec);
    if (http1->exchange != NULL) {
        return error_make(ERROR_LIMIT, 0);
    }
    if (!codec->is_reusable || codec->role != CODEC_ROLE_CLIENT) {
        return error_make(ERROR_CLOSED, 0);
    }
    http1_begin(http1, exchange);
    http1->is_closing = false;
    http1->scanned = 0;
    return OK;
}

static bool is_bodyless(uint16_t status)
{
    return status == 204 || status == 304;
}

/* How the response is framed, and what is sent after its head. */
static struct error choose_response_framing(struct http1 *http1, const struct message_head *head,
                                            bool is_end, enum http1_framing *ret_framing)
{
    if (head->status == 101) {
        if (!http1->is_upgrade || is_end) {
            return error_make(ERROR_PROTOCOL, 0);
        }
        *ret_framing = HTTP1_FRAMING_NONE;
        http1->send_state = SEND_TUNNEL;
        return OK;
    }
    bool has_length = head->body == MESSAGE_BODY_LENGTH;
    if (http1->is_head_request || is_bodyless(head->status)) {
        *ret_framing = has_length ? HTTP1_FRAMING_LENGTH : HTTP1_FRAMING_AS_FIELD;
        if (head->status == 204) {
            *ret_framing = HTTP1_FRAMING_NONE; /* RFC 9110 8.6 */
        }
        http1->send_state = SEND_BODYLESS;
        return OK;
    }
    if (has_length || is_end) {
        if (is_end && has_length && head->content_length > 0) {
            return error_make(ERROR_PROTOCOL, 0);
        }
        *ret_framing = HTTP1_FRAMING_LENGTH;
        http1->send_state = SEND_LENGTH;
        http1->send_left = has_length ? head->content_length : 0;
        return OK;
    }
    *ret_framing = http1->is_peer_1_0 ? HTTP1_FRAMING_NONE : HTTP1_FRAMING_CHUNKED;
    http1->send_state = http1->is_peer_1_0 ? SEND_UNTIL_CLOSE : SEND_CHUNKED;
    return OK;
}

/* The sending half came to its end. */
static void complete_send(struct http1 *http1)
{
    struct exchange *exchange = http1->exchange;
    exchange->is_send_over = true;
    if (http1->send_state == SEND_TUNNEL) {
        http1->codec.is_send_end_wanted = true;
    }
    http1->send_state = SEND_COMPLETE;
    http1_drop_framing(http1);
    if (http1_is_server(http1) && !exchange->is_receive_over && !exchange->is_tunnel) {
        /* The answer is complete and says that the connection closes: the rest of the request is
         * not wanted. */
        CHECK(http1->is_closing);
        exchange->is_receive_over = true;
        http1->receive_state = RECEIVE_DEAD;
    }
}

static struct error send_response(struct http1 *http1, struct message_head *head, bool is_end)
{
    struct exchange *exchange = http1->exchange;
    if (head->status < 101 || (head->status < 200 && head->status != 101)) {
        return error_make(ERROR_PROTOCOL, 0);
    }
    enum http1_framing framing = HTTP1_FRAMING_NONE;
    TRY(choose_response_framing(http1, head, is_end, &framing));
    if (http1->receive_state == RECEIVE_UPGRADE && head->status != 101) {
        http1_complete_receive(http1); /* no tunnel: what follows is the next request (E2) */
    }
    if (http1->codec.is_draining || (!exchange->is_receive_over && head->status != 101)) {
        /* A17: a body that is still to come would have to be read to its end. */
        http1->is_closing = true;
    }
    if (is_end && framing == HTTP1_FRAMING_LENGTH && head->body != MESSAGE_BODY_LENGTH) {
        head->content_length = 0;
    }
    struct error error = http1_write_response(&http1->codec.out, http1->codec.blocks, head, framing,
                                              http1->is_closing, http1->date);
    if (error_is(error)) {
        http1->send_state = SEND_HEAD;
        return error;
    }
    if (head->status == 101) {
        exchange->is_tunnel = true;
        http1->receive_state = RECEIVE_TUNNEL;
        if (http1->has_input || http1->has_ended) {
            http1->codec.events->on_input_wanted(&http1->codec);
        }
    }
    return OK;
}

/* How the request is framed, and what is sent after its head. */
static struct error choose_request_framing(struct http1 *http1, const struct message_head *head,
                                           bool is_end, enum http1_framing *ret_framing)
{
    http1->send_state = SEND_LENGTH;
    http1->send_left = 0;
    switch (head->body) {
    case MESSAGE_BODY_LENGTH:
        if (is_end && head->content_length > 0) {
            return error_make(ERROR_PROTOCOL, 0);
        }
        *ret_framing = HTTP1_FRAMING_LENGTH;
        http1->send_left = head->content_length;
        return OK;
    case MESSAGE_BODY_CHUNKED:
        if (!is_end) {
            *ret_framing = HTTP1_FRAMING_CHUNKED;
            http1->send_state = SEND_CHUNKED;
        } else { /* RFC 9110 8.6: methods that mean content say that there is none */
            bool is_content_usual = bytes_equal(head->method, BYTES("POST")) ||
                                    bytes_equal(head->method, BYTES("PUT")) ||
                                    bytes_equal(head->method, BYTES("PATCH"));
            *ret_framing = is_content_usual ? HTTP1_FRAMING_LENGTH : HTTP1_FRAMING_NONE;
        }
        return OK;
    case MESSAGE_BODY_NONE:
        *ret_framing = HTTP1_FRAMING_NONE;
        if (head->is_upgrade && !is_end) {
            http1->send_state = SEND_UPGRADE;
        }
        return OK;
    case MESSAGE_BODY_UNTIL_CLOSE:
    case MESSAGE_BODY_TUNNEL:
        break;
    }
    return error_make(ERROR_PROTOCOL, 0); /* a request cannot be framed so */
}

static struct error send_request(struct http1 *http1, struct message_head *head, bool is_end)
{
    enum http1_framing framing = HTTP1_FRAMING_NONE;
    http1->is_upgrade = false;
    if (head->is_upgrade) {
        const struct message_field *key = message_find_name(head, BYTES("sec-websocket-key"));
        if (key == NULL || !websocket_is_key(key->value)) {
            return error_make(ERROR_PROTOCOL, 0);
        }
        http1->key = key->value.data;
        http1->is_upgrade = true;
        http1->is_closing = true; /* E3: whatever becomes of it, nothing else comes after it */
    }
    struct error error = choose_request_framing(http1, head, is_end, &framing);
    if (!error_is(error)) {
        error = http1_write_request(&http1->codec.out, http1->codec.blocks, head, framing);
    }
    if (error_is(error)) {
        http1->send_state = SEND_HEAD;
        return error;
    }
    http1->is_head_request = head->is_head_request;
    return OK;
}

struct error http1_send_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct http1 *http1 = http1_of(exchange);
    if (http1->send_state != SEND_HEAD || exchange->is_send_over) {
        return error_make(ERROR_CLOSED, 0);
    }
    TRY(http1_is_server(http1) ? send_response(http1, head, is_end)
                               : send_request(http1, head, is_end));
    if (is_end) {
        complete_send(http1);
    }
    http1->codec.events->on_output(&http1->codec);
    return OK;
}

struct error http1_send_interim(struct exchange *exchange, struct message_head *head)
{
    struct http1 *http1 = http1_of(exchange);
    if (!http1_is_server(http1) || head->status < 100 || head->status > 199 ||
        head->status == 101 || http1->send_state != SEND_HEAD) {
        return error_make(ERROR_PROTOCOL, 0);
    }
    if (http1->is_peer_1_0 || (head->status == 100 && http1->is_continue_sent)) {
        return OK; /* RFC 9110 15.2: none to 1.0 */
    }
    http1->is_continue_sent = http1->is_continue_sent || head->status == 100;
    TRY(http1_write_response(&http1->codec.out, http1->codec.blocks, head, HTTP1_FRAMING_NONE,
                             false, NULL));
    http1->codec.events->on_output(&http1->codec);
    return OK;
}

/* Room for `size` bytes in the block of the chunks' lines. Errors: ERROR_NO_MEMORY. */
static struct error reserve_framing(struct http1 *http1, uint32_t size)
{
    struct block *block = http1->framing;
    if (block != NULL && block->capacity - block->used >= size) {
        return OK;
    }
    http1_drop_framing(http1);
    http1->framing = http1->codec.blocks->take(http1->codec.blocks, size);
    return http1->framing == NULL ? error_make(ERROR_NO_MEMORY, 0) : OK;
}

/* Size in hexadecimal and CRLF; returns how many bytes. */
static size_t print_chunk_line(uint64_t size, uint8_t *out)
{
    size_t digits = 1;
    while (digits < 16 && size >> (4 * digits) != 0) {
        digits++;
    }
    for (size_t i = 0; i < digits; i++) {
        out[i] = (uint8_t) "0123456789abcdef"[size >> (4 * (digits - 1 - i)) & 15];
    }
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return digits + 2;
}

enum {
    CHUNK_FRAMING_BYTES = 16 + 2 + 2
};

/* One chunk, small: copied behind what is in `out`. */
static struct error send_small_chunk(struct http1 *http1, struct buffer *data)
{
    uint8_t *at = NULL;
    struct buffer *out = &http1->codec.out;
    size_t size = data->size;
    TRY(buffer_reserve(out, http1->codec.blocks, size + CHUNK_FRAMING_BYTES, &at));
    size_t used = print_chunk_line(size, at);
    buffer_copy_out(data, size, at + used);
    used += size;
    at[used] = '\r';
    at[used + 1] = '\n';
    buffer_commit(out, used + 2);
    buffer_consume(data, size);
    return OK;
}

/* One chunk: its line, its data moved, its CRLF; line and CRLF lie in a block that many chunks
 * share. */
static struct error send_chunk(struct http1 *http1, struct buffer *data)
{
    if (data->size <= LIMIT_SEND_COPY_BYTES) {
        return send_small_chunk(http1, data);
    }
    struct buffer *out = &http1->codec.out;
    TRY(reserve_framing(http1, CHUNK_FRAMING_BYTES));
    struct block *block = http1->framing;
    uint8_t *at = block->data + block->used;
    size_t used = print_chunk_line(data->size, at);
    at[used] = '\r';
    at[used + 1] = '\n';
    block->used += (uint32_t)used + 2;
    TRY(buffer_append_slice(out, block, bytes_make(at, used)));
    TRY(buffer_move(data, out, data->size));
    return buffer_append_slice(out, block, bytes_make(at + used, 2));
}

/* Data as they are. */
static struct error send_plain(struct http1 *http1, struct buffer *data)
{
    struct buffer *out = &http1->codec.out;
    if (data->size <= LIMIT_SEND_COPY_BYTES && out->size > 0) {
        uint8_t *at = NULL;
        size_t size = data->size;
        TRY(buffer_reserve(out, http1->codec.blocks, size, &at));
        buffer_copy_out(data, size, at);
        buffer_commit(out, size);
        buffer_consume(data, size);
        return OK;
    }
    return buffer_move(data, out, data->size);
}

struct error http1_send_data(struct exchange *exchange, struct buffer *data)
{
    struct http1 *http1 = http1_of(exchange);
    size_t size = data->size;
    if (size == 0) {
        return OK;
    }
    switch (http1->send_state) {
    case SEND_LENGTH:
        if (size > http1->send_left) {
            return error_make(ERROR_PROTOCOL, 0);
        }
        TRY(send_plain(http1, data));
        http1->send_left -= size;
        break;
    case SEND_CHUNKED:
        if (http1->are_trailers_sent) {
            return error_make(ERROR_CLOSED, 0);
        }
        TRY(send_chunk(http1, data));
        break;
    case SEND_UNTIL_CLOSE:
    case SEND_TUNNEL:
        TRY(send_plain(http1, data));
        break;
    case SEND_BODYLESS:
        buffer_consume(data, size);
        return OK;
    case SEND_UPGRADE:
    case SEND_HEAD:
        return error_make(ERROR_PROTOCOL, 0);
    case SEND_COMPLETE: /* a client's request that was answered before its end */
        buffer_consume(data, size);
        return OK;
    }
    exchange->sent_bytes += size;
    http1->codec.events->on_output(&http1->codec);
    return OK;
}

struct error http1_send_trailers(struct exchange *exchange, struct message_head *trailers)
{
    struct http1 *http1 = http1_of(exchange);
    if (http1->send_state != SEND_CHUNKED) {
        return OK; /* this framing has no place for them (RFC 9110 6.5.1) */
    }
    if (http1->are_trailers_sent) {
        return error_make(ERROR_CLOSED, 0);
    }
    TRY(http1_write_trailers(&http1->codec.out, http1->codec.blocks, trailers));
    http1->are_trailers_sent = true;
    http1->codec.events->on_output(&http1->codec);
    return OK;
}

struct error http1_send_end(struct exchange *exchange)
{
    struct http1 *http1 = http1_of(exchange);
    if (exchange->is_send_over) {
        return OK; /* as there */
    }
    if (http1->send_state == SEND_HEAD ||
        (http1->send_state == SEND_LENGTH && http1->send_left > 0)) {
        return error_make(ERROR_PROTOCOL, 0);
    }
    if (http1->send_state == SEND_CHUNKED && !http1->are_trailers_sent) {
        TRY(buffer_append(&http1->codec.out, http1->codec.blocks, BYTES("0\r\n\r\n")));
    }
    complete_send(http1);
    http1->codec.events->on_output(&http1->codec);
    return OK;
}

/*
 * A message that is framed is left without its end, and what was sent of it still goes; one that
 * ends with the connection must end with a reset (F4, F6).
 */
void http1_reset(struct exchange *exchange, enum exchange_reset reason)
{
    (void)reason;
    struct http1 *http1 = http1_of(exchange);
    bool is_unsent = !http1_is_server(http1) && http1->send_state == SEND_HEAD;
    bool is_end_a_reset = !http1_is_server(http1) || http1->send_state == SEND_UNTIL_CLOSE ||
                          http1->send_state == SEND_TUNNEL || exchange->is_tunnel;
    if (http1_is_over(http1)) {
        http1_conclude(http1);
        if (http1->has_input && !http1->is_receiving) {
            http1->codec.events->on_input_wanted(&http1->codec);
        }
        http1->codec.events->on_output(&http1->codec);
        return;
    }
    http1_forget(http1);
    if (is_unsent && http1->codec.is_reusable) {
        http1->receive_state = RECEIVE_HEAD; /* the peer never knew of it */
        return;
    }
    if (is_end_a_reset) {
        http1_abort(http1);
    } else {
        http1_close(http1);
    }
    http1->codec.events->on_output(&http1->codec);
}

void http1_grant(struct exchange *exchange)
{
    struct http1 *http1 = http1_of(exchange);
    if (http1->has_input && !http1->is_receiving) {
        http1->codec.events->on_input_wanted(&http1->codec);
    }
}

uint64_t http1_room(const struct exchange *exchange)
{
    struct http1 *http1 = http1_of(exchange);
    uint64_t left = http1->send_state == SEND_UPGRADE ? 0 : codec_room(&http1->codec);
    if (left == 0) {
        http1->is_room_awaited = true;
    }
    return left;
}

/*
 * The state machine of an HTTP/1.1 connection: receiving and sending are two machines beside each
 * other, and an exchange is over when both have come to their end (RFC 9112 9.3).
 */
#include "http/http1.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/check.h"
#include "http/http1_parse.h"
#include "http/http1_write.h"
#include "http/scan.h"
#include "http/websocket.h"
#include "limits.h"

enum receive_state {
    RECEIVE_HEAD,
    RECEIVE_LENGTH,
    RECEIVE_CHUNK_LINE,
    RECEIVE_CHUNK_DATA,
    RECEIVE_CHUNK_END, /* the CRLF behind a chunk's data */
    RECEIVE_TRAILERS,
    RECEIVE_UNTIL_CLOSE,
    RECEIVE_UPGRADE, /* an upgrade request is here, its answer is not: bytes stay where they are */
    RECEIVE_TUNNEL,
    RECEIVE_COMPLETE, /* until the exchange is over */
    RECEIVE_DEAD,     /* what comes is thrown away */
};

enum send_state {
    SEND_HEAD,
    SEND_LENGTH,
    SEND_CHUNKED,
    SEND_UNTIL_CLOSE,
    SEND_BODYLESS, /* data are taken and not sent: the answer to HEAD, 204, 304 */
    SEND_UPGRADE,  /* client: nothing may be sent before the 101 */
    SEND_TUNNEL,
    SEND_COMPLETE,
};

struct http1 {
    struct codec codec;        /* first: the codec is the http1 */
    struct exchange *exchange; /* borrowed; NULL between exchanges */
    const char *date;          /* borrowed; may be NULL */

    enum receive_state receive_state;
    uint64_t receive_left;  /* of the body or the chunk */
    size_t scanned;         /* bytes of the input that hold no whole head, chunk line or trailers */
    size_t extension_bytes; /* of this message */
    uint32_t interim_count; /* client */
    uint32_t named_count;   /* values of Connection, for the trailers */
    const struct bytes *named; /* in the exchange's arena */
    enum codec_end end;

    enum send_state send_state;
    uint64_t send_left;    /* SEND_LENGTH */
    struct block *framing; /* owned reference; where the chunks' lines are written; NULL: none */

    bool is_line_done;      /* the first line of a partial head is whole */
    bool is_crlf_skipped;   /* the one empty line that may stand before a request */
    bool is_receiving;      /* within codec_receive: it looks at new grants by itself */
    bool is_starved;        /* input that is left is too little, not held back */
    bool has_input;         /* the last codec_receive left some */
    bool has_ended;         /* `end` is valid */
    bool is_room_awaited;   /* room was asked for and there was none */
    bool is_head_request;   /* of the exchange */
    bool is_upgrade;        /* of the exchange */
    bool is_peer_1_0;       /* of the exchange */
    bool is_closing;        /* no exchange follows this one */
    bool is_continue_sent;  /* server: a 100 went out */
    bool are_trailers_sent; /* with them the last chunk */
    const uint8_t *key; /* client: Sec-WebSocket-Key, WEBSOCKET_KEY_BYTES in the exchange's arena */
};

static struct http1 *http1_of(const struct exchange *exchange)
{
    return (struct http1 *)(void *)exchange->codec;
}

static struct http1 *http1_from(struct codec *codec)
{
    return (struct http1 *)(void *)codec;
}

static bool is_server(const struct http1 *http1)
{
    return http1->codec.role == CODEC_ROLE_SERVER;
}

static struct error fault_error(enum http1_fault fault)
{
    return error_make(ERROR_PROTOCOL, (int32_t)fault);
}

/* ---- Beginning and end of exchanges ---- */

static void begin_exchange(struct http1 *http1, struct exchange *exchange)
{
    CHECK(exchange->events != NULL && exchange->arena != NULL);
    http1->exchange = exchange;
    http1->codec.exchanges_open = 1;
    http1->send_state = SEND_HEAD;
    http1->extension_bytes = 0;
    http1->interim_count = 0;
    http1->named_count = 0;
    http1->is_head_request = false;
    http1->is_upgrade = false;
    http1->is_continue_sent = false;
    http1->are_trailers_sent = false;
    exchange->codec = &http1->codec;
}

static void drop_framing(struct http1 *http1)
{
    if (http1->framing != NULL) {
        block_unref(http1->framing);
        http1->framing = NULL;
    }
}

/* Let go of the exchange; the connection is left as it is. */
static struct exchange *forget(struct http1 *http1)
{
    struct exchange *exchange = http1->exchange;
    exchange->codec = NULL;
    exchange->is_receive_over = true;
    exchange->is_send_over = true;
    http1->exchange = NULL;
    http1->codec.exchanges_open = 0;
    drop_framing(http1);
    return exchange;
}

/* Nothing more is read; what is in `out` still goes. */
static void close_connection(struct http1 *http1)
{
    http1->receive_state = RECEIVE_DEAD;
    http1->codec.is_reusable = false;
    http1->codec.is_close_wanted = true;
    http1->codec.is_head_timeout_wanted = false;
    http1->codec.is_idle_timeout_wanted = false;
}

static void abort_connection(struct http1 *http1)
{
    close_connection(http1);
    http1->codec.is_abort_wanted = true;
}

static void tell_idle(struct http1 *http1)
{
    if (!is_server(http1)) {
        http1->codec.events->on_idle(&http1->codec);
    }
}

/* The exchange is over without its end, by the peer's doing or the connection's. */
static void fail_exchange(struct http1 *http1, enum exchange_reset reason, struct error error)
{
    struct exchange *exchange = forget(http1);
    exchange->events->on_reset(exchange, reason, error);
    tell_idle(http1);
}

static void update_timeouts(struct http1 *http1)
{
    bool is_waiting = is_server(http1) && http1->exchange == NULL &&
                      http1->receive_state == RECEIVE_HEAD && !http1->codec.is_close_wanted;
    http1->codec.is_head_timeout_wanted = is_waiting && http1->has_input && http1->is_starved;
    http1->codec.is_idle_timeout_wanted = is_waiting && !http1->has_input;
}

static bool is_over(const struct http1 *http1)
{
    return http1->exchange != NULL && http1->exchange->is_receive_over &&
           http1->exchange->is_send_over;
}

/* Both halves are over: the connection goes on to the next exchange or closes. */
static struct exchange *conclude(struct http1 *http1)
{
    bool is_tunnel = http1->exchange->is_tunnel;
    struct exchange *exchange = forget(http1);
    http1->scanned = 0;
    http1->is_line_done = false;
    http1->is_crlf_skipped = false;
    http1->receive_state = RECEIVE_HEAD;
    if (http1->is_closing || is_tunnel || (http1->codec.is_draining && !http1->has_input)) {
        close_connection(http1);
    }
    return exchange;
}

static bool finish_if_over(struct http1 *http1)
{
    if (!is_over(http1)) {
        return false;
    }
    struct exchange *exchange = conclude(http1);
    exchange->events->on_done(exchange);
    tell_idle(http1);
    return true;
}

/* The receiving half came to its end. */
static void complete_receive(struct http1 *http1)
{
    CHECK(http1->exchange != NULL);
    http1->receive_state = RECEIVE_COMPLETE;
    http1->exchange->is_receive_over = true;
    if (!is_server(http1) && !http1->exchange->is_send_over) {
        /* RFC 9112 9.3: the rest of the request would be read as the next one. */
        http1->exchange->is_send_over = true;
        http1->send_state = SEND_COMPLETE;
        http1->is_closing = true;
    }
}

static void end_receive(struct http1 *http1)
{
    struct exchange *exchange = http1->exchange;
    complete_receive(http1);
    exchange->events->on_end(exchange);
}

/* ---- Answers of the codec's own ---- */

/* An answer without content. `details` of proxy-status (RFC 9209); NULL: nothing went wrong. */
static void answer(struct http1 *http1, uint16_t status, const char *details, bool is_close)
{
    static const char methods[] = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";

    enum {
        ANSWER_BYTES_MAX = 512
    };

    uint8_t *text = NULL;
    struct buffer *out = &http1->codec.out;
    struct error error = buffer_reserve(out, http1->codec.blocks, ANSWER_BYTES_MAX, &text);
    if (error_is(error)) {
        return; /* closed without a word: there is no memory for one */
    }
    const char *more = "";
    if (status == 426) {
        more = "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
    } else if (status == 405 || status == 200) {
        more = methods; /* RFC 9110 15.5.6, 9.3.7 */
    }
    bool has_date = http1->date != NULL;
    bool has_details = details != NULL;
    struct bytes reason = message_reason(status);
    int size =
        snprintf((char *)text, ANSWER_BYTES_MAX,
                 "HTTP/1.1 %u %.*s\r\n%s%.29s%sContent-Length: 0\r\n%s%s%s%s%s\r\n", status,
                 (int)reason.size, (const char *)reason.data, has_date ? "Date: " : "",
                 has_date ? http1->date : "", has_date ? "\r\n" : "",
                 has_details ? "proxy-status: outrigger; error=http_request_error; details=\"" : "",
                 has_details ? details : "", has_details ? "\"\r\n" : "", more,
                 is_close ? "Connection: close\r\n" : "");
    CHECK(size > 0 && size < ANSWER_BYTES_MAX);
    buffer_commit(out, (size_t)size);
}

/* Server: the peer broke the protocol. It is told, unless an answer to it has begun already. */
static void refuse_request(struct http1 *http1, enum http1_fault fault)
{
    bool has_answered = http1->exchange != NULL && http1->send_state != SEND_HEAD;
    bool is_end_a_reset = has_answered && http1->send_state == SEND_UNTIL_CLOSE;
    uint16_t status = has_answered ? 0 : http1_fault_status(fault);
    if (status != 0) {
        answer(http1, status,
               fault == HTTP1_FAULT_HEAD_TIME ? "request_timeout" : "request_malformed", true);
    }
    close_connection(http1);
    http1->codec.is_abort_wanted = is_end_a_reset;
    http1->codec.events->on_malformed(&http1->codec, status, http1_fault_text(fault));
    if (http1->exchange != NULL) {
        fail_exchange(http1,
                      fault == HTTP1_FAULT_TRUNCATED ? EXCHANGE_RESET_TRUNCATED
                                                     : EXCHANGE_RESET_PROTOCOL,
                      fault_error(fault));
    }
}

/* Client: the peer broke the protocol. The connection is of no more use. */
static void refuse_response(struct http1 *http1, enum http1_fault fault)
{
    abort_connection(http1);
    if (http1->exchange != NULL) {
        fail_exchange(http1, EXCHANGE_RESET_PROTOCOL, fault_error(fault));
        return;
    }
    http1->codec.events->on_malformed(&http1->codec, 0, http1_fault_text(fault));
    tell_idle(http1);
}

static void refuse(struct http1 *http1, enum http1_fault fault)
{
    if (is_server(http1)) {
        refuse_request(http1, fault);
    } else {
        refuse_response(http1, fault);
    }
}

/* ---- Receiving heads ---- */

/* Does the input hold a line end behind what was looked at already? Newest bytes first, so that a
 * dribble costs what is new and not what is there. */
static bool has_new_line(const struct http1 *http1, struct buffer *input)
{
    size_t end = input->size;
    for (uint32_t i = input->count; i > 0 && end > http1->scanned; i--) {
        const struct slice *slice = buffer_slice(input, i - 1);
        size_t start = end - slice->size;
        size_t seen = http1->scanned > start ? http1->scanned - start : 0;
        if (memchr(slice->data + seen, '\n', slice->size - seen) != NULL) {
            return true;
        }
        end = start;
    }
    return false;
}

/*
 * Parse the front of the input, in place when one slice holds enough of it, else in `gathered`,
 * which the caller releases. `ret_data` is what was parsed. Errors: ERROR_NO_MEMORY.
 */
static struct error parse_front(struct http1 *http1, struct buffer *input,
                                enum http1_parse (*parse)(struct http1 *, struct bytes,
                                                          struct http1_parsed *),
                                struct buffer *gathered, struct http1_parsed *parsed,
                                enum http1_parse *ret_parse, struct bytes *ret_data)
{
    if (http1->scanned > 0 && !has_new_line(http1, input)) {
        http1->scanned = input->size;
        *ret_parse = HTTP1_PARSE_MORE;
        return OK;
    }
    *ret_data = buffer_front(input);
    *ret_parse = parse(http1, *ret_data, parsed);
    if (*ret_parse == HTTP1_PARSE_MORE && ret_data->size < input->size) {
        size_t bound = (size_t)2 * LIMIT_HEAD_BYTES;
        size_t size = input->size < bound ? input->size : bound;
        uint8_t *data = NULL;
        TRY(buffer_reserve(gathered, http1->codec.blocks, size, &data));
        buffer_copy_out(input, size, data);
        buffer_commit(gathered, size);
        *ret_data = bytes_make(data, size);
        *ret_parse = parse(http1, *ret_data, parsed);
    }
    http1->scanned = *ret_parse == HTTP1_PARSE_MORE ? input->size : 0;
    return OK;
}

/* `view` moved along with what it points into; views of other memory stay. */
static struct bytes rebase(struct bytes view, struct bytes from, const uint8_t *to)
{
    uintptr_t offset = (uintptr_t)view.data - (uintptr_t)from.data;
    return offset <= from.size ? bytes_make(to + offset, view.size) : view;
}

/* A copy of a parsed head in the exchange's arena, with room for fields of our own. NULL when the
 * arena refuses. */
static struct message_head *adopt(struct arena *arena, const struct http1_parsed *parsed,
                                  struct bytes data)
{
    enum {
        FIELDS_SPARE = 8
    };

    struct bytes from = bytes_first(data, parsed->size);
    uint32_t capacity = parsed->head.fields_count + FIELDS_SPARE;
    struct message_head *head = arena_alloc(arena, sizeof(*head));
    struct message_field *fields = arena_alloc(arena, capacity * sizeof(*fields));
    uint8_t *wire = arena_alloc(arena, parsed->size);
    if (head == NULL || fields == NULL || wire == NULL) {
        return NULL;
    }
    memcpy(wire, from.data, from.size);
    *head = parsed->head;
    head->wire = bytes_make(wire, from.size);
    head->fields = fields;
    head->fields_capacity = capacity;
    for (uint32_t i = 0; i < head->fields_count; i++) {
        fields[i] = parsed->fields[i];
        fields[i].name = rebase(fields[i].name, from, wire);
        fields[i].value = rebase(fields[i].value, from, wire);
    }
    head->method = rebase(head->method, from, wire);
    head->target = rebase(head->target, from, wire);
    head->authority = rebase(head->authority, from, wire);
    head->reason = rebase(head->reason, from, wire);
    if (parsed->is_path_empty) {
        uint8_t *target = arena_alloc(arena, head->target.size + 1);
        if (target == NULL) {
            return NULL;
        }
        target[0] = '/';
        memcpy(target + 1, head->target.data, head->target.size);
        head->target = bytes_make(target, head->target.size + 1);
    }
    return head;
}

/* Remember what Connection named, where trailers can follow. False when the arena refuses. */
static bool keep_named(struct http1 *http1, const struct message_head *head)
{
    http1->named_count = 0;
    if (head->body != MESSAGE_BODY_CHUNKED || head->known[MESSAGE_FIELD_CONNECTION] == 0) {
        return true;
    }
    struct bytes *named =
        arena_alloc_zero(http1->exchange->arena, head->fields_count, sizeof(*named));
    if (named == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < head->fields_count; i++) {
        if (head->fields[i].known == MESSAGE_FIELD_CONNECTION) {
            named[http1->named_count++] = head->fields[i].value;
        }
    }
    http1->named = named;
    return true;
}

/* What follows the head. Returns whether nothing does. */
static bool expect_body(struct http1 *http1, const struct message_head *head)
{
    switch (head->body) {
    case MESSAGE_BODY_NONE:
        break;
    case MESSAGE_BODY_LENGTH:
        http1->receive_left = head->content_length;
        if (head->content_length > 0) {
            http1->receive_state = RECEIVE_LENGTH;
            return false;
        }
        break;
    case MESSAGE_BODY_CHUNKED:
        http1->receive_state = RECEIVE_CHUNK_LINE;
        return false;
    case MESSAGE_BODY_UNTIL_CLOSE:
        http1->receive_state = RECEIVE_UNTIL_CLOSE;
        return false;
    case MESSAGE_BODY_TUNNEL:
        http1->receive_state = RECEIVE_TUNNEL;
        return false;
    }
    if (is_server(http1) && head->is_upgrade) {
        http1->receive_state = RECEIVE_UPGRADE;
        return false;
    }
    return true;
}

/* A head that is too long to become whole (A20). */
static bool is_over_limit(const struct http1 *http1, const struct buffer *input,
                          enum http1_fault *ret_fault)
{
    enum {
        /* Around the target: method, spaces, version. */
        LINE_BYTES_MAX = LIMIT_TARGET_BYTES + LIMIT_METHOD_BYTES + 16
    };

    if (input->size > LIMIT_HEAD_BYTES) {
        *ret_fault = HTTP1_FAULT_HEAD_BYTES;
        return true;
    }
    if (http1->is_line_done || !is_server(http1) || input->size <= LINE_BYTES_MAX) {
        return false;
    }
    uint8_t start[LIMIT_METHOD_BYTES + 1];
    buffer_copy_out(input, sizeof(start), start);
    bool has_method = memchr(start, ' ', sizeof(start)) != NULL;
    *ret_fault = has_method ? HTTP1_FAULT_TARGET_BYTES : HTTP1_FAULT_METHOD_BYTES;
    return true;
}

static enum http1_parse parse_request(struct http1 *http1, struct bytes data,
                                      struct http1_parsed *parsed)
{
    enum http1_parse parse = http1_parse_request(data, parsed);
    http1->is_line_done = parsed->is_line_done;
    return parse;
}

static enum http1_parse parse_response(struct http1 *http1, struct bytes data,
                                       struct http1_parsed *parsed)
{
    enum http1_parse parse =
        http1_parse_response(data, http1->is_head_request, http1->is_upgrade, parsed);
    http1->is_line_done = parsed->is_line_done;
    return parse;
}

/*
 * The head as the exchange's own, and its bytes gone from the input: what is called next may
 * answer, close and feed this codec again. NULL without memory.
 */
static struct message_head *take_head(struct http1 *http1, struct exchange *exchange,
                                      struct buffer *input, struct http1_parsed *parsed,
                                      struct bytes data)
{
    size_t size = parsed->size;
    struct message_head *head = adopt(exchange->arena, parsed, data);
    buffer_consume(input, size);
    return head != NULL && keep_named(http1, head) ? head : NULL;
}

/* Answer a valid request here; the connection goes on when no content follows it. */
static void decline(struct http1 *http1, const struct message_head *head, uint16_t status,
                    const char *details)
{
    bool has_body = head->body == MESSAGE_BODY_CHUNKED || head->content_length > 0;
    bool is_close = has_body || !head->is_keep_alive || head->version == MESSAGE_HTTP_1_0 ||
                    head->is_upgrade || http1->codec.is_draining;
    answer(http1, status, details, is_close);
    http1->is_crlf_skipped = false;
    if (is_close) {
        close_connection(http1);
    }
}

/* The value of Max-Forwards, for OPTIONS, which alone counts it (RFC 9110 7.6.2): false when there
 * is none to be read. */
static bool read_max_forwards(const struct message_head *head, uint64_t *ret_left)
{
    if (head->known[MESSAGE_FIELD_MAX_FORWARDS] == 0) {
        return false;
    }
    const struct message_field *field = message_find(head, MESSAGE_FIELD_MAX_FORWARDS);
    return field != NULL && bytes_equal(head->method, BYTES("OPTIONS")) &&
           !error_is(bytes_parse_decimal(field->value, UINT32_MAX, ret_left));
}

/* One hop less. False when the arena refuses. */
static bool count_forwards(struct arena *arena, struct message_head *head)
{
    uint64_t forwards = 0;
    if (!read_max_forwards(head, &forwards)) {
        return true;
    }
    char *text = arena_format(arena, "%u", (unsigned)(forwards - 1));
    return text != NULL &&
           !error_is(message_set(head, arena, BYTES("Max-Forwards"), bytes_from_string(text)));
}

/* A valid request: ask for its exchange and deliver the head. */
static void deliver_request(struct http1 *http1, struct buffer *input, struct http1_parsed *parsed,
                            struct bytes data)
{
    struct codec *codec = &http1->codec;
    uint64_t forwards = 1;
    if (read_max_forwards(&parsed->head, &forwards) && forwards == 0) {
        buffer_consume(input, parsed->size);
        decline(http1, &parsed->head, 200, NULL); /* D6: it is for us */
        return;
    }
    struct exchange *exchange = codec->events->on_exchange(codec);
    if (exchange == NULL) {
        buffer_consume(input, parsed->size);
        decline(http1, &parsed->head, 503, "limit_exchanges");
        codec->events->on_malformed(codec, 503, http1_fault_text(HTTP1_FAULT_REFUSED));
        return;
    }
    begin_exchange(http1, exchange);
    struct message_head *head = take_head(http1, exchange, input, parsed, data);
    if (head == NULL || !count_forwards(exchange->arena, head)) {
        answer(http1, 503, "limit_buffer", true);
        close_connection(http1);
        fail_exchange(http1, EXCHANGE_RESET_INTERNAL, error_make(ERROR_NO_MEMORY, 0));
        return;
    }
    http1->is_head_request = head->is_head_request;
    http1->is_upgrade = head->is_upgrade;
    http1->is_peer_1_0 = head->version == MESSAGE_HTTP_1_0;
    /* RFC 9112 9.3: a proxy does not keep a connection with a 1.0 client. */
    http1->is_closing = http1->is_peer_1_0 || !head->is_keep_alive;
    bool is_end = expect_body(http1, head);
    if (is_end) {
        complete_receive(http1);
    }
    exchange->events->on_head(exchange, head, is_end);
}

/* Is the 101's Sec-WebSocket-Accept the one that belongs to our key (E4)? */
static bool is_accepted(const struct http1 *http1, struct message_head *head)
{
    uint8_t accept[WEBSOCKET_ACCEPT_BYTES];
    websocket_accept(bytes_make(http1->key, WEBSOCKET_KEY_BYTES), accept);
    const struct message_field *field = message_find_name(head, BYTES("sec-websocket-accept"));
    return field != NULL && bytes_equal(field->value, bytes_make(accept, sizeof(accept)));
}

static void deliver_response(struct http1 *http1, struct buffer *input, struct http1_parsed *parsed,
                             struct bytes data)
{
    struct exchange *exchange = http1->exchange;
    bool is_interim = parsed->head.status < 200 && parsed->head.status != 101;
    if (is_interim && ++http1->interim_count > LIMIT_INTERIM_RESPONSES) {
        refuse(http1, HTTP1_FAULT_INTERIM_COUNT);
        return;
    }
    if (parsed->head.status == 101 && !is_accepted(http1, &parsed->head)) {
        refuse(http1, HTTP1_FAULT_SWITCH);
        return;
    }
    struct message_head *head = take_head(http1, exchange, input, parsed, data);
    if (head == NULL) {
        abort_connection(http1);
        fail_exchange(http1, EXCHANGE_RESET_INTERNAL, error_make(ERROR_NO_MEMORY, 0));
        return;
    }
    if (is_interim) {
        if (exchange->events->on_interim != NULL) {
            exchange->events->on_interim(exchange, head);
        }
        return;
    }
    http1->is_closing = http1->is_closing || !head->is_keep_alive;
    if (head->status == 101) {
        http1->send_state = SEND_TUNNEL;
        exchange->is_tunnel = true;
    } else if (http1->send_state == SEND_UPGRADE) {
        http1->send_state = SEND_COMPLETE;
        exchange->is_send_over = true;
    }
    bool is_end = expect_body(http1, head);
    if (is_end) {
        complete_receive(http1);
    }
    exchange->events->on_head(exchange, head, is_end);
}

/* What can be said before a line is whole: a request begins with a token, or one empty line. */
static enum http1_fault look_at_start(struct http1 *http1, struct buffer *input)
{
    uint8_t start[2] = {0};
    buffer_copy_out(input, input->size < 2 ? input->size : 2, start);
    if (!http1->is_crlf_skipped && start[0] == '\r' && start[1] == '\n') {
        buffer_consume(input, 2); /* RFC 9112 2.2 */
        http1->is_crlf_skipped = true;
        http1->scanned = 0;
        if (input->size == 0) {
            return HTTP1_FAULT_NONE;
        }
        buffer_copy_out(input, 1, start);
    }
    bool is_half = !http1->is_crlf_skipped && start[0] == '\r' && input->size == 1;
    return is_half || scan_token_table[start[0]] != 0 ? HTTP1_FAULT_NONE : HTTP1_FAULT_REQUEST_LINE;
}

/* Errors: ERROR_NO_MEMORY. */
static struct error receive_head(struct http1 *http1, struct buffer *input)
{
    enum http1_fault fault = HTTP1_FAULT_NONE;
    if (is_server(http1)) {
        fault = look_at_start(http1, input);
    } else {
        http1->exchange->is_receive_begun = true;
    }
    if (fault != HTTP1_FAULT_NONE) {
        refuse(http1, fault);
        return OK;
    }
    if (input->size == 0) {
        return OK;
    }
    struct http1_parsed parsed;
    struct buffer gathered = {0};
    struct bytes data = {0};
    enum http1_parse parse = HTTP1_PARSE_MORE;
    struct error error =
        parse_front(http1, input, is_server(http1) ? parse_request : parse_response, &gathered,
                    &parsed, &parse, &data);
    if (error_is(error)) {
        return error;
    }
    http1->is_starved = parse == HTTP1_PARSE_MORE;
    if (parse == HTTP1_PARSE_BAD) {
        refuse(http1, parsed.fault);
    } else if (parse == HTTP1_PARSE_MORE) {
        if (is_over_limit(http1, input, &fault)) {
            refuse(http1, fault);
        }
    } else {
        http1->is_line_done = false;
        if (is_server(http1)) {
            deliver_request(http1, input, &parsed, data);
        } else {
            deliver_response(http1, input, &parsed, data);
        }
    }
    buffer_clear(&gathered);
    return OK;
}

/* ---- Receiving content ---- */

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
        end_receive(http1);
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
        refuse(http1, fault);
    }
    return OK;
}

static enum http1_parse parse_trailers(struct http1 *http1, struct bytes data,
                                       struct http1_parsed *parsed)
{
    return http1_parse_trailers(data, http1->named, http1->named_count, parsed);
}

/* Errors: ERROR_NO_MEMORY. */
static struct error receive_trailers(struct http1 *http1, struct buffer *input)
{
    struct exchange *exchange = http1->exchange;
    CHECK(exchange != NULL);
    struct http1_parsed parsed;
    struct buffer gathered = {0};
    struct bytes data = {0};
    enum http1_parse parse = HTTP1_PARSE_MORE;
    TRY(parse_front(http1, input, parse_trailers, &gathered, &parsed, &parse, &data));
    http1->is_starved = parse == HTTP1_PARSE_MORE;
    if (parse == HTTP1_PARSE_BAD ||
        (parse == HTTP1_PARSE_MORE && input->size > LIMIT_TRAILER_BYTES)) {
        refuse(http1, HTTP1_FAULT_TRAILERS);
    } else if (parse == HTTP1_PARSE_DONE) {
        size_t size = parsed.size;
        struct message_head *trailers =
            parsed.head.fields_count == 0 ? NULL : adopt(exchange->arena, &parsed, data);
        buffer_consume(input, size);
        if (trailers != NULL && exchange->events->on_trailers != NULL) {
            exchange->events->on_trailers(exchange, trailers);
        }
        if (http1->exchange == exchange) { /* else it was reset by its owner */
            end_receive(http1);
        }
    }
    buffer_clear(&gathered);
    return OK;
}

/* ---- The connection's calls ---- */

/* Client: bytes of a response that nobody waits for (F1). */
static void drop_unsolicited(struct http1 *http1, struct buffer *input)
{
    buffer_consume(input, input->size);
    if (http1->exchange != NULL) {
        /* Opened, but its request was not sent: the connection died before it. */
        abort_connection(http1);
        fail_exchange(http1, EXCHANGE_RESET_CONNECTION, fault_error(HTTP1_FAULT_UNSOLICITED));
        return;
    }
    refuse(http1, HTTP1_FAULT_UNSOLICITED);
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
        if (!is_server(http1) && (exchange == NULL || http1->send_state == SEND_HEAD)) {
            drop_unsolicited(http1, input);
        } else {
            error = receive_head(http1, input);
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
        error = receive_trailers(http1, input);
        break;
    case RECEIVE_UNTIL_CLOSE:
    case RECEIVE_TUNNEL:
        error = may_deliver ? receive_open_ended(http1, input) : OK;
        break;
    case RECEIVE_UPGRADE:
        break;
    case RECEIVE_COMPLETE:
        if (!is_server(http1)) {
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
static void apply_end(struct http1 *http1)
{
    struct exchange *exchange = http1->exchange;
    if (http1->has_input && !http1->is_starved) {
        return;
    }
    switch (http1->receive_state) {
    case RECEIVE_HEAD:
        if (exchange != NULL) { /* client: the answer that was waited for does not come */
            bool has_begun = exchange->is_receive_begun;
            close_connection(http1);
            fail_exchange(http1, has_begun ? EXCHANGE_RESET_TRUNCATED : EXCHANGE_RESET_CONNECTION,
                          error_make(ERROR_CLOSED, 0));
            return;
        }
        close_connection(http1);
        tell_idle(http1);
        return;
    case RECEIVE_LENGTH:
    case RECEIVE_CHUNK_LINE:
    case RECEIVE_CHUNK_DATA:
    case RECEIVE_CHUNK_END:
    case RECEIVE_TRAILERS:
        if (is_server(http1)) {
            refuse(http1, HTTP1_FAULT_TRUNCATED);
            return;
        }
        close_connection(http1);
        fail_exchange(http1, EXCHANGE_RESET_TRUNCATED, error_make(ERROR_TRUNCATED, 0));
        return;
    case RECEIVE_UNTIL_CLOSE:
    case RECEIVE_TUNNEL:
        if (http1->end == CODEC_END_CLEAN) {
            http1->is_closing = true;
            end_receive(http1);
            finish_if_over(http1);
            return;
        }
        abort_connection(http1);
        fail_exchange(http1, EXCHANGE_RESET_TRUNCATED, error_make(ERROR_TRUNCATED, 0));
        return;
    case RECEIVE_UPGRADE: /* the tunnel will have nothing to say, if it comes to be */
    case RECEIVE_COMPLETE:
        http1->is_closing = true;
        return;
    case RECEIVE_DEAD:
        return;
    }
}

static struct error receive(struct codec *codec, struct buffer *input)
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
            !is_server(http1)) {
            goes_on = true; /* look at what stands behind the response before it is over */
            continue;
        }
        http1->has_input = input->size > 0;
        if (finish_if_over(http1)) {
            goes_on = input->size > 0;
        }
    }
    http1->is_receiving = false;
    http1->has_input = input->size > 0;
    if (error_is(error)) {
        return error;
    }
    if (http1->has_ended) {
        apply_end(http1);
    }
    update_timeouts(http1);
    return OK;
}

static void receive_end(struct codec *codec, enum codec_end end)
{
    struct http1 *http1 = http1_from(codec);
    if (end == CODEC_END_RESET) {
        abort_connection(http1);
        if (http1->exchange != NULL) {
            fail_exchange(http1, EXCHANGE_RESET_CONNECTION, error_make(ERROR_RESET, 0));
        } else {
            tell_idle(http1);
        }
        return;
    }
    http1->has_ended = true;
    http1->end = end;
    apply_end(http1);
    update_timeouts(http1);
}

static void on_flushed(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    struct exchange *exchange = http1->exchange;
    if (exchange != NULL && !exchange->is_send_over && http1->is_room_awaited &&
        codec->transport_room > codec->out.size) {
        http1->is_room_awaited = false;
        exchange->events->on_room(exchange);
    }
    if (!finish_if_over(http1)) {
        return;
    }
    if (http1->has_input && http1->receive_state != RECEIVE_DEAD) {
        codec->events->on_input_wanted(codec);
    } else if (http1->has_ended) {
        apply_end(http1);
    }
    update_timeouts(http1);
}

static void drain(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    codec->is_draining = true;
    codec->is_reusable = false;
    if (http1->exchange == NULL && !http1->has_input) {
        close_connection(http1);
        codec->events->on_output(codec);
    }
}

static void expire(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    if (codec->is_head_timeout_wanted) {
        refuse(http1, HTTP1_FAULT_HEAD_TIME);
    } else if (codec->is_idle_timeout_wanted) {
        close_connection(http1);
    }
}

static void destroy(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    if (http1->exchange != NULL) {
        struct exchange *exchange = http1->exchange;
        bool has_ended = is_over(http1);
        forget(http1);
        if (has_ended) {
            exchange->events->on_done(exchange);
        } else {
            exchange->events->on_reset(exchange, EXCHANGE_RESET_CONNECTION,
                                       error_make(ERROR_CLOSED, 0));
        }
    }
    buffer_clear(&codec->out);
    free(http1);
}

/* ---- Sending ---- */

static struct error open_exchange(struct codec *codec, struct exchange *exchange)
{
    struct http1 *http1 = http1_from(codec);
    if (http1->exchange != NULL) {
        return error_make(ERROR_LIMIT, 0);
    }
    if (!codec->is_reusable || codec->role != CODEC_ROLE_CLIENT) {
        return error_make(ERROR_CLOSED, 0);
    }
    begin_exchange(http1, exchange);
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
    drop_framing(http1);
    if (is_server(http1) && !exchange->is_receive_over && !exchange->is_tunnel) {
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
        complete_receive(http1); /* no tunnel: what follows is the next request (E2) */
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

static struct error send_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct http1 *http1 = http1_of(exchange);
    if (http1->send_state != SEND_HEAD || exchange->is_send_over) {
        return error_make(ERROR_CLOSED, 0);
    }
    TRY(is_server(http1) ? send_response(http1, head, is_end) : send_request(http1, head, is_end));
    if (is_end) {
        complete_send(http1);
    }
    http1->codec.events->on_output(&http1->codec);
    return OK;
}

static struct error send_interim(struct exchange *exchange, struct message_head *head)
{
    struct http1 *http1 = http1_of(exchange);
    if (!is_server(http1) || head->status < 100 || head->status > 199 || head->status == 101 ||
        http1->send_state != SEND_HEAD) {
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
    drop_framing(http1);
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

static struct error send_data(struct exchange *exchange, struct buffer *data)
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

static struct error send_trailers(struct exchange *exchange, struct message_head *trailers)
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

static struct error send_end(struct exchange *exchange)
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
static void reset(struct exchange *exchange, enum exchange_reset reason)
{
    (void)reason;
    struct http1 *http1 = http1_of(exchange);
    bool is_unsent = !is_server(http1) && http1->send_state == SEND_HEAD;
    bool is_end_a_reset = !is_server(http1) || http1->send_state == SEND_UNTIL_CLOSE ||
                          http1->send_state == SEND_TUNNEL || exchange->is_tunnel;
    if (is_over(http1)) {
        conclude(http1);
        if (http1->has_input && !http1->is_receiving) {
            http1->codec.events->on_input_wanted(&http1->codec);
        }
        http1->codec.events->on_output(&http1->codec);
        return;
    }
    forget(http1);
    if (is_unsent && http1->codec.is_reusable) {
        http1->receive_state = RECEIVE_HEAD; /* the peer never knew of it */
        return;
    }
    if (is_end_a_reset) {
        abort_connection(http1);
    } else {
        close_connection(http1);
    }
    http1->codec.events->on_output(&http1->codec);
}

static void grant(struct exchange *exchange)
{
    struct http1 *http1 = http1_of(exchange);
    if (http1->has_input && !http1->is_receiving) {
        http1->codec.events->on_input_wanted(&http1->codec);
    }
}

static uint64_t room(const struct exchange *exchange)
{
    struct http1 *http1 = http1_of(exchange);
    const struct codec *codec = &http1->codec;
    uint64_t used = codec->out.size;
    uint64_t left = used < codec->transport_room ? codec->transport_room - used : 0;
    if (http1->send_state == SEND_UPGRADE) {
        left = 0;
    }
    if (left == 0) {
        http1->is_room_awaited = true;
    }
    return left;
}

static const struct codec_ops http1_ops = {
    .protocol = CODEC_HTTP1,
    .receive = receive,
    .receive_end = receive_end,
    .open = open_exchange,
    .send_head = send_head,
    .send_interim = send_interim,
    .send_data = send_data,
    .send_trailers = send_trailers,
    .send_end = send_end,
    .reset = reset,
    .grant = grant,
    .room = room,
    .on_flushed = on_flushed,
    .drain = drain,
    .expire = expire,
    .destroy = destroy,
};

struct error http1_create(enum codec_role role, const struct codec_events *events, void *owner,
                          struct block_source *blocks, const struct http1_options *options,
                          struct codec **ret_codec)
{
    struct http1 *http1 = calloc(1, sizeof(*http1));
    if (http1 == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    http1->codec = (struct codec){.ops = &http1_ops,
                                  .events = events,
                                  .owner = owner,
                                  .blocks = blocks,
                                  .role = role,
                                  .is_reusable = role == CODEC_ROLE_CLIENT,
                                  .is_idle_timeout_wanted = role == CODEC_ROLE_SERVER};
    http1->date = options->date;
    *ret_codec = &http1->codec;
    return OK;
}

const char *http1_error_text(int32_t detail)
{
    bool is_known = detail > 0 && detail < HTTP1_FAULT_COUNT;
    return http1_fault_text(is_known ? (enum http1_fault)detail : HTTP1_FAULT_NONE);
}

void http1_print_date(uint64_t seconds, char ret_date[HTTP1_DATE_BYTES + 1])
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t time = (time_t)seconds;
    struct tm utc = {0};
    gmtime_r(&time, &utc);
    char text[64];
    snprintf(text, sizeof(text), "%s, %02d %s %04d %02d:%02d:%02d GMT", days[utc.tm_wday],
             utc.tm_mday, months[utc.tm_mon], (utc.tm_year + 1900) % 10000, utc.tm_hour, utc.tm_min,
             utc.tm_sec);
    memcpy(ret_date, text, HTTP1_DATE_BYTES);
    ret_date[HTTP1_DATE_BYTES] = '\0';
}

/*
 * Receiving heads and trailers over HTTP/1.1 (RFC 9112 2 to 5, 7.1.2). A head is parsed where it
 * lies when one slice holds it, else gathered first; only a whole and valid one asks for an
 * exchange. Before an event its bytes are gone from the input and a copy is in the exchange's
 * arena, because the event may feed this codec again.
 */
#include <string.h>

#include "base/check.h"
#include "http/http1_parse.h"
#include "http/http1_state.h"
#include "http/scan.h"
#include "http/websocket.h"
#include "limits.h"

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
    if (http1_is_server(http1) && head->is_upgrade) {
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
    if (http1->is_line_done || !http1_is_server(http1) || input->size <= LINE_BYTES_MAX) {
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
    http1_answer(http1, status, details, is_close);
    http1->is_crlf_skipped = false;
    if (is_close) {
        http1_close(http1);
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
    http1_begin(http1, exchange);
    struct message_head *head = take_head(http1, exchange, input, parsed, data);
    if (head == NULL || !count_forwards(exchange->arena, head)) {
        http1_answer(http1, 503, "limit_buffer", true);
        http1_close(http1);
        http1_fail_exchange(http1, EXCHANGE_RESET_INTERNAL, error_make(ERROR_NO_MEMORY, 0));
        return;
    }
    http1->is_head_request = head->is_head_request;
    http1->is_upgrade = head->is_upgrade;
    http1->is_peer_1_0 = head->version == MESSAGE_HTTP_1_0;
    /* RFC 9112 9.3: a proxy does not keep a connection with a 1.0 client. */
    http1->is_closing = http1->is_peer_1_0 || !head->is_keep_alive;
    bool is_end = expect_body(http1, head);
    if (is_end) {
        http1_complete_receive(http1);
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
        http1_refuse(http1, HTTP1_FAULT_INTERIM_COUNT);
        return;
    }
    if (parsed->head.status == 101 && !is_accepted(http1, &parsed->head)) {
        http1_refuse(http1, HTTP1_FAULT_SWITCH);
        return;
    }
    struct message_head *head = take_head(http1, exchange, input, parsed, data);
    if (head == NULL) {
        http1_abort(http1);
        http1_fail_exchange(http1, EXCHANGE_RESET_INTERNAL, error_make(ERROR_NO_MEMORY, 0));
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
        http1_complete_receive(http1);
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
struct error http1_receive_head(struct http1 *http1, struct buffer *input)
{
    enum http1_fault fault = HTTP1_FAULT_NONE;
    if (http1_is_server(http1)) {
        fault = look_at_start(http1, input);
    } else {
        http1->exchange->is_receive_begun = true;
    }
    if (fault != HTTP1_FAULT_NONE) {
        http1_refuse(http1, fault);
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
        parse_front(http1, input, http1_is_server(http1) ? parse_request : parse_response,
                    &gathered, &parsed, &parse, &data);
    if (error_is(error)) {
        return error;
    }
    http1->is_starved = parse == HTTP1_PARSE_MORE;
    if (parse == HTTP1_PARSE_BAD) {
        http1_refuse(http1, parsed.fault);
    } else if (parse == HTTP1_PARSE_MORE) {
        if (is_over_limit(http1, input, &fault)) {
            http1_refuse(http1, fault);
        }
    } else {
        http1->is_line_done = false;
        if (http1_is_server(http1)) {
            deliver_request(http1, input, &parsed, data);
        } else {
            deliver_response(http1, input, &parsed, data);
        }
    }
    buffer_clear(&gathered);
    return OK;
}

static enum http1_parse parse_trailers(struct http1 *http1, struct bytes data,
                                       struct http1_parsed *parsed)
{
    return http1_parse_trailers(data, http1->named, http1->named_count, parsed);
}

/* Errors: ERROR_NO_MEMORY. */
struct error http1_receive_trailers(struct http1 *http1, struct buffer *input)
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
        http1_refuse(http1, HTTP1_FAULT_TRAILERS);
    } else if (parse == HTTP1_PARSE_DONE) {
        size_t size = parsed.size;
        struct message_head *trailers =
            parsed.head.fields_count == 0 ? NULL : adopt(exchange->arena, &parsed, data);
        buffer_consume(input, size);
        if (trailers != NULL && exchange->events->on_trailers != NULL) {
            exchange->events->on_trailers(exchange, trailers);
        }
        if (http1->exchange == exchange) { /* else it was reset by its owner */
            http1_end_receive(http1);
        }
    }
    buffer_clear(&gathered);
    return OK;
}

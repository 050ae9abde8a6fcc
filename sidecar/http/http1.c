/*
 * The HTTP/1.1 codec: how exchanges and the connection begin and end, and the answers that it gives
 * by itself. Receiving and sending have their own files; http1_state.h says how they meet.
 */
#include "http/http1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "http/http1_parse.h"
#include "http/http1_state.h"

struct error http1_fault_error(enum http1_fault fault)
{
    return error_make(ERROR_PROTOCOL, (int32_t)fault);
}

/* ---- Beginning and end of exchanges ---- */

void http1_begin(struct http1 *http1, struct exchange *exchange)
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

/* Let go of the exchange; the connection is left as it is. */
struct exchange *http1_forget(struct http1 *http1)
{
    struct exchange *exchange = http1->exchange;
    exchange->codec = NULL;
    exchange->is_receive_over = true;
    exchange->is_send_over = true;
    http1->exchange = NULL;
    http1->codec.exchanges_open = 0;
    http1_drop_framing(http1);
    return exchange;
}

/* Nothing more is read; what is in `out` still goes. */
void http1_close(struct http1 *http1)
{
    http1->receive_state = RECEIVE_DEAD;
    http1->codec.is_reusable = false;
    http1->codec.is_close_wanted = true;
    http1->codec.is_head_timeout_wanted = false;
    http1->codec.is_idle_timeout_wanted = false;
}

void http1_abort(struct http1 *http1)
{
    http1_close(http1);
    http1->codec.is_abort_wanted = true;
}

void http1_tell_idle(struct http1 *http1)
{
    if (!http1_is_server(http1)) {
        http1->codec.events->on_idle(&http1->codec);
    }
}

/* The exchange is over without its end, by the peer's doing or the connection's. */
void http1_fail_exchange(struct http1 *http1, enum exchange_reset reason, struct error error)
{
    struct exchange *exchange = http1_forget(http1);
    exchange->events->on_reset(exchange, reason, error);
    http1_tell_idle(http1);
}

void http1_update_timeouts(struct http1 *http1)
{
    bool is_waiting = http1_is_server(http1) && http1->exchange == NULL &&
                      http1->receive_state == RECEIVE_HEAD && !http1->codec.is_close_wanted;
    http1->codec.is_head_timeout_wanted = is_waiting && http1->has_input && http1->is_starved;
    http1->codec.is_idle_timeout_wanted = is_waiting && !http1->has_input;
}

/* Both halves are over: the connection goes on to the next exchange or closes. */
struct exchange *http1_conclude(struct http1 *http1)
{
    bool is_tunnel = http1->exchange->is_tunnel;
    struct exchange *exchange = http1_forget(http1);
    http1->scanned = 0;
    http1->is_line_done = false;
    http1->is_crlf_skipped = false;
    http1->receive_state = RECEIVE_HEAD;
    if (http1->is_closing || is_tunnel || (http1->codec.is_draining && !http1->has_input)) {
        http1_close(http1);
    }
    return exchange;
}

bool http1_finish_if_over(struct http1 *http1)
{
    if (!http1_is_over(http1)) {
        return false;
    }
    struct exchange *exchange = http1_conclude(http1);
    exchange->events->on_done(exchange);
    http1_tell_idle(http1);
    return true;
}

/* The receiving half came to its end. */
void http1_complete_receive(struct http1 *http1)
{
    CHECK(http1->exchange != NULL);
    http1->receive_state = RECEIVE_COMPLETE;
    http1->exchange->is_receive_over = true;
    if (!http1_is_server(http1) && !http1->exchange->is_send_over) {
        /* RFC 9112 9.3: the rest of the request would be read as the next one. */
        http1->exchange->is_send_over = true;
        http1->send_state = SEND_COMPLETE;
        http1->is_closing = true;
    }
}

void http1_end_receive(struct http1 *http1)
{
    struct exchange *exchange = http1->exchange;
    http1_complete_receive(http1);
    exchange->events->on_end(exchange);
}

/* ---- Answers of the codec's own ---- */

/* An answer without content, but where errors have a body. `details` of proxy-status (RFC 9209);
 * NULL: nothing went wrong. */
void http1_answer(struct http1 *http1, uint16_t status, const char *details, bool is_close)
{
    static const char methods[] = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";

    enum {
        ANSWER_BYTES_MAX = 640,
        BODY_BYTES_MAX = 128
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
    char body[BODY_BYTES_MAX] = "";
    int body_size = 0;
    if (has_details && http1->has_json_errors) {
        body_size = snprintf(body, sizeof(body), "{\"code\":\"%s\",\"message\":\"%.*s\"}\n",
                             details, (int)reason.size, (const char *)reason.data);
    }
    int size =
        snprintf((char *)text, ANSWER_BYTES_MAX,
                 "HTTP/1.1 %u %.*s\r\n%s%.29s%s%sContent-Length: %d\r\n%s%s%s%s%s\r\n%s", status,
                 (int)reason.size, (const char *)reason.data, has_date ? "Date: " : "",
                 has_date ? http1->date : "", has_date ? "\r\n" : "",
                 body_size > 0 ? "Content-Type: application/json\r\n" : "", body_size,
                 has_details ? "proxy-status: outrigger; error=http_request_error; details=\"" : "",
                 has_details ? details : "", has_details ? "\"\r\n" : "", more,
                 is_close ? "Connection: close\r\n" : "", body);
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
        http1_answer(http1, status,
                     fault == HTTP1_FAULT_HEAD_TIME ? "request_timeout" : "request_malformed",
                     true);
    }
    http1_close(http1);
    http1->codec.is_abort_wanted = is_end_a_reset;
    http1->codec.events->on_malformed(&http1->codec, status, http1_fault_text(fault));
    if (http1->exchange != NULL) {
        http1_fail_exchange(http1,
                            fault == HTTP1_FAULT_TRUNCATED ? EXCHANGE_RESET_TRUNCATED
                                                           : EXCHANGE_RESET_PROTOCOL,
                            http1_fault_error(fault));
    }
}

/* Client: the peer broke the protocol. The connection is of no more use. */
static void refuse_response(struct http1 *http1, enum http1_fault fault)
{
    http1_abort(http1);
    if (http1->exchange != NULL) {
        http1_fail_exchange(http1, EXCHANGE_RESET_PROTOCOL, http1_fault_error(fault));
        return;
    }
    http1->codec.events->on_malformed(&http1->codec, 0, http1_fault_text(fault));
    http1_tell_idle(http1);
}

void http1_refuse(struct http1 *http1, enum http1_fault fault)
{
    if (http1_is_server(http1)) {
        refuse_request(http1, fault);
    } else {
        refuse_response(http1, fault);
    }
}

/* ---- The connection's calls ---- */

static void on_flushed(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    struct exchange *exchange = http1->exchange;
    if (exchange != NULL && !exchange->is_send_over && http1->is_room_awaited &&
        codec_room(codec) > 0) {
        http1->is_room_awaited = false;
        exchange->events->on_room(exchange);
    }
    if (!http1_finish_if_over(http1)) {
        return;
    }
    if (http1->has_input && http1->receive_state != RECEIVE_DEAD) {
        codec->events->on_input_wanted(codec);
    } else if (http1->has_ended) {
        http1_apply_end(http1);
    }
    http1_update_timeouts(http1);
}

static void drain(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    codec->is_draining = true;
    codec->is_reusable = false;
    if (http1->exchange == NULL && !http1->has_input) {
        http1_close(http1);
        codec->events->on_output(codec);
    }
}

static void expire(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    if (codec->is_head_timeout_wanted) {
        http1_refuse(http1, HTTP1_FAULT_HEAD_TIME);
    } else if (codec->is_idle_timeout_wanted) {
        http1_close(http1);
    }
}

static void destroy(struct codec *codec)
{
    struct http1 *http1 = http1_from(codec);
    if (http1->exchange != NULL) {
        struct exchange *exchange = http1->exchange;
        bool has_ended = http1_is_over(http1);
        http1_forget(http1);
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

static const struct codec_ops http1_ops = {
    .protocol = CODEC_HTTP1,
    .receive = http1_receive,
    .receive_end = http1_receive_end,
    .open = http1_open,
    .send_head = http1_send_head,
    .send_interim = http1_send_interim,
    .send_data = http1_send_data,
    .send_trailers = http1_send_trailers,
    .send_end = http1_send_end,
    .reset = http1_reset,
    .grant = http1_grant,
    .room = http1_room,
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
    http1->has_json_errors = options->has_json_errors;
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

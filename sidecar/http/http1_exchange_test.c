/*
 * What vectors cannot say of the HTTP/1.1 codec: grants, room, early answers, timeouts, drain,
 * resets, tunnels, what may not be sent, and memory that runs out. One owner writes down what it is
 * told.
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/http1.h"
#include "http/message.h"
#include "http/relay.h"

static const char date[] = "Sun, 06 Nov 1994 08:49:37 GMT";

struct owner {
    struct exchange exchange; /* first */
    struct codec *codec;
    struct arena arena;
    struct buffer input;
    struct message_head *head; /* the last one delivered */
    char log[2048];
    char data[2048]; /* of on_data */
    size_t data_size;
    uint32_t slices_max; /* of one on_data */
    uint64_t grant_on_head;
    bool is_refusing;
};

static void note(struct owner *owner, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(struct owner *owner, const char *format, ...)
{
    size_t used = strlen(owner->log);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(owner->log + used, sizeof(owner->log) - used, format, arguments);
    va_end(arguments);
}

static struct owner *owner_of(struct exchange *exchange)
{
    return (struct owner *)(void *)exchange;
}

static void on_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct owner *owner = owner_of(exchange);
    owner->head = head;
    if (head->is_request) {
        note(owner, "head %.*s%s;", (int)head->target.size, (const char *)head->target.data,
             is_end ? " end" : "");
    } else {
        note(owner, "head %u%s;", head->status, is_end ? " end" : "");
    }
    exchange_grant(exchange, owner->grant_on_head);
}

static void on_interim(struct exchange *exchange, struct message_head *head)
{
    note(owner_of(exchange), "interim %u;", head->status);
}

static void on_data(struct exchange *exchange, struct buffer *data)
{
    struct owner *owner = owner_of(exchange);
    note(owner, "data %zu;", data->size);
    cr_assert_leq(owner->data_size + data->size, sizeof(owner->data));
    buffer_copy_out(data, data->size, (uint8_t *)owner->data + owner->data_size);
    owner->data_size += data->size;
    owner->slices_max = data->count > owner->slices_max ? data->count : owner->slices_max;
}

static void on_trailers(struct exchange *exchange, struct message_head *trailers)
{
    note(owner_of(exchange), "trailers %u;", trailers->fields_count);
}

static void on_end(struct exchange *exchange)
{
    note(owner_of(exchange), "end;");
}

static void on_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    static const char *const names[] = {"cancel",     "refused",   "protocol",
                                        "connection", "truncated", "internal"};
    cr_assert(error_is(error));
    cr_assert_null(exchange->codec);
    note(owner_of(exchange), "reset %s;", names[reason]);
}

static void on_room(struct exchange *exchange)
{
    note(owner_of(exchange), "room;");
}

static void on_done(struct exchange *exchange)
{
    cr_assert_null(exchange->codec);
    note(owner_of(exchange), "done;");
}

static const struct exchange_events exchange_events = {.on_head = on_head,
                                                       .on_interim = on_interim,
                                                       .on_data = on_data,
                                                       .on_trailers = on_trailers,
                                                       .on_end = on_end,
                                                       .on_reset = on_reset,
                                                       .on_room = on_room,
                                                       .on_done = on_done};

static struct exchange *on_exchange(struct codec *codec)
{
    struct owner *owner = codec->owner;
    if (owner->is_refusing) {
        return NULL;
    }
    owner->exchange = (struct exchange){.events = &exchange_events, .arena = &owner->arena};
    return &owner->exchange;
}

static void on_malformed(struct codec *codec, uint16_t status, const char *reason)
{
    cr_assert_gt(strlen(reason), 2);
    note(codec->owner, "malformed %u;", status);
}

static void on_output(struct codec *codec)
{
    (void)codec;
}

static void on_input_wanted(struct codec *codec)
{
    note(codec->owner, "input;");
}

static void on_idle(struct codec *codec)
{
    note(codec->owner, "idle;");
}

static const struct codec_events codec_events = {.on_exchange = on_exchange,
                                                 .on_malformed = on_malformed,
                                                 .on_output = on_output,
                                                 .on_input_wanted = on_input_wanted,
                                                 .on_idle = on_idle};

static void start_with(struct owner *owner, enum codec_role role, struct block_source *blocks,
                       const char *with_date)
{
    const struct http1_options options = {.date = with_date};
    *owner = (struct owner){.grant_on_head = 10000};
    arena_init(&owner->arena, 4096, 1 << 20);
    cr_assert(!error_is(http1_create(role, &codec_events, owner, blocks, &options, &owner->codec)));
    codec_set_room(owner->codec, 100000);
}

static void start(struct owner *owner, enum codec_role role)
{
    start_with(owner, role, block_source_heap(), NULL);
}

static void stop(struct owner *owner)
{
    codec_destroy(owner->codec);
    buffer_clear(&owner->input);
    arena_finish(&owner->arena);
}

static void receive(struct owner *owner, const char *text)
{
    cr_assert(
        !error_is(buffer_append(&owner->input, block_source_heap(), bytes_from_string(text))));
    cr_assert(!error_is(codec_receive(owner->codec, &owner->input)));
}

static void expect_log(struct owner *owner, const char *wanted)
{
    cr_assert_str_eq(owner->log, wanted);
    owner->log[0] = '\0';
}

/* What was written since the last flush; then the flush. */
static void expect_out(struct owner *owner, const char *wanted)
{
    char text[4096] = {0};
    struct buffer *out = &owner->codec->out;
    cr_assert_lt(out->size, sizeof(text));
    buffer_copy_out(out, out->size, (uint8_t *)text);
    buffer_consume(out, out->size);
    cr_assert_str_eq(text, wanted);
    codec_set_room(owner->codec, 100000);
}

/* Drop what was written, but it must hold `part`. */
static void expect_out_has(struct owner *owner, const char *part, bool is_there)
{
    char text[4096] = {0};
    struct buffer *out = &owner->codec->out;
    cr_assert_lt(out->size, sizeof(text));
    buffer_copy_out(out, out->size, (uint8_t *)text);
    buffer_consume(out, out->size);
    cr_assert_eq(strstr(text, part) != NULL, is_there, "%s in %s", part, text);
    codec_set_room(owner->codec, 100000);
}

static struct error send_text(struct owner *owner, const char *text)
{
    struct buffer data = {0};
    cr_assert(!error_is(buffer_append(&data, block_source_heap(), bytes_from_string(text))));
    struct error error = exchange_send_data(&owner->exchange, &data);
    buffer_clear(&data);
    return error;
}

static void reply(struct owner *owner, uint16_t status)
{
    struct message_head head = {.status = status, .body = MESSAGE_BODY_LENGTH};
    cr_assert(!error_is(exchange_send_head(&owner->exchange, &head, true)));
}

static void request(struct owner *owner, const char *method, bool is_end)
{
    struct message_head head = {.is_request = true,
                                .method = bytes_from_string(method),
                                .target = BYTES("/"),
                                .authority = BYTES("a"),
                                .is_head_request = strcmp(method, "HEAD") == 0,
                                .body = is_end ? MESSAGE_BODY_NONE : MESSAGE_BODY_CHUNKED};
    owner->exchange = (struct exchange){.events = &exchange_events, .arena = &owner->arena};
    cr_assert(!error_is(exchange_open(owner->codec, &owner->exchange)));
    cr_assert(!error_is(exchange_send_head(&owner->exchange, &head, is_end)));
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST_10 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
#define POST_CHUNKED "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#define WEBSOCKET                                                                                  \
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                 \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
#define EMPTY_200 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

/* ---- grants and room ---- */

Test(http1_exchange, delivers_no_more_of_a_body_than_was_granted)
{
    static const char *const requests[] = {POST_10 "0123456789",
                                           POST_CHUNKED "4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"};
    for (size_t i = 0; i < 2; i++) {
        struct owner owner;
        start(&owner, CODEC_ROLE_SERVER);
        owner.grant_on_head = 3;
        receive(&owner, requests[i]);
        expect_log(&owner, "head /;data 3;");
        exchange_grant(&owner.exchange, 4);
        expect_log(&owner, "input;");
        receive(&owner, "");
        expect_log(&owner, "data 4;");
        cr_assert_eq(owner.exchange.granted_bytes, 0);
        exchange_grant(&owner.exchange, 100);
        receive(&owner, "");
        expect_log(&owner, "input;data 3;end;");
        cr_assert_arr_eq(owner.data, "0123456789", 10);
        cr_assert_eq(owner.exchange.received_bytes, 10);
        cr_assert_eq(owner.input.size, 0);
        stop(&owner);
    }
}

Test(http1_exchange, a_dribble_of_chunks_does_not_hold_a_block_for_each_byte)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, POST_CHUNKED);
    for (int i = 0; i < 500; i++) {
        cr_assert(!error_is(buffer_append(&owner.input, block_source_heap(), BYTES("1\r\nx\r\n"))));
    }
    receive(&owner, "");
    expect_log(&owner, "head /;data 500;");
    cr_assert_leq(owner.slices_max, 2);
    stop(&owner);
}

Test(http1_exchange, tells_when_there_is_room_again)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, GET);
    struct message_head head = {.status = 200, .body = MESSAGE_BODY_CHUNKED};
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    codec_set_room(owner.codec, owner.codec->out.size + 3);
    cr_assert_eq(exchange_room(&owner.exchange), 3);
    cr_assert(!error_is(send_text(&owner, "abc")));
    cr_assert_eq(exchange_room(&owner.exchange), 0);
    buffer_consume(&owner.codec->out, owner.codec->out.size);
    codec_set_room(owner.codec, 0);
    expect_log(&owner, "head / end;");
    codec_set_room(owner.codec, 100);
    codec_set_room(owner.codec, 200);
    expect_log(&owner, "room;");
    cr_assert_eq(owner.exchange.sent_bytes, 3);
    stop(&owner);
}

Test(http1_exchange, passes_a_large_body_both_ways_in_small_grants)
{
    enum {
        SIZE = 300000
    };

    struct relay relay;
    relay_init(&relay, NULL);
    relay.is_streaming = true;
    relay.grant_bytes = 700;
    uint8_t *body = malloc(SIZE);
    cr_assert_not_null(body);
    unsigned seed = 5;
    for (size_t i = 0; i < SIZE; i++) {
        body[i] = (uint8_t)rand_r(&seed);
    }
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n";
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n";
    relay_receive(&relay, (const uint8_t *)head, sizeof(head) - 1);
    for (size_t at = 0; at < SIZE;) {
        size_t size = (size_t)rand_r(&seed) % 5000;
        size = size > SIZE - at ? SIZE - at : size;
        relay_receive(&relay, body + at, size);
        at += size;
    }
    cr_assert_eq(relay.requests_whole, 1);
    cr_assert_eq(relay.to_server.size, sizeof(head) - 1 + SIZE);
    cr_assert_arr_eq(relay.to_server.data + sizeof(head) - 1, body, SIZE);
    relay_respond(&relay, (const uint8_t *)answer, sizeof(answer) - 1);
    relay_respond(&relay, body, SIZE);
    cr_assert_eq(relay.responses_whole, 1);
    cr_assert_eq(relay.to_client.size, sizeof(answer) - 1 + SIZE);
    cr_assert_arr_eq(relay.to_client.data + sizeof(answer) - 1, body, SIZE);
    free(body);
    relay_finish(&relay);
}

/* ---- order ---- */

Test(http1_exchange, a_pipelined_request_waits_until_the_one_before_is_over)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, GET "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    expect_log(&owner, "head / end;");
    cr_assert(!owner.codec->is_head_timeout_wanted && !owner.codec->is_idle_timeout_wanted);
    reply(&owner, 200);
    expect_log(&owner, "");
    expect_out(&owner, EMPTY_200);
    expect_log(&owner, "done;input;");
    receive(&owner, "");
    expect_log(&owner, "head /2 end;");
    stop(&owner);
    expect_log(&owner, "reset connection;");
}

Test(http1_exchange, an_answer_before_the_end_of_the_request_closes)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, POST_10 "01");
    expect_log(&owner, "head /;data 2;");
    reply(&owner, 413);
    expect_out(&owner,
               "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    expect_log(&owner, "done;");
    cr_assert(owner.codec->is_close_wanted);
    receive(&owner, "23456789" GET);
    expect_log(&owner, "");
    cr_assert_eq(owner.input.size, 0);
    stop(&owner);
}

Test(http1_exchange, an_answer_that_begins_before_the_end_of_the_request_is_no_error)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, POST_10 "01");
    struct message_head head = {.status = 200, .body = MESSAGE_BODY_CHUNKED};
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    expect_out(&owner,
               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    receive(&owner, "23456789");
    expect_log(&owner, "head /;data 2;data 8;end;");
    cr_assert(!error_is(send_text(&owner, "abc")));
    cr_assert(!error_is(exchange_send_end(&owner.exchange)));
    expect_out(&owner, "3\r\nabc\r\n0\r\n\r\n");
    expect_log(&owner, "done;");
    stop(&owner);
}

Test(http1_exchange, a_client_that_half_closes_still_gets_its_answer)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, GET);
    codec_receive_end(owner.codec, CODEC_END_CLEAN);
    expect_log(&owner, "head / end;");
    cr_assert(!owner.codec->is_close_wanted);
    reply(&owner, 200);
    expect_out_has(&owner, "200 OK", true);
    expect_log(&owner, "done;");
    cr_assert(owner.codec->is_close_wanted && !owner.codec->is_abort_wanted);
    stop(&owner);
}

Test(http1_exchange, a_client_that_resets_ends_its_exchange)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, GET);
    codec_receive_end(owner.codec, CODEC_END_RESET);
    expect_log(&owner, "head / end;reset connection;");
    cr_assert(owner.codec->is_abort_wanted);
    stop(&owner);
}

/* ---- fields of our own ---- */

Test(http1_exchange, adds_a_date_where_there_is_none)
{
    struct owner owner;
    start_with(&owner, CODEC_ROLE_SERVER, block_source_heap(), date);
    receive(&owner, GET);
    reply(&owner, 200);
    expect_out(
        &owner,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
    receive(&owner, GET);
    struct message_field field = {
        .name = BYTES("date"), .value = BYTES("x"), .known = MESSAGE_FIELD_DATE};
    struct message_head head = {.status = 204, .fields = &field, .fields_count = 1};
    head.known[MESSAGE_FIELD_DATE] = 1;
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, true)));
    expect_out(&owner, "HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n");
    receive(&owner, "BAD\r\n");
    expect_out_has(&owner, "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n", true);
    stop(&owner);
}

Test(http1_exchange, prints_dates)
{
    char text[HTTP1_DATE_BYTES + 1];
    http1_print_date(784111777, text);
    cr_assert_str_eq(text, date);
    http1_print_date(0, text);
    cr_assert_str_eq(text, "Thu, 01 Jan 1970 00:00:00 GMT");
    http1_print_date(1709164800, text);
    cr_assert_str_eq(text, "Thu, 29 Feb 2024 00:00:00 GMT");
}

Test(http1_exchange, interim_answers_go_to_those_who_know_them_and_before_the_head)
{
    struct owner owner;
    struct message_head interim = {.status = 100};
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner,
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    cr_assert(owner.head->is_expect_continue);
    cr_assert(!error_is(exchange_send_interim(&owner.exchange, &interim)));
    cr_assert(!error_is(exchange_send_interim(&owner.exchange, &interim)));
    expect_out(&owner, "HTTP/1.1 100 Continue\r\n\r\n");
    interim.status = 101;
    cr_assert(error_is(exchange_send_interim(&owner.exchange, &interim)));
    receive(&owner, "hi");
    reply(&owner, 200);
    interim.status = 103;
    expect_out(&owner, EMPTY_200);
    stop(&owner);

    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, "GET / HTTP/1.0\r\n\r\n");
    cr_assert(!error_is(exchange_send_interim(&owner.exchange, &interim)));
    expect_out(&owner, "");
    stop(&owner);
}

Test(http1_exchange, the_answer_to_head_has_no_content_whoever_makes_it)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    struct message_head head = {.status = 404, .body = MESSAGE_BODY_LENGTH, .content_length = 5};
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    cr_assert(!error_is(send_text(&owner, "hello")));
    cr_assert(!error_is(exchange_send_end(&owner.exchange)));
    expect_out(&owner, "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n");
    expect_log(&owner, "head / end;done;");
    cr_assert(!owner.codec->is_close_wanted);
    stop(&owner);
}

/* ---- waiting, draining, refusing ---- */

Test(http1_exchange, asks_for_the_timeout_that_fits)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    cr_assert(owner.codec->is_idle_timeout_wanted && !owner.codec->is_head_timeout_wanted);
    receive(&owner, "GET / HT");
    cr_assert(!owner.codec->is_idle_timeout_wanted && owner.codec->is_head_timeout_wanted);
    receive(&owner, "TP/1.1\r\nHost: a\r\n\r\n");
    cr_assert(!owner.codec->is_idle_timeout_wanted && !owner.codec->is_head_timeout_wanted);
    reply(&owner, 200);
    expect_out(&owner, EMPTY_200);
    cr_assert(owner.codec->is_idle_timeout_wanted && !owner.codec->is_head_timeout_wanted);
    codec_expire(owner.codec);
    cr_assert(owner.codec->is_close_wanted);
    expect_out(&owner, "");
    stop(&owner);

    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, "GET / HT");
    codec_expire(owner.codec);
    expect_log(&owner, "malformed 408;");
    expect_out_has(&owner, "HTTP/1.1 408 Request Timeout\r\n", true);
    cr_assert(owner.codec->is_close_wanted && !owner.codec->is_head_timeout_wanted);
    stop(&owner);
}

Test(http1_exchange, drains_at_once_when_idle_and_after_the_answer_when_not)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    codec_drain(owner.codec);
    cr_assert(owner.codec->is_close_wanted);
    stop(&owner);

    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, GET);
    codec_drain(owner.codec);
    cr_assert(!owner.codec->is_close_wanted);
    reply(&owner, 200);
    expect_out_has(&owner, "\r\nConnection: close\r\n", true);
    cr_assert(owner.codec->is_close_wanted);
    stop(&owner);

    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, "GET / HT");
    codec_drain(owner.codec);
    cr_assert(!owner.codec->is_close_wanted, "a request that has begun is still served");
    receive(&owner, "TP/1.1\r\nHost: a\r\n\r\n");
    reply(&owner, 200);
    expect_out_has(&owner, "\r\nConnection: close\r\n", true);
    stop(&owner);

    start(&owner, CODEC_ROLE_CLIENT);
    codec_drain(owner.codec);
    cr_assert(owner.codec->is_close_wanted && !owner.codec->is_reusable);
    stop(&owner);
}

Test(http1_exchange, refuses_with_503_and_goes_on_where_it_can)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    owner.is_refusing = true;
    receive(&owner, GET);
    expect_log(&owner, "malformed 503;");
    expect_out_has(&owner, "Connection: close", false);
    owner.is_refusing = false;
    receive(&owner, GET);
    expect_log(&owner, "head / end;");
    reply(&owner, 200);
    expect_out(&owner, EMPTY_200);
    owner.is_refusing = true;
    receive(&owner, POST_10);
    expect_out_has(&owner, "\r\nConnection: close\r\n", true);
    cr_assert(owner.codec->is_close_wanted);
    stop(&owner);
}

/* ---- what may not be sent ---- */

Test(http1_exchange, sends_nothing_that_could_be_read_as_two_things)
{
    static const struct {
        struct bytes name;
        struct bytes value;
    } fields[] = {
        {BYTES_LITERAL("X"), BYTES_LITERAL("a\r\nY: b")},
        {BYTES_LITERAL("X"), BYTES_LITERAL("a\nb")},
        {BYTES_LITERAL("X"), BYTES_LITERAL("a\rb")},
        {BYTES_LITERAL("X"), BYTES_LITERAL("a\0b")},
        {BYTES_LITERAL("X"), BYTES_LITERAL("a\x01")},
        {BYTES_LITERAL("X"), BYTES_LITERAL(" a")},
        {BYTES_LITERAL("X"), BYTES_LITERAL("a ")},
        {BYTES_LITERAL("X y"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("X:"), BYTES_LITERAL("a")},
        {BYTES_LITERAL(""), BYTES_LITERAL("a")},
        {BYTES_LITERAL("X\r\n"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("X\0"), BYTES_LITERAL("a")},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        struct owner owner;
        start(&owner, CODEC_ROLE_SERVER);
        receive(&owner, GET);
        struct message_field field = {.name = fields[i].name, .value = fields[i].value};
        struct message_head head = {.status = 200, .fields = &field, .fields_count = 1};
        struct error error = exchange_send_head(&owner.exchange, &head, true);
        cr_assert_eq(error.code, ERROR_PROTOCOL, "field %zu", i);
        expect_out(&owner, "");
        reply(&owner, 500); /* the way is still open for an honest answer */
        expect_out_has(&owner, "HTTP/1.1 500 ", true);
        stop(&owner);
    }
}

Test(http1_exchange, sends_no_request_line_that_could_be_read_as_two_things)
{
    static const struct {
        struct bytes method;
        struct bytes target;
        struct bytes authority;
    } lines[] = {
        {BYTES_LITERAL("GET / HTTP/1.1\r\nX:"), BYTES_LITERAL("/"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("G ET"), BYTES_LITERAL("/"), BYTES_LITERAL("a")},
        {BYTES_LITERAL(""), BYTES_LITERAL("/"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("GET"), BYTES_LITERAL(""), BYTES_LITERAL("a")},
        {BYTES_LITERAL("GET"), BYTES_LITERAL("/ HTTP/1.1\r\nX: y"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("GET"), BYTES_LITERAL("/a b"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("GET"), BYTES_LITERAL("/a#b"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("GET"), BYTES_LITERAL("/\xc3\xa9"), BYTES_LITERAL("a")},
        {BYTES_LITERAL("GET"), BYTES_LITERAL("/"), BYTES_LITERAL("a\r\nX: y")},
        {BYTES_LITERAL("GET"), BYTES_LITERAL("/"), BYTES_LITERAL("a b")},
    };
    struct owner owner;
    start(&owner, CODEC_ROLE_CLIENT);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct message_head head = {.is_request = true,
                                    .method = lines[i].method,
                                    .target = lines[i].target,
                                    .authority = lines[i].authority};
        owner.exchange = (struct exchange){.events = &exchange_events, .arena = &owner.arena};
        cr_assert(!error_is(exchange_open(owner.codec, &owner.exchange)));
        struct error error = exchange_send_head(&owner.exchange, &head, true);
        cr_assert_eq(error.code, ERROR_PROTOCOL, "line %zu", i);
        exchange_reset(&owner.exchange, EXCHANGE_RESET_CANCEL);
        cr_assert(owner.codec->is_reusable, "nothing was sent");
        expect_out(&owner, "");
    }
    request(&owner, "GET", true);
    expect_out(&owner, GET);
    stop(&owner);
}

Test(http1_exchange, keeps_to_the_length_that_it_declared)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, GET);
    struct message_head head = {.status = 200, .body = MESSAGE_BODY_LENGTH, .content_length = 3};
    cr_assert_eq(exchange_send_head(&owner.exchange, &head, true).code, ERROR_PROTOCOL);
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    cr_assert_eq(send_text(&owner, "abcd").code, ERROR_PROTOCOL);
    cr_assert(!error_is(send_text(&owner, "ab")));
    cr_assert_eq(exchange_send_end(&owner.exchange).code, ERROR_PROTOCOL);
    exchange_reset(&owner.exchange, EXCHANGE_RESET_TRUNCATED);
    expect_out(&owner, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab");
    cr_assert(owner.codec->is_close_wanted && !owner.codec->is_abort_wanted);
    stop(&owner);
}

Test(http1_exchange, a_message_that_ends_with_the_connection_is_given_up_by_a_reset)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, "GET / HTTP/1.0\r\n\r\n");
    struct message_head head = {.status = 200, .body = MESSAGE_BODY_CHUNKED};
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    cr_assert(!error_is(send_text(&owner, "half")));
    exchange_reset(&owner.exchange, EXCHANGE_RESET_TRUNCATED);
    cr_assert(owner.codec->is_abort_wanted);
    stop(&owner);
}

Test(http1_exchange, large_chunks_are_moved_and_framed)
{
    static char text[3001];
    memset(text, 'x', sizeof(text) - 1);
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, GET);
    struct message_head head = {.status = 200, .body = MESSAGE_BODY_CHUNKED};
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    expect_out_has(&owner, "chunked", true);
    for (int i = 0; i < 2; i++) { /* the second line shares the first one's block */
        cr_assert(!error_is(send_text(&owner, text)));
        static char wanted[3100];
        snprintf(wanted, sizeof(wanted), "bb8\r\n%s\r\n", text);
        expect_out(&owner, wanted);
    }
    cr_assert(!error_is(exchange_send_end(&owner.exchange)));
    expect_out(&owner, "0\r\n\r\n");
    stop(&owner);
}

/* ---- client role ---- */

Test(http1_exchange, a_client_connection_carries_one_exchange_after_the_other)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_CLIENT);
    for (int i = 0; i < 3; i++) {
        request(&owner, "GET", true);
        struct exchange other = {.events = &exchange_events, .arena = &owner.arena};
        cr_assert_eq(exchange_open(owner.codec, &other).code, ERROR_LIMIT);
        expect_out(&owner, GET);
        receive(&owner, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        expect_log(&owner, "head 200;data 2;end;done;idle;");
        cr_assert(owner.codec->is_reusable);
        cr_assert_eq(owner.codec->exchanges_open, 0);
    }
    codec_receive_end(owner.codec, CODEC_END_CLEAN);
    expect_log(&owner, "idle;");
    cr_assert(!owner.codec->is_reusable && owner.codec->is_close_wanted);
    struct exchange late = {.events = &exchange_events, .arena = &owner.arena};
    cr_assert_eq(exchange_open(owner.codec, &late).code, ERROR_CLOSED);
    stop(&owner);
}

Test(http1_exchange, bytes_on_an_idle_connection_end_it)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_CLIENT);
    request(&owner, "GET", true);
    receive(&owner, EMPTY_200);
    expect_log(&owner, "head 200 end;done;idle;");
    receive(&owner, EMPTY_200);
    expect_log(&owner, "malformed 0;idle;");
    cr_assert(!owner.codec->is_reusable && owner.codec->is_abort_wanted);
    stop(&owner);
}

Test(http1_exchange, an_early_answer_ends_the_request_and_the_connection)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_CLIENT);
    request(&owner, "POST", false);
    cr_assert(!error_is(send_text(&owner, "some")));
    receive(&owner, "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
    expect_log(&owner, "head 413;data 2;end;done;idle;");
    cr_assert(owner.exchange.is_send_over);
    cr_assert(!owner.codec->is_reusable && owner.codec->is_close_wanted);
    stop(&owner);
}

Test(http1_exchange, says_whether_the_request_can_have_been_seen)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_CLIENT);
    request(&owner, "GET", true);
    codec_receive_end(owner.codec, CODEC_END_CLEAN);
    expect_log(&owner, "reset connection;idle;");
    cr_assert(!owner.exchange.is_receive_begun);
    stop(&owner);

    start(&owner, CODEC_ROLE_CLIENT);
    request(&owner, "GET", true);
    receive(&owner, "H");
    codec_receive_end(owner.codec, CODEC_END_RESET);
    expect_log(&owner, "reset connection;idle;");
    cr_assert(owner.exchange.is_receive_begun);
    stop(&owner);
}

Test(http1_exchange, giving_up_a_sent_request_gives_up_its_connection)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_CLIENT);
    request(&owner, "GET", true);
    exchange_reset(&owner.exchange, EXCHANGE_RESET_CANCEL);
    cr_assert(owner.codec->is_abort_wanted && !owner.codec->is_reusable);
    expect_log(&owner, "");
    stop(&owner);
}

/* ---- tunnels ---- */

Test(http1_exchange, a_tunnel_begins_with_the_101_and_not_a_byte_before)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, WEBSOCKET "early");
    expect_log(&owner, "head /ws;");
    cr_assert(owner.head->is_upgrade);
    cr_assert_eq(owner.input.size, 5);
    struct message_head head = {.status = 101, .body = MESSAGE_BODY_TUNNEL};
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    expect_out(
        &owner,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    expect_log(&owner, "input;");
    cr_assert(owner.exchange.is_tunnel);
    receive(&owner, "!");
    expect_log(&owner, "data 6;");
    cr_assert_arr_eq(owner.data, "early!", 6);
    cr_assert(!error_is(send_text(&owner, "pong")));
    codec_receive_end(owner.codec, CODEC_END_CLEAN);
    expect_log(&owner, "end;");
    cr_assert(!error_is(send_text(&owner, "more")));
    cr_assert(!error_is(exchange_send_end(&owner.exchange)));
    expect_out(&owner, "pongmore");
    cr_assert(owner.codec->is_send_end_wanted);
    expect_log(&owner, "done;");
    stop(&owner);
}

Test(http1_exchange, a_refused_upgrade_leaves_the_connection_to_the_next_request)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, WEBSOCKET GET);
    expect_log(&owner, "head /ws;");
    reply(&owner, 200);
    cr_assert(owner.exchange.is_receive_over);
    expect_out(&owner, EMPTY_200);
    expect_log(&owner, "done;input;");
    receive(&owner, "");
    expect_log(&owner, "head / end;");
    struct message_head head = {.status = 101, .body = MESSAGE_BODY_TUNNEL};
    cr_assert_eq(exchange_send_head(&owner.exchange, &head, false).code, ERROR_PROTOCOL);
    stop(&owner);
}

Test(http1_exchange, a_reset_tunnel_is_reset_on_the_wire)
{
    struct owner owner;
    start(&owner, CODEC_ROLE_SERVER);
    receive(&owner, WEBSOCKET);
    struct message_head head = {.status = 101, .body = MESSAGE_BODY_TUNNEL};
    cr_assert(!error_is(exchange_send_head(&owner.exchange, &head, false)));
    exchange_reset(&owner.exchange, EXCHANGE_RESET_CANCEL);
    cr_assert(owner.codec->is_abort_wanted);
    stop(&owner);
}

/* ---- memory that runs out ---- */

static int blocks_left;

static struct block *take_some(struct block_source *source, size_t size_min)
{
    (void)source;
    return blocks_left-- > 0 ? block_source_heap()->take(block_source_heap(), size_min) : NULL;
}

static struct block_source some_blocks = {.take = take_some};

Test(http1_exchange, an_arena_that_refuses_costs_the_request_and_nothing_else)
{
    static const char text[] = "POST http://a?x HTTP/1.1\r\nHost: a\r\nConnection: X-A\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n";
    bool has_passed = false;
    for (uint32_t n = 1; n < 20; n++) {
        struct owner owner;
        start(&owner, CODEC_ROLE_SERVER);
        arena_fail_after(&owner.arena, n);
        receive(&owner, text);
        if (strstr(owner.log, "reset internal;") != NULL) {
            expect_out_has(&owner, "HTTP/1.1 503 ", true);
            cr_assert(owner.codec->is_close_wanted);
        } else {
            has_passed = strcmp(owner.log, "head /?x;data 1;trailers 1;end;") == 0;
        }
        stop(&owner);
    }
    cr_assert(has_passed);
}

Test(http1_exchange, blocks_that_run_out_are_an_error_and_no_more)
{
    for (int n = 0; n < 12; n++) {
        struct owner owner;
        start_with(&owner, CODEC_ROLE_SERVER, &some_blocks, NULL);
        blocks_left = n;
        for (const char *at = GET; *at != '\0'; at++) {
            cr_assert(
                !error_is(buffer_append(&owner.input, block_source_heap(), bytes_make(at, 1))));
            error_ignore(codec_receive(owner.codec, &owner.input)); /* any of them may fail */
        }
        if (owner.exchange.codec != NULL) {
            struct message_head head = {.status = 200, .body = MESSAGE_BODY_CHUNKED};
            struct error error = exchange_send_head(&owner.exchange, &head, false);
            if (!error_is(error)) {
                error_ignore(send_text(&owner, "abc")); /* likewise */
                error_ignore(exchange_send_end(&owner.exchange));
            }
        }
        stop(&owner);
    }
}

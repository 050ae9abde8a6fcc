/* Test support: two codecs joined in memory. */
#include "http/relay.h"

#include <stdlib.h>

#include "base/check.h"
#include "http/http1.h"
#include "http/message.h"

static void must(struct error error)
{
    CHECK(!error_is(error));
}

static void record(struct relay_record *record, struct buffer *out)
{
    if (out->size == 0) {
        return;
    }
    if (record->size + out->size > record->capacity) {
        record->capacity = (record->size + out->size) * 2;
        record->data = realloc(record->data, record->capacity);
        CHECK(record->data != NULL);
    }
    buffer_copy_out(out, out->size, record->data + record->size);
    record->size += out->size;
    buffer_consume(out, out->size);
}

static struct relay *relay_down(struct exchange *exchange)
{
    return (struct relay *)(void *)exchange;
}

static struct relay *relay_up(struct exchange *exchange)
{
    return (struct relay *)(void *)((char *)exchange - offsetof(struct relay, upstream));
}

/* ---- upstream events ---- */

static void on_up_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct relay *relay = relay_up(exchange);
    relay->is_tunnel = head->status == 101;
    relay->is_answered = true;
    relay->responses_whole += is_end ? 1 : 0;
    must(exchange_send_head(&relay->downstream, head, is_end));
    exchange_grant(exchange, relay->is_streaming ? relay->grant_bytes : UINT32_MAX);
    if (relay->is_tunnel) {
        exchange_grant(&relay->downstream, UINT32_MAX);
    }
}

static void on_up_interim(struct exchange *exchange, struct message_head *head)
{
    struct relay *relay = relay_up(exchange);
    relay->interims++;
    must(exchange_send_interim(&relay->downstream, head));
}

static void send_response_body(struct relay *relay)
{
    if (relay->response_body.size > 0 && relay->downstream.codec != NULL) {
        must(exchange_send_data(&relay->downstream, &relay->response_body));
    }
}

static void on_up_data(struct exchange *exchange, struct buffer *data)
{
    struct relay *relay = relay_up(exchange);
    must(buffer_move(data, &relay->response_body, data->size));
    if (relay->is_streaming) {
        exchange_grant(exchange, relay->grant_bytes);
    }
    if (relay->is_tunnel || relay->is_streaming) {
        send_response_body(relay);
    }
}

static void on_up_trailers(struct exchange *exchange, struct message_head *trailers)
{
    struct relay *relay = relay_up(exchange);
    send_response_body(relay);
    must(exchange_send_trailers(&relay->downstream, trailers));
}

static void on_up_end(struct exchange *exchange)
{
    struct relay *relay = relay_up(exchange);
    send_response_body(relay);
    relay->responses_whole++;
    must(exchange_send_end(&relay->downstream));
}

static void on_up_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    struct relay *relay = relay_up(exchange);
    relay->has_reset = true;
    relay->has_begun = exchange->is_receive_begun;
    relay->reset_reason = reason;
    relay->reset_detail = error.detail;
    send_response_body(relay);
    if (relay->downstream.codec == NULL) {
        return;
    }
    if (relay->is_answered) {
        exchange_reset(&relay->downstream, EXCHANGE_RESET_CANCEL);
        return;
    }
    struct message_head head = {.status = 502, .body = MESSAGE_BODY_LENGTH};
    must(exchange_send_head(&relay->downstream, &head, true));
}

static void on_up_room(struct exchange *exchange)
{
    (void)exchange;
}

static void on_up_done(struct exchange *exchange)
{
    (void)exchange;
}

static const struct exchange_events upstream_events = {.on_head = on_up_head,
                                                       .on_interim = on_up_interim,
                                                       .on_data = on_up_data,
                                                       .on_trailers = on_up_trailers,
                                                       .on_end = on_up_end,
                                                       .on_reset = on_up_reset,
                                                       .on_room = on_up_room,
                                                       .on_done = on_up_done};

static void on_malformed(struct codec *codec, uint16_t status, const char *reason)
{
    (void)status;
    (void)reason;
    ((struct relay *)codec->owner)->malformed++;
}

static void on_output(struct codec *codec)
{
    (void)codec;
}

static void on_input_wanted(struct codec *codec)
{
    ((struct relay *)codec->owner)->is_input_wanted = true;
}

static void on_idle(struct codec *codec)
{
    (void)codec;
}

static const struct codec_events client_events = {.on_malformed = on_malformed,
                                                  .on_output = on_output,
                                                  .on_input_wanted = on_input_wanted,
                                                  .on_idle = on_idle};

/* ---- downstream events ---- */

static void on_down_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct relay *relay = relay_down(exchange);
    if (relay->client != NULL && !relay->client->is_reusable) {
        codec_destroy(relay->client);
        relay->client = NULL;
        buffer_clear(&relay->client_input);
    }
    if (relay->client == NULL) {
        static const struct http1_options options = {0};
        must(http1_create(CODEC_ROLE_CLIENT, &client_events, relay, block_source_heap(), &options,
                          &relay->client));
    }
    relay->upstream = (struct exchange){.events = &upstream_events, .arena = &relay->arena};
    must(exchange_open(relay->client, &relay->upstream));
    must(exchange_send_head(&relay->upstream, head, is_end));
    relay->is_request_whole = is_end || head->is_upgrade;
    relay->is_answered = false;
    relay->has_reset = false;
    relay->is_tunnel = false;
    if (!head->is_upgrade) {
        exchange_grant(exchange, relay->is_streaming ? relay->grant_bytes : UINT32_MAX);
    }
}

static void send_request_body(struct relay *relay)
{
    if (relay->request_body.size > 0 && relay->upstream.codec != NULL) {
        must(exchange_send_data(&relay->upstream, &relay->request_body));
    }
}

static void on_down_data(struct exchange *exchange, struct buffer *data)
{
    struct relay *relay = relay_down(exchange);
    must(buffer_move(data, &relay->request_body, data->size));
    if (relay->is_streaming) {
        exchange_grant(exchange, relay->grant_bytes);
    }
    if (relay->is_tunnel || relay->is_streaming) {
        send_request_body(relay);
    }
}

static void on_down_trailers(struct exchange *exchange, struct message_head *trailers)
{
    struct relay *relay = relay_down(exchange);
    send_request_body(relay);
    if (relay->upstream.codec != NULL) {
        must(exchange_send_trailers(&relay->upstream, trailers));
    }
}

static void on_down_end(struct exchange *exchange)
{
    struct relay *relay = relay_down(exchange);
    send_request_body(relay);
    if (relay->upstream.codec != NULL) {
        must(exchange_send_end(&relay->upstream));
        relay->is_request_whole = true;
    }
}

static void on_down_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    struct relay *relay = relay_down(exchange);
    (void)reason;
    (void)error;
    send_request_body(relay);
    exchange_reset(&relay->upstream, EXCHANGE_RESET_CANCEL);
}

static void on_down_done(struct exchange *exchange)
{
    CHECK(exchange->codec == NULL);
}

static const struct exchange_events downstream_events = {.on_head = on_down_head,
                                                         .on_data = on_down_data,
                                                         .on_trailers = on_down_trailers,
                                                         .on_end = on_down_end,
                                                         .on_reset = on_down_reset,
                                                         .on_room = on_up_room,
                                                         .on_done = on_down_done};

static struct exchange *on_exchange(struct codec *codec)
{
    struct relay *relay = codec->owner;
    arena_reset(&relay->arena);
    buffer_clear(&relay->request_body);
    buffer_clear(&relay->response_body);
    relay->is_request_whole = false;
    relay->downstream = (struct exchange){.events = &downstream_events, .arena = &relay->arena};
    return &relay->downstream;
}

static const struct codec_events server_events = {.on_exchange = on_exchange,
                                                  .on_malformed = on_malformed,
                                                  .on_output = on_output,
                                                  .on_input_wanted = on_input_wanted};

/* ---- the two connections ---- */

static void flush(struct relay *relay)
{
    record(&relay->to_client, &relay->server->out);
    codec_set_room(relay->server, UINT16_MAX);
    if (relay->client != NULL) {
        record(&relay->to_server, &relay->client->out);
        codec_set_room(relay->client, UINT16_MAX);
    }
}

/* Until nothing moves any more. */
static void run(struct relay *relay)
{
    bool goes_on = true;
    while (goes_on) {
        relay->is_input_wanted = false;
        must(codec_receive(relay->server, &relay->server_input));
        if (relay->client != NULL) {
            must(codec_receive(relay->client, &relay->client_input));
        }
        flush(relay);
        goes_on = relay->is_input_wanted;
        if (relay->is_request_whole) {
            relay->is_request_whole = false;
            relay->requests_whole++;
            if (relay->auto_answer != NULL) {
                must(buffer_append(&relay->client_input, block_source_heap(),
                                   bytes_from_string(relay->auto_answer)));
                goes_on = true;
            }
        }
    }
}

/* A block for each read, like the kernel's. */
static void append_read(struct buffer *input, const uint8_t *data, size_t size)
{
    struct buffer part = {0};
    must(buffer_append(&part, block_source_heap(), bytes_make(data, size)));
    must(buffer_move(&part, input, part.size));
    buffer_clear(&part);
}

void relay_init(struct relay *relay, const char *auto_answer)
{
    static const struct http1_options options = {0};
    *relay = (struct relay){.auto_answer = auto_answer};
    arena_init(&relay->arena, 16384, 1 << 20);
    must(http1_create(CODEC_ROLE_SERVER, &server_events, relay, block_source_heap(), &options,
                      &relay->server));
    codec_set_room(relay->server, UINT16_MAX);
}

void relay_cut(struct relay *relay)
{
    codec_destroy(relay->server);
    relay->server = NULL;
    if (relay->client != NULL) {
        record(&relay->to_server, &relay->client->out);
    }
}

void relay_finish(struct relay *relay)
{
    codec_destroy(relay->server);
    codec_destroy(relay->client);
    buffer_clear(&relay->server_input);
    buffer_clear(&relay->client_input);
    buffer_clear(&relay->request_body);
    buffer_clear(&relay->response_body);
    arena_finish(&relay->arena);
    free(relay->to_client.data);
    free(relay->to_server.data);
}

void relay_receive(struct relay *relay, const uint8_t *data, size_t size)
{
    append_read(&relay->server_input, data, size);
    run(relay);
}

void relay_receive_end(struct relay *relay, enum codec_end end)
{
    codec_receive_end(relay->server, end);
    run(relay);
}

void relay_respond(struct relay *relay, const uint8_t *data, size_t size)
{
    append_read(&relay->client_input, data, size);
    run(relay);
}

void relay_respond_end(struct relay *relay, enum codec_end end)
{
    codec_receive_end(relay->client, end);
    run(relay);
}

bool relay_is_near_bound(const uint8_t *data, size_t size)
{
    size_t lines = 0;
    for (size_t i = 0; i < size; i++) {
        lines += data[i] == '\n';
    }
    return lines > 30 || size > 8000;
}

void relay_expect_same(const struct relay_record *a, const struct relay_record *b)
{
    CHECK(a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0));
}

/* Test support: see weave.h. */
#include "proxy/weave.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

struct weave {
    struct codec codec; /* first */
    struct exchange *exchanges[256];
    struct buffer delivery;
    uint8_t next_id;
    uint8_t data_id; /* of the data frame that is being delivered */
    uint32_t data_left;
    bool has_ended;
    bool has_input;
    bool is_receiving;
    bool is_room_awaited;
};

static struct weave *weave_from(struct codec *codec)
{
    return (struct weave *)(void *)codec;
}

static uint8_t id_of(const struct weave *weave, const struct exchange *exchange)
{
    for (unsigned id = 0; id < 256; id++) {
        if (weave->exchanges[id] == exchange) {
            return (uint8_t)id;
        }
    }
    cr_assert(false, "an exchange of another connection");
    return 0;
}

static void forget(struct weave *weave, uint8_t id)
{
    struct exchange *exchange = weave->exchanges[id];
    exchange->codec = NULL;
    exchange->is_receive_over = true;
    exchange->is_send_over = true;
    weave->exchanges[id] = NULL;
    weave->codec.exchanges_open--;
    bool is_last = weave->codec.exchanges_open == 0;
    if (is_last && (weave->codec.is_draining || weave->has_ended)) {
        weave->codec.is_close_wanted = true;
        weave->codec.is_reusable = false;
    }
}

static void finish_if_over(struct weave *weave, uint8_t id)
{
    struct exchange *exchange = weave->exchanges[id];
    if (exchange != NULL && exchange->is_receive_over && exchange->is_send_over) {
        forget(weave, id);
        exchange->events->on_done(exchange);
    }
}

static void reset_one(struct weave *weave, uint8_t id, enum exchange_reset reason)
{
    struct exchange *exchange = weave->exchanges[id];
    if (exchange != NULL) {
        forget(weave, id);
        exchange->events->on_reset(exchange, reason, error_make(ERROR_RESET, 0));
    }
}

static void reset_all(struct weave *weave)
{
    for (unsigned id = 0; id < 256; id++) {
        reset_one(weave, (uint8_t)id, EXCHANGE_RESET_CONNECTION);
    }
}

static struct error write_frame(struct weave *weave, uint8_t id, char type, struct bytes payload)
{
    const uint8_t header[WEAVE_FRAME_BYTES] = {id, (uint8_t)type, (uint8_t)(payload.size >> 8),
                                               (uint8_t)payload.size};
    struct codec *codec = &weave->codec;
    TRY(buffer_append(&codec->out, codec->blocks, bytes_make(header, sizeof(header))));
    TRY(buffer_append(&codec->out, codec->blocks, payload));
    codec->events->on_output(codec);
    return OK;
}

/* ---- receiving ---- */

static struct message_head *make_head(const struct weave *weave, struct exchange *exchange,
                                      struct bytes payload)
{
    struct message_head *head = arena_alloc_zero(exchange->arena, 1, sizeof(*head));
    struct message_field *fields = arena_alloc_zero(exchange->arena, 16, sizeof(*fields));
    struct bytes text = arena_copy(exchange->arena, payload);
    if (head == NULL || fields == NULL || text.data == NULL) {
        return NULL;
    }
    head->version = MESSAGE_HTTP_2;
    head->fields = fields;
    head->fields_capacity = 16;
    head->body = MESSAGE_BODY_CHUNKED;
    if (weave->codec.role == CODEC_ROLE_SERVER) {
        head->is_request = true;
        head->method = bytes_split(&text, ' ');
        head->target = text;
        head->scheme = BYTES("http");
        head->authority = BYTES("weave");
    } else {
        uint64_t status = 0;
        cr_assert(!error_is(bytes_parse_decimal(text, 599, &status)));
        head->status = (uint16_t)status;
    }
    return head;
}

static void receive_head(struct weave *weave, uint8_t id, struct bytes payload)
{
    struct codec *codec = &weave->codec;
    struct exchange *exchange = weave->exchanges[id];
    if (codec->role == CODEC_ROLE_SERVER) {
        exchange = codec->events->on_exchange(codec);
        if (exchange == NULL) {
            error_ignore(write_frame(weave, id, 'R', (struct bytes){0})); /* a test's memory */
            return;
        }
        exchange->codec = codec;
        weave->exchanges[id] = exchange;
        codec->exchanges_open++;
    }
    if (exchange == NULL || exchange->is_receive_over) {
        return; /* it was reset meanwhile */
    }
    exchange->is_receive_begun = true;
    struct message_head *head = make_head(weave, exchange, payload);
    if (head == NULL) {
        error_ignore(write_frame(weave, id, 'R', (struct bytes){0}));
        reset_one(weave, id, EXCHANGE_RESET_INTERNAL);
        return;
    }
    exchange->events->on_head(exchange, head, false);
}

static void receive_end_frame(struct weave *weave, uint8_t id)
{
    struct exchange *exchange = weave->exchanges[id];
    if (exchange == NULL || exchange->is_receive_over) {
        return;
    }
    exchange->is_receive_over = true;
    if (weave->codec.role == CODEC_ROLE_CLIENT) {
        exchange->is_send_over = true;
    }
    exchange->events->on_end(exchange);
    finish_if_over(weave, id);
}

/* Some of a data frame; false: not now. */
static bool deliver(struct weave *weave, struct buffer *input)
{
    struct exchange *exchange = weave->exchanges[weave->data_id];
    uint64_t size = input->size < weave->data_left ? input->size : weave->data_left;
    if (exchange == NULL || exchange->is_receive_over) {
        buffer_consume(input, size);
        weave->data_left -= (uint32_t)size;
        return size > 0;
    }
    size = size < exchange->granted_bytes ? size : exchange->granted_bytes;
    if (size == 0) {
        return false;
    }
    cr_assert(!error_is(buffer_move(input, &weave->delivery, size)));
    weave->data_left -= (uint32_t)size;
    exchange->granted_bytes -= size;
    exchange->received_bytes += size;
    exchange->events->on_data(exchange, &weave->delivery);
    buffer_clear(&weave->delivery);
    return true;
}

/* One whole frame, or the beginning of a data frame; false: not now. */
static bool receive_frame(struct weave *weave, struct buffer *input)
{
    uint8_t header[WEAVE_FRAME_BYTES];
    if (input->size < sizeof(header)) {
        return false;
    }
    buffer_copy_out(input, sizeof(header), header);
    uint32_t size = (uint32_t)header[2] << 8 | header[3];
    if (header[1] == 'D') {
        buffer_consume(input, sizeof(header));
        weave->data_id = header[0];
        weave->data_left = size;
        return true;
    }
    uint8_t frame[256];
    cr_assert_lt(size, 200);
    if (input->size < sizeof(header) + size) {
        return false;
    }
    buffer_copy_out(input, sizeof(header) + size, frame);
    buffer_consume(input, sizeof(header) + size);
    switch (header[1]) {
    case 'H':
        receive_head(weave, header[0], bytes_make(frame + sizeof(header), size));
        break;
    case 'E':
        receive_end_frame(weave, header[0]);
        break;
    default:
        reset_one(weave, header[0], EXCHANGE_RESET_CANCEL);
        break;
    }
    return true;
}

static void apply_end(struct weave *weave)
{
    weave->codec.is_reusable = false;
    if (weave->codec.role == CODEC_ROLE_CLIENT) {
        reset_all(weave);
    } else {
        for (unsigned id = 0; id < 256; id++) {
            if (weave->exchanges[id] != NULL && !weave->exchanges[id]->is_receive_over) {
                reset_one(weave, (uint8_t)id, EXCHANGE_RESET_TRUNCATED);
            }
        }
    }
    if (weave->codec.exchanges_open == 0) {
        weave->codec.is_close_wanted = true;
    }
}

static struct error receive(struct codec *codec, struct buffer *input)
{
    struct weave *weave = weave_from(codec);
    weave->is_receiving = true;
    bool goes_on = true;
    while (goes_on && input->size > 0) {
        goes_on = weave->data_left > 0 ? deliver(weave, input) : receive_frame(weave, input);
    }
    weave->is_receiving = false;
    weave->has_input = input->size > 0;
    if (weave->has_ended && !weave->has_input) {
        apply_end(weave);
    }
    codec->is_idle_timeout_wanted = codec->role == CODEC_ROLE_SERVER && codec->exchanges_open == 0;
    return OK;
}

static void receive_end(struct codec *codec, enum codec_end end)
{
    struct weave *weave = weave_from(codec);
    weave->has_ended = true;
    codec->is_reusable = false;
    if (end != CODEC_END_CLEAN) {
        codec->is_abort_wanted = true;
        reset_all(weave);
    } else if (!weave->has_input) {
        apply_end(weave);
    }
}

/* ---- sending ---- */

static struct error open_exchange(struct codec *codec, struct exchange *exchange)
{
    struct weave *weave = weave_from(codec);
    if (!codec->is_reusable) {
        return error_make(ERROR_CLOSED, 0);
    }
    if (codec->exchanges_open >= WEAVE_EXCHANGES_MAX) {
        return error_make(ERROR_LIMIT, 0);
    }
    do {
        weave->next_id++;
    } while (weave->exchanges[weave->next_id] != NULL);
    weave->exchanges[weave->next_id] = exchange;
    exchange->codec = codec;
    codec->exchanges_open++;
    return OK;
}

static struct error send_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct weave *weave = weave_from(exchange->codec);
    char text[160];
    int size = head->is_request ? snprintf(text, sizeof(text), "%.*s %.*s", (int)head->method.size,
                                           (const char *)head->method.data, (int)head->target.size,
                                           (const char *)head->target.data)
                                : snprintf(text, sizeof(text), "%u", head->status);
    uint8_t id = id_of(weave, exchange);
    TRY(write_frame(weave, id, 'H', bytes_make(text, (size_t)size)));
    if (is_end) {
        exchange->is_send_over = true;
        return write_frame(weave, id, 'E', (struct bytes){0});
    }
    return OK;
}

static struct error send_interim(struct exchange *exchange, struct message_head *head)
{
    (void)exchange;
    (void)head;
    return OK;
}

static struct error send_data(struct exchange *exchange, struct buffer *data)
{
    struct weave *weave = weave_from(exchange->codec);
    uint8_t id = id_of(weave, exchange);
    exchange->sent_bytes += data->size;
    while (data->size > 0) {
        uint8_t piece[WEAVE_DATA_MAX];
        size_t size = data->size < sizeof(piece) ? data->size : sizeof(piece);
        buffer_copy_out(data, size, piece);
        buffer_consume(data, size);
        TRY(write_frame(weave, id, 'D', bytes_make(piece, size)));
    }
    return OK;
}

static struct error send_trailers(struct exchange *exchange, struct message_head *trailers)
{
    (void)exchange;
    (void)trailers;
    return OK;
}

static struct error send_end(struct exchange *exchange)
{
    struct weave *weave = weave_from(exchange->codec);
    CHECK(!exchange->is_send_over);
    exchange->is_send_over = true;
    if (weave->codec.role == CODEC_ROLE_SERVER) {
        exchange->is_receive_over = true; /* the rest of the request is not wanted */
    }
    return write_frame(weave, id_of(weave, exchange), 'E', (struct bytes){0});
}

static void reset(struct exchange *exchange, enum exchange_reset reason)
{
    (void)reason;
    struct weave *weave = weave_from(exchange->codec);
    uint8_t id = id_of(weave, exchange);
    forget(weave, id);
    error_ignore(write_frame(weave, id, 'R', (struct bytes){0})); /* a test's memory */
    if (weave->has_input && !weave->is_receiving) {
        weave->codec.events->on_input_wanted(&weave->codec);
    }
}

static void grant(struct exchange *exchange)
{
    struct weave *weave = weave_from(exchange->codec);
    if (weave->has_input && !weave->is_receiving) {
        weave->codec.events->on_input_wanted(&weave->codec);
    }
}

static uint64_t room(const struct exchange *exchange)
{
    struct weave *weave = weave_from(exchange->codec);
    uint64_t left = codec_room(&weave->codec);
    weave->is_room_awaited = weave->is_room_awaited || left == 0;
    return left;
}

static void on_flushed(struct codec *codec)
{
    struct weave *weave = weave_from(codec);
    bool has_room = codec_room(codec) > 0;
    bool tells = weave->is_room_awaited && has_room;
    weave->is_room_awaited = weave->is_room_awaited && !has_room;
    for (unsigned id = 0; id < 256; id++) {
        struct exchange *exchange = weave->exchanges[id];
        if (exchange != NULL && tells && !exchange->is_send_over) {
            exchange->events->on_room(exchange);
        }
        finish_if_over(weave, (uint8_t)id);
    }
}

static void drain(struct codec *codec)
{
    codec->is_draining = true;
    codec->is_reusable = false;
    codec->is_close_wanted = codec->is_close_wanted || codec->exchanges_open == 0;
}

static void expire(struct codec *codec)
{
    codec->is_close_wanted = true;
}

static void destroy(struct codec *codec)
{
    struct weave *weave = weave_from(codec);
    reset_all(weave);
    buffer_clear(&codec->out);
    buffer_clear(&weave->delivery);
    free(weave);
}

static const struct codec_ops weave_ops = {
    .protocol = CODEC_HTTP2,
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

FALLIBLE weave_create(enum codec_role role, const struct codec_events *events, void *owner,
                      struct block_source *blocks, struct codec **ret_codec)
{
    struct weave *weave = calloc(1, sizeof(*weave));
    if (weave == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    weave->codec = (struct codec){.ops = &weave_ops,
                                  .events = events,
                                  .owner = owner,
                                  .blocks = blocks,
                                  .role = role,
                                  .is_reusable = role == CODEC_ROLE_CLIENT};
    *ret_codec = &weave->codec;
    return OK;
}

/* Bytes both ways: one exchange without a head. */
#include "http/opaque.h"

#include <stdlib.h>

#include "base/check.h"

struct opaque {
    struct codec codec;        /* first: the codec is the opaque */
    struct exchange *exchange; /* borrowed; NULL before it began and once it is over */
    struct buffer delivery;    /* what on_data is given */
    enum codec_end end;
    bool has_begun;
    bool has_ended;       /* `end` is valid; it takes effect behind the last byte */
    bool has_input;       /* the last codec_receive left some */
    bool is_room_awaited; /* room was asked for and there was none */
    bool is_receiving;    /* within codec_receive: it looks at new grants by itself */
};

static struct opaque *opaque_of(const struct exchange *exchange)
{
    return (struct opaque *)(void *)exchange->codec;
}

static struct opaque *opaque_from(struct codec *codec)
{
    return (struct opaque *)(void *)codec;
}

/* Let go of the exchange. */
static void forget(struct opaque *opaque)
{
    struct exchange *exchange = opaque->exchange;
    exchange->codec = NULL;
    exchange->is_receive_over = true;
    exchange->is_send_over = true;
    opaque->exchange = NULL;
    opaque->codec.exchanges_open = 0;
}

static void begin(struct opaque *opaque, struct exchange *exchange)
{
    CHECK(exchange->events != NULL);
    opaque->exchange = exchange;
    opaque->has_begun = true;
    opaque->codec.exchanges_open = 1;
    opaque->codec.is_reusable = false;
    exchange->codec = &opaque->codec;
    exchange->is_tunnel = true;
}

static void finish_if_over(struct opaque *opaque)
{
    struct exchange *exchange = opaque->exchange;
    if (exchange == NULL || !exchange->is_receive_over || !exchange->is_send_over) {
        return;
    }
    forget(opaque);
    opaque->codec.is_close_wanted = true;
    exchange->events->on_done(exchange);
}

static void reset_by_peer(struct opaque *opaque, enum exchange_reset reason, struct error error)
{
    struct exchange *exchange = opaque->exchange;
    forget(opaque);
    opaque->codec.is_abort_wanted = true;
    exchange->events->on_reset(exchange, reason, error);
}

/* The end that came, now that no byte is before it. */
static void apply_end(struct opaque *opaque)
{
    struct exchange *exchange = opaque->exchange;
    if (exchange == NULL || exchange->is_receive_over) {
        return;
    }
    if (opaque->end == CODEC_END_CLEAN) {
        exchange->is_receive_over = true;
        exchange->events->on_end(exchange);
        finish_if_over(opaque);
        return;
    }
    reset_by_peer(opaque, EXCHANGE_RESET_TRUNCATED, error_make(ERROR_TRUNCATED, 0));
}

static struct error deliver(struct opaque *opaque, struct buffer *input)
{
    struct exchange *exchange = opaque->exchange;
    uint64_t size = input->size < exchange->granted_bytes ? input->size : exchange->granted_bytes;
    TRY(buffer_move(input, &opaque->delivery, size));
    exchange->granted_bytes -= size;
    exchange->received_bytes += size;
    exchange->is_receive_begun = true;
    exchange->events->on_data(exchange, &opaque->delivery);
    buffer_clear(&opaque->delivery);
    return OK;
}

static struct error receive(struct codec *codec, struct buffer *input)
{
    struct opaque *opaque = opaque_from(codec);
    if (codec->role == CODEC_ROLE_SERVER && !opaque->has_begun) {
        struct exchange *exchange = codec->events->on_exchange(codec);
        opaque->has_begun = true;
        if (exchange == NULL) {
            codec->is_abort_wanted = true;
        } else {
            begin(opaque, exchange);
        }
    }
    struct error error = OK;
    opaque->is_receiving = true;
    while (!error_is(error) && opaque->exchange != NULL && !opaque->exchange->is_receive_over &&
           input->size > 0 && opaque->exchange->granted_bytes > 0) {
        error = deliver(opaque, input);
    }
    opaque->is_receiving = false;
    if (opaque->has_begun && (opaque->exchange == NULL || opaque->exchange->is_receive_over)) {
        buffer_consume(input, input->size); /* nobody is there any more to take it */
    }
    opaque->has_input = input->size > 0;
    if (!error_is(error) && opaque->has_ended && !opaque->has_input) {
        apply_end(opaque);
    }
    finish_if_over(opaque);
    return error;
}

static void receive_end(struct codec *codec, enum codec_end end)
{
    struct opaque *opaque = opaque_from(codec);
    if (end == CODEC_END_RESET) {
        codec->is_abort_wanted = true;
        if (opaque->exchange != NULL) {
            reset_by_peer(opaque, EXCHANGE_RESET_CONNECTION, error_make(ERROR_RESET, 0));
        }
        return;
    }
    opaque->has_ended = true;
    opaque->end = end;
    if (!opaque->has_input) {
        apply_end(opaque);
    }
}

static struct error open_exchange(struct codec *codec, struct exchange *exchange)
{
    struct opaque *opaque = opaque_from(codec);
    if (opaque->has_begun || codec->role != CODEC_ROLE_CLIENT) {
        return error_make(ERROR_CLOSED, 0);
    }
    begin(opaque, exchange);
    return OK;
}

/* There are no heads here, nor trailers: a caller that sends one has mixed protocols up. */
static struct error send_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    (void)exchange;
    (void)head;
    (void)is_end;
    return error_make(ERROR_UNSUPPORTED, 0);
}

static struct error send_fields(struct exchange *exchange, struct message_head *head)
{
    return send_head(exchange, head, false);
}

static struct error send_data(struct exchange *exchange, struct buffer *data)
{
    struct opaque *opaque = opaque_of(exchange);
    CHECK(!exchange->is_send_over);
    size_t size = data->size;
    TRY(buffer_move(data, &opaque->codec.out, size));
    exchange->sent_bytes += size;
    opaque->codec.events->on_output(&opaque->codec);
    return OK;
}

static struct error send_end(struct exchange *exchange)
{
    struct opaque *opaque = opaque_of(exchange);
    CHECK(!exchange->is_send_over);
    exchange->is_send_over = true;
    opaque->codec.is_send_end_wanted = true;
    opaque->codec.events->on_output(&opaque->codec);
    return OK;
}

/* Whatever the reason: the peer must not take what it got for all that there was. */
static void reset(struct exchange *exchange, enum exchange_reset reason)
{
    (void)reason;
    struct opaque *opaque = opaque_of(exchange);
    forget(opaque);
    opaque->codec.is_abort_wanted = true;
    opaque->codec.events->on_output(&opaque->codec);
}

static void grant(struct exchange *exchange)
{
    struct opaque *opaque = opaque_of(exchange);
    if (opaque->has_input && !opaque->is_receiving) {
        opaque->codec.events->on_input_wanted(&opaque->codec);
    }
}

static uint64_t room(const struct exchange *exchange)
{
    struct opaque *opaque = opaque_of(exchange);
    uint64_t left = codec_room(&opaque->codec);
    if (left == 0) {
        opaque->is_room_awaited = true;
    }
    return left;
}

static void on_flushed(struct codec *codec)
{
    struct opaque *opaque = opaque_from(codec);
    struct exchange *exchange = opaque->exchange;
    if (exchange != NULL && !exchange->is_send_over && opaque->is_room_awaited &&
        codec_room(codec) > 0) {
        opaque->is_room_awaited = false;
        exchange->events->on_room(exchange);
    }
    finish_if_over(opaque);
}

/* An open connection goes on to its end; the deadline of the drain cuts it. One that never began
 * has nothing to finish. */
static void drain(struct codec *codec)
{
    codec->is_draining = true;
    codec->is_reusable = false;
    if (codec->exchanges_open == 0) {
        codec->is_close_wanted = true;
        codec->events->on_output(codec);
    }
}

static void expire(struct codec *codec)
{
    (void)codec; /* never asks for a timeout */
}

static void destroy(struct codec *codec)
{
    struct opaque *opaque = opaque_from(codec);
    struct exchange *exchange = opaque->exchange;
    if (exchange != NULL) {
        finish_if_over(opaque);
        if (opaque->exchange != NULL) {
            reset_by_peer(opaque, EXCHANGE_RESET_CONNECTION, error_make(ERROR_CLOSED, 0));
        }
    }
    buffer_clear(&codec->out);
    buffer_clear(&opaque->delivery);
    free(opaque);
}

static const struct codec_ops opaque_ops = {
    .protocol = CODEC_OPAQUE,
    .receive = receive,
    .receive_end = receive_end,
    .open = open_exchange,
    .send_head = send_head,
    .send_interim = send_fields,
    .send_data = send_data,
    .send_trailers = send_fields,
    .send_end = send_end,
    .reset = reset,
    .grant = grant,
    .room = room,
    .on_flushed = on_flushed,
    .drain = drain,
    .expire = expire,
    .destroy = destroy,
};

struct error opaque_create(enum codec_role role, const struct codec_events *events, void *owner,
                           struct block_source *blocks, struct codec **ret_codec)
{
    struct opaque *opaque = calloc(1, sizeof(*opaque));
    if (opaque == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    opaque->codec = (struct codec){.ops = &opaque_ops,
                                   .events = events,
                                   .owner = owner,
                                   .blocks = blocks,
                                   .role = role,
                                   .is_reusable = role == CODEC_ROLE_CLIENT};
    *ret_codec = &opaque->codec;
    return OK;
}

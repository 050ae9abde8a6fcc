/*
 * Codecs turn bytes into exchanges and exchanges into bytes. HTTP/1.1, HTTP/2 and opaque TCP, each
 * in both roles, all behind this interface; none owns a socket, a timer or a thread.
 *
 * An exchange is one request and its response, or (opaque) one connection: two directions, each
 * with a head, data, trailers and an end, each of which can be reset. Opaque has no heads. After a
 * 101 (and for opaque from the start) an exchange is a tunnel: data both ways until each way has
 * ended.
 *
 * One connection can carry several exchanges, one after the other (HTTP/1.1) or at once (HTTP/2).
 * `struct exchange` is embedded in the one who wants the events: a stream (server role) or an
 * attempt (client role).
 *
 * Back-pressure is one rule: a codec delivers no more data on an exchange than was granted by
 * exchange_grant; input that it may not deliver yet stays in the input buffer, and the transport
 * then stops reading. In the other direction exchange_room says how much the exchange takes now,
 * and on_room that it takes more.
 *
 * Calls never re-enter: an event may call any function here, also on the exchange that it came
 * from. Events of exchanges come only from within the connection's calls (codec_receive,
 * codec_receive_end, codec_set_room, codec_expire, codec_destroy), never from within those of the
 * exchange's owner; what an owner's call makes due is delivered by the next call of the connection,
 * which on_output or on_input_wanted asks for. Memory of an exchange is the owner's; after
 * `on_reset`, exchange_reset or `on_done` the codec holds no pointer to it. A codec is destroyed
 * only from outside its own calls.
 *
 * An upgrade request (head->is_upgrade) is not at its end with its head, although it has no body:
 * after a 101 the tunnel's bytes follow. Any other final response ends it without a word: the
 * server's codec marks is_receive_over when that response's head is sent, the client's codec marks
 * is_send_over before it calls on_head.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/error.h"
#include "http/message.h"

struct codec;
struct exchange;

enum codec_role {
    CODEC_ROLE_SERVER, /* towards a downstream: receives requests */
    CODEC_ROLE_CLIENT, /* towards an upstream: sends requests */
};

enum codec_protocol {
    CODEC_OPAQUE,
    CODEC_HTTP1,
    CODEC_HTTP2,
};

/* How the transport's receiving side ended. */
enum codec_end {
    CODEC_END_CLEAN,     /* FIN; with TLS: close_notify, then FIN */
    CODEC_END_TRUNCATED, /* TLS: FIN without close_notify */
    CODEC_END_RESET,     /* RST or a broken transport */
};

/* Why one side gives an exchange up. */
enum exchange_reset {
    EXCHANGE_RESET_CANCEL,     /* no longer wanted (downstream went away, timeout elsewhere) */
    EXCHANGE_RESET_REFUSED,    /* nothing was processed: may be tried again elsewhere */
    EXCHANGE_RESET_PROTOCOL,   /* the peer broke the protocol in this exchange */
    EXCHANGE_RESET_CONNECTION, /* the connection under it broke or was reset */
    EXCHANGE_RESET_TRUNCATED,  /* the message ended before its end */
    EXCHANGE_RESET_INTERNAL,   /* we cannot go on (memory, a bound) */
};

/* What an exchange tells its owner, in this order: heads, data, trailers, end; or a reset at any
 * point, which is last. on_interim and on_trailers may be NULL; opaque calls no head's event. */
struct exchange_events {
    /* Server: the request's head. Client: the final response's. `head` is in exchange->arena; the
     * owner may change it. `is_end`: no data and no trailers follow, and on_end is not called as
     * well. */
    void (*on_head)(struct exchange *exchange, struct message_head *head, bool is_end);
    /* Client only: 1xx but 101, at most LIMIT_INTERIM_RESPONSES of them. */
    void (*on_interim)(struct exchange *exchange, struct message_head *head);
    /* Data, at most what was granted. The owner takes it all, with buffer_move; what it leaves is
     * dropped. */
    void (*on_data)(struct exchange *exchange, struct buffer *data);
    /* Trailer fields, in the arena. on_end follows. */
    void (*on_trailers)(struct exchange *exchange, struct message_head *trailers);
    /* The receiving half is over, after data or trailers. */
    void (*on_end)(struct exchange *exchange);
    /* The receiving half is over without its end. `error` has the protocol's detail, for the log.
     * Nothing follows. */
    void (*on_reset)(struct exchange *exchange, enum exchange_reset reason, struct error error);
    /* exchange_room has grown from 0. */
    void (*on_room)(struct exchange *exchange);
    /* Both halves are over and what was sent is in `out`: the last event of an exchange that ended
     * well. */
    void (*on_done)(struct exchange *exchange);
};

struct exchange {
    struct codec *codec; /* borrowed; NULL once it is over */
    const struct exchange_events
        *events;             /* set by the owner before exchange_open, or in on_exchange */
    struct arena *arena;     /* borrowed from the owner, likewise: heads are copied into it */
    void *codec_data;        /* the codec's */
    uint64_t granted_bytes;  /* may still be delivered */
    uint64_t received_bytes; /* of data (not framing), for the log */
    uint64_t sent_bytes;
    bool is_receive_begun; /* client: some byte of an answer came, so the request was seen (F10) */
    bool is_receive_over;  /* end or reset was delivered, or nothing more is wanted */
    bool is_send_over;     /* exchange_end, a head with is_end, or a reset was sent */
    bool is_tunnel;
};

struct codec_events {
    /*
     * Server role: a message begins. Give the exchange that stands for it, with `events` and
     * `arena` set, all else zero; NULL refuses (the codec answers 503, or REFUSED_STREAM, by itself
     * and goes on).
     */
    struct exchange *(*on_exchange)(struct codec *codec);
    /*
     * The peer broke the protocol outside of any exchange that could say so, or in a request's
     * head. Server role of HTTP/1.1: the codec has written the answer already (`status`, 0: none)
     * and closes. For the log and the counters.
     */
    void (*on_malformed)(struct codec *codec, uint16_t status, const char *reason);
    /* `out`, or one of the wants, has changed outside of a call from the owner of the connection:
     * flush soon. */
    void (*on_output)(struct codec *codec);
    /* codec_receive would deliver more now (a grant came, or an exchange ended and the next request
     * waits): call it. */
    void (*on_input_wanted)(struct codec *codec);
    /* Client role: an exchange ended and another could be opened; or the codec is done
     * (codec->is_reusable false). */
    void (*on_idle)(struct codec *codec);
};

/* The base of every codec; its own struct begins with it. */
struct codec {
    const struct codec_ops *ops;
    const struct codec_events *events;
    void *owner;                 /* borrowed: the connection */
    struct block_source *blocks; /* borrowed: where outgoing bytes are written */
    enum codec_role role;
    struct buffer out;       /* wire bytes for the transport, which takes them with buffer_move */
    uint64_t transport_room; /* bytes that the transport would take before it is full; kept by the
                                connection */
    uint32_t exchanges_open;
    bool is_send_end_wanted;     /* FIN (close_notify) after `out` */
    bool is_close_wanted;        /* close after `out`: lingering, so that the peer reads the answer
                                    (reliability 2) */
    bool is_abort_wanted;        /* RST, now */
    bool is_draining;            /* says that it will close: no new exchanges */
    bool is_reusable;            /* client: another exchange may be opened when none is */
    bool is_idle_timeout_wanted; /* server: between exchanges, or waiting for a head */
    bool is_head_timeout_wanted; /* server: part of a head has come (reliability A19) */
};

/* Bytes that the transport takes behind what is in `out`. */
static inline uint64_t codec_room(const struct codec *codec)
{
    uint64_t used = codec->out.size;
    return used < codec->transport_room ? codec->transport_room - used : 0;
}

/* What stands behind the calls below, which say what each does. */
struct codec_ops {
    enum codec_protocol protocol;
    FALLIBLE (*receive)(struct codec *codec, struct buffer *input);
    void (*receive_end)(struct codec *codec, enum codec_end end);
    FALLIBLE (*open)(struct codec *codec, struct exchange *exchange);
    FALLIBLE (*send_head)(struct exchange *exchange, struct message_head *head, bool is_end);
    FALLIBLE (*send_interim)(struct exchange *exchange, struct message_head *head);
    FALLIBLE (*send_data)(struct exchange *exchange, struct buffer *data);
    FALLIBLE (*send_trailers)(struct exchange *exchange, struct message_head *trailers);
    FALLIBLE (*send_end)(struct exchange *exchange);
    void (*reset)(struct exchange *exchange, enum exchange_reset reason);
    void (*grant)(struct exchange *exchange);
    uint64_t (*room)(const struct exchange *exchange);
    void (*on_flushed)(struct codec *codec);
    void (*drain)(struct codec *codec);
    void (*expire)(struct codec *codec);
    void (*destroy)(struct codec *codec);
};

/* ---- the connection's side ---- */

/*
 * Work on received bytes: consume what can be, deliver events. What stays in `input` is wanted
 * later (no grant, or an earlier exchange is not over). Call it once when the codec is made, also
 * with nothing: an opaque server's exchange begins then, because its peer may be waiting to be
 * spoken to. Errors: the connection cannot go on; out and the wants are still honoured first.
 */
static inline MUST_USE struct error codec_receive(struct codec *codec, struct buffer *input)
{
    return codec->ops->receive(codec, input);
}

/*
 * The receiving side ended. What codec_receive had left in `input` is still to be given to it: a
 * clean or truncated end takes effect behind the last byte, a reset at once. Events follow.
 */
static inline void codec_receive_end(struct codec *codec, enum codec_end end)
{
    codec->ops->receive_end(codec, end);
}

/*
 * `out` was given to the transport, or the transport has more room: `room` is what it takes now.
 * Call it after every flush. on_room and on_done follow.
 */
static inline void codec_set_room(struct codec *codec, uint64_t room)
{
    codec->transport_room = room;
    codec->ops->on_flushed(codec);
}

/* Finish what is open, then close: `Connection: close` on the next response, GOAWAY in two steps;
 * idle: close now. */
static inline void codec_drain(struct codec *codec)
{
    codec->ops->drain(codec);
}

/* The time is up that is_head_timeout_wanted or is_idle_timeout_wanted asked for: HTTP/1.1 answers
 * 408 when part of a head has come, HTTP/2 says GOAWAY; both then want to be closed. */
static inline void codec_expire(struct codec *codec)
{
    codec->ops->expire(codec);
}

/* Resets what is open (EXCHANGE_RESET_CONNECTION) and frees the codec. Accepts NULL. */
static inline void codec_destroy(struct codec *codec)
{
    if (codec != NULL) {
        codec->ops->destroy(codec);
    }
}

/* ---- the exchange's side ---- */

/* Client role: begin an exchange; events and arena are set. Errors: ERROR_LIMIT (not now),
 * ERROR_CLOSED. */
static inline MUST_USE struct error exchange_open(struct codec *codec, struct exchange *exchange)
{
    return codec->ops->open(codec, exchange);
}

/*
 * Send the head. The codec writes its own framing and connection fields (Connection,
 * Transfer-Encoding, TE, Upgrade, Content-Length from head->body and content_length); dropped
 * fields are left out. Values are validated once more (reliability B1, F9). A head may be sent
 * once; interim ones before it. Errors: ERROR_PROTOCOL (a value that may not be sent),
 * ERROR_NO_MEMORY.
 */
static inline MUST_USE struct error exchange_send_head(struct exchange *exchange,
                                                       struct message_head *head, bool is_end)
{
    return exchange->codec->ops->send_head(exchange, head, is_end);
}

/* Server role: send a 1xx but 101, before the head. One that the peer must not get (it speaks 1.0,
 * or had its 100 already) is left out. Errors: ERROR_PROTOCOL (not such a status, or too late),
 * ERROR_NO_MEMORY. */
static inline MUST_USE struct error exchange_send_interim(struct exchange *exchange,
                                                          struct message_head *head)
{
    return exchange->codec->ops->send_interim(exchange, head);
}

/* Send all of `data`, which is empty afterwards; at most exchange_room should be sent. Errors:
 * ERROR_NO_MEMORY, ERROR_PROTOCOL (beyond content_length). */
static inline MUST_USE struct error exchange_send_data(struct exchange *exchange,
                                                       struct buffer *data)
{
    return exchange->codec->ops->send_data(exchange, data);
}

/* Send trailer fields, after the data; exchange_send_end is still to be called. Left out where the
 * framing has no place for them (RFC 9110 6.5.1). Errors: ERROR_CLOSED (sent already),
 * ERROR_PROTOCOL (a value that may not be sent), ERROR_NO_MEMORY. */
static inline MUST_USE struct error exchange_send_trailers(struct exchange *exchange,
                                                           struct message_head *trailers)
{
    return exchange->codec->ops->send_trailers(exchange, trailers);
}

/* The message (or this way of the tunnel) is complete. Errors: ERROR_PROTOCOL (content_length not
 * reached): then reset. */
static inline MUST_USE struct error exchange_send_end(struct exchange *exchange)
{
    return exchange->codec->ops->send_end(exchange);
}

/* Give the exchange up, both ways. No event follows; the codec forgets it. Harmless on one that is
 * over. */
static inline void exchange_reset(struct exchange *exchange, enum exchange_reset reason)
{
    if (exchange->codec != NULL) {
        exchange->codec->ops->reset(exchange, reason);
    }
}

/* Allow `bytes` more of data to be delivered. */
static inline void exchange_grant(struct exchange *exchange, uint64_t bytes)
{
    exchange->granted_bytes += bytes;
    if (exchange->codec != NULL && bytes > 0) {
        exchange->codec->ops->grant(exchange);
    }
}

/* Bytes of data that the exchange takes now; 0: wait for on_room. */
static inline uint64_t exchange_room(const struct exchange *exchange)
{
    return exchange->codec == NULL ? 0 : exchange->codec->ops->room(exchange);
}

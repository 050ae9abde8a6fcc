/*
 * What the files of the HTTP/1.1 codec share: one connection's state, and the calls by which they
 * meet. Private to http1*.c; everybody else sees http/http1.h.
 *
 * Two machines stand beside each other. Receiving (http1_receive.c, and http1_head.c for heads and
 * trailers) alone consumes input and counts `receive_left`; sending (http1_send.c) alone writes the
 * owner's messages to `out` and counts `send_left`. One sets the other's state only where the
 * protocol ties them: a 101 opens the tunnel both ways, and a final answer ends a request that is
 * not at its end. An exchange is over when both have come to their end (RFC 9112 9.3).
 *
 * Events may call the codec again: after one, `exchange` is looked at anew.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/error.h"
#include "http/codec.h"
#include "http/http1_parse.h"

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
    bool has_json_errors;

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

/* The codec of an open exchange. */
static inline struct http1 *http1_of(const struct exchange *exchange)
{
    return (struct http1 *)(void *)exchange->codec;
}

/* The codec behind the interface. */
static inline struct http1 *http1_from(struct codec *codec)
{
    return (struct http1 *)(void *)codec;
}

/* Does it receive requests? */
static inline bool http1_is_server(const struct http1 *http1)
{
    return http1->codec.role == CODEC_ROLE_SERVER;
}

/* Have both halves of the open exchange come to their end? */
static inline bool http1_is_over(const struct http1 *http1)
{
    return http1->exchange != NULL && http1->exchange->is_receive_over &&
           http1->exchange->is_send_over;
}

/* ---- http1.c: beginning and end of exchanges and of the connection ---- */

/* The fault as the error that on_reset carries. */
struct error http1_fault_error(enum http1_fault fault);

/* Open `exchange`, whose events and arena are set; borrowed until it is forgotten. */
void http1_begin(struct http1 *http1, struct exchange *exchange);

/* Let go of the exchange, which is returned, without an event; the connection is left as it is. */
struct exchange *http1_forget(struct http1 *http1);

/* Nothing more is read; what is in `out` still goes. */
void http1_close(struct http1 *http1);

/* Nothing more is read or sent: the peer gets a reset. */
void http1_abort(struct http1 *http1);

/* Client: say that another exchange could be opened, or that none ever can. */
void http1_tell_idle(struct http1 *http1);

/* The exchange is over without its end, by the peer's doing or the connection's: on_reset. */
void http1_fail_exchange(struct http1 *http1, enum exchange_reset reason, struct error error);

/* Say anew which timeouts are wanted; after every call that received or ended something. */
void http1_update_timeouts(struct http1 *http1);

/* Both halves are over: the connection goes on to the next exchange or closes. No event; returns
 * the exchange. */
struct exchange *http1_conclude(struct http1 *http1);

/* Conclude the exchange if both halves are over, and say so: on_done. Returns whether it was. */
bool http1_finish_if_over(struct http1 *http1);

/* The receiving half came to its end. No event: on_head says it by itself. */
void http1_complete_receive(struct http1 *http1);

/* The receiving half came to its end behind data or trailers: on_end. */
void http1_end_receive(struct http1 *http1);

/* Write an answer of the codec's own, without content. `details` of proxy-status (RFC 9209); NULL:
 * nothing went wrong. Without memory it is left out. */
void http1_answer(struct http1 *http1, uint16_t status, const char *details, bool is_close);

/* The peer broke the protocol: a client is told why, and the connection closes or is reset.
 * on_malformed or on_reset. */
void http1_refuse(struct http1 *http1, enum http1_fault fault);

/* ---- http1_head.c: heads and trailers ---- */

/* Take a head from the front of the input, which is not empty, and deliver it, or refuse it; one
 * that is not whole stays. Errors: ERROR_NO_MEMORY. */
FALLIBLE http1_receive_head(struct http1 *http1, struct buffer *input);

/* The same for trailers; the end of the message follows them. Errors: ERROR_NO_MEMORY. */
FALLIBLE http1_receive_trailers(struct http1 *http1, struct buffer *input);

/* ---- http1_receive.c: content and the end of the peer's bytes ---- */

/* As codec_receive and codec_receive_end say. */
FALLIBLE http1_receive(struct codec *codec, struct buffer *input);
void http1_receive_end(struct codec *codec, enum codec_end end);

/* The end of the peer's bytes takes effect, once no byte that can still be used stands before it.
 */
void http1_apply_end(struct http1 *http1);

/* ---- http1_send.c: the exchange's calls ---- */

/* As the calls of http/codec.h with these names say. */
FALLIBLE http1_open(struct codec *codec, struct exchange *exchange);
FALLIBLE http1_send_head(struct exchange *exchange, struct message_head *head, bool is_end);
FALLIBLE http1_send_interim(struct exchange *exchange, struct message_head *head);
FALLIBLE http1_send_data(struct exchange *exchange, struct buffer *data);
FALLIBLE http1_send_trailers(struct exchange *exchange, struct message_head *trailers);
FALLIBLE http1_send_end(struct exchange *exchange);
void http1_reset(struct exchange *exchange, enum exchange_reset reason);
void http1_grant(struct exchange *exchange);
uint64_t http1_room(const struct exchange *exchange);

/* Give back the block of the chunks' lines, if there is one. */
void http1_drop_framing(struct http1 *http1);

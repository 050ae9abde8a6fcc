/*
 * A byte pipe over one socket, plain or through a filter (the TLS engine). Reports the end of the
 * peer's bytes as what it was: clean, truncated or reset. Knows nothing of what the bytes mean.
 *
 * Thread: the worker's. Embedded in a downstream or upstream connection, which is its owner.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "http/codec.h"
#include "iouring/io.h"

struct transport;
struct transport_filter;

enum transport_filter_state {
    TRANSPORT_FILTER_HANDSHAKE,
    TRANSPORT_FILTER_OPEN,
    TRANSPORT_FILTER_ENDED, /* the peer said properly that it is done (close_notify) */
};

/*
 * A transformation of bytes with its own handshake, which may expand and shrink. Owns no socket.
 * Its struct begins with `struct transport_filter`.
 */
struct transport_filter_ops {
    /* Take all of `wire`; append what became of it to `plain`, and answers to `reply`. Errors end
     * the transport. */
    FALLIBLE(*receive)
    (struct transport_filter *filter, struct buffer *wire, struct buffer *plain,
     struct buffer *reply);
    /* Turn all of `plain` into wire bytes; only while OPEN. */
    FALLIBLE (*send)(struct transport_filter *filter, struct buffer *plain, struct buffer *wire);
    /* Begin the handshake (client role speaks first) or say that we are done (close_notify). */
    FALLIBLE (*begin)(struct transport_filter *filter, struct buffer *wire);
    FALLIBLE (*end)(struct transport_filter *filter, struct buffer *wire);
    void (*destroy)(struct transport_filter *filter);
};

struct transport_filter {
    const struct transport_filter_ops *ops;
    enum transport_filter_state state;
    struct buffer plain;   /* the transport's: out of the filter and not yet taken */
    struct buffer pending; /* the transport's: to be sent once the handshake is done */
};

struct transport_events {
    void (*on_open)(struct transport *transport);     /* connected, and the handshake is done */
    void (*on_received)(struct transport *transport); /* transport_received has grown */
    void (*on_end)(struct transport *transport, enum codec_end end); /* after the last byte */
    void (*on_room)(struct transport *transport);                    /* transport_room has grown */
    void (*on_failed)(struct transport *transport,
                      struct error error);          /* connect, handshake or later; close it */
    void (*on_closed)(struct transport *transport); /* last: memory may be reused */
};

struct transport {
    struct io_socket socket;
    const struct transport_events *events;
    struct transport_filter *filter; /* owned; NULL: plain */
    struct io_timer linger;
    uint32_t receive_window_bytes; /* at most this much unconsumed input is held */
    uint32_t send_high_bytes;      /* transport_room is 0 from here on */
    uint32_t linger_bytes;         /* may still be drained before a lingering close gives up */
    uint8_t linger_ticks;
    bool is_connected;
    bool is_open;
    bool is_full; /* transport_room was 0 and has not been given again */
    bool is_closing;
    bool is_lingering;
    bool is_end_delivered;
    bool is_send_end_wanted; /* once the handshake is done */
};

struct transport_options {
    uint32_t receive_window_bytes; /* 64 KiB */
    uint32_t send_high_bytes;      /* 64 KiB; room is given again below half of it */
    bool is_tail_wanted; /* io_want_tail; a reset behind bytes not consumed is a truncated end */
};

/* Take an accepted descriptor over; it is open at once, without on_open. Errors: as
 * io_socket_adopt; the descriptor is closed then. */
FALLIBLE transport_adopt(struct transport *transport, struct io *io, int fd,
                         const struct transport_options *options,
                         const struct transport_events *events);

/* Start connecting. on_open or on_failed follows. Errors: as io_socket_connect. */
FALLIBLE transport_connect(struct transport *transport, struct io *io, const struct address *remote,
                           const struct address *local, const struct transport_options *options,
                           const struct transport_events *events);

/* Put `filter` (owned from here on, also on failure) between; before the first byte, or with bytes
 * already received, which go through it at once: events may come from within this call. on_open
 * follows when its handshake is done. Errors: of the filter, before anything was received. */
FALLIBLE transport_set_filter(struct transport *transport, struct transport_filter *filter);

/* What was received and not consumed; consume from it. Reading goes on as it shrinks: call
 * transport_resume after that. */
struct buffer *transport_received(struct transport *transport);

/* Bytes in transport_received. */
size_t transport_received_size(const struct transport *transport);

/* Top the credit up to the window less what is unconsumed. Cheap; call it after consuming. */
void transport_resume(struct transport *transport);

/* Send all of `bytes`. Errors: ERROR_NO_MEMORY, of the filter. */
FALLIBLE transport_send(struct transport *transport, struct buffer *bytes);

/* How much transport_send takes before it is full; 0: wait for on_room. */
uint64_t transport_room(struct transport *transport);

/* Half-close: close_notify and FIN behind what is queued. */
void transport_send_end(struct transport *transport);

/*
 * Close so that the peer reads everything queued: send end, then drain what still arrives (at most
 * 64 KiB or 1 s), then close (reliability.md 2, 400c). on_closed follows, nothing else.
 */
void transport_close_lingering(struct transport *transport);

/* Close now; what is queued is lost. on_closed follows. */
void transport_close(struct transport *transport);

/* Close now with RST. on_closed follows. */
void transport_abort(struct transport *transport);

/* Both transports plain, open and empty: let the kernel side move bytes `from` -> `to`
 * (io_pump_start). */
bool transport_can_pump(struct transport *from, struct transport *to);
FALLIBLE transport_pump(struct transport *from, struct transport *to);

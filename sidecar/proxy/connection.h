/*
 * A transport with a codec on it: what downstream and upstream connections have in common. Received
 * bytes go to the codec; what the codec wants (bytes out, half-close, close, reset, input once
 * more) is done at the end of the turn, once for each connection, so that a turn's output leaves in
 * one send.
 */
#pragma once

#include <stdbool.h>

#include "base/list.h"
#include "http/codec.h"
#include "iouring/io.h"
#include "proxy/transport.h"

/* The connections of one worker that have something to do at the end of the turn. */
struct flusher {
    struct io *io; /* borrowed */
    struct list dirty;
    struct io_task task;
};

/* How a connection is to be closed, the most drastic last. */
enum connection_close {
    CONNECTION_CLOSE_NONE,
    CONNECTION_CLOSE_FLUSHED,   /* what was written goes out first */
    CONNECTION_CLOSE_LINGERING, /* and the peer gets time to read it, whatever it still sends */
    CONNECTION_CLOSE_ABORT,     /* RST, now */
};

struct connection {
    struct transport transport;
    struct flusher *flusher; /* borrowed */
    struct codec *codec;     /* owned; NULL: none yet, or bytes pass without one */
    struct list dirty;
    enum connection_close close_wanted;
    bool is_receiving; /* the codec is at work on the transport's input, which must not go away */
    bool is_input_wanted;
    bool is_end_sent;
    bool is_broken; /* the codec cannot go on: nothing more is given to it */
};

/* Begin with nobody dirty. */
void flusher_init(struct flusher *flusher, struct io *io);

/* No connection may be dirty any more, or none of them be used again. */
void flusher_finish(struct flusher *flusher);

/* Prepare all but the transport. */
void connection_init(struct connection *connection, struct flusher *flusher);

/* Put `codec` (owned from here on) on the connection and give it what was received, also nothing.
 */
void connection_set_codec(struct connection *connection, struct codec *codec);

/* The transport has received more, or has more room: tell the codec. */
void connection_on_received(struct connection *connection);
void connection_on_room(struct connection *connection);

/* The peer's end, or (CODEC_END_RESET) the end of all. */
void connection_on_end(struct connection *connection, enum codec_end end);

/* Do at the end of the turn what the codec wants. */
void connection_mark(struct connection *connection);

/* Work on input once more at the end of the turn. */
void connection_want_input(struct connection *connection);

/* Close; from within the codec's own work on input: as soon as that is over. */
void connection_close(struct connection *connection, enum connection_close how);

/* Is it closed or to be closed? */
bool connection_is_closing(const struct connection *connection);

/* The transport is closed: free the codec, which ends what is open on it. */
void connection_finish(struct connection *connection);

/* For codec_events: the codec's owner is the connection. */
void connection_on_output(struct codec *codec);
void connection_on_input_wanted(struct codec *codec);

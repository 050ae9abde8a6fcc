/*
 * An accepted connection: where it was meant to go, which protocol it speaks, and the codec that
 * makes streams of it. It holds no snapshot: its destination is looked up again for the first
 * request after each change of configuration.
 *
 * Thread: the worker's. From the worker's slab.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/stats.h"
#include "iouring/address.h"
#include "proxy/connection.h"
#include "proxy/target.h"

struct stream;
struct worker;
struct worker_listener;

enum downstream_state {
    DOWNSTREAM_STATE_DETECT, /* the first bytes decide */
    DOWNSTREAM_STATE_CODEC,  /* HTTP: exchanges come from the codec */
    DOWNSTREAM_STATE_OPAQUE, /* one stream, which began with the connection */
    DOWNSTREAM_STATE_CLOSING,
};

struct downstream {
    struct connection connection;         /* first */
    struct worker *worker;                /* borrowed */
    const struct worker_listener *source; /* borrowed, for ever: that it came by */
    struct list open;
    struct list streams;
    struct io_timer timer; /* one for all: what it means depends on the state */
    struct target target;
    struct destination destination; /* original; family 0 for --listen */
    uint64_t number;
    uint64_t accepted_ns;
    uint64_t active_ns;   /* something happened last */
    uint64_t timed_bytes; /* opaque: seen by the timer; HTTP: when the head began, ns */
    enum downstream_state state;
    uint8_t direction;  /* enum stats_direction */
    uint8_t protocol;   /* enum stats_protocol */
    bool is_ended;      /* the peer's FIN came before there was a codec for it */
    bool is_head_timed; /* the timer is set for the head that has begun */
    bool is_quiet;      /* detection gave up without a byte: the server may be about to speak */
    bool is_detecting;  /* counted as an open exchange, which it is about to be */
};

/* Take an accepted descriptor over: refuse it, or begin. */
void downstream_accept(struct worker *worker, const struct worker_listener *source, int fd);

/* What its destination is now. Borrowed until the configuration changes. */
const struct target *downstream_target(struct downstream *downstream);

/* The original destination; family 0 when there is none. */
struct address downstream_destination(const struct downstream *downstream);

/* Finish what is open, then close; idle: now. */
void downstream_drain(struct downstream *downstream);

/* Close now; exchanges end as they do when the peer resets. */
void downstream_abort(struct downstream *downstream);

/* Put the opaque codec on an opaque connection whose bytes must pass through it; its stream's
 * exchange is the one. Errors: ERROR_NO_MEMORY. */
FALLIBLE downstream_start_opaque_codec(struct downstream *downstream);

/* Remember that the server of this destination speaks first. */
void downstream_note_server_first(struct downstream *downstream);

/* The one stream of an opaque connection is over, and has closed or will close the transport. */
void downstream_on_opaque_over(struct downstream *downstream);

/*
 * What the files of a stream share. Private to stream*.c; everybody else sees proxy/stream.h.
 *
 * A step looks at the stream's state, does its part, and sets the next state; whatever fails goes
 * to REPLY by stream_fail. stream.c has the table and the last steps, stream_route.c the decisions,
 * stream_attempt.c the way to an endpoint, stream_relay.c the exchange itself.
 */
#pragma once

#include <stdbool.h>

#include "proxy/stream.h"

enum step {
    STEP_NEXT, /* the state has changed: go on */
    STEP_WAIT, /* an event goes on */
    STEP_DONE,
};

/* ---- stream.c ---- */

/* Go through the steps until one waits. */
void stream_run(struct stream *stream);

/* Give up for `cause`: answer when that is still possible, else cut the downstream off. The caller
 * runs the stream. */
void stream_fail(struct stream *stream, enum cause cause);

/* Whichever side ended: finish when both have. */
void stream_check_over(struct stream *stream);

/* As stream_fail, for a step to return. */
enum step stream_fail_step(struct stream *stream, enum cause cause);

/* Have the stream fail at the nearer of its deadlines, if it has any. */
void stream_start_timer(struct stream *stream);

/* ---- stream_route.c: steps ---- */

/* One each for AUTHORIZE, ROUTE and FILTER. */
enum step stream_authorize(struct stream *stream);
enum step stream_route(struct stream *stream);
enum step stream_filter(struct stream *stream);

/* ---- stream_attempt.c: steps, and the ends of attempts ---- */

/* One each for PICK and CONNECT. */
enum step stream_pick(struct stream *stream);
enum step stream_connect(struct stream *stream);

/* The attempt has ended well: its connection may be used again. */
void stream_finish_attempt(struct stream *stream);

/* The attempt is given up: nothing more is wanted of its connection. */
void stream_cancel_attempt(struct stream *stream);

/* A pooled connection had died before it saw the request: may the request be sent once more? */
bool stream_can_retry(const struct stream *stream, enum exchange_reset reason);

/* ---- stream_relay.c ---- */

/* Events of the downstream's exchange. */
const struct exchange_events *stream_down_events(void);

/* Open the exchange upstream, send the head, let the rest follow. On failure stream_fail was
 * called. */
void stream_relay_start(struct stream *stream);

/* The same for bytes. */
void stream_relay_bytes(struct stream *stream);

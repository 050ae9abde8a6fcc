/*
 * Want of descriptors: idle pooled connections are given up first, oldest first, one for each that
 * is wanted, before a request is refused or a client waits. Closing takes the kernel a moment, so
 * what wants a descriptor waits here and is tried again.
 *
 * Descriptors are the process's: the other workers are asked, too, one after the other.
 *
 * Thread: the worker's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "iouring/io.h"

struct stream;
struct worker;

/* Travels to another worker and back. */
struct plea {
    struct io_message message;
    struct shortage *from; /* borrowed */
    struct shortage *to;   /* borrowed */
    bool is_on_the_way;
};

struct shortage {
    struct worker *worker; /* borrowed */
    struct list waiting;   /* streams, the first comer first */
    struct io_task retry;
    struct io_timer timer;
    struct plea plea;
    uint32_t other;          /* who was asked last */
    uint64_t turn;           /* the turn in which `given_up_count` were */
    uint32_t given_up_count; /* bounded a turn */
    uint32_t waiting_count;
    uint32_t leaving_count; /* given up and not yet closed */
};

/* Nobody waits; at the end, too. */
void shortage_init(struct shortage *shortage, struct worker *worker);
void shortage_finish(struct shortage *shortage);

/* Did a connect fail for want of a descriptor? */
bool shortage_is(struct error error);

/* `stream` could not connect for want of a descriptor. True: attempt_on_descriptor follows soon,
 * unless shortage_leave comes first; false: none is to be had. */
bool shortage_wait(struct shortage *shortage, struct stream *stream);

/* `stream` waits no more, if it did. */
void shortage_leave(struct shortage *shortage, struct stream *stream);

/* A client waits for a descriptor: make room for it. */
void shortage_on_accept_starved(struct shortage *shortage);

/* A connection that was given up is closed. */
void shortage_on_closed(struct shortage *shortage);

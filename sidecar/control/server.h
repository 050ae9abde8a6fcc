/*
 * The small HTTP/1.1 server behind the health port and the admin socket, on the control thread. It
 * uses the same transport and codec as the data path; what it adds is a handler that may answer
 * later.
 *
 * Bounds (reliability.md I): connections_max at once, the oldest that waits for its client making
 * room for the next, so that silent clients keep no probe out; 5 s for a request and for a reader
 * that does not read, and for the handler; request bodies are read and dropped; one answer at a
 * time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "http/message.h"
#include "iouring/io.h"

struct server;
struct server_call;

struct server_options {
    int fd; /* listening; taken over */
    uint32_t connections_max;
    const char *date; /* as of http1_options */
    /* Is this peer allowed? NULL: everybody. Unix sockets look at SO_PEERCRED. */
    bool (*is_allowed)(int fd);
    /* A request. Answer with server_reply, now or later, exactly once. */
    void (*handle)(struct server_call *call, const struct message_head *head, void *owner);
    void *owner; /* borrowed */
};

/* Errors: ERROR_NO_MEMORY; the descriptor is closed then. */
FALLIBLE server_open(struct io *io, const struct server_options *options,
                     struct server **ret_server);

/* Stop accepting and close every connection. The server is freed when the kernel is done: keep
 * turning until io is idle. Calls that were not answered yet must still be answered. */
void server_close(struct server *server);

/*
 * Answer `call` with `text` (malloc'd, `size` bytes, taken over; NULL: a 500). `type` is static.
 * The call is gone then, whether or not its client still listens.
 */
void server_reply(struct server_call *call, uint16_t status, const char *type, char *text,
                  size_t size);

/* Let the handler take `seconds` from now, instead of 5, before its client is told that it is stuck
 * (503; what the handler answers then is dropped). */
void server_wait_longer(struct server_call *call, uint32_t seconds);

/* The same with an `Allow` field, for 405. */
void server_reply_not_allowed(struct server_call *call, const char *allow);

/*
 * Accepting sockets: inbound, outbound, --listen. Worker 0 accepts; a connection goes to the worker
 * with the fewest open ones, as a few long connections would land unevenly by chance. With one
 * worker nothing is handed over.
 */
#pragma once

#include <stdbool.h>

#include "iouring/io.h"
#include "proxy/worker.h"

struct worker;

struct listener {
    struct io_listener accepting;
    struct worker *worker;                /* borrowed */
    const struct worker_listener *source; /* borrowed, for ever */
    bool is_open;
};

/* Begin to accept on every listener of the options. Errors: ERROR_NO_MEMORY. */
FALLIBLE listeners_open(struct worker *worker);

/* Accept no more; what the kernel had accepted is closed at once. */
void listeners_close(struct worker *worker);

/* Everything is closed: release. */
void listeners_finish(struct worker *worker);

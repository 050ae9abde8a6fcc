/*
 * The builder thread: reads, parses and compiles configuration, keeps the last good one, and may
 * block while it does.
 *
 * It watches the directory (inotify; a look every 10 s in case the watch is deaf) and loads when
 * something changed, or when asked to. Every outcome goes to the control thread as a message: a new
 * snapshot, "nothing changed", or what refused the configuration. The newest input wins: changes
 * while it loads lead to one more load.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "control/snapshot.h"
#include "iouring/io.h"
#include "routes/load.h"

struct builder;

enum builder_outcome {
    BUILDER_APPLIED,   /* `snapshot` is new */
    BUILDER_UNCHANGED, /* same bytes as the generation in force */
    BUILDER_REFUSED,   /* `diagnostics`, or `error` when the directory cannot be read; the last good
                          one stays */
};

/* What came of a load. The control thread owns it from on_result on: builder_result_free. */
struct builder_result {
    struct io_message message;
    struct builder *builder;
    enum builder_outcome outcome;
    struct snapshot *snapshot;            /* APPLIED: one reference, the receiver's */
    struct route_diagnostics diagnostics; /* warnings, when applied */
    struct error error; /* REFUSED: ERROR_CONFIG, or why the directory cannot be read */
    char hash[ROUTE_CONFIG_HASH_BYTES]; /* of what was refused; "" when it could not be read */
    uint64_t at_ms;                     /* wall clock */
    uint64_t duration_ns;
    void *argument; /* of builder_ask; NULL for a load that nobody asked for */
};

struct builder_options {
    struct route_load_options load; /* borrowed for ever */
    const char *directory;          /* to watch; borrowed */
    struct io *control;             /* on_result runs there */
    void (*on_result)(struct builder_result *result, void *owner);
    void *owner;
};

/*
 * Load for the first time, on the calling thread. `ret_result` as from the thread; its outcome is
 * APPLIED (generation 1) or REFUSED. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE builder_create(const struct builder_options *options, struct builder **ret_builder,
                        struct builder_result **ret_result);

/* Start the thread. Errors: ERROR_OS, ERROR_NO_MEMORY. */
FALLIBLE builder_start(struct builder *builder);

/* Load now; on_result follows with `argument`, whatever came of it. Control thread. */
void builder_ask(struct builder *builder, void *argument);

/* End the thread and free everything; no result follows. Snapshots that are still held free
 * themselves. */
void builder_destroy(struct builder *builder);

/* Release a result with what it still holds. Accepts NULL. */
void builder_result_free(struct builder_result *result);

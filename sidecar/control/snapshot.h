/*
 * One generation of configuration as the workers see it: immutable, published by pointer, reference
 * counted.
 *
 * `refs` counts holders that are threads (workers, control, builder), never requests. A worker
 * keeps a snapshot_hold for each generation that it still uses; its streams count in a plain
 * integer (house style 5). The last unref frees nothing itself: freeing takes milliseconds, so the
 * snapshot goes back to the builder thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "iouring/io.h"
#include "routes/load.h"

struct snapshot {
    _Atomic uint32_t refs;
    uint64_t generation; /* 1, 2, ... only what was applied; 0: the empty one of the tests */
    const struct route_config *config; /* one reference is owned */
    char hash[ROUTE_CONFIG_HASH_BYTES];
    uint64_t loaded_at_ms; /* wall clock */
    void (*retire)(struct snapshot *snapshot,
                   void *argument); /* called by the last unref; frees it or posts it on */
    void *retire_argument;
    struct io_message retire_message; /* for posting it */
};

/* A worker's use of one snapshot. */
struct snapshot_hold {
    struct snapshot *snapshot; /* one reference is owned */
    uint32_t streams;          /* that still look into it */
    bool is_current;
    struct snapshot_hold *older;
};

/* Wrap `config` (one reference taken over) with refs 1. Errors: ERROR_NO_MEMORY. */
FALLIBLE snapshot_create(const struct route_config *config, uint64_t generation,
                         struct snapshot **ret_snapshot);

/* Any thread. */
struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_unref(struct snapshot *snapshot);

/* Free it now; what `retire` ends in. Blocks for milliseconds. */
void snapshot_destroy(struct snapshot *snapshot);

/*
 * One parsed file: its objects, what was said about each of them, and enough of its past to parse
 * only what is new. Internal to routes/: load.c makes a configuration of sources.
 *
 * A source is immutable once it is parsed and counted by the configurations that have it, so a file
 * whose bytes did not change costs a pointer. Objects are counted one by one: a source that took
 * one from the file's last state shares it and does not hold that state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "routes/diagnostic.h"
#include "routes/files.h"
#include "routes/resource.h"

/* An object and what its text was, to tell a repetition from a contradiction. */
struct route_source_object {
    const struct route_object *object; /* one reference is owned */
    uint64_t name;                     /* its route_name_hash */
    uint64_t content[2];               /* what it says */
    uint64_t place[2];                 /* and where each part of it stands */
    uint32_t findings_begin;           /* its part of the source's diagnostics */
    uint32_t findings_end;
};

struct route_source_file {
    uint32_t refs; /* atomic: configurations, which any thread may let go */
    char *name;
    uint8_t digest[SHA256_BYTES];
    struct route_source_object *objects;
    uint32_t count;
    uint32_t capacity;
    uint32_t nodes_count;
    uint32_t decoded_count; /* objects that were not shared with the file's last state */
    struct route_diagnostics diagnostics;
};

struct route_source_options {
    bool skip_invalid_objects;                /* see load.h */
    const struct route_source_file *previous; /* the file's last state, only read; NULL: none */
};

/*
 * Parse a file. What is wrong with it is in the source's diagnostics. The source begins with one
 * reference. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_source_parse(const struct route_source_options *options,
                            const struct route_file *file, struct route_source_file **ret_source);

/* Any thread; unref accepts NULL. */
void route_source_ref(struct route_source_file *source);
void route_source_unref(struct route_source_file *source);

/*
 * One parsed file: its objects, what was said about each of them, and what is needed to parse only
 * what is new in its next state. Internal to routes/: load.c makes a configuration of sources.
 *
 * A source is immutable once it is parsed, and counted by the configurations that have it. What its
 * next state shares with it, each by itself sufficient for being the same:
 *
 *  - everything, when the bytes are the same: the source itself is taken (load.c);
 *  - a section (see sections.h) with the same bytes on the same line: its objects are taken with
 *    what was said about them, and it is not parsed;
 *  - an object which says the same at the same places, whatever else changed in its document (the
 *    status, say): it is parsed but not decoded.
 *
 * When something in the new sections cannot be read, or the limit of nodes is passed, the file is
 * parsed once more as a whole, so that a refusal says what it always says. Objects are counted one
 * by one, so a source does not hold the file's last state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
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

/* A document; its objects and findings end where those of the next one begin. */
struct route_source_document {
    uint32_t line; /* on which it begins */
    uint32_t objects_begin;
    uint32_t findings_begin;
    uint32_t nodes_count;
};

struct route_source_file {
    uint32_t refs; /* atomic: configurations, which any thread may let go */
    char *name;
    struct bytes content; /* owned */
    struct route_source_object *objects;
    uint32_t count;
    uint32_t capacity;
    struct route_source_document *documents;
    uint32_t documents_count;
    uint32_t documents_capacity;
    uint32_t nodes_count;
    uint32_t decoded_count; /* objects that were not shared with the file's last state */
    struct route_diagnostics diagnostics;
};

struct route_source_options {
    bool skip_invalid_objects;                /* see load.h */
    const struct route_source_file *previous; /* the file's last state, read under the same options;
                                                 only read; NULL: none */
};

/*
 * Parse a file, whose content is taken. What is wrong with it is in the source's diagnostics. The
 * source begins with one reference. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_source_parse(const struct route_source_options *options, struct route_file *file,
                            struct route_source_file **ret_source);

/* Any thread; unref accepts NULL. */
void route_source_ref(struct route_source_file *source);
void route_source_unref(struct route_source_file *source);

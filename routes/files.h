/*
 * The files of a configuration, read as one set.
 *
 * Kubernetes swaps a mounted directory by renaming `..data`; everything is read through one
 * descriptor of what it points at, so a set is never mixed. Anything but a regular file of bounded
 * size inside the directory is refused (reliability H4, H8). Blocks on the disk: builder thread or
 * command line.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/diagnostic.h"

struct route_file {
    const char *name;     /* as diagnostics show it: see `has_many_paths` */
    struct bytes content; /* malloc'd, followed by a NUL; nothing once it was taken */
    bool is_known;        /* the content is the one that `known` gave, and not ours */
};

struct route_files {
    struct route_file *items; /* in order of their names within each path */
    uint32_t count;
    uint32_t capacity;
    uint64_t bytes;
    struct arena names;
    /* Set by the caller of route_files_read for several paths: then two directories may have files
     * of one name, and each is named with its directory. A file of a single directory is named
     * relative to it, so that a configuration is the same wherever it is mounted. */
    bool has_many_paths;
    /* Set by the caller likewise, or NULL: what a file of that name held when it was last read, or
     * {NULL, 0}. A file that still holds it costs no memory. */
    struct bytes (*known)(void *argument, const char *name);
    void *known_argument;
    uint8_t *buffer; /* owned: files are read into it until they turn out to be new */
    size_t buffer_bytes;
};

/* No file yet; to be finished by route_files_finish. */
void route_files_init(struct route_files *files);

/* Release all. */
void route_files_finish(struct route_files *files);

/* The content becomes the caller's, who frees it; for one that is not `is_known`. */
struct bytes route_file_take(struct route_file *file);

/*
 * Read `path`: a file, or every *.yaml, *.yml and *.json of a directory whose name does not begin
 * with a dot, without recursion. `bytes_max` bounds a file, `total_max` all of `files`. What is
 * wrong with a single file is a diagnostic, and the file is left out. Errors: ERROR_OS when `path`
 * itself cannot be read; ERROR_NO_MEMORY.
 */
FALLIBLE route_files_read(struct route_files *files, const char *path, uint64_t bytes_max,
                          uint64_t total_max, struct route_diagnostics *diagnostics);

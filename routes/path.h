/*
 * Request targets: normalisation (RFC 3986 6.2.2) before anything is matched.
 *
 * The invariant is that the bytes matched are the bytes forwarded: dot segments, also written with
 * %2e, are resolved once, here, and nothing else is changed. `//`, `%2F` and `;` stay as they are.
 * What two servers would read differently is refused: see route_target_parse.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"

struct route_target {
    struct bytes path;  /* normalised; begins with "/", or is "*" */
    struct bytes query; /* what follows the first "?", as it came */
    bool has_query;     /* tells "/a?" from "/a" */
    bool is_changed;    /* the path differs from what the client sent, and lives in the arena */
};

/*
 * Split and normalise a target in origin form ("/a/b?c=d") or "*".
 *
 * Nothing is copied when nothing changes; else the path is made in `arena` (at most as long as it
 * was). Errors: ERROR_SYNTAX, to be answered 400, for an empty target, one that does not begin with
 * "/", a control character, space or "#" anywhere, and in the path: "\", a "%" without two
 * hexadecimal digits, "%00", or a ".." above the root. ERROR_NO_MEMORY when the arena refuses.
 */
FALLIBLE route_target_parse(struct bytes target, struct arena *arena,
                            struct route_target *ret_target);

/* Does `path` begin with the segments of `prefix`, which has no "/" at its end ("" is the root)? */
bool route_path_has_prefix(struct bytes path, struct bytes prefix);

/* A PathPrefix value as it is compared: without one "/" at its end, so that "/" becomes "". */
struct bytes route_path_prefix(struct bytes value);

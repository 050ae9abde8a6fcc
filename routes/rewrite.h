/*
 * What URLRewrite and RequestRedirect make of a request: pure text, shared by the data path and
 * explain.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/resource.h"

/*
 * The path that `modifier` makes of `path` (no query). `prefix_bytes` is
 * route_decision.prefix_bytes: how much of the path the match covered. Never empty, begins with
 * "/". A view of what it was given where that is enough, else made in `arena`. Errors:
 * ERROR_NO_MEMORY.
 */
FALLIBLE route_rewrite_path(const struct route_path_modifier *modifier, struct bytes path,
                            size_t prefix_bytes, struct arena *arena, struct bytes *ret_path);

/* What a redirect starts from. */
struct route_redirect_from {
    struct bytes scheme;    /* of the request: "http" or "https" */
    struct bytes authority; /* Host or :authority, with or without a port */
    uint16_t port;          /* of the Service that was dialled */
    struct bytes path;
    struct bytes query;
    bool has_query;
    size_t prefix_bytes;
};

/* The value of Location. NUL-terminated, in `arena`. Errors: ERROR_NO_MEMORY. */
FALLIBLE route_redirect_location(const struct route_redirect *redirect,
                                 const struct route_redirect_from *from, struct arena *arena,
                                 struct bytes *ret_location);

/* An authority without its port: "[::1]:80" is "[::1]". */
struct bytes route_authority_host(struct bytes authority);

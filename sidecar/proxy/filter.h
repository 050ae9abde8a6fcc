/*
 * What a rule and its backend do to heads: header modifiers, rewrites, redirects. Everything that
 * is made goes into the stream's arena; what the configuration holds is borrowed from the snapshot.
 */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "http/message.h"
#include "routes/match.h"
#include "routes/path.h"
#include "routes/table.h"

/* What filters look at beside the head. */
struct filter_request {
    struct arena *arena;
    const struct route_decision *decision; /* prefix_bytes: what a PathPrefix covered */
    const struct route_target *target;     /* as it was matched */
    uint16_t service_port;                 /* of the original destination: for redirects */
};

/*
 * Apply the request's header modifiers and rewrites, the rule's first, then the backend's (of two
 * path rewrites the backend's counts, from the original path). `backend` may be NULL.
 * Errors: ERROR_NO_MEMORY.
 */
FALLIBLE filter_request_apply(const struct filter_request *request,
                              const struct route_table_rule *rule,
                              const struct route_table_backend *backend, struct message_head *head);

/* Apply the response's header modifiers, the rule's first. Errors: ERROR_NO_MEMORY. */
FALLIBLE filter_response_apply(struct arena *arena, const struct route_table_rule *rule,
                               const struct route_table_backend *backend,
                               struct message_head *head);

/*
 * The Location of `rule`'s redirect (gateway-api.md 2.12). Errors: ERROR_NO_MEMORY;
 * ERROR_PROTOCOL when it would hold what no field value may (reliability F9).
 */
FALLIBLE filter_redirect_location(const struct filter_request *request,
                                  const struct route_redirect *redirect,
                                  const struct message_head *head, struct bytes *ret_location);

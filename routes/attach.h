/*
 * Which route applies where: parentRefs, ports and section names, producer and consumer routes,
 * precedence of kinds, grants; and what an API server's status would have said about it.
 *
 * A workload is in one namespace, and that decides for each port of each Service which routes it
 * follows: the consumer routes of its namespace, when there are any, else the producer routes of
 * the Service's own. So a configuration that is loaded for a namespace has one answer for each
 * port. Without a namespace (`check`) the producer routes are in force and consumer routes are only
 * judged.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/changes.h"
#include "routes/index.h"
#include "routes/resource.h"
#include "routes/table.h"

/* One line of what would be `status.parents[].conditions[]` (for policies: of ancestors). */
struct route_condition {
    const struct route_object *object;
    struct bytes
        parent;       /* "Service shop/web", with ":80" or "#http" when the reference names one */
    const char *type; /* Accepted, ResolvedRefs, PartiallyInvalid, Conflicted */
    bool status;
    const char *reason; /* as Gateway API names it */
    const char *message;
    struct route_position position;
};

struct route_attach_options {
    struct bytes namespace; /* the workload's; data NULL: none (see above) */
    bool require_reference_grants;
    bool can_udp; /* false: a UDPRoute is Accepted=False, with the reason */
};

/* What is attached to each Service. */
struct route_attachments;

/* What one load has at hand. */
struct route_attach_load {
    const struct route_objects *objects;
    const struct route_attachments *previous; /* the last configuration's, under the same options,
                                                 unless all has changed; NULL: none */
    struct route_changes *changes;            /* since then */
    struct arena *scratch;                    /* until the tables are compiled */
};

/*
 * Judge every route of `load->objects` and attach the accepted ones. Routes none of whose names has
 * changed keep their conditions. To the changes are added the `references` of Services whose tables
 * these may concern. What is made is in `arena`, and is to be released. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_attach(const struct route_attach_options *options,
                      const struct route_attach_load *load, struct arena *arena,
                      struct route_attachments **ret_attachments);

/* Let go what is shared with other configurations; before the arena ends, and before the objects.
 * Accepts NULL. */
void route_attachments_release(struct route_attachments *attachments);

/* The conditions of the object at `place`, in order of its references. */
const struct route_condition *
route_attachments_conditions(const struct route_attachments *attachments, uint32_t place,
                             uint32_t *ret_count);

/*
 * What the table of the Service at `place` is to be compiled from; no ports: it has no table. False
 * when that is what it was in the previous configuration. While `load` lasts.
 */
bool route_attachments_settled(const struct route_attachments *attachments, uint32_t place,
                               const struct route_table_port **ret_ports, uint32_t *ret_count);

/* Answers table.c's questions about other objects; while `load` lasts. */
const struct route_table_resolver *
route_attachments_resolver(const struct route_attachments *attachments);

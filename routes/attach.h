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
#include "routes/diagnostic.h"
#include "routes/index.h"
#include "routes/resource.h"
#include "routes/service.h"
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

/* What is attached to each Service. Defined in attach.c. */
struct route_attachments;

/*
 * Judge every route and policy of `objects` and attach the accepted routes. All in `arena`.
 * Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_attach(const struct route_attach_options *options,
                      const struct route_object *const *objects, uint32_t objects_count,
                      const struct route_index *index, const struct route_services *services,
                      struct arena *arena, struct route_attachments **ret_attachments);

/* All conditions, grouped by object in the order of `objects`. */
const struct route_condition *
route_attachments_conditions(const struct route_attachments *attachments, uint32_t *ret_count);

/* What the table of the Service at `service_index` is to be compiled from; no ports: it has no
 * table. */
const struct route_table_port *route_attachments_ports(const struct route_attachments *attachments,
                                                       uint32_t service_index, uint32_t *ret_count);

/* Was the port named by an attached HTTPRoute or GRPCRoute, so that it counts as declared HTTP? */
bool route_attachments_declares_http(const struct route_attachments *attachments,
                                     uint32_t service_index, uint32_t port_index);

/* Answers table.c's questions about other objects; valid as long as `attachments`. */
const struct route_table_resolver *
route_attachments_resolver(const struct route_attachments *attachments);

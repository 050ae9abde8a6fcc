/*
 * What is different from the previous configuration, as a set of names. Internal to routes/.
 *
 * A name is the route_name_hash of a kind, namespace and name, or a facet of a Service's name. What
 * is in the set may mean something else than before; what is not in it means the same: the same
 * object, by address, or again none. So whatever was made of the previous configuration is right in
 * this one as well, when none of the names that it was made of is in the set. Whoever makes
 * something keeps or can tell the names that it asked about; nothing else has to be known about who
 * depends on whom.
 *
 * The set may say too much (two names of one hash, a memory that was short, other options), which
 * costs work and changes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "routes/index.h"
#include "routes/resource.h"

struct route_changes {
    uint64_t *slots; /* owned: open addressing, 0 is free */
    uint32_t mask;
    uint32_t count;
    bool is_everything;
};

/* No name, or all of them. To be finished. */
void route_changes_init(struct route_changes *changes, bool is_everything);

/* Release all. */
void route_changes_finish(struct route_changes *changes);

/* Add a name. Without memory: all. */
void route_changes_add(struct route_changes *changes, uint64_t name);

/* Is the name one of them? */
bool route_changes_has(const struct route_changes *changes, uint64_t name);

/*
 * Facets of a Service whose name is `service`:
 *  - claims: which routes name it as their parent, and what these are;
 *  - slices: its EndpointSlices;
 *  - references: what the references of the routes attached to it lead to.
 */
uint64_t route_name_claims(uint64_t service);
uint64_t route_name_slices(uint64_t service);
uint64_t route_name_references(uint64_t service);

/* The ReferenceGrants of a namespace. */
uint64_t route_name_grants(struct bytes namespace);

/*
 * Compare what the kind and name of `object`, whose hash is `name`, mean before and now, and add
 * what differs: the name; of a route, the claims of its parents; of an EndpointSlice, the slices of
 * its Service; of a BackendTLSPolicy, its targets; of a ReferenceGrant, those of its namespace.
 * `object` may stand in either of the two.
 */
void route_changes_compare(struct route_changes *changes, const struct route_objects *before,
                           const struct route_objects *now, const struct route_object *object,
                           uint64_t name);

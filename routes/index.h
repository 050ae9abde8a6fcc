/* The objects of a configuration, by place and by kind and name. Internal to routes/. */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/resource.h"

#define ROUTE_PLACE_NONE UINT32_MAX

/*
 * A kind and name as a number, the same for the same. Two names may share a number: whoever looks
 * for an object compares the names too, and whoever looks for changes does work for nothing.
 */
uint64_t route_name_hash(enum route_kind kind, struct bytes namespace, struct bytes name);

/* From kind and name to a place. */
struct route_index;

/* The place of the object of that kind and name, whose route_name_hash is `hash`; or
 * ROUTE_PLACE_NONE. Cluster-scoped kinds have the namespace "". */
uint32_t route_index_find(const struct route_index *index, uint64_t hash, enum route_kind kind,
                          struct bytes namespace, struct bytes name);

/*
 * The objects of a configuration, each kind and name once, in order of files and places. What is
 * asked of all of them at every load is beside them in arrays of its own.
 */
struct route_objects {
    const struct route_object **items; /* borrowed */
    uint64_t *names;                   /* the route_name_hash of each */
    uint8_t *kinds;
    uint32_t *origins; /* the place of the same object, by address, in the previous configuration;
                          else ROUTE_PLACE_NONE */
    uint32_t count;
    uint32_t capacity;
    struct route_index *index;
};

/* None yet, with room for `capacity`. Errors: ERROR_NO_MEMORY. */
FALLIBLE route_objects_init(struct route_objects *objects, uint32_t capacity, struct arena *arena);

/* Add `object`, whose route_name_hash is `name`. Returns its place; or the place of the object of
 * that kind and name that is there already, which stays. */
uint32_t route_objects_add(struct route_objects *objects, const struct route_object *object,
                           uint64_t name);

/* The object of that kind and name, or NULL. */
const struct route_object *route_objects_find(const struct route_objects *objects,
                                              enum route_kind kind, struct bytes namespace,
                                              struct bytes name);

/* Note for each object where it was in `previous`, which may be NULL. */
void route_objects_find_origins(struct route_objects *objects,
                                const struct route_objects *previous);

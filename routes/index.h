/* The objects of a configuration by kind and name. Internal to routes/. */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/resource.h"

#define ROUTE_INDEX_NONE UINT32_MAX

struct route_index;

/*
 * A kind and name as a number, the same for the same. Two names may share a number: whoever looks
 * for an object compares the names too, and whoever looks for changes does work for nothing.
 */
uint64_t route_name_hash(enum route_kind kind, struct bytes namespace, struct bytes name);

/* An empty index with room for `capacity` objects. Errors: ERROR_NO_MEMORY. */
FALLIBLE route_index_create(uint32_t capacity, struct arena *arena, struct route_index **ret_index);

/*
 * Add `object`, which stands at `place` of the configuration's objects and whose route_name_hash is
 * `name`. Returns `place`; or the place of the object of that kind and name that is there already,
 * which stays.
 */
uint32_t route_index_add(struct route_index *index, uint64_t name,
                         const struct route_object *object, uint32_t place);

/* The place of the object with the kind and name of `object`, or ROUTE_INDEX_NONE. */
uint32_t route_index_place(const struct route_index *index, uint64_t name,
                           const struct route_object *object);

/* The object of that kind and name, or NULL. Cluster-scoped kinds have the namespace "". */
const struct route_object *route_index_find(const struct route_index *index, enum route_kind kind,
                                            struct bytes namespace, struct bytes name);

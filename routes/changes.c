/* A set of hashes, and what the difference of two objects of one name adds to it. */
#include "routes/changes.h"

#include <stdlib.h>

enum {
    SLOTS_FIRST = 256
};

void route_changes_init(struct route_changes *changes, bool is_everything)
{
    *changes = (struct route_changes){.is_everything = is_everything};
}

void route_changes_finish(struct route_changes *changes)
{
    free(changes->slots);
    *changes = (struct route_changes){0};
}

/* The slot of `name`, or the free one where it would go. */
static uint64_t *find_slot(const struct route_changes *changes, uint64_t name)
{
    uint32_t at = (uint32_t)(name >> 32) & changes->mask;
    while (changes->slots[at] != 0 && changes->slots[at] != name) {
        at = (at + 1) & changes->mask;
    }
    return &changes->slots[at];
}

/* Keep at least half of the slots free. */
static bool make_room(struct route_changes *changes)
{
    uint32_t size = changes->slots == NULL ? 0 : changes->mask + 1;
    if ((changes->count + 1) * 2 <= size) {
        return true;
    }
    struct route_changes wider = {.mask = size == 0 ? SLOTS_FIRST - 1 : size * 2 - 1};
    wider.slots = calloc((size_t)wider.mask + 1, sizeof(*wider.slots));
    if (wider.slots == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < size; i++) {
        if (changes->slots[i] != 0) {
            *find_slot(&wider, changes->slots[i]) = changes->slots[i];
        }
    }
    free(changes->slots);
    changes->slots = wider.slots;
    changes->mask = wider.mask;
    return true;
}

/* 0 marks a free slot. */
static uint64_t usable(uint64_t name)
{
    return name == 0 ? 1 : name;
}

void route_changes_add(struct route_changes *changes, uint64_t name)
{
    if (changes->is_everything) {
        return;
    }
    if (!make_room(changes)) {
        changes->is_everything = true;
        return;
    }
    uint64_t *slot = find_slot(changes, usable(name));
    changes->count += *slot == 0;
    *slot = usable(name);
}

bool route_changes_has(const struct route_changes *changes, uint64_t name)
{
    return changes->is_everything || (changes->count > 0 && *find_slot(changes, usable(name)) != 0);
}

static uint64_t facet(uint64_t service, uint64_t which)
{
    uint64_t hash = (service ^ which) * UINT64_C(0x9e3779b97f4a7c15);
    return (hash ^ hash >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

uint64_t route_name_claims(uint64_t service)
{
    return facet(service, 1);
}

uint64_t route_name_slices(uint64_t service)
{
    return facet(service, 2);
}

uint64_t route_name_references(uint64_t service)
{
    return facet(service, 3);
}

uint64_t route_name_grants(struct bytes namespace)
{
    return route_name_hash(ROUTE_KIND_REFERENCE_GRANT, namespace, BYTES(""));
}

static void add_service(struct route_changes *changes, struct bytes namespace, struct bytes name,
                        uint64_t (*facet_of)(uint64_t service))
{
    uint64_t service = route_name_hash(ROUTE_KIND_SERVICE, namespace, name);
    route_changes_add(changes, facet_of == NULL ? service : facet_of(service));
}

/* What is made of the object elsewhere than under its own name. */
static void add_dependents(struct route_changes *changes, const struct route_object *object)
{
    if (object->kind >= ROUTE_KIND_HTTP_ROUTE && object->kind <= ROUTE_KIND_UDP_ROUTE) {
        const struct route *route = (const struct route *)object;
        for (uint32_t i = 0; i < route->parent_refs_count; i++) {
            const struct route_parent_ref *ref = &route->parent_refs[i];
            add_service(changes, ref->namespace, ref->name, route_name_claims);
        }
    } else if (object->kind == ROUTE_KIND_ENDPOINT_SLICE) {
        const struct route_endpoint_slice *slice = (const struct route_endpoint_slice *)object;
        add_service(changes, object->namespace, slice->service, route_name_slices);
    } else if (object->kind == ROUTE_KIND_BACKEND_TLS_POLICY) {
        const struct route_backend_tls_policy *policy =
            (const struct route_backend_tls_policy *)object;
        for (uint32_t i = 0; i < policy->target_refs_count; i++) {
            add_service(changes, object->namespace, policy->target_refs[i].name, NULL);
        }
    } else if (object->kind == ROUTE_KIND_REFERENCE_GRANT) {
        route_changes_add(changes, route_name_grants(object->namespace));
    }
}

void route_changes_compare(struct route_changes *changes, const struct route_objects *before,
                           const struct route_objects *now, const struct route_object *object,
                           uint64_t name)
{
    uint32_t then_at =
        route_index_find(before->index, name, object->kind, object->namespace, object->name);
    uint32_t now_at =
        route_index_find(now->index, name, object->kind, object->namespace, object->name);
    const struct route_object *old = then_at == ROUTE_PLACE_NONE ? NULL : before->items[then_at];
    const struct route_object *new = now_at == ROUTE_PLACE_NONE ? NULL : now->items[now_at];
    if (old == new) {
        return;
    }
    route_changes_add(changes, name);
    if (old != NULL) {
        add_dependents(changes, old);
    }
    if (new != NULL) {
        add_dependents(changes, new);
    }
}

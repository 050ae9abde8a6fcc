/* Objects by kind and name: one open-addressed table, built once for a configuration. */
#include "routes/attach.h"

struct route_index {
    const struct route_object **slots;
    uint32_t mask;
};

static uint64_t mix(uint64_t hash, struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        hash = (hash ^ text.data[i]) * UINT64_C(0x100000001b3);
    }
    return (hash ^ 0xff) * UINT64_C(0x9e3779b97f4a7c15);
}

static const struct route_object **find_slot(const struct route_index *index, enum route_kind kind,
                                             struct bytes namespace, struct bytes name)
{
    uint64_t hash = mix(mix(UINT64_C(0xcbf29ce484222325) + kind, namespace), name);
    uint32_t at = (uint32_t)(hash >> 32) & index->mask;
    while (index->slots[at] != NULL) {
        const struct route_object *object = index->slots[at];
        if (object->kind == kind && bytes_equal(object->name, name) &&
            bytes_equal(object->namespace, namespace)) {
            break;
        }
        at = (at + 1) & index->mask;
    }
    return &index->slots[at];
}

FALLIBLE route_index_build(const struct route_object *const *objects, uint32_t objects_count,
                           struct arena *arena, struct route_index **ret_index)
{
    size_t size = 16;
    while (size < (size_t)objects_count * 2) {
        size *= 2;
    }
    struct route_index *index = arena_alloc_zero(arena, 1, sizeof(*index));
    const struct route_object **slots =
        arena_alloc_zero(arena, size, sizeof(const struct route_object *));
    if (index == NULL || slots == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    index->slots = slots;
    index->mask = (uint32_t)size - 1;
    for (uint32_t i = 0; i < objects_count; i++) {
        const struct route_object **slot =
            find_slot(index, objects[i]->kind, objects[i]->namespace, objects[i]->name);
        if (*slot == NULL) {
            *slot = objects[i];
        }
    }
    *ret_index = index;
    return OK;
}

const struct route_object *route_index_find(const struct route_index *index, enum route_kind kind,
                                            struct bytes namespace, struct bytes name)
{
    return *find_slot(index, kind, namespace, name);
}

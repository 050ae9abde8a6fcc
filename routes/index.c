/* One open-addressed table, at most half full, built once for a configuration. */
#include "routes/index.h"

#include <string.h>

#include "base/check.h"

struct slot {
    uint32_t tag;   /* of the name, so that few others are looked at */
    uint32_t place; /* plus 1; 0: free */
};

struct route_index {
    const struct route_object *const *objects; /* by place */
    struct slot *slots;
    uint32_t mask;
};

static uint64_t mix_word(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

/* By words: names are some twenty bytes, and there are several for each route. */
static uint64_t mix(uint64_t hash, struct bytes text)
{
    uint64_t size = text.size;
    for (; text.size >= sizeof(uint64_t); text = bytes_skip(text, sizeof(uint64_t))) {
        uint64_t word = 0;
        memcpy(&word, text.data, sizeof(word));
        hash = mix_word(hash, word);
    }
    uint64_t rest = 0;
    if (text.size > 0) {
        memcpy(&rest, text.data, text.size);
    }
    return mix_word(hash, rest ^ size << 56);
}

uint64_t route_name_hash(enum route_kind kind, struct bytes namespace, struct bytes name)
{
    uint64_t hash = mix(mix(UINT64_C(0xcbf29ce484222325) + (uint64_t)kind, namespace), name);
    return mix_word(hash, hash >> 32);
}

/* The slot of that kind and name, or the free one where it would go. */
static struct slot *find_slot(const struct route_index *index, uint64_t hash, enum route_kind kind,
                              struct bytes namespace, struct bytes name)
{
    uint32_t tag = (uint32_t)hash;
    uint32_t at = (uint32_t)(hash >> 32) & index->mask;
    for (; index->slots[at].place != 0; at = (at + 1) & index->mask) {
        if (index->slots[at].tag == tag) {
            const struct route_object *object = index->objects[index->slots[at].place - 1];
            if (object->kind == kind && bytes_equal(object->name, name) &&
                bytes_equal(object->namespace, namespace)) {
                break;
            }
        }
    }
    return &index->slots[at];
}

/* An empty index of `objects`, of which there will be at most `capacity`. */
static struct error create_index(const struct route_object *const *objects, uint32_t capacity,
                                 struct arena *arena, struct route_index **ret_index)
{
    uint32_t size = 16;
    while (size < capacity * 2) {
        size *= 2;
    }
    struct route_index *index = arena_alloc_zero(arena, 1, sizeof(*index));
    struct slot *slots = arena_alloc_zero(arena, size, sizeof(*slots));
    if (index == NULL || slots == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *index = (struct route_index){.objects = objects, .slots = slots, .mask = size - 1};
    *ret_index = index;
    return OK;
}

uint32_t route_index_find(const struct route_index *index, uint64_t hash, enum route_kind kind,
                          struct bytes namespace, struct bytes name)
{
    const struct slot *slot = find_slot(index, hash, kind, namespace, name);
    return slot->place == 0 ? ROUTE_PLACE_NONE : slot->place - 1;
}

FALLIBLE route_objects_init(struct route_objects *objects, uint32_t capacity, struct arena *arena)
{
    *objects = (struct route_objects){
        .items = arena_alloc(arena, capacity * sizeof(*objects->items)),
        .names = arena_alloc(arena, capacity * sizeof(*objects->names)),
        .kinds = arena_alloc(arena, capacity * sizeof(*objects->kinds)),
        .origins = arena_alloc(arena, capacity * sizeof(*objects->origins)),
        .capacity = capacity,
    };
    if (objects->items == NULL || objects->names == NULL || objects->kinds == NULL ||
        objects->origins == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    return create_index(objects->items, capacity, arena, &objects->index);
}

uint32_t route_objects_add(struct route_objects *objects, const struct route_object *object,
                           uint64_t name)
{
    struct slot *slot =
        find_slot(objects->index, name, object->kind, object->namespace, object->name);
    if (slot->place != 0) {
        return slot->place - 1;
    }
    CHECK(objects->count < objects->capacity);
    uint32_t place = objects->count++;
    *slot = (struct slot){(uint32_t)name, place + 1};
    objects->items[place] = object;
    objects->names[place] = name;
    objects->kinds[place] = (uint8_t)object->kind;
    objects->origins[place] = ROUTE_PLACE_NONE;
    return place;
}

const struct route_object *route_objects_find(const struct route_objects *objects,
                                              enum route_kind kind, struct bytes namespace,
                                              struct bytes name)
{
    uint64_t hash = route_name_hash(kind, namespace, name);
    uint32_t place = route_index_find(objects->index, hash, kind, namespace, name);
    return place == ROUTE_PLACE_NONE ? NULL : objects->items[place];
}

void route_objects_find_origins(struct route_objects *objects, const struct route_objects *previous)
{
    uint32_t guess = 0; /* what did not change stands in the same order */
    for (uint32_t i = 0; previous != NULL && i < objects->count; i++) {
        const struct route_object *object = objects->items[i];
        uint32_t place = guess;
        if (guess >= previous->count || previous->items[guess] != object) {
            place = route_index_find(previous->index, objects->names[i], object->kind,
                                     object->namespace, object->name);
        }
        if (place != ROUTE_PLACE_NONE) {
            guess = place + 1;
            objects->origins[i] = previous->items[place] == object ? place : ROUTE_PLACE_NONE;
        }
    }
}

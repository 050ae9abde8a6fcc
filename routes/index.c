/* One open-addressed table, at most half full, built once for a configuration. */
#include "routes/index.h"

#include <string.h>

#include "base/check.h"

struct slot {
    const struct route_object *object; /* NULL: free */
    uint32_t tag;                      /* of its name, so that few others are looked at */
    uint32_t place;
};

struct route_index {
    struct slot *slots;
    uint32_t mask;
    uint32_t capacity;
    uint32_t count;
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
    for (uint32_t at = (uint32_t)(hash >> 32) & index->mask;; at = (at + 1) & index->mask) {
        struct slot *slot = &index->slots[at];
        if (slot->object == NULL || (slot->tag == tag && slot->object->kind == kind &&
                                     bytes_equal(slot->object->name, name) &&
                                     bytes_equal(slot->object->namespace, namespace))) {
            return slot;
        }
    }
}

FALLIBLE route_index_create(uint32_t capacity, struct arena *arena, struct route_index **ret_index)
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
    *index = (struct route_index){.slots = slots, .mask = size - 1, .capacity = capacity};
    *ret_index = index;
    return OK;
}

uint32_t route_index_add(struct route_index *index, uint64_t name,
                         const struct route_object *object, uint32_t place)
{
    struct slot *slot = find_slot(index, name, object->kind, object->namespace, object->name);
    if (slot->object != NULL) {
        return slot->place;
    }
    CHECK(index->count < index->capacity);
    index->count++;
    *slot = (struct slot){object, (uint32_t)name, place};
    return place;
}

uint32_t route_index_place(const struct route_index *index, uint64_t name,
                           const struct route_object *object)
{
    const struct slot *slot = find_slot(index, name, object->kind, object->namespace, object->name);
    return slot->object == NULL ? ROUTE_INDEX_NONE : slot->place;
}

const struct route_object *route_index_find(const struct route_index *index, enum route_kind kind,
                                            struct bytes namespace, struct bytes name)
{
    return find_slot(index, route_name_hash(kind, namespace, name), kind, namespace, name)->object;
}

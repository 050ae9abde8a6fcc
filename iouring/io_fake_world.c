/*
 * The fake's world: fake_chance, time as a heap of events, descriptors, and who answers where.
 * Knows no connection's rules.
 */
#include "iouring/io_fake_world.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "iouring/io_driver.h"

/* ---- fake_chance ---- */

uint64_t fake_next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = (*state ^ (*state >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t fake_pick(struct fake_world *world, uint64_t count)
{
    return fake_next_random(&world->random_network) % count;
}

bool fake_chance(struct fake_world *world, uint32_t percent)
{
    return percent > 0 && fake_pick(world, 100) < percent;
}

/* An even fake_chance on a seed with faults; never on the calm one. */
bool fake_coin(struct fake_world *world)
{
    return world->seed != 0 && fake_pick(world, 2) == 0;
}

/* All of `size`, or with `percent` a part of it: often a tiny one. */
size_t fake_part_of(struct fake_world *world, uint32_t percent, size_t size)
{
    if (size <= 1 || !fake_chance(world, percent)) {
        return size;
    }
    size_t most = fake_coin(world) && size > 8 ? 8 : size;
    return 1 + (size_t)fake_pick(world, most);
}

uint64_t fake_latency(struct fake_world *world)
{
    uint64_t max = world->faults.latency_ns_max;
    return max == 0 ? 0 : fake_pick(world, max + 1);
}

/* ---- bytes ---- */

void fake_queue_append(struct fake_queue *queue, const uint8_t *data, size_t size)
{
    if (queue->capacity - queue->start - queue->size < size) {
        if (queue->start > 0) {
            memmove(queue->data, queue->data + queue->start, queue->size);
            queue->start = 0;
        }
        if (queue->capacity - queue->size < size) {
            queue->capacity = (queue->size + size) * 2;
            queue->data = realloc(queue->data, queue->capacity);
            CHECK(queue->data != NULL);
        }
    }
    if (size > 0) {
        memcpy(queue->data + queue->start + queue->size, data, size);
        queue->size += size;
    }
}

void fake_queue_consume(struct fake_queue *queue, size_t size)
{
    CHECK(size <= queue->size);
    queue->start += size;
    queue->size -= size;
    if (queue->size == 0) {
        queue->start = 0;
    }
}

/* ---- events ---- */

static bool is_before(const struct fake_event *a, const struct fake_event *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->serial < b->serial;
}

void fake_push_event(struct fake_world *world, uint64_t delay_ns, void (*run)(void *argument),
                     void *argument)
{
    if (world->event_count == world->event_capacity) {
        world->event_capacity = world->event_capacity == 0 ? 64 : world->event_capacity * 2;
        world->events = realloc(world->events, world->event_capacity * sizeof(*world->events));
        CHECK(world->events != NULL);
    }
    struct fake_event event = {clock_add(world->now_ns, delay_ns), world->serial++, run, argument};
    size_t at = world->event_count++;
    while (at > 0 && is_before(&event, &world->events[(at - 1) / 2])) {
        world->events[at] = world->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->events[at] = event;
}

struct fake_event fake_pop_event(struct fake_world *world)
{
    struct fake_event first = world->events[0];
    struct fake_event last = world->events[--world->event_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= world->event_count) {
            break;
        }
        if (child + 1 < world->event_count &&
            is_before(&world->events[child + 1], &world->events[child])) {
            child++;
        }
        if (!is_before(&world->events[child], &last)) {
            break;
        }
        world->events[at] = world->events[child];
        at = child;
    }
    world->events[at] = last;
    return first;
}

/* ---- descriptors and services ---- */

struct fake_world *fake_world_of(const struct io *io)
{
    CHECK(io->driver->backend == IO_BACKEND_FAKE);
    return io->driver_state;
}

struct fake_descriptor *fake_descriptor_of(struct fake_world *world, int fd)
{
    CHECK(fd >= IO_FAKE_FD_FIRST && (size_t)(fd - IO_FAKE_FD_FIRST) < world->descriptor_count);
    return &world->descriptors[fd - IO_FAKE_FD_FIRST];
}

int fake_new_descriptor(struct fake_world *world, struct io_fake_peer *peer,
                        struct fake_listener *listener)
{
    size_t count = world->descriptor_count;
    if ((count & (count - 1)) == 0) { /* 0 or a power of two: full */
        size_t capacity = count == 0 ? 1 : count * 2;
        world->descriptors = realloc(world->descriptors, capacity * sizeof(*world->descriptors));
        CHECK(world->descriptors != NULL);
    }
    world->descriptors[world->descriptor_count++] = (struct fake_descriptor){peer, listener};
    return IO_FAKE_FD_FIRST + (int)count;
}

bool fake_is_descriptor_left(const struct fake_world *world)
{
    uint32_t max = world->faults.descriptors_max;
    return max == 0 || world->descriptors_in_use < max;
}

struct fake_service *fake_entry_of(struct fake_world *world, const struct address *address)
{
    for (size_t i = 0; i < world->service_count; i++) {
        if (address_equal(&world->services[i].service.address, address)) {
            return &world->services[i];
        }
    }
    world->services =
        realloc(world->services, (world->service_count + 1) * sizeof(*world->services));
    CHECK(world->services != NULL);
    struct fake_service *entry = &world->services[world->service_count++];
    *entry = (struct fake_service){
        .service = {.address = *address, .outcome = IO_FAKE_REFUSE},
    };
    return entry;
}

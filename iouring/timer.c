/*
 * Level n of the wheel has 64 slots of 64^n ticks; eight levels hold every uint64_t of nanoseconds,
 * so no deadline is ever too far. A timer stands on the level of the highest bit of its distance
 * and sinks when the wheel reaches its slot. Time jumps from one occupied slot to the next, found
 * in the level's bitmap, so an idle hour costs nothing.
 */
#include "iouring/timer.h"

#include <stdlib.h>

#include "base/check.h"

enum {
    SLOT_BITS = 6,
    SLOT_COUNT = 1 << SLOT_BITS,
    LEVEL_COUNT = 8,
};

_Static_assert((UINT64_MAX / CLOCK_NS_PER_MS) >> (SLOT_BITS * LEVEL_COUNT) == 0,
               "the top level reaches the end of time");

struct io_timers {
    uint64_t tick;      /* all slots up to here are emptied */
    struct list due;    /* in order of deadline */
    struct list in_run; /* what io_timers_run is about to call */
    uint64_t occupied[LEVEL_COUNT];
    struct list slots[LEVEL_COUNT][SLOT_COUNT];
};

struct error io_timers_create(uint64_t now_ns, struct io_timers **ret_timers)
{
    struct io_timers *timers = malloc(sizeof(*timers));
    if (timers == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    timers->tick = now_ns / CLOCK_NS_PER_MS;
    list_init(&timers->due);
    list_init(&timers->in_run);
    for (uint32_t level = 0; level < LEVEL_COUNT; level++) {
        timers->occupied[level] = 0;
        for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
            list_init(&timers->slots[level][slot]);
        }
    }
    *ret_timers = timers;
    return OK;
}

void io_timers_destroy(struct io_timers *timers)
{
    free(timers);
}

/* The first tick that begins at or after `deadline_ns`: a timer is late, never early. */
static uint64_t tick_of(uint64_t deadline_ns)
{
    return deadline_ns / CLOCK_NS_PER_MS + (deadline_ns % CLOCK_NS_PER_MS != 0);
}

static void place(struct io_timers *timers, struct io_timer *timer)
{
    uint64_t tick = tick_of(timer->deadline_ns);
    if (tick <= timers->tick) {
        list_append(&timers->due, &timer->link);
        return;
    }
    uint64_t distance = tick - timers->tick;
    uint32_t level = (63 - (uint32_t)__builtin_clzll(distance)) / SLOT_BITS;
    uint32_t slot = (uint32_t)(tick >> (SLOT_BITS * level)) % SLOT_COUNT;
    list_append(&timers->slots[level][slot], &timer->link);
    timers->occupied[level] |= UINT64_C(1) << slot;
}

/* `head` is about to lose its last timer: clear its bit, if it is a slot's and not a queue's. */
static void note_empty(struct io_timers *timers, const struct list *head)
{
    if (head == &timers->due || head == &timers->in_run) {
        return;
    }
    size_t index = (size_t)(head - &timers->slots[0][0]);
    CHECK(index < (size_t)LEVEL_COUNT * SLOT_COUNT);
    timers->occupied[index / SLOT_COUNT] &= ~(UINT64_C(1) << (index % SLOT_COUNT));
}

void io_timers_stop(struct io_timers *timers, struct io_timer *timer)
{
    if (timer->deadline_ns == 0) {
        return;
    }
    if (timer->link.next == timer->link.previous) {
        note_empty(timers, timer->link.next); /* both neighbours are the head: it stands alone */
    }
    list_remove(&timer->link);
    timer->deadline_ns = 0;
}

void io_timers_start(struct io_timers *timers, struct io_timer *timer, uint64_t deadline_ns,
                     io_timer_fn on_timer)
{
    CHECK(on_timer != NULL);
    io_timers_stop(timers, timer);
    timer->deadline_ns = deadline_ns == 0 ? 1 : deadline_ns; /* 0 means stopped */
    timer->on_timer = on_timer;
    place(timers, timer);
}

/* The tick at which the next occupied slot of `level` begins, UINT64_MAX without one. */
static uint64_t next_of_level(const struct io_timers *timers, uint32_t level)
{
    uint64_t occupied = timers->occupied[level];
    if (occupied == 0) {
        return UINT64_MAX;
    }
    /* The slot that we stand in was emptied when we entered it: what is in it now is a round on. */
    uint64_t here = timers->tick >> (SLOT_BITS * level);
    uint32_t turn = (uint32_t)(here + 1) % SLOT_COUNT;
    uint64_t turned = turn == 0 ? occupied : occupied >> turn | occupied << (SLOT_COUNT - turn);
    uint64_t slot = here + 1 + (uint64_t)__builtin_ctzll(turned);
    return slot << (SLOT_BITS * level);
}

static uint64_t next_tick(const struct io_timers *timers)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t level = 0; level < LEVEL_COUNT; level++) {
        uint64_t tick = next_of_level(timers, level);
        next = tick < next ? tick : next;
    }
    return next;
}

uint64_t io_timers_next(const struct io_timers *timers)
{
    if (!list_is_empty(&timers->due)) {
        return timers->tick * CLOCK_NS_PER_MS;
    }
    uint64_t tick = next_tick(timers);
    return tick > CLOCK_NEVER / CLOCK_NS_PER_MS ? CLOCK_NEVER : tick * CLOCK_NS_PER_MS;
}

/* Empty the slots that begin at the present tick: what is due becomes due, the rest sinks. */
static void enter_slots(struct io_timers *timers)
{
    for (uint32_t level = 0; level < LEVEL_COUNT; level++) {
        if ((timers->tick & ((UINT64_C(1) << (SLOT_BITS * level)) - 1)) != 0) {
            return; /* no slot of this level, nor of a higher one, begins here */
        }
        uint32_t slot = (uint32_t)(timers->tick >> (SLOT_BITS * level)) % SLOT_COUNT;
        struct list entered;
        list_init(&entered);
        list_move_all(&timers->slots[level][slot], &entered);
        timers->occupied[level] &= ~(UINT64_C(1) << slot);
        for (struct list *node = list_take(&entered); node != NULL; node = list_take(&entered)) {
            place(timers, LIST_OWNER(node, struct io_timer, link));
        }
    }
}

static void advance(struct io_timers *timers, uint64_t tick)
{
    while (timers->tick < tick) {
        uint64_t next = next_tick(timers);
        if (next > tick) {
            timers->tick = tick;
            return;
        }
        timers->tick = next;
        enter_slots(timers);
    }
}

void io_timers_run(struct io_timers *timers, uint64_t now_ns, uint32_t max)
{
    advance(timers, now_ns / CLOCK_NS_PER_MS);
    /* Apart, so that a timer that restarts itself for a time that has passed waits for its turn. */
    list_move_all(&timers->due, &timers->in_run);
    for (uint32_t i = 0; i < max; i++) {
        struct list *node = list_take(&timers->in_run);
        if (node == NULL) {
            return;
        }
        struct io_timer *timer = LIST_OWNER(node, struct io_timer, link);
        timer->deadline_ns = 0;
        timer->on_timer(timer);
    }
    list_move_all(&timers->due, &timers->in_run);
    list_move_all(&timers->in_run, &timers->due);
}

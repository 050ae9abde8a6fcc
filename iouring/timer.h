/*
 * Timers of one thread: a hierarchical wheel of 1 ms ticks. Start, restart and stop are a few list
 * operations whatever the number of timers; the nearest one is found from one bitmap a level.
 *
 * Thread: the owner's. `struct io_timer` is in io.h.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "iouring/io.h"

struct io_timers;

/* A wheel whose time begins at `now_ns`. Errors: ERROR_NO_MEMORY. */
FALLIBLE io_timers_create(uint64_t now_ns, struct io_timers **ret_timers);

/* Timers that still run are forgotten. Accepts NULL. */
void io_timers_destroy(struct io_timers *timers);

/* Call `on_timer` from the first io_timers_run at or after `deadline_ns`, rounded up to whole
 * milliseconds. Restarts a running one; one that is due already runs in the next run. */
void io_timers_start(struct io_timers *timers, struct io_timer *timer, uint64_t deadline_ns,
                     io_timer_fn on_timer);

/* Stop `timer`; nothing happens when it is stopped already. Any timer may be stopped from any
 * callback. */
void io_timers_stop(struct io_timers *timers, struct io_timer *timer);

/*
 * When io_timers_run has work next, CLOCK_NEVER without timers. Never later than the nearest
 * deadline (rounded up); far timers have it earlier now and then, to be sorted finer.
 */
uint64_t io_timers_next(const struct io_timers *timers);

/* Call what is due at `now_ns`, at most `max` timers; the others stay due. Time never goes back. */
void io_timers_run(struct io_timers *timers, uint64_t now_ns, uint32_t max);

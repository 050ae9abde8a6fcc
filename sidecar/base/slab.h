/*
 * Objects of one size and one thread from one reservation of address space: touched lazily, reused
 * last in, first out, never given back before the end. So nothing is allocated in steady state, and
 * the number of objects has a bound that is known at the start.
 *
 * The bytes of an object survive put and take: what it keeps for its next life (an arena's first
 * chunk) it finds again. A fresh object is all zero.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct slab {
    uint8_t *memory; /* owned */
    void *free;      /* the last one put back */
    size_t stride_bytes;
    uint32_t count_max;
    uint32_t touched; /* objects that were taken at least once; their addresses do not change */
    uint32_t used;
    uint32_t fail_after; /* test hook: takes until one fails; 0 = never */
};

/* Reserve room for `count_max` objects of `object_bytes`. Errors: ERROR_NO_MEMORY. */
FALLIBLE slab_init(struct slab *slab, size_t object_bytes, uint32_t count_max);

/* Release the reservation. Objects need not have been put back. Accepts a slab of zeros. */
void slab_finish(struct slab *slab);

/* An object, aligned for any type; NULL when all are in use. */
void *slab_take(struct slab *slab) MUST_USE;

/* Give `object` back; it must have come from `slab` and be in use. */
void slab_put(struct slab *slab, void *object);

/* The `index`th object that was ever taken (index < slab->touched), in use or not: for what must be
 * released at the end. */
void *slab_at(const struct slab *slab, uint32_t index);

/* Is `object`, which came from `slab`, in use? */
bool slab_is_used(const struct slab *slab, const void *object);

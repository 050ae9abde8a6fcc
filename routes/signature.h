/*
 * What a table was compiled from, as words that can be compared: the ports, the routes by address,
 * and what the resolver answered about each of their references. Tables of equal signatures are
 * equal, as long as the objects of one of them are alive. Internal to routes/.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "routes/table.h"

struct route_signature {
    uint64_t *words;
    uint32_t count;
};

/* The signature of what `source` would be compiled to, in `arena`. Errors: ERROR_NO_MEMORY. */
FALLIBLE route_signature_make(const struct route_table_source *source, struct arena *arena,
                              struct route_signature *ret_signature);

/* Same words. */
bool route_signature_equal(const struct route_signature *a, const struct route_signature *b);

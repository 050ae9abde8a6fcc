/*
 * The text of a file before libyaml reads it: is it text at all, and what of JSON is not YAML.
 * Private to yaml.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "routes/resource.h"

/* Why a text is refused, and where. Static texts. */
struct route_encoding_fault {
    struct route_spot at;
    const char *code;
    const char *text;
};

/*
 * Is it UTF-8 without control characters? libyaml would only give an offset. Refused before libyaml
 * reads them are also a word of more than ROUTE_SCALAR_BYTES_MAX and directives beyond count, which
 * it compares each with each. `ret_fault` is written when not.
 */
bool route_encoding_is_sound(struct bytes content, struct route_encoding_fault *ret_fault);

/* Behind a pair that was joined, columns of its line are so many less than in the file. */
struct route_join {
    uint32_t line;
    uint32_t column; /* of what follows the pair, as libyaml counts */
    uint32_t shift;
};

/* Of one text; all zero: nothing was joined. */
struct route_joins {
    uint8_t *text;            /* owned: JSON with its surrogate pairs joined, or NULL */
    struct route_join *items; /* owned: where, in order */
    uint32_t count;
};

/*
 * YAML has no surrogate pairs, JSON has nothing else beyond the basic plane; the rest of JSON is
 * YAML to libyaml. Where `content` is JSON with such pairs it becomes a text in which each is one
 * escape, owned by `joins`. Errors: ERROR_NO_MEMORY; finish in any case.
 */
FALLIBLE route_joins_make(struct route_joins *joins, struct bytes *content);

/* How many columns a place of the joined text lies further on in the file. */
uint32_t route_joins_shift(const struct route_joins *joins, struct route_spot at);

/* Free what they hold. */
void route_joins_finish(struct route_joins *joins);

/*
 * One decoder for every kind: walks a node tree beside a kind's table (schema.h), fills a struct,
 * applies defaults, and says of each mistake where it is and what was meant.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "routes/diagnostic.h"
#include "routes/resource.h"
#include "routes/schema.h"
#include "routes/yaml.h"

enum {
    ROUTE_DECODE_DEPTH_MAX = 24
};

/* A step of the path that messages name: "spec.rules[2].filters[0]". */
struct route_path_step {
    const char *name; /* NULL: an index */
    uint32_t index;
};

struct route_decoder {
    const char *file;
    struct arena *arena; /* of the object */
    struct route_diagnostics *diagnostics;
    const struct route_schema *schema;
    const struct route_object *object;
    enum route_unsupported unsupported; /* worst so far, of what is being decoded */
    uint32_t errors_count;
    bool is_out_of_memory;
    uint32_t depth;
    struct route_path_step path[ROUTE_DECODE_DEPTH_MAX];
};

/*
 * Decode the object at `node` by `schema` into the object's own storage, with one reference.
 * Errors: ERROR_CONFIG with diagnostics; ERROR_NO_MEMORY.
 */
FALLIBLE route_decode(const char *file, const struct route_node *node,
                      const struct route_schema *schema, struct route_diagnostics *diagnostics,
                      const struct route_object **ret_object);

/* ---- For the check functions of the tables (schema_*.c) ---- */

/* Add an error at `node`; the message begins with the path of what is being checked. */
void route_decode_fail(struct route_decoder *decoder, const struct route_node *node,
                       const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Add a warning at `node` likewise. */
void route_decode_warn(struct route_decoder *decoder, const struct route_node *node,
                       const char *code, const char *suggestion, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Check that a mapping has the keys and values of labels. */
void route_decode_labels(struct route_decoder *decoder, const struct route_node *node);

/* Zeroed memory in the object's arena, NULL (and noted) when there is none. */
void *route_decode_alloc(struct route_decoder *decoder, size_t count, size_t size);

/* The place of a node. */
struct route_position route_decode_place(const struct route_decoder *decoder,
                                         const struct route_node *node);

/*
 * YAML and JSON to a tree of nodes that know their place in the file.
 *
 * libyaml's events are read one by one and every bound is checked at each of them: letting libyaml
 * build documents takes seconds for a hundred kilobytes of `[` and expands aliases. What Kubernetes
 * never writes is refused: anchors and aliases, merge keys, tags beyond YAML's own, keys that are
 * not text, the same key twice.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/diagnostic.h"
#include "routes/sections.h"

#define ROUTE_FILE_BYTES_MAX (8u << 20)
#define ROUTE_FILE_NODES_MAX 500000u
#define ROUTE_FILE_DEPTH_MAX 64
#define ROUTE_SCALAR_BYTES_MAX (1u << 20) /* a whole ConfigMap is at most that */
#define ROUTE_KEY_BYTES_MAX 1024 /* managedFields have long ones; libyaml's own bound too */

enum route_node_type {
    ROUTE_NODE_SCALAR,
    ROUTE_NODE_SEQUENCE,
    ROUTE_NODE_MAPPING,
};

struct route_node {
    union {
        const char *text;         /* of a scalar, `count` bytes and a NUL */
        struct route_node *first; /* child of a sequence or mapping, NULL when empty */
    };
    struct route_node *next; /* in the same parent */
    const char *key;         /* within a mapping, else NULL */
    uint32_t count;          /* bytes or children */
    uint32_t line;
    uint32_t column;
    uint32_t key_line;
    uint32_t key_column;
    uint16_t key_bytes;
    uint8_t type;  /* enum route_node_type */
    bool is_plain; /* a scalar without quotes: may be a number, a truth value or null */
};

struct route_yaml;

/*
 * Read `content`, which is borrowed until destroy. `file` is the name for diagnostics, borrowed as
 * well. Errors: ERROR_NO_MEMORY; ERROR_CONFIG with a diagnostic (size, encoding).
 */
FALLIBLE route_yaml_create(const char *file, struct bytes content,
                           struct route_diagnostics *diagnostics, struct route_yaml **ret_yaml);

/*
 * The same for some sections of a file, borrowed as well. Their documents are what they would be in
 * the whole file, with their places there; but when something is refused, its place and text may
 * differ, and only reading the whole file says them as they are.
 */
FALLIBLE route_yaml_create_sections(const char *file, const struct route_section *sections,
                                    uint32_t count, struct route_diagnostics *diagnostics,
                                    struct route_yaml **ret_yaml);

/*
 * The next document as nodes in `arena`, NULL after the last; an empty one is a null.
 * Errors: ERROR_CONFIG with one diagnostic, after which the rest of the file cannot be read;
 * ERROR_NO_MEMORY.
 */
FALLIBLE route_yaml_next(struct route_yaml *yaml, struct arena *arena,
                         const struct route_node **ret_document);

/* Accepts NULL. */
void route_yaml_destroy(struct route_yaml *yaml);

/* Nodes made so far, over all documents. */
uint32_t route_yaml_nodes_count(const struct route_yaml *yaml);

/* The line on which the last document began, its "---" included. */
uint32_t route_yaml_document_line(const struct route_yaml *yaml);

/* The child of a mapping with that key; NULL when there is none or `node` is not a mapping. */
const struct route_node *route_node_find(const struct route_node *node, const char *key);

/* The text of a scalar; {NULL, 0} for anything else. */
struct bytes route_node_text(const struct route_node *node);

/* Is the node absent, empty or `null`? An API server treats these alike. */
bool route_node_is_null(const struct route_node *node);

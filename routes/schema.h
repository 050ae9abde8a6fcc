/*
 * The kinds as tables: for each field its name, type, bounds, default, and where its value goes.
 * One decoder (decode.c) reads all of them; what a table cannot say (relations between fields) is a
 * check function of the type.
 *
 * A test compares these tables with the facts of the upstream definitions (schema_facts.txt).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "routes/resource.h"
#include "routes/text.h"
#include "routes/yaml.h"

struct route_decoder;

enum route_field_type {
    ROUTE_FIELD_STRING,   /* struct bytes */
    ROUTE_FIELD_ENUM,     /* a number of `width` bytes, by `words` */
    ROUTE_FIELD_INT,      /* unsigned, of `width` bytes */
    ROUTE_FIELD_BOOL,     /* bool */
    ROUTE_FIELD_DURATION, /* int64_t milliseconds */
    ROUTE_FIELD_INLINE,   /* a struct within this one */
    ROUTE_FIELD_POINTER,  /* a struct of its own, NULL when absent */
    ROUTE_FIELD_LIST,     /* of structs */
    ROUTE_FIELD_STRINGS,  /* list of struct bytes */
    ROUTE_FIELD_INTS,     /* list of numbers of `width` bytes */
    ROUTE_FIELD_MAP,      /* struct route_label for each key */
    ROUTE_FIELD_KEYS,     /* the same without the values */
    ROUTE_FIELD_CHECKED,  /* left to the type's check function */
    ROUTE_FIELD_IGNORED,  /* known, and of no use here */
};

/* A word of an enumeration; value 0 means: known upstream, but not to us. */
struct route_word {
    const char *word;
    uint32_t value;
};

struct route_type;

struct route_field {
    const char *name;
    enum route_field_type type;
    enum route_text_form form;
    uint16_t offset;
    uint16_t width;        /* bytes of the value, or of one item */
    uint16_t count_offset; /* lists: of the uint32_t count */
    bool is_required;
    bool is_set;      /* STRINGS, INTS: no item twice */
    int64_t min;      /* bytes, value or items */
    int64_t max;      /* 0: no bound */
    int64_t item_min; /* STRINGS: bytes; INTS: value */
    int64_t item_max;
    const struct route_word *words; /* ENUM; STRING, STRINGS and INT: other values are unsupported;
                                       ends with a NULL word */
    const struct route_type *of;    /* INLINE, POINTER, LIST */
    const char *default_text;       /* as YAML would write it */
    const char *key;                /* LIST: this field of each item is different */
};

struct route_type {
    const char *name;
    uint16_t size;
    bool has_position; /* begins with a struct route_position */
    bool is_open;      /* fields that the table does not have are nobody's business (core kinds are
                          large) */
    const struct route_field *fields;
    uint16_t fields_count;
    /* What is not a matter of one field; after all fields were read. */
    void (*check)(struct route_decoder *decoder, const struct route_node *node, void *object);
};

/* One kind in one or more versions. */
struct route_schema {
    const char *group;
    const char *kind_name;
    const char *versions; /* separated by blanks, the preferred one first */
    const struct route_type *type;
    enum route_kind kind;
    bool is_cluster_scoped;
    bool is_strict; /* our own kinds: an unknown field or value is an error, for a policy must not
                       mean less than it says */
};

/* All of them. */
const struct route_schema *route_schemas(size_t *ret_count);

/* The schema of that group, kind and version, or NULL. */
const struct route_schema *route_schema_find(struct bytes group, struct bytes kind,
                                             struct bytes version);

/* Is it a kind that people keep beside ours and that has no role in a sidecar (Gateway, Deployment,
 * …)? */
bool route_schema_is_foreign(struct bytes group, struct bytes kind);

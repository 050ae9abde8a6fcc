/*
 * Parsing one file: documents to objects, with what was said about each. An object that says the
 * same at the same place as in the file's last state is that object; everything else is decoded.
 */
#include "routes/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/check.h"
#include "routes/decode.h"
#include "routes/index.h"
#include "routes/schema.h"
#include "routes/text.h"
#include "routes/unserved.h"
#include "routes/yaml.h"

enum {
    NODES_ARENA_CHUNK_BYTES = 256 << 10,
};

#define NODES_ARENA_BYTES_MAX ((size_t)1 << 30)

/* A file while it is parsed. */
struct parser {
    const struct route_source_options *options;
    struct route_source_file *source;
};

static struct error no_memory(void)
{
    return error_make(ERROR_NO_MEMORY, 0);
}

void route_source_ref(struct route_source_file *source)
{
    /* tidy: allow crossing: configurations share files; whoever drops the last one frees them */
    __atomic_fetch_add(&source->refs, 1, __ATOMIC_RELAXED);
}

void route_source_unref(struct route_source_file *source)
{
    /* tidy: allow crossing: as above */
    if (source == NULL || __atomic_fetch_sub(&source->refs, 1, __ATOMIC_ACQ_REL) != 1) {
        return;
    }
    for (uint32_t i = 0; i < source->count; i++) {
        route_object_unref(source->objects[i].object);
    }
    free(source->objects);
    free(source->name);
    route_diagnostics_finish(&source->diagnostics);
    free(source);
}

static struct route_source_file *source_create(const struct route_file *file)
{
    struct route_source_file *source = calloc(1, sizeof(*source));
    if (source == NULL) {
        return NULL;
    }
    source->refs = 1;
    memcpy(source->digest, file->digest, sizeof(source->digest));
    route_diagnostics_init(&source->diagnostics);
    source->name = strdup(file->name);
    if (source->name == NULL) {
        route_source_unref(source);
        return NULL;
    }
    return source;
}

static void mix(uint64_t content[2], const void *data, size_t size)
{
    struct bytes bytes = bytes_make(data, size);
    for (; bytes.size > 0; bytes = bytes_skip(bytes, bytes.size < 8 ? bytes.size : 8)) {
        uint64_t word = 0;
        memcpy(&word, bytes.data, bytes.size < 8 ? bytes.size : 8);
        content[0] = (content[0] ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        content[0] ^= content[0] >> 29;
        content[1] = (content[1] + word) * UINT64_C(0xbf58476d1ce4e5b9);
        content[1] ^= content[1] >> 31;
    }
    content[1] += size;
}

/* What a part of an object says, whatever its layout (keys and texts, in order), and where it
 * stands. Iterative: depth is bounded by the parser. */
static void digest_part(const struct route_node *root, struct route_source_object *item)
{
    const struct route_node *path[ROUTE_FILE_DEPTH_MAX + 1];
    uint32_t depth = 0;
    for (const struct route_node *node = root; node != NULL;) {
        const uint8_t looks[2] = {node->type, node->is_plain};
        const uint32_t place[4] = {node->line, node->column, node->key_line, node->key_column};
        mix(item->content, looks, sizeof(looks));
        mix(item->content, node->key == NULL ? "" : node->key, node->key_bytes);
        mix(item->place, place, sizeof(place));
        if (node->type == ROUTE_NODE_SCALAR) {
            mix(item->content, node->text, node->count);
        } else if (node->first != NULL) {
            CHECK(depth <= ROUTE_FILE_DEPTH_MAX);
            path[depth++] = node;
            node = node->first;
            continue;
        }
        while (node != root && node->next == NULL && depth > 0) {
            node = path[--depth];
            mix(item->content, "]", 1);
        }
        node = node == root ? NULL : node->next;
    }
}

/* All parts that are read: not the status, and not the metadata that changes with every write. */
static void digest_object(const struct route_node *node, struct route_source_object *item)
{
    static const char *const read[] = {"name", "namespace", "labels", "creationTimestamp"};
    const uint32_t place[2] = {node->line, node->column};
    item->content[0] = item->content[1] = 1;
    item->place[0] = item->place[1] = 1;
    mix(item->place, place, sizeof(place));
    for (const struct route_node *part = node->first; part != NULL; part = part->next) {
        if (strcmp(part->key, "status") == 0) {
            continue;
        }
        if (strcmp(part->key, "metadata") != 0 || part->type != ROUTE_NODE_MAPPING) {
            digest_part(part, item);
            continue;
        }
        for (size_t i = 0; i < sizeof(read) / sizeof(read[0]); i++) {
            const struct route_node *field = route_node_find(part, read[i]);
            if (field != NULL) {
                digest_part(field, item);
            }
        }
    }
}

static struct error source_add(struct route_source_file *source,
                               const struct route_source_object *item)
{
    if (source->count == source->capacity) {
        uint32_t capacity = source->capacity * 2 + 16;
        struct route_source_object *objects = realloc(source->objects, capacity * sizeof(*objects));
        if (objects == NULL) {
            return no_memory();
        }
        source->objects = objects;
        source->capacity = capacity;
    }
    source->objects[source->count++] = *item;
    return OK;
}

/*
 * Take the object from the file's last state, with what was said about it, when it says the same at
 * the same place. What stands before the first change of a file has kept its index; what comes
 * after it has moved, and is decoded again for its places.
 */
static bool share_object(const struct parser *parser, struct route_source_object *item)
{
    struct route_source_file *source = parser->source;
    const struct route_source_file *previous = parser->options->previous;
    if (previous == NULL || source->count >= previous->count) {
        return false;
    }
    const struct route_source_object *candidate = &previous->objects[source->count];
    if (memcmp(candidate->content, item->content, sizeof(item->content)) != 0 ||
        memcmp(candidate->place, item->place, sizeof(item->place)) != 0) {
        return false;
    }
    for (uint32_t i = candidate->findings_begin; i < candidate->findings_end; i++) {
        const struct route_diagnostic *found = &previous->diagnostics.items[i];
        route_diagnostics_add(&source->diagnostics, found->severity, found->position, found->code,
                              found->suggestion, "%s", found->message);
    }
    item->object = candidate->object;
    item->findings_end = source->diagnostics.count;
    route_object_ref(item->object);
    return true;
}

/* ---- documents ---- */

static struct route_position place_of(const struct route_source_file *source,
                                      const struct route_node *node)
{
    return (struct route_position){
        .file = source->name, .line = node->line, .column = node->column};
}

static bool is_route(enum route_kind kind)
{
    return kind >= ROUTE_KIND_HTTP_ROUTE && kind <= ROUTE_KIND_UDP_ROUTE;
}

/* --invalid-objects skip: what is wrong with a single route is told, and the route is left out. */
static void downgrade(struct route_source_file *source, const struct route_diagnostics *found)
{
    for (uint32_t i = 0; i < found->count; i++) {
        const struct route_diagnostic *item = &found->items[i];
        route_diagnostics_add(&source->diagnostics, ROUTE_SEVERITY_WARNING, item->position,
                              item->code, item->suggestion, "%s (the object is left out)",
                              item->message);
    }
}

/* Decode; NULL without an error: the object was refused, and the source's diagnostics say why. */
static struct error decode_object(struct parser *parser, const struct route_node *node,
                                  const struct route_schema *schema,
                                  const struct route_object **ret_object)
{
    struct route_source_file *source = parser->source;
    struct route_diagnostics found;
    route_diagnostics_init(&found);
    struct error error = route_decode(source->name, node, schema, &found, ret_object);
    bool is_skipped = error.code == ERROR_CONFIG && parser->options->skip_invalid_objects &&
                      is_route(schema->kind);
    if (is_skipped) {
        downgrade(source, &found);
    } else {
        route_diagnostics_append(&source->diagnostics, &found);
    }
    route_diagnostics_finish(&found);
    /* A refused object ends nothing: the user wants to hear of all mistakes at once. */
    return error.code == ERROR_CONFIG ? OK : error;
}

static struct error take_object(struct parser *parser, const struct route_node *node,
                                const struct route_schema *schema)
{
    struct route_source_file *source = parser->source;
    struct route_source_object item = {.findings_begin = source->diagnostics.count};
    digest_object(node, &item);
    if (!share_object(parser, &item)) {
        TRY(decode_object(parser, node, schema, &item.object));
        if (item.object == NULL) {
            return OK;
        }
        route_unserved_check(item.object, &source->diagnostics);
        item.findings_end = source->diagnostics.count;
        source->decoded_count++;
    }
    item.name = route_name_hash(item.object->kind, item.object->namespace, item.object->name);
    struct error error = source_add(source, &item);
    if (error_is(error)) {
        route_object_unref(item.object);
    }
    return error;
}

static void complain(struct route_source_file *source, const struct route_node *node,
                     const char *code, const char *text)
{
    route_diagnostics_add(&source->diagnostics, ROUTE_SEVERITY_ERROR, place_of(source, node), code,
                          NULL, "%s", text);
}

/* The kind, or else the version, that was probably meant; NULL: no idea. */
static const char *suggest_kind(struct bytes group, struct bytes kind, char *out, size_t size)
{
    size_t count = 0;
    const struct route_schema *schemas = route_schemas(&count);
    uint32_t best = ROUTE_TEXT_FAR;
    const char *suggestion = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct route_schema *schema = &schemas[i];
        bool is_kind = bytes_equal(kind, bytes_from_string(schema->kind_name));
        if (is_kind && best != 0) {
            size_t version = strcspn(schema->versions, " ");
            snprintf(out, size, "apiVersion: %s%s%.*s", schema->group,
                     schema->group[0] == '\0' ? "" : "/", (int)version, schema->versions);
            suggestion = out;
            best = 0;
        } else if (bytes_equal(group, bytes_from_string(schema->group)) &&
                   route_text_is_nearer(kind, bytes_from_string(schema->kind_name), &best)) {
            snprintf(out, size, "kind: %s", schema->kind_name);
            suggestion = out;
        }
    }
    return suggestion;
}

static void warn_unknown(struct route_source_file *source, const struct route_node *node,
                         struct bytes version, struct bytes group, struct bytes kind)
{
    char suggestion[160];
    route_diagnostics_add(&source->diagnostics, ROUTE_SEVERITY_WARNING, place_of(source, node),
                          "unknown-kind", suggest_kind(group, kind, suggestion, sizeof(suggestion)),
                          "kind %.*s of %.*s is not known here and is ignored", (int)kind.size,
                          (const char *)kind.data, (int)version.size, (const char *)version.data);
}

static bool ends_with(struct bytes text, struct bytes ending)
{
    return text.size >= ending.size &&
           bytes_equal(bytes_skip(text, text.size - ending.size), ending);
}

/* One object: which kind is it? Lists were taken apart by the caller. */
static struct error load_object(struct parser *parser, const struct route_node *node)
{
    struct route_source_file *source = parser->source;
    if (node->type != ROUTE_NODE_MAPPING) {
        complain(source, node, "not-an-object",
                 "an object is a mapping with apiVersion, kind and metadata");
        return OK;
    }
    struct bytes api_version = route_node_text(route_node_find(node, "apiVersion"));
    struct bytes kind = route_node_text(route_node_find(node, "kind"));
    if (api_version.size == 0 || kind.size == 0) {
        complain(source, node, "no-kind",
                 api_version.size == 0 ? "apiVersion is missing" : "kind is missing");
        return OK;
    }
    struct bytes version = api_version;
    struct bytes group = bytes_split(&version, '/');
    if (version.data == NULL) {
        version = group; /* core: "v1" */
        group = BYTES("");
    }
    const struct route_schema *schema = route_schema_find(group, kind, version);
    if (schema != NULL) {
        return take_object(parser, node, schema);
    }
    if (!route_schema_is_foreign(group, kind)) {
        warn_unknown(source, node, api_version, group, kind);
    }
    return OK;
}

/* One document: an object, or a List of them (also HTTPRouteList and its like). */
static struct error load_document(struct parser *parser, const struct route_node *document)
{
    struct bytes kind = route_node_text(route_node_find(document, "kind"));
    const struct route_node *items = route_node_find(document, "items");
    if (!ends_with(kind, BYTES("List"))) {
        return load_object(parser, document);
    }
    if (route_node_is_null(items)) {
        return OK;
    }
    if (items->type != ROUTE_NODE_SEQUENCE) {
        complain(parser->source, items, "wrong-type", "items must be a list");
        return OK;
    }
    for (const struct route_node *item = items->first; item != NULL; item = item->next) {
        TRY(load_object(parser, item));
    }
    return OK;
}

static struct error parse_documents(struct parser *parser, struct route_yaml *yaml)
{
    struct arena arena;
    arena_init(&arena, NODES_ARENA_CHUNK_BYTES, NODES_ARENA_BYTES_MAX);
    struct error error;
    for (;;) {
        const struct route_node *document = NULL;
        error = route_yaml_next(yaml, &arena, &document);
        if (error_is(error) || document == NULL) {
            break;
        }
        error = load_document(parser, document);
        if (error_is(error) || parser->source->diagnostics.errors_count > ROUTE_DIAGNOSTICS_MAX) {
            break; /* more mistakes than are shown: a million more would only take time */
        }
        arena_reset(&arena);
    }
    arena_finish(&arena);
    return error;
}

static struct error parse(struct parser *parser, const struct route_file *file)
{
    struct route_source_file *source = parser->source;
    struct route_yaml *yaml = NULL;
    struct error error =
        route_yaml_create(source->name, file->content, &source->diagnostics, &yaml);
    if (!error_is(error)) {
        error = parse_documents(parser, yaml);
        source->nodes_count = route_yaml_nodes_count(yaml);
    }
    route_yaml_destroy(yaml);
    return error.code == ERROR_CONFIG ? OK : error; /* the diagnostics say it */
}

FALLIBLE route_source_parse(const struct route_source_options *options,
                            const struct route_file *file, struct route_source_file **ret_source)
{
    struct parser parser = {.options = options, .source = source_create(file)};
    if (parser.source == NULL) {
        return no_memory();
    }
    struct error error = parse(&parser, file);
    if (error_is(error)) {
        route_source_unref(parser.source);
        return error;
    }
    *ret_source = parser.source;
    return OK;
}

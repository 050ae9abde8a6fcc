/*
 * Parsing one file: documents to objects, with what was said about each. A walk over the sections
 * of the file beside those of its last state decides what is parsed at all.
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
#include "routes/sections.h"
#include "routes/text.h"
#include "routes/unserved.h"
#include "routes/yaml.h"

enum {
    NODES_ARENA_CHUNK_BYTES = 256 << 10,
};

#define NODES_ARENA_BYTES_MAX ((size_t)1 << 30)

/* Some documents of the file's last state: a range. */
struct range {
    uint32_t begin;
    uint32_t end;
};

/* A file while it is parsed. */
struct parser {
    const struct route_source_options *options;
    struct route_source_file *source;
    const struct route_source_file *previous; /* NULL: nothing is shared */
    struct range twin; /* of `previous`: the objects of the document on the same line */
    uint32_t twin_document;
    bool is_stopped;
};

static struct error no_memory(void)
{
    return error_make(ERROR_NO_MEMORY, 0);
}

/* As it was before it was parsed. */
static void clear(struct route_source_file *source)
{
    for (uint32_t i = 0; i < source->count; i++) {
        route_object_unref(source->objects[i].object);
    }
    source->count = 0;
    source->documents_count = 0;
    source->nodes_count = 0;
    source->decoded_count = 0;
    route_diagnostics_finish(&source->diagnostics);
    route_diagnostics_init(&source->diagnostics);
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
    clear(source);
    free(source->objects);
    free(source->documents);
    free(source->name);
    free((void *)(uintptr_t)source->content.data); /* owned, whatever its type says */
    route_diagnostics_finish(&source->diagnostics);
    free(source);
}

static struct route_source_file *source_create(struct route_file *file)
{
    struct route_source_file *source = calloc(1, sizeof(*source));
    if (source == NULL) {
        return NULL;
    }
    source->refs = 1;
    route_diagnostics_init(&source->diagnostics);
    source->name = strdup(file->name);
    if (source->name == NULL) {
        route_source_unref(source);
        return NULL;
    }
    source->content = route_file_take(file);
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

/* Metadata: what is read of it. Annotations are only checked, and of the rest only the names, so
 * these say nothing but must stay as they are for sharing. */
static void digest_metadata(const struct route_node *metadata, struct route_source_object *item)
{
    static const char *const read[] = {"name", "namespace", "labels", "creationTimestamp"};
    for (size_t i = 0; i < sizeof(read) / sizeof(read[0]); i++) {
        const struct route_node *field = route_node_find(metadata, read[i]);
        if (field != NULL) {
            digest_part(field, item);
        }
    }
    for (const struct route_node *field = metadata->first; field != NULL; field = field->next) {
        const uint32_t place[2] = {field->key_line, field->key_column};
        mix(item->place, field->key, field->key_bytes);
        mix(item->place, place, sizeof(place));
        if (strcmp(field->key, "annotations") == 0) {
            struct route_source_object aside = {0};
            digest_part(field, &aside);
            mix(item->place, aside.content, sizeof(aside.content));
            mix(item->place, aside.place, sizeof(aside.place));
        }
    }
}

/* All parts that are read: not the status, and not the metadata that changes with every write. */
static void digest_object(const struct route_node *node, struct route_source_object *item)
{
    const uint32_t place[2] = {node->line, node->column};
    item->content[0] = item->content[1] = 1;
    item->place[0] = item->place[1] = 1;
    mix(item->place, place, sizeof(place));
    for (const struct route_node *part = node->first; part != NULL; part = part->next) {
        if (strcmp(part->key, "status") == 0) {
            const uint32_t key_place[2] = {part->key_line, part->key_column};
            mix(item->place, key_place, sizeof(key_place)); /* kinds without one are told of it */
        } else if (strcmp(part->key, "metadata") == 0 && part->type == ROUTE_NODE_MAPPING) {
            digest_metadata(part, item);
        } else {
            digest_part(part, item);
        }
    }
}

/* ---- what the source is made of ---- */

/* Room for one more item of an array. */
static struct error make_room(void **items, uint32_t count, uint32_t *capacity, size_t size)
{
    if (count < *capacity) {
        return OK;
    }
    uint32_t wider = *capacity * 2 + 16;
    void *memory = realloc(*items, wider * size);
    if (memory == NULL) {
        return no_memory();
    }
    *items = memory;
    *capacity = wider;
    return OK;
}

static struct error add_object(struct route_source_file *source,
                               const struct route_source_object *item)
{
    void *objects = source->objects;
    TRY(make_room(&objects, source->count, &source->capacity, sizeof(*item)));
    source->objects = objects;
    source->objects[source->count++] = *item;
    return OK;
}

static struct error add_document(struct route_source_file *source, uint32_t line,
                                 uint32_t nodes_count)
{
    void *documents = source->documents;
    TRY(make_room(&documents, source->documents_count, &source->documents_capacity,
                  sizeof(*source->documents)));
    source->documents = documents;
    source->documents[source->documents_count++] =
        (struct route_source_document){.line = line,
                                       .objects_begin = source->count,
                                       .findings_begin = source->diagnostics.count,
                                       .nodes_count = nodes_count};
    return OK;
}

/* What belongs to a document: up to the next one's. */
static struct range objects_of(const struct route_source_file *source, uint32_t document)
{
    return (struct range){source->documents[document].objects_begin,
                          document + 1 < source->documents_count
                              ? source->documents[document + 1].objects_begin
                              : source->count};
}

static struct range findings_of(const struct route_source_file *source, uint32_t document)
{
    return (struct range){source->documents[document].findings_begin,
                          document + 1 < source->documents_count
                              ? source->documents[document + 1].findings_begin
                              : source->diagnostics.count};
}

/* Say again what was said in the file's last state. */
static void repeat_findings(struct parser *parser, struct range findings)
{
    for (uint32_t i = findings.begin; i < findings.end; i++) {
        const struct route_diagnostic *found = &parser->previous->diagnostics.items[i];
        route_diagnostics_add(&parser->source->diagnostics, found->severity, found->position,
                              found->code, found->suggestion, "%s", found->message);
    }
}

/* ---- what is shared with the file's last state ---- */

/* A document that need not be parsed: it says the same on the same line. */
static struct error take_document(struct parser *parser, uint32_t document)
{
    struct route_source_file *source = parser->source;
    const struct route_source_document *past = &parser->previous->documents[document];
    struct range objects = objects_of(parser->previous, document);
    uint32_t shift = source->diagnostics.count - past->findings_begin;
    TRY(add_document(source, past->line, past->nodes_count));
    repeat_findings(parser, findings_of(parser->previous, document));
    for (uint32_t i = objects.begin; i < objects.end; i++) {
        struct route_source_object item = parser->previous->objects[i];
        item.findings_begin += shift;
        item.findings_end += shift;
        TRY(add_object(source, &item));
        route_object_ref(item.object);
    }
    source->nodes_count += past->nodes_count;
    return OK;
}

/* A document is about to be parsed: its objects will be compared with those of the document that
 * began on the same line. */
static void find_twin(struct parser *parser, uint32_t line)
{
    const struct route_source_file *previous = parser->previous;
    parser->twin = (struct range){0};
    if (previous == NULL) {
        return;
    }
    while (parser->twin_document < previous->documents_count &&
           previous->documents[parser->twin_document].line < line) {
        parser->twin_document++;
    }
    if (parser->twin_document < previous->documents_count &&
        previous->documents[parser->twin_document].line == line) {
        parser->twin = objects_of(previous, parser->twin_document);
    }
}

/*
 * Take an object from the file's last state, with what was said about it, when it says the same at
 * the same place. The objects of a list that stand before its first change have kept their number;
 * what comes after it has moved, and is decoded again for its places.
 */
static bool share_object(struct parser *parser, struct route_source_object *item)
{
    if (parser->twin.begin == parser->twin.end) {
        return false;
    }
    const struct route_source_object *past = &parser->previous->objects[parser->twin.begin++];
    if (memcmp(past->content, item->content, sizeof(item->content)) != 0 ||
        memcmp(past->place, item->place, sizeof(item->place)) != 0) {
        return false;
    }
    repeat_findings(parser, (struct range){past->findings_begin, past->findings_end});
    item->object = past->object;
    item->findings_end = parser->source->diagnostics.count;
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
    struct error error = add_object(source, &item);
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

/* apiVersion or kind is missing: perhaps a key is meant to be it. */
static void complain_of_missing(struct route_source_file *source, const struct route_node *node,
                                const char *name)
{
    struct route_position position = place_of(source, node);
    const char *suggestion = NULL;
    uint32_t best = ROUTE_TEXT_FAR;
    for (const struct route_node *child = node->first; child != NULL; child = child->next) {
        struct bytes key = bytes_make(child->key, child->key_bytes);
        if (route_text_is_nearer(key, bytes_from_string(name), &best) && !bytes_is(key, name)) {
            position.line = child->key_line;
            position.column = child->key_column;
            suggestion = name;
        }
    }
    route_diagnostics_add(&source->diagnostics, ROUTE_SEVERITY_ERROR, position, "no-kind",
                          suggestion, "%s is missing", name);
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
        complain_of_missing(source, node, api_version.size == 0 ? "apiVersion" : "kind");
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

/* ---- files ---- */

/* What of the file is parsed, and what stands between. */
struct plan {
    struct route_section *sections; /* to be parsed; none: the whole file */
    uint32_t sections_count;
    struct range *kept; /* before each of them and after the last: documents of the last state */
};

static void plan_finish(struct plan *plan)
{
    free(plan->sections);
    free(plan->kept);
}

static bool is_same_section(const struct route_section *a, const struct route_section *b)
{
    return a->line == b->line && bytes_equal(a->text, b->text);
}

/* Sort the sections of the file into those that are kept and those that are parsed. */
static void compare_sections(const struct parser *parser, const struct route_sections *past,
                             const struct route_sections *now, struct plan *plan)
{
    const struct route_source_file *previous = parser->previous;
    uint32_t at = 0;
    uint32_t document = 0;
    for (uint32_t i = 0; i < now->count; i++) {
        const struct route_section *section = &now->items[i];
        while (at < past->count && past->items[at].line < section->line) {
            at++;
        }
        while (document < previous->documents_count &&
               previous->documents[document].line < section->line) {
            document++;
        }
        if (at == past->count || !is_same_section(&past->items[at], section)) {
            plan->sections[plan->sections_count++] = *section;
            plan->kept[plan->sections_count] = (struct range){0};
            continue;
        }
        struct range *kept = &plan->kept[plan->sections_count];
        kept->begin = kept->begin == kept->end ? document : kept->begin;
        while (document < previous->documents_count &&
               previous->documents[document].line < section->line + section->lines_count) {
            document++;
        }
        kept->end = document;
    }
}

/* A plan that shares sections, or one that parses everything. */
static struct error make_plan(struct parser *parser, struct plan *plan)
{
    struct route_sections past = {0};
    struct route_sections now = {0};
    struct error error = route_sections_divide(parser->source->content, &now);
    if (!error_is(error) && now.count > 0) {
        error = route_sections_divide(parser->previous->content, &past);
    }
    if (!error_is(error) && past.count > 0) {
        plan->sections = calloc(now.count, sizeof(*plan->sections));
        plan->kept = calloc((size_t)now.count + 1, sizeof(*plan->kept));
        if (plan->sections == NULL || plan->kept == NULL) {
            error = no_memory();
        } else {
            compare_sections(parser, &past, &now, plan);
        }
    }
    route_sections_finish(&past);
    route_sections_finish(&now);
    return error;
}

static struct error take_documents(struct parser *parser, struct range documents)
{
    for (uint32_t i = documents.begin; i < documents.end; i++) {
        TRY(take_document(parser, i));
    }
    return OK;
}

/* Parse the next document; `ret_is_last`: there is none, or none is wanted. */
static struct error parse_document(struct parser *parser, struct route_yaml *yaml,
                                   const struct plan *plan, uint32_t *section, struct arena *arena,
                                   bool *ret_is_last)
{
    CHECK(plan->sections_count == 0 || (plan->sections != NULL && plan->kept != NULL));
    struct route_source_file *source = parser->source;
    const struct route_node *document = NULL;
    uint32_t before = route_yaml_nodes_count(yaml);
    TRY(route_yaml_next(yaml, arena, &document));
    *ret_is_last = document == NULL;
    uint32_t line = document == NULL ? UINT32_MAX : route_yaml_document_line(yaml);
    while (*section < plan->sections_count && plan->sections[*section].line <= line) {
        TRY(take_documents(parser, plan->kept[*section]));
        (*section)++;
    }
    if (document == NULL) {
        return OK;
    }
    uint32_t nodes = route_yaml_nodes_count(yaml) - before;
    find_twin(parser, line);
    TRY(add_document(source, line, nodes));
    source->nodes_count += nodes;
    if (!route_node_is_null(document)) {
        TRY(load_document(parser, document));
    }
    /* More mistakes than are shown: a million more would only take time. */
    parser->is_stopped = source->diagnostics.errors_count > ROUTE_DIAGNOSTICS_MAX;
    *ret_is_last = parser->is_stopped;
    return OK;
}

static struct error parse_documents(struct parser *parser, struct route_yaml *yaml,
                                    const struct plan *plan)
{
    struct arena arena;
    struct error error = OK;
    uint32_t section = 0;
    bool is_last = false;
    arena_init(&arena, NODES_ARENA_CHUNK_BYTES, NODES_ARENA_BYTES_MAX);
    while (!is_last && !error_is(error)) {
        error = parse_document(parser, yaml, plan, &section, &arena, &is_last);
        arena_reset(&arena);
    }
    arena_finish(&arena);
    return error;
}

/* Parse as planned. Errors: ERROR_CONFIG, ERROR_NO_MEMORY. */
static struct error parse_planned(struct parser *parser, const struct plan *plan)
{
    struct route_source_file *source = parser->source;
    struct route_yaml *yaml = NULL;
    struct error error;
    if (plan->sections == NULL) {
        error = route_yaml_create(source->name, source->content, &source->diagnostics, &yaml);
    } else {
        error = route_yaml_create_sections(source->name, plan->sections, plan->sections_count,
                                           &source->diagnostics, &yaml);
    }
    if (!error_is(error)) {
        error = parse_documents(parser, yaml, plan);
    }
    if (!error_is(error) && plan->kept != NULL && !parser->is_stopped) {
        error = take_documents(parser, plan->kept[plan->sections_count]);
    }
    route_yaml_destroy(yaml);
    bool is_over = source->nodes_count > ROUTE_FILE_NODES_MAX;
    return !error_is(error) && is_over ? error_make(ERROR_CONFIG, 0) : error;
}

static struct error parse(struct parser *parser)
{
    struct plan plan = {0};
    struct error error = parser->previous == NULL ? OK : make_plan(parser, &plan);
    if (!error_is(error)) {
        error = parse_planned(parser, &plan);
    }
    if (error.code == ERROR_CONFIG && plan.sections != NULL) {
        clear(parser->source);
        parser->previous = NULL;
        parser->twin = (struct range){0};
        error = parse_planned(parser, &(struct plan){0});
    }
    plan_finish(&plan);
    return error.code == ERROR_CONFIG ? OK : error; /* the diagnostics say it */
}

/* The state to share with: one whose findings are all there. */
static const struct route_source_file *usable_state(const struct route_source_file *previous)
{
    bool is_whole = previous != NULL &&
                    previous->diagnostics.errors_count + previous->diagnostics.warnings_count ==
                        previous->diagnostics.count;
    return is_whole ? previous : NULL;
}

FALLIBLE route_source_parse(const struct route_source_options *options, struct route_file *file,
                            struct route_source_file **ret_source)
{
    struct parser parser = {.options = options,
                            .source = source_create(file),
                            .previous = usable_state(options->previous)};
    if (parser.source == NULL) {
        return no_memory();
    }
    struct error error = parse(&parser);
    if (error_is(error)) {
        route_source_unref(parser.source);
        return error;
    }
    *ret_source = parser.source;
    return OK;
}

/*
 * From files to a configuration. The order: read all files; parse those whose bytes are new; gather
 * the objects and see that none is there twice; build Services; attach; compile what changed.
 *
 * Sharing: a `source` is a parsed file, reference counted, and its objects keep their identity as
 * long as its bytes do. A Service's table is kept when its `signature` is the same: the addresses
 * of the objects that it was compiled from and what the resolver answered about each of their
 * references. The previous configuration is alive meanwhile, so equal addresses are equal objects.
 */
#include "routes/load.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/sha256.h"
#include "routes/decode.h"
#include "routes/files.h"
#include "routes/schema.h"
#include "routes/text.h"
#include "routes/yaml.h"

enum {
    CONFIG_ARENA_CHUNK_BYTES = 64 << 10,
    NODES_ARENA_CHUNK_BYTES = 256 << 10,
    HASH_BYTES = 6, /* of the digest, printed */
};

#define CONFIG_ARENA_BYTES_MAX ((size_t)2 << 30)
#define NODES_ARENA_BYTES_MAX ((size_t)1 << 30)

/* An object and what its text was, to tell a repetition from a contradiction. */
struct source_object {
    const struct route_object *object; /* one reference is owned */
    uint64_t content[2];               /* what it says */
    uint64_t place[2];                 /* and where each part of it stands */
    uint32_t findings_begin;           /* its part of the source's diagnostics */
    uint32_t findings_end;
};

/* One parsed file. */
struct source {
    _Atomic uint32_t refs; /* configurations, which any thread may let go */
    char *name;
    uint8_t digest[SHA256_BYTES];
    struct source_object *objects;
    uint32_t count;
    uint32_t capacity;
    uint32_t nodes_count;
    bool is_refused;               /* its diagnostics have errors: never shared */
    const struct source *previous; /* the file's last state; borrowed while it is parsed */
    struct route_diagnostics diagnostics;
};

/* What a Service's table was compiled from. */
struct signature {
    uint64_t *words;
    uint32_t count;
};

struct route_config {
    _Atomic uint32_t refs; /* snapshots, which any thread may let go */
    struct arena arena;
    struct source **sources;
    uint32_t sources_count;
    const struct route_object **objects; /* borrowed from the sources */
    uint32_t objects_count;
    struct route_index *index;
    struct route_services *services;
    struct route_attachments *attachments;
    const struct route_table **tables; /* by Service; one reference each, or NULL */
    struct signature *signatures;
    struct route_load_stats stats;
    char hash[ROUTE_CONFIG_HASH_BYTES];
};

struct loader {
    const struct route_load_options *options;
    const struct route_config *previous;
    struct route_diagnostics *diagnostics;
    struct route_config *config;
    uint64_t nodes_count;
};

static struct error no_memory(void)
{
    return error_make(ERROR_NO_MEMORY, 0);
}

/* ---- sources ---- */

static void source_unref(struct source *source)
{
    if (source == NULL || atomic_fetch_sub_explicit(&source->refs, 1, memory_order_acq_rel) != 1) {
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

static struct source *source_create(const struct route_file *file)
{
    struct source *source = calloc(1, sizeof(*source));
    if (source == NULL) {
        return NULL;
    }
    source->refs = 1;
    memcpy(source->digest, file->digest, sizeof(source->digest));
    route_diagnostics_init(&source->diagnostics);
    source->name = strdup(file->name);
    if (source->name == NULL) {
        source_unref(source);
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
static void digest_part(const struct route_node *root, struct source_object *item)
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
static void digest_object(const struct route_node *node, struct source_object *item)
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

static struct error source_add(struct source *source, const struct source_object *item)
{
    if (source->count == source->capacity) {
        uint32_t capacity = source->capacity * 2 + 16;
        struct source_object *objects = realloc(source->objects, capacity * sizeof(*objects));
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
static bool share_object(struct source *source, struct source_object *item)
{
    const struct source *previous = source->previous;
    if (previous == NULL || source->count >= previous->count) {
        return false;
    }
    const struct source_object *candidate = &previous->objects[source->count];
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

static struct route_position place_of(const struct source *source, const struct route_node *node)
{
    return (struct route_position){
        .file = source->name, .line = node->line, .column = node->column};
}

static bool is_route(enum route_kind kind)
{
    return kind >= ROUTE_KIND_HTTP_ROUTE && kind <= ROUTE_KIND_UDP_ROUTE;
}

/* --invalid-objects skip: what is wrong with a single route is told, and the route is left out. */
static void downgrade(struct source *source, const struct route_diagnostics *found)
{
    for (uint32_t i = 0; i < found->count; i++) {
        const struct route_diagnostic *item = &found->items[i];
        route_diagnostics_add(&source->diagnostics, ROUTE_SEVERITY_WARNING, item->position,
                              item->code, item->suggestion, "%s (the object is left out)",
                              item->message);
    }
}

/* Decode; NULL without an error: the object was refused, and the source's diagnostics say why. */
static struct error decode_object(const struct loader *loader, struct source *source,
                                  const struct route_node *node, const struct route_schema *schema,
                                  const struct route_object **ret_object)
{
    struct route_diagnostics found;
    route_diagnostics_init(&found);
    struct error error = route_decode(source->name, node, schema, &found, ret_object);
    bool is_skipped = error.code == ERROR_CONFIG && loader->options->skip_invalid_objects &&
                      is_route(schema->kind);
    if (is_skipped) {
        downgrade(source, &found);
    } else {
        route_diagnostics_append(&source->diagnostics, &found);
        source->is_refused = source->is_refused || error.code == ERROR_CONFIG;
    }
    route_diagnostics_finish(&found);
    /* A refused object ends nothing: the user wants to hear of all mistakes at once. */
    return error.code == ERROR_CONFIG ? OK : error;
}

static struct error take_object(const struct loader *loader, struct source *source,
                                const struct route_node *node, const struct route_schema *schema)
{
    struct source_object item = {.findings_begin = source->diagnostics.count};
    digest_object(node, &item);
    if (!share_object(source, &item)) {
        TRY(decode_object(loader, source, node, schema, &item.object));
        if (item.object == NULL) {
            return OK;
        }
        item.findings_end = source->diagnostics.count;
        loader->config->stats.objects_decoded++;
    }
    struct error error = source_add(source, &item);
    if (error_is(error)) {
        route_object_unref(item.object);
    }
    return error;
}

static void complain(struct source *source, const struct route_node *node, const char *code,
                     const char *text)
{
    route_diagnostics_add(&source->diagnostics, ROUTE_SEVERITY_ERROR, place_of(source, node), code,
                          NULL, "%s", text);
    source->is_refused = true;
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

static void warn_unknown(struct source *source, const struct route_node *node, struct bytes version,
                         struct bytes group, struct bytes kind)
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
static struct error load_object(const struct loader *loader, struct source *source,
                                const struct route_node *node)
{
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
        return take_object(loader, source, node, schema);
    }
    if (!route_schema_is_foreign(group, kind)) {
        warn_unknown(source, node, api_version, group, kind);
    }
    return OK;
}

/* One document: an object, or a List of them (also HTTPRouteList and its like). */
static struct error load_document(const struct loader *loader, struct source *source,
                                  const struct route_node *document)
{
    struct bytes kind = route_node_text(route_node_find(document, "kind"));
    const struct route_node *items = route_node_find(document, "items");
    if (!ends_with(kind, BYTES("List")) || (items != NULL && items->type != ROUTE_NODE_SEQUENCE)) {
        return load_object(loader, source, document);
    }
    for (const struct route_node *item = items == NULL ? NULL : items->first; item != NULL;
         item = item->next) {
        TRY(load_object(loader, source, item));
    }
    return OK;
}

static struct error parse_documents(const struct loader *loader, struct source *source,
                                    struct route_yaml *yaml)
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
        error = load_document(loader, source, document);
        if (error_is(error)) {
            break;
        }
        arena_reset(&arena);
    }
    arena_finish(&arena);
    return error;
}

static struct error parse(const struct loader *loader, const struct route_file *file,
                          struct source *source)
{
    struct route_yaml *yaml = NULL;
    struct error error =
        route_yaml_create(source->name, file->content, &source->diagnostics, &yaml);
    if (!error_is(error)) {
        error = parse_documents(loader, source, yaml);
        source->nodes_count = route_yaml_nodes_count(yaml);
    }
    route_yaml_destroy(yaml);
    if (error.code == ERROR_CONFIG) {
        source->is_refused = true;
        return OK;
    }
    return error;
}

/* The last state of the file with that name, or NULL. */
static const struct source *find_name(const struct route_config *config, const char *name)
{
    for (uint32_t i = 0; config != NULL && i < config->sources_count; i++) {
        if (strcmp(config->sources[i]->name, name) == 0) {
            return config->sources[i];
        }
    }
    return NULL;
}

static struct source *find_source(const struct route_config *config, const struct route_file *file)
{
    for (uint32_t i = 0; config != NULL && i < config->sources_count; i++) {
        struct source *source = config->sources[i];
        if (memcmp(source->digest, file->digest, sizeof(source->digest)) == 0 &&
            strcmp(source->name, file->name) == 0) {
            return source;
        }
    }
    return NULL;
}

/* The parsed form of one file, shared with the previous configuration when its bytes are the same.
 */
static struct error take_source(struct loader *loader, const struct route_file *file)
{
    struct route_config *config = loader->config;
    struct source *source = find_source(loader->previous, file);
    if (source != NULL) {
        atomic_fetch_add_explicit(&source->refs, 1, memory_order_relaxed);
        config->sources[config->sources_count++] = source;
    } else {
        source = source_create(file);
        if (source == NULL) {
            return no_memory();
        }
        config->sources[config->sources_count++] = source;
        source->previous = find_name(loader->previous, file->name);
        struct error error = parse(loader, file, source);
        source->previous = NULL;
        TRY(error);
        config->stats.files_parsed++;
    }
    route_diagnostics_append(loader->diagnostics, &source->diagnostics);
    loader->nodes_count += source->nodes_count;
    if (loader->nodes_count > ROUTE_CONFIG_NODES_MAX) {
        struct route_position position = {.file = source->name};
        route_diagnostics_add(loader->diagnostics, ROUTE_SEVERITY_ERROR, position,
                              "config-too-large", NULL, "more than %u nodes in all files together",
                              ROUTE_CONFIG_NODES_MAX);
        return error_make(ERROR_CONFIG, 0);
    }
    return OK;
}

/* ---- all objects ---- */

static void complain_twice(struct loader *loader, const struct route_object *first,
                           const struct route_object *second)
{
    route_diagnostics_add(
        loader->diagnostics, ROUTE_SEVERITY_ERROR, second->position, "object-twice", NULL,
        "%s %.*s/%.*s is there twice with different content; the other one is at %s:%u",
        route_kind_name(second->kind), (int)second->namespace.size,
        (const char *)second->namespace.data, (int)second->name.size,
        (const char *)second->name.data, first->position.file, first->position.line);
}

/* Which object of that kind and name came first: open addressing, for sorting 20,000 names takes
 * longer than all the rest. */
struct seen {
    const struct source_object **slots;
    uint32_t mask;
};

static bool is_same_identity(const struct route_object *a, const struct route_object *b)
{
    return a->kind == b->kind && bytes_equal(a->name, b->name) &&
           bytes_equal(a->namespace, b->namespace);
}

/* The slot of the object with the identity of `item`, or the free one where it would go. */
static const struct source_object **find_seen(const struct seen *seen,
                                              const struct source_object *item)
{
    uint64_t hash[2] = {item->object->kind, 1};
    mix(hash, item->object->namespace.data, item->object->namespace.size);
    mix(hash, item->object->name.data, item->object->name.size);
    uint32_t at = (uint32_t)((hash[0] ^ hash[1]) >> 32) & seen->mask;
    while (seen->slots[at] != NULL && !is_same_identity(seen->slots[at]->object, item->object)) {
        at = (at + 1) & seen->mask;
    }
    return &seen->slots[at];
}

/* What is there twice with one content counts once; with two, it is an error. */
static void gather_object(struct loader *loader, const struct seen *seen,
                          const struct source_object *item)
{
    struct route_config *config = loader->config;
    const struct source_object **slot = find_seen(seen, item);
    if (*slot == NULL) {
        *slot = item;
        config->objects[config->objects_count++] = item->object;
    } else if (memcmp((*slot)->content, item->content, sizeof(item->content)) != 0) {
        complain_twice(loader, (*slot)->object, item->object);
    }
}

static struct error gather_objects(struct loader *loader)
{
    struct route_config *config = loader->config;
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->sources_count; i++) {
        count += config->sources[i]->count;
    }
    uint32_t size = 16;
    while (size < count * 2) {
        size *= 2;
    }
    struct seen seen = {calloc(size, sizeof(*seen.slots)), size - 1};
    config->objects = arena_alloc_zero(&config->arena, count, sizeof(*config->objects));
    if (config->objects == NULL || seen.slots == NULL) {
        free(seen.slots);
        return no_memory();
    }
    for (uint32_t i = 0; i < config->sources_count; i++) {
        for (uint32_t o = 0; o < config->sources[i]->count; o++) {
            gather_object(loader, &seen, &config->sources[i]->objects[o]);
        }
    }
    free(seen.slots);
    config->stats.objects = config->objects_count;
    return OK;
}

/* ---- tables ---- */

/* Words of a signature while it is made. */
struct words {
    uint64_t *items;
    uint32_t count;
    uint32_t capacity;
    bool is_failed;
};

static void add_word(struct words *words, uint64_t word)
{
    if (words->count == words->capacity) {
        uint32_t capacity = words->capacity * 2 + 64;
        uint64_t *items = realloc(words->items, capacity * sizeof(*items));
        if (items == NULL) {
            words->is_failed = true;
            return;
        }
        words->items = items;
        words->capacity = capacity;
    }
    words->items[words->count++] = word;
}

static void add_references(struct words *words, const struct route_table_resolver *resolver,
                           const struct route *route, const struct route_filter *filters,
                           uint32_t filters_count)
{
    for (uint32_t i = 0; i < filters_count; i++) {
        const struct route_filter *filter = &filters[i];
        if (filter->mirror != NULL) {
            add_word(words, resolver->backend(resolver->argument, route, &filter->mirror->backend));
        }
        if (filter->external_auth != NULL) {
            add_word(words,
                     resolver->backend(resolver->argument, route, &filter->external_auth->backend));
        }
        if (filter->extension_ref != NULL) {
            add_word(words, (uint64_t)(uintptr_t)resolver->body_match(resolver->argument,
                                                                      route->object.namespace,
                                                                      filter->extension_ref->name));
        }
    }
}

/* The route itself, and what the other objects say about its references. */
static void add_route(struct words *words, const struct route_table_resolver *resolver,
                      const struct route *route)
{
    add_word(words, (uint64_t)(uintptr_t)route);
    for (uint32_t r = 0; r < route->rules_count; r++) {
        const struct route_rule *rule = &route->rules[r];
        add_references(words, resolver, route, rule->filters, rule->filters_count);
        for (uint32_t b = 0; b < rule->backend_refs_count; b++) {
            const struct route_backend_ref *reference = &rule->backend_refs[b];
            add_word(words, resolver->backend(resolver->argument, route, reference));
            add_references(words, resolver, route, reference->filters, reference->filters_count);
        }
    }
}

static struct error sign(struct loader *loader, const struct route_table_source *source,
                         struct signature *ret_signature)
{
    struct words words = {0};
    for (uint32_t p = 0; p < source->ports_count; p++) {
        const struct route_table_port *port = &source->ports[p];
        add_word(&words,
                 (uint64_t)port->port << 32 | (uint64_t)port->kind << 16 | (uint64_t)port->set);
        add_word(&words, port->routes_count);
        for (uint32_t r = 0; r < port->routes_count; r++) {
            add_route(&words, source->resolver, port->routes[r]);
        }
    }
    struct arena *arena = &loader->config->arena;
    uint64_t *items = arena_alloc(arena, words.count * sizeof(*items));
    struct error error = items == NULL || words.is_failed ? no_memory() : OK;
    if (!error_is(error)) {
        if (words.count > 0) {
            memcpy(items, words.items, words.count * sizeof(*items));
        }
        *ret_signature = (struct signature){items, words.count};
    }
    free(words.items);
    return error;
}

/* The table that the previous configuration has for this Service, when it was compiled from the
 * same. */
static const struct route_table *find_table(const struct route_config *previous,
                                            const struct route_table_source *source,
                                            const struct signature *signature)
{
    const struct route_service *before =
        previous == NULL ? NULL
                         : route_services_find(previous->services, source->namespace, source->name);
    if (before == NULL) {
        return NULL;
    }
    uint32_t index = (uint32_t)(before - route_services_at(previous->services, 0));
    const struct signature *theirs = &previous->signatures[index];
    bool is_same =
        theirs->count == signature->count &&
        memcmp(theirs->words, signature->words, signature->count * sizeof(uint64_t)) == 0;
    return is_same ? previous->tables[index] : NULL;
}

/* Give a Service its table and its ports their rules. */
static void connect_table(const struct route_config *config, uint32_t index,
                          const struct route_table *table)
{
    struct route_service *service = route_services_edit(config->services, index);
    service->table = table;
    for (uint32_t p = 0; p < service->ports_count; p++) {
        struct route_port *port = &service->ports[p];
        port->rules = route_table_find(table, port->source->port, port->source->transport);
        if (route_attachments_declares_http(config->attachments, index, p) &&
            (port->protocol == ROUTE_PROTOCOL_UNDECLARED ||
             route_protocol_is_opaque(port->protocol))) {
            port->protocol = ROUTE_PROTOCOL_HTTP;
        }
    }
}

static struct error compile_service(struct loader *loader, uint32_t index)
{
    struct route_config *config = loader->config;
    const struct route_object *service =
        &route_services_at(config->services, index)->object->object;
    struct route_table_source source = {.namespace = service->namespace,
                                        .name = service->name,
                                        .resolver =
                                            route_attachments_resolver(config->attachments)};
    source.ports = route_attachments_ports(config->attachments, index, &source.ports_count);
    if (source.ports_count == 0) {
        return OK;
    }
    struct signature *signature = &config->signatures[index];
    TRY(sign(loader, &source, signature));
    const struct route_table *shared = find_table(loader->previous, &source, signature);
    if (shared != NULL) {
        config->tables[index] = route_table_ref(shared);
    } else {
        struct route_table *table = NULL;
        TRY(route_table_compile(&source, &table));
        config->tables[index] = table;
        config->stats.tables_compiled++;
    }
    config->stats.tables++;
    connect_table(config, index, config->tables[index]);
    return OK;
}

static struct error compile(struct loader *loader)
{
    struct route_config *config = loader->config;
    uint32_t count = route_services_count(config->services);
    config->signatures = arena_alloc_zero(&config->arena, count, sizeof(*config->signatures));
    config->tables = arena_alloc_zero(&config->arena, count, sizeof(*config->tables));
    if (config->signatures == NULL || config->tables == NULL) {
        return no_memory();
    }
    for (uint32_t i = 0; i < count; i++) {
        TRY(compile_service(loader, i));
    }
    return OK;
}

/* ---- what this version cannot keep ---- */

static bool asks_for_mesh_tls(const struct route_object *object)
{
    if (object->kind == ROUTE_KIND_MESH_PARAMETERS) {
        const struct route_mesh_parameters *parameters =
            (const struct route_mesh_parameters *)object;
        return parameters->inbound == ROUTE_MESH_STRICT ||
               parameters->backend == ROUTE_MESH_ENABLED;
    }
    if (object->kind != ROUTE_KIND_MESH_TLS_POLICY) {
        return false;
    }
    const struct route_mesh_tls_policy *policy = (const struct route_mesh_tls_policy *)object;
    bool is_strict = policy->inbound == ROUTE_MESH_STRICT || policy->backend == ROUTE_MESH_ENABLED;
    for (uint32_t i = 0; i < policy->inbound_ports_count; i++) {
        is_strict = is_strict || policy->inbound_ports[i].mode == ROUTE_MESH_STRICT;
    }
    return is_strict;
}

static void warn_unserved(struct loader *loader, struct route_position position, const char *what,
                          const char *effect)
{
    route_diagnostics_add(loader->diagnostics, ROUTE_SEVERITY_WARNING, position, "feature-unserved",
                          NULL, "%s is not served by this version: %s", what, effect);
}

static void warn_filters(struct loader *loader, const struct route_filter *filters, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (filters[i].type == ROUTE_FILTER_REQUEST_MIRROR) {
            warn_unserved(loader, filters[i].position, "RequestMirror",
                          "requests are not mirrored");
        } else if (filters[i].type == ROUTE_FILTER_CORS) {
            warn_unserved(loader, filters[i].position, "CORS", "preflights go to the backend");
        } else if (filters[i].type == ROUTE_FILTER_EXTERNAL_AUTH) {
            warn_unserved(loader, filters[i].position, "ExternalAuth",
                          "requests of this rule are answered 500");
        }
    }
}

static void warn_route(struct loader *loader, const struct route *route)
{
    if (route->object.kind == ROUTE_KIND_GRPC_ROUTE) {
        warn_unserved(loader, route->object.position, "GRPCRoute",
                      "HTTP/2 passes through as opaque TCP");
    } else if (route->object.kind == ROUTE_KIND_UDP_ROUTE) {
        warn_unserved(loader, route->object.position, "UDPRoute", "datagrams are not redirected");
    }
    for (uint32_t r = 0; r < route->rules_count; r++) {
        const struct route_rule *rule = &route->rules[r];
        warn_filters(loader, rule->filters, rule->filters_count);
        for (uint32_t b = 0; b < rule->backend_refs_count; b++) {
            warn_filters(loader, rule->backend_refs[b].filters,
                         rule->backend_refs[b].filters_count);
        }
        if (rule->retry != NULL) {
            warn_unserved(loader, rule->position, "retry", "only what is safe is tried again");
        }
        if (rule->session_persistence != NULL) {
            warn_unserved(loader, rule->position, "sessionPersistence",
                          "any endpoint may be chosen");
        }
    }
}

/*
 * A policy is never skipped in silence: what protects somebody and is not served by this version
 * refuses the generation.
 */
static void refuse_unserved(struct loader *loader)
{
    for (uint32_t i = 0; i < loader->config->objects_count; i++) {
        const struct route_object *object = loader->config->objects[i];
        if (is_route(object->kind)) {
            warn_route(loader, (const struct route *)object);
        }
        bool is_enforced = object->kind == ROUTE_KIND_AUTHORIZATION_POLICY &&
                           !((const struct route_authorization_policy *)object)->is_audit;
        if (is_enforced || asks_for_mesh_tls(object)) {
            route_diagnostics_add(
                loader->diagnostics, ROUTE_SEVERITY_ERROR, object->position, "policy-unserved",
                is_enforced ? "mode: Audit, or leave it out" : "Permissive and Disabled are served",
                "%s %.*s asks for %s, which this version does not enforce",
                route_kind_name(object->kind), (int)object->name.size,
                (const char *)object->name.data, is_enforced ? "authorisation" : "mesh TLS");
        } else if (object->kind == ROUTE_KIND_BACKEND_TLS_POLICY) {
            route_diagnostics_add(
                loader->diagnostics, ROUTE_SEVERITY_WARNING, object->position, "policy-unserved",
                NULL, "BackendTLSPolicy %.*s is not served: its backends are spoken to without TLS",
                (int)object->name.size, (const char *)object->name.data);
        }
    }
}

/* ---- the whole ---- */

static void hash_files(const struct route_files *files, char ret_hash[ROUTE_CONFIG_HASH_BYTES])
{
    struct sha256 sha256;
    uint8_t digest[SHA256_BYTES];
    sha256_init(&sha256);
    for (uint32_t i = 0; i < files->count; i++) {
        sha256_update(&sha256, bytes_make(files->items[i].name, strlen(files->items[i].name) + 1));
        sha256_update(&sha256, files->items[i].content);
    }
    sha256_finish(&sha256, digest);
    sha256_print(digest, HASH_BYTES, ret_hash);
}

static struct error read_files(const struct loader *loader, struct route_files *files)
{
    for (uint32_t i = 0; i < loader->options->paths_count; i++) {
        TRY(route_files_read(files, loader->options->paths[i], ROUTE_FILE_BYTES_MAX,
                             ROUTE_CONFIG_BYTES_MAX, loader->diagnostics));
    }
    hash_files(files, loader->config->hash);
    if (loader->options->ret_hash != NULL) {
        memcpy(loader->options->ret_hash, loader->config->hash, ROUTE_CONFIG_HASH_BYTES);
    }
    loader->config->stats.files = files->count;
    loader->config->stats.bytes = files->bytes;
    return OK;
}

static struct error take_sources(struct loader *loader, const struct route_files *files)
{
    struct route_config *config = loader->config;
    config->sources = arena_alloc_zero(&config->arena, files->count, sizeof(*config->sources));
    if (config->sources == NULL) {
        return no_memory();
    }
    for (uint32_t i = 0; i < files->count; i++) {
        TRY(take_source(loader, &files->items[i]));
    }
    return gather_objects(loader);
}

/* Objects to Services, attachments and tables; also when something was refused, for the sake of its
 * diagnostics. */
static struct error resolve(struct loader *loader)
{
    struct route_config *config = loader->config;
    refuse_unserved(loader);
    TRY(route_index_build(config->objects, config->objects_count, &config->arena, &config->index));
    TRY(route_services_build(config->objects, config->objects_count, &config->arena,
                             loader->diagnostics, &config->services));
    struct route_attach_options attach = {.namespace = loader->options->namespace,
                                          .require_reference_grants =
                                              loader->options->require_reference_grants,
                                          .can_udp = loader->options->can_udp};
    TRY(route_attach(&attach, config->objects, config->objects_count, config->index,
                     config->services, &config->arena, &config->attachments));
    return compile(loader);
}

static struct error load(struct loader *loader)
{
    struct route_files files;
    route_files_init(&files);
    files.has_many_paths = loader->options->paths_count > 1;
    struct error error = read_files(loader, &files);
    if (!error_is(error)) {
        error = take_sources(loader, &files);
    }
    route_files_finish(&files);
    if (!error_is(error)) {
        error = resolve(loader);
    }
    route_diagnostics_sort(loader->diagnostics);
    if (!error_is(error) && loader->diagnostics->errors_count > 0) {
        error = error_make(ERROR_CONFIG, 0);
    }
    return error;
}

struct error route_config_load(const struct route_load_options *options,
                               const struct route_config *previous,
                               struct route_diagnostics *diagnostics,
                               struct route_config **ret_config)
{
    struct route_config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return no_memory();
    }
    config->refs = 1;
    arena_init(&config->arena, CONFIG_ARENA_CHUNK_BYTES, CONFIG_ARENA_BYTES_MAX);
    struct loader loader = {
        .options = options, .previous = previous, .diagnostics = diagnostics, .config = config};
    struct error error = load(&loader);
    if (error_is(error)) {
        route_config_unref(config);
        return error;
    }
    *ret_config = config;
    return OK;
}

bool route_config_is_unchanged(const struct route_load_options *options,
                               const struct route_config *config)
{
    struct route_files files;
    struct route_diagnostics diagnostics;
    route_files_init(&files);
    files.has_many_paths = options->paths_count > 1;
    route_diagnostics_init(&diagnostics);
    bool is_read = true;
    for (uint32_t i = 0; i < options->paths_count && is_read; i++) {
        is_read = !error_is(route_files_read(&files, options->paths[i], ROUTE_FILE_BYTES_MAX,
                                             ROUTE_CONFIG_BYTES_MAX, &diagnostics));
    }
    char hash[ROUTE_CONFIG_HASH_BYTES];
    hash_files(&files, hash);
    bool is_same = is_read && diagnostics.errors_count == 0 && strcmp(hash, config->hash) == 0;
    route_files_finish(&files);
    route_diagnostics_finish(&diagnostics);
    return is_same;
}

const struct route_config *route_config_ref(const struct route_config *config)
{
    struct route_config *counted =
        (struct route_config *)(uintptr_t)config; /* the count is not part of what is immutable */
    atomic_fetch_add_explicit(&counted->refs, 1, memory_order_relaxed);
    return config;
}

void route_config_unref(const struct route_config *config)
{
    struct route_config *counted = (struct route_config *)(uintptr_t)config;
    if (counted == NULL ||
        atomic_fetch_sub_explicit(&counted->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    uint32_t services = counted->tables == NULL ? 0 : route_services_count(counted->services);
    for (uint32_t i = 0; i < services; i++) {
        route_table_unref(counted->tables[i]);
    }
    for (uint32_t i = 0; i < counted->sources_count; i++) {
        source_unref(counted->sources[i]);
    }
    arena_finish(&counted->arena);
    free(counted);
}

const char *route_config_hash(const struct route_config *config)
{
    return config->hash;
}

const struct route_services *route_config_services(const struct route_config *config)
{
    return config->services;
}

const struct route_object *const *route_config_objects(const struct route_config *config,
                                                       uint32_t *ret_count)
{
    *ret_count = config->objects_count;
    return config->objects;
}

const struct route_object *route_config_find(const struct route_config *config,
                                             enum route_kind kind, struct bytes namespace,
                                             struct bytes name)
{
    return route_index_find(config->index, kind, namespace, name);
}

const struct route_condition *route_config_conditions(const struct route_config *config,
                                                      uint32_t *ret_count)
{
    return route_attachments_conditions(config->attachments, ret_count);
}

struct route_load_stats route_config_stats(const struct route_config *config)
{
    return config->stats;
}

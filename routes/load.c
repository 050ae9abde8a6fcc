/*
 * From files to a configuration. The order: read all files; parse those whose bytes are new; gather
 * the objects and see that none is there twice; find what has changed; attach; make Services;
 * compile. What is shared with the previous configuration is in load.h.
 */
#include "routes/load.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/sha256.h"
#include "routes/changes.h"
#include "routes/files.h"
#include "routes/index.h"
#include "routes/source.h"
#include "routes/yaml.h"

enum {
    CONFIG_ARENA_CHUNK_BYTES = 64 << 10,
    HASH_BYTES = 6, /* of the digest, printed */
};

#define CONFIG_ARENA_BYTES_MAX ((size_t)2 << 30)

struct route_config {
    _Atomic uint32_t refs; /* snapshots, which any thread may let go */
    struct arena arena;
    struct route_source_file **sources;
    uint32_t sources_count;
    struct sha256 *hashes;        /* of the files up to each */
    struct route_objects objects; /* borrowed from the sources */
    struct route_services *services;
    struct route_attachments *attachments;
    const struct route_table **tables; /* by Service; one reference each, or NULL */
    struct route_load_stats stats;
    struct route_attach_options options; /* that it was made under */
    bool skips_invalid_objects;
    char hash[ROUTE_CONFIG_HASH_BYTES];
};

/* Who knows what files held before. */
struct acquaintance {
    const struct route_config *config; /* NULL: nobody */
    uint32_t hint;                     /* of find_name */
};

struct loader {
    const struct route_load_options *options;
    const struct route_config *previous;
    const struct route_config *past; /* the same, when its files were read by the same rule */
    struct route_diagnostics *diagnostics;
    struct route_config *config;
    struct route_changes changes; /* since `previous` */
    bool *is_kept;                /* owned: of the sources of `previous`, is it shared? */
    uint32_t kept_last;           /* the last of them, plus 1 */
    uint64_t nodes_count;
    uint32_t hint; /* of find_name */
};

static struct error no_memory(void)
{
    return error_make(ERROR_NO_MEMORY, 0);
}

/* ---- files ---- */

/* The last state of the file with that name, or NULL. Files come in the same order each time, so it
 * is mostly the one after the last that was found, which `hint` is. */
static struct route_source_file *find_name(const struct route_config *config, const char *name,
                                           uint32_t *hint)
{
    uint32_t count = config == NULL ? 0 : config->sources_count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (*hint + i) % count;
        if (strcmp(config->sources[at]->name, name) == 0) {
            *hint = at + 1;
            return config->sources[at];
        }
    }
    return NULL;
}

/* The source of that number in the previous configuration is in this one too. */
static void keep_source(struct loader *loader, uint32_t number)
{
    loader->is_kept[number] = true;
    if (number < loader->kept_last) {
        /* Of an object that is there twice the first counts, and that may be another one now. */
        loader->changes.is_everything = true;
    }
    loader->kept_last = number + 1;
}

/* The parsed form of one file, shared with the previous configuration when its bytes are the same.
 */
static struct error take_source(struct loader *loader, struct route_file *file)
{
    struct route_config *config = loader->config;
    struct route_source_file *source = find_name(loader->past, file->name, &loader->hint);
    if (source != NULL && file->is_known) {
        route_source_ref(source);
        config->sources[config->sources_count++] = source;
        keep_source(loader, loader->hint - 1);
    } else {
        struct route_source_options options = {
            .skip_invalid_objects = loader->options->skip_invalid_objects, .previous = source};
        TRY(route_source_parse(&options, file, &source));
        config->sources[config->sources_count++] = source;
        config->stats.objects_decoded += source->decoded_count;
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

/* What is there twice with one content counts once; with two, it is an error. `items` are those of
 * the objects taken so far. */
static void gather_object(struct loader *loader, const struct route_source_object *item,
                          const struct route_source_object **items)
{
    struct route_objects *objects = &loader->config->objects;
    uint32_t next = objects->count;
    uint32_t place = route_objects_add(objects, item->object, item->name);
    if (place == next) {
        items[place] = item;
    } else if (memcmp(items[place]->content, item->content, sizeof(item->content)) != 0) {
        complain_twice(loader, items[place]->object, item->object);
    }
}

static struct error gather_objects(struct loader *loader)
{
    struct route_config *config = loader->config;
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->sources_count; i++) {
        count += config->sources[i]->count;
    }
    TRY(route_objects_init(&config->objects, count, &config->arena));
    const struct route_source_object **items = malloc(((size_t)count + 1) * sizeof(*items));
    if (items == NULL) {
        return no_memory();
    }
    for (uint32_t i = 0; i < config->sources_count; i++) {
        for (uint32_t o = 0; o < config->sources[i]->count; o++) {
            gather_object(loader, &config->sources[i]->objects[o], items);
        }
    }
    free(items);
    config->stats.objects = config->objects.count;
    if (loader->previous != NULL) {
        route_objects_find_origins(&config->objects, &loader->previous->objects);
    }
    return OK;
}

/* ---- what has changed ---- */

static void compare_source(struct loader *loader, const struct route_source_file *source)
{
    for (uint32_t i = 0; i < source->count; i++) {
        route_changes_compare(&loader->changes, &loader->previous->objects,
                              &loader->config->objects, source->objects[i].object,
                              source->objects[i].name);
    }
}

/* Only an object of a file that came, went or changed can be another one than before. */
static void find_changes(struct loader *loader)
{
    const struct route_config *previous = loader->previous;
    const struct route_config *config = loader->config;
    for (uint32_t i = 0; previous != NULL && i < previous->sources_count; i++) {
        if (!loader->is_kept[i]) {
            compare_source(loader, previous->sources[i]);
        }
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; previous != NULL && i < config->sources_count; i++) {
        while (kept < previous->sources_count && !loader->is_kept[kept]) {
            kept++;
        }
        if (kept < previous->sources_count && previous->sources[kept] == config->sources[i]) {
            kept++;
        } else {
            compare_source(loader, config->sources[i]);
        }
    }
}

/* ---- tables ---- */

/* Give a Service its table and its ports their rules. */
static void connect_table(struct route_service *service, const struct route_table *table,
                          const struct route_table_port *ports, uint32_t ports_count)
{
    service->table = table;
    for (uint32_t p = 0; p < service->ports_count; p++) {
        struct route_port *port = &service->ports[p];
        port->rules = route_table_find(table, port->source->port, port->source->transport);
        for (uint32_t i = 0; i < ports_count; i++) {
            bool is_udp = ports[i].kind == ROUTE_KIND_UDP_ROUTE;
            if (ports[i].is_declared_http && ports[i].port == port->source->port &&
                is_udp == (port->source->transport == ROUTE_TRANSPORT_UDP) &&
                (port->protocol == ROUTE_PROTOCOL_UNDECLARED ||
                 route_protocol_is_opaque(port->protocol))) {
                port->protocol = ROUTE_PROTOCOL_HTTP;
            }
        }
    }
}

/* A Service that is new, or whose routes or their references may have changed. */
static struct error compile_service(struct loader *loader, uint32_t index)
{
    struct route_config *config = loader->config;
    struct route_service *service = route_services_edit(config->services, index);
    const struct route_object *object = &service->object->object;
    const struct route_service *before =
        loader->previous == NULL
            ? NULL
            : route_services_find(loader->previous->services, object->namespace, object->name);
    struct route_table_source source = {.namespace = object->namespace,
                                        .name = object->name,
                                        .resolver = route_attachments_resolver(config->attachments),
                                        .previous = before == NULL ? NULL : before->table};
    if (!route_attachments_settled(config->attachments,
                                   route_services_place(config->services, index), &source.ports,
                                   &source.ports_count) &&
        source.previous != NULL) {
        source.ports = route_table_ports(source.previous, &source.ports_count);
    }
    if (source.ports_count == 0) {
        return OK;
    }
    TRY(route_table_compile(&source, &config->tables[index]));
    config->stats.tables++;
    config->stats.tables_compiled += config->tables[index] != source.previous;
    connect_table(service, config->tables[index], source.ports, source.ports_count);
    return OK;
}

static struct error compile(struct loader *loader)
{
    struct route_config *config = loader->config;
    uint32_t count = route_services_count(config->services);
    config->tables = arena_alloc_zero(&config->arena, count, sizeof(*config->tables));
    if (config->tables == NULL) {
        return no_memory();
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct route_table *table = route_services_at(config->services, i)->table;
        if (!route_services_is_copied(config->services, i)) {
            TRY(compile_service(loader, i));
        } else if (table != NULL) {
            config->tables[i] = route_table_ref(table);
            config->stats.tables++;
        }
    }
    return OK;
}

/* ---- the whole ---- */

/* For route_files_read: what the file of that name held when `argument`, a configuration, was made.
 */
static struct bytes known_content(void *argument, const char *name)
{
    struct acquaintance *acquaintance = argument;
    const struct route_source_file *source =
        find_name(acquaintance->config, name, &acquaintance->hint);
    return source == NULL ? (struct bytes){0} : source->content;
}

static struct error read_paths(const struct route_load_options *options,
                               struct acquaintance *acquaintance,
                               struct route_diagnostics *diagnostics, struct route_files *files)
{
    route_files_init(files);
    files->has_many_paths = options->paths_count > 1;
    files->known = known_content;
    files->known_argument = acquaintance;
    for (uint32_t i = 0; i < options->paths_count; i++) {
        TRY(route_files_read(files, options->paths[i], ROUTE_FILE_BYTES_MAX, ROUTE_CONFIG_BYTES_MAX,
                             diagnostics));
    }
    return OK;
}

/* How many files, from the first, are those of the configuration. */
static uint32_t count_same(const struct route_config *config, const struct route_files *files)
{
    uint32_t same = 0;
    while (config != NULL && same < files->count && same < config->sources_count &&
           files->items[same].is_known &&
           files->items[same].content.data == config->sources[same]->content.data) {
        same++;
    }
    return same;
}

/* Hash the files, beginning behind those that the previous configuration begins with as well. */
static struct error hash_files(struct loader *loader, const struct route_files *files)
{
    struct route_config *config = loader->config;
    struct sha256 sha256;
    uint8_t digest[SHA256_BYTES];
    config->hashes = arena_alloc(&config->arena, files->count * sizeof(*config->hashes));
    if (config->hashes == NULL) {
        return no_memory();
    }
    sha256_init(&sha256);
    uint32_t same = count_same(loader->past, files);
    for (uint32_t i = 0; i < files->count; i++) {
        if (i < same) {
            sha256 = loader->past->hashes[i];
        } else {
            const char *name = files->items[i].name;
            sha256_update(&sha256, bytes_make(name, strlen(name) + 1));
            sha256_update(&sha256, files->items[i].content);
        }
        config->hashes[i] = sha256;
    }
    sha256_finish(&sha256, digest);
    sha256_print(digest, HASH_BYTES, config->hash);
    return OK;
}

static struct error read_files(struct loader *loader, struct route_files *files)
{
    struct acquaintance acquaintance = {.config = loader->past};
    TRY(read_paths(loader->options, &acquaintance, loader->diagnostics, files));
    TRY(hash_files(loader, files));
    if (loader->options->ret_hash != NULL) {
        memcpy(loader->options->ret_hash, loader->config->hash, ROUTE_CONFIG_HASH_BYTES);
    }
    loader->config->stats.files = files->count;
    loader->config->stats.bytes = files->bytes;
    return OK;
}

static struct error take_sources(struct loader *loader, struct route_files *files)
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

static struct error resolve_with(struct loader *loader, struct arena *scratch)
{
    struct route_config *config = loader->config;
    const struct route_config *previous = loader->previous;
    struct route_attach_load attach = {.objects = &config->objects,
                                       .previous = previous == NULL ? NULL : previous->attachments,
                                       .changes = &loader->changes,
                                       .scratch = scratch};
    struct route_services_load services = {.objects = &config->objects,
                                           .previous = previous == NULL ? NULL : previous->services,
                                           .changes = &loader->changes};
    TRY(route_attach(&config->options, &attach, &config->arena, &config->attachments));
    TRY(route_services_update(&services, &config->arena, loader->diagnostics, &config->services));
    return compile(loader);
}

/* Objects to attachments, Services and tables; also when something was refused, for the sake of its
 * diagnostics. */
static struct error resolve(struct loader *loader)
{
    struct arena scratch;
    find_changes(loader);
    arena_init(&scratch, CONFIG_ARENA_CHUNK_BYTES, CONFIG_ARENA_BYTES_MAX);
    struct error error = resolve_with(loader, &scratch);
    arena_finish(&scratch);
    return error;
}

static bool is_same_option(const struct route_attach_options *a,
                           const struct route_attach_options *b)
{
    return (a->namespace.data == NULL) == (b->namespace.data == NULL) &&
           bytes_equal(a->namespace, b->namespace) &&
           a->require_reference_grants == b->require_reference_grants && a->can_udp == b->can_udp;
}

/* Keep the options with the configuration, and see whether they are those of the previous one. */
static struct error begin(struct loader *loader)
{
    struct route_config *config = loader->config;
    const struct route_load_options *options = loader->options;
    const struct route_config *previous = loader->previous;
    config->skips_invalid_objects = options->skip_invalid_objects;
    if (previous != NULL && previous->skips_invalid_objects == config->skips_invalid_objects) {
        loader->past = previous;
    }
    config->options = (struct route_attach_options){
        .require_reference_grants = options->require_reference_grants, .can_udp = options->can_udp};
    if (options->namespace.data != NULL) {
        config->options.namespace = arena_copy(&config->arena, options->namespace);
        if (config->options.namespace.data == NULL) {
            return no_memory();
        }
    }
    route_changes_init(&loader->changes,
                       previous == NULL || !is_same_option(&previous->options, &config->options));
    loader->is_kept = calloc(previous == NULL ? 1 : (size_t)previous->sources_count + 1,
                             sizeof(*loader->is_kept));
    return loader->is_kept == NULL ? no_memory() : OK;
}

static struct error load(struct loader *loader)
{
    struct route_files files = {0};
    struct error error = begin(loader);
    if (!error_is(error)) {
        error = read_files(loader, &files);
    }
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
    route_changes_finish(&loader.changes);
    free(loader.is_kept);
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
    struct acquaintance acquaintance = {.config = config};
    route_diagnostics_init(&diagnostics);
    struct error error = read_paths(options, &acquaintance, &diagnostics, &files);
    bool is_same = !error_is(error) && diagnostics.errors_count == 0 &&
                   files.count == config->sources_count &&
                   count_same(config, &files) == files.count;
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
    route_attachments_release(counted->attachments);
    for (uint32_t i = 0; i < counted->sources_count; i++) {
        route_source_unref(counted->sources[i]);
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
    *ret_count = config->objects.count;
    return config->objects.items;
}

const struct route_object *route_config_find(const struct route_config *config,
                                             enum route_kind kind, struct bytes namespace,
                                             struct bytes name)
{
    return route_objects_find(&config->objects, kind, namespace, name);
}

const struct route_condition *route_config_conditions(const struct route_config *config,
                                                      uint32_t place, uint32_t *ret_count)
{
    return route_attachments_conditions(config->attachments, place, ret_count);
}

struct route_load_stats route_config_stats(const struct route_config *config)
{
    return config->stats;
}

/* Compiling a rule: its filters, its backends, what makes it fail. */
#include "routes/lookup.h"
#include "routes/table_compiler.h"

/* ---- Filters and backends ---- */

bool route_filter_is_body_match(const struct route_filter *filter)
{
    return filter->type == ROUTE_FILTER_EXTENSION_REF &&
           bytes_equal(filter->extension_ref->group, BYTES("outrigger.dev")) &&
           bytes_equal(filter->extension_ref->kind, BYTES("BodyMatch"));
}

static struct error make_backend(struct route_compiler *compiler, const struct route *route,
                                 const struct route_backend_ref *source,
                                 struct route_table_backend *ret_backend);

static const struct route_backend_ref *filter_backend(const struct route_filter *filter)
{
    if (filter->type == ROUTE_FILTER_REQUEST_MIRROR) {
        return &filter->mirror->backend;
    }
    return filter->type == ROUTE_FILTER_EXTERNAL_AUTH ? &filter->external_auth->backend : NULL;
}

struct filter_list {
    const struct route_filter *source;
    uint32_t source_count;
    struct route_table_filter *filters;
    uint32_t count;
    bool has_fault; /* one that may guard something cannot be honoured */
};

/* Compile one filter onto the list, unless it is one that has no effect. */
static struct error add_filter(struct route_compiler *compiler, const struct route *route,
                               const struct route_filter *source, struct filter_list *list)
{
    struct route_table_filter filter = {.type = source->type, .source = source};
    const struct route_backend_ref *reference = filter_backend(source);
    if (source->type == ROUTE_FILTER_UNSUPPORTED || source->type == ROUTE_FILTER_EXTENSION_REF) {
        /* An ExtensionRef that cannot be resolved "MUST NOT be skipped". */
        list->has_fault = true;
        return OK;
    }
    /* The data path does not ask anybody yet, and a request that nobody asked about must not pass.
     */
    list->has_fault |= source->type == ROUTE_FILTER_EXTERNAL_AUTH;
    if (reference != NULL) {
        struct route_table_backend *backend =
            arena_alloc_zero(compiler->arena, 1, sizeof(*backend));
        if (backend == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        TRY(make_backend(compiler, route, reference, backend));
        filter.backend = backend;
        if (backend->fault != ROUTE_BACKEND_VALID) {
            /* A mirror without a target is left out. */
            return OK;
        }
    }
    list->filters[list->count++] = filter;
    return OK;
}

static struct error make_filters(struct route_compiler *compiler, const struct route *route,
                                 bool has_body_matches, struct filter_list *list)
{
    list->filters = arena_alloc_zero(compiler->arena, list->source_count, sizeof(*list->filters));
    if (list->filters == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < list->source_count; i++) {
        if (!has_body_matches || !route_filter_is_body_match(&list->source[i])) {
            TRY(add_filter(compiler, route, &list->source[i], list));
        }
    }
    return OK;
}

static const struct route_filter *find_filter(const struct route_table_filter *filters,
                                              uint32_t count, enum route_filter_type type)
{
    for (uint32_t i = 0; i < count; i++) {
        if (filters[i].type == type) {
            return filters[i].source;
        }
    }
    return NULL;
}

static struct error name_backend(struct route_compiler *compiler,
                                 struct route_table_backend *backend)
{
    TRY(route_compiler_text(arena_format(compiler->arena, "%.*s.%.*s:%u", (int)backend->name.size,
                                         (const char *)backend->name.data,
                                         (int)backend->namespace.size,
                                         (const char *)backend->namespace.data, backend->port),
                            &backend->reference));
    backend->hash = route_hash_bytes(ROUTE_HASH_SEED, backend->reference);
    return OK;
}

static struct error make_backend(struct route_compiler *compiler, const struct route *route,
                                 const struct route_backend_ref *source,
                                 struct route_table_backend *ret_backend)
{
    *ret_backend = (struct route_table_backend){
        .namespace = source->namespace,
        .name = source->name,
        .port = source->port,
        .weight = source->weight,
        .fault = compiler->resolver->backend(compiler->resolver->argument, route, source),
        .source = source,
    };
    TRY(name_backend(compiler, ret_backend));
    struct filter_list list = {.source = source->filters, .source_count = source->filters_count};
    if (list.source_count == 0) {
        return OK;
    }
    /* Their own references have no filters, so this does not go deeper. */
    TRY(make_filters(compiler, route, false, &list));
    ret_backend->filters = list.filters;
    ret_backend->filters_count = list.count;
    ret_backend->redirect = find_filter(list.filters, list.count, ROUTE_FILTER_REQUEST_REDIRECT);
    if (list.has_fault && ret_backend->fault == ROUTE_BACKEND_VALID) {
        ret_backend->fault = ROUTE_BACKEND_FILTER_UNSUPPORTED;
    }
    return OK;
}

/* Without backendRefs the parent Service itself takes the requests (GEP-1686). */
static struct error make_parent_backend(struct route_compiler *compiler,
                                        struct route_table_rule *rule)
{
    struct route_table_backend *backend = arena_alloc_zero(compiler->arena, 1, sizeof(*backend));
    if (backend == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    backend->namespace = route_table_namespace(compiler->table);
    backend->name = route_table_name(compiler->table);
    backend->port = compiler->port->port;
    backend->weight = 1;
    compiler->has_parent_backend = true;
    rule->backends = backend;
    rule->backends_count = 1;
    rule->weights_sum = 1;
    return name_backend(compiler, backend);
}

static struct error make_backends(struct route_compiler *compiler, struct route_table_rule *rule)
{
    const struct route_rule *source = rule->source;
    if (source->backend_refs_count == 0) {
        return rule->redirect != NULL ? OK : make_parent_backend(compiler, rule);
    }
    struct route_table_backend *backends =
        arena_alloc_zero(compiler->arena, source->backend_refs_count, sizeof(*backends));
    if (backends == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < source->backend_refs_count; i++) {
        TRY(make_backend(compiler, rule->route, &source->backend_refs[i], &backends[i]));
        rule->weights_sum += backends[i].weight;
    }
    rule->backends = backends;
    rule->backends_count = source->backend_refs_count;
    return OK;
}

/* ---- Rules ---- */

static struct error name_rule(struct route_compiler *compiler, struct route_table_rule *rule)
{
    const struct route_object *object = &rule->route->object;
    TRY(route_compiler_text(arena_format(compiler->arena, "%.*s/%.*s", (int)object->namespace.size,
                                         (const char *)object->namespace.data,
                                         (int)object->name.size, (const char *)object->name.data),
                            &rule->route_name));
    if (rule->source->name.data != NULL) {
        rule->rule_name = rule->source->name;
        return OK;
    }
    return route_compiler_text(arena_format(compiler->arena, "%u", rule->source_index),
                               &rule->rule_name);
}

struct error route_compiler_rule(struct route_compiler *compiler, const struct route *route,
                                 const struct route_rule *source, struct route_table_rule *rule)
{
    rule->route = route;
    rule->source = source;
    rule->source_index = (uint32_t)(source - route->rules);
    TRY(name_rule(compiler, rule));
    struct filter_list list = {.source = source->filters, .source_count = source->filters_count};
    TRY(make_filters(compiler, route, true, &list));
    rule->filters = list.filters;
    rule->filters_count = list.count;
    rule->redirect = find_filter(list.filters, list.count, ROUTE_FILTER_REQUEST_REDIRECT);
    rule->cors = find_filter(list.filters, list.count, ROUTE_FILTER_CORS);
    if (list.has_fault || source->unsupported == ROUTE_UNSUPPORTED_SECURITY_FILTER) {
        rule->fault = ROUTE_RULE_FILTER_UNSUPPORTED;
    }
    return make_backends(compiler, rule);
}

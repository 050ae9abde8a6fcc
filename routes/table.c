/*
 * Compilation: routes by age, their rules, one candidate for each match, sorted by precedence,
 * indexed.
 *
 * Everything lies in one arena. What is not there: the regular expressions (PCRE2 allocates them; a
 * chain remembers them) and the objects (each held by a reference).
 */
#include "routes/table.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/check.h"
#include "routes/candidate.h"
#include "routes/lookup.h"
#include "routes/path.h"
#include "routes/precedence.h"
#include "routes/signature.h"

#define CHUNK_BYTES 2048

struct held_regex {
    struct held_regex *next;
    struct route_regex *regex;
};

struct held_object {
    struct held_object *next;
    const struct route_object *object;
};

struct table_port {
    uint16_t port;
    const struct route_rules *rules;
};

struct route_table {
    struct route_table *self; /* what a reader's const pointer may count on and free */
    uint32_t refs;            /* atomic: snapshots of several generations share a table */
    struct arena arena;
    struct held_regex *regexes;
    struct held_object *objects;
    struct route_signature signature;
    struct route_table_port *source_ports; /* as many as ports */
    struct bytes namespace;
    struct bytes name;
    struct table_port *ports;
    uint32_t ports_count;
};

/* What is being compiled: a table's port, and whom to ask. */
struct compiler {
    struct route_table *table;
    struct arena *arena;
    const struct route_table_resolver *resolver;
    const struct route_table_port *port;
    struct route_rules *rules;
    bool has_parent_backend; /* a rule goes to the port that was dialled, so ports cannot share */
};

/* ---- Small makers ---- */

static const struct error no_memory = {ERROR_NO_MEMORY, 0};

static struct error hold_object(struct compiler *compiler, const struct route_object *object)
{
    struct held_object *held = arena_alloc(compiler->arena, sizeof(*held));
    if (held == NULL) {
        return no_memory;
    }
    route_object_ref(object);
    *held = (struct held_object){compiler->table->objects, object};
    compiler->table->objects = held;
    return OK;
}

static struct error make_regex(struct compiler *compiler, struct bytes pattern,
                               const struct route_regex **ret_regex)
{
    struct held_regex *held = arena_alloc(compiler->arena, sizeof(*held));
    if (held == NULL) {
        return no_memory;
    }
    struct route_regex *regex = NULL;
    TRY(route_regex_create(pattern, NULL, &regex));
    *held = (struct held_regex){compiler->table->regexes, regex};
    compiler->table->regexes = held;
    *ret_regex = regex;
    return OK;
}

/* What arena_format gave, or that it refused. */
static struct error take_text(char *text, struct bytes *ret_text)
{
    if (text == NULL) {
        return no_memory;
    }
    *ret_text = bytes_from_string(text);
    return OK;
}

/* ---- Filters and backends ---- */

static bool is_body_match(const struct route_filter *filter)
{
    return filter->type == ROUTE_FILTER_EXTENSION_REF &&
           bytes_equal(filter->extension_ref->group, BYTES("outrigger.dev")) &&
           bytes_equal(filter->extension_ref->kind, BYTES("BodyMatch"));
}

static struct error make_backend(struct compiler *compiler, const struct route *route,
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
static struct error add_filter(struct compiler *compiler, const struct route *route,
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
            return no_memory;
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

static struct error make_filters(struct compiler *compiler, const struct route *route,
                                 bool has_body_matches, struct filter_list *list)
{
    list->filters = arena_alloc_zero(compiler->arena, list->source_count, sizeof(*list->filters));
    if (list->filters == NULL) {
        return no_memory;
    }
    for (uint32_t i = 0; i < list->source_count; i++) {
        if (!has_body_matches || !is_body_match(&list->source[i])) {
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

static struct error name_backend(struct compiler *compiler, struct route_table_backend *backend)
{
    TRY(take_text(arena_format(compiler->arena, "%.*s.%.*s:%u", (int)backend->name.size,
                               (const char *)backend->name.data, (int)backend->namespace.size,
                               (const char *)backend->namespace.data, backend->port),
                  &backend->reference));
    backend->hash = route_hash_bytes(ROUTE_HASH_SEED, backend->reference);
    return OK;
}

static struct error make_backend(struct compiler *compiler, const struct route *route,
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
static struct error make_parent_backend(struct compiler *compiler, struct route_table_rule *rule)
{
    struct route_table_backend *backend = arena_alloc_zero(compiler->arena, 1, sizeof(*backend));
    if (backend == NULL) {
        return no_memory;
    }
    backend->namespace = compiler->table->namespace;
    backend->name = compiler->table->name;
    backend->port = compiler->port->port;
    backend->weight = 1;
    compiler->has_parent_backend = true;
    rule->backends = backend;
    rule->backends_count = 1;
    rule->weights_sum = 1;
    return name_backend(compiler, backend);
}

static struct error make_backends(struct compiler *compiler, struct route_table_rule *rule)
{
    const struct route_rule *source = rule->source;
    if (source->backend_refs_count == 0) {
        return rule->redirect != NULL ? OK : make_parent_backend(compiler, rule);
    }
    struct route_table_backend *backends =
        arena_alloc_zero(compiler->arena, source->backend_refs_count, sizeof(*backends));
    if (backends == NULL) {
        return no_memory;
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

static struct error name_rule(struct compiler *compiler, struct route_table_rule *rule)
{
    const struct route_object *object = &rule->route->object;
    TRY(take_text(arena_format(compiler->arena, "%.*s/%.*s", (int)object->namespace.size,
                               (const char *)object->namespace.data, (int)object->name.size,
                               (const char *)object->name.data),
                  &rule->route_name));
    if (rule->source->name.data != NULL) {
        rule->rule_name = rule->source->name;
        return OK;
    }
    return take_text(arena_format(compiler->arena, "%u", rule->source_index), &rule->rule_name);
}

static struct error make_rule(struct compiler *compiler, const struct route *route,
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

/* ---- Candidates ---- */

static bool is_repeated(const struct route_value_match *values, uint32_t index,
                        enum route_fact_kind kind)
{
    for (uint32_t i = 0; i < index; i++) {
        if (kind == ROUTE_FACT_HEADER ? bytes_equal_nocase(values[i].name, values[index].name)
                                      : bytes_equal(values[i].name, values[index].name)) {
            return true;
        }
    }
    return false;
}

/* Headers or query parameters; of entries with one name only the first counts, also for precedence.
 */
static struct error make_values(struct compiler *compiler, enum route_fact_kind kind,
                                const struct route_value_match *values, uint32_t count,
                                const struct route_value_predicate **ret_values,
                                uint16_t *ret_count)
{
    struct route_value_predicate *out = arena_alloc_zero(compiler->arena, count, sizeof(*out));
    if (out == NULL) {
        return no_memory;
    }
    uint16_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (is_repeated(values, i, kind)) {
            continue;
        }
        struct bytes name = values[i].name;
        if (kind == ROUTE_FACT_HEADER) {
            char *lower = arena_copy_string(compiler->arena, name);
            if (lower == NULL) {
                return no_memory;
            }
            for (size_t at = 0; at < name.size; at++) {
                lower[at] = (char)byte_lower((uint8_t)lower[at]);
            }
            name = bytes_make(lower, name.size);
        }
        out[kept].name = name;
        out[kept].value = values[i].value;
        if (values[i].type == ROUTE_MATCH_REGEX) {
            TRY(make_regex(compiler, values[i].value, &out[kept].regex));
        }
        kept++;
    }
    *ret_values = out;
    *ret_count = kept;
    return OK;
}

static struct error make_http_candidate(struct compiler *compiler,
                                        const struct route_http_match *match,
                                        struct route_candidate *candidate)
{
    candidate->position = &match->position;
    candidate->type = match->path.type;
    candidate->path = match->path.value;
    candidate->method = match->method;
    if (match->path.type == ROUTE_MATCH_PREFIX) {
        candidate->path = route_path_prefix(match->path.value);
    } else if (match->path.type == ROUTE_MATCH_REGEX) {
        TRY(make_regex(compiler, match->path.value, &candidate->path_regex));
    }
    TRY(make_values(compiler, ROUTE_FACT_HEADER, match->headers, match->headers_count,
                    &candidate->headers, &candidate->headers_count));
    return make_values(compiler, ROUTE_FACT_QUERY_PARAM, match->query_params,
                       match->query_params_count, &candidate->query_params,
                       &candidate->query_params_count);
}

static struct error make_grpc_regexes(struct compiler *compiler, struct route_candidate *candidate)
{
    if (candidate->service.data != NULL) {
        TRY(make_regex(compiler, candidate->service, &candidate->path_regex));
    }
    if (candidate->method.data != NULL) {
        TRY(make_regex(compiler, candidate->method, &candidate->method_regex));
    }
    return OK;
}

/* What the index looks up: the path of the call, or its part of the service. */
static struct error make_grpc_path(struct compiler *compiler, struct route_candidate *candidate)
{
    struct bytes service = candidate->service;
    struct bytes method = candidate->method;
    if (service.data == NULL) {
        return OK;
    }
    return take_text(arena_format(compiler->arena, "/%.*s%s%.*s", (int)service.size,
                                  (const char *)service.data, method.data != NULL ? "/" : "",
                                  (int)method.size,
                                  method.data != NULL ? (const char *)method.data : ""),
                     &candidate->path);
}

static struct error make_grpc_candidate(struct compiler *compiler,
                                        const struct route_grpc_match *match,
                                        struct route_candidate *candidate)
{
    candidate->position = &match->position;
    if (match->method != NULL) {
        candidate->type = match->method->type;
        candidate->service = match->method->service;
        candidate->method = match->method->method;
        TRY(candidate->type == ROUTE_MATCH_REGEX ? make_grpc_regexes(compiler, candidate)
                                                 : make_grpc_path(compiler, candidate));
    }
    return make_values(compiler, ROUTE_FACT_HEADER, match->headers, match->headers_count,
                       &candidate->headers, &candidate->headers_count);
}

static void make_tls_candidate(struct bytes hostname, struct route_candidate *candidate)
{
    bool is_wildcard = bytes_starts_with(hostname, BYTES("*."));
    candidate->type = is_wildcard ? ROUTE_MATCH_PREFIX : ROUTE_MATCH_EXACT;
    candidate->path = is_wildcard ? bytes_skip(hostname, 1) : hostname;
}

/* How many candidates a rule becomes. */
static uint32_t count_matches(const struct route *route, const struct route_rule *rule)
{
    uint32_t count = 1;
    if (route->object.kind == ROUTE_KIND_HTTP_ROUTE) {
        count = rule->http_matches_count;
    } else if (route->object.kind == ROUTE_KIND_GRPC_ROUTE) {
        count = rule->grpc_matches_count;
    } else if (route->object.kind == ROUTE_KIND_TLS_ROUTE) {
        count = route->hostnames_count;
    }
    return count == 0 ? 1 : count;
}

static struct error make_candidate(struct compiler *compiler, const struct route_table_rule *rule,
                                   uint32_t match, struct route_candidate *candidate)
{
    const struct route_rule *source = rule->source;
    candidate->kind = rule->route->object.kind;
    candidate->rule = rule;
    candidate->match_index = match;
    candidate->position = &source->position;
    if (candidate->kind == ROUTE_KIND_HTTP_ROUTE && match < source->http_matches_count) {
        return make_http_candidate(compiler, &source->http_matches[match], candidate);
    }
    if (candidate->kind == ROUTE_KIND_GRPC_ROUTE && match < source->grpc_matches_count) {
        return make_grpc_candidate(compiler, &source->grpc_matches[match], candidate);
    }
    if (candidate->kind == ROUTE_KIND_TLS_ROUTE && match < rule->route->hostnames_count) {
        make_tls_candidate(rule->route->hostnames[match], candidate);
    } else if (candidate->kind == ROUTE_KIND_HTTP_ROUTE) {
        candidate->type = ROUTE_MATCH_PREFIX; /* no match at all is PathPrefix "/" */
        candidate->path = BYTES("");
    }
    return OK;
}

/* The body predicates of a rule, which are one more condition of each of its matches. */
static struct error make_body_matches(struct compiler *compiler, struct route_table_rule *rule,
                                      struct route_candidate *candidate)
{
    const struct route_rule *source = rule->source;
    uint32_t count = 0;
    for (uint32_t i = 0; i < source->filters_count; i++) {
        count += is_body_match(&source->filters[i]) ? 1 : 0;
    }
    if (count == 0) {
        return OK;
    }
    const struct route_body_match **matches =
        arena_alloc_zero(compiler->arena, count, sizeof(const struct route_body_match *));
    if (matches == NULL) {
        return no_memory;
    }
    uint32_t found = 0;
    for (uint32_t i = 0; i < source->filters_count; i++) {
        if (!is_body_match(&source->filters[i])) {
            continue;
        }
        const struct route_body_match *match = compiler->resolver->body_match(
            compiler->resolver->argument, rule->route->object.namespace,
            source->filters[i].extension_ref->name);
        if (match == NULL) {
            rule->fault = ROUTE_RULE_EXTENSION_NOT_FOUND;
            continue;
        }
        TRY(hold_object(compiler, &match->object));
        matches[found++] = match;
        if (match->bytes_max > candidate->body_bytes_max) {
            candidate->body_bytes_max = match->bytes_max;
        }
    }
    candidate->body_matches = matches;
    /* A rule that fails anyway need not wait for a body. */
    candidate->body_matches_count = rule->fault == ROUTE_RULE_SOUND ? found : 0;
    return OK;
}

/* ---- Usable rules ---- */

static bool is_regex_sound(enum route_match_type type, struct bytes pattern,
                           struct route_regex_fault *fault)
{
    struct route_regex *regex = NULL;
    if (type != ROUTE_MATCH_REGEX || pattern.data == NULL) {
        return true;
    }
    struct error error = route_regex_create(pattern, fault, &regex);
    route_regex_destroy(regex);
    return !error_is(error) || error.code == ERROR_NO_MEMORY;
}

static bool are_values_sound(const struct route_value_match *values, uint32_t count,
                             struct route_regex_fault *fault,
                             const struct route_position **ret_position)
{
    for (uint32_t i = 0; i < count; i++) {
        *ret_position = &values[i].position;
        if (values[i].type == ROUTE_MATCH_UNSUPPORTED ||
            !is_regex_sound(values[i].type, values[i].value, fault)) {
            return false;
        }
    }
    return true;
}

static bool is_http_match_sound(const struct route_http_match *match,
                                struct route_regex_fault *fault,
                                const struct route_position **ret_position)
{
    *ret_position = &match->path.position;
    return match->path.type != ROUTE_MATCH_UNSUPPORTED &&
           is_regex_sound(match->path.type, match->path.value, fault) &&
           are_values_sound(match->headers, match->headers_count, fault, ret_position) &&
           are_values_sound(match->query_params, match->query_params_count, fault, ret_position);
}

static bool is_grpc_match_sound(const struct route_grpc_match *match,
                                struct route_regex_fault *fault,
                                const struct route_position **ret_position)
{
    *ret_position = &match->position;
    if (match->method != NULL) {
        *ret_position = &match->method->position;
        if (match->method->type == ROUTE_MATCH_UNSUPPORTED ||
            !is_regex_sound(match->method->type, match->method->service, fault) ||
            !is_regex_sound(match->method->type, match->method->method, fault)) {
            return false;
        }
    }
    return are_values_sound(match->headers, match->headers_count, fault, ret_position);
}

bool route_rule_is_usable(const struct route_rule *rule, struct route_regex_fault *fault,
                          const struct route_position **ret_position)
{
    const struct route_position *ignored = NULL;
    const struct route_position **position = ret_position != NULL ? ret_position : &ignored;
    struct route_regex_fault unsupported = {.text = "a value that this version does not know"};
    CHECK(rule != NULL);
    if (fault != NULL) {
        *fault = unsupported;
    }
    *position = &rule->position;
    if (rule->unsupported == ROUTE_UNSUPPORTED_VALUE) {
        return false;
    }
    for (uint32_t i = 0; i < rule->http_matches_count; i++) {
        if (!is_http_match_sound(&rule->http_matches[i], fault, position)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < rule->grpc_matches_count; i++) {
        if (!is_grpc_match_sound(&rule->grpc_matches[i], fault, position)) {
            return false;
        }
    }
    return true;
}

/* ---- Rules of a port ---- */

static int compare_routes(const void *a, const void *b)
{
    const struct route *left = *(const struct route *const *)a;
    const struct route *right = *(const struct route *const *)b;
    return route_object_compare_age(&left->object, &right->object);
}

static int compare_candidates(const void *a, const void *b)
{
    enum route_precedence deciding;
    return route_precedence_compare(a, b, &deciding);
}

static struct error copy_routes(struct compiler *compiler, const struct route ***ret_routes)
{
    uint32_t count = compiler->port->routes_count;
    const struct route **routes =
        arena_alloc_zero(compiler->arena, count, sizeof(const struct route *));
    if (routes == NULL) {
        return no_memory;
    }
    for (uint32_t i = 0; i < count; i++) {
        routes[i] = compiler->port->routes[i];
    }
    qsort(routes, count, sizeof(const struct route *), compare_routes);
    *ret_routes = routes;
    return OK;
}

/* Allocate for every usable rule and its matches. */
static struct error allocate_rules(struct compiler *compiler, const struct route *const *routes)
{
    uint32_t rules = 0;
    uint32_t candidates = 0;
    for (uint32_t i = 0; i < compiler->port->routes_count; i++) {
        for (uint32_t at = 0; at < routes[i]->rules_count; at++) {
            rules++;
            candidates += count_matches(routes[i], &routes[i]->rules[at]);
        }
    }
    compiler->rules->rules =
        arena_alloc_zero(compiler->arena, rules, sizeof(*compiler->rules->rules));
    compiler->rules->candidates =
        arena_alloc_zero(compiler->arena, candidates, sizeof(*compiler->rules->candidates));
    return compiler->rules->rules == NULL || compiler->rules->candidates == NULL ? no_memory : OK;
}

static struct error compile_rule(struct compiler *compiler, const struct route *route,
                                 const struct route_rule *source)
{
    struct route_rules *rules = compiler->rules;
    struct route_table_rule *rule = &rules->rules[rules->rules_count];
    uint32_t matches = count_matches(route, source);
    rule->index = rules->rules_count++;
    TRY(make_rule(compiler, route, source, rule));
    for (uint32_t match = 0; match < matches; match++) {
        struct route_candidate *candidate = &rules->candidates[rules->candidates_count++];
        TRY(make_body_matches(compiler, rule, candidate));
        TRY(make_candidate(compiler, rule, match, candidate));
    }
    return OK;
}

static struct error compile_route(struct compiler *compiler, const struct route *route)
{
    TRY(hold_object(compiler, &route->object));
    for (uint32_t i = 0; i < route->rules_count; i++) {
        if (route_rule_is_usable(&route->rules[i], NULL, NULL)) {
            TRY(compile_rule(compiler, route, &route->rules[i]));
        }
    }
    return OK;
}

static struct error compile_port(struct compiler *compiler)
{
    struct route_rules *rules = compiler->rules;
    const struct route **routes = NULL;
    rules->kind = compiler->port->kind;
    rules->set = compiler->port->set;
    TRY(copy_routes(compiler, &routes));
    TRY(allocate_rules(compiler, routes));
    for (uint32_t i = 0; i < compiler->port->routes_count; i++) {
        TRY(compile_route(compiler, routes[i]));
    }
    qsort(rules->candidates, rules->candidates_count, sizeof(*rules->candidates),
          compare_candidates);
    for (uint32_t i = 0; i < rules->candidates_count; i++) {
        rules->candidates[i].rank = i;
    }
    return route_lookup_build(rules, compiler->arena);
}

/* ---- Tables ---- */

static bool are_ports_alike(const struct route_table_port *a, const struct route_table_port *b)
{
    return a->kind == b->kind && a->set == b->set && a->routes_count == b->routes_count &&
           (a->routes_count == 0 ||
            memcmp(a->routes, b->routes, a->routes_count * sizeof(const struct route *)) == 0);
}

/* Remember what the table is compiled from. */
static struct error keep_source(const struct route_table_source *source, struct route_table *table)
{
    table->source_ports =
        arena_alloc_zero(&table->arena, source->ports_count, sizeof(*table->source_ports));
    if (table->source_ports == NULL) {
        return no_memory;
    }
    for (uint32_t i = 0; i < source->ports_count; i++) {
        const struct route_table_port *port = &source->ports[i];
        const struct route **routes =
            arena_alloc_zero(&table->arena, port->routes_count, sizeof(const struct route *));
        if (routes == NULL) {
            return no_memory;
        }
        for (uint32_t r = 0; r < port->routes_count; r++) {
            routes[r] = port->routes[r];
        }
        table->source_ports[i] = *port;
        table->source_ports[i].routes = routes;
    }
    return OK;
}

static struct error compile_ports(const struct route_table_source *source,
                                  struct route_table *table)
{
    table->namespace = arena_copy(&table->arena, source->namespace);
    table->name = arena_copy(&table->arena, source->name);
    table->ports = arena_alloc_zero(&table->arena, source->ports_count, sizeof(*table->ports));
    if (table->namespace.data == NULL || table->name.data == NULL || table->ports == NULL) {
        return no_memory;
    }
    TRY(keep_source(source, table));
    bool can_share = false;
    for (uint32_t i = 0; i < source->ports_count; i++) {
        const struct route_table_port *port = &source->ports[i];
        table->ports[i].port = port->port;
        table->ports_count = i + 1;
        if (can_share && are_ports_alike(&source->ports[i - 1], port)) {
            table->ports[i].rules = table->ports[i - 1].rules;
            continue;
        }
        struct route_rules *rules = arena_alloc_zero(&table->arena, 1, sizeof(*rules));
        if (rules == NULL) {
            return no_memory;
        }
        struct compiler compiler = {
            .table = table,
            .arena = &table->arena,
            .resolver = source->resolver,
            .port = port,
            .rules = rules,
        };
        TRY(compile_port(&compiler));
        table->ports[i].rules = rules;
        can_share = !compiler.has_parent_backend;
    }
    return OK;
}

static void destroy(struct route_table *table)
{
    for (struct held_regex *held = table->regexes; held != NULL; held = held->next) {
        route_regex_destroy(held->regex);
    }
    for (struct held_object *held = table->objects; held != NULL; held = held->next) {
        route_object_unref(held->object);
    }
    arena_finish(&table->arena);
    free(table);
}

struct error route_table_compile(const struct route_table_source *source,
                                 const struct route_table **ret_table)
{
    CHECK(source != NULL && source->resolver != NULL);
    CHECK(ret_table != NULL);
    struct route_table *table = calloc(1, sizeof(*table));
    if (table == NULL) {
        return no_memory;
    }
    table->self = table;
    table->refs = 1;
    arena_init(&table->arena, CHUNK_BYTES, ROUTE_TABLE_BYTES_MAX);
    arena_fail_after(&table->arena, source->fail_after);
    struct error error = route_signature_make(source, &table->arena, &table->signature);
    bool is_shared = !error_is(error) && source->previous != NULL &&
                     route_signature_equal(&table->signature, &source->previous->signature);
    if (!error_is(error) && !is_shared) {
        error = compile_ports(source, table);
    }
    if (error_is(error) || is_shared) {
        destroy(table);
    }
    if (!error_is(error)) {
        *ret_table = is_shared ? route_table_ref(source->previous) : table;
    }
    return error;
}

const struct route_table_port *route_table_ports(const struct route_table *table,
                                                 uint32_t *ret_count)
{
    *ret_count = table->ports_count;
    return table->source_ports;
}

const struct route_table *route_table_ref(const struct route_table *table)
{
    /* tidy: allow crossing: snapshots share tables; whoever drops the last snapshot frees them */
    __atomic_fetch_add(&table->self->refs, 1, __ATOMIC_RELAXED);
    return table;
}

void route_table_unref(const struct route_table *table)
{
    if (table == NULL) {
        return;
    }
    /* tidy: allow crossing: as above */
    uint32_t before = __atomic_fetch_sub(&table->self->refs, 1, __ATOMIC_ACQ_REL);
    CHECK(before > 0);
    if (before == 1) {
        destroy(table->self);
    }
}

const struct route_rules *route_table_find(const struct route_table *table, uint16_t port,
                                           enum route_transport transport)
{
    for (uint32_t i = 0; table != NULL && i < table->ports_count; i++) {
        const struct route_rules *rules = table->ports[i].rules;
        bool is_udp = rules->kind == ROUTE_KIND_UDP_ROUTE;
        if (table->ports[i].port == port && is_udp == (transport == ROUTE_TRANSPORT_UDP)) {
            return rules;
        }
    }
    return NULL;
}

struct bytes route_table_namespace(const struct route_table *table)
{
    return table->namespace;
}

struct bytes route_table_name(const struct route_table *table)
{
    return table->name;
}

enum route_kind route_rules_kind(const struct route_rules *rules)
{
    return rules->kind;
}

enum route_set route_rules_set(const struct route_rules *rules)
{
    return rules->set;
}

uint32_t route_rules_count(const struct route_rules *rules)
{
    return rules->rules_count;
}

const struct route_table_rule *route_rules_at(const struct route_rules *rules, uint32_t index)
{
    CHECK(index < rules->rules_count);
    return &rules->rules[index];
}

/*
 * Compilation: routes by age, their rules (table_rule.c), one candidate for each match
 * (table_candidate.c), sorted by precedence, indexed.
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
#include "routes/precedence.h"
#include "routes/signature.h"
#include "routes/table_compiler.h"

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

/* ---- Small makers ---- */

struct error route_compiler_hold(struct route_compiler *compiler, const struct route_object *object)
{
    struct held_object *held = arena_alloc(compiler->arena, sizeof(*held));
    if (held == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    route_object_ref(object);
    *held = (struct held_object){compiler->table->objects, object};
    compiler->table->objects = held;
    return OK;
}

struct error route_compiler_regex(struct route_compiler *compiler, struct bytes pattern,
                                  const struct route_regex **ret_regex)
{
    struct held_regex *held = arena_alloc(compiler->arena, sizeof(*held));
    if (held == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct route_regex *regex = NULL;
    TRY(route_regex_create(pattern, NULL, &regex));
    *held = (struct held_regex){compiler->table->regexes, regex};
    compiler->table->regexes = held;
    *ret_regex = regex;
    return OK;
}

/* What arena_format gave, or that it refused. */
struct error route_compiler_text(char *text, struct bytes *ret_text)
{
    if (text == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *ret_text = bytes_from_string(text);
    return OK;
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

static struct error copy_routes(struct route_compiler *compiler, const struct route ***ret_routes)
{
    uint32_t count = compiler->port->routes_count;
    const struct route **routes =
        arena_alloc_zero(compiler->arena, count, sizeof(const struct route *));
    if (routes == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < count; i++) {
        routes[i] = compiler->port->routes[i];
    }
    qsort(routes, count, sizeof(const struct route *), compare_routes);
    *ret_routes = routes;
    return OK;
}

/* Allocate for every usable rule and its matches. */
static struct error allocate_rules(struct route_compiler *compiler,
                                   const struct route *const *routes)
{
    uint32_t rules = 0;
    uint32_t candidates = 0;
    for (uint32_t i = 0; i < compiler->port->routes_count; i++) {
        for (uint32_t at = 0; at < routes[i]->rules_count; at++) {
            rules++;
            candidates += route_compiler_count_matches(routes[i], &routes[i]->rules[at]);
        }
    }
    compiler->rules->rules =
        arena_alloc_zero(compiler->arena, rules, sizeof(*compiler->rules->rules));
    compiler->rules->candidates =
        arena_alloc_zero(compiler->arena, candidates, sizeof(*compiler->rules->candidates));
    return compiler->rules->rules == NULL || compiler->rules->candidates == NULL
               ? error_make(ERROR_NO_MEMORY, 0)
               : OK;
}

static struct error compile_rule(struct route_compiler *compiler, const struct route *route,
                                 const struct route_rule *source)
{
    struct route_rules *rules = compiler->rules;
    struct route_table_rule *rule = &rules->rules[rules->rules_count];
    uint32_t matches = route_compiler_count_matches(route, source);
    rule->index = rules->rules_count++;
    TRY(route_compiler_rule(compiler, route, source, rule));
    for (uint32_t match = 0; match < matches; match++) {
        struct route_candidate *candidate = &rules->candidates[rules->candidates_count++];
        TRY(route_compiler_body_matches(compiler, rule, candidate));
        TRY(route_compiler_candidate(compiler, rule, match, candidate));
    }
    return OK;
}

static struct error compile_route(struct route_compiler *compiler, const struct route *route)
{
    TRY(route_compiler_hold(compiler, &route->object));
    for (uint32_t i = 0; i < route->rules_count; i++) {
        if (route_rule_is_usable(&route->rules[i], NULL, NULL)) {
            TRY(compile_rule(compiler, route, &route->rules[i]));
        }
    }
    return OK;
}

static struct error compile_port(struct route_compiler *compiler)
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
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < source->ports_count; i++) {
        const struct route_table_port *port = &source->ports[i];
        const struct route **routes =
            arena_alloc_zero(&table->arena, port->routes_count, sizeof(const struct route *));
        if (routes == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
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
        return error_make(ERROR_NO_MEMORY, 0);
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
            return error_make(ERROR_NO_MEMORY, 0);
        }
        struct route_compiler compiler = {
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
        return error_make(ERROR_NO_MEMORY, 0);
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

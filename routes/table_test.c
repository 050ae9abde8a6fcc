/*
 * Compilation: what a table holds, what it leaves out, and that it survives every allocation that
 * fails.
 */
#include "routes/table.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/arena.h"
#include "routes/table_random.h"

static const struct route *new_route(const char *name, int64_t created,
                                     const struct route_rule *rules, uint32_t count)
{
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    cr_assert(!error_is(route_object_create(sizeof(struct route), 512, &object, &arena)));
    struct route *route = (struct route *)(void *)object;
    object->kind = ROUTE_KIND_HTTP_ROUTE;
    object->namespace = BYTES("ns");
    object->name = bytes_from_string(name);
    object->created = created;
    route->rules = rules;
    route->rules_count = count;
    return route;
}

static enum route_backend_fault find_backend(void *argument, const struct route *route,
                                             const struct route_backend_ref *reference)
{
    (void)argument;
    (void)route;
    return bytes_equal(reference->name, BYTES("gone")) ? ROUTE_BACKEND_NOT_FOUND
                                                       : ROUTE_BACKEND_VALID;
}

static const struct route_body_match *find_nothing(void *argument, struct bytes namespace,
                                                   struct bytes name)
{
    (void)argument;
    (void)namespace;
    (void)name;
    return NULL;
}

static const struct route_table_resolver resolver = {NULL, find_backend, find_nothing};

static const struct route_table *compile(const struct route_table_port *ports, uint32_t count)
{
    const struct route_table *table = NULL;
    struct route_table_source source = {.namespace = BYTES("ns"),
                                        .name = BYTES("svc"),
                                        .ports = ports,
                                        .ports_count = count,
                                        .resolver = &resolver};
    cr_assert(!error_is(route_table_compile(&source, &table)));
    return table;
}

/* Also for clang, to which a constant is no constant expression. */
#define WEB                                                                                        \
    {                                                                                              \
        .namespace = BYTES_LITERAL("ns"), .name = BYTES_LITERAL("web"), .port = 81, .weight = 3    \
    }
#define GONE                                                                                       \
    {                                                                                              \
        .namespace = BYTES_LITERAL("ns"), .name = BYTES_LITERAL("gone"), .port = 82, .weight = 1   \
    }
static const struct route_http_match anything = {
    .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/")}};
static const struct route_backend_ref web = WEB;

Test(table, names_rules_and_backends_for_metrics)
{
    static const struct route_backend_ref references[] = {
        {.namespace = BYTES_LITERAL("ns"), .name = BYTES_LITERAL("web"), .port = 81, .weight = 3},
        {.namespace = BYTES_LITERAL("other"),
         .name = BYTES_LITERAL("gone"),
         .port = 82,
         .weight = 1},
    };
    static const struct route_rule rules[] = {
        {.name = BYTES_LITERAL("first"),
         .http_matches = &anything,
         .http_matches_count = 1,
         .backend_refs = references,
         .backend_refs_count = 2},
        {.http_matches = &anything, .http_matches_count = 1},
    };
    const struct route *route = new_route("r", 0, rules, 2);
    struct route_table_port port = {
        .port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = &route, .routes_count = 1};
    const struct route_table *table = compile(&port, 1);
    route_object_unref(&route->object); /* the table holds it */
    const struct route_rules *compiled = route_table_find(table, 80, ROUTE_TRANSPORT_TCP);
    cr_assert(compiled != NULL && route_rules_count(compiled) == 2);
    cr_expect(route_table_find(table, 81, ROUTE_TRANSPORT_TCP) == NULL);
    const struct route_table_rule *first = route_rules_at(compiled, 0);
    cr_expect(bytes_equal(first->route_name, BYTES("ns/r")));
    cr_expect(bytes_equal(first->rule_name, BYTES("first")));
    cr_expect(first->weights_sum == 4);
    cr_expect(bytes_equal(first->backends[0].reference, BYTES("web.ns:81")));
    cr_expect(bytes_equal(first->backends[1].reference, BYTES("gone.other:82")));
    cr_expect(first->backends[1].fault == ROUTE_BACKEND_NOT_FOUND);
    const struct route_table_rule *second = route_rules_at(compiled, 1);
    cr_expect(bytes_equal(second->rule_name, BYTES("1")));
    cr_expect(bytes_equal(second->backends[0].reference, BYTES("svc.ns:80")), "the parent");
    cr_expect(second->backends[0].source == NULL);
    route_table_unref(table);
}

Test(table, drops_dead_mirrors_and_fails_what_would_have_to_ask)
{
    static const struct route_mirror mirrors[] = {{.backend = WEB}, {.backend = GONE}};
    static const struct route_external_auth authorisation = {.backend = GONE};
    static const struct route_redirect redirect = {.status_code = 302};
    static const struct route_filter filters[] = {
        {.type = ROUTE_FILTER_REQUEST_MIRROR, .mirror = &mirrors[0]},
        {.type = ROUTE_FILTER_REQUEST_MIRROR, .mirror = &mirrors[1]},
        {.type = ROUTE_FILTER_REQUEST_REDIRECT, .redirect = &redirect},
        {.type = ROUTE_FILTER_EXTERNAL_AUTH, .external_auth = &authorisation},
    };
    static const struct route_backend_ref guarded = {.namespace = BYTES_LITERAL("ns"),
                                                     .name = BYTES_LITERAL("web"),
                                                     .port = 1,
                                                     .weight = 1,
                                                     .filters = &filters[3],
                                                     .filters_count = 1};
    static const struct route_rule rules[] = {
        {.http_matches = &anything,
         .http_matches_count = 1,
         .filters = filters,
         .filters_count = 3},
        {.http_matches = &anything,
         .http_matches_count = 1,
         .filters = &filters[3],
         .filters_count = 1},
        {.http_matches = &anything,
         .http_matches_count = 1,
         .backend_refs = &guarded,
         .backend_refs_count = 1},
    };
    const struct route *route = new_route("r", 0, rules, 3);
    struct route_table_port port = {
        .port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = &route, .routes_count = 1};
    const struct route_table *table = compile(&port, 1);
    const struct route_rules *compiled = route_table_find(table, 80, ROUTE_TRANSPORT_TCP);
    const struct route_table_rule *first = route_rules_at(compiled, 0);
    cr_expect(first->fault == ROUTE_RULE_SOUND && first->filters_count == 2);
    cr_expect(bytes_equal(first->filters[0].backend->reference, BYTES("web.ns:81")));
    cr_expect(first->redirect == &filters[2] && first->backends_count == 0);
    cr_expect(route_rules_at(compiled, 1)->fault == ROUTE_RULE_FILTER_UNSUPPORTED);
    cr_expect(route_rules_at(compiled, 2)->backends[0].fault == ROUTE_BACKEND_FILTER_UNSUPPORTED);
    route_table_unref(table);
    route_object_unref(&route->object);
}

Test(table, leaves_out_rules_whose_expressions_do_not_compile)
{
    static const struct route_value_match bad = {.type = ROUTE_MATCH_REGEX,
                                                 .position = {"f", 7, 3},
                                                 .name = BYTES_LITERAL("x"),
                                                 .value = BYTES_LITERAL("(a")};
    static const struct route_http_match match = {
        .path = {.type = ROUTE_MATCH_REGEX, .value = BYTES_LITERAL("/ok.*")},
        .headers = &bad,
        .headers_count = 1};
    static const struct route_rule rules[] = {
        {.http_matches = &match, .http_matches_count = 1},
        {.http_matches = &anything, .http_matches_count = 1},
    };
    struct route_regex_fault fault;
    const struct route_position *position = NULL;
    cr_expect(!route_rule_is_usable(&rules[0], &fault, &position));
    cr_expect(position != NULL && position->line == 7 && fault.text[0] != '\0');
    cr_expect(route_rule_is_usable(&rules[1], &fault, &position));
    const struct route *route = new_route("r", 0, rules, 2);
    struct route_table_port port = {
        .port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = &route, .routes_count = 1};
    const struct route_table *table = compile(&port, 1);
    cr_expect(route_rules_count(route_table_find(table, 80, ROUTE_TRANSPORT_TCP)) == 1);
    route_table_unref(table);
    route_object_unref(&route->object);
}

Test(table, shares_rules_between_ports_that_are_alike)
{
    static const struct route_rule with_backend = {.http_matches = &anything,
                                                   .http_matches_count = 1,
                                                   .backend_refs = &web,
                                                   .backend_refs_count = 1};
    static const struct route_rule to_parent = {.http_matches = &anything, .http_matches_count = 1};
    const struct route *shared = new_route("a", 0, &with_backend, 1);
    const struct route *own = new_route("b", 0, &to_parent, 1);
    const struct route_table_port ports[] = {
        {.port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = &shared, .routes_count = 1},
        {.port = 81, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = &shared, .routes_count = 1},
        {.port = 82, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = &own, .routes_count = 1},
        {.port = 83, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = &own, .routes_count = 1},
    };
    const struct route_table *table = compile(ports, 4);
    cr_expect(route_table_find(table, 80, ROUTE_TRANSPORT_TCP) ==
              route_table_find(table, 81, ROUTE_TRANSPORT_TCP));
    cr_expect(route_table_find(table, 81, ROUTE_TRANSPORT_TCP) !=
              route_table_find(table, 82, ROUTE_TRANSPORT_TCP));
    cr_expect(
        route_rules_at(route_table_find(table, 82, ROUTE_TRANSPORT_TCP), 0)->backends[0].port ==
        82);
    cr_expect(
        route_rules_at(route_table_find(table, 83, ROUTE_TRANSPORT_TCP), 0)->backends[0].port ==
        83);
    cr_expect(route_table_ref(table) == table);
    route_table_unref(table);
    route_table_unref(table);
    route_table_unref(NULL);
    route_object_unref(&shared->object);
    route_object_unref(&own->object);
}

Test(table, keeps_tcp_and_udp_ports_of_one_number_apart)
{
    static const struct route_rule rule = {.backend_refs = &web, .backend_refs_count = 1};
    const struct route *tcp = new_route("tcp", 0, &rule, 1);
    const struct route *udp = new_route("udp", 0, &rule, 1);
    const struct route_table_port ports[] = {
        {.port = 53, .kind = ROUTE_KIND_TCP_ROUTE, .routes = &tcp, .routes_count = 1},
        {.port = 53, .kind = ROUTE_KIND_UDP_ROUTE, .routes = &udp, .routes_count = 1},
    };
    const struct route_table *table = compile(ports, 2);
    const struct route_rules *of_tcp = route_table_find(table, 53, ROUTE_TRANSPORT_TCP);
    const struct route_rules *of_udp = route_table_find(table, 53, ROUTE_TRANSPORT_UDP);
    cr_assert(of_tcp != NULL && of_udp != NULL);
    cr_expect(bytes_equal(route_rules_at(of_tcp, 0)->route_name, BYTES("ns/tcp")));
    cr_expect(bytes_equal(route_rules_at(of_udp, 0)->route_name, BYTES("ns/udp")));
    cr_expect(route_table_find(table, 54, ROUTE_TRANSPORT_UDP) == NULL);
    route_table_unref(table);
    route_object_unref(&tcp->object);
    route_object_unref(&udp->object);
}

Test(table, counts_rules_from_the_oldest_route)
{
    static const struct route_rule rule = {.http_matches = &anything, .http_matches_count = 1};
    const struct route *routes[] = {
        new_route("a", ROUTE_CREATED_ABSENT, &rule, 1),
        new_route("b", 20, &rule, 1),
        new_route("c", 10, &rule, 1),
    };
    struct route_table_port port = {
        .port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = routes, .routes_count = 3};
    const struct route_table *table = compile(&port, 1);
    const char *order[] = {"ns/c", "ns/b", "ns/a"};
    for (uint32_t i = 0; i < 3; i++) {
        cr_expect(bytes_equal(
            route_rules_at(route_table_find(table, 80, ROUTE_TRANSPORT_TCP), i)->route_name,
            bytes_from_string(order[i])));
        route_object_unref(&routes[i]->object);
    }
    route_table_unref(table);
}

Test(table, survives_every_allocation_that_fails)
{
    uint32_t refused = 0;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct random_source random = {.state = seed};
        struct route_table_resolver random_one;
        struct arena arena;
        arena_init(&arena, 65536, 64u << 20);
        random_resolver_init(&random_one);
        struct route_table_port port = random_port(&random, &arena);
        struct route_table_source source = {.namespace = BYTES("ns"),
                                            .name = BYTES("svc"),
                                            .ports = &port,
                                            .ports_count = 1,
                                            .resolver = &random_one};
        bool is_done = false;
        for (uint32_t n = 1; !is_done; n++) {
            const struct route_table *table = NULL;
            source.fail_after = n;
            struct error error = route_table_compile(&source, &table);
            is_done = !error_is(error);
            refused += is_done ? 0 : 1;
            cr_assert(is_done || (error.code == ERROR_NO_MEMORY && table == NULL));
            route_table_unref(table);
        }
        random_port_release(&port);
        random_resolver_finish(&random_one);
        arena_finish(&arena);
    }
    cr_expect(refused > 100, "%u", refused);
}

/*
 * The words of an explanation, and memory that is refused to it.
 */
#include "routes/explain.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "routes/table_random.h"

static const struct route_value_match header = {
    .type = ROUTE_MATCH_EXACT, .name = BYTES_LITERAL("X-Version"), .value = BYTES_LITERAL("two")};
static const struct route_value_match param = {
    .type = ROUTE_MATCH_REGEX, .name = BYTES_LITERAL("page"), .value = BYTES_LITERAL("[0-9]+")};
static const struct route_http_match matches[] = {
    {.position = {"f.yaml", 10, 5},
     .path = {.type = ROUTE_MATCH_EXACT, .value = BYTES_LITERAL("/exact")}},
    {.position = {"f.yaml", 11, 5},
     .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/a/")},
     .method = BYTES_LITERAL("PUT")},
    {.position = {"f.yaml", 12, 5},
     .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/a")},
     .headers = &header,
     .headers_count = 1},
    {.position = {"f.yaml", 13, 5},
     .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/a")},
     .query_params = &param,
     .query_params_count = 1},
    {.position = {"f.yaml", 14, 5},
     .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/a")}},
    {.position = {"f.yaml", 15, 5},
     .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/")}},
    {.position = {"f.yaml", 16, 5},
     .path = {.type = ROUTE_MATCH_REGEX, .value = BYTES_LITERAL("/a.*")}},
};
static const struct route_rule rule = {.http_matches = matches, .http_matches_count = 7};

struct wanted {
    uint32_t match;
    const char *predicate;
    const char *wanted;
    const char *got;
};

static const struct route_table *compile(struct route_table_resolver *resolver)
{
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    const struct route_table *table = NULL;
    cr_assert(!error_is(route_object_create(sizeof(struct route), 512, &object, &arena)));
    struct route *route = (struct route *)(void *)object;
    object->kind = ROUTE_KIND_HTTP_ROUTE;
    object->namespace = BYTES("ns");
    object->name = BYTES("r");
    route->rules = &rule;
    route->rules_count = 1;
    const struct route *routes[] = {route};
    struct route_table_port port = {
        .port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = routes, .routes_count = 1};
    struct route_table_source source = {.namespace = BYTES("ns"),
                                        .name = BYTES("svc"),
                                        .ports = &port,
                                        .ports_count = 1,
                                        .resolver = resolver};
    cr_assert(!error_is(route_table_compile(&source, &table)));
    route_object_unref(object);
    return table;
}

Test(explain, says_of_every_other_match_what_failed)
{
    static const struct wanted rows[] = {
        {0, "path", "Exact /exact", "/a/b"},
        {1, "method", "PUT", "GET"},
        {2, "header", "x-version: two", "X-VERSION: one,three"},
        {3, "queryParam", "page=RegularExpression [0-9]+", "page=x"},
        {5, "precedence", "a more specific path than PathPrefix /a", "PathPrefix /"},
        {6, "precedence", "a more specific path than PathPrefix /a", "RegularExpression /a.*"},
    };
    const struct route_field fields[] = {
        {BYTES_LITERAL("X-VERSION"), BYTES_LITERAL("one")},
        {BYTES_LITERAL("x-version"), BYTES_LITERAL("three")},
    };
    struct route_request request = {.method = BYTES("GET"),
                                    .path = BYTES("/a/b"),
                                    .query = BYTES("page=x"),
                                    .fields = fields,
                                    .fields_count = 2};
    struct route_table_resolver resolver;
    struct route_scratch *scratch = NULL;
    struct route_explanation explanation;
    struct arena arena;
    random_resolver_init(&resolver);
    arena_init(&arena, 4096, 1u << 20);
    cr_assert(!error_is(route_scratch_create(&scratch)));
    const struct route_table *table = compile(&resolver);
    cr_assert(!error_is(route_explain(route_table_find(table, 80, ROUTE_TRANSPORT_TCP), &request,
                                      scratch, &arena, &explanation)));
    cr_assert(explanation.decision.outcome == ROUTE_OUTCOME_RULE);
    cr_expect(explanation.decision.match_index == 4);
    cr_expect(explanation.decision.position->line == 14);
    cr_assert(explanation.rejections_count == sizeof(rows) / sizeof(rows[0]));
    for (uint32_t i = 0; i < explanation.rejections_count; i++) {
        const struct route_rejection *got = &explanation.rejections[i];
        cr_expect(got->match_index == rows[i].match, "row %u", i);
        cr_expect(got->position->line == 10 + rows[i].match);
        cr_expect_str_eq(got->predicate, rows[i].predicate);
        cr_expect_str_eq(got->wanted, rows[i].wanted);
        cr_expect_str_eq(got->got, rows[i].got);
    }
    cr_expect_str_eq(route_explain_match(explanation.decision.candidate, &arena),
                     "path PathPrefix /a");
    route_table_unref(table);
    route_scratch_destroy(scratch);
    arena_finish(&arena);
    random_resolver_finish(&resolver);
}

Test(explain, says_so_when_memory_is_refused)
{
    struct route_request request = {.method = BYTES("GET"), .path = BYTES("/a/b")};
    struct route_table_resolver resolver;
    struct route_scratch *scratch = NULL;
    random_resolver_init(&resolver);
    cr_assert(!error_is(route_scratch_create(&scratch)));
    const struct route_table *table = compile(&resolver);
    bool is_done = false;
    uint32_t refused = 0;
    for (uint32_t n = 1; !is_done; n++) {
        struct route_explanation explanation;
        struct arena arena;
        arena_init(&arena, 4096, 1u << 20);
        arena_fail_after(&arena, n);
        struct error error = route_explain(route_table_find(table, 80, ROUTE_TRANSPORT_TCP),
                                           &request, scratch, &arena, &explanation);
        is_done = !error_is(error);
        refused += is_done ? 0 : 1;
        cr_expect(is_done || error.code == ERROR_NO_MEMORY);
        arena_finish(&arena);
    }
    cr_expect(refused > 5);
    route_table_unref(table);
    route_scratch_destroy(scratch);
    random_resolver_finish(&resolver);
}

/*
 * What the conformance cases do not reach: the index against the naive walk on random tables,
 * bodies, preflights, strides, weights, long lists.
 */
#include "routes/match.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "routes/table_random.h"

/* A table of one HTTPRoute, from rules that live as long as the test. */
struct fixture {
    const struct route_table *table;
    const struct route_rules *rules;
    struct route_scratch *scratch;
    struct route_table_resolver resolver;
};

static void set_up(struct fixture *fixture, enum route_kind kind, const struct route_rule *rules,
                   uint32_t count)
{
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    cr_assert(!error_is(route_object_create(sizeof(struct route), 512, &object, &arena)));
    struct route *route = (struct route *)(void *)object;
    object->kind = kind;
    object->namespace = BYTES("ns");
    object->name = BYTES("route");
    route->rules = rules;
    route->rules_count = count;
    const struct route *routes[] = {route};
    struct route_table_port port = {.port = 80, .kind = kind, .routes = routes, .routes_count = 1};
    random_resolver_init(&fixture->resolver);
    struct route_table_source source = {.namespace = BYTES("ns"),
                                        .name = BYTES("svc"),
                                        .ports = &port,
                                        .ports_count = 1,
                                        .resolver = &fixture->resolver};
    cr_assert(!error_is(route_table_compile(&source, &fixture->table)));
    cr_assert(!error_is(route_scratch_create(&fixture->scratch)));
    route_object_unref(object);
    fixture->rules = route_table_find(fixture->table, 80, ROUTE_TRANSPORT_TCP);
}

static void tear_down(struct fixture *fixture)
{
    route_table_unref(fixture->table);
    route_scratch_destroy(fixture->scratch);
    random_resolver_finish(&fixture->resolver);
}

Test(match, agrees_with_the_naive_walk_on_random_tables)
{
    uint64_t seed = (uint64_t)time(NULL);
    struct random_report report = random_compare(seed, 150, 200);
    (void)printf("seed %" PRIu64 ": %" PRIu64 " requests\n", seed, report.requests);
    cr_expect(report.disagreements == 0,
              "%" PRIu64 " disagreements; repeat with match_drill %" PRIu64 " 150 200",
              report.disagreements, seed);
    cr_expect(report.matched > 0 && report.unmatched > 0 && report.over_limit > 0);
    cr_expect(report.needed_body > 0 && report.preflights > 0);
}

Test(match, reads_fields_by_stride)
{
    struct wide {
        struct route_field field;
        uint64_t more[3];
    };

    static const struct route_value_match header = {
        .type = ROUTE_MATCH_EXACT, .name = BYTES_LITERAL("X-B"), .value = BYTES_LITERAL("2,3")};
    static const struct route_http_match match = {
        .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/")},
        .headers = &header,
        .headers_count = 1};
    static const struct route_rule rule = {.http_matches = &match, .http_matches_count = 1};
    struct fixture fixture;
    set_up(&fixture, ROUTE_KIND_HTTP_ROUTE, &rule, 1);
    const struct wide fields[] = {
        {.field = {BYTES_LITERAL("x-a"), BYTES_LITERAL("1")}},
        {.field = {BYTES_LITERAL("x-b"), BYTES_LITERAL("2")}},
        {.field = {BYTES_LITERAL("x-B"), BYTES_LITERAL("3")}},
    };
    struct route_request request = {.method = BYTES("GET"),
                                    .path = BYTES("/"),
                                    .fields = &fields[0].field,
                                    .fields_count = 3,
                                    .fields_stride = sizeof(struct wide)};
    struct route_decision decision;
    route_match(fixture.rules, &request, fixture.scratch, &decision);
    cr_expect(decision.outcome == ROUTE_OUTCOME_RULE);
    request.fields_count = 2;
    route_match(fixture.rules, &request, fixture.scratch, &decision);
    cr_expect(decision.outcome == ROUTE_OUTCOME_NONE);
    tear_down(&fixture);
}

static const struct route_extension_ref gold = {.group = BYTES_LITERAL("outrigger.dev"),
                                                .kind = BYTES_LITERAL("BodyMatch"),
                                                .name = BYTES_LITERAL("gold")};
static const struct route_extension_ref missing = {.group = BYTES_LITERAL("outrigger.dev"),
                                                   .kind = BYTES_LITERAL("BodyMatch"),
                                                   .name = BYTES_LITERAL("missing")};
static const struct route_extension_ref stranger = {
    .group = BYTES_LITERAL("else.where"), .kind = BYTES_LITERAL("Lua"), .name = BYTES_LITERAL("x")};

Test(match, asks_for_a_body_and_goes_on_when_it_does_not_hold)
{
    static const struct route_filter filter = {.type = ROUTE_FILTER_EXTENSION_REF,
                                               .extension_ref = &gold};
    static const struct route_http_match match = {
        .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL("/a")}};
    static const struct route_rule rules[] = {
        {.http_matches = &match, .http_matches_count = 1},
        {.http_matches = &match, .http_matches_count = 1, .filters = &filter, .filters_count = 1},
    };
    struct fixture fixture;
    set_up(&fixture, ROUTE_KIND_HTTP_ROUTE, rules, 2);
    struct route_request request = {.method = BYTES("POST"), .path = BYTES("/a/b")};
    struct route_decision decision;
    route_match(fixture.rules, &request, fixture.scratch, &decision);
    /* It ranks just above the otherwise equal match of the earlier rule. */
    cr_assert(decision.outcome == ROUTE_OUTCOME_NEEDS_BODY);
    cr_expect(decision.rule->source == &rules[1]);
    cr_expect(decision.body_matches_count == 1 && decision.body_bytes_max == 1024);
    cr_expect(decision.rule->filters_count == 0, "a predicate is no filter");
    request.resume = decision.resume;
    route_match(fixture.rules, &request, fixture.scratch, &decision);
    cr_assert(decision.outcome == ROUTE_OUTCOME_RULE);
    cr_expect(decision.rule->source == &rules[0]);
    cr_expect(decision.prefix_bytes == 2);
    tear_down(&fixture);
}

Test(match, fails_rules_whose_extension_cannot_be_resolved)
{
    static const struct route_filter filters[] = {
        {.type = ROUTE_FILTER_EXTENSION_REF, .extension_ref = &missing},
        {.type = ROUTE_FILTER_EXTENSION_REF, .extension_ref = &stranger},
    };
    static const struct route_http_match matches[] = {
        {.path = {.type = ROUTE_MATCH_EXACT, .value = BYTES_LITERAL("/missing")}},
        {.path = {.type = ROUTE_MATCH_EXACT, .value = BYTES_LITERAL("/stranger")}},
        {.path = {.type = ROUTE_MATCH_EXACT, .value = BYTES_LITERAL("/newer")}},
        {.path = {.type = ROUTE_MATCH_EXACT, .value = BYTES_LITERAL("/left-out")}},
    };
    static const struct route_rule rules[] = {
        {.http_matches = &matches[0],
         .http_matches_count = 1,
         .filters = &filters[0],
         .filters_count = 1},
        {.http_matches = &matches[1],
         .http_matches_count = 1,
         .filters = &filters[1],
         .filters_count = 1},
        {.http_matches = &matches[2],
         .http_matches_count = 1,
         .unsupported = ROUTE_UNSUPPORTED_SECURITY_FILTER},
        {.http_matches = &matches[3],
         .http_matches_count = 1,
         .unsupported = ROUTE_UNSUPPORTED_VALUE},
    };

    static const enum route_rule_fault faults[] = {ROUTE_RULE_EXTENSION_NOT_FOUND,
                                                   ROUTE_RULE_FILTER_UNSUPPORTED,
                                                   ROUTE_RULE_FILTER_UNSUPPORTED};
    struct fixture fixture;
    set_up(&fixture, ROUTE_KIND_HTTP_ROUTE, rules, 4);
    struct route_decision decision;
    for (size_t i = 0; i < 4; i++) {
        struct route_request request = {.method = BYTES("GET"), .path = matches[i].path.value};
        route_match(fixture.rules, &request, fixture.scratch, &decision);
        if (i == 3) {
            cr_expect(decision.outcome == ROUTE_OUTCOME_NONE);
            continue;
        }
        cr_assert(decision.outcome == ROUTE_OUTCOME_RULE);
        cr_expect(decision.rule->fault == faults[i], "rule %zu", i);
    }
    tear_down(&fixture);
}

/* Rules that all match on one path and differ in one header: the shape that a plain list is slow
 * at. */
Test(match, finds_one_of_a_thousand_tenants_on_one_path)
{
    enum {
        TENANTS = 1000
    };

    static char names[TENANTS][16];
    static struct route_value_match headers[TENANTS];
    static struct route_http_match matches[TENANTS];
    static struct route_rule rules[TENANTS];
    for (uint32_t i = 0; i < TENANTS; i++) {
        int size = snprintf(names[i], sizeof(names[i]), "t%u", i);
        headers[i] = (struct route_value_match){.type = ROUTE_MATCH_EXACT,
                                                .name = BYTES("X-Tenant"),
                                                .value = bytes_make(names[i], (size_t)size)};
        matches[i] =
            (struct route_http_match){.path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES("/")},
                                      .headers = &headers[i],
                                      .headers_count = 1};
        rules[i] = (struct route_rule){.http_matches = &matches[i], .http_matches_count = 1};
    }
    struct fixture fixture;
    set_up(&fixture, ROUTE_KIND_HTTP_ROUTE, rules, TENANTS);
    for (uint32_t i = 0; i < TENANTS; i += 37) {
        struct route_field field = {BYTES("x-tenant"), headers[i].value};
        struct route_request request = {
            .method = BYTES("GET"), .path = BYTES("/x"), .fields = &field, .fields_count = 1};
        struct route_decision decision;
        route_match(fixture.rules, &request, fixture.scratch, &decision);
        cr_assert(decision.outcome == ROUTE_OUTCOME_RULE);
        cr_expect(decision.rule->index == i);
    }
    tear_down(&fixture);
}

Test(match, knows_preflights)
{
    const struct route_field fields[] = {
        {BYTES_LITERAL("Origin"), BYTES_LITERAL("https://a")},
        {BYTES_LITERAL("Access-Control-Request-Method"), BYTES_LITERAL("PUT")},
    };
    struct route_request request = {
        .method = BYTES("OPTIONS"), .path = BYTES("/"), .fields = fields, .fields_count = 2};
    cr_expect(route_is_preflight(&request));
    request.method = BYTES("GET");
    cr_expect(!route_is_preflight(&request));
    request.method = BYTES("OPTIONS");
    request.fields_count = 1;
    cr_expect(!route_is_preflight(&request));
}

Test(match, picks_backends_by_weight)
{
    static const struct route_table_backend backends[] = {
        {.weight = 70}, {.weight = 0}, {.weight = 30}};
    struct route_table_rule rule = {.backends = backends, .backends_count = 3, .weights_sum = 100};
    struct random_source random = {.state = 7};
    uint32_t counts[3] = {0};
    for (uint32_t i = 0; i < 100000; i++) {
        const struct route_table_backend *picked = route_pick(&rule, random_next(&random));
        cr_assert(picked != NULL);
        counts[picked - backends]++;
    }
    cr_expect(counts[1] == 0);
    cr_expect(counts[0] > 69300 && counts[0] < 70700, "%u of 100000, wanted 70000", counts[0]);
    cr_expect(route_pick(&rule, 0) == &backends[0]);
    cr_expect(route_pick(&rule, UINT64_MAX) == &backends[2]);
    struct route_table_rule nothing = {0};
    cr_expect(route_pick(&nothing, 1) == NULL);
    struct route_table_backend heavy[16] = {0};
    for (size_t i = 0; i < 16; i++) {
        heavy[i].weight = 1000000;
    }
    struct route_table_rule heaviest = {
        .backends = heavy, .backends_count = 16, .weights_sum = 16000000};
    cr_expect(route_pick(&heaviest, UINT64_MAX) == &heavy[15]);
}

Test(match, takes_the_longest_path_there_may_be)
{
    static char deep[8192];
    for (size_t i = 0; i < sizeof(deep); i++) {
        deep[i] = i % 2 == 0 ? '/' : 'a';
    }
    static const struct route_http_match match = {
        .path = {.type = ROUTE_MATCH_PREFIX, .value = {(const uint8_t *)deep, 1024}}};
    static const struct route_rule rule = {.http_matches = &match, .http_matches_count = 1};
    struct fixture fixture;
    set_up(&fixture, ROUTE_KIND_HTTP_ROUTE, &rule, 1);
    struct route_request request = {.method = BYTES("GET"), .path = bytes_make(deep, sizeof(deep))};
    struct route_decision decision;
    route_match(fixture.rules, &request, fixture.scratch, &decision);
    cr_expect(decision.outcome == ROUTE_OUTCOME_RULE);
    request.path.size = 1022;
    route_match(fixture.rules, &request, fixture.scratch, &decision);
    cr_expect(decision.outcome == ROUTE_OUTCOME_NONE);
    tear_down(&fixture);
}

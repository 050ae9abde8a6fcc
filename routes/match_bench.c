/*
 * How long a match takes, and what a table costs: the benchmark of the README.
 *
 *   match_bench [RULES [REQUESTS]]      default 10000 rules, 2000000 requests
 *
 * One Service, one rule a route: 40 % exact paths, 40 % prefixes of one to six segments, 15 % with
 * headers or query parameters (half of them all on one path), 5 % regular expressions. 30 % of the
 * requests match nothing. Every request has ten header fields, as browsers and SDKs send. Each
 * match is timed alone; the clock's own cost is measured and taken off.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/arena.h"
#include "base/check.h"
#include "routes/match.h"
#include "routes/table_random.h"

enum {
    FIELDS = 10,
    REQUESTS_DISTINCT = 20000,
};

enum part {
    PART_EXACT,
    PART_PREFIX,
    PART_VALUES,
    PART_REGEX,
};

/* What the 5 % are: nothing that is matched by an expression, expressions with their first segments
 * written out, or expressions that begin with ".*", which the index cannot help. */
enum expressions {
    EXPRESSIONS_NONE,
    EXPRESSIONS_ANCHORED,
    EXPRESSIONS_FLOATING,
};

struct bench {
    struct random_source random;
    struct arena arena; /* requests */
    uint32_t rules;
    enum expressions expressions;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static struct bytes text(char *formatted)
{
    CHECK(formatted != NULL);
    return bytes_from_string(formatted);
}

static enum part part_of(uint32_t index)
{
    uint32_t percent = index % 100;
    return percent < 40   ? PART_EXACT
           : percent < 80 ? PART_PREFIX
           : percent < 95 ? PART_VALUES
                          : PART_REGEX;
}

/* The path that rule `index` is found under; prefixes have one to six segments. */
static struct bytes path_of(uint32_t index, struct arena *arena)
{
    static const char *const tails[] = {"",          "/orders",         "/orders/list",
                                        "/a/b/open", "/a/b/open/today", "/a/b/open/today/all"};
    if (part_of(index) == PART_PREFIX) {
        return text(arena_format(arena, "/service-%u%s", index, tails[index / 100 % 6]));
    }
    if (part_of(index) == PART_VALUES && index % 2 == 0) {
        return BYTES("/shared");
    }
    return text(arena_format(arena, "/api/v1/resource-%u/items/detail", index));
}

static void fill_match(const struct bench *bench, uint32_t index, struct route_http_match *match,
                       struct arena *arena)
{
    match->path.value = path_of(index, arena);
    switch (part_of(index)) {
    case PART_EXACT:
        match->path.type = ROUTE_MATCH_EXACT;
        break;
    case PART_PREFIX:
        match->path.type = ROUTE_MATCH_PREFIX;
        break;
    case PART_VALUES: {
        struct route_value_match *value = arena_alloc_zero(arena, 1, sizeof(*value));
        CHECK(value != NULL);
        value->type = ROUTE_MATCH_EXACT;
        match->path.type = ROUTE_MATCH_PREFIX;
        if (index % 4 < 2) {
            value->name = BYTES("x-tenant");
            match->headers = value;
            match->headers_count = 1;
        } else {
            value->name = BYTES("tenant");
            match->query_params = value;
            match->query_params_count = 1;
        }
        value->value = text(arena_format(arena, "tenant-%u", index));
        break;
    }
    case PART_REGEX:
        match->path.type =
            bench->expressions != EXPRESSIONS_NONE ? ROUTE_MATCH_REGEX : ROUTE_MATCH_EXACT;
        match->path.value = text(arena_format(arena,
                                              bench->expressions == EXPRESSIONS_FLOATING
                                                  ? ".*/r%u/[a-z]+/v[0-9]+(/.*)?"
                                                  : "/regex/r%u/[a-z]+/v[0-9]+(/.*)?",
                                              index));
        break;
    }
}

static const struct route *make_route(const struct bench *bench, uint32_t index)
{
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    struct error error = route_object_create(sizeof(struct route), 1024, &object, &arena);
    CHECK(!error_is(error));
    struct route *route = (struct route *)(void *)object;
    struct route_rule *rule = arena_alloc_zero(arena, 1, sizeof(*rule));
    struct route_http_match *match = arena_alloc_zero(arena, 1, sizeof(*match));
    CHECK(rule != NULL && match != NULL);
    object->kind = ROUTE_KIND_HTTP_ROUTE;
    object->namespace = BYTES("bench");
    object->name = text(arena_format(arena, "route-%05u", index));
    object->created = ROUTE_CREATED_ABSENT;
    fill_match(bench, index, match, arena);
    rule->http_matches = match;
    rule->http_matches_count = 1;
    route->rules = rule;
    route->rules_count = 1;
    return route;
}

static void fill_fields(struct bench *bench, struct route_request *request, uint32_t index)
{
    static const struct route_field usual[FIELDS] = {
        {BYTES_LITERAL("User-Agent"), BYTES_LITERAL("Mozilla/5.0 (X11; Linux x86_64) Gecko")},
        {BYTES_LITERAL("Accept"), BYTES_LITERAL("application/json, text/plain, */*")},
        {BYTES_LITERAL("Accept-Encoding"), BYTES_LITERAL("gzip, deflate, br")},
        {BYTES_LITERAL("Accept-Language"), BYTES_LITERAL("en-GB,en;q=0.5")},
        {BYTES_LITERAL("Content-Type"), BYTES_LITERAL("application/json")},
        {BYTES_LITERAL("X-Request-Id"), BYTES_LITERAL("3f2c9f0a-63f5-4d0b-9a53-0b3b1f6f7c11")},
        {BYTES_LITERAL("Traceparent"),
         BYTES_LITERAL("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
        {BYTES_LITERAL("Cookie"), BYTES_LITERAL("session=1c9d3e5f7a; theme=dark")},
        {BYTES_LITERAL("Cache-Control"), BYTES_LITERAL("no-cache")},
        {BYTES_LITERAL("X-Tenant"), BYTES_LITERAL("nobody")},
    };
    struct route_field *fields = arena_alloc_zero(&bench->arena, FIELDS, sizeof(*fields));
    CHECK(fields != NULL);
    for (uint32_t i = 0; i < FIELDS; i++) {
        fields[i] = usual[i];
    }
    if (part_of(index) == PART_VALUES && index % 4 < 2) {
        fields[FIELDS - 1].value = text(arena_format(&bench->arena, "tenant-%u", index));
    } else if (part_of(index) == PART_VALUES) {
        request->query = text(arena_format(&bench->arena, "page=2&tenant=tenant-%u", index));
    }
    request->fields = fields;
    request->fields_count = FIELDS;
}

/* Seven of ten requests meet rule `index`; the rest meet none. */
static struct route_request make_request(struct bench *bench, bool hits_regex)
{
    struct route_request request = {.method = BYTES("GET"), .authority = BYTES("shop.bench")};
    uint32_t index = random_below(&bench->random, bench->rules);
    bool is_hit = random_below(&bench->random, 10) < 7;
    struct arena *arena = &bench->arena;
    if (hits_regex) {
        index = index / 100 * 100 + 95 + index % 5;
    } else if (part_of(index) == PART_REGEX) {
        index -= 20;
    }
    fill_fields(bench, &request, is_hit ? index : 0);
    if (!is_hit) {
        switch (random_below(&bench->random, 4)) {
        case 0:
            request.path = text(arena_format(arena, "/api/v1/resource-%u/items/other", index));
            break;
        case 1:
            request.path = text(arena_format(arena, "/service-%ux/orders/list/open", index));
            break;
        case 2:
            request.path =
                text(arena_format(arena, "/unknown/%u/deep/path/that/nobody/serves", index));
            break;
        default:
            request.path = text(arena_format(arena, "/shared/%u", index));
            break;
        }
        return request;
    }
    request.path = path_of(index, arena);
    if (part_of(index) == PART_PREFIX || part_of(index) == PART_VALUES) {
        request.path = text(arena_format(arena, "%.*s/item/%u", (int)request.path.size,
                                         (const char *)request.path.data, index));
    } else if (part_of(index) == PART_REGEX) {
        request.path = text(arena_format(arena, "/regex/r%u/orders/v2/open", index));
    }
    return request;
}

static int compare_times(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static uint64_t clock_cost_ns(void)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 100000; i++) {
        uint64_t begin = now_ns();
        uint64_t took = now_ns() - begin;
        least = took < least ? took : least;
    }
    return least;
}

static void measure(struct bench *bench, const char *what, const struct route_rules *rules,
                    uint32_t requests_count, bool hits_regex)
{
    struct route_scratch *scratch = NULL;
    struct route_request *requests = calloc(REQUESTS_DISTINCT, sizeof(*requests));
    uint32_t *times = calloc(requests_count, sizeof(*times));
    struct error error = route_scratch_create(&scratch);
    CHECK(!error_is(error) && requests != NULL && times != NULL);
    for (uint32_t i = 0; i < REQUESTS_DISTINCT; i++) {
        requests[i] = make_request(bench, hits_regex);
    }
    uint64_t clock_ns = clock_cost_ns();
    uint32_t hits = 0;
    uint64_t whole = now_ns();
    for (uint32_t i = 0; i < requests_count; i++) {
        struct route_decision decision;
        uint64_t begin = now_ns();
        route_match(rules, &requests[i % REQUESTS_DISTINCT], scratch, &decision);
        uint64_t took = now_ns() - begin;
        times[i] = took > clock_ns ? (uint32_t)(took - clock_ns) : 0;
        hits += decision.outcome == ROUTE_OUTCOME_RULE;
    }
    whole = now_ns() - whole;
    qsort(times, requests_count, sizeof(*times), compare_times);
    (void)printf("%-38s median %6u ns   p99 %6u ns   p99.9 %6u ns   mean %6" PRIu64
                 " ns   matched %.1f %%\n",
                 what, times[requests_count / 2], times[requests_count / 100 * 99],
                 times[requests_count / 1000 * 999], whole / requests_count - 2 * clock_ns,
                 100.0 * hits / requests_count);
    free(times);
    free(requests);
    route_scratch_destroy(scratch);
    arena_reset(&bench->arena);
}

static const struct route_table *compile(struct bench *bench, const struct route **routes)
{
    const struct route_table *table = NULL;
    struct route_table_resolver resolver;
    struct route_table_port port = {
        .port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = routes, .routes_count = bench->rules};
    struct route_table_source source = {.namespace = BYTES("bench"),
                                        .name = BYTES("shop"),
                                        .ports = &port,
                                        .ports_count = 1,
                                        .resolver = &resolver};
    for (uint32_t i = 0; i < bench->rules; i++) {
        routes[i] = make_route(bench, i);
    }
    random_resolver_init(&resolver);
    uint64_t begin = now_ns();
    struct error error = route_table_compile(&source, &table);
    uint64_t took = now_ns() - begin;
    CHECK(!error_is(error));
    (void)printf("compile %u rules%s: %.1f ms\n", bench->rules,
                 bench->expressions != EXPRESSIONS_NONE ? ", 5 % of them regular expressions" : "",
                 (double)took / 1e6);
    random_port_release(&port);
    random_resolver_finish(&resolver);
    return table;
}

static uint32_t take_number(int argc, char **argv, int index, uint32_t otherwise)
{
    uint64_t number = otherwise;
    if (index < argc &&
        error_is(bytes_parse_decimal(bytes_from_string(argv[index]), 100000000, &number))) {
        (void)fprintf(stderr, "usage: match_bench [RULES [REQUESTS]]\n");
        exit(2); /* NOLINT(concurrency-mt-unsafe): one thread */
    }
    return (uint32_t)number;
}

int main(int argc, char **argv)
{
    struct bench bench = {.random = {.state = 1}, .rules = take_number(argc, argv, 1, 10000)};
    uint32_t requests = take_number(argc, argv, 2, 2000000);
    if (bench.rules < 100 || requests < 1000) {
        (void)fprintf(stderr, "match_bench: at least 100 rules and 1000 requests\n");
        return 2;
    }
    const struct route **routes = calloc(bench.rules, sizeof(const struct route *));
    CHECK(routes != NULL);
    arena_init(&bench.arena, 1u << 20, 1u << 30);

    const struct route_table *table = compile(&bench, routes);
    measure(&bench, "without regular expressions", route_table_find(table, 80, ROUTE_TRANSPORT_TCP),
            requests, false);
    route_table_unref(table);

    bench.expressions = EXPRESSIONS_ANCHORED;
    table = compile(&bench, routes);
    measure(&bench, "expressions /regex/rN/.., elsewhere",
            route_table_find(table, 80, ROUTE_TRANSPORT_TCP), requests, false);
    measure(&bench, "expressions /regex/rN/.., met by 70 %",
            route_table_find(table, 80, ROUTE_TRANSPORT_TCP), requests, true);
    route_table_unref(table);

    bench.expressions = EXPRESSIONS_FLOATING;
    table = compile(&bench, routes);
    measure(&bench, "expressions .*/rN/.., elsewhere",
            route_table_find(table, 80, ROUTE_TRANSPORT_TCP), requests / 100, false);
    measure(&bench, "expressions .*/rN/.., met by 70 %",
            route_table_find(table, 80, ROUTE_TRANSPORT_TCP), requests / 100, true);
    route_table_unref(table);
    arena_finish(&bench.arena);
    free(routes);
    return 0;
}

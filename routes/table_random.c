/*
 * Few names and few values, so that most predicates hold for some requests and many candidates tie.
 */
#include "routes/table_random.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "routes/candidate.h"
#include "routes/explain.h"

uint64_t random_next(struct random_source *random)
{
    random->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t value = random->state;
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

uint32_t random_below(struct random_source *random, uint32_t bound)
{
    return (uint32_t)(((random_next(random) >> 32) * bound) >> 32);
}

static bool chance(struct random_source *random, uint32_t percent)
{
    return random_below(random, 100) < percent;
}

static void *allocate(struct arena *arena, size_t count, size_t size)
{
    void *memory = arena_alloc_zero(arena, count, size);
    CHECK(memory != NULL);
    return memory;
}

/* Assertions nested beyond the matcher's depth: over the limit for every subject. */
#define OVER_LIMIT_PATTERN                                                                         \
    "(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=)))))))))))))))))))).*"

static const char *const segments[] = {"a", "b", "ab", "api", "v1", "%41", "a.b", "~"};
static const char *const names[] = {"x-a", "X-A", "x-b", "X-Version", "cookie", "host"};
static const char *const values[] = {"1", "2", "one", "one,two", "a=b; c=d", ""};
static const char *const params[] = {"q", "Q", "page", "a b", "k%"};
static const char *const encoded_params[] = {"q", "Q", "p%61ge", "a%20b", "k%", "zz"};
static const char *const encoded_values[] = {"1", "%32", "on%65", "one,two", "", "x"};
static const char *const methods[] = {"GET", "POST", "PUT", "OPTIONS", "get"};
static const char *const services[] = {"a.A", "a.B", "pay.Charges", "a"};
static const char *const calls[] = {"Get", "Put", "GetAll"};
static const char *const host_names[] = {"a.example",   "b.a.example",   "*.example",
                                         "*.a.example", "*.b.a.example", "other.test"};
static const char *const server_names[] = {"a.example", "B.a.example",  "c.b.a.example", "example",
                                           ".example",  "x.other.test", "other.test",    ""};
static const char *const path_patterns[] = {
    "/a.*",       "/[ab]+(/.*)?",    "/(api|v1)/.*",     ".*",        "/api/v[0-9]", "/a/?",
    "(a*)*b",     "/a/b.*",          "/api/[a-z0-9]+/?", "/a/b/[ab]", "/ab/v1/.*",   "/a/(b|ab)",
    "/api/v1/.+", OVER_LIMIT_PATTERN};
static const char *const value_patterns[] = {"[0-9]+",  "one.*", ".*",
                                             "one|two", "(1|2)", OVER_LIMIT_PATTERN};
static const char *const call_patterns[] = {"a\\..*", "Get.*", ".*", "(a|pay)\\.[A-Z].*"};

#define PICK(random, list)                                                                         \
    bytes_from_string((list)[random_below(random, sizeof(list) / sizeof((list)[0]))])

static struct bytes random_path(struct random_source *random, bool may_end_in_slash,
                                struct arena *arena)
{
    uint32_t depth = random_below(random, 5);
    const char *path = depth == 0 ? "/" : "";
    for (uint32_t i = 0; i < depth; i++) {
        struct bytes segment = PICK(random, segments);
        path = arena_format(arena, "%s/%s", path, (const char *)segment.data);
        CHECK(path != NULL);
    }
    if (depth > 0 && may_end_in_slash && chance(random, 25)) {
        path = arena_format(arena, "%s/", path);
        CHECK(path != NULL);
    }
    return bytes_from_string(path);
}

static const struct route_value_match *random_values(struct random_source *random, bool is_header,
                                                     uint32_t *ret_count, struct arena *arena)
{
    uint32_t count = chance(random, 55) ? 0 : 1 + random_below(random, 3);
    struct route_value_match *made = allocate(arena, count, sizeof(*made));
    for (uint32_t i = 0; i < count; i++) {
        made[i].type = chance(random, 12) ? ROUTE_MATCH_REGEX : ROUTE_MATCH_EXACT;
        made[i].name = is_header ? PICK(random, names) : PICK(random, params);
        made[i].value =
            made[i].type == ROUTE_MATCH_REGEX ? PICK(random, value_patterns) : PICK(random, values);
    }
    *ret_count = count;
    return made;
}

static void random_http_matches(struct random_source *random, bool is_crowded,
                                struct route_rule *rule, struct arena *arena)
{
    uint32_t count = 1 + random_below(random, 4);
    struct route_http_match *matches = allocate(arena, count, sizeof(*matches));
    for (uint32_t i = 0; i < count; i++) {
        struct route_http_match *match = &matches[i];
        uint32_t type = random_below(random, 100);
        match->position = (struct route_position){"random.yaml", rule->position.line, 1 + i};
        match->path.type = type < 30   ? ROUTE_MATCH_EXACT
                           : type < 70 ? ROUTE_MATCH_PREFIX
                                       : ROUTE_MATCH_REGEX;
        match->path.value = match->path.type == ROUTE_MATCH_REGEX ? PICK(random, path_patterns)
                            : is_crowded                          ? BYTES("/")
                                         : random_path(random, true, arena);
        match->headers = random_values(random, true, &match->headers_count, arena);
        match->query_params = random_values(random, false, &match->query_params_count, arena);
        if (chance(random, 40)) {
            match->method = PICK(random, methods);
        }
    }
    rule->http_matches = matches;
    rule->http_matches_count = count;
}

static void random_grpc_matches(struct random_source *random, struct route_rule *rule,
                                struct arena *arena)
{
    uint32_t count = random_below(random, 4);
    struct route_grpc_match *matches = allocate(arena, count, sizeof(*matches));
    for (uint32_t i = 0; i < count; i++) {
        matches[i].headers = random_values(random, true, &matches[i].headers_count, arena);
        if (chance(random, 15)) {
            continue;
        }
        struct route_grpc_method_match *method = allocate(arena, 1, sizeof(*method));
        uint32_t parts = 1 + random_below(random, 3);
        method->type = chance(random, 20) ? ROUTE_MATCH_REGEX : ROUTE_MATCH_EXACT;
        bool is_regex = method->type == ROUTE_MATCH_REGEX;
        if ((parts & 1) != 0) {
            method->service = is_regex ? PICK(random, call_patterns) : PICK(random, services);
        }
        if ((parts & 2) != 0) {
            method->method = is_regex ? PICK(random, call_patterns) : PICK(random, calls);
        }
        matches[i].method = method;
    }
    rule->grpc_matches = matches;
    rule->grpc_matches_count = count;
}

static const struct route_filter *random_filters(struct random_source *random, uint32_t *ret_count,
                                                 struct arena *arena)
{
    if (!chance(random, 6)) {
        *ret_count = 0;
        return NULL;
    }
    struct route_filter *filter = allocate(arena, 1, sizeof(*filter));
    struct route_extension_ref *reference = allocate(arena, 1, sizeof(*reference));
    filter->type = ROUTE_FILTER_EXTENSION_REF;
    filter->extension_ref = reference;
    reference->group = BYTES("outrigger.dev");
    reference->kind = BYTES("BodyMatch");
    reference->name = chance(random, 20) ? BYTES("missing") : BYTES("gold");
    *ret_count = 1;
    return filter;
}

static const struct route *random_route(struct random_source *random, enum route_kind kind,
                                        uint32_t index)
{
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    struct error error = route_object_create(sizeof(struct route), 4096, &object, &arena);
    CHECK(!error_is(error));
    struct route *route = (struct route *)(void *)object;
    bool is_crowded = chance(random, 30);
    uint32_t count = kind == ROUTE_KIND_HTTP_ROUTE || kind == ROUTE_KIND_GRPC_ROUTE
                         ? 1 + random_below(random, is_crowded ? 16 : 4)
                         : 1;
    struct route_rule *rules = allocate(arena, count, sizeof(*rules));
    route->object.kind = kind;
    route->object.namespace = BYTES("ns");
    route->object.name = bytes_from_string(arena_format(arena, "r%02u", 99 - index));
    route->object.created = chance(random, 40) ? ROUTE_CREATED_ABSENT : random_below(random, 3);
    for (uint32_t i = 0; i < count; i++) {
        rules[i].position = (struct route_position){"random.yaml", 1 + index * 100 + i, 1};
        rules[i].filters = random_filters(random, &rules[i].filters_count, arena);
        if (kind == ROUTE_KIND_HTTP_ROUTE) {
            random_http_matches(random, is_crowded, &rules[i], arena);
        } else if (kind == ROUTE_KIND_GRPC_ROUTE) {
            random_grpc_matches(random, &rules[i], arena);
        }
    }
    route->rules = rules;
    route->rules_count = count;
    if (kind == ROUTE_KIND_TLS_ROUTE) {
        uint32_t hosts = random_below(random, 4);
        struct bytes *hostnames = allocate(arena, hosts, sizeof(*hostnames));
        for (uint32_t i = 0; i < hosts; i++) {
            hostnames[i] = PICK(random, host_names);
        }
        route->hostnames = hostnames;
        route->hostnames_count = hosts;
    }
    return route;
}

struct route_table_port random_port(struct random_source *random, struct arena *arena)
{
    static const enum route_kind kinds[] = {
        ROUTE_KIND_HTTP_ROUTE, ROUTE_KIND_HTTP_ROUTE, ROUTE_KIND_HTTP_ROUTE, ROUTE_KIND_HTTP_ROUTE,
        ROUTE_KIND_GRPC_ROUTE, ROUTE_KIND_GRPC_ROUTE, ROUTE_KIND_TLS_ROUTE,  ROUTE_KIND_TCP_ROUTE,
    };
    struct route_table_port port = {.port = 80};
    port.kind = kinds[random_below(random, 8)];
    port.routes_count = 1 + random_below(random, 6);
    const struct route **routes = allocate(arena, port.routes_count, sizeof(const struct route *));
    for (uint32_t i = 0; i < port.routes_count; i++) {
        routes[i] = random_route(random, port.kind, i);
    }
    port.routes = routes;
    return port;
}

static struct bytes random_query(struct random_source *random, struct arena *arena)
{
    uint32_t count = random_below(random, 4);
    const char *query = "";
    for (uint32_t i = 0; i < count; i++) {
        struct bytes name = PICK(random, encoded_params);
        struct bytes value = PICK(random, encoded_values);
        query = arena_format(arena, "%s%s%s%s%s", query, i == 0 ? "" : "&", (const char *)name.data,
                             chance(random, 90) ? "=" : "", (const char *)value.data);
        CHECK(query != NULL);
    }
    return count == 0 ? (struct bytes){0} : bytes_from_string(query);
}

struct route_request random_request(struct random_source *random, enum route_kind kind,
                                    struct arena *arena)
{
    struct route_request request = {.method = PICK(random, methods)};
    request.method = chance(random, 10) ? BYTES("OPTIONS") : request.method;
    uint32_t count = chance(random, 1) ? 80 : random_below(random, 5);
    struct route_field *fields = allocate(arena, count + 3, sizeof(*fields));
    request.path = random_path(random, true, arena);
    request.query = random_query(random, arena);
    request.authority = PICK(random, values);
    request.sni = PICK(random, server_names);
    for (uint32_t i = 0; i < count; i++) {
        fields[i] = (struct route_field){PICK(random, names), PICK(random, values)};
    }
    if (count >= 2 && chance(random, 15)) {
        fields[0] = (struct route_field){BYTES("x-a"), BYTES("one")};
        fields[count - 1] = (struct route_field){BYTES("X-A"), BYTES("two")};
    }
    if (kind == ROUTE_KIND_GRPC_ROUTE) {
        fields[count++] = (struct route_field){BYTES("Content-Type"),
                                               chance(random, 90) ? BYTES("application/grpc+proto")
                                                                  : BYTES("application/grpcx")};
        if (chance(random, 85)) {
            struct bytes service = PICK(random, services);
            struct bytes method = PICK(random, calls);
            request.path = bytes_from_string(arena_format(
                arena, "/%s/%s", (const char *)service.data, (const char *)method.data));
        }
    } else if (bytes_equal(request.method, BYTES("OPTIONS")) && chance(random, 70)) {
        fields[count++] = (struct route_field){BYTES("Origin"), BYTES("https://a.example")};
        fields[count++] =
            (struct route_field){BYTES("access-control-request-method"), PICK(random, methods)};
    }
    request.fields = fields;
    request.fields_count = count;
    return request;
}

void random_port_release(const struct route_table_port *port)
{
    for (uint32_t i = 0; i < port->routes_count; i++) {
        route_object_unref(&port->routes[i]->object);
    }
}

static enum route_backend_fault find_backend(void *argument, const struct route *route,
                                             const struct route_backend_ref *reference)
{
    (void)argument;
    (void)route;
    (void)reference;
    return ROUTE_BACKEND_VALID;
}

static const struct route_body_match *find_body_match(void *argument, struct bytes namespace,
                                                      struct bytes name)
{
    (void)namespace;
    return bytes_equal(name, BYTES("missing")) ? NULL : argument;
}

void random_resolver_init(struct route_table_resolver *resolver)
{
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    struct error error = route_object_create(sizeof(struct route_body_match), 512, &object, &arena);
    CHECK(!error_is(error));
    struct route_body_match *gold = (struct route_body_match *)(void *)object;
    gold->object.kind = ROUTE_KIND_BODY_MATCH;
    gold->object.name = BYTES("gold");
    gold->bytes_max = 1024;
    *resolver = (struct route_table_resolver){gold, find_backend, find_body_match};
}

void random_resolver_finish(struct route_table_resolver *resolver)
{
    const struct route_body_match *gold = resolver->argument;
    route_object_unref(&gold->object);
}

/* ---- Comparison of the index with the naive walk ---- */

static bool is_same(const struct route_decision *a, const struct route_decision *b)
{
    return a->outcome == b->outcome && a->candidate == b->candidate && a->rule == b->rule &&
           a->match_index == b->match_index && a->prefix_bytes == b->prefix_bytes &&
           a->is_preflight == b->is_preflight;
}

static void count(struct random_report *report, const struct route_decision *decision)
{
    switch (decision->outcome) {
    case ROUTE_OUTCOME_RULE:
        report->matched++;
        break;
    case ROUTE_OUTCOME_NONE:
        report->unmatched++;
        break;
    case ROUTE_OUTCOME_NEEDS_BODY:
        report->needed_body++;
        break;
    case ROUTE_OUTCOME_OVER_LIMIT:
        report->over_limit++;
        break;
    }
    report->preflights += decision->is_preflight ? 1 : 0;
}

/* As if no body ever held: what route_match arrives at by resuming must be what explain decides
 * without bodies. */
static bool resumes_alike(const struct route_rules *rules, struct route_request request,
                          struct route_decision decision, struct route_scratch *scratch,
                          struct arena *arena)
{
    struct route_explanation explanation;
    while (decision.outcome == ROUTE_OUTCOME_NEEDS_BODY) {
        request.resume = decision.resume;
        route_match(rules, &request, scratch, &decision);
    }
    request.resume = 0;
    struct error error = route_explain(rules, &request, scratch, arena, &explanation);
    CHECK(!error_is(error));
    return is_same(&decision, &explanation.decision);
}

static void compare_request(const struct route_rules *rules, const struct route_request *request,
                            struct route_scratch *scratch, struct arena *arena,
                            struct random_report *report)
{
    struct route_decision found;
    struct route_decision wanted;
    route_match(rules, request, scratch, &found);
    route_explain_decide(rules, request, scratch, &wanted);
    count(report, &found);
    report->requests++;
    if (is_same(&found, &wanted) && (found.outcome != ROUTE_OUTCOME_NEEDS_BODY ||
                                     resumes_alike(rules, *request, found, scratch, arena))) {
        return;
    }
    report->disagreements++;
    if (report->disagreements <= 5) {
        (void)fprintf(stderr,
                      "disagreement: table %" PRIu64 ", %.*s %.*s?%.*s: match says %u rank %d, "
                      "explain %u rank %d\n",
                      report->tables, (int)request->method.size, (const char *)request->method.data,
                      (int)request->path.size, (const char *)request->path.data,
                      (int)request->query.size,
                      request->query.data == NULL ? "" : (const char *)request->query.data,
                      found.outcome, found.candidate == NULL ? -1 : (int)found.candidate->rank,
                      wanted.outcome, wanted.candidate == NULL ? -1 : (int)wanted.candidate->rank);
    }
}

struct random_report random_compare(uint64_t seed, uint32_t tables, uint32_t requests)
{
    struct random_report report = {0};
    struct route_scratch *scratch = NULL;
    struct route_table_resolver resolver;
    struct error error = route_scratch_create(&scratch);
    CHECK(!error_is(error));
    random_resolver_init(&resolver);
    for (uint32_t i = 0; i < tables; i++) {
        struct random_source random = {.state = seed + i};
        struct arena arena;
        struct arena of_request;
        const struct route_table *table = NULL;
        arena_init(&arena, 65536, 64u << 20);
        arena_init(&of_request, 65536, 64u << 20);
        struct route_table_port port = random_port(&random, &arena);
        struct route_table_source source = {
            .namespace = BYTES("ns"),
            .name = BYTES("svc"),
            .ports = &port,
            .ports_count = 1,
            .resolver = &resolver,
        };
        error = route_table_compile(&source, &table);
        CHECK(!error_is(error));
        for (uint32_t at = 0; at < requests; at++) {
            struct route_request request = random_request(&random, port.kind, &of_request);
            compare_request(route_table_find(table, 80, ROUTE_TRANSPORT_TCP), &request, scratch,
                            &of_request, &report);
            arena_reset(&of_request);
        }
        report.tables++;
        random_port_release(&port);
        route_table_unref(table);
        arena_finish(&arena);
        arena_finish(&of_request);
    }
    random_resolver_finish(&resolver);
    route_scratch_destroy(scratch);
    return report;
}

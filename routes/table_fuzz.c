/*
 * Any routes and any requests: compile, then judge each request by index and by naive walk, which
 * must agree.
 *
 * The input is lines. Those of a route: "E/a", "P/a", "R/a.*" begin a match with its path; "MPUT"
 * adds its method; "Hname=value" and "Qname=value" a header and a parameter, "h" and "q" the same
 * as regular expressions. Those of requests: "Fname=value" adds a field to the requests after it,
 * "G/a?b=c" and "O/a" send GET and OPTIONS.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/check.h"
#include "routes/explain.h"
#include "routes/match.h"
#include "routes/path.h"
#include "routes/table.h"

enum {
    MATCHES_MAX = 64,
    VALUES_MAX = 8,
    FIELDS_MAX = 100,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct draft {
    struct route_http_match match;
    struct route_value_match headers[VALUES_MAX];
    struct route_value_match params[VALUES_MAX];
};

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
    (void)argument;
    (void)namespace;
    (void)name;
    return NULL;
}

static void add_value(struct route_value_match *values, uint32_t *count, enum route_match_type type,
                      struct bytes text)
{
    if (*count < VALUES_MAX) {
        struct bytes value = text;
        struct bytes name = bytes_split(&value, '=');
        value = value.data == NULL ? BYTES("") : value;
        values[(*count)++] = (struct route_value_match){.type = type, .name = name, .value = value};
    }
}

/* Take a line of a route; false when it is one of a request. */
static bool take_line(struct draft *drafts, uint32_t *count, uint8_t kind, struct bytes text)
{
    bool begins = kind == 'E' || kind == 'P' || kind == 'R';
    if (begins && *count < MATCHES_MAX) {
        struct draft *draft = &drafts[(*count)++];
        draft->match.path.value = text;
        draft->match.path.type = kind == 'E'   ? ROUTE_MATCH_EXACT
                                 : kind == 'P' ? ROUTE_MATCH_PREFIX
                                               : ROUTE_MATCH_REGEX;
        draft->match.headers = draft->headers;
        draft->match.query_params = draft->params;
        return true;
    }
    if (*count == 0 || begins) {
        return begins;
    }
    struct draft *draft = &drafts[*count - 1];
    switch (kind) {
    case 'M':
        draft->match.method = text;
        return true;
    case 'H':
    case 'h':
        add_value(draft->headers, &draft->match.headers_count,
                  kind == 'H' ? ROUTE_MATCH_EXACT : ROUTE_MATCH_REGEX, text);
        return true;
    case 'Q':
    case 'q':
        add_value(draft->params, &draft->match.query_params_count,
                  kind == 'Q' ? ROUTE_MATCH_EXACT : ROUTE_MATCH_REGEX, text);
        return true;
    default:
        return false;
    }
}

static const struct route_table *compile(const struct draft *drafts, uint32_t count)
{
    static const struct route_table_resolver resolver = {NULL, find_backend, find_body_match};
    struct route_object *object = NULL;
    struct arena *arena = NULL;
    const struct route_table *table = NULL;
    struct error error = route_object_create(sizeof(struct route), 8192, &object, &arena);
    CHECK(!error_is(error));
    struct route *route = (struct route *)(void *)object;
    struct route_rule *rules = arena_alloc_zero(arena, count, sizeof(*rules));
    CHECK(rules != NULL);
    object->kind = ROUTE_KIND_HTTP_ROUTE;
    object->namespace = BYTES("ns");
    object->name = BYTES("r");
    for (uint32_t i = 0; i < count; i++) {
        rules[i].http_matches = &drafts[i].match;
        rules[i].http_matches_count = 1;
    }
    route->rules = rules;
    route->rules_count = count;
    const struct route *routes[] = {route};
    struct route_table_port port = {
        .port = 80, .kind = ROUTE_KIND_HTTP_ROUTE, .routes = routes, .routes_count = 1};
    struct route_table_source source = {.namespace = BYTES("ns"),
                                        .name = BYTES("svc"),
                                        .ports = &port,
                                        .ports_count = 1,
                                        .resolver = &resolver};
    error = route_table_compile(&source, &table);
    CHECK(!error_is(error));
    route_object_unref(object);
    return table;
}

static void judge(const struct route_rules *rules, const struct route_request *request,
                  struct route_scratch *scratch, struct arena *arena)
{
    struct route_decision found;
    struct route_decision wanted;
    struct route_explanation explanation;
    route_match(rules, request, scratch, &found);
    route_explain_decide(rules, request, scratch, &wanted);
    CHECK(found.outcome == wanted.outcome && found.candidate == wanted.candidate);
    CHECK(found.prefix_bytes <= request->path.size);
    CHECK(!error_is(route_explain(rules, request, scratch, arena, &explanation)));
}

static void run_requests(const struct route_table *table, struct bytes text,
                         struct route_scratch *scratch, struct arena *arena)
{
    struct route_field fields[FIELDS_MAX];
    struct route_request request = {.fields = fields};
    unsigned left = 50;
    while (text.data != NULL && left > 0) {
        struct bytes line = bytes_split(&text, '\n');
        struct bytes rest = line.size > 0 ? bytes_skip(line, 1) : line;
        struct route_target target;
        if (line.size > 0 && line.data[0] == 'F' && request.fields_count < FIELDS_MAX) {
            struct bytes name = bytes_split(&rest, '=');
            fields[request.fields_count++] = (struct route_field){name, rest};
        } else if (line.size > 0 && (line.data[0] == 'G' || line.data[0] == 'O') &&
                   !error_is(route_target_parse(rest, arena, &target))) {
            request.method = line.data[0] == 'G' ? BYTES("GET") : BYTES("OPTIONS");
            request.path = target.path;
            request.query = target.query;
            judge(route_table_find(table, 80, ROUTE_TRANSPORT_TCP), &request, scratch, arena);
            left--;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct draft drafts[MATCHES_MAX];
    struct bytes text = bytes_make(data, size);
    struct route_scratch *scratch = NULL;
    struct arena arena;
    uint32_t count = 0;
    if (size > 8192) {
        return 0;
    }
    memset(drafts, 0, sizeof(drafts));
    while (text.data != NULL) {
        struct bytes before = text;
        struct bytes line = bytes_split(&text, '\n');
        if (line.size == 0 || !take_line(drafts, &count, line.data[0], bytes_skip(line, 1))) {
            text = before;
            break;
        }
    }
    if (count == 0) {
        return 0;
    }
    struct error error = route_scratch_create(&scratch);
    CHECK(!error_is(error));
    arena_init(&arena, 65536, 256u << 20);
    const struct route_table *table = compile(drafts, count);
    run_requests(table, text, scratch, &arena);
    route_table_unref(table);
    route_scratch_destroy(scratch);
    arena_finish(&arena);
    return 0;
}

/* The tables beside the upstream facts, and the decoder on objects of every kind. */
#include "routes/schema.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "routes/decode.h"

/* ---- The tables are what upstream says ---- */

struct facts {
    struct bytes rest; /* words after the path */
};

/* The value of "name=", "" when the word stands alone, {NULL, 0} when it is not there. */
static struct bytes fact(struct bytes words, const char *name)
{
    struct bytes rest = words;
    size_t size = strlen(name);
    while (rest.data != NULL) {
        struct bytes word = bytes_split(&rest, ' ');
        if (word.size >= size && memcmp(word.data, name, size) == 0 &&
            (word.size == size || word.data[size] == '=')) {
            return word.size == size ? BYTES("") : bytes_skip(word, size + 1);
        }
    }
    return (struct bytes){0};
}

static int64_t fact_number(struct bytes words, const char *name)
{
    uint64_t value = 0;
    struct bytes text = fact(words, name);
    if (text.data != NULL) {
        cr_assert(!error_is(bytes_parse_decimal(text, INT64_MAX, &value)));
    }
    return (int64_t)value;
}

static const struct route_field *find(const struct route_type *type, struct bytes name)
{
    for (uint16_t i = 0; type != NULL && i < type->fields_count; i++) {
        if (bytes_equal(name, bytes_from_string(type->fields[i].name))) {
            return &type->fields[i];
        }
    }
    return NULL;
}

/* The field that "spec.rules[].name" names, and whether the path ends at its items. */
static const struct route_field *resolve(const struct route_type *root, struct bytes path,
                                         bool *ret_is_item)
{
    const struct route_type *type = root;
    const struct route_field *field = NULL;
    while (path.data != NULL) {
        struct bytes name = bytes_split(&path, '.');
        *ret_is_item = name.size > 2 && name.data[name.size - 1] == ']';
        if (*ret_is_item) {
            name.size -= 2;
        }
        field = find(type, name);
        if (field == NULL || field->type == ROUTE_FIELD_IGNORED) {
            return field;
        }
        type = field->of;
    }
    return field;
}

static uint32_t count_words(struct bytes list)
{
    uint32_t count = 0;
    while (list.data != NULL) {
        bytes_split(&list, ',');
        count++;
    }
    return count;
}

static void check_enum(const struct route_field *field, struct bytes words, const char *line)
{
    struct bytes list = fact(words, "enum");
    if (list.data == NULL) {
        cr_assert_null(field->words, "%s: not an enumeration upstream", line);
        return;
    }
    cr_assert_not_null(field->words, "%s: an enumeration upstream", line);
    uint32_t known = 0;
    for (const struct route_word *word = field->words; word->word != NULL; word++) {
        known++;
        bool is_found = false;
        struct bytes rest = list;
        while (rest.data != NULL) {
            struct bytes item = bytes_split(&rest, ',');
            is_found = is_found || bytes_equal(item, bytes_from_string(word->word));
        }
        cr_assert(is_found, "%s: %s", line, word->word);
    }
    cr_assert_eq(known, count_words(list), "%s", line);
}

static void check_max(int64_t ours, int64_t theirs, const char *line)
{
    if (theirs == 0 && ours == INT32_MAX) {
        return; /* format: int32 */
    }
    cr_assert_eq(ours, theirs, "%s: upper bound %lld", line, (long long)ours);
}

static void check_field(const struct route_field *field, bool is_item, struct bytes words,
                        const char *line)
{
    struct bytes type = words;
    type = bytes_split(&type, ' ');
    if (is_item && (field->type == ROUTE_FIELD_STRINGS || field->type == ROUTE_FIELD_INTS)) {
        bool is_text = field->type == ROUTE_FIELD_STRINGS;
        cr_assert_eq(field->item_min, fact_number(words, is_text ? "minLength" : "minimum"), "%s",
                     line);
        check_max(field->item_max, fact_number(words, is_text ? "maxLength" : "maximum"), line);
        check_enum(field, words, line);
        cr_assert_eq(field->form != ROUTE_TEXT_ANY, fact(words, "pattern").data != NULL, "%s",
                     line);
        return;
    }
    if (is_item) {
        cr_assert(field->type == ROUTE_FIELD_LIST && bytes_equal(type, BYTES("object")), "%s",
                  line);
        return;
    }
    cr_assert_eq(field->is_required, fact(words, "required").data != NULL, "%s: required", line);
    struct bytes value = fact(words, "default");
    if (bytes_equal(value, BYTES("")) || value.data == NULL) {
        cr_assert(field->default_text == NULL || field->default_text[0] == 0, "%s: default", line);
    } else {
        cr_assert(bytes_equal(value, bytes_from_string(field->default_text)), "%s: default", line);
    }
    if (bytes_equal(type, BYTES("array"))) {
        cr_assert(field->type == ROUTE_FIELD_LIST || field->type == ROUTE_FIELD_STRINGS ||
                      field->type == ROUTE_FIELD_INTS,
                  "%s", line);
        cr_assert_eq(field->min, fact_number(words, "minItems"), "%s", line);
        check_max(field->max, fact_number(words, "maxItems"), line);
        cr_assert_eq(field->is_set, fact(words, "set").data != NULL, "%s: set", line);
        cr_assert_eq(field->key != NULL, fact(words, "key").data != NULL, "%s: key", line);
    } else if (bytes_equal(type, BYTES("string"))) {
        bool is_pattern = field->form != ROUTE_TEXT_ANY || field->type == ROUTE_FIELD_DURATION;
        cr_assert_eq(field->min, fact_number(words, "minLength"), "%s", line);
        check_max(field->max, fact_number(words, "maxLength"), line);
        check_enum(field, words, line);
        /* GRPCRoute's header values and a few plain names have no pattern upstream; ours may be
         * stricter there. */
        if (fact(words, "pattern").data != NULL) {
            cr_assert(is_pattern, "%s: has a pattern upstream", line);
        }
    } else if (bytes_equal(type, BYTES("integer"))) {
        cr_assert_eq(field->type, ROUTE_FIELD_INT, "%s", line);
        if (field->words == NULL) {
            cr_assert_eq(field->min, fact_number(words, "minimum"), "%s", line);
            check_max(field->max, fact_number(words, "maximum"), line);
        }
        check_enum(field, words, line);
    } else if (bytes_equal(type, BYTES("boolean"))) {
        cr_assert_eq(field->type, ROUTE_FIELD_BOOL, "%s", line);
    } else {
        cr_assert(field->type == ROUTE_FIELD_INLINE || field->type == ROUTE_FIELD_POINTER, "%s",
                  line);
    }
}

/* "# group Kind v1 v1beta1": every version has a schema, and all of them the same tables. */
static const struct route_type *find_root(struct bytes header)
{
    bytes_split(&header, ' ');
    struct bytes group = bytes_split(&header, ' ');
    struct bytes kind = bytes_split(&header, ' ');
    const struct route_type *root = NULL;
    while (header.data != NULL) {
        struct bytes version = bytes_split(&header, ' ');
        const struct route_schema *schema = route_schema_find(group, kind, version);
        cr_assert_not_null(schema, "%.*s %.*s", (int)kind.size, (const char *)kind.data,
                           (int)version.size, (const char *)version.data);
        cr_assert(root == NULL || root == schema->type);
        root = schema->type;
    }
    return root;
}

/* Fields of our table below `type`, inline structs and lists included. */
static uint32_t count_fields(const struct route_type *type, uint32_t depth)
{
    cr_assert_lt(depth, 20);
    uint32_t count = 0;
    for (uint16_t i = 0; i < type->fields_count; i++) {
        const struct route_field *field = &type->fields[i];
        static const char *const older[] = {"sessionName", "cookieConfig", "idleTimeout"};
        bool is_older = false;
        for (size_t j = 0; j < 3; j++) {
            is_older = is_older || strcmp(field->name, older[j]) == 0;
        }
        if (is_older) {
            continue;
        }
        count++;
        if (field->of != NULL) {
            count += count_fields(field->of, depth + 1);
        }
    }
    return count;
}

/* Nor do the tables have a field that upstream has not. */
static void check_count(const struct route_type *root, uint32_t fields, const char *before)
{
    if (root != NULL) {
        uint32_t ours = count_fields(find(root, BYTES("spec"))->of, 0);
        cr_assert_eq(ours, fields, "before %s: we have %u fields, upstream %u", before, ours,
                     fields);
    }
}

Test(schema, tables_are_what_the_upstream_definitions_say)
{
    FILE *file = fopen("routes/schema_facts.txt", "r");
    cr_assert_not_null(file, "run from the top of the repository");
    static char line[4096];
    const struct route_type *root = NULL;
    uint32_t checked = 0;
    uint32_t fields = 0; /* of the kind, as upstream has them */
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        struct bytes words = bytes_from_string(line);
        if (line[0] == '#') {
            check_count(root, fields, line);
            root = find_root(words);
            fields = 0;
            continue;
        }
        struct bytes path = bytes_split(&words, ' ');
        bool is_item = false;
        const struct route_field *field = resolve(root, path, &is_item);
        cr_assert_not_null(field, "%s: not in our table", line);
        fields += !is_item && path.size > 4;
        checked++;
        if (field->type != ROUTE_FIELD_IGNORED) {
            check_field(field, is_item, words, line);
        }
    }
    fclose(file);
    check_count(root, fields, "the end");
    cr_assert_eq(checked, 533, "facts were lost: %u", checked);
}

/* ---- Decoding ---- */

struct decoding {
    struct route_diagnostics diagnostics;
    struct arena arena;
    struct route_yaml *yaml;
    const struct route_object *object;
    struct error error;
};

static void decode(struct decoding *decoding, const char *text)
{
    *decoding = (struct decoding){0};
    route_diagnostics_init(&decoding->diagnostics);
    arena_init(&decoding->arena, 4096, 16 << 20);
    const struct route_node *node = NULL;
    cr_assert(!error_is(route_yaml_create("f.yaml", bytes_from_string(text), &decoding->diagnostics,
                                          &decoding->yaml)));
    decoding->error = route_yaml_next(decoding->yaml, &decoding->arena, &node);
    cr_assert(!error_is(decoding->error), "%s", text);
    struct bytes version = route_node_text(route_node_find(node, "apiVersion"));
    struct bytes group = BYTES("");
    if (bytes_find(version, '/') != version.size) {
        group = bytes_split(&version, '/');
    }
    const struct route_schema *schema =
        route_schema_find(group, route_node_text(route_node_find(node, "kind")), version);
    cr_assert_not_null(schema, "%s", text);
    decoding->error =
        route_decode("f.yaml", node, schema, &decoding->diagnostics, &decoding->object);
}

static void finish(struct decoding *decoding)
{
    route_object_unref(decoding->object);
    route_yaml_destroy(decoding->yaml);
    arena_finish(&decoding->arena);
    route_diagnostics_finish(&decoding->diagnostics);
}

#define HTTP_ROUTE                                                                                 \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: "   \
    "n}\n"

Test(schema, fills_in_the_defaults_of_an_api_server)
{
    struct decoding decoding;
    decode(&decoding, HTTP_ROUTE "spec:\n"
                                 "  parentRefs: [{kind: Service, name: web}, {name: gw}]\n"
                                 "  rules:\n"
                                 "  - matches:\n"
                                 "    - headers: [{name: x, value: y}]\n"
                                 "    - path: {value: /a}\n"
                                 "    backendRefs: [{name: web, port: 80}]\n"
                                 "    filters:\n"
                                 "    - {type: RequestMirror, requestMirror: {backendRef: {name: "
                                 "m, port: 1}, percent: 20}}\n"
                                 "    - {type: CORS, cors: {}}\n"
                                 "  - filters: [{type: RequestRedirect, requestRedirect: {}}]\n");
    cr_assert(!error_is(decoding.error));
    cr_assert_eq(decoding.diagnostics.count, 0);
    const struct route *route = (const struct route *)decoding.object;
    cr_assert_null(route->parent_refs[0].group.data);
    cr_assert(bytes_equal(route->parent_refs[0].namespace, BYTES("n")));
    cr_assert(bytes_equal(route->parent_refs[1].group, BYTES("gateway.networking.k8s.io")));
    cr_assert(bytes_equal(route->parent_refs[1].kind, BYTES("Gateway")));
    const struct route_rule *rule = &route->rules[0];
    cr_assert_eq(rule->http_matches[0].path.type, ROUTE_MATCH_PREFIX);
    cr_assert(bytes_equal(rule->http_matches[0].path.value, BYTES("/")));
    cr_assert_eq(rule->http_matches[0].headers[0].type, ROUTE_MATCH_EXACT);
    cr_assert_eq(rule->http_matches[1].path.type, ROUTE_MATCH_PREFIX);
    cr_assert_eq(rule->backend_refs[0].weight, 1);
    cr_assert(bytes_equal(rule->backend_refs[0].kind, BYTES("Service")));
    cr_assert(bytes_equal(rule->backend_refs[0].namespace, BYTES("n")));
    cr_assert_eq(rule->filters[0].mirror->numerator, 20);
    cr_assert_eq(rule->filters[0].mirror->denominator, 100);
    cr_assert_eq(rule->filters[0].mirror->backend.weight, 1);
    cr_assert_eq(rule->filters[1].cors->max_age_s, 5);
    cr_assert_eq(rule->timeout_request_ms, ROUTE_DURATION_ABSENT);
    cr_assert_eq(rule->timeout_backend_request_ms, ROUTE_DURATION_ABSENT);
    cr_assert_eq(rule->position.line, 7);
    cr_assert_eq(route->rules[1].filters[0].redirect->status_code, 302);
    cr_assert_eq(route->rules[1].http_matches_count, 1);
    cr_assert_eq(route->object.created, ROUTE_CREATED_ABSENT);
    finish(&decoding);

    decode(&decoding, HTTP_ROUTE "spec: {}\n");
    route = (const struct route *)decoding.object;
    cr_assert_eq(route->rules_count, 1);
    cr_assert(bytes_equal(route->rules[0].http_matches[0].path.value, BYTES("/")));
    finish(&decoding);
}

Test(schema, reads_every_part_of_an_http_route)
{
    struct decoding decoding;
    decode(&decoding,
           "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\n"
           "metadata: {name: r, creationTimestamp: \"1970-01-02T00:00:01Z\"}\n"
           "spec:\n"
           "  hostnames: [a.example, '*.b.example']\n"
           "  rules:\n"
           "  - name: one\n"
           "    matches:\n"
           "    - path: {type: RegularExpression, value: '[/#]x'}\n"
           "      method: POST\n"
           "      queryParams: [{type: RegularExpression, name: q, value: 'a+'}]\n"
           "    timeouts: {request: 1m1s, backendRequest: 0s}\n"
           "    retry: {codes: [500, 503], attempts: 2, backoff: 100ms}\n"
           "    sessionPersistence: {absoluteTimeout: 1h, cookie: {name: c, lifetimeType: "
           "Permanent}}\n"
           "    filters:\n"
           "    - type: RequestHeaderModifier\n"
           "      requestHeaderModifier:\n"
           "        set: [{name: A, value: 'b c'}]\n"
           "        remove: [x, y]\n"
           "    - type: URLRewrite\n"
           "      urlRewrite: {hostname: h, path: {type: ReplaceFullPath, replaceFullPath: ''}}\n"
           "    - type: ExternalAuth\n"
           "      externalAuth: {protocol: HTTP, backendRef: {name: a, port: 9}, http: {path: /x, "
           "allowedHeaders: [k]}, forwardBody: {maxSize: 0}}\n"
           "    - type: ExtensionRef\n"
           "      extensionRef: {group: outrigger.dev, kind: BodyMatch, name: m}\n"
           "    backendRefs:\n"
           "    - {name: w, port: 80, weight: 0, filters: [{type: ResponseHeaderModifier, "
           "responseHeaderModifier: {add: [{name: z, value: q}]}}]}\n");
    for (uint32_t i = 0; i < decoding.diagnostics.count; i++) {
        cr_log_error("%s", decoding.diagnostics.items[i].message);
    }
    cr_assert(!error_is(decoding.error));
    const struct route *route = (const struct route *)decoding.object;
    cr_assert_eq(route->object.created, 86401);
    cr_assert(bytes_equal(route->object.namespace, BYTES("default")));
    cr_assert(bytes_equal(route->object.version, BYTES("v1beta1")));
    cr_assert_eq(route->hostnames_count, 2);
    const struct route_rule *rule = &route->rules[0];
    cr_assert(bytes_equal(rule->name, BYTES("one")));
    cr_assert_eq(rule->http_matches[0].path.type, ROUTE_MATCH_REGEX);
    cr_assert(bytes_equal(rule->http_matches[0].method, BYTES("POST")));
    cr_assert_eq(rule->timeout_request_ms, 61000);
    cr_assert_eq(rule->timeout_backend_request_ms, 0);
    cr_assert_eq(rule->retry->codes[1], 503);
    cr_assert_eq(rule->retry->attempts, 2);
    cr_assert_eq(rule->retry->backoff_ms, 100);
    cr_assert(rule->session_persistence->cookie_is_permanent);
    cr_assert_eq(rule->session_persistence->absolute_timeout_ms, 3600000);
    cr_assert(bytes_equal(rule->session_persistence->name, BYTES("c")));
    cr_assert_eq(rule->filters_count, 4);
    cr_assert(bytes_equal(rule->filters[0].header_modifier->set[0].value, BYTES("b c")));
    cr_assert_eq(rule->filters[0].header_modifier->remove_count, 2);
    cr_assert_not_null(rule->filters[1].rewrite->path->replace_full_path.data);
    cr_assert_eq(rule->filters[1].rewrite->path->replace_full_path.size, 0);
    cr_assert_eq(rule->filters[2].external_auth->protocol, ROUTE_EXTERNAL_AUTH_HTTP);
    cr_assert(rule->filters[2].external_auth->has_forward_body);
    cr_assert(bytes_equal(rule->filters[3].extension_ref->kind, BYTES("BodyMatch")));
    cr_assert_eq(rule->backend_refs[0].weight, 0);
    cr_assert_eq(rule->backend_refs[0].filters[0].header_modifier->add_count, 1);
    cr_assert_eq(rule->unsupported, ROUTE_SUPPORTED);
    finish(&decoding);
}

static const struct {
    const char *spec;
    const char *code;
    uint32_t line;
} refused[] = {
    {"spec: {rules: [{backendRefs: [{name: w}]}]}", "required", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: 0}]}]}", "out-of-range", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: 65536}]}]}", "out-of-range", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: -1}]}]}", "out-of-range", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: 0x50}]}]}", "wrong-type", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: 1e3}]}]}", "wrong-type", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: 0o17}]}]}", "wrong-type", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: \"80\"}]}]}", "wrong-type", 4},
    {"spec: {rules: [{backendRefs: [{name: w, port: 80, weight: 1000001}]}]}", "out-of-range", 4},
    {"spec: {rules: [{backendRefs: [{port: 80}]}]}", "required", 4},
    {"spec: {rules: [{matches: [{headers: [{name: a, value: 80}]}]}]}", "wrong-type", 4},
    {"spec: {rules: [{matches: [{headers: [{name: a, value: true}]}]}]}", "wrong-type", 4},
    {"spec: {rules: [{matches: [{headers: [{name: ':a', value: b}]}]}]}", "invalid-value", 4},
    {"spec: {rules: [{matches: [{headers: [{name: a, value: \"x\\r\\ny\"}]}]}]}", "invalid-value",
     4},
    {"spec: {rules: [{matches: [{headers: [{name: a, value: b}, {name: a, value: c}]}]}]}",
     "duplicate-item", 4},
    {"spec: {rules: [{matches: [{path: {value: a}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: /a//b}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: /a/../b}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: /a/..}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: /a/.}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: /a%2fb}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: '/a#b'}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: '/a b'}}]}]}", "invalid-path", 4},
    {"spec: {rules: [{matches: [{path: {value: '/a%zz'}}]}]}", "invalid-path", 4},
    {"spec: {rules: []}", "too-few", 4},
    {"spec: {rules: {}}", "wrong-type", 4},
    {"spec: {rules: [{name: A_b}]}", "invalid-value", 4},
    {"spec: {rules: [{name: a}, {name: a}]}", "duplicate-name", 4},
    {"spec: {rules: [{timeouts: {request: 1s, backendRequest: 2s}}]}", "invalid-value", 4},
    {"spec: {rules: [{timeouts: {request: 1d}}]}", "invalid-value", 4},
    {"spec: {rules: [{timeouts: {request: 5}}]}", "wrong-type", 4},
    {"spec: {rules: [{retry: {codes: [200]}}]}", "out-of-range", 4},
    {"spec: {rules: [{retry: {codes: [500, 500]}}]}", "duplicate-item", 4},
    {"spec: {rules: [{retry: {attempts: 0}}]}", "out-of-range", 4},
    {"spec: {rules: [{filters: [{type: CORS}]}]}", "union", 4},
    {"spec: {rules: [{filters: [{requestMirror: {}}]}]}", "required", 4},
    {"spec: {rules: [{filters: [{type: CORS, cors: {}, urlRewrite: {}}]}]}", "union", 4},
    {"spec: {rules: [{filters: [{type: CORS, cors: {}}, {type: CORS, cors: {}}]}]}",
     "repeated-filter", 4},
    {"spec: {rules: [{filters: [{type: CORS, cors: {allowOrigins: ['*', 'http://a']}}]}]}",
     "invalid-value", 4},
    {"spec: {rules: [{filters: [{type: CORS, cors: {allowOrigins: [a]}}]}]}", "invalid-value", 4},
    {"spec: {rules: [{filters: [{type: CORS, cors: {allowCredentials: yes}}]}]}", "wrong-type", 4},
    {"spec: {rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: "
     "URLRewrite, "
     "urlRewrite: {}}]}]}",
     "incompatible-filters", 4},
    {"spec: {rules: [{backendRefs: [{name: a, port: 1}], filters: [{type: RequestRedirect, "
     "requestRedirect: {}}]}]}",
     "redirect-with-backends", 4},
    {"spec: {rules: [{matches: [{path: {type: Exact, value: /}}], filters: [{type: URLRewrite, "
     "urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}]}",
     "replace-prefix", 4},
    {"spec: {rules: [{matches: [{}, {}], filters: [{type: URLRewrite, urlRewrite: {path: "
     "{type: "
     "ReplacePrefixMatch, replacePrefixMatch: /}}}]}]}",
     "replace-prefix", 4},
    {"spec: {rules: [{filters: [{type: URLRewrite, urlRewrite: {path: {type: "
     "ReplaceFullPath}}}]}]}",
     "union", 4},
    {"spec: {rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, "
     "port: "
     "1}, percent: 1, fraction: {numerator: 1}}}]}]}",
     "union", 4},
    {"spec: {rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, "
     "port: "
     "1}, fraction: {numerator: 101}}}]}]}",
     "invalid-value", 4},
    {"spec: {rules: [{filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, "
     "backendRef: "
     "{name: a, port: 1}, http: {}}}]}]}",
     "union", 4},
    {"spec: {rules: [{sessionPersistence: {cookie: {lifetimeType: Permanent}}}]}", "required", 4},
    {"spec: {rules: [{sessionPersistence: {type: Header}}]}", "union", 4},
    {"spec: {parentRefs: [{kind: Service, name: a}, {kind: Service, name: a}]}", "duplicate-parent",
     4},
    {"spec: {parentRefs: [{kind: Service, name: a, port: 1}, {kind: Service, name: a}]}",
     "duplicate-parent", 4},
    {"spec: {parentRefs: [{name: ''}]}", "too-short", 4},
    {"spec: {hostnames: [10.0.0.1]}", "invalid-value", 4},
    {"spec: {hostnames: ['a.*.b']}", "invalid-value", 4},
    {"spec: {hostnames: [A.b]}", "invalid-value", 4},
    {"spec: [1]", "wrong-type", 4},
    {"other: 1", "required", 1},
};

Test(schema, refuses_what_an_api_server_refuses)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        char text[2048];
        snprintf(text, sizeof(text), "%s%s\n", HTTP_ROUTE, refused[i].spec);
        struct decoding decoding;
        decode(&decoding, text);
        cr_assert_eq(decoding.error.code, ERROR_CONFIG, "taken: %s", refused[i].spec);
        bool is_found = false;
        for (uint32_t j = 0; j < decoding.diagnostics.count; j++) {
            const struct route_diagnostic *item = &decoding.diagnostics.items[j];
            is_found = is_found || (strcmp(item->code, refused[i].code) == 0 &&
                                    item->severity == ROUTE_SEVERITY_ERROR &&
                                    item->position.line == refused[i].line);
        }
        cr_assert(is_found, "%s: %s at %u: %s", refused[i].spec, decoding.diagnostics.items[0].code,
                  decoding.diagnostics.items[0].position.line,
                  decoding.diagnostics.items[0].message);
        finish(&decoding);
    }
}

Test(schema, takes_what_an_api_server_takes)
{
    static const char *const specs[] = {
        "spec: {rules: [{matches: []}]}",
        "spec: {rules: [{matches: null, backendRefs: , filters: []}]}",
        "spec: {rules: [{matches: [{path: {type: RegularExpression, value: '//.*#'}}]}]}",
        "spec: {rules: [{matches: [{path: {value: '/a%20b;c=d'}}]}]}",
        "spec: {rules: [{timeouts: {request: 0s, backendRequest: 2s}}]}",
        "spec: {rules: [{timeouts: {request: 1s}}]}\nstatus: {parents: [{anything: goes}]}",
        "spec: {parentRefs: [{kind: Service, group: '', name: a, port: 1}, {kind: Service, group: "
        "'', "
        "name: a, port: 2}]}",
        ("spec: {parentRefs: [{kind: Service, group: '', name: a, namespace: x}, {kind: Service, "
         "group: '', name: a, namespace: y}]}"),
        ("spec: {rules: [{sessionPersistence: {sessionName: s, absoluteTimeout: 1h, cookieConfig: "
         "{lifetimeType: Permanent}}}]}"),
        "spec: {useDefaultGateways: All}",
        "spec: {rules: [{backendRefs: [{group: example.com, kind: Bucket, name: b}]}]}",
    };
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        char text[2048];
        snprintf(text, sizeof(text), "%s%s\n", HTTP_ROUTE, specs[i]);
        struct decoding decoding;
        decode(&decoding, text);
        cr_assert(!error_is(decoding.error), "%s: %s", specs[i],
                  decoding.diagnostics.items[0].message);
        cr_assert_eq(decoding.diagnostics.count, 0, "%s: %s", specs[i],
                     decoding.diagnostics.items[0].message);
        finish(&decoding);
    }
}

Test(schema, suggests_the_field_or_value_that_was_meant)
{
    static const struct {
        const char *spec;
        const char *code;
        const char *suggestion;
        uint32_t column;
    } cases[] = {
        {"spec: {rules: [{backendrefs: []}]}", "unknown-field", "backendRefs", 17},
        {"spec: {rules: [{backendRef: []}]}", "unknown-field", "backendRefs", 17},
        {"spec: {parentsRefs: []}", "unknown-field", "parentRefs", 8},
        {"spec: {rules: [{matches: [{path: {type: Prefix}}]}]}", "unsupported-value", "PathPrefix",
         41},
        {"spec: {rules: [{matches: [{path: {type: Pathprefix}}]}]}", "unsupported-value",
         "PathPrefix", 41},
        {"spec: {rules: [{matches: [{method: PSOT}]}]}", "unsupported-value", "POST", 36},
        {"spec: {rules: [{somethingElse: 1}]}", "unknown-field", NULL, 17},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[2048];
        snprintf(text, sizeof(text), "%s%s\n", HTTP_ROUTE, cases[i].spec);
        struct decoding decoding;
        decode(&decoding, text);
        cr_assert(!error_is(decoding.error), "%s", cases[i].spec);
        cr_assert_eq(decoding.diagnostics.count, 1, "%s", cases[i].spec);
        const struct route_diagnostic *item = &decoding.diagnostics.items[0];
        cr_assert_eq(item->severity, ROUTE_SEVERITY_WARNING);
        cr_assert_str_eq(item->code, cases[i].code);
        cr_assert_eq(item->position.line, 4);
        cr_assert_eq(item->position.column, cases[i].column, "%s: %u", cases[i].spec,
                     item->position.column);
        if (cases[i].suggestion == NULL) {
            cr_assert_null(item->suggestion, "%s: %s", cases[i].spec, item->suggestion);
        } else {
            cr_assert_str_eq(item->suggestion, cases[i].suggestion, "%s", cases[i].spec);
        }
        finish(&decoding);
    }
}

Test(schema, marks_rules_that_this_version_cannot_express)
{
    static const struct {
        const char *rule;
        enum route_unsupported unsupported;
    } cases[] = {
        {"{matches: [{path: {type: Glob, value: /}}]}", ROUTE_UNSUPPORTED_VALUE},
        {"{matches: [{method: BREW}]}", ROUTE_UNSUPPORTED_VALUE},
        {"{filters: [{type: NewAuth}]}", ROUTE_UNSUPPORTED_SECURITY_FILTER},
        {"{backendRefs: [{name: a, port: 1, filters: [{type: New}]}]}",
         ROUTE_UNSUPPORTED_SECURITY_FILTER},
        {"{filters: [{type: ExternalAuth, externalAuth: {protocol: SPOA, backendRef: {name: a, "
         "port: "
         "1}}}]}",
         ROUTE_UNSUPPORTED_SECURITY_FILTER},
        {"{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 310}}]}",
         ROUTE_UNSUPPORTED_VALUE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[2048];
        snprintf(text, sizeof(text), "%sspec: {rules: [%s, {}]}\n", HTTP_ROUTE, cases[i].rule);
        struct decoding decoding;
        decode(&decoding, text);
        cr_assert(!error_is(decoding.error), "%s", cases[i].rule);
        const struct route *route = (const struct route *)decoding.object;
        cr_assert_eq(route->rules[0].unsupported, cases[i].unsupported, "%s", cases[i].rule);
        cr_assert_eq(route->rules[1].unsupported, ROUTE_SUPPORTED, "%s", cases[i].rule);
        finish(&decoding);
    }
}

Test(schema, bounds_the_matches_of_a_route)
{
    static char text[20000];
    size_t size = (size_t)snprintf(text, sizeof(text), "%sspec:\n  rules:\n", HTTP_ROUTE);
    for (uint32_t rule = 0; rule < 3; rule++) {
        size += (size_t)snprintf(text + size, sizeof(text) - size, "  - matches:\n");
        for (uint32_t match = 0; match < 43; match++) {
            size += (size_t)snprintf(text + size, sizeof(text) - size, "    - method: GET\n");
        }
    }
    struct decoding decoding;
    decode(&decoding, text);
    cr_assert_eq(decoding.error.code, ERROR_CONFIG);
    cr_assert_str_eq(decoding.diagnostics.items[0].code, "too-many");
    finish(&decoding);
}

Test(schema, knows_how_the_versions_of_a_kind_differ)
{
    static const struct {
        const char *text;
        bool is_taken;
    } cases[] = {
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: r}\nspec: "
         "{rules: "
         "[{backendRefs: [{name: a, port: 1}]}]}",
         false},
        {"apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\nmetadata: {name: "
         "r}\nspec: "
         "{rules: [{backendRefs: [{name: a, port: 1}]}]}",
         true},
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: r}\nspec: "
         "{rules: "
         "[{backendRefs: [{name: a, port: 1}]}, {backendRefs: [{name: a, port: 1}]}]}",
         false},
        {"apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: UDPRoute\nmetadata: {name: "
         "r}\nspec: "
         "{rules: [{backendRefs: [{name: a, port: 1}]}, {backendRefs: [{name: a, port: 1}]}]}",
         true},
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: {}",
         true},
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: "
         "{rules: "
         "[{matches: [{method: {type: Exact}}]}]}",
         false},
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: "
         "{rules: "
         "[{matches: [{method: {service: a.b/c}}]}]}",
         false},
        {"apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: "
         "{rules: "
         "[{matches: [{method: {service: .a.B_1, method: Get}}]}]}",
         true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct decoding decoding;
        decode(&decoding, cases[i].text);
        cr_assert_eq(!error_is(decoding.error), cases[i].is_taken, "%s", cases[i].text);
        finish(&decoding);
    }
    cr_assert_null(route_schema_find(BYTES("gateway.networking.k8s.io"), BYTES("HTTPRoute"),
                                     BYTES("v1alpha2")));
    cr_assert_null(route_schema_find(BYTES(""), BYTES("HTTPRoute"), BYTES("v1")));
}

Test(schema, reads_core_objects_as_kubectl_prints_them)
{
    struct decoding decoding;
    decode(
        &decoding,
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n"
        "  managedFields: [{manager: kubectl, fieldsV1: {'f:spec': {}}}]\n"
        "  creationTimestamp: 2024-05-01T12:00:00Z\n"
        "spec:\n  type: ClusterIP\n  clusterIP: 10.0.0.1\n  clusterIPs: [10.0.0.1, 'fd00::1']\n"
        "  internalTrafficPolicy: Cluster\n  selector: {app: web}\n  sessionAffinity: ClientIP\n"
        "  ports:\n  - {name: http, port: 80, targetPort: 8080, appProtocol: http, nodePort: "
        "30000}\n"
        "  - {name: dns, port: 53, protocol: UDP, targetPort: dns}\nstatus: {loadBalancer: {}}\n");
    cr_assert(!error_is(decoding.error));
    cr_assert_eq(decoding.diagnostics.count, 0);
    const struct route_service_object *service =
        (const struct route_service_object *)decoding.object;
    cr_assert_eq(service->object.created, 1714564800);
    cr_assert_eq(service->cluster_ips_count, 2);
    cr_assert(bytes_equal(service->cluster_ips[1], BYTES("fd00::1")));
    cr_assert(service->has_selector && service->has_session_affinity && !service->is_headless);
    cr_assert_eq(service->ports[0].target_port, 8080);
    cr_assert(bytes_equal(service->ports[0].app_protocol, BYTES("http")));
    cr_assert_eq(service->ports[1].transport, ROUTE_TRANSPORT_UDP);
    cr_assert(bytes_equal(service->ports[1].target_port_name, BYTES("dns")));
    finish(&decoding);

    decode(&decoding,
           "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: None}\n");
    service = (const struct route_service_object *)decoding.object;
    cr_assert(service->is_headless);
    cr_assert_eq(service->cluster_ips_count, 0);
    finish(&decoding);

    decode(&decoding,
           "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
           "metadata: {name: web-x, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
           "endpoints:\n- addresses: [10.1.0.1]\n  conditions: {ready: true, serving: true}\n"
           "  targetRef: {kind: Pod, name: web-1, namespace: default}\n  zone: a\n"
           "- addresses: [10.1.0.2]\n  conditions: {ready: false}\n- addresses: [10.1.0.3]\n"
           "ports: [{name: http, port: 8080, protocol: TCP}, {port: 1}]\n");
    cr_assert(!error_is(decoding.error));
    const struct route_endpoint_slice *slice = (const struct route_endpoint_slice *)decoding.object;
    cr_assert(bytes_equal(slice->service, BYTES("web")));
    cr_assert(bytes_equal(slice->endpoints[0].pod, BYTES("web-1")));
    cr_assert(slice->endpoints[0].is_ready && !slice->endpoints[1].is_ready &&
              slice->endpoints[2].is_ready);
    cr_assert(bytes_equal(slice->ports[1].name, BYTES("")));
    finish(&decoding);

    decode(&decoding,
           "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {tls.key: aGVsbG8=}\n");
    const struct route_data *secret = (const struct route_data *)decoding.object;
    cr_assert(bytes_equal(secret->data[0].key, BYTES("tls.key")));
    cr_assert_null(secret->data[0].value.data);
    finish(&decoding);
}

Test(schema, reads_policies_of_gateway_api)
{
    struct decoding decoding;
    decode(&decoding,
           "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: p}\n"
           "spec:\n  targetRefs: [{group: '', kind: Service, name: web, sectionName: https}]\n"
           "  validation:\n    caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]\n"
           "    hostname: web.example\n    subjectAltNames: [{type: URI, uri: 'spiffe://a/b'}]\n");
    cr_assert(!error_is(decoding.error));
    const struct route_backend_tls_policy *policy =
        (const struct route_backend_tls_policy *)decoding.object;
    cr_assert(bytes_equal(policy->ca_refs[0].namespace, BYTES("default")));
    cr_assert(bytes_equal(policy->sans[0].value, BYTES("spiffe://a/b")));
    finish(&decoding);

    decode(&decoding,
           "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n"
           "metadata: {name: p}\nspec:\n  targetRefs: [{group: '', kind: Service, name: w}]\n"
           "  retryConstraint: {budget: {percent: 5}, minRetryRate: {count: 3}}\n");
    cr_assert(!error_is(decoding.error));
    const struct route_traffic_policy *traffic =
        (const struct route_traffic_policy *)decoding.object;
    cr_assert_eq(traffic->budget_percent, 5);
    cr_assert_eq(traffic->budget_interval_ms, 10000);
    cr_assert_eq(traffic->min_retries, 3);
    cr_assert_eq(traffic->min_retries_interval_ms, ROUTE_DURATION_ABSENT);
    finish(&decoding);

    decode(&decoding,
           "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n"
           "metadata: {name: g}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: "
           "HTTPRoute, namespace: a}]\n  to: [{group: '', kind: Service}]\n");
    cr_assert(!error_is(decoding.error));
    const struct route_reference_grant *grant =
        (const struct route_reference_grant *)decoding.object;
    cr_assert_null(grant->to[0].name.data);
    finish(&decoding);
}

static const struct {
    const char *text;
    const char *code; /* NULL: taken */
} own_kinds[] = {
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, "
     "selector: "
     "{}}], rules: [{networkAtributes: {ports: [80]}}]}",
     "unknown-field"},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, "
     "selector: "
     "{}}], action: DENY}",
     "unsupported-value"},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Service, "
     "name: a}]}",
     "invalid-target"},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, "
     "selector: "
     "{matchExpressions: []}}]}",
     "unknown-field"},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, "
     "selector: "
     "{}}], rules: [{sources: [{type: SPIFFE, spiffe: 'http://x'}]}]}",
     "invalid-value"},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, "
     "selector: "
     "{matchLabels: {app: a}}}], mode: Audit, rules: [{sources: [{type: ServiceAccount, "
     "serviceAccount: {name: '*'}}], httpMatches: [{method: GET}]}]}",
     NULL},
    {"kind: MeshTLSPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Service, name: a}], "
     "inbound: {mode: Strict}}",
     "invalid-target"},
    {"kind: MeshTLSPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, selector: "
     "{}}], "
     "inbound: {mode: strict}}",
     "unsupported-value"},
    {"kind: MeshTLSPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, selector: "
     "{}}], "
     "inbound: {mode: Strict, ports: [{port: 9090, mode: Permissive}]}}",
     NULL},
    {"kind: MeshTLSPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Service, name: a}], "
     "backend: {mode: Enabled, subjectAltNames: [{type: URI, uri: 'spiffe://a/b'}]}}",
     NULL},
    {"kind: MeshParameters\nmetadata: {name: default}\nspec: {trustDomains: [{name: a.b}], "
     "inbound: {mode: Permissive}, backend: {mode: Disabled}}",
     NULL},
    {"kind: BodyMatch\nmetadata: {name: b}\nspec: {matches: [{json: [{pointer: /a, value: "
     "b}]}]}",
     NULL},
    {"kind: BodyMatch\nmetadata: {name: b}\nspec: {matches: [{json: [{pointer: a, value: "
     "b}]}]}",
     "invalid-value"},
    {"kind: BodyMatch\nmetadata: {name: b}\nspec: {matches: [{json: [{pointer: /a, type: "
     "RegularExpression, value: '('}]}]}",
     "invalid-regex"},
    {"kind: BodyMatch\nmetadata: {name: b}\nspec: {matches: [{json: [{pointer: /a, type: "
     "RegularExpression, value: 'a+'}]}]}",
     NULL},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, selector: "
     "{}}], rules: [{httpMatches: [{path: {type: RegularExpression, value: '('}}]}]}",
     "invalid-regex"},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, selector: "
     "{}}], rules: [{httpMatches: [{headers: [{type: RegularExpression, name: a, value: '('}]}]}]}",
     "invalid-regex"},
    {"kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Pod, selector: "
     "{}}], rules: [{grpcMatches: [{method: {type: RegularExpression, service: '('}}]}]}",
     "invalid-regex"},
    {"kind: BodyMatch\nmetadata: {name: b}\nspec: {matches: [{json: [{pointer: /a}]}]}",
     "required"},
    {"kind: BodyMatch\nmetadata: {name: b}\nspec: {matches: [{jsonRPC: {method: a}, form: "
     "[{name: "
     "a, value: b}]}]}",
     "union"},
    {"kind: BodyMatch\nmetadata: {name: b}\nspec: {maxBytes: 70000, matches: [{jsonRPC: "
     "{method: "
     "a}}]}",
     "out-of-range"},
};

Test(schema, refuses_mistakes_in_own_kinds_instead_of_widening_a_policy)
{
    for (size_t i = 0; i < sizeof(own_kinds) / sizeof(own_kinds[0]); i++) {
        char text[2048];
        snprintf(text, sizeof(text), "apiVersion: outrigger.dev/v1alpha1\n%s\n", own_kinds[i].text);
        struct decoding decoding;
        decode(&decoding, text);
        cr_assert_eq(error_is(decoding.error), own_kinds[i].code != NULL, "%s: %s",
                     own_kinds[i].text,
                     decoding.diagnostics.count > 0 ? decoding.diagnostics.items[0].message : "");
        if (own_kinds[i].code != NULL) {
            cr_assert_str_eq(decoding.diagnostics.items[0].code, own_kinds[i].code, "%s: %s",
                             own_kinds[i].text, decoding.diagnostics.items[0].message);
        }
        finish(&decoding);
    }
}

Test(schema, tells_a_policy_for_nobody_from_one_for_everybody)
{
    struct decoding decoding;
    decode(&decoding,
           "apiVersion: outrigger.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: "
           "p}\nspec: {targetRefs: [{kind: Pod, selector: {}}], rules: [{sources: []}, {}]}\n");
    cr_assert(!error_is(decoding.error));
    const struct route_authorization_policy *policy =
        (const struct route_authorization_policy *)decoding.object;
    cr_assert(policy->rules[0].has_sources && policy->rules[0].sources_count == 0);
    cr_assert_not(policy->rules[1].has_sources);
    finish(&decoding);
}

Test(schema, needs_a_name_and_a_sound_place_in_the_cluster)
{
    static const struct {
        const char *metadata;
        const char *code;
    } cases[] = {
        {"{}", "required"},
        {"{name: A}", "invalid-value"},
        {"{name: 12}", "wrong-type"},
        {"{name: a, namespace: a.b}", "invalid-value"},
        {"{name: a, creationTimestamp: yesterday}", "invalid-value"},
        {"{name: a, creationTimestamp: '2024-13-01T00:00:00Z'}", "invalid-value"},
        {"{name: a, creationTimestamp: '2023-02-29T00:00:00Z'}", "invalid-value"},
        {"{name: a, labels: [a]}", "wrong-type"},
        {"{name: a, labels: {a: 1}}", "wrong-type"},
        {"{name: a, labels: {a: true}}", "wrong-type"},
        {"{name: a, labels: {a: b c}}", "invalid-value"},
        {"{name: a, labels: {a: -b}}", "invalid-value"},
        {"{name: a, labels: {a: "
         "a123456789b123456789c123456789d123456789e123456789f123456789g123}}",
         "invalid-value"},
        {"{name: a, labels: {a/b/c: d}}", "invalid-value"},
        {"{name: a, labels: {A.com/b: d}}", "invalid-value"},
        {"{name: a, labels: {-a: d}}", "invalid-value"},
        {"{name: a, annotations: {a: 1}}", "wrong-type"},
        {"{name: a, annotations: {a b: c}}", "invalid-value"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[512];
        snprintf(
            text, sizeof(text),
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: %s\nspec: {}\n",
            cases[i].metadata);
        struct decoding decoding;
        decode(&decoding, text);
        cr_assert_eq(decoding.error.code, ERROR_CONFIG, "%s", cases[i].metadata);
        cr_assert_str_eq(decoding.diagnostics.items[0].code, cases[i].code, "%s",
                         cases[i].metadata);
        finish(&decoding);
    }
}

Test(schema, tells_of_misspelt_metadata)
{
    struct decoding decoding;
    decode(&decoding, "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
                      "metadata: {name: r, namepsace: shop, uid: a, future: b}\nspec: {}\n");
    cr_assert(!error_is(decoding.error));
    cr_assert_eq(decoding.diagnostics.count, 2);
    cr_expect_str_eq(decoding.diagnostics.items[0].suggestion, "namespace");
    cr_expect_eq(decoding.diagnostics.items[0].position.column, 21);
    cr_expect_null(decoding.diagnostics.items[1].suggestion);
    finish(&decoding);
}

#define SERVICE_KIND "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
#define SLICE_KIND "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\n"

Test(schema, refuses_core_objects_that_an_api_server_refuses)
{
    static const struct {
        const char *text;
        const char *code;
    } cases[] = {
        {"apiVersion: v1\nkind: Service\nmetadata: {name: a.b}\nspec: {ports: [{port: 80}]}\n",
         "invalid-value"},
        {"apiVersion: v1\nkind: Service\nmetadata: {name: "
         "a123456789b123456789c123456789d123456789e123456789f123456789g123}\nspec: {ports: [{port: "
         "80}]}\n",
         "too-long"},
        {SERVICE_KIND "spec: {ports: [{port: 010}]}\n", "wrong-type"},
        {SERVICE_KIND "spec: {ports: [{name: Http, port: 80}]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {ports: [{name: a, port: 80}, {name: a, port: 81}]}\n",
         "duplicate-item"},
        {SERVICE_KIND "spec: {ports: [{name: a, port: 80}, {name: b, port: 80}]}\n",
         "duplicate-item"},
        {SERVICE_KIND "spec: {ports: [{port: 80, targetPort: 0}]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {ports: [{port: 80, targetPort: 65536}]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {ports: [{port: 80, targetPort: '8080'}]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {ports: [{port: 80, targetPort: a--b}]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {ports: [{port: 80, targetPort: [8080]}]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {ports: [{port: 80, appProtocol: a b}]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {clusterIP: 10.0.0.256}\n", "invalid-value"},
        {SERVICE_KIND "spec: {clusterIP: [10.0.0.1]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {clusterIPs: [10.0.0.1, x]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2]}\n", "invalid-value"},
        {SERVICE_KIND "spec: {clusterIPs: [10.0.0.1, 'fd00::1', 10.0.0.2]}\n", "too-many"},
        {SERVICE_KIND "spec: {selector: {a: 1}}\n", "wrong-type"},
        {SERVICE_KIND "spec: {selector: [a]}\n", "wrong-type"},
        {SLICE_KIND "addressType: IPv4\nendpoints: [{addresses: [10.0.0]}]\n", "invalid-value"},
        {SLICE_KIND "addressType: IPv4\nendpoints: [{addresses: ['fd00::1']}]\n", "invalid-value"},
        {SLICE_KIND "addressType: IPv6\nendpoints: [{addresses: [10.0.0.1]}]\n", "invalid-value"},
        {SLICE_KIND "addressType: IPv4\nports: [{name: a, port: 1}, {name: a, port: 2}]\n",
         "duplicate-item"},
        {SLICE_KIND "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: "
                    "'false'}}]\n",
         "wrong-type"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct decoding decoding;
        decode(&decoding, cases[i].text);
        cr_expect_eq(decoding.error.code, ERROR_CONFIG, "taken: %s", cases[i].text);
        cr_expect_str_eq(decoding.diagnostics.count == 0 ? "" : decoding.diagnostics.items[0].code,
                         cases[i].code, "%s", cases[i].text);
        finish(&decoding);
    }
}

Test(schema, takes_core_objects_that_an_api_server_takes)
{
    static const char *const cases[] = {
        SERVICE_KIND "spec: {clusterIP: '', clusterIPs: null, selector: null, ports: [{name: '', "
                     "port: 80, targetPort: http-web, appProtocol: kubernetes.io/ws}]}\n",
        SERVICE_KIND "spec: {clusterIP: None, clusterIPs: [None]}\n",
        SERVICE_KIND
        "spec: {clusterIP: 'fd00::1', clusterIPs: ['fd00::1', 10.0.0.1], ports: [{name: "
        "dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: 1a, labels: {a: '', b: null, "
        "example.com/C_d.e: F-g_h.1}, annotations: {a: '{} any [thing]'}, creationTimestamp: "
        "'2024-02-29T00:00:00Z'}\nspec: {type: ExternalName, externalName: example.com}\n",
        SLICE_KIND "addressType: IPv6\nendpoints: [{addresses: ['fd00::1', '::ffff:10.0.0.1'], "
                   "conditions: {ready: null, serving: True}}]\nports: [{}]\n",
        SLICE_KIND "addressType: IPv4\nendpoints: null\nports: null\n",
        SLICE_KIND "addressType: FQDN\nendpoints: [{addresses: [example.com]}]\n",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct decoding decoding;
        decode(&decoding, cases[i]);
        cr_expect(!error_is(decoding.error), "%s: %s", cases[i],
                  decoding.diagnostics.count == 0 ? "" : decoding.diagnostics.items[0].message);
        cr_expect_eq(decoding.diagnostics.count, 0, "%s", cases[i]);
        finish(&decoding);
    }
}

Test(schema, counts_characters_where_an_api_server_does)
{
    char text[4096];
    for (size_t count = 1024; count <= 1025; count++) {
        int size =
            snprintf(text, sizeof(text),
                     HTTP_ROUTE "spec: {rules: [{matches: [{queryParams: [{name: a, value: '");
        for (size_t i = 0; i < count; i++) {
            size += snprintf(text + size, sizeof(text) - (size_t)size, "\u00e9");
        }
        (void)snprintf(text + size, sizeof(text) - (size_t)size, "'}]}]}]}\n");
        struct decoding decoding;
        decode(&decoding, text);
        cr_expect_eq(error_is(decoding.error), count > 1024);
        finish(&decoding);
    }
}

/* ---- Texts ---- */

Test(text, parses_durations_of_gep_2257)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } cases[] = {
        {"1s", 1000},
        {"100ms200ms300ms", 600},
        {"10s30m1h", 5410000},
        {"00060m", 3600000},
        {"0s", 0},
        {"0", -1},
        {"", -1},
        {"1d", -1},
        {"0.5s", -1},
        {"100us", -1},
        {"123456s", -1},
        {"1s1s1s1s1s", -1},
        {"-1s", -1},
        {"1", -1},
        {"s", -1},
        {"99999h", 359996400000},
        {"1 s", -1},
        {"1m2", -1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ms = -1;
        bool is_taken = !error_is(route_duration_parse(bytes_from_string(cases[i].text), &ms));
        cr_assert_eq(is_taken, cases[i].ms >= 0, "\"%s\"", cases[i].text);
        cr_assert_eq(ms, cases[i].ms, "\"%s\"", cases[i].text);
    }
}

Test(text, parses_times_of_rfc_3339)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2000-02-29T12:34:56Z", 951827696},
        {"2024-05-01T14:00:00+02:00", 1714564800},
        {"2024-05-01T12:00:00.123456Z", 1714564800},
        {"1969-12-31T23:59:59Z", -1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t seconds = 0;
        cr_assert(!error_is(route_time_parse(bytes_from_string(cases[i].text), &seconds)));
        cr_assert_eq(seconds, cases[i].seconds, "%s: %lld", cases[i].text, (long long)seconds);
    }
    static const char *const wrong[] = {"",
                                        "2024",
                                        "2024-05-01",
                                        "2024-05-01T12:00:00",
                                        "2024-5-1T1:1:1Z",
                                        "2024-05-01T12:00:00+2",
                                        "2024-00-01T00:00:00Z"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        int64_t seconds = 0;
        cr_assert(error_is(route_time_parse(bytes_from_string(wrong[i]), &seconds)), "%s",
                  wrong[i]);
    }
}

Test(text, knows_the_forms)
{
    static const struct {
        const char *text;
        enum route_text_form form;
        bool has_form;
    } cases[] = {
        {"a.b-c", ROUTE_TEXT_SUBDOMAIN, true},
        {"a..b", ROUTE_TEXT_SUBDOMAIN, false},
        {"-a", ROUTE_TEXT_LABEL, false},
        {"", ROUTE_TEXT_GROUP, true},
        {"*.example.com", ROUTE_TEXT_HOSTNAME, true},
        {"*", ROUTE_TEXT_HOSTNAME, false},
        {"*.example.com", ROUTE_TEXT_PRECISE_HOSTNAME, false},
        {"1.2.3.4", ROUTE_TEXT_HOSTNAME, false},
        {"1.2.3.4.5", ROUTE_TEXT_HOSTNAME, true},
        {"x-a_b", ROUTE_TEXT_TOKEN, true},
        {"x a", ROUTE_TEXT_TOKEN, false},
        {"*", ROUTE_TEXT_CORS_ORIGIN, true},
        {"https://*.a.b:8443", ROUTE_TEXT_CORS_ORIGIN, true},
        {"https://a.*.b", ROUTE_TEXT_CORS_ORIGIN, false},
        {"ftp://a", ROUTE_TEXT_CORS_ORIGIN, false},
        {"https://", ROUTE_TEXT_CORS_ORIGIN, false},
        {"http://*", ROUTE_TEXT_CORS_ORIGIN, true},
        {"spiffe://td/ns/a/sa/b", ROUTE_TEXT_SPIFFE, true},
        {"spiffe://td/", ROUTE_TEXT_SPIFFE, false},
        {"spiffe:///x", ROUTE_TEXT_SPIFFE, false},
        {"System", ROUTE_TEXT_WELL_KNOWN_CA, true},
        {"example.com/x", ROUTE_TEXT_WELL_KNOWN_CA, true},
        {"system", ROUTE_TEXT_WELL_KNOWN_CA, false},
        {"/a~1b", ROUTE_TEXT_JSON_POINTER, true},
        {"/a~2", ROUTE_TEXT_JSON_POINTER, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(route_text_has_form(bytes_from_string(cases[i].text), cases[i].form),
                     cases[i].has_form, "\"%s\"", cases[i].text);
    }
}

Test(text, measures_how_far_words_are_apart)
{
    static const struct {
        const char *a;
        const char *b;
        uint32_t distance;
    } cases[] = {
        {"port", "port", 0}, {"port", "prot", 1},      {"Port", "port", 0},
        {"a", "", 1},        {"kitten", "sitting", 3}, {"abcdefgh", "x", 4},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(
            route_text_distance(bytes_from_string(cases[i].a), bytes_from_string(cases[i].b), 3),
            cases[i].distance, "%s %s", cases[i].a, cases[i].b);
    }
}

Test(resource, orders_objects_by_age_then_by_their_full_name)
{
    static const struct {
        struct route_object a;
        struct route_object b;
    } cases[] = {
        {{.created = 1, .namespace = BYTES_LITERAL("z")},
         {.created = 2, .namespace = BYTES_LITERAL("a")}},
        {{.created = 1}, {.created = ROUTE_CREATED_ABSENT}},
        {{.namespace = BYTES_LITERAL("a"), .name = BYTES_LITERAL("z")},
         {.namespace = BYTES_LITERAL("b"), .name = BYTES_LITERAL("a")}},
        {{.namespace = BYTES_LITERAL("a"), .name = BYTES_LITERAL("a")},
         {.namespace = BYTES_LITERAL("a"), .name = BYTES_LITERAL("b")}},
        {{.namespace = BYTES_LITERAL("a-b"), .name = BYTES_LITERAL("x")},
         {.namespace = BYTES_LITERAL("a"), .name = BYTES_LITERAL("x")}},
        {{.namespace = BYTES_LITERAL("a"), .name = BYTES_LITERAL("x")},
         {.namespace = BYTES_LITERAL("ab"), .name = BYTES_LITERAL("a")}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_lt(route_object_compare_age(&cases[i].a, &cases[i].b), 0, "case %zu", i);
        cr_assert_gt(route_object_compare_age(&cases[i].b, &cases[i].a), 0, "case %zu", i);
    }
}

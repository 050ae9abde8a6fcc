/*
 * The tables, kind by kind, each with the checks that relate fields to each other. Bounds and
 * defaults are Gateway API's; where v1 and an alpha version differ there are two tables.
 *
 * AT and LIST_AT are macros although those belong in base/: a row must name its struct and member
 * once, or the tables say everything three times. clang-format would spread each row over six
 * lines.
 */
#include "routes/schema.h"

#include <string.h>

#include "routes/decode.h"
#include "routes/regex.h"

#define AT(struct_, member_)                                                                       \
    .offset = offsetof(struct struct_, member_), .width = sizeof(((struct struct_ *)NULL)->member_)
#define LIST_AT(struct_, member_)                                                                  \
    .offset = offsetof(struct struct_, member_),                                                   \
    .width = sizeof(*((struct struct_ *)NULL)->member_),                                           \
    .count_offset = offsetof(struct struct_, member_##_count)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Not written anywhere (a struct within this one, or left to the check function). */
#define NOWHERE .offset = 0

static const char gateway_group[] = "gateway.networking.k8s.io";

/* Was a field given, and not as null? */
static bool has(const struct route_node *node, const char *name)
{
    return !route_node_is_null(route_node_find(node, name));
}

static bool text_is(struct bytes text, const char *word)
{
    return bytes_equal(text, bytes_from_string(word));
}

/* ---- Words ---- */

static const struct route_word method_words[] = {
    {"GET", 1},     {"HEAD", 1},    {"POST", 1},  {"PUT", 1},   {"DELETE", 1},
    {"CONNECT", 1}, {"OPTIONS", 1}, {"TRACE", 1}, {"PATCH", 1}, {NULL, 0},
};
static const struct route_word cors_method_words[] = {
    {"GET", 1},     {"HEAD", 1},  {"POST", 1},  {"PUT", 1}, {"DELETE", 1}, {"CONNECT", 1},
    {"OPTIONS", 1}, {"TRACE", 1}, {"PATCH", 1}, {"*", 1},   {NULL, 0},
};
static const struct route_word value_match_words[] = {
    {"Exact", ROUTE_MATCH_EXACT}, {"RegularExpression", ROUTE_MATCH_REGEX}, {NULL, 0}};
static const struct route_word path_match_words[] = {{"Exact", ROUTE_MATCH_EXACT},
                                                     {"PathPrefix", ROUTE_MATCH_PREFIX},
                                                     {"RegularExpression", ROUTE_MATCH_REGEX},
                                                     {NULL, 0}};
static const struct route_word http_filter_words[] = {
    {"RequestHeaderModifier", ROUTE_FILTER_REQUEST_HEADER_MODIFIER},
    {"ResponseHeaderModifier", ROUTE_FILTER_RESPONSE_HEADER_MODIFIER},
    {"RequestMirror", ROUTE_FILTER_REQUEST_MIRROR},
    {"RequestRedirect", ROUTE_FILTER_REQUEST_REDIRECT},
    {"URLRewrite", ROUTE_FILTER_URL_REWRITE},
    {"ExtensionRef", ROUTE_FILTER_EXTENSION_REF},
    {"CORS", ROUTE_FILTER_CORS},
    {"ExternalAuth", ROUTE_FILTER_EXTERNAL_AUTH},
    {NULL, 0},
};
static const struct route_word grpc_filter_words[] = {
    {"RequestHeaderModifier", ROUTE_FILTER_REQUEST_HEADER_MODIFIER},
    {"ResponseHeaderModifier", ROUTE_FILTER_RESPONSE_HEADER_MODIFIER},
    {"RequestMirror", ROUTE_FILTER_REQUEST_MIRROR},
    {"ExtensionRef", ROUTE_FILTER_EXTENSION_REF},
    {NULL, 0},
};
static const struct route_word path_modifier_words[] = {
    {"ReplaceFullPath", ROUTE_PATH_REPLACE_FULL},
    {"ReplacePrefixMatch", ROUTE_PATH_REPLACE_PREFIX},
    {NULL, 0},
};
static const struct route_word scheme_words[] = {{"http", 1}, {"https", 1}, {NULL, 0}};
static const struct route_word redirect_status_words[] = {{"301", 301}, {"302", 302}, {"303", 303},
                                                          {"307", 307}, {"308", 308}, {NULL, 0}};
static const struct route_word auth_protocol_words[] = {
    {"HTTP", ROUTE_EXTERNAL_AUTH_HTTP}, {"GRPC", ROUTE_EXTERNAL_AUTH_GRPC}, {NULL, 0}};
static const struct route_word session_words[] = {
    {"Cookie", ROUTE_SESSION_COOKIE}, {"Header", ROUTE_SESSION_HEADER}, {NULL, 0}};
static const struct route_word lifetime_words[] = {
    {"Permanent", true}, {"Session", false}, {NULL, 0}};
static const struct route_word san_words[] = {
    {"Hostname", ROUTE_SAN_HOSTNAME}, {"URI", ROUTE_SAN_URI}, {NULL, 0}};
static const struct route_word transport_words[] = {{"TCP", ROUTE_TRANSPORT_TCP},
                                                    {"UDP", ROUTE_TRANSPORT_UDP},
                                                    {"SCTP", ROUTE_TRANSPORT_UNSUPPORTED},
                                                    {NULL, 0}};
static const struct route_word service_type_words[] = {
    {"ClusterIP", ROUTE_SERVICE_CLUSTER_IP},
    {"NodePort", ROUTE_SERVICE_NODE_PORT},
    {"LoadBalancer", ROUTE_SERVICE_LOAD_BALANCER},
    {"ExternalName", ROUTE_SERVICE_EXTERNAL_NAME},
    {NULL, 0},
};
static const struct route_word address_type_words[] = {{"IPv4", ROUTE_ADDRESS_IPV4},
                                                       {"IPv6", ROUTE_ADDRESS_IPV6},
                                                       {"FQDN", ROUTE_ADDRESS_UNSUPPORTED},
                                                       {NULL, 0}};
static const struct route_word inbound_words[] = {{"Permissive", ROUTE_MESH_PERMISSIVE},
                                                  {"Strict", ROUTE_MESH_STRICT},
                                                  {"Disabled", ROUTE_MESH_DISABLED},
                                                  {NULL, 0}};
static const struct route_word backend_mode_words[] = {
    {"Enabled", ROUTE_MESH_ENABLED}, {"Disabled", ROUTE_MESH_DISABLED}, {NULL, 0}};
static const struct route_word action_words[] = {{"ALLOW", 1}, {NULL, 0}};
static const struct route_word authorization_mode_words[] = {
    {"Enforce", false}, {"Audit", true}, {NULL, 0}};
static const struct route_word source_words[] = {
    {"ServiceAccount", ROUTE_SOURCE_SERVICE_ACCOUNT}, {"SPIFFE", ROUTE_SOURCE_SPIFFE}, {NULL, 0}};
static const struct route_word body_value_words[] = {{"Exact", ROUTE_BODY_EXACT},
                                                     {"RegularExpression", ROUTE_BODY_REGEX},
                                                     {"Present", ROUTE_BODY_PRESENT},
                                                     {NULL, 0}};
static const struct route_word graphql_words[] = {
    {"Query", 1}, {"Mutation", 1}, {"Subscription", 1}, {NULL, 0}};

/* ---- Checks of routes ---- */

/*
 * An expression that does not compile leaves a route's rule out, with a condition. In a policy of
 * ours it is a mistake like any other: what is left out of a policy may be what protects somebody.
 */
static void check_expression(struct route_decoder *decoder, const struct route_node *node,
                             const char *name, bool is_regex, struct bytes pattern)
{
    if (!is_regex || !decoder->schema->is_strict) {
        return;
    }
    struct route_regex *regex = NULL;
    struct route_regex_fault fault;
    struct error error = route_regex_create(pattern, &fault, &regex);
    if (error.code == ERROR_NO_MEMORY) {
        decoder->is_out_of_memory = true;
    } else if (error_is(error)) {
        route_decode_fail(decoder, route_node_find(node, name), "invalid-regex", "%s: %s", name,
                          fault.text);
    }
    route_regex_destroy(regex);
}

static void check_value_match(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    const struct route_value_match *match = object;
    check_expression(decoder, node, "value", match->type == ROUTE_MATCH_REGEX, match->value);
}

/* kind: Service without a group means core here (design section 5), where the default would name
 * Gateway API's group. */
static void check_parent_ref(struct route_decoder *decoder, const struct route_node *node,
                             void *object)
{
    struct route_parent_ref *ref = object;
    if (!has(node, "group") && text_is(ref->kind, "Service")) {
        ref->group = (struct bytes){0};
    }
    if (ref->namespace.data == NULL) {
        ref->namespace = decoder->object->namespace;
    }
}

static void check_backend_ref(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    struct route_backend_ref *ref = object;
    if (ref->namespace.data == NULL) {
        ref->namespace = decoder->object->namespace;
    }
    if (ref->group.size == 0 && text_is(ref->kind, "Service") && ref->port == 0) {
        route_decode_fail(decoder, node, "required", "port is required for a Service");
    }
}

/* Mirrors and external authorisation have the reference alone. */
static void check_plain_ref(struct route_decoder *decoder, const struct route_node *node,
                            void *object)
{
    struct route_backend_ref *ref = object;
    ref->weight = 1;
    check_backend_ref(decoder, node, object);
}

static void check_path_match(struct route_decoder *decoder, const struct route_node *node,
                             void *object)
{
    const struct route_path_match *path = object;
    check_expression(decoder, node, "value", path->type == ROUTE_MATCH_REGEX, path->value);
    if (path->type != ROUTE_MATCH_EXACT && path->type != ROUTE_MATCH_PREFIX) {
        return;
    }
    static const char *const banned[] = {"//", "/./", "/../", "%2f", "%2F", "#"};
    const struct route_node *value = route_node_find(node, "value");
    const struct route_node *at = value == NULL ? node : value;
    if (!bytes_starts_with(path->value, BYTES("/"))) {
        route_decode_fail(decoder, at, "invalid-path", "value must begin with \"/\"");
        return;
    }
    for (size_t i = 0; i < COUNT(banned); i++) {
        if (bytes_find_bytes(path->value, bytes_from_string(banned[i])) != path->value.size) {
            route_decode_fail(decoder, at, "invalid-path", "value must not contain \"%s\"",
                              banned[i]);
            return;
        }
    }
    size_t size = path->value.size;
    if (size >= 2 && memcmp(path->value.data + size - 2, "/.", 2) == 0) {
        route_decode_fail(decoder, at, "invalid-path", "value must not end with \"/.\"");
    } else if (size >= 3 && memcmp(path->value.data + size - 3, "/..", 3) == 0) {
        route_decode_fail(decoder, at, "invalid-path", "value must not end with \"/..\"");
    } else if (!route_text_has_form(path->value, ROUTE_TEXT_PATH)) {
        route_decode_fail(decoder, at, "invalid-path", "value must be %s",
                          route_text_form_name(ROUTE_TEXT_PATH));
    }
}

static void set_default_path(struct route_http_match *match, struct route_position position)
{
    match->path = (struct route_path_match){position, ROUTE_MATCH_PREFIX, BYTES_LITERAL("/")};
}

static void check_http_match(struct route_decoder *decoder, const struct route_node *node,
                             void *object)
{
    (void)decoder;
    struct route_http_match *match = object;
    if (!has(node, "path")) {
        set_default_path(match, match->position);
    }
}

static bool is_grpc_name(struct bytes text, bool with_dots)
{
    if (with_dots && bytes_starts_with(text, BYTES("."))) {
        text = bytes_skip(text, 1);
    }
    bool at_start = true;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = byte_lower(text.data[i]);
        bool is_letter = (byte >= 'a' && byte <= 'z') || byte == '_';
        bool is_digit = byte >= '0' && byte <= '9';
        if (with_dots && byte == '.' && !at_start) {
            at_start = true;
            continue;
        }
        if (!is_letter && (!is_digit || at_start)) {
            return false;
        }
        at_start = false;
    }
    return !at_start;
}

static void check_grpc_method(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    const struct route_grpc_method_match *method = object;
    if (method->service.data == NULL && method->method.data == NULL) {
        route_decode_fail(decoder, node, "required", "service or method is required");
        return;
    }
    if (method->type != ROUTE_MATCH_EXACT) {
        bool is_regex = method->type == ROUTE_MATCH_REGEX;
        check_expression(decoder, node, "service", is_regex && method->service.data != NULL,
                         method->service);
        check_expression(decoder, node, "method", is_regex && method->method.data != NULL,
                         method->method);
        return;
    }
    if (method->service.data != NULL && !is_grpc_name(method->service, true)) {
        route_decode_fail(decoder, route_node_find(node, "service"), "invalid-value",
                          "service must be a name such as \"package.Service\"");
    }
    if (method->method.data != NULL && !is_grpc_name(method->method, false)) {
        route_decode_fail(decoder, route_node_find(node, "method"), "invalid-value",
                          "method must be a name such as \"GetItem\"");
    }
}

static void check_path_modifier(struct route_decoder *decoder, const struct route_node *node,
                                void *object)
{
    const struct route_path_modifier *path = object;

    static const struct {
        const char *name;
        const char *member;
        enum route_path_modifier_type type;
    } members[] = {
        {"ReplaceFullPath", "replaceFullPath", ROUTE_PATH_REPLACE_FULL},
        {"ReplacePrefixMatch", "replacePrefixMatch", ROUTE_PATH_REPLACE_PREFIX},
    };

    for (size_t i = 0; i < COUNT(members); i++) {
        bool is_given = has(node, members[i].member);
        if (is_given && path->type != members[i].type) {
            route_decode_fail(decoder, route_node_find(node, members[i].member), "union",
                              "%s needs type %s", members[i].member, members[i].name);
        } else if (!is_given && path->type == members[i].type) {
            route_decode_fail(decoder, node, "union", "type %s needs %s", members[i].name,
                              members[i].member);
        }
    }
}

static void check_mirror(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route_mirror *mirror = object;
    bool has_percent = has(node, "percent");
    bool has_fraction = has(node, "fraction");
    if (has_percent && has_fraction) {
        route_decode_fail(decoder, route_node_find(node, "fraction"), "union",
                          "percent and fraction exclude each other");
    }
    if (!has_percent && !has_fraction) {
        mirror->numerator = 100;
    }
    if (!has_fraction) {
        mirror->denominator = 100;
    }
    if (has_fraction && mirror->numerator > mirror->denominator) {
        route_decode_fail(decoder, route_node_find(node, "fraction"), "invalid-value",
                          "numerator must not be greater than denominator");
    }
}

static void check_star(struct route_decoder *decoder, const struct route_node *node,
                       const char *name, const struct bytes *items, uint32_t count)
{
    for (uint32_t i = 0; i < count && count > 1; i++) {
        if (text_is(items[i], "*")) {
            route_decode_fail(decoder, route_node_find(node, name), "invalid-value",
                              "%s: \"*\" must stand alone", name);
            return;
        }
    }
}

static void check_cors(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    const struct route_cors *cors = object;
    check_star(decoder, node, "allowOrigins", cors->allow_origins, cors->allow_origins_count);
    check_star(decoder, node, "allowMethods", cors->allow_methods, cors->allow_methods_count);
    check_star(decoder, node, "allowHeaders", cors->allow_headers, cors->allow_headers_count);
}

static void check_external_auth(struct route_decoder *decoder, const struct route_node *node,
                                void *object)
{
    struct route_external_auth *auth = object;

    static const struct {
        const char *name;
        const char *member;
        enum route_external_auth_protocol protocol;
    } members[] = {
        {"HTTP", "http", ROUTE_EXTERNAL_AUTH_HTTP},
        {"GRPC", "grpc", ROUTE_EXTERNAL_AUTH_GRPC},
    };

    for (size_t i = 0; i < COUNT(members); i++) {
        bool is_given = has(node, members[i].member);
        if (is_given && auth->protocol != members[i].protocol) {
            route_decode_fail(decoder, route_node_find(node, members[i].member), "union",
                              "%s needs protocol %s", members[i].member, members[i].name);
        } else if (!is_given && auth->protocol == members[i].protocol) {
            route_decode_fail(decoder, node, "union", "protocol %s needs %s", members[i].name,
                              members[i].member);
        }
    }
    auth->has_forward_body = has(node, "forwardBody");
    if (auth->protocol == ROUTE_EXTERNAL_AUTH_UNSUPPORTED) {
        decoder->unsupported = ROUTE_UNSUPPORTED_SECURITY_FILTER;
    }
}

/* Which member belongs to which type of filter. */
static const struct {
    const char *type;
    const char *member;
    enum route_filter_type value;
} filter_members[] = {
    {"RequestHeaderModifier", "requestHeaderModifier", ROUTE_FILTER_REQUEST_HEADER_MODIFIER},
    {"ResponseHeaderModifier", "responseHeaderModifier", ROUTE_FILTER_RESPONSE_HEADER_MODIFIER},
    {"RequestMirror", "requestMirror", ROUTE_FILTER_REQUEST_MIRROR},
    {"RequestRedirect", "requestRedirect", ROUTE_FILTER_REQUEST_REDIRECT},
    {"URLRewrite", "urlRewrite", ROUTE_FILTER_URL_REWRITE},
    {"ExtensionRef", "extensionRef", ROUTE_FILTER_EXTENSION_REF},
    {"CORS", "cors", ROUTE_FILTER_CORS},
    {"ExternalAuth", "externalAuth", ROUTE_FILTER_EXTERNAL_AUTH},
};

static void check_filter(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    const struct route_filter *filter = object;
    if (filter->type == ROUTE_FILTER_UNSUPPORTED) {
        /* Nobody knows what a filter of a newer API guards: it must not be skipped. */
        decoder->unsupported = ROUTE_UNSUPPORTED_SECURITY_FILTER;
        return;
    }
    for (size_t i = 0; i < COUNT(filter_members); i++) {
        bool is_given = has(node, filter_members[i].member);
        if (is_given && filter->type != filter_members[i].value) {
            route_decode_fail(decoder, route_node_find(node, filter_members[i].member), "union",
                              "%s needs type %s", filter_members[i].member, filter_members[i].type);
        } else if (!is_given && filter->type == filter_members[i].value) {
            route_decode_fail(decoder, node, "union", "type %s needs %s", filter_members[i].type,
                              filter_members[i].member);
        }
    }
}

/* Names or values: the shape of v1.6 (sessionName, cookieConfig) and that of later versions are
 * both read. */
static void check_session(struct route_decoder *decoder, const struct route_node *node,
                          void *object)
{
    struct route_session_persistence *session = object;
    bool is_old = has(node, "sessionName") || has(node, "cookieConfig") || has(node, "idleTimeout");
    if (session->cookie_is_permanent && session->absolute_timeout_ms == ROUTE_DURATION_ABSENT) {
        route_decode_fail(decoder, node, "required",
                          "absoluteTimeout is required for a cookie of lifetimeType Permanent");
    }

    static const struct {
        const char *name;
        const char *member;
        enum route_session_type type;
    } members[] = {
        {"Cookie", "cookie", ROUTE_SESSION_COOKIE},
        {"Header", "header", ROUTE_SESSION_HEADER},
    };

    for (size_t i = 0; i < COUNT(members); i++) {
        bool is_given = has(node, members[i].member);
        if (is_given && session->type != members[i].type) {
            route_decode_fail(decoder, route_node_find(node, members[i].member), "union",
                              "%s needs type %s", members[i].member, members[i].name);
        } else if (!is_given && !is_old && session->type == members[i].type) {
            /* v1.6 took a cookie without configuration, so only the header must be named. */
            if (session->type == ROUTE_SESSION_HEADER) {
                route_decode_fail(decoder, node, "union", "type %s needs %s", members[i].name,
                                  members[i].member);
            }
        }
    }
    if (session->cookie_path.data == NULL) {
        session->cookie_path = BYTES("/");
    }
}

/* How many filters of a type there are. */
static uint32_t count_filters(const struct route_filter *filters, uint32_t count,
                              enum route_filter_type type)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        found += filters[i].type == type;
    }
    return found;
}

/* Repetition and exclusion within one list of filters. */
static void check_filters(struct route_decoder *decoder, const struct route_node *node,
                          const struct route_filter *filters, uint32_t count)
{
    const struct route_node *at = route_node_find(node, "filters");
    for (size_t i = 0; i < COUNT(filter_members); i++) {
        enum route_filter_type type = filter_members[i].value;
        bool is_repeatable = type == ROUTE_FILTER_REQUEST_MIRROR ||
                             type == ROUTE_FILTER_EXTENSION_REF ||
                             type == ROUTE_FILTER_EXTERNAL_AUTH;
        if (!is_repeatable && count_filters(filters, count, type) > 1) {
            route_decode_fail(decoder, at, "repeated-filter", "a %s filter must not be repeated",
                              filter_members[i].type);
        }
    }
    if (count_filters(filters, count, ROUTE_FILTER_REQUEST_REDIRECT) > 0 &&
        count_filters(filters, count, ROUTE_FILTER_URL_REWRITE) > 0) {
        route_decode_fail(decoder, at, "incompatible-filters",
                          "RequestRedirect and URLRewrite exclude each other");
    }
}

static void check_backend_filters(struct route_decoder *decoder, const struct route_node *node,
                                  void *object)
{
    struct route_backend_ref *ref = object;
    check_backend_ref(decoder, node, object);
    check_filters(decoder, node, ref->filters, ref->filters_count);
}

/* Does a filter replace the prefix that the match found? Such a rule needs exactly one match, by
 * PathPrefix. */
static bool replaces_prefix(const struct route_filter *filters, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_path_modifier *path = NULL;
        if (filters[i].redirect != NULL) {
            path = filters[i].redirect->path;
        } else if (filters[i].rewrite != NULL) {
            path = filters[i].rewrite->path;
        }
        if (path != NULL && path->type == ROUTE_PATH_REPLACE_PREFIX) {
            return true;
        }
    }
    return false;
}

static void check_prefix_replacement(struct route_decoder *decoder, const struct route_node *node,
                                     const struct route_rule *rule)
{
    bool replaces = replaces_prefix(rule->filters, rule->filters_count);
    for (uint32_t i = 0; i < rule->backend_refs_count; i++) {
        replaces = replaces || replaces_prefix(rule->backend_refs[i].filters,
                                               rule->backend_refs[i].filters_count);
    }
    if (replaces &&
        (rule->http_matches_count != 1 || rule->http_matches[0].path.type != ROUTE_MATCH_PREFIX)) {
        route_decode_fail(
            decoder, node, "replace-prefix",
            "ReplacePrefixMatch needs exactly one match, with a path of type PathPrefix");
    }
}

/* What every rule needs. */
static void finish_rule(struct route_decoder *decoder, struct route_rule *rule)
{
    rule->unsupported = decoder->unsupported;
    decoder->unsupported = ROUTE_SUPPORTED;
}

static void check_http_rule(struct route_decoder *decoder, const struct route_node *node,
                            void *object)
{
    struct route_rule *rule = object;
    finish_rule(decoder, rule);
    if (rule->http_matches_count == 0) {
        struct route_http_match *match = route_decode_alloc(decoder, 1, sizeof(*match));
        if (match == NULL) {
            return;
        }
        match->position = rule->position;
        set_default_path(match, rule->position);
        rule->http_matches = match;
        rule->http_matches_count = 1;
    }
    check_filters(decoder, node, rule->filters, rule->filters_count);
    check_prefix_replacement(decoder, node, rule);
    if (rule->backend_refs_count > 0 &&
        count_filters(rule->filters, rule->filters_count, ROUTE_FILTER_REQUEST_REDIRECT) > 0) {
        route_decode_fail(decoder, route_node_find(node, "backendRefs"), "redirect-with-backends",
                          "a rule with a RequestRedirect filter must not have backendRefs");
    }
    if (rule->timeout_request_ms > 0 &&
        rule->timeout_backend_request_ms > rule->timeout_request_ms) {
        route_decode_fail(decoder, route_node_find(node, "timeouts"), "invalid-value",
                          "timeouts.backendRequest must not be longer than timeouts.request");
    }
}

static void check_grpc_rule(struct route_decoder *decoder, const struct route_node *node,
                            void *object)
{
    struct route_rule *rule = object;
    finish_rule(decoder, rule);
    rule->timeout_request_ms = ROUTE_DURATION_ABSENT;
    rule->timeout_backend_request_ms = ROUTE_DURATION_ABSENT;
    check_filters(decoder, node, rule->filters, rule->filters_count);
}

static void check_l4_rule(struct route_decoder *decoder, const struct route_node *node,
                          void *object)
{
    (void)node;
    struct route_rule *rule = object;
    finish_rule(decoder, rule);
    rule->timeout_request_ms = ROUTE_DURATION_ABSENT;
    rule->timeout_backend_request_ms = ROUTE_DURATION_ABSENT;
}

static bool same_parent(const struct route_parent_ref *a, const struct route_parent_ref *b)
{
    return bytes_equal(a->group, b->group) && bytes_equal(a->kind, b->kind) &&
           bytes_equal(a->name, b->name) && bytes_equal(a->namespace, b->namespace);
}

static void check_parent_refs(struct route_decoder *decoder, const struct route_node *node,
                              const struct route *route)
{
    const struct route_node *list = route_node_find(node, "parentRefs");
    for (uint32_t i = 0; i < route->parent_refs_count; i++) {
        const struct route_parent_ref *a = &route->parent_refs[i];
        for (uint32_t j = 0; j < i; j++) {
            const struct route_parent_ref *b = &route->parent_refs[j];
            if (!same_parent(a, b)) {
                continue;
            }
            bool a_names = a->section_name.size > 0 || a->port != 0;
            bool b_names = b->section_name.size > 0 || b->port != 0;
            if (a_names != b_names) {
                route_decode_fail(decoder, list, "duplicate-parent",
                                  "parentRefs[%u] and [%u] name the same parent: each needs a "
                                  "sectionName or port",
                                  j, i);
            } else if (bytes_equal(a->section_name, b->section_name) && a->port == b->port) {
                route_decode_fail(decoder, list, "duplicate-parent",
                                  "parentRefs[%u] and [%u] are the same reference", j, i);
            }
        }
    }
}

static void check_rule_names(struct route_decoder *decoder, const struct route_node *node,
                             const struct route *route)
{
    const struct route_node *list = route_node_find(node, "rules");
    for (uint32_t i = 0; i < route->rules_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (route->rules[i].name.data != NULL &&
                bytes_equal(route->rules[i].name, route->rules[j].name)) {
                route_decode_fail(decoder, list, "duplicate-name",
                                  "rules[%u] and [%u] have the same name \"%s\"", j, i,
                                  (const char *)route->rules[i].name.data);
            }
        }
    }
}

enum {
    MATCHES_MAX = 128
};

static void check_route(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route *route = object;
    const struct route_node *hostnames = route_node_find(node, "hostnames");
    route->hostnames_position = route_decode_place(decoder, hostnames == NULL ? node : hostnames);
    check_parent_refs(decoder, node, route);
    check_rule_names(decoder, node, route);
    uint32_t matches = 0;
    for (uint32_t i = 0; i < route->rules_count; i++) {
        matches += route->rules[i].http_matches_count + route->rules[i].grpc_matches_count;
    }
    if (matches > MATCHES_MAX) {
        route_decode_fail(decoder, route_node_find(node, "rules"), "too-many",
                          "all rules together must have at most 128 matches, not %u", matches);
    }
}

/* HTTPRoute's default when rules are omitted: one rule for everything. */
static void check_http_route(struct route_decoder *decoder, const struct route_node *node,
                             void *object)
{
    struct route *route = object;
    if (!has(node, "rules")) {
        struct route_rule *rule = route_decode_alloc(decoder, 1, sizeof(*rule));
        struct route_http_match *match = route_decode_alloc(decoder, 1, sizeof(*match));
        if (rule == NULL || match == NULL) {
            return;
        }
        match->position = route_decode_place(decoder, node);
        set_default_path(match, match->position);
        *rule = (struct route_rule){
            .position = match->position,
            .http_matches = match,
            .http_matches_count = 1,
            .timeout_request_ms = ROUTE_DURATION_ABSENT,
            .timeout_backend_request_ms = ROUTE_DURATION_ABSENT,
        };
        route->rules = rule;
        route->rules_count = 1;
    }
    check_route(decoder, node, object);
}

/* ---- Tables of routes ---- */

/* clang-format off */

/* Fields that several kinds of reference have. */
#define FIELD_GROUP(struct_, member_) "group", ROUTE_FIELD_STRING, AT(struct_, member_), .max = 253, .form = ROUTE_TEXT_GROUP
#define FIELD_KIND(struct_, member_) "kind", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 63, .form = ROUTE_TEXT_KIND
#define FIELD_NAME(struct_, member_) "name", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 253
#define FIELD_NAMESPACE(struct_, member_) "namespace", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 63, .form = ROUTE_TEXT_LABEL
#define FIELD_SECTION(struct_, member_) "sectionName", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 253, .form = ROUTE_TEXT_SUBDOMAIN
#define FIELD_PORT(struct_, member_) "port", ROUTE_FIELD_INT, AT(struct_, member_), .min = 1, .max = 65535

static const struct route_field parent_ref_fields[] = {
    {FIELD_GROUP(route_parent_ref, group), .default_text = gateway_group},
    {FIELD_KIND(route_parent_ref, kind), .default_text = "Gateway"},
    {FIELD_NAMESPACE(route_parent_ref, namespace)},
    {FIELD_NAME(route_parent_ref, name), .is_required = true},
    {FIELD_SECTION(route_parent_ref, section_name)},
    {FIELD_PORT(route_parent_ref, port)},
};
static const struct route_type parent_ref_type = {"parentRef", sizeof(struct route_parent_ref), true, false, parent_ref_fields, COUNT(parent_ref_fields), check_parent_ref};

/* Headers and query parameters. */
static const struct route_field header_match_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_value_match, type), .words = value_match_words, .default_text = "Exact"},
    {"name", ROUTE_FIELD_STRING, AT(route_value_match, name), .min = 1, .max = 256, .form = ROUTE_TEXT_TOKEN, .is_required = true},
    {"value", ROUTE_FIELD_STRING, AT(route_value_match, value), .min = 1, .max = 4096, .form = ROUTE_TEXT_FIELD_VALUE, .is_required = true},
};
static const struct route_type header_match_type = {"header match", sizeof(struct route_value_match), true, false, header_match_fields, COUNT(header_match_fields), check_value_match};

static const struct route_field query_match_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_value_match, type), .words = value_match_words, .default_text = "Exact"},
    {"name", ROUTE_FIELD_STRING, AT(route_value_match, name), .min = 1, .max = 256, .form = ROUTE_TEXT_TOKEN, .is_required = true},
    {"value", ROUTE_FIELD_STRING, AT(route_value_match, value), .min = 1, .max = 1024, .is_required = true},
};
static const struct route_type query_match_type = {"query parameter match", sizeof(struct route_value_match), true, false, query_match_fields, COUNT(query_match_fields), check_value_match};

static const struct route_field path_match_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_path_match, type), .words = path_match_words, .default_text = "PathPrefix"},
    {"value", ROUTE_FIELD_STRING, AT(route_path_match, value), .max = 1024, .default_text = "/"},
};
static const struct route_type path_match_type = {"path match", sizeof(struct route_path_match), true, false, path_match_fields, COUNT(path_match_fields), check_path_match};

static const struct route_field http_match_fields[] = {
    {"path", ROUTE_FIELD_INLINE, AT(route_http_match, path), .of = &path_match_type},
    {"headers", ROUTE_FIELD_LIST, LIST_AT(route_http_match, headers), .max = 16, .of = &header_match_type, .key = "name"},
    {"queryParams", ROUTE_FIELD_LIST, LIST_AT(route_http_match, query_params), .max = 16, .of = &query_match_type, .key = "name"},
    {"method", ROUTE_FIELD_STRING, AT(route_http_match, method), .words = method_words},
};
static const struct route_type http_match_type = {"match", sizeof(struct route_http_match), true, false, http_match_fields, COUNT(http_match_fields), check_http_match};

static const struct route_field grpc_method_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_grpc_method_match, type), .words = value_match_words, .default_text = "Exact"},
    {"service", ROUTE_FIELD_STRING, AT(route_grpc_method_match, service), .max = 1024},
    {"method", ROUTE_FIELD_STRING, AT(route_grpc_method_match, method), .max = 1024},
};
static const struct route_type grpc_method_type = {"method match", sizeof(struct route_grpc_method_match), true, false, grpc_method_fields, COUNT(grpc_method_fields), check_grpc_method};

static const struct route_field grpc_match_fields[] = {
    {"method", ROUTE_FIELD_POINTER, AT(route_grpc_match, method), .of = &grpc_method_type},
    {"headers", ROUTE_FIELD_LIST, LIST_AT(route_grpc_match, headers), .max = 16, .of = &header_match_type, .key = "name"},
};
static const struct route_type grpc_match_type = {"match", sizeof(struct route_grpc_match), true, false, grpc_match_fields, COUNT(grpc_match_fields), NULL};

/* Filters. */
static const struct route_field header_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_header, name), .min = 1, .max = 256, .form = ROUTE_TEXT_TOKEN, .is_required = true},
    {"value", ROUTE_FIELD_STRING, AT(route_header, value), .min = 1, .max = 4096, .form = ROUTE_TEXT_FIELD_VALUE, .is_required = true},
};
static const struct route_type header_type = {"header", sizeof(struct route_header), true, false, header_fields, COUNT(header_fields), NULL};

static const struct route_field header_modifier_fields[] = {
    {"set", ROUTE_FIELD_LIST, LIST_AT(route_header_modifier, set), .max = 16, .of = &header_type, .key = "name"},
    {"add", ROUTE_FIELD_LIST, LIST_AT(route_header_modifier, add), .max = 16, .of = &header_type, .key = "name"},
    {"remove", ROUTE_FIELD_STRINGS, LIST_AT(route_header_modifier, remove), .max = 16, .is_set = true},
};
static const struct route_type header_modifier_type = {"header modifier", sizeof(struct route_header_modifier), false, false, header_modifier_fields, COUNT(header_modifier_fields), NULL};

static const struct route_field path_modifier_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_path_modifier, type), .words = path_modifier_words, .is_required = true},
    {"replaceFullPath", ROUTE_FIELD_STRING, AT(route_path_modifier, replace_full_path), .max = 1024},
    {"replacePrefixMatch", ROUTE_FIELD_STRING, AT(route_path_modifier, replace_prefix_match), .max = 1024},
};
static const struct route_type path_modifier_type = {"path modifier", sizeof(struct route_path_modifier), true, false, path_modifier_fields, COUNT(path_modifier_fields), check_path_modifier};

static const struct route_field redirect_fields[] = {
    {"scheme", ROUTE_FIELD_STRING, AT(route_redirect, scheme), .words = scheme_words},
    {"hostname", ROUTE_FIELD_STRING, AT(route_redirect, hostname), .min = 1, .max = 253, .form = ROUTE_TEXT_PRECISE_HOSTNAME},
    {"path", ROUTE_FIELD_POINTER, AT(route_redirect, path), .of = &path_modifier_type},
    {FIELD_PORT(route_redirect, port)},
    {"statusCode", ROUTE_FIELD_INT, AT(route_redirect, status_code), .words = redirect_status_words, .default_text = "302"},
};
static const struct route_type redirect_type = {"redirect", sizeof(struct route_redirect), false, false, redirect_fields, COUNT(redirect_fields), NULL};

static const struct route_field rewrite_fields[] = {
    {"hostname", ROUTE_FIELD_STRING, AT(route_rewrite, hostname), .min = 1, .max = 253, .form = ROUTE_TEXT_PRECISE_HOSTNAME},
    {"path", ROUTE_FIELD_POINTER, AT(route_rewrite, path), .of = &path_modifier_type},
};
static const struct route_type rewrite_type = {"rewrite", sizeof(struct route_rewrite), false, false, rewrite_fields, COUNT(rewrite_fields), NULL};

#define FIELDS_OF_BACKEND_REF \
    {FIELD_GROUP(route_backend_ref, group), .default_text = ""}, \
    {FIELD_KIND(route_backend_ref, kind), .default_text = "Service"}, \
    {FIELD_NAME(route_backend_ref, name), .is_required = true}, \
    {FIELD_NAMESPACE(route_backend_ref, namespace)}, \
    {FIELD_PORT(route_backend_ref, port)}

static const struct route_field plain_ref_fields[] = {FIELDS_OF_BACKEND_REF};
static const struct route_type plain_ref_type = {"backendRef", sizeof(struct route_backend_ref), true, false, plain_ref_fields, COUNT(plain_ref_fields), check_plain_ref};

static const struct route_field fraction_fields[] = {
    {"numerator", ROUTE_FIELD_INT, AT(route_mirror, numerator), .max = INT32_MAX, .is_required = true},
    {"denominator", ROUTE_FIELD_INT, AT(route_mirror, denominator), .min = 1, .max = INT32_MAX, .default_text = "100"},
};
static const struct route_type fraction_type = {"fraction", sizeof(struct route_mirror), false, false, fraction_fields, COUNT(fraction_fields), NULL};

static const struct route_field mirror_fields[] = {
    {"backendRef", ROUTE_FIELD_INLINE, AT(route_mirror, backend), .of = &plain_ref_type, .is_required = true},
    {"percent", ROUTE_FIELD_INT, AT(route_mirror, numerator), .max = 100},
    {"fraction", ROUTE_FIELD_INLINE, NOWHERE, .of = &fraction_type},
};
static const struct route_type mirror_type = {"mirror", sizeof(struct route_mirror), false, false, mirror_fields, COUNT(mirror_fields), check_mirror};

static const struct route_field cors_fields[] = {
    {"allowOrigins", ROUTE_FIELD_STRINGS, LIST_AT(route_cors, allow_origins), .max = 64, .item_min = 1, .item_max = 253, .form = ROUTE_TEXT_CORS_ORIGIN, .is_set = true},
    {"allowCredentials", ROUTE_FIELD_BOOL, AT(route_cors, allow_credentials)},
    {"allowMethods", ROUTE_FIELD_STRINGS, LIST_AT(route_cors, allow_methods), .max = 9, .words = cors_method_words, .is_set = true},
    {"allowHeaders", ROUTE_FIELD_STRINGS, LIST_AT(route_cors, allow_headers), .max = 64, .item_min = 1, .item_max = 256, .form = ROUTE_TEXT_TOKEN, .is_set = true},
    {"exposeHeaders", ROUTE_FIELD_STRINGS, LIST_AT(route_cors, expose_headers), .max = 64, .item_min = 1, .item_max = 256, .form = ROUTE_TEXT_TOKEN, .is_set = true},
    {"maxAge", ROUTE_FIELD_INT, AT(route_cors, max_age_s), .min = 1, .max = INT32_MAX, .default_text = "5"},
};
static const struct route_type cors_type = {"cors", sizeof(struct route_cors), false, false, cors_fields, COUNT(cors_fields), check_cors};

static const struct route_field auth_grpc_fields[] = {
    {"allowedHeaders", ROUTE_FIELD_STRINGS, LIST_AT(route_external_auth, allowed_headers), .max = 64, .is_set = true},
};
static const struct route_type auth_grpc_type = {"grpc", sizeof(struct route_external_auth), false, false, auth_grpc_fields, COUNT(auth_grpc_fields), NULL};
static const struct route_field auth_http_fields[] = {
    {"path", ROUTE_FIELD_STRING, AT(route_external_auth, http_path), .max = 1024, .form = ROUTE_TEXT_PATH},
    {"allowedHeaders", ROUTE_FIELD_STRINGS, LIST_AT(route_external_auth, allowed_headers), .max = 64, .is_set = true},
    {"allowedResponseHeaders", ROUTE_FIELD_STRINGS, LIST_AT(route_external_auth, allowed_response_headers), .max = 64, .is_set = true},
};
static const struct route_type auth_http_type = {"http", sizeof(struct route_external_auth), false, false, auth_http_fields, COUNT(auth_http_fields), NULL};
static const struct route_field auth_body_fields[] = {
    {"maxSize", ROUTE_FIELD_INT, AT(route_external_auth, forward_body_bytes_max), .max = INT32_MAX},
};
static const struct route_type auth_body_type = {"forwardBody", sizeof(struct route_external_auth), false, false, auth_body_fields, COUNT(auth_body_fields), NULL};
static const struct route_field external_auth_fields[] = {
    {"protocol", ROUTE_FIELD_ENUM, AT(route_external_auth, protocol), .words = auth_protocol_words, .is_required = true},
    {"backendRef", ROUTE_FIELD_INLINE, AT(route_external_auth, backend), .of = &plain_ref_type, .is_required = true},
    {"grpc", ROUTE_FIELD_INLINE, NOWHERE, .of = &auth_grpc_type},
    {"http", ROUTE_FIELD_INLINE, NOWHERE, .of = &auth_http_type},
    {"forwardBody", ROUTE_FIELD_INLINE, NOWHERE, .of = &auth_body_type},
};
static const struct route_type external_auth_type = {"externalAuth", sizeof(struct route_external_auth), false, false, external_auth_fields, COUNT(external_auth_fields), check_external_auth};

static const struct route_field extension_ref_fields[] = {
    {FIELD_GROUP(route_extension_ref, group), .is_required = true},
    {FIELD_KIND(route_extension_ref, kind), .is_required = true},
    {FIELD_NAME(route_extension_ref, name), .is_required = true},
};
static const struct route_type extension_ref_type = {"extensionRef", sizeof(struct route_extension_ref), false, false, extension_ref_fields, COUNT(extension_ref_fields), NULL};

#define FIELDS_OF_EVERY_FILTER \
    {"requestHeaderModifier", ROUTE_FIELD_POINTER, AT(route_filter, header_modifier), .of = &header_modifier_type}, \
    {"responseHeaderModifier", ROUTE_FIELD_POINTER, AT(route_filter, header_modifier), .of = &header_modifier_type}, \
    {"requestMirror", ROUTE_FIELD_POINTER, AT(route_filter, mirror), .of = &mirror_type}, \
    {"extensionRef", ROUTE_FIELD_POINTER, AT(route_filter, extension_ref), .of = &extension_ref_type}

static const struct route_field http_filter_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_filter, type), .words = http_filter_words, .is_required = true},
    FIELDS_OF_EVERY_FILTER,
    {"requestRedirect", ROUTE_FIELD_POINTER, AT(route_filter, redirect), .of = &redirect_type},
    {"urlRewrite", ROUTE_FIELD_POINTER, AT(route_filter, rewrite), .of = &rewrite_type},
    {"cors", ROUTE_FIELD_POINTER, AT(route_filter, cors), .of = &cors_type},
    {"externalAuth", ROUTE_FIELD_POINTER, AT(route_filter, external_auth), .of = &external_auth_type},
};
static const struct route_type http_filter_type = {"filter", sizeof(struct route_filter), true, false, http_filter_fields, COUNT(http_filter_fields), check_filter};

static const struct route_field grpc_filter_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_filter, type), .words = grpc_filter_words, .is_required = true},
    FIELDS_OF_EVERY_FILTER,
};
static const struct route_type grpc_filter_type = {"filter", sizeof(struct route_filter), true, false, grpc_filter_fields, COUNT(grpc_filter_fields), check_filter};

/* Backends. */
#define FIELD_WEIGHT {"weight", ROUTE_FIELD_INT, AT(route_backend_ref, weight), .max = 1000000, .default_text = "1"}
static const struct route_field http_backend_fields[] = {
    FIELDS_OF_BACKEND_REF, FIELD_WEIGHT,
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_backend_ref, filters), .max = 16, .of = &http_filter_type},
};
static const struct route_type http_backend_type = {"backendRef", sizeof(struct route_backend_ref), true, false, http_backend_fields, COUNT(http_backend_fields), check_backend_filters};
static const struct route_field grpc_backend_fields[] = {
    FIELDS_OF_BACKEND_REF, FIELD_WEIGHT,
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_backend_ref, filters), .max = 16, .of = &grpc_filter_type},
};
static const struct route_type grpc_backend_type = {"backendRef", sizeof(struct route_backend_ref), true, false, grpc_backend_fields, COUNT(grpc_backend_fields), check_backend_filters};
static const struct route_field l4_backend_fields[] = {FIELDS_OF_BACKEND_REF, FIELD_WEIGHT};
static const struct route_type l4_backend_type = {"backendRef", sizeof(struct route_backend_ref), true, false, l4_backend_fields, COUNT(l4_backend_fields), check_backend_ref};

/* Rules. */
static const struct route_field session_cookie_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_session_persistence, name), .min = 1, .max = 256, .form = ROUTE_TEXT_TOKEN},
    {"path", ROUTE_FIELD_STRING, AT(route_session_persistence, cookie_path), .max = 1024, .default_text = "/"},
    {"lifetimeType", ROUTE_FIELD_ENUM, AT(route_session_persistence, cookie_is_permanent), .words = lifetime_words, .default_text = "Session"},
};
static const struct route_type session_cookie_type = {"cookie", sizeof(struct route_session_persistence), false, false, session_cookie_fields, COUNT(session_cookie_fields), NULL};
static const struct route_field session_header_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_session_persistence, name), .min = 1, .max = 256, .form = ROUTE_TEXT_TOKEN, .is_required = true},
};
static const struct route_type session_header_type = {"header", sizeof(struct route_session_persistence), false, false, session_header_fields, COUNT(session_header_fields), NULL};
static const struct route_field session_fields[] = {
    {"absoluteTimeout", ROUTE_FIELD_DURATION, AT(route_session_persistence, absolute_timeout_ms)},
    {"type", ROUTE_FIELD_ENUM, AT(route_session_persistence, type), .words = session_words, .default_text = "Cookie"},
    {"cookie", ROUTE_FIELD_INLINE, NOWHERE, .of = &session_cookie_type},
    {"header", ROUTE_FIELD_INLINE, NOWHERE, .of = &session_header_type},
    {"sessionName", ROUTE_FIELD_STRING, AT(route_session_persistence, name), .max = 128},
    {"cookieConfig", ROUTE_FIELD_INLINE, NOWHERE, .of = &session_cookie_type},
    {"idleTimeout", ROUTE_FIELD_IGNORED, NOWHERE},
};
static const struct route_type session_type = {"sessionPersistence", sizeof(struct route_session_persistence), true, false, session_fields, COUNT(session_fields), check_session};

static const struct route_field timeout_fields[] = {
    {"request", ROUTE_FIELD_DURATION, AT(route_rule, timeout_request_ms)},
    {"backendRequest", ROUTE_FIELD_DURATION, AT(route_rule, timeout_backend_request_ms)},
};
static const struct route_type timeout_type = {"timeouts", sizeof(struct route_rule), false, false, timeout_fields, COUNT(timeout_fields), NULL};

static const struct route_field retry_fields[] = {
    {"codes", ROUTE_FIELD_INTS, LIST_AT(route_retry, codes), .item_min = 400, .item_max = 599, .is_set = true},
    {"attempts", ROUTE_FIELD_INT, AT(route_retry, attempts), .min = 1, .max = INT32_MAX},
    {"backoff", ROUTE_FIELD_DURATION, AT(route_retry, backoff_ms)},
};
static const struct route_type retry_type = {"retry", sizeof(struct route_retry), true, false, retry_fields, COUNT(retry_fields), NULL};

#define FIELD_RULE_NAME {"name", ROUTE_FIELD_STRING, AT(route_rule, name), .min = 1, .max = 253, .form = ROUTE_TEXT_SUBDOMAIN}
static const struct route_field http_rule_fields[] = {
    FIELD_RULE_NAME,
    {"matches", ROUTE_FIELD_LIST, LIST_AT(route_rule, http_matches), .max = 64, .of = &http_match_type},
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_rule, filters), .max = 16, .of = &http_filter_type},
    {"backendRefs", ROUTE_FIELD_LIST, LIST_AT(route_rule, backend_refs), .max = 16, .of = &http_backend_type},
    {"timeouts", ROUTE_FIELD_INLINE, NOWHERE, .of = &timeout_type},
    {"retry", ROUTE_FIELD_POINTER, AT(route_rule, retry), .of = &retry_type},
    {"sessionPersistence", ROUTE_FIELD_POINTER, AT(route_rule, session_persistence), .of = &session_type},
};
static const struct route_type http_rule_type = {"rule", sizeof(struct route_rule), true, false, http_rule_fields, COUNT(http_rule_fields), check_http_rule};

static const struct route_field grpc_rule_fields[] = {
    FIELD_RULE_NAME,
    {"matches", ROUTE_FIELD_LIST, LIST_AT(route_rule, grpc_matches), .max = 64, .of = &grpc_match_type},
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_rule, filters), .max = 16, .of = &grpc_filter_type},
    {"backendRefs", ROUTE_FIELD_LIST, LIST_AT(route_rule, backend_refs), .max = 16, .of = &grpc_backend_type},
    {"sessionPersistence", ROUTE_FIELD_POINTER, AT(route_rule, session_persistence), .of = &session_type},
};
static const struct route_type grpc_rule_type = {"rule", sizeof(struct route_rule), true, false, grpc_rule_fields, COUNT(grpc_rule_fields), check_grpc_rule};

static const struct route_field l4_rule_fields[] = {
    FIELD_RULE_NAME,
    {"backendRefs", ROUTE_FIELD_LIST, LIST_AT(route_rule, backend_refs), .min = 1, .max = 16, .of = &l4_backend_type, .is_required = true},
};
static const struct route_type l4_rule_type = {"rule", sizeof(struct route_rule), true, false, l4_rule_fields, COUNT(l4_rule_fields), check_l4_rule};

/* Specs. */
#define FIELD_PARENT_REFS {"parentRefs", ROUTE_FIELD_LIST, LIST_AT(route, parent_refs), .max = 32, .of = &parent_ref_type}
#define FIELD_DEFAULT_GATEWAYS {"useDefaultGateways", ROUTE_FIELD_IGNORED, NOWHERE}
#define FIELD_HOSTNAMES(min_, max_, required_) {"hostnames", ROUTE_FIELD_STRINGS, LIST_AT(route, hostnames), .min = (min_), .max = (max_), .item_min = 1, .item_max = 253, .form = ROUTE_TEXT_HOSTNAME, .is_required = (required_)}

static const struct route_field http_spec_fields[] = {
    FIELD_PARENT_REFS, FIELD_DEFAULT_GATEWAYS, FIELD_HOSTNAMES(0, 16, false),
    {"rules", ROUTE_FIELD_LIST, LIST_AT(route, rules), .min = 1, .max = 16, .of = &http_rule_type},
};
static const struct route_field grpc_spec_fields[] = {
    FIELD_PARENT_REFS, FIELD_DEFAULT_GATEWAYS, FIELD_HOSTNAMES(0, 16, false),
    {"rules", ROUTE_FIELD_LIST, LIST_AT(route, rules), .max = 16, .of = &grpc_rule_type},
};
static const struct route_field tls_spec_fields[] = {
    FIELD_PARENT_REFS, FIELD_DEFAULT_GATEWAYS, FIELD_HOSTNAMES(1, 1024, true),
    {"rules", ROUTE_FIELD_LIST, LIST_AT(route, rules), .min = 1, .max = 1, .of = &l4_rule_type, .is_required = true},
};
static const struct route_field tls_alpha_spec_fields[] = {
    FIELD_PARENT_REFS, FIELD_DEFAULT_GATEWAYS, FIELD_HOSTNAMES(0, 1024, false),
    {"rules", ROUTE_FIELD_LIST, LIST_AT(route, rules), .min = 1, .max = 16, .of = &l4_rule_type, .is_required = true},
};
static const struct route_field l4_spec_fields[] = {
    FIELD_PARENT_REFS, FIELD_DEFAULT_GATEWAYS,
    {"rules", ROUTE_FIELD_LIST, LIST_AT(route, rules), .min = 1, .max = 1, .of = &l4_rule_type, .is_required = true},
};
static const struct route_field l4_alpha_spec_fields[] = {
    FIELD_PARENT_REFS, FIELD_DEFAULT_GATEWAYS,
    {"rules", ROUTE_FIELD_LIST, LIST_AT(route, rules), .min = 1, .max = 16, .of = &l4_rule_type, .is_required = true},
};

/* A kind: what stands beside the spec is the same for all of them. */
#define FIELDS_OF_EVERY_OBJECT \
    {"apiVersion", ROUTE_FIELD_CHECKED, NOWHERE}, \
    {"kind", ROUTE_FIELD_CHECKED, NOWHERE}, \
    {"metadata", ROUTE_FIELD_CHECKED, NOWHERE}
#define KIND_WITH_SPEC(name_, struct_, check_) \
    static const struct route_type name_##_spec_type = {"spec", sizeof(struct struct_), false, false, name_##_spec_fields, COUNT(name_##_spec_fields), check_}; \
    static const struct route_field name_##_fields[] = { \
        FIELDS_OF_EVERY_OBJECT, \
        {"spec", ROUTE_FIELD_INLINE, NOWHERE, .of = &name_##_spec_type, .is_required = true}, \
        {"status", ROUTE_FIELD_IGNORED, NOWHERE}, \
    }; \
    static const struct route_type name_##_type = {#name_, sizeof(struct struct_), false, false, name_##_fields, COUNT(name_##_fields), NULL}

KIND_WITH_SPEC(http, route, check_http_route);
KIND_WITH_SPEC(grpc, route, check_route);
KIND_WITH_SPEC(tls, route, check_route);
KIND_WITH_SPEC(tls_alpha, route, check_route);
KIND_WITH_SPEC(l4, route, check_route);
KIND_WITH_SPEC(l4_alpha, route, check_route);

/* clang-format on */

/* ---- Policies of Gateway API ---- */

static bool same_target(const struct route_target_ref *a, const struct route_target_ref *b)
{
    return bytes_equal(a->group, b->group) && bytes_equal(a->kind, b->kind) &&
           bytes_equal(a->name, b->name);
}

static void check_backend_tls(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    const struct route_backend_tls_policy *policy = object;
    const struct route_node *list = route_node_find(node, "targetRefs");
    for (uint32_t i = 0; i < policy->target_refs_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            const struct route_target_ref *a = &policy->target_refs[i];
            const struct route_target_ref *b = &policy->target_refs[j];
            if (same_target(a, b) && (bytes_equal(a->section_name, b->section_name) ||
                                      (a->section_name.size == 0) != (b->section_name.size == 0))) {
                route_decode_fail(
                    decoder, list, "duplicate-target",
                    "targetRefs[%u] and [%u] name the same target: each needs its own "
                    "sectionName",
                    j, i);
            }
        }
    }
    const struct route_node *validation = route_node_find(node, "validation");
    if (validation == NULL) {
        return; /* said already */
    }
    bool has_well_known = policy->well_known_ca.size > 0;
    if (policy->ca_refs_count > 0 && has_well_known) {
        route_decode_fail(decoder, validation, "union",
                          "caCertificateRefs and wellKnownCACertificates exclude each other");
    } else if (policy->ca_refs_count == 0 && !has_well_known) {
        route_decode_fail(decoder, validation, "required",
                          "caCertificateRefs or wellKnownCACertificates is required");
    }
}

static void check_ca_ref(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    (void)node;
    struct route_ca_ref *ref = object;
    if (ref->namespace.data == NULL) {
        ref->namespace = decoder->object->namespace;
    }
}

static void check_san(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    const struct route_san *san = object;

    static const struct {
        const char *name;
        const char *member;
        enum route_san_type type;
    } members[] = {{"Hostname", "hostname", ROUTE_SAN_HOSTNAME}, {"URI", "uri", ROUTE_SAN_URI}};

    for (size_t i = 0; i < COUNT(members); i++) {
        bool is_given = has(node, members[i].member);
        if (is_given && san->type != members[i].type) {
            route_decode_fail(decoder, route_node_find(node, members[i].member), "union",
                              "%s needs type %s", members[i].member, members[i].name);
        } else if (!is_given && san->type == members[i].type) {
            route_decode_fail(decoder, node, "union", "type %s needs %s", members[i].name,
                              members[i].member);
        }
    }
}

enum {
    BUDGET_INTERVAL_MS_MAX = 3600000,
    BUDGET_INTERVAL_MS_MIN = 1000
};

static void check_traffic_policy(struct route_decoder *decoder, const struct route_node *node,
                                 void *object)
{
    struct route_traffic_policy *policy = object;
    const struct route_node *constraint = route_node_find(node, "retryConstraint");
    policy->has_retry_constraint = !route_node_is_null(constraint);
    const struct route_node *budget = route_node_find(constraint, "budget");
    const struct route_node *rate = route_node_find(constraint, "minRetryRate");
    if (route_node_is_null(budget)) {
        policy->budget_percent = 20;
        policy->budget_interval_ms = 10000;
    }
    if (route_node_is_null(rate)) {
        policy->min_retries = 10;
        policy->min_retries_interval_ms = 1000;
    }
    if (policy->budget_interval_ms < BUDGET_INTERVAL_MS_MIN ||
        policy->budget_interval_ms > BUDGET_INTERVAL_MS_MAX) {
        route_decode_fail(decoder, budget, "out-of-range",
                          "retryConstraint.budget.interval must be 1s to 1h");
    }
    if (policy->min_retries_interval_ms == 0 ||
        policy->min_retries_interval_ms > BUDGET_INTERVAL_MS_MAX) {
        route_decode_fail(
            decoder, rate, "out-of-range",
            "retryConstraint.minRetryRate.interval must be more than 0s and at most 1h");
    }
}

/* clang-format off */

static const struct route_field grant_from_fields[] = {
    {FIELD_GROUP(route_grant_from, group), .is_required = true},
    {FIELD_KIND(route_grant_from, kind), .is_required = true},
    {FIELD_NAMESPACE(route_grant_from, namespace), .is_required = true},
};
static const struct route_type grant_from_type = {"from", sizeof(struct route_grant_from), false, false, grant_from_fields, COUNT(grant_from_fields), NULL};
static const struct route_field grant_to_fields[] = {
    {FIELD_GROUP(route_grant_to, group), .is_required = true},
    {FIELD_KIND(route_grant_to, kind), .is_required = true},
    {FIELD_NAME(route_grant_to, name)},
};
static const struct route_type grant_to_type = {"to", sizeof(struct route_grant_to), false, false, grant_to_fields, COUNT(grant_to_fields), NULL};
static const struct route_field grant_spec_fields[] = {
    {"from", ROUTE_FIELD_LIST, LIST_AT(route_reference_grant, from), .min = 1, .max = 16, .of = &grant_from_type, .is_required = true},
    {"to", ROUTE_FIELD_LIST, LIST_AT(route_reference_grant, to), .min = 1, .max = 16, .of = &grant_to_type, .is_required = true},
};
KIND_WITH_SPEC(grant, route_reference_grant, NULL);

static const struct route_field tls_target_fields[] = {
    {FIELD_GROUP(route_target_ref, group), .is_required = true},
    {FIELD_KIND(route_target_ref, kind), .is_required = true},
    {FIELD_NAME(route_target_ref, name), .is_required = true},
    {FIELD_SECTION(route_target_ref, section_name)},
};
static const struct route_type tls_target_type = {"targetRef", sizeof(struct route_target_ref), true, false, tls_target_fields, COUNT(tls_target_fields), NULL};
static const struct route_field ca_ref_fields[] = {
    {FIELD_GROUP(route_ca_ref, group), .is_required = true},
    {FIELD_KIND(route_ca_ref, kind), .is_required = true},
    {FIELD_NAME(route_ca_ref, name), .is_required = true},
};
static const struct route_type ca_ref_type = {"caCertificateRef", sizeof(struct route_ca_ref), true, false, ca_ref_fields, COUNT(ca_ref_fields), check_ca_ref};
static const struct route_field san_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_san, type), .words = san_words, .is_required = true},
    {"hostname", ROUTE_FIELD_STRING, AT(route_san, value), .min = 1, .max = 253, .form = ROUTE_TEXT_HOSTNAME},
    {"uri", ROUTE_FIELD_STRING, AT(route_san, value), .min = 1, .max = 253, .form = ROUTE_TEXT_URI},
};
static const struct route_type san_type = {"subjectAltName", sizeof(struct route_san), true, false, san_fields, COUNT(san_fields), check_san};
static const struct route_field validation_fields[] = {
    {"caCertificateRefs", ROUTE_FIELD_LIST, LIST_AT(route_backend_tls_policy, ca_refs), .max = 8, .of = &ca_ref_type},
    {"wellKnownCACertificates", ROUTE_FIELD_STRING, AT(route_backend_tls_policy, well_known_ca), .min = 1, .max = 253, .form = ROUTE_TEXT_WELL_KNOWN_CA},
    {"hostname", ROUTE_FIELD_STRING, AT(route_backend_tls_policy, hostname), .min = 1, .max = 253, .form = ROUTE_TEXT_PRECISE_HOSTNAME, .is_required = true},
    {"subjectAltNames", ROUTE_FIELD_LIST, LIST_AT(route_backend_tls_policy, sans), .max = 5, .of = &san_type},
};
static const struct route_type validation_type = {"validation", sizeof(struct route_backend_tls_policy), false, false, validation_fields, COUNT(validation_fields), NULL};
static const struct route_field backend_tls_spec_fields[] = {
    {"targetRefs", ROUTE_FIELD_LIST, LIST_AT(route_backend_tls_policy, target_refs), .min = 1, .max = 16, .of = &tls_target_type, .is_required = true},
    {"validation", ROUTE_FIELD_INLINE, NOWHERE, .of = &validation_type, .is_required = true},
    {"options", ROUTE_FIELD_IGNORED, NOWHERE},
};
KIND_WITH_SPEC(backend_tls, route_backend_tls_policy, check_backend_tls);

static const struct route_field traffic_target_fields[] = {
    {FIELD_GROUP(route_target_ref, group), .is_required = true},
    {FIELD_KIND(route_target_ref, kind), .is_required = true},
    {FIELD_NAME(route_target_ref, name), .is_required = true},
};
static const struct route_type traffic_target_type = {"targetRef", sizeof(struct route_target_ref), true, false, traffic_target_fields, COUNT(traffic_target_fields), NULL};
static const struct route_field budget_fields[] = {
    {"percent", ROUTE_FIELD_INT, AT(route_traffic_policy, budget_percent), .max = 100, .default_text = "20"},
    {"interval", ROUTE_FIELD_DURATION, AT(route_traffic_policy, budget_interval_ms), .default_text = "10s"},
};
static const struct route_type budget_type = {"budget", sizeof(struct route_traffic_policy), false, false, budget_fields, COUNT(budget_fields), NULL};
static const struct route_field retry_rate_fields[] = {
    {"count", ROUTE_FIELD_INT, AT(route_traffic_policy, min_retries), .min = 1, .max = 1000000},
    {"interval", ROUTE_FIELD_DURATION, AT(route_traffic_policy, min_retries_interval_ms)},
};
static const struct route_type retry_rate_type = {"minRetryRate", sizeof(struct route_traffic_policy), false, false, retry_rate_fields, COUNT(retry_rate_fields), NULL};
static const struct route_field retry_constraint_fields[] = {
    {"budget", ROUTE_FIELD_INLINE, NOWHERE, .of = &budget_type},
    {"minRetryRate", ROUTE_FIELD_INLINE, NOWHERE, .of = &retry_rate_type},
};
static const struct route_type retry_constraint_type = {"retryConstraint", sizeof(struct route_traffic_policy), false, false, retry_constraint_fields, COUNT(retry_constraint_fields), NULL};
static const struct route_field traffic_spec_fields[] = {
    {"targetRefs", ROUTE_FIELD_LIST, LIST_AT(route_traffic_policy, target_refs), .min = 1, .max = 16, .of = &traffic_target_type, .is_required = true},
    {"retryConstraint", ROUTE_FIELD_INLINE, NOWHERE, .of = &retry_constraint_type},
    {"sessionPersistence", ROUTE_FIELD_POINTER, AT(route_traffic_policy, session_persistence), .of = &session_type},
};
KIND_WITH_SPEC(traffic, route_traffic_policy, check_traffic_policy);

/* clang-format on */

/* ---- Core ---- */

/* clusterIP and clusterIPs say the same; either may be missing in a file written by hand. */
static void read_cluster_ips(struct route_decoder *decoder, const struct route_node *node,
                             struct route_service_object *service)
{
    const struct route_node *list = route_node_find(node, "clusterIPs");
    struct bytes first = route_node_text(route_node_find(node, "clusterIP"));
    uint32_t most = 1 + (list != NULL && list->type == ROUTE_NODE_SEQUENCE ? list->count : 0);
    struct bytes *ips = route_decode_alloc(decoder, most, sizeof(*ips));
    if (ips == NULL) {
        return;
    }
    uint32_t count = 0;
    if (text_is(first, "None")) {
        service->is_headless = true;
    } else if (first.size > 0) {
        ips[count++] = first;
    }
    const struct route_node *item =
        list != NULL && list->type == ROUTE_NODE_SEQUENCE ? list->first : NULL;
    for (; item != NULL; item = item->next) {
        struct bytes ip = route_node_text(item);
        if (text_is(ip, "None")) {
            service->is_headless = true;
        } else if (ip.size > 0 && !bytes_equal(ip, first)) {
            ips[count++] = ip;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        ips[i] = arena_copy(decoder->arena, ips[i]);
        decoder->is_out_of_memory = decoder->is_out_of_memory || ips[i].data == NULL;
    }
    service->cluster_ips = ips;
    service->cluster_ips_count = count;
}

static void check_service(struct route_decoder *decoder, const struct route_node *node,
                          void *object)
{
    struct route_service_object *service = object;
    read_cluster_ips(decoder, node, service);
    const struct route_node *selector = route_node_find(node, "selector");
    service->has_selector = !route_node_is_null(selector) && selector->count > 0;
    service->has_session_affinity =
        text_is(route_node_text(route_node_find(node, "sessionAffinity")), "ClientIP");
}

/* targetPort is a number or the name of a container's port. */
static void check_service_port(struct route_decoder *decoder, const struct route_node *node,
                               void *object)
{
    struct route_service_port *port = object;
    const struct route_node *target = route_node_find(node, "targetPort");
    struct bytes text = route_node_text(target);
    uint64_t number = 0;
    if (route_node_is_null(target)) {
        return;
    }
    if (target->is_plain && !error_is(bytes_parse_decimal(text, UINT16_MAX, &number))) {
        port->target_port = (uint16_t)number;
    } else if (text.size > 0 && text.size <= 15) {
        port->target_port_name = arena_copy(decoder->arena, text);
    } else {
        route_decode_fail(decoder, target, "invalid-value",
                          "targetPort must be a port number or the name of a container port");
    }
}

/* A truth value within a mapping: absent, true or false. */
static bool read_flag(const struct route_node *node, const char *name, bool absent)
{
    const struct route_node *flag = route_node_find(node, name);
    if (route_node_is_null(flag)) {
        return absent;
    }
    return text_is(route_node_text(flag), "true");
}

static void check_slice_endpoint(struct route_decoder *decoder, const struct route_node *node,
                                 void *object)
{
    struct route_slice_endpoint *endpoint = object;
    const struct route_node *conditions = route_node_find(node, "conditions");
    endpoint->is_ready = read_flag(conditions, "ready", true);
    endpoint->is_serving = read_flag(conditions, "serving", endpoint->is_ready);
    endpoint->is_terminating = read_flag(conditions, "terminating", false);
    const struct route_node *target = route_node_find(node, "targetRef");
    struct bytes name = route_node_text(route_node_find(target, "name"));
    if (text_is(route_node_text(route_node_find(target, "kind")), "Pod") && name.size > 0) {
        endpoint->pod = arena_copy(decoder->arena, name);
    }
}

static void check_slice(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route_endpoint_slice *slice = object;
    const struct route_node *labels = route_node_find(route_node_find(node, "metadata"), "labels");
    struct bytes service = route_node_text(route_node_find(labels, "kubernetes.io/service-name"));
    if (service.size > 0) {
        slice->service = arena_copy(decoder->arena, service);
    }
}

/* clang-format off */

static const struct route_field service_port_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_service_port, name), .max = 63},
    {"protocol", ROUTE_FIELD_ENUM, AT(route_service_port, transport), .words = transport_words, .default_text = "TCP"},
    {FIELD_PORT(route_service_port, port), .is_required = true},
    {"targetPort", ROUTE_FIELD_CHECKED, NOWHERE},
    {"appProtocol", ROUTE_FIELD_STRING, AT(route_service_port, app_protocol), .max = 253},
};
static const struct route_type service_port_type = {"port", sizeof(struct route_service_port), true, true, service_port_fields, COUNT(service_port_fields), check_service_port};
static const struct route_field service_spec_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_service_object, type), .words = service_type_words, .default_text = "ClusterIP"},
    {"clusterIP", ROUTE_FIELD_CHECKED, NOWHERE},
    {"clusterIPs", ROUTE_FIELD_CHECKED, NOWHERE},
    {"selector", ROUTE_FIELD_CHECKED, NOWHERE},
    {"sessionAffinity", ROUTE_FIELD_CHECKED, NOWHERE},
    {"ports", ROUTE_FIELD_LIST, LIST_AT(route_service_object, ports), .max = 65535, .of = &service_port_type},
};
static const struct route_type service_spec_type = {"spec", sizeof(struct route_service_object), false, true, service_spec_fields, COUNT(service_spec_fields), check_service};
static const struct route_field service_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"spec", ROUTE_FIELD_INLINE, NOWHERE, .of = &service_spec_type, .is_required = true},
    {"status", ROUTE_FIELD_IGNORED, NOWHERE},
};
static const struct route_type service_type = {"Service", sizeof(struct route_service_object), false, false, service_fields, COUNT(service_fields), NULL};

static const struct route_field slice_endpoint_fields[] = {
    {"addresses", ROUTE_FIELD_STRINGS, LIST_AT(route_slice_endpoint, addresses), .min = 1, .max = 100, .is_required = true},
    {"conditions", ROUTE_FIELD_CHECKED, NOWHERE},
    {"targetRef", ROUTE_FIELD_CHECKED, NOWHERE},
    {"nodeName", ROUTE_FIELD_STRING, AT(route_slice_endpoint, node), .max = 253},
    {"zone", ROUTE_FIELD_STRING, AT(route_slice_endpoint, zone), .max = 253},
};
static const struct route_type slice_endpoint_type = {"endpoint", sizeof(struct route_slice_endpoint), true, true, slice_endpoint_fields, COUNT(slice_endpoint_fields), check_slice_endpoint};
static const struct route_field slice_port_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_slice_port, name), .max = 63, .default_text = ""},
    {"protocol", ROUTE_FIELD_ENUM, AT(route_slice_port, transport), .words = transport_words, .default_text = "TCP"},
    {"port", ROUTE_FIELD_INT, AT(route_slice_port, port), .max = 65535},
    {"appProtocol", ROUTE_FIELD_STRING, AT(route_slice_port, app_protocol), .max = 253},
};
static const struct route_type slice_port_type = {"port", sizeof(struct route_slice_port), false, true, slice_port_fields, COUNT(slice_port_fields), NULL};
static const struct route_field slice_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"addressType", ROUTE_FIELD_ENUM, AT(route_endpoint_slice, address_type), .words = address_type_words, .is_required = true},
    {"endpoints", ROUTE_FIELD_LIST, LIST_AT(route_endpoint_slice, endpoints), .max = 1000, .of = &slice_endpoint_type},
    {"ports", ROUTE_FIELD_LIST, LIST_AT(route_endpoint_slice, ports), .max = 100, .of = &slice_port_type},
};
static const struct route_type slice_type = {"EndpointSlice", sizeof(struct route_endpoint_slice), false, true, slice_fields, COUNT(slice_fields), check_slice};

static const struct route_field config_map_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"data", ROUTE_FIELD_MAP, LIST_AT(route_data, data)},
};
static const struct route_type config_map_type = {"ConfigMap", sizeof(struct route_data), false, true, config_map_fields, COUNT(config_map_fields), NULL};
static const struct route_field secret_fields[] = {
    FIELDS_OF_EVERY_OBJECT,
    {"data", ROUTE_FIELD_KEYS, LIST_AT(route_data, data)},
};
static const struct route_type secret_type = {"Secret", sizeof(struct route_data), false, true, secret_fields, COUNT(secret_fields), NULL};

/* clang-format on */

/* ---- Own kinds ---- */

/* A target of a mesh policy: Pods by selector, Services by name or selector. */
static void check_mesh_target(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    const struct route_target_ref *target = object;
    bool is_pod = text_is(target->kind, "Pod");
    if (target->group.size > 0 || (!is_pod && !text_is(target->kind, "Service"))) {
        route_decode_fail(decoder, node, "invalid-target", "must be a core Pod or Service");
        return;
    }
    if (is_pod && (target->selector == NULL || target->name.data != NULL)) {
        route_decode_fail(decoder, node, "invalid-target",
                          "Pods are targeted by selector, and by nothing else");
    }
    if (!is_pod && (target->selector == NULL) == (target->name.data == NULL)) {
        route_decode_fail(decoder, node, "invalid-target",
                          "a Service needs a name or a selector, not both");
    }
    if (target->section_name.data != NULL && (is_pod || target->name.data == NULL)) {
        route_decode_fail(decoder, node, "invalid-target",
                          "sectionName belongs to a Service that is named");
    }
}

/* Are all targets of that kind? */
static bool all_targets_are(const struct route_target_ref *targets, uint32_t count,
                            const char *kind)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!text_is(targets[i].kind, kind)) {
            return false;
        }
    }
    return true;
}

static void check_mesh_tls(struct route_decoder *decoder, const struct route_node *node,
                           void *object)
{
    const struct route_mesh_tls_policy *policy = object;
    bool has_inbound = has(node, "inbound");
    bool has_backend = has(node, "backend");
    if (!has_inbound && !has_backend) {
        route_decode_fail(decoder, node, "required", "inbound or backend is required");
    }
    if (has_inbound && !all_targets_are(policy->target_refs, policy->target_refs_count, "Pod")) {
        route_decode_fail(decoder, route_node_find(node, "inbound"), "invalid-target",
                          "inbound needs targets of kind Pod");
    }
    if (has_backend &&
        !all_targets_are(policy->target_refs, policy->target_refs_count, "Service")) {
        route_decode_fail(decoder, route_node_find(node, "backend"), "invalid-target",
                          "backend needs targets of kind Service");
    }
}

static void check_authorization(struct route_decoder *decoder, const struct route_node *node,
                                void *object)
{
    const struct route_authorization_policy *policy = object;
    if (!all_targets_are(policy->target_refs, policy->target_refs_count, "Pod")) {
        route_decode_fail(decoder, route_node_find(node, "targetRefs"), "invalid-target",
                          "an AuthorizationPolicy needs targets of kind Pod");
    }
}

static void check_authorization_rule(struct route_decoder *decoder, const struct route_node *node,
                                     void *object)
{
    (void)decoder;
    struct route_authorization_rule *rule = object;
    rule->has_sources = has(node, "sources");
}

static void check_source(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route_source *source = object;
    bool has_account = has(node, "serviceAccount");
    bool has_spiffe = has(node, "spiffe");
    if (has_account != (source->type == ROUTE_SOURCE_SERVICE_ACCOUNT) ||
        has_spiffe != (source->type == ROUTE_SOURCE_SPIFFE)) {
        route_decode_fail(decoder, node, "union",
                          "type ServiceAccount needs serviceAccount, type SPIFFE needs spiffe");
    }
    if (source->namespace.data == NULL) {
        source->namespace = decoder->object->namespace;
    }
}

static void check_body_value(struct route_decoder *decoder, const struct route_node *node,
                             enum route_body_value_type type)
{
    bool has_value = has(node, "value");
    if (has_value && type == ROUTE_BODY_PRESENT) {
        route_decode_fail(decoder, route_node_find(node, "value"), "union",
                          "type Present has no value");
    } else if (!has_value && type != ROUTE_BODY_PRESENT && type != ROUTE_BODY_UNSUPPORTED) {
        route_decode_fail(decoder, node, "required", "value is required");
    }
}

static void check_body_json(struct route_decoder *decoder, const struct route_node *node,
                            void *object)
{
    const struct route_body_json *json = object;
    check_body_value(decoder, node, json->type);
    check_expression(decoder, node, "value", json->type == ROUTE_BODY_REGEX, json->value);
}

static void check_body_form(struct route_decoder *decoder, const struct route_node *node,
                            void *object)
{
    const struct route_body_form *form = object;
    check_body_value(decoder, node, form->type);
    check_expression(decoder, node, "value", form->type == ROUTE_BODY_REGEX, form->value);
}

static void check_body_alternative(struct route_decoder *decoder, const struct route_node *node,
                                   void *object)
{
    struct route_body_alternative *alternative = object;
    static const char *const members[] = {"json", "form", "jsonRPC", "graphQL", "protobuf"};
    uint32_t given = 0;
    for (size_t i = 0; i < COUNT(members); i++) {
        given += has(node, members[i]);
    }
    if (given != 1) {
        route_decode_fail(decoder, node, "union",
                          "exactly one of json, form, jsonRPC, graphQL and protobuf is required");
    }
    alternative->is_graphql = has(node, "graphQL");
    if (alternative->is_graphql && alternative->graphql_operation_name.data == NULL &&
        alternative->graphql_operation_type.data == NULL) {
        route_decode_fail(decoder, route_node_find(node, "graphQL"), "required",
                          "operationName or operationType is required");
    }
}

/* clang-format off */

static const struct route_field own_ca_ref_fields[] = {
    {FIELD_GROUP(route_ca_ref, group), .default_text = ""},
    {FIELD_KIND(route_ca_ref, kind), .default_text = "ConfigMap"},
    {FIELD_NAMESPACE(route_ca_ref, namespace), .is_required = true},
    {FIELD_NAME(route_ca_ref, name), .is_required = true},
};
static const struct route_type own_ca_ref_type = {"caCertificateRef", sizeof(struct route_ca_ref), true, false, own_ca_ref_fields, COUNT(own_ca_ref_fields), NULL};
static const struct route_field trust_domain_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_trust_domain, name), .min = 1, .max = 253, .form = ROUTE_TEXT_SUBDOMAIN, .is_required = true},
    {"caCertificateRefs", ROUTE_FIELD_LIST, LIST_AT(route_trust_domain, ca_refs), .max = 8, .of = &own_ca_ref_type},
};
static const struct route_type trust_domain_type = {"trustDomain", sizeof(struct route_trust_domain), true, false, trust_domain_fields, COUNT(trust_domain_fields), NULL};
static const struct route_field parameters_inbound_fields[] = {
    {"mode", ROUTE_FIELD_ENUM, AT(route_mesh_parameters, inbound), .words = inbound_words, .is_required = true},
};
static const struct route_type parameters_inbound_type = {"inbound", sizeof(struct route_mesh_parameters), false, false, parameters_inbound_fields, COUNT(parameters_inbound_fields), NULL};
static const struct route_field parameters_backend_fields[] = {
    {"mode", ROUTE_FIELD_ENUM, AT(route_mesh_parameters, backend), .words = backend_mode_words, .is_required = true},
};
static const struct route_type parameters_backend_type = {"backend", sizeof(struct route_mesh_parameters), false, false, parameters_backend_fields, COUNT(parameters_backend_fields), NULL};
static const struct route_field parameters_spec_fields[] = {
    {"trustDomains", ROUTE_FIELD_LIST, LIST_AT(route_mesh_parameters, trust_domains), .min = 1, .max = 16, .of = &trust_domain_type, .key = "name"},
    {"inbound", ROUTE_FIELD_INLINE, NOWHERE, .of = &parameters_inbound_type},
    {"backend", ROUTE_FIELD_INLINE, NOWHERE, .of = &parameters_backend_type},
};
KIND_WITH_SPEC(parameters, route_mesh_parameters, NULL);

static const struct route_field selector_fields[] = {
    {"matchLabels", ROUTE_FIELD_MAP, LIST_AT(route_selector, labels)},
};
static const struct route_type selector_type = {"selector", sizeof(struct route_selector), true, false, selector_fields, COUNT(selector_fields), NULL};
static const struct route_field mesh_target_fields[] = {
    {FIELD_GROUP(route_target_ref, group), .default_text = ""},
    {FIELD_KIND(route_target_ref, kind), .is_required = true},
    {FIELD_NAME(route_target_ref, name)},
    {FIELD_SECTION(route_target_ref, section_name)},
    {"selector", ROUTE_FIELD_POINTER, AT(route_target_ref, selector), .of = &selector_type},
};
static const struct route_type mesh_target_type = {"targetRef", sizeof(struct route_target_ref), true, false, mesh_target_fields, COUNT(mesh_target_fields), check_mesh_target};
static const struct route_field port_mode_fields[] = {
    {FIELD_PORT(route_port_mode, port), .is_required = true},
    {"mode", ROUTE_FIELD_ENUM, AT(route_port_mode, mode), .words = inbound_words, .is_required = true},
};
static const struct route_type port_mode_type = {"port", sizeof(struct route_port_mode), true, false, port_mode_fields, COUNT(port_mode_fields), NULL};
static const struct route_field mesh_inbound_fields[] = {
    {"mode", ROUTE_FIELD_ENUM, AT(route_mesh_tls_policy, inbound), .words = inbound_words, .is_required = true},
    {"ports", ROUTE_FIELD_LIST, LIST_AT(route_mesh_tls_policy, inbound_ports), .max = 64, .of = &port_mode_type, .key = "port"},
};
static const struct route_type mesh_inbound_type = {"inbound", sizeof(struct route_mesh_tls_policy), false, false, mesh_inbound_fields, COUNT(mesh_inbound_fields), NULL};
static const struct route_field mesh_backend_fields[] = {
    {"mode", ROUTE_FIELD_ENUM, AT(route_mesh_tls_policy, backend), .words = backend_mode_words, .is_required = true},
    {"subjectAltNames", ROUTE_FIELD_LIST, LIST_AT(route_mesh_tls_policy, sans), .max = 16, .of = &san_type},
};
static const struct route_type mesh_backend_type = {"backend", sizeof(struct route_mesh_tls_policy), false, false, mesh_backend_fields, COUNT(mesh_backend_fields), NULL};
static const struct route_field mesh_tls_spec_fields[] = {
    {"targetRefs", ROUTE_FIELD_LIST, LIST_AT(route_mesh_tls_policy, target_refs), .min = 1, .max = 16, .of = &mesh_target_type, .is_required = true},
    {"inbound", ROUTE_FIELD_INLINE, NOWHERE, .of = &mesh_inbound_type},
    {"backend", ROUTE_FIELD_INLINE, NOWHERE, .of = &mesh_backend_type},
};
KIND_WITH_SPEC(mesh_tls, route_mesh_tls_policy, check_mesh_tls);

static const struct route_field service_account_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_source, service_account), .min = 1, .max = 253, .is_required = true},
    {FIELD_NAMESPACE(route_source, namespace)},
};
static const struct route_type service_account_type = {"serviceAccount", sizeof(struct route_source), false, false, service_account_fields, COUNT(service_account_fields), NULL};
static const struct route_field source_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_source, type), .words = source_words, .is_required = true},
    {"serviceAccount", ROUTE_FIELD_INLINE, NOWHERE, .of = &service_account_type},
    {"spiffe", ROUTE_FIELD_STRING, AT(route_source, spiffe), .min = 1, .max = 2048, .form = ROUTE_TEXT_SPIFFE},
};
static const struct route_type source_type = {"source", sizeof(struct route_source), true, false, source_fields, COUNT(source_fields), check_source};
static const struct route_field network_fields[] = {
    {"ports", ROUTE_FIELD_INTS, LIST_AT(route_authorization_rule, ports), .min = 1, .max = 64, .item_min = 1, .item_max = 65535, .is_set = true},
};
static const struct route_type network_type = {"networkAttributes", sizeof(struct route_authorization_rule), false, false, network_fields, COUNT(network_fields), NULL};
static const struct route_field authorization_rule_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_authorization_rule, name), .min = 1, .max = 253, .form = ROUTE_TEXT_SUBDOMAIN},
    {"sources", ROUTE_FIELD_LIST, LIST_AT(route_authorization_rule, sources), .max = 64, .of = &source_type},
    {"networkAttributes", ROUTE_FIELD_INLINE, NOWHERE, .of = &network_type},
    {"httpMatches", ROUTE_FIELD_LIST, LIST_AT(route_authorization_rule, http_matches), .max = 64, .of = &http_match_type},
    {"grpcMatches", ROUTE_FIELD_LIST, LIST_AT(route_authorization_rule, grpc_matches), .max = 64, .of = &grpc_match_type},
};
static const struct route_type authorization_rule_type = {"rule", sizeof(struct route_authorization_rule), true, false, authorization_rule_fields, COUNT(authorization_rule_fields), check_authorization_rule};
static const struct route_field authorization_spec_fields[] = {
    {"targetRefs", ROUTE_FIELD_LIST, LIST_AT(route_authorization_policy, target_refs), .min = 1, .max = 16, .of = &mesh_target_type, .is_required = true},
    {"action", ROUTE_FIELD_STRING, NOWHERE, .words = action_words},
    {"mode", ROUTE_FIELD_ENUM, AT(route_authorization_policy, is_audit), .words = authorization_mode_words, .default_text = "Enforce"},
    {"rules", ROUTE_FIELD_LIST, LIST_AT(route_authorization_policy, rules), .max = 64, .of = &authorization_rule_type},
};
KIND_WITH_SPEC(authorization, route_authorization_policy, check_authorization);

static const struct route_field body_json_fields[] = {
    {"pointer", ROUTE_FIELD_STRING, AT(route_body_json, pointer), .max = 1024, .form = ROUTE_TEXT_JSON_POINTER, .is_required = true},
    {"type", ROUTE_FIELD_ENUM, AT(route_body_json, type), .words = body_value_words, .default_text = "Exact"},
    {"value", ROUTE_FIELD_STRING, AT(route_body_json, value), .max = 1024},
};
static const struct route_type body_json_type = {"json", sizeof(struct route_body_json), true, false, body_json_fields, COUNT(body_json_fields), check_body_json};
static const struct route_field body_form_fields[] = {
    {"name", ROUTE_FIELD_STRING, AT(route_body_form, name), .min = 1, .max = 256, .is_required = true},
    {"type", ROUTE_FIELD_ENUM, AT(route_body_form, type), .words = body_value_words, .default_text = "Exact"},
    {"value", ROUTE_FIELD_STRING, AT(route_body_form, value), .max = 1024},
};
static const struct route_type body_form_type = {"form", sizeof(struct route_body_form), true, false, body_form_fields, COUNT(body_form_fields), check_body_form};
static const struct route_field body_rpc_fields[] = {
    {"method", ROUTE_FIELD_STRING, AT(route_body_alternative, json_rpc_method), .min = 1, .max = 256, .is_required = true},
};
static const struct route_type body_rpc_type = {"jsonRPC", sizeof(struct route_body_alternative), false, false, body_rpc_fields, COUNT(body_rpc_fields), NULL};
static const struct route_field body_graphql_fields[] = {
    {"operationName", ROUTE_FIELD_STRING, AT(route_body_alternative, graphql_operation_name), .min = 1, .max = 256},
    {"operationType", ROUTE_FIELD_STRING, AT(route_body_alternative, graphql_operation_type), .words = graphql_words},
};
static const struct route_type body_graphql_type = {"graphQL", sizeof(struct route_body_alternative), false, false, body_graphql_fields, COUNT(body_graphql_fields), NULL};
static const struct route_field body_protobuf_fields[] = {
    {"path", ROUTE_FIELD_INTS, LIST_AT(route_body_protobuf, path), .min = 1, .max = 16, .item_min = 1, .item_max = 536870911, .is_required = true},
    {"value", ROUTE_FIELD_STRING, AT(route_body_protobuf, value), .max = 1024, .is_required = true},
};
static const struct route_type body_protobuf_type = {"protobuf", sizeof(struct route_body_protobuf), true, false, body_protobuf_fields, COUNT(body_protobuf_fields), NULL};
static const struct route_field body_alternative_fields[] = {
    {"json", ROUTE_FIELD_LIST, LIST_AT(route_body_alternative, json), .min = 1, .max = 16, .of = &body_json_type},
    {"form", ROUTE_FIELD_LIST, LIST_AT(route_body_alternative, form), .min = 1, .max = 16, .of = &body_form_type},
    {"jsonRPC", ROUTE_FIELD_INLINE, NOWHERE, .of = &body_rpc_type},
    {"graphQL", ROUTE_FIELD_INLINE, NOWHERE, .of = &body_graphql_type},
    {"protobuf", ROUTE_FIELD_LIST, LIST_AT(route_body_alternative, protobuf), .min = 1, .max = 16, .of = &body_protobuf_type},
};
static const struct route_type body_alternative_type = {"match", sizeof(struct route_body_alternative), true, false, body_alternative_fields, COUNT(body_alternative_fields), check_body_alternative};
static const struct route_field body_spec_fields[] = {
    {"maxBytes", ROUTE_FIELD_INT, AT(route_body_match, bytes_max), .min = 1, .max = 65536, .default_text = "16384"},
    {"matches", ROUTE_FIELD_LIST, LIST_AT(route_body_match, matches), .min = 1, .max = 16, .of = &body_alternative_type, .is_required = true},
};
KIND_WITH_SPEC(body, route_body_match, NULL);

/* ---- All kinds ---- */

static const struct route_schema schemas[] = {
    {gateway_group, "HTTPRoute", "v1 v1beta1", &http_type, ROUTE_KIND_HTTP_ROUTE, false, false},
    {gateway_group, "GRPCRoute", "v1", &grpc_type, ROUTE_KIND_GRPC_ROUTE, false, false},
    {gateway_group, "TLSRoute", "v1 v1alpha3", &tls_type, ROUTE_KIND_TLS_ROUTE, false, false},
    {gateway_group, "TLSRoute", "v1alpha2", &tls_alpha_type, ROUTE_KIND_TLS_ROUTE, false, false},
    {gateway_group, "TCPRoute", "v1", &l4_type, ROUTE_KIND_TCP_ROUTE, false, false},
    {gateway_group, "TCPRoute", "v1alpha2", &l4_alpha_type, ROUTE_KIND_TCP_ROUTE, false, false},
    {gateway_group, "UDPRoute", "v1", &l4_type, ROUTE_KIND_UDP_ROUTE, false, false},
    {gateway_group, "UDPRoute", "v1alpha2", &l4_alpha_type, ROUTE_KIND_UDP_ROUTE, false, false},
    {gateway_group, "ReferenceGrant", "v1 v1beta1", &grant_type, ROUTE_KIND_REFERENCE_GRANT, false, false},
    {gateway_group, "BackendTLSPolicy", "v1 v1alpha3", &backend_tls_type, ROUTE_KIND_BACKEND_TLS_POLICY, false, false},
    {"gateway.networking.x-k8s.io", "XBackendTrafficPolicy", "v1alpha1", &traffic_type, ROUTE_KIND_BACKEND_TRAFFIC_POLICY, false, false},
    {"", "Service", "v1", &service_type, ROUTE_KIND_SERVICE, false, false},
    {"discovery.k8s.io", "EndpointSlice", "v1", &slice_type, ROUTE_KIND_ENDPOINT_SLICE, false, false},
    {"", "ConfigMap", "v1", &config_map_type, ROUTE_KIND_CONFIG_MAP, false, false},
    {"", "Secret", "v1", &secret_type, ROUTE_KIND_SECRET, false, false},
    {"outrigger.dev", "MeshParameters", "v1alpha1", &parameters_type, ROUTE_KIND_MESH_PARAMETERS, true, true},
    {"outrigger.dev", "MeshTLSPolicy", "v1alpha1", &mesh_tls_type, ROUTE_KIND_MESH_TLS_POLICY, false, true},
    {"outrigger.dev", "AuthorizationPolicy", "v1alpha1", &authorization_type, ROUTE_KIND_AUTHORIZATION_POLICY, false, true},
    {"outrigger.dev", "BodyMatch", "v1alpha1", &body_type, ROUTE_KIND_BODY_MATCH, false, true},
};

/* clang-format on */

const struct route_schema *route_schemas(size_t *ret_count)
{
    *ret_count = COUNT(schemas);
    return schemas;
}

/* Is `word` one of the blank-separated `words`? */
static bool is_listed(struct bytes word, const char *words)
{
    struct bytes rest = bytes_from_string(words);
    while (rest.data != NULL) {
        if (bytes_equal(bytes_split(&rest, ' '), word)) {
            return true;
        }
    }
    return false;
}

const struct route_schema *route_schema_find(struct bytes group, struct bytes kind,
                                             struct bytes version)
{
    for (size_t i = 0; i < COUNT(schemas); i++) {
        if (text_is(kind, schemas[i].kind_name) && text_is(group, schemas[i].group) &&
            is_listed(version, schemas[i].versions)) {
            return &schemas[i];
        }
    }
    return NULL;
}

bool route_schema_is_foreign(struct bytes group, struct bytes kind)
{
    static const char *const names[] = {"Gateway",      "GatewayClass", "ListenerSet",
                                        "XListenerSet", "XMesh",        "XBackend"};
    if (!text_is(group, gateway_group) && !text_is(group, "gateway.networking.x-k8s.io") &&
        !text_is(group, "outrigger.dev") && !text_is(group, "discovery.k8s.io")) {
        /* Pods, Deployments, other people's kinds; but a misspelt Service is ours. */
        for (size_t i = 0; i < COUNT(schemas); i++) {
            uint32_t best = ROUTE_TEXT_FAR;
            if (route_text_is_nearer(kind, bytes_from_string(schemas[i].kind_name), &best)) {
                return false;
            }
        }
        return true;
    }
    for (size_t i = 0; i < COUNT(names); i++) {
        if (text_is(kind, names[i])) {
            return true;
        }
    }
    return false;
}

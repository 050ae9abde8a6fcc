/*
 * The five kinds of route: parents, rules and what belongs to a rule besides matches and filters.
 * Where v1 and an alpha version differ there are two tables.
 */
#include "routes/decode.h"
#include "routes/schema_table.h"

static const struct route_word session_words[] = {
    {"Cookie", ROUTE_SESSION_COOKIE}, {"Header", ROUTE_SESSION_HEADER}, {NULL, 0}};
static const struct route_word lifetime_words[] = {
    {"Permanent", true}, {"Session", false}, {NULL, 0}};

/* kind: Service without a group means core here (design section 5), where the default would name
 * Gateway API's group. */
static void check_parent_ref(struct route_decoder *decoder, const struct route_node *node,
                             void *object)
{
    struct route_parent_ref *ref = object;
    ref->name_spot = route_schema_spot(node, "name");
    ref->section_spot = route_schema_spot(node, "sectionName");
    ref->port_spot = route_schema_spot(node, "port");
    if (!route_schema_has(node, "group") && bytes_is(ref->kind, "Service")) {
        ref->group = (struct bytes){0};
    }
    if (ref->namespace.data == NULL) {
        ref->namespace = decoder->object->namespace;
    }
}

/* Names or values: the shape of v1.6 (sessionName, cookieConfig) and that of later versions are
 * both read. */
static void check_session(struct route_decoder *decoder, const struct route_node *node,
                          void *object)
{
    struct route_session_persistence *session = object;
    bool is_old = route_schema_has(node, "sessionName") || route_schema_has(node, "cookieConfig") ||
                  route_schema_has(node, "idleTimeout");
    if (session->cookie_is_permanent && session->absolute_timeout_ms == ROUTE_DURATION_ABSENT) {
        route_decode_fail(decoder, node, "required",
                          "absoluteTimeout is required for a cookie of lifetimeType Permanent");
    }

    /* v1.6 took a cookie without configuration, and named either in the session itself. */
    const struct route_schema_member members[] = {
        {"Cookie", "cookie", ROUTE_SESSION_COOKIE, true},
        {"Header", "header", ROUTE_SESSION_HEADER, is_old},
    };
    route_schema_check_union(decoder, node, "type", session->type, members, COUNT(members));
    if (session->cookie_path.data == NULL) {
        session->cookie_path = BYTES("/");
    }
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
        route_schema_set_default_path(match, rule->position);
        rule->http_matches = match;
        rule->http_matches_count = 1;
    }
    route_schema_check_filters(decoder, node, rule->filters, rule->filters_count);
    check_prefix_replacement(decoder, node, rule);
    if (rule->backend_refs_count > 0 &&
        route_schema_count_filters(rule->filters, rule->filters_count,
                                   ROUTE_FILTER_REQUEST_REDIRECT) > 0) {
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
    route_schema_check_filters(decoder, node, rule->filters, rule->filters_count);
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
    if (!route_schema_has(node, "rules")) {
        struct route_rule *rule = route_decode_alloc(decoder, 1, sizeof(*rule));
        struct route_http_match *match = route_decode_alloc(decoder, 1, sizeof(*match));
        if (rule == NULL || match == NULL) {
            return;
        }
        match->position = route_decode_place(decoder, node);
        route_schema_set_default_path(match, match->position);
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

/* ---- Tables ---- */

/* clang-format off */

static const struct route_field parent_ref_fields[] = {
    {FIELD_GROUP(route_parent_ref, group), .default_text = GATEWAY_GROUP},
    {FIELD_KIND(route_parent_ref, kind), .default_text = "Gateway"},
    {FIELD_NAMESPACE(route_parent_ref, namespace)},
    {FIELD_NAME(route_parent_ref, name), .is_required = true},
    {FIELD_SECTION(route_parent_ref, section_name)},
    {FIELD_PORT(route_parent_ref, port)},
};
static const struct route_type parent_ref_type = {"parentRef", sizeof(struct route_parent_ref), true, false, parent_ref_fields, COUNT(parent_ref_fields), check_parent_ref};

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
const struct route_type route_type_session = {"sessionPersistence", sizeof(struct route_session_persistence), true, false, session_fields, COUNT(session_fields), check_session};

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
    {"matches", ROUTE_FIELD_LIST, LIST_AT(route_rule, http_matches), .max = 64, .of = &route_type_http_match},
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_rule, filters), .max = 16, .of = &route_type_http_filter},
    {"backendRefs", ROUTE_FIELD_LIST, LIST_AT(route_rule, backend_refs), .max = 16, .of = &route_type_http_backend},
    {"timeouts", ROUTE_FIELD_INLINE, NOWHERE, .of = &timeout_type},
    {"retry", ROUTE_FIELD_POINTER, AT(route_rule, retry), .of = &retry_type},
    {"sessionPersistence", ROUTE_FIELD_POINTER, AT(route_rule, session_persistence), .of = &route_type_session},
};
static const struct route_type http_rule_type = {"rule", sizeof(struct route_rule), true, false, http_rule_fields, COUNT(http_rule_fields), check_http_rule};

static const struct route_field grpc_rule_fields[] = {
    FIELD_RULE_NAME,
    {"matches", ROUTE_FIELD_LIST, LIST_AT(route_rule, grpc_matches), .max = 64, .of = &route_type_grpc_match},
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_rule, filters), .max = 16, .of = &route_type_grpc_filter},
    {"backendRefs", ROUTE_FIELD_LIST, LIST_AT(route_rule, backend_refs), .max = 16, .of = &route_type_grpc_backend},
    {"sessionPersistence", ROUTE_FIELD_POINTER, AT(route_rule, session_persistence), .of = &route_type_session},
};
static const struct route_type grpc_rule_type = {"rule", sizeof(struct route_rule), true, false, grpc_rule_fields, COUNT(grpc_rule_fields), check_grpc_rule};

static const struct route_field l4_rule_fields[] = {
    FIELD_RULE_NAME,
    {"backendRefs", ROUTE_FIELD_LIST, LIST_AT(route_rule, backend_refs), .min = 1, .max = 16, .of = &route_type_l4_backend, .is_required = true},
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
KIND_WITH_SPEC(http, route, check_http_route);
KIND_WITH_SPEC(grpc, route, check_route);
KIND_WITH_SPEC(tls, route, check_route);
KIND_WITH_SPEC(tls_alpha, route, check_route);
KIND_WITH_SPEC(l4, route, check_route);
KIND_WITH_SPEC(l4_alpha, route, check_route);

/* clang-format on */

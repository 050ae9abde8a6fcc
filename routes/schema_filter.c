/*
 * Filters, and the backends that they can stand at: references with a weight.
 */
#include "routes/decode.h"
#include "routes/schema_table.h"

static const struct route_word cors_method_words[] = {
    {"GET", 1},     {"HEAD", 1},  {"POST", 1},  {"PUT", 1}, {"DELETE", 1}, {"CONNECT", 1},
    {"OPTIONS", 1}, {"TRACE", 1}, {"PATCH", 1}, {"*", 1},   {NULL, 0},
};
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

static void check_backend_ref(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    struct route_backend_ref *ref = object;
    ref->name_spot = route_schema_spot(node, "name");
    ref->port_spot = route_schema_spot(node, "port");
    if (ref->namespace.data == NULL) {
        ref->namespace = decoder->object->namespace;
    }
    if (ref->group.size == 0 && bytes_is(ref->kind, "Service") && ref->port == 0) {
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

static void check_path_modifier(struct route_decoder *decoder, const struct route_node *node,
                                void *object)
{
    const struct route_path_modifier *path = object;

    static const struct route_schema_member members[] = {
        {"ReplaceFullPath", "replaceFullPath", ROUTE_PATH_REPLACE_FULL, false},
        {"ReplacePrefixMatch", "replacePrefixMatch", ROUTE_PATH_REPLACE_PREFIX, false},
    };

    route_schema_check_union(decoder, node, "type", path->type, members, COUNT(members));
}

static void check_mirror(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route_mirror *mirror = object;
    bool has_percent = route_schema_has(node, "percent");
    bool has_fraction = route_schema_has(node, "fraction");
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
        if (bytes_is(items[i], "*")) {
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

    static const struct route_schema_member members[] = {
        {"HTTP", "http", ROUTE_EXTERNAL_AUTH_HTTP, false},
        {"GRPC", "grpc", ROUTE_EXTERNAL_AUTH_GRPC, false},
    };

    route_schema_check_union(decoder, node, "protocol", auth->protocol, members, COUNT(members));
    auth->has_forward_body = route_schema_has(node, "forwardBody");
    if (auth->protocol == ROUTE_EXTERNAL_AUTH_UNSUPPORTED) {
        decoder->unsupported = ROUTE_UNSUPPORTED_SECURITY_FILTER;
    }
}

/* Which member belongs to which type of filter. */
static const struct route_schema_member filter_members[] = {
    {"RequestHeaderModifier", "requestHeaderModifier", ROUTE_FILTER_REQUEST_HEADER_MODIFIER, false},
    {"ResponseHeaderModifier", "responseHeaderModifier", ROUTE_FILTER_RESPONSE_HEADER_MODIFIER,
     false},
    {"RequestMirror", "requestMirror", ROUTE_FILTER_REQUEST_MIRROR, false},
    {"RequestRedirect", "requestRedirect", ROUTE_FILTER_REQUEST_REDIRECT, false},
    {"URLRewrite", "urlRewrite", ROUTE_FILTER_URL_REWRITE, false},
    {"ExtensionRef", "extensionRef", ROUTE_FILTER_EXTENSION_REF, false},
    {"CORS", "cors", ROUTE_FILTER_CORS, false},
    {"ExternalAuth", "externalAuth", ROUTE_FILTER_EXTERNAL_AUTH, false},
};

static void check_filter(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    const struct route_filter *filter = object;
    if (filter->type == ROUTE_FILTER_UNSUPPORTED) {
        /* Nobody knows what a filter of a newer API guards: it must not be skipped. */
        decoder->unsupported = ROUTE_UNSUPPORTED_SECURITY_FILTER;
        route_decode_warn(decoder, node, "unsupported-filter", NULL,
                          "nobody knows what this filter guards: requests of its rule are answered "
                          "500");
        return;
    }
    route_schema_check_union(decoder, node, "type", filter->type, filter_members,
                             COUNT(filter_members));
}

/* How many filters of a type there are. */
uint32_t route_schema_count_filters(const struct route_filter *filters, uint32_t count,
                                    enum route_filter_type type)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        found += filters[i].type == type;
    }
    return found;
}

/* Repetition and exclusion within one list of filters. */
void route_schema_check_filters(struct route_decoder *decoder, const struct route_node *node,
                                const struct route_filter *filters, uint32_t count)
{
    const struct route_node *at = route_node_find(node, "filters");
    for (size_t i = 0; i < COUNT(filter_members); i++) {
        enum route_filter_type type = (enum route_filter_type)filter_members[i].value;
        bool is_repeatable = type == ROUTE_FILTER_REQUEST_MIRROR ||
                             type == ROUTE_FILTER_EXTENSION_REF ||
                             type == ROUTE_FILTER_EXTERNAL_AUTH;
        if (!is_repeatable && route_schema_count_filters(filters, count, type) > 1) {
            route_decode_fail(decoder, at, "repeated-filter", "a %s filter must not be repeated",
                              filter_members[i].name);
        }
    }
    if (route_schema_count_filters(filters, count, ROUTE_FILTER_REQUEST_REDIRECT) > 0 &&
        route_schema_count_filters(filters, count, ROUTE_FILTER_URL_REWRITE) > 0) {
        route_decode_fail(decoder, at, "incompatible-filters",
                          "RequestRedirect and URLRewrite exclude each other");
    }
}

static void check_backend_filters(struct route_decoder *decoder, const struct route_node *node,
                                  void *object)
{
    struct route_backend_ref *ref = object;
    check_backend_ref(decoder, node, object);
    route_schema_check_filters(decoder, node, ref->filters, ref->filters_count);
}

/* ---- Tables ---- */

/* clang-format off */

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
const struct route_type route_type_http_filter = {"filter", sizeof(struct route_filter), true, false, http_filter_fields, COUNT(http_filter_fields), check_filter};

static const struct route_field grpc_filter_fields[] = {
    {"type", ROUTE_FIELD_ENUM, AT(route_filter, type), .words = grpc_filter_words, .is_required = true},
    FIELDS_OF_EVERY_FILTER,
};
const struct route_type route_type_grpc_filter = {"filter", sizeof(struct route_filter), true, false, grpc_filter_fields, COUNT(grpc_filter_fields), check_filter};

/* Backends. */
#define FIELD_WEIGHT {"weight", ROUTE_FIELD_INT, AT(route_backend_ref, weight), .max = 1000000, .default_text = "1"}

static const struct route_field http_backend_fields[] = {
    FIELDS_OF_BACKEND_REF, FIELD_WEIGHT,
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_backend_ref, filters), .max = 16, .of = &route_type_http_filter},
};
const struct route_type route_type_http_backend = {"backendRef", sizeof(struct route_backend_ref), true, false, http_backend_fields, COUNT(http_backend_fields), check_backend_filters};

static const struct route_field grpc_backend_fields[] = {
    FIELDS_OF_BACKEND_REF, FIELD_WEIGHT,
    {"filters", ROUTE_FIELD_LIST, LIST_AT(route_backend_ref, filters), .max = 16, .of = &route_type_grpc_filter},
};
const struct route_type route_type_grpc_backend = {"backendRef", sizeof(struct route_backend_ref), true, false, grpc_backend_fields, COUNT(grpc_backend_fields), check_backend_filters};

static const struct route_field l4_backend_fields[] = {FIELDS_OF_BACKEND_REF, FIELD_WEIGHT};
const struct route_type route_type_l4_backend = {"backendRef", sizeof(struct route_backend_ref), true, false, l4_backend_fields, COUNT(l4_backend_fields), check_backend_ref};

/* clang-format on */

/*
 * What a request is matched by: paths, headers, query parameters, gRPC methods. Rules of routes and
 * of our AuthorizationPolicy are made of them.
 */
#include <string.h>

#include "routes/decode.h"
#include "routes/schema_table.h"

static const struct route_word method_words[] = {
    {"GET", 1},     {"HEAD", 1},    {"POST", 1},  {"PUT", 1},   {"DELETE", 1},
    {"CONNECT", 1}, {"OPTIONS", 1}, {"TRACE", 1}, {"PATCH", 1}, {NULL, 0},
};
static const struct route_word value_match_words[] = {
    {"Exact", ROUTE_MATCH_EXACT}, {"RegularExpression", ROUTE_MATCH_REGEX}, {NULL, 0}};
static const struct route_word path_match_words[] = {{"Exact", ROUTE_MATCH_EXACT},
                                                     {"PathPrefix", ROUTE_MATCH_PREFIX},
                                                     {"RegularExpression", ROUTE_MATCH_REGEX},
                                                     {NULL, 0}};

static void check_value_match(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    const struct route_value_match *match = object;
    route_schema_check_expression(decoder, node, "value", match->type == ROUTE_MATCH_REGEX,
                                  match->value);
}

static void check_path_match(struct route_decoder *decoder, const struct route_node *node,
                             void *object)
{
    const struct route_path_match *path = object;
    route_schema_check_expression(decoder, node, "value", path->type == ROUTE_MATCH_REGEX,
                                  path->value);
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

void route_schema_set_default_path(struct route_http_match *match, struct route_position position)
{
    match->path = (struct route_path_match){position, ROUTE_MATCH_PREFIX, BYTES_LITERAL("/")};
}

static void check_http_match(struct route_decoder *decoder, const struct route_node *node,
                             void *object)
{
    (void)decoder;
    struct route_http_match *match = object;
    if (!route_schema_has(node, "path")) {
        route_schema_set_default_path(match, match->position);
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
        route_schema_check_expression(decoder, node, "service",
                                      is_regex && method->service.data != NULL, method->service);
        route_schema_check_expression(decoder, node, "method",
                                      is_regex && method->method.data != NULL, method->method);
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

/* ---- Tables ---- */

/* clang-format off */

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
const struct route_type route_type_http_match = {"match", sizeof(struct route_http_match), true, false, http_match_fields, COUNT(http_match_fields), check_http_match};

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
const struct route_type route_type_grpc_match = {"match", sizeof(struct route_grpc_match), true, false, grpc_match_fields, COUNT(grpc_match_fields), NULL};

/* clang-format on */

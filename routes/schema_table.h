/*
 * How tables are written, and what they share. Private to schema*.c and, but for the reader of
 * schema.h, nobody's business.
 *
 * AT, LIST_AT and FIELD_* are macros although those belong in base/: a row must name its struct and
 * member once, or the tables say everything three times. clang-format would spread each row over
 * six lines. Bounds and defaults are Gateway API's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "routes/resource.h"
#include "routes/schema.h"
#include "routes/yaml.h"

#define AT(struct_, member_)                                                                       \
    .offset = offsetof(struct struct_, member_), .width = sizeof(((struct struct_ *)NULL)->member_)
#define LIST_AT(struct_, member_)                                                                  \
    .offset = offsetof(struct struct_, member_),                                                   \
    .width = sizeof(*((struct struct_ *)NULL)->member_),                                           \
    .count_offset = offsetof(struct struct_, member_##_count)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Not written anywhere (a struct within this one, or left to the check function). */
#define NOWHERE .offset = 0

#define GATEWAY_GROUP "gateway.networking.k8s.io"

/* clang-format off */

/* Fields that several kinds of reference have. */
#define FIELD_GROUP(struct_, member_) "group", ROUTE_FIELD_STRING, AT(struct_, member_), .max = 253, .form = ROUTE_TEXT_GROUP

#define FIELD_KIND(struct_, member_) "kind", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 63, .form = ROUTE_TEXT_KIND
#define FIELD_NAME(struct_, member_) "name", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 253
#define FIELD_NAMESPACE(struct_, member_) "namespace", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 63, .form = ROUTE_TEXT_LABEL
#define FIELD_SECTION(struct_, member_) "sectionName", ROUTE_FIELD_STRING, AT(struct_, member_), .min = 1, .max = 253, .form = ROUTE_TEXT_SUBDOMAIN
#define FIELD_PORT(struct_, member_) "port", ROUTE_FIELD_INT, AT(struct_, member_), .min = 1, .max = 65535

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
    const struct route_type route_type_##name_ = {#name_, sizeof(struct struct_), false, false, name_##_fields, COUNT(name_##_fields), NULL}

/* clang-format on */

/* ---- Types that several tables name ---- */

extern const struct route_type route_type_http_match;
extern const struct route_type route_type_grpc_match;
extern const struct route_type route_type_http_filter;
extern const struct route_type route_type_grpc_filter;
extern const struct route_type route_type_http_backend;
extern const struct route_type route_type_grpc_backend;
extern const struct route_type route_type_l4_backend;
extern const struct route_type route_type_session;
extern const struct route_type route_type_san;

/* ---- Kinds, for the list in schema.c ---- */

extern const struct route_type route_type_http;
extern const struct route_type route_type_grpc;
extern const struct route_type route_type_tls;
extern const struct route_type route_type_tls_alpha;
extern const struct route_type route_type_l4;
extern const struct route_type route_type_l4_alpha;
extern const struct route_type route_type_grant;
extern const struct route_type route_type_backend_tls;
extern const struct route_type route_type_traffic;
extern const struct route_type route_type_service;
extern const struct route_type route_type_slice;
extern const struct route_type route_type_config_map;
extern const struct route_type route_type_secret;
extern const struct route_type route_type_parameters;
extern const struct route_type route_type_mesh_tls;
extern const struct route_type route_type_authorization;
extern const struct route_type route_type_body;

/* ---- For check functions ---- */

/* Was a field given, and not as null? */
bool route_schema_has(const struct route_node *node, const char *name);

/* Where a field stands, so that what is wrong with it can be shown there. */
struct route_spot route_schema_spot(const struct route_node *node, const char *name);

/* A member of a union: it belongs to one value of the field that tells which member is in use. */
struct route_schema_member {
    const char *name;   /* of the value: "Cookie" */
    const char *member; /* "cookie" */
    uint32_t value;
    bool is_optional; /* may be absent although its value is given */
};

/*
 * The member that `value` names must be given, and no other. `discriminator` is the name of the
 * field that has the value, for the messages.
 */
void route_schema_check_union(struct route_decoder *decoder, const struct route_node *node,
                              const char *discriminator, uint32_t value,
                              const struct route_schema_member *members, size_t count);

/*
 * An expression that does not compile leaves a route's rule out, with a condition. In a policy of
 * ours it is a mistake like any other: what is left out of a policy may be what protects somebody.
 */
void route_schema_check_expression(struct route_decoder *decoder, const struct route_node *node,
                                   const char *name, bool is_regex, struct bytes pattern);

/* What a match without `path` means: every path, at that position. */
void route_schema_set_default_path(struct route_http_match *match, struct route_position position);

/* How many filters of a type there are. */
uint32_t route_schema_count_filters(const struct route_filter *filters, uint32_t count,
                                    enum route_filter_type type);

/* Repetition and exclusion within one list of filters, that of `node`. */
void route_schema_check_filters(struct route_decoder *decoder, const struct route_node *node,
                                const struct route_filter *filters, uint32_t count);

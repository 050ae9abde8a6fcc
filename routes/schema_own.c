/*
 * Our own kinds, group outrigger.dev: MeshParameters, MeshTLSPolicy, AuthorizationPolicy,
 * BodyMatch.
 */
#include "routes/decode.h"
#include "routes/schema_table.h"

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

/* A target of a mesh policy: Pods by selector, Services by name or selector. */
static void check_mesh_target(struct route_decoder *decoder, const struct route_node *node,
                              void *object)
{
    const struct route_target_ref *target = object;
    bool is_pod = bytes_is(target->kind, "Pod");
    if (target->group.size > 0 || (!is_pod && !bytes_is(target->kind, "Service"))) {
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
        if (!bytes_is(targets[i].kind, kind)) {
            return false;
        }
    }
    return true;
}

static void check_mesh_tls(struct route_decoder *decoder, const struct route_node *node,
                           void *object)
{
    const struct route_mesh_tls_policy *policy = object;
    bool has_inbound = route_schema_has(node, "inbound");
    bool has_backend = route_schema_has(node, "backend");
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
    rule->has_sources = route_schema_has(node, "sources");
}

static void check_source(struct route_decoder *decoder, const struct route_node *node, void *object)
{
    struct route_source *source = object;
    bool has_account = route_schema_has(node, "serviceAccount");
    bool has_spiffe = route_schema_has(node, "spiffe");
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
    bool has_value = route_schema_has(node, "value");
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
    route_schema_check_expression(decoder, node, "value", json->type == ROUTE_BODY_REGEX,
                                  json->value);
}

static void check_body_form(struct route_decoder *decoder, const struct route_node *node,
                            void *object)
{
    const struct route_body_form *form = object;
    check_body_value(decoder, node, form->type);
    route_schema_check_expression(decoder, node, "value", form->type == ROUTE_BODY_REGEX,
                                  form->value);
}

static void check_body_alternative(struct route_decoder *decoder, const struct route_node *node,
                                   void *object)
{
    struct route_body_alternative *alternative = object;
    static const char *const members[] = {"json", "form", "jsonRPC", "graphQL", "protobuf"};
    uint32_t given = 0;
    for (size_t i = 0; i < COUNT(members); i++) {
        given += route_schema_has(node, members[i]);
    }
    if (given != 1) {
        route_decode_fail(decoder, node, "union",
                          "exactly one of json, form, jsonRPC, graphQL and protobuf is required");
    }
    alternative->is_graphql = route_schema_has(node, "graphQL");
    if (alternative->is_graphql && alternative->graphql_operation_name.data == NULL &&
        alternative->graphql_operation_type.data == NULL) {
        route_decode_fail(decoder, route_node_find(node, "graphQL"), "required",
                          "operationName or operationType is required");
    }
}

/* ---- Tables ---- */

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
    {"subjectAltNames", ROUTE_FIELD_LIST, LIST_AT(route_mesh_tls_policy, sans), .max = 16, .of = &route_type_san},
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
    {"httpMatches", ROUTE_FIELD_LIST, LIST_AT(route_authorization_rule, http_matches), .max = 64, .of = &route_type_http_match},
    {"grpcMatches", ROUTE_FIELD_LIST, LIST_AT(route_authorization_rule, grpc_matches), .max = 64, .of = &route_type_grpc_match},
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

/* clang-format on */

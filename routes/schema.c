/*
 * All kinds, and how one is found. The tables themselves stand in schema_match.c, schema_filter.c
 * and schema_route.c (routes), schema_policy.c (other kinds of Gateway API), schema_core.c
 * (Kubernetes' own) and schema_own.c (ours).
 */
#include "routes/schema.h"

#include "routes/decode.h"
#include "routes/regex.h"
#include "routes/schema_table.h"

bool route_schema_has(const struct route_node *node, const char *name)
{
    return !route_node_is_null(route_node_find(node, name));
}

struct route_spot route_schema_spot(const struct route_node *node, const char *name)
{
    const struct route_node *field = route_node_find(node, name);
    return field == NULL ? (struct route_spot){0} : (struct route_spot){field->line, field->column};
}

void route_schema_check_union(struct route_decoder *decoder, const struct route_node *node,
                              const char *discriminator, uint32_t value,
                              const struct route_schema_member *members, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct route_schema_member *member = &members[i];
        bool is_given = route_schema_has(node, member->member);
        if (is_given && value != member->value) {
            route_decode_fail(decoder, route_node_find(node, member->member), "union",
                              "%s needs %s %s", member->member, discriminator, member->name);
        } else if (!is_given && value == member->value && !member->is_optional) {
            route_decode_fail(decoder, node, "union", "%s %s needs %s", discriminator, member->name,
                              member->member);
        }
    }
}

void route_schema_check_expression(struct route_decoder *decoder, const struct route_node *node,
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

/* clang-format off */

static const struct route_schema schemas[] = {
    {GATEWAY_GROUP, "HTTPRoute", "v1 v1beta1", &route_type_http, ROUTE_KIND_HTTP_ROUTE, false, false},
    {GATEWAY_GROUP, "GRPCRoute", "v1", &route_type_grpc, ROUTE_KIND_GRPC_ROUTE, false, false},
    {GATEWAY_GROUP, "TLSRoute", "v1 v1alpha3", &route_type_tls, ROUTE_KIND_TLS_ROUTE, false, false},
    {GATEWAY_GROUP, "TLSRoute", "v1alpha2", &route_type_tls_alpha, ROUTE_KIND_TLS_ROUTE, false, false},
    {GATEWAY_GROUP, "TCPRoute", "v1", &route_type_l4, ROUTE_KIND_TCP_ROUTE, false, false},
    {GATEWAY_GROUP, "TCPRoute", "v1alpha2", &route_type_l4_alpha, ROUTE_KIND_TCP_ROUTE, false, false},
    {GATEWAY_GROUP, "UDPRoute", "v1", &route_type_l4, ROUTE_KIND_UDP_ROUTE, false, false},
    {GATEWAY_GROUP, "UDPRoute", "v1alpha2", &route_type_l4_alpha, ROUTE_KIND_UDP_ROUTE, false, false},
    {GATEWAY_GROUP, "ReferenceGrant", "v1 v1beta1", &route_type_grant, ROUTE_KIND_REFERENCE_GRANT, false, false},
    {GATEWAY_GROUP, "BackendTLSPolicy", "v1 v1alpha3", &route_type_backend_tls, ROUTE_KIND_BACKEND_TLS_POLICY, false, false},
    {"gateway.networking.x-k8s.io", "XBackendTrafficPolicy", "v1alpha1", &route_type_traffic, ROUTE_KIND_BACKEND_TRAFFIC_POLICY, false, false},
    {"", "Service", "v1", &route_type_service, ROUTE_KIND_SERVICE, false, false},
    {"discovery.k8s.io", "EndpointSlice", "v1", &route_type_slice, ROUTE_KIND_ENDPOINT_SLICE, false, false},
    {"", "ConfigMap", "v1", &route_type_config_map, ROUTE_KIND_CONFIG_MAP, false, false},
    {"", "Secret", "v1", &route_type_secret, ROUTE_KIND_SECRET, false, false},
    {"outrigger.dev", "MeshParameters", "v1alpha1", &route_type_parameters, ROUTE_KIND_MESH_PARAMETERS, true, true},
    {"outrigger.dev", "MeshTLSPolicy", "v1alpha1", &route_type_mesh_tls, ROUTE_KIND_MESH_TLS_POLICY, false, true},
    {"outrigger.dev", "AuthorizationPolicy", "v1alpha1", &route_type_authorization, ROUTE_KIND_AUTHORIZATION_POLICY, false, true},
    {"outrigger.dev", "BodyMatch", "v1alpha1", &route_type_body, ROUTE_KIND_BODY_MATCH, false, true},
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
        if (bytes_is(kind, schemas[i].kind_name) && bytes_is(group, schemas[i].group) &&
            is_listed(version, schemas[i].versions)) {
            return &schemas[i];
        }
    }
    return NULL;
}

static bool is_one_of(struct bytes word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes_is(word, words[i])) {
            return true;
        }
    }
    return false;
}

/* Is it a kind that every cluster has, and that nobody expects a sidecar to read? */
static bool is_of_kubernetes(struct bytes group, struct bytes kind)
{
    static const char *const groups[] = {"apps", "batch", "autoscaling", "policy", "extensions"};
    static const char *const core[] = {
        "Pod",     "Namespace",  "Node",         "ServiceAccount",        "PersistentVolume",
        "Event",   "Endpoints",  "PodTemplate",  "PersistentVolumeClaim", "ReplicationController",
        "Binding", "LimitRange", "ResourceQuota"};
    if (group.size == 0) {
        return is_one_of(kind, core, COUNT(core));
    }
    for (size_t i = 0; i < COUNT(schemas); i++) {
        if (bytes_is(kind, schemas[i].kind_name)) {
            return false; /* a group that is misspelt */
        }
    }
    struct bytes ending = BYTES(".k8s.io");
    bool is_special_interest = group.size > ending.size &&
                               bytes_equal(bytes_skip(group, group.size - ending.size), ending);
    return is_special_interest || is_one_of(group, groups, COUNT(groups));
}

bool route_schema_is_foreign(struct bytes group, struct bytes kind)
{
    static const char *const ours[] = {GATEWAY_GROUP, "gateway.networking.x-k8s.io",
                                       "outrigger.dev", "discovery.k8s.io"};
    static const char *const others[] = {"Gateway",      "GatewayClass", "ListenerSet",
                                         "XListenerSet", "XMesh",        "XBackend"};
    if (is_one_of(group, ours, COUNT(ours))) {
        return is_one_of(kind, others, COUNT(others));
    }
    return is_of_kubernetes(group, kind);
}

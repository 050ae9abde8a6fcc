/* Features that a valid object asks for and that this version does not have. */
#include "routes/unserved.h"

static bool asks_for_mesh_tls(const struct route_object *object)
{
    if (object->kind == ROUTE_KIND_MESH_PARAMETERS) {
        const struct route_mesh_parameters *parameters =
            (const struct route_mesh_parameters *)object;
        return parameters->inbound == ROUTE_MESH_STRICT ||
               parameters->backend == ROUTE_MESH_ENABLED;
    }
    if (object->kind != ROUTE_KIND_MESH_TLS_POLICY) {
        return false;
    }
    const struct route_mesh_tls_policy *policy = (const struct route_mesh_tls_policy *)object;
    bool is_strict = policy->inbound == ROUTE_MESH_STRICT || policy->backend == ROUTE_MESH_ENABLED;
    for (uint32_t i = 0; i < policy->inbound_ports_count; i++) {
        is_strict = is_strict || policy->inbound_ports[i].mode == ROUTE_MESH_STRICT;
    }
    return is_strict;
}

static void warn_unserved(struct route_diagnostics *diagnostics, struct route_position position,
                          const char *what, const char *effect)
{
    route_diagnostics_add(diagnostics, ROUTE_SEVERITY_WARNING, position, "feature-unserved", NULL,
                          "%s is not served by this version: %s", what, effect);
}

static void warn_filters(struct route_diagnostics *diagnostics, const struct route_filter *filters,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (filters[i].type == ROUTE_FILTER_REQUEST_MIRROR) {
            warn_unserved(diagnostics, filters[i].position, "RequestMirror",
                          "requests are not mirrored");
        } else if (filters[i].type == ROUTE_FILTER_CORS) {
            warn_unserved(diagnostics, filters[i].position, "CORS", "preflights go to the backend");
        } else if (filters[i].type == ROUTE_FILTER_EXTERNAL_AUTH) {
            warn_unserved(diagnostics, filters[i].position, "ExternalAuth",
                          "requests of this rule are answered 500");
        }
    }
}

static void warn_route(struct route_diagnostics *diagnostics, const struct route *route)
{
    if (route->object.kind == ROUTE_KIND_GRPC_ROUTE) {
        warn_unserved(diagnostics, route->object.position, "GRPCRoute",
                      "HTTP/2 passes through as opaque TCP");
    } else if (route->object.kind == ROUTE_KIND_UDP_ROUTE) {
        warn_unserved(diagnostics, route->object.position, "UDPRoute",
                      "datagrams are not redirected");
    }
    for (uint32_t r = 0; r < route->rules_count; r++) {
        const struct route_rule *rule = &route->rules[r];
        warn_filters(diagnostics, rule->filters, rule->filters_count);
        for (uint32_t b = 0; b < rule->backend_refs_count; b++) {
            warn_filters(diagnostics, rule->backend_refs[b].filters,
                         rule->backend_refs[b].filters_count);
        }
        if (rule->retry != NULL) {
            warn_unserved(diagnostics, rule->position, "retry", "only what is safe is tried again");
        }
        if (rule->session_persistence != NULL) {
            warn_unserved(diagnostics, rule->position, "sessionPersistence",
                          "any endpoint may be chosen");
        }
    }
}

/*
 * A policy is never skipped in silence: what protects somebody and is not served by this version
 * refuses the generation.
 */
void route_unserved_check(const struct route_object *object, struct route_diagnostics *diagnostics)
{
    if (object->kind >= ROUTE_KIND_HTTP_ROUTE && object->kind <= ROUTE_KIND_UDP_ROUTE) {
        warn_route(diagnostics, (const struct route *)object);
    }
    bool is_enforced = object->kind == ROUTE_KIND_AUTHORIZATION_POLICY &&
                       !((const struct route_authorization_policy *)object)->is_audit;
    if (is_enforced || asks_for_mesh_tls(object)) {
        route_diagnostics_add(diagnostics, ROUTE_SEVERITY_ERROR, object->position,
                              "policy-unserved", is_enforced ? "mode: Audit" : NULL,
                              "%s %.*s asks for %s, which this version does not enforce%s",
                              route_kind_name(object->kind), (int)object->name.size,
                              (const char *)object->name.data,
                              is_enforced ? "authorisation" : "mesh TLS",
                              is_enforced ? "" : "; the modes Permissive and Disabled are served");
    } else if (object->kind == ROUTE_KIND_BACKEND_TLS_POLICY) {
        route_diagnostics_add(
            diagnostics, ROUTE_SEVERITY_WARNING, object->position, "policy-unserved", NULL,
            "BackendTLSPolicy %.*s is not served: its backends are spoken to without TLS",
            (int)object->name.size, (const char *)object->name.data);
    }
}

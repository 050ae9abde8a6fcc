/*
 * Lints, each a function over one route, one policy or the compiled rules of one port. A reference
 * that leads nowhere is told with the name that was probably meant; a rule that can never be
 * chosen, with the one that stands before it.
 */
#include "routes/lint.h"

#include <stdio.h>
#include <string.h>

#include "routes/candidate.h"
#include "routes/lookup.h"
#include "routes/path.h"
#include "routes/precedence.h"
#include "routes/text.h"

enum {
    /* Comparing matches is quadratic; above this many on one port only the first are compared. */
    COMPARED_MAX = 2000,
    /* So many names are compared for suggestions, half a second's worth; then there are none. */
    NAMES_COMPARED_MAX = 500000,
    NAME_BYTES_MAX = 600,
};

struct lint {
    const struct route_config *config;
    const struct route_services *services;
    struct route_diagnostics *diagnostics;
    const struct route *route; /* that is being looked at */
    uint32_t *names_compared;
};

static const char *string(struct bytes text)
{
    return text.data == NULL ? "" : (const char *)text.data;
}

/* A warning with the place first: lints never refuse. */
#define WARN(lint, ...)                                                                            \
    route_diagnostics_add((lint)->diagnostics, ROUTE_SEVERITY_WARNING, __VA_ARGS__)

/* The place of a field; of what encloses it when the field is not there. */
static struct route_position at(struct route_position whole, struct route_spot spot)
{
    if (spot.line != 0) {
        whole.line = spot.line;
        whole.column = spot.column;
    }
    return whole;
}

/* ---- Names that lead nowhere ---- */

/* A Service with that name elsewhere, or with a similar name in the namespace; written as a
 * reference would need it. */
static bool suggest_service(const struct lint *lint, struct bytes namespace, struct bytes name,
                            char *out, size_t size)
{
    struct bytes rest = name;
    struct bytes label = bytes_split(&rest, '.');
    struct bytes host_namespace = bytes_split(&rest, '.');
    if (host_namespace.size > 0 &&
        route_services_find(lint->services, host_namespace, label) != NULL) {
        /* A host name such as web.shop.svc.cluster.local. */
        bool is_here = bytes_equal(host_namespace, namespace);
        snprintf(out, size, "name: %.*s%s%.*s", (int)label.size, (const char *)label.data,
                 is_here ? "" : ", namespace: ", is_here ? 0 : (int)host_namespace.size,
                 (const char *)host_namespace.data);
        return true;
    }
    uint32_t best = ROUTE_TEXT_FAR;
    bool is_found = false;
    if (*lint->names_compared > NAMES_COMPARED_MAX) {
        return false;
    }
    *lint->names_compared += route_services_count(lint->services);
    for (uint32_t i = 0; i < route_services_count(lint->services); i++) {
        const struct route_object *service = &route_services_at(lint->services, i)->object->object;
        if (bytes_equal(service->namespace, namespace)) {
            if (route_text_is_nearer(name, service->name, &best)) {
                snprintf(out, size, "name: %s", string(service->name));
                is_found = true;
            }
        } else if (best == ROUTE_TEXT_FAR && bytes_equal(service->name, name)) {
            snprintf(out, size, "namespace: %s", string(service->namespace));
            is_found = true;
        }
    }
    return is_found;
}

/* The Service port whose target is `port`, when no port of the Service has that number: the two
 * were confused. */
static const struct route_service_port *find_target(const struct route_service_object *service,
                                                    uint16_t port)
{
    for (uint32_t i = 0; i < service->ports_count; i++) {
        if (service->ports[i].target_port == port) {
            return &service->ports[i];
        }
    }
    return NULL;
}

static void list_ports(const struct route_service_object *service, char *out, size_t size)
{
    size_t used = 0;
    snprintf(out, size, "none");
    for (uint32_t i = 0; i < service->ports_count && used < size; i++) {
        int written =
            snprintf(out + used, size - used, "%s%u", i == 0 ? "" : ", ", service->ports[i].port);
        used += written < 0 ? size : (size_t)written;
    }
}

static bool has_port(const struct route_service_object *service, uint16_t port)
{
    for (uint32_t i = 0; i < service->ports_count; i++) {
        if (service->ports[i].port == port) {
            return true;
        }
    }
    return false;
}

static void check_port(const struct lint *lint, const struct route_service_object *service,
                       uint16_t port, struct route_position position)
{
    if (has_port(service, port)) {
        return;
    }
    const struct route_service_port *meant = find_target(service, port);
    char suggestion[32];
    if (meant != NULL) {
        snprintf(suggestion, sizeof(suggestion), "port: %u", meant->port);
        WARN(lint, position, "target-port", suggestion,
             "%u is a target port of Service %s/%s; references name the Service's own port %u",
             port, string(service->object.namespace), string(service->object.name), meant->port);
        return;
    }
    char ports[128];
    list_ports(service, ports, sizeof(ports));
    const char *only = NULL;
    if (service->ports_count == 1) {
        snprintf(suggestion, sizeof(suggestion), "port: %u", service->ports[0].port);
        only = suggestion;
    }
    WARN(lint, position, "port-not-found", only, "Service %s/%s has no port %u; it has %s",
         string(service->object.namespace), string(service->object.name), port, ports);
}

/* The Service of that name; NULL when there is none, which was told. */
static const struct route_service_object *check_service_name(const struct lint *lint,
                                                             struct bytes namespace,
                                                             struct bytes name,
                                                             struct route_position position)
{
    const struct route_service *service = route_services_find(lint->services, namespace, name);
    if (service == NULL) {
        char suggestion[NAME_BYTES_MAX];
        bool is_found = suggest_service(lint, namespace, name, suggestion, sizeof(suggestion));
        WARN(lint, position, "service-not-found", is_found ? suggestion : NULL,
             "there is no Service %s/%s", string(namespace), string(name));
        return NULL;
    }
    return service->object;
}

/* By sectionName a parentRef means the port of that name. */
static void check_section(const struct lint *lint, const struct route_service_object *service,
                          struct bytes section, struct route_position position)
{
    uint32_t best = ROUTE_TEXT_FAR;
    const char *nearest = NULL;
    for (uint32_t i = 0; i < service->ports_count; i++) {
        struct bytes name = service->ports[i].name;
        if (bytes_equal(name, section)) {
            return;
        }
        if (name.size > 0 && (route_text_is_nearer(section, name, &best) ||
                              (service->ports_count == 1 && nearest == NULL))) {
            nearest = string(name);
        }
    }
    char suggestion[NAME_BYTES_MAX];
    uint64_t number = 0;
    snprintf(suggestion, sizeof(suggestion), "sectionName: %s", nearest == NULL ? "" : nearest);
    if (!error_is(bytes_parse_decimal(section, UINT16_MAX, &number)) &&
        has_port(service, (uint16_t)number)) {
        snprintf(suggestion, sizeof(suggestion), "port: %u", (unsigned)number);
        nearest = suggestion;
    }
    WARN(lint, position, "port-not-found", nearest == NULL ? NULL : suggestion,
         "Service %s/%s has no port named %s", string(service->object.namespace),
         string(service->object.name), string(section));
}

/* What becomes of a reference that leads nowhere. */
enum use {
    USE_BACKEND,
    USE_MIRROR,
    USE_AUTH,
};

static const char *describe_use(enum use use)
{
    switch (use) {
    case USE_BACKEND:
        return "its share is answered 500";
    case USE_MIRROR:
        return "nothing is mirrored to it";
    case USE_AUTH:
        return "requests of this rule are answered 500";
    }
    return "";
}

static void check_backend(const struct lint *lint, const struct route_backend_ref *ref,
                          enum use use)
{
    if (ref->group.size > 0 || !bytes_is(ref->kind, "Service")) {
        WARN(lint, ref->position, "backend-kind",
             bytes_is(ref->kind, "Service") ? "group: \"\"" : NULL,
             "a %s of group \"%s\" cannot be a backend here; %s", string(ref->kind),
             string(ref->group), describe_use(use));
        return;
    }
    const struct route_service_object *service =
        check_service_name(lint, ref->namespace, ref->name, at(ref->position, ref->name_spot));
    if (service != NULL && service->type == ROUTE_SERVICE_EXTERNAL_NAME) {
        WARN(lint, at(ref->position, ref->name_spot), "backend-kind", NULL,
             "Service %s/%s is of type ExternalName, which cannot be a backend here; %s",
             string(ref->namespace), string(ref->name), describe_use(use));
    } else if (service != NULL && ref->port != 0) {
        check_port(lint, service, ref->port, at(ref->position, ref->port_spot));
    }
}

/* The BodyMatch that was probably meant. */
static const char *suggest_body_match(const struct lint *lint, struct bytes name)
{
    uint32_t count = 0;
    const struct route_object *const *objects = route_config_objects(lint->config, &count);
    const char *nearest = NULL;
    uint32_t best = ROUTE_TEXT_FAR;
    for (uint32_t i = 0; i < count; i++) {
        if (objects[i]->kind == ROUTE_KIND_BODY_MATCH &&
            bytes_equal(objects[i]->namespace, lint->route->object.namespace) &&
            route_text_is_nearer(name, objects[i]->name, &best)) {
            nearest = string(objects[i]->name);
        }
    }
    return nearest;
}

static void check_extension(const struct lint *lint, const struct route_filter *filter)
{
    const struct route_extension_ref *ref = filter->extension_ref;
    if (!bytes_is(ref->group, "outrigger.dev") || !bytes_is(ref->kind, "BodyMatch")) {
        WARN(lint, filter->position, "extension-kind", NULL,
             "extension %s of group \"%s\" is not known: requests of this rule are answered 500",
             string(ref->kind), string(ref->group));
        return;
    }
    if (route_config_find(lint->config, ROUTE_KIND_BODY_MATCH, lint->route->object.namespace,
                          ref->name) == NULL) {
        WARN(lint, filter->position, "extension-not-found", suggest_body_match(lint, ref->name),
             "there is no BodyMatch %s/%s: requests of this rule are answered 500",
             string(lint->route->object.namespace), string(ref->name));
    }
}

static void check_filters(const struct lint *lint, const struct route_filter *filters,
                          uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (filters[i].mirror != NULL) {
            check_backend(lint, &filters[i].mirror->backend, USE_MIRROR);
        }
        if (filters[i].external_auth != NULL) {
            check_backend(lint, &filters[i].external_auth->backend, USE_AUTH);
        }
        if (filters[i].extension_ref != NULL) {
            check_extension(lint, &filters[i]);
        }
    }
}

/* ---- One route ---- */

static void check_weights(const struct lint *lint, const struct route_rule *rule)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < rule->backend_refs_count; i++) {
        sum += rule->backend_refs[i].weight;
    }
    if (rule->backend_refs_count > 0 && sum == 0) {
        WARN(lint, rule->backend_refs[0].position, "weights-zero", NULL,
             "all weights of this rule are 0: every request is answered 500");
    }
}

/* Of two entries for one header the first counts, whatever the case (reference 2.3). */
static void check_headers(const struct lint *lint, const struct route_value_match *headers,
                          uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (bytes_equal_nocase(headers[i].name, headers[j].name)) {
                WARN(lint, headers[i].position, "header-repeated", NULL,
                     "header %s is matched above already: this entry is ignored",
                     string(headers[i].name));
                break;
            }
        }
    }
}

static void check_rule(const struct lint *lint, const struct route_rule *rule)
{
    check_weights(lint, rule);
    check_filters(lint, rule->filters, rule->filters_count);
    for (uint32_t i = 0; i < rule->backend_refs_count; i++) {
        check_backend(lint, &rule->backend_refs[i], USE_BACKEND);
        check_filters(lint, rule->backend_refs[i].filters, rule->backend_refs[i].filters_count);
    }
    for (uint32_t i = 0; i < rule->http_matches_count; i++) {
        check_headers(lint, rule->http_matches[i].headers, rule->http_matches[i].headers_count);
    }
    for (uint32_t i = 0; i < rule->grpc_matches_count; i++) {
        check_headers(lint, rule->grpc_matches[i].headers, rule->grpc_matches[i].headers_count);
    }
}

static void check_parent(const struct lint *lint, const struct route_parent_ref *ref)
{
    if (bytes_is(ref->kind, "Gateway") || bytes_is(ref->kind, "ListenerSet")) {
        return; /* somebody else's business */
    }
    if (!bytes_is(ref->kind, "Service")) {
        WARN(lint, ref->position, "parent-kind", NULL,
             "a %s cannot be a parent here: this parentRef is ignored", string(ref->kind));
        return;
    }
    if (ref->group.data == NULL || bytes_is(ref->group, "core")) {
        WARN(lint, ref->position, "parent-group", "group: \"\"",
             "a parentRef to a Service needs group \"\"; an API server would take this one for "
             "another kind");
    } else if (ref->group.size > 0) {
        WARN(lint, ref->position, "parent-group", "group: \"\"",
             "there is no kind Service in group %s", string(ref->group));
        return;
    }
    const struct route_service_object *service =
        check_service_name(lint, ref->namespace, ref->name, at(ref->position, ref->name_spot));
    if (service != NULL && ref->port != 0) {
        check_port(lint, service, ref->port, at(ref->position, ref->port_spot));
    }
    if (service != NULL && ref->section_name.size > 0) {
        check_section(lint, service, ref->section_name, at(ref->position, ref->section_spot));
    }
}

static void check_hostnames(const struct lint *lint, const struct route *route)
{
    bool is_http =
        route->object.kind == ROUTE_KIND_HTTP_ROUTE || route->object.kind == ROUTE_KIND_GRPC_ROUTE;
    for (uint32_t i = 0; is_http && i < route->parent_refs_count; i++) {
        if (route->hostnames_count > 0 && bytes_is(route->parent_refs[i].kind, "Service")) {
            WARN(lint, route->hostnames_position, "hostnames-ignored", NULL,
                 "hostnames have no effect on a route of a Service: match the header `host` "
                 "instead");
            return;
        }
    }
}

static void check_route(struct lint *lint, const struct route *route)
{
    lint->route = route;
    if (route->parent_refs_count == 0) {
        WARN(lint, route->object.name_position, "no-parent", NULL,
             "this route has no parentRefs and applies to nothing");
    }
    for (uint32_t i = 0; i < route->parent_refs_count; i++) {
        check_parent(lint, &route->parent_refs[i]);
    }
    check_hostnames(lint, route);
    for (uint32_t i = 0; i < route->rules_count; i++) {
        check_rule(lint, &route->rules[i]);
    }
}

/* ---- Policies ---- */

static void check_ca_refs(const struct lint *lint, const struct route_ca_ref *refs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_ca_ref *ref = &refs[i];
        if (ref->group.size > 0 || !bytes_is(ref->kind, "ConfigMap")) {
            WARN(lint, ref->position, "ca-kind", "kind: ConfigMap",
                 "a %s cannot hold CA certificates here", string(ref->kind));
            continue;
        }
        const struct route_data *map = (const struct route_data *)route_config_find(
            lint->config, ROUTE_KIND_CONFIG_MAP, ref->namespace, ref->name);
        bool has_key = false;
        for (uint32_t j = 0; map != NULL && j < map->data_count; j++) {
            has_key = has_key || (bytes_is(map->data[j].key, "ca.crt") &&
                                  bytes_trim(map->data[j].value).size > 0);
        }
        if (!has_key) {
            WARN(lint, ref->position, "ca-not-found", NULL,
                 map == NULL ? "there is no ConfigMap %s/%s: connections that need it are refused"
                             : "ConfigMap %s/%s has no key ca.crt: connections that need it are "
                               "refused",
                 string(ref->namespace), string(ref->name));
        }
    }
}

static void check_targets(const struct lint *lint, const struct route_object *policy,
                          const struct route_target_ref *targets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_target_ref *target = &targets[i];
        if (target->group.size > 0 || !bytes_is(target->kind, "Service") ||
            target->name.data == NULL) {
            continue;
        }
        const struct route_service_object *service =
            check_service_name(lint, policy->namespace, target->name, target->position);
        if (service != NULL && target->section_name.size > 0) {
            check_section(lint, service, target->section_name, target->position);
        }
    }
}

static void check_policy(const struct lint *lint, const struct route_object *object)
{
    if (object->kind == ROUTE_KIND_BACKEND_TLS_POLICY) {
        const struct route_backend_tls_policy *policy =
            (const struct route_backend_tls_policy *)object;
        check_targets(lint, object, policy->target_refs, policy->target_refs_count);
        check_ca_refs(lint, policy->ca_refs, policy->ca_refs_count);
    } else if (object->kind == ROUTE_KIND_BACKEND_TRAFFIC_POLICY) {
        const struct route_traffic_policy *policy = (const struct route_traffic_policy *)object;
        check_targets(lint, object, policy->target_refs, policy->target_refs_count);
    } else if (object->kind == ROUTE_KIND_MESH_TLS_POLICY) {
        const struct route_mesh_tls_policy *policy = (const struct route_mesh_tls_policy *)object;
        check_targets(lint, object, policy->target_refs, policy->target_refs_count);
    } else if (object->kind == ROUTE_KIND_MESH_PARAMETERS) {
        const struct route_mesh_parameters *parameters =
            (const struct route_mesh_parameters *)object;
        for (uint32_t i = 0; i < parameters->trust_domains_count; i++) {
            check_ca_refs(lint, parameters->trust_domains[i].ca_refs,
                          parameters->trust_domains[i].ca_refs_count);
        }
        if (!bytes_is(object->name, "default")) {
            WARN(lint, object->name_position, "parameters-name", "name: default",
                 "only the MeshParameters named default are in force");
        }
    }
}

/* ---- Rules that are never chosen ---- */

/* Does every request that has `narrow`'s values have `wide`'s too? */
static bool values_cover(const struct route_value_predicate *wide, uint32_t wide_count,
                         const struct route_value_predicate *narrow, uint32_t narrow_count)
{
    for (uint32_t i = 0; i < wide_count; i++) {
        bool is_found = false;
        for (uint32_t j = 0; j < narrow_count && !is_found; j++) {
            is_found = bytes_equal(wide[i].name, narrow[j].name) &&
                       bytes_equal(wide[i].value, narrow[j].value) &&
                       (wide[i].regex == NULL) == (narrow[j].regex == NULL);
        }
        if (!is_found) {
            return false;
        }
    }
    return true;
}

static bool paths_cover(const struct route_candidate *wide, const struct route_candidate *narrow)
{
    if (wide->type == ROUTE_MATCH_PREFIX && narrow->type == ROUTE_MATCH_REGEX) {
        return wide->path.size == 0; /* what else an expression may match nobody can say */
    }
    if (wide->type == ROUTE_MATCH_PREFIX) {
        return route_path_has_prefix(narrow->path, wide->path);
    }
    return wide->type == narrow->type && bytes_equal(wide->path, narrow->path);
}

/* A gRPC method or service that is absent is any. */
static bool name_covers(struct bytes wide, struct bytes narrow)
{
    return wide.data == NULL || (narrow.data != NULL && bytes_equal(wide, narrow));
}

/* Does `wide` take every request that `narrow` would take? May say no where it is so. */
static bool covers(const struct route_candidate *wide, const struct route_candidate *narrow)
{
    if (wide->body_matches_count > 0 || !name_covers(wide->method, narrow->method) ||
        !values_cover(wide->headers, wide->headers_count, narrow->headers, narrow->headers_count) ||
        !values_cover(wide->query_params, wide->query_params_count, narrow->query_params,
                      narrow->query_params_count)) {
        return false;
    }
    if (wide->kind == ROUTE_KIND_HTTP_ROUTE) {
        return paths_cover(wide, narrow);
    }
    if (wide->kind == ROUTE_KIND_GRPC_ROUTE) {
        return name_covers(wide->service, narrow->service) &&
               (wide->path_regex == NULL) == (narrow->path_regex == NULL) &&
               (wide->method_regex == NULL) == (narrow->method_regex == NULL);
    }
    if (wide->kind == ROUTE_KIND_TLS_ROUTE) {
        return wide->type == narrow->type && bytes_equal(wide->path, narrow->path);
    }
    return true; /* TCPRoute and UDPRoute have no matches: the first takes all */
}

static const char *precedence_reason(enum route_precedence step)
{
    switch (step) {
    case ROUTE_PRECEDENCE_PATH_TYPE:
        return "prefixes go before regular expressions";
    case ROUTE_PRECEDENCE_AGE:
        return "its route is older, or first by namespace and name";
    case ROUTE_PRECEDENCE_RULE:
        return "its rule comes first";
    case ROUTE_PRECEDENCE_MATCH:
        return "it comes first";
    case ROUTE_PRECEDENCE_PATH_LENGTH:
    case ROUTE_PRECEDENCE_METHOD:
    case ROUTE_PRECEDENCE_SERVICE_LENGTH:
    case ROUTE_PRECEDENCE_METHOD_LENGTH:
    case ROUTE_PRECEDENCE_HEADERS:
    case ROUTE_PRECEDENCE_QUERY_PARAMS:
    case ROUTE_PRECEDENCE_BODY:
    case ROUTE_PRECEDENCE_SAME:
    case ROUTE_PRECEDENCE_COUNT:
        break;
    }
    return "it goes before";
}

static void report_shadow(const struct lint *lint, const struct route_service *service,
                          const struct route_candidate *winner, const struct route_candidate *loser)
{
    enum route_precedence step = ROUTE_PRECEDENCE_SAME;
    (void)route_precedence_compare(winner, loser, &step);
    bool is_other = winner->rule->route != loser->rule->route;
    WARN(lint, *loser->position, is_other ? "match-duplicate" : "match-unreachable", NULL,
         "on Service %s this match is never chosen: rule %s of %s %s (%s:%u) takes the same "
         "requests "
         "and %s",
         string(service->reference), string(winner->rule->rule_name), route_kind_name(winner->kind),
         string(winner->rule->route_name), winner->position->file, winner->position->line,
         precedence_reason(step));
}

static void check_shadows(const struct lint *lint, const struct route_service *service,
                          const struct route_rules *rules)
{
    uint32_t count =
        rules->candidates_count < COMPARED_MAX ? rules->candidates_count : COMPARED_MAX;
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (covers(&rules->candidates[j], &rules->candidates[i])) {
                report_shadow(lint, service, &rules->candidates[j], &rules->candidates[i]);
                break;
            }
        }
    }
}

/* Ports with the same attachments share their rules, and are told of once. */
static void check_service(const struct lint *lint, const struct route_service *service)
{
    for (uint32_t i = 0; i < service->ports_count; i++) {
        const struct route_rules *rules = service->ports[i].rules;
        bool is_seen = rules == NULL;
        for (uint32_t j = 0; j < i && !is_seen; j++) {
            is_seen = service->ports[j].rules == rules;
        }
        if (!is_seen) {
            check_shadows(lint, service, rules);
        }
    }
}

/* ---- Conditions ---- */

/* Is it a condition that says more than the lints above? */
static bool is_worth_saying(const struct route_condition *condition)
{
    if (strcmp(condition->type, "Accepted") == 0) {
        /* A missing Service or port is told with a suggestion already; a conflict under its own
         * type. */
        return !condition->status && strcmp(condition->reason, "Conflicted") != 0 &&
               strstr(condition->message, "there is no") == NULL &&
               strstr(condition->message, "has no such") == NULL;
    }
    if (strcmp(condition->type, "ResolvedRefs") == 0) {
        return !condition->status && (strcmp(condition->reason, "RefNotPermitted") == 0 ||
                                      strcmp(condition->reason, "UnsupportedProtocol") == 0);
    }
    return condition->status; /* Conflicted, PartiallyInvalid */
}

static void report_conditions(const struct lint *lint, uint32_t place)
{
    uint32_t count = 0;
    const struct route_condition *conditions = route_config_conditions(lint->config, place, &count);
    for (uint32_t i = 0; i < count; i++) {
        const struct route_condition *condition = &conditions[i];
        if (is_worth_saying(condition)) {
            WARN(lint, condition->position, "condition", NULL, "%s=%s (%s) for %s: %s",
                 condition->type, condition->status ? "True" : "False", condition->reason,
                 string(condition->parent), condition->message);
        }
    }
}

void route_lint(const struct route_config *config, struct route_diagnostics *diagnostics)
{
    uint32_t names_compared = 0;
    struct lint lint = {
        .names_compared = &names_compared,
        .config = config,
        .services = route_config_services(config),
        .diagnostics = diagnostics,
    };
    uint32_t count = 0;
    const struct route_object *const *objects = route_config_objects(config, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (objects[i]->kind >= ROUTE_KIND_HTTP_ROUTE && objects[i]->kind <= ROUTE_KIND_UDP_ROUTE) {
            check_route(&lint, (const struct route *)objects[i]);
        } else {
            check_policy(&lint, objects[i]);
        }
    }
    for (uint32_t i = 0; i < route_services_count(lint.services); i++) {
        check_service(&lint, route_services_at(lint.services, i));
    }
    for (uint32_t i = 0; i < count; i++) {
        report_conditions(&lint, i);
    }
    route_diagnostics_sort(diagnostics);
}

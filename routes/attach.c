/*
 * Attachment in three passes: every parentRef finds its Service and ports (one `claim` for each
 * port); the claims of a port are grouped by the route's namespace, and within a group the kind of
 * highest precedence wins; then conditions are said, route by route, from what the claims have
 * become.
 */
#include "routes/attach.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

/* One parentRef of a route. */
struct reference {
    const struct route *route;
    const struct route_parent_ref *ref;
    const struct route_service *service; /* NULL: none, and `refusal` says why */
    const char *refusal;                 /* the message of Accepted=False */
    const char *reason;
    uint32_t claims; /* ports it was attached to */
    uint32_t losses; /* of them, where another kind won */
    enum route_kind winner;
};

/* One port that a reference is attached to. */
struct claim {
    struct reference *reference;
    uint32_t service_index;
    uint32_t port_index;
    bool is_named; /* by port or sectionName */
    bool has_lost;
};

/* What a Service is compiled from. */
struct attached {
    struct route_table_port *ports;
    uint32_t ports_count;
    uint8_t *declares_http; /* for each port of the Service */
};

struct route_attachments {
    struct route_attach_options options;
    const struct route_index *index;
    const struct route_services *services;
    const struct route_object *const *objects;
    uint32_t objects_count;
    const struct route_reference_grant **grants;
    uint32_t grants_count;
    struct arena *arena;
    struct reference *references;
    uint32_t references_count;
    struct claim *claims;
    uint32_t claims_count;
    uint32_t claims_capacity;
    struct attached *attached; /* for each Service */
    struct route_condition *conditions;
    uint32_t conditions_count;
    uint32_t conditions_capacity;
    struct route_table_resolver resolver;
    bool is_out_of_memory;
};

static bool text_is(struct bytes text, const char *word)
{
    return bytes_equal(text, bytes_from_string(word));
}

static bool is_route(enum route_kind kind)
{
    return kind >= ROUTE_KIND_HTTP_ROUTE && kind <= ROUTE_KIND_UDP_ROUTE;
}

/* Text in the arena; "" when there is no memory, which the caller of route_attach learns. */
#define SAY(attachments, ...)                                                                      \
    keep_text(attachments, arena_format((attachments)->arena, __VA_ARGS__))

static const char *keep_text(struct route_attachments *attachments, const char *text)
{
    if (text == NULL) {
        attachments->is_out_of_memory = true;
        return "";
    }
    return text;
}

/* Double an array in the arena. */
static void *grow(struct route_attachments *attachments, void *items, uint32_t count,
                  uint32_t *capacity, size_t size)
{
    if (count < *capacity) {
        return items;
    }
    uint32_t wider = *capacity == 0 ? 64 : *capacity * 2;
    void *memory = arena_alloc(attachments->arena, (size_t)wider * size);
    if (memory == NULL) {
        attachments->is_out_of_memory = true;
        return NULL;
    }
    if (count > 0) {
        memcpy(memory, items, (size_t)count * size);
    }
    *capacity = wider;
    return memory;
}

/* ---- Finding the parent ---- */

/* Does the reference name a core Service? A group that is absent, "" or "core" does (design section
 * 5). */
static bool names_service(const struct route_parent_ref *ref)
{
    return text_is(ref->kind, "Service") && (ref->group.size == 0 || text_is(ref->group, "core"));
}

static void refuse(struct reference *reference, const char *reason, const char *message)
{
    reference->service = NULL;
    reference->reason = reason;
    reference->refusal = message;
}

static bool serves_transport(const struct route_service_port *port, enum route_kind kind)
{
    return port->transport ==
           (kind == ROUTE_KIND_UDP_ROUTE ? ROUTE_TRANSPORT_UDP : ROUTE_TRANSPORT_TCP);
}

/* "80 (http), 443" for messages. */
static const char *list_ports(struct route_attachments *attachments,
                              const struct route_service *service)
{
    char text[256];
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < service->ports_count && used < sizeof(text); i++) {
        const struct route_service_port *port = service->ports[i].source;
        int written = snprintf(text + used, sizeof(text) - used, "%s%u%s%s%s", i == 0 ? "" : ", ",
                               port->port, port->name.size > 0 ? " (" : "",
                               port->name.size > 0 ? (const char *)port->name.data : "",
                               port->name.size > 0 ? ")" : "");
        used += written < 0 ? sizeof(text) : (size_t)written;
    }
    return used == 0 ? "none" : SAY(attachments, "%s", text);
}

static void add_claim(struct route_attachments *attachments, struct reference *reference,
                      uint32_t service_index, uint32_t port_index)
{
    struct claim *claims = grow(attachments, attachments->claims, attachments->claims_count,
                                &attachments->claims_capacity, sizeof(*claims));
    if (claims == NULL) {
        return;
    }
    attachments->claims = claims;
    claims[attachments->claims_count++] = (struct claim){
        .reference = reference,
        .service_index = service_index,
        .port_index = port_index,
        .is_named = reference->ref->port != 0 || reference->ref->section_name.size > 0,
    };
    reference->claims++;
}

/* Attach to every port that the reference means. */
static void claim_ports(struct route_attachments *attachments, struct reference *reference,
                        uint32_t service_index)
{
    const struct route_parent_ref *ref = reference->ref;
    const struct route_service *service = reference->service;
    enum route_kind kind = reference->route->object.kind;
    bool is_named = ref->port != 0 || ref->section_name.size > 0;
    bool is_http = kind == ROUTE_KIND_HTTP_ROUTE || kind == ROUTE_KIND_GRPC_ROUTE;
    uint32_t opaque = 0;
    for (uint32_t i = 0; i < service->ports_count; i++) {
        const struct route_port *port = &service->ports[i];
        bool is_meant =
            serves_transport(port->source, kind) &&
            (ref->port == 0 || ref->port == port->source->port) &&
            (ref->section_name.size == 0 || bytes_equal(ref->section_name, port->source->name));
        if (is_meant && !is_named && is_http && route_protocol_is_opaque(port->protocol)) {
            opaque++; /* design section 5: the rest passes through */
        } else if (is_meant) {
            add_claim(attachments, reference, service_index, i);
        }
    }
    if (reference->claims > 0) {
        return;
    }
    if (opaque > 0) {
        refuse(reference, "NoMatchingParent",
               SAY(attachments, "every port of the Service is declared as opaque; name one by port "
                                "or sectionName if it speaks HTTP"));
        return;
    }
    refuse(reference, "NoMatchingParent",
           SAY(attachments, "Service %s/%s has no such %s port; its ports: %s",
               (const char *)ref->namespace.data, (const char *)ref->name.data,
               kind == ROUTE_KIND_UDP_ROUTE ? "UDP" : "TCP", list_ports(attachments, service)));
}

/* Is there a rule that could be served at all? */
static uint32_t count_usable(const struct route *route)
{
    uint32_t usable = 0;
    for (uint32_t i = 0; i < route->rules_count; i++) {
        usable += route_rule_is_usable(&route->rules[i], NULL, NULL);
    }
    return usable;
}

static bool has_session_rule(const struct route *route)
{
    for (uint32_t i = 0; i < route->rules_count; i++) {
        if (route->rules[i].session_persistence != NULL) {
            return true;
        }
    }
    return false;
}

/* The reason to refuse a Service as a parent, or NULL. */
static const char *judge_parent(struct route_attachments *attachments,
                                const struct reference *reference, uint32_t usable)
{
    const struct route *route = reference->route;
    const struct route_service_object *parent = reference->service->object;
    if (parent->type == ROUTE_SERVICE_EXTERNAL_NAME || parent->is_headless) {
        return "NoMatchingParent";
    }
    if (route->object.kind == ROUTE_KIND_UDP_ROUTE && !attachments->options.can_udp) {
        return "UnsupportedProtocol";
    }
    if (route->rules_count > 0 && usable == 0) {
        return "UnsupportedValue";
    }
    if (parent->has_session_affinity && has_session_rule(route)) {
        return "UnsupportedValue";
    }
    return NULL;
}

static const char *describe_refusal(struct route_attachments *attachments,
                                    const struct reference *reference)
{
    const struct route *route = reference->route;
    const struct route_service_object *parent = reference->service->object;
    if (parent->type == ROUTE_SERVICE_EXTERNAL_NAME) {
        return "a Service of type ExternalName has no ClusterIP that could be dialled";
    }
    if (parent->is_headless) {
        return "a headless Service has no ClusterIP that could be dialled";
    }
    if (route->object.kind == ROUTE_KIND_UDP_ROUTE && !attachments->options.can_udp) {
        return "UDP is not intercepted here (outrigger intercept --udp)";
    }
    if (parent->has_session_affinity && has_session_rule(route)) {
        return "sessionPersistence excludes sessionAffinity of the Service";
    }
    struct route_regex_fault fault;
    const struct route_position *position = NULL;
    CHECK(!route_rule_is_usable(&route->rules[0], &fault, &position));
    return SAY(attachments, "no rule can be served; the first: %s (line %u)", fault.text,
               position->line);
}

/* Find the Service of a reference and attach, or note why not. */
static void resolve_reference(struct route_attachments *attachments, struct reference *reference,
                              uint32_t usable)
{
    const struct route_parent_ref *ref = reference->ref;
    if (!names_service(ref)) {
        refuse(reference, "NoMatchingParent",
               SAY(attachments, "there is no kind Service in group %s; the core group is \"\"",
                   (const char *)ref->group.data));
        return;
    }
    const struct route_service *service =
        route_services_find(attachments->services, ref->namespace, ref->name);
    if (service == NULL) {
        refuse(reference, "NoMatchingParent",
               SAY(attachments, "there is no Service %s/%s", (const char *)ref->namespace.data,
                   (const char *)ref->name.data));
        return;
    }
    reference->service = service;
    const char *reason = judge_parent(attachments, reference, usable);
    if (reason != NULL) {
        refuse(reference, reason, describe_refusal(attachments, reference));
        return;
    }
    const struct route_service *first = route_services_at(attachments->services, 0);
    claim_ports(attachments, reference, (uint32_t)(service - first));
}

/* Gateways and other people's parents are none of our business, and say nothing. */
static bool is_our_parent(const struct route_parent_ref *ref)
{
    return text_is(ref->kind, "Service");
}

static struct error resolve_references(struct route_attachments *attachments)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < attachments->objects_count; i++) {
        if (is_route(attachments->objects[i]->kind)) {
            most += ((const struct route *)attachments->objects[i])->parent_refs_count;
        }
    }
    attachments->references =
        arena_alloc_zero(attachments->arena, most, sizeof(*attachments->references));
    if (attachments->references == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < attachments->objects_count; i++) {
        if (!is_route(attachments->objects[i]->kind)) {
            continue;
        }
        const struct route *route = (const struct route *)attachments->objects[i];
        uint32_t usable = count_usable(route);
        for (uint32_t j = 0; j < route->parent_refs_count; j++) {
            if (is_our_parent(&route->parent_refs[j])) {
                struct reference *reference =
                    &attachments->references[attachments->references_count++];
                *reference = (struct reference){.route = route, .ref = &route->parent_refs[j]};
                resolve_reference(attachments, reference, usable);
            }
        }
    }
    return attachments->is_out_of_memory ? error_make(ERROR_NO_MEMORY, 0) : OK;
}

/* ---- Precedence of kinds, producer and consumer ---- */

/* Claims of one port side by side, of one namespace side by side within it, the winning kind first.
 */
static int compare_claims(const void *left, const void *right)
{
    const struct claim *a = left;
    const struct claim *b = right;
    if (a->service_index != b->service_index) {
        return a->service_index < b->service_index ? -1 : 1;
    }
    if (a->port_index != b->port_index) {
        return a->port_index < b->port_index ? -1 : 1;
    }
    int order =
        bytes_compare(a->reference->route->object.namespace, b->reference->route->object.namespace);
    if (order != 0) {
        return order;
    }
    /* The order of the enum, less that GRPCRoute goes before HTTPRoute. */
    static const uint8_t rank[ROUTE_KIND_COUNT] = {
        [ROUTE_KIND_GRPC_ROUTE] = 0, [ROUTE_KIND_HTTP_ROUTE] = 1, [ROUTE_KIND_TLS_ROUTE] = 2,
        [ROUTE_KIND_TCP_ROUTE] = 3,  [ROUTE_KIND_UDP_ROUTE] = 4,
    };
    int difference =
        rank[a->reference->route->object.kind] - rank[b->reference->route->object.kind];
    if (difference != 0) {
        return difference;
    }
    return route_object_compare_age(&a->reference->route->object, &b->reference->route->object);
}

static bool same_port(const struct claim *a, const struct claim *b)
{
    return a->service_index == b->service_index && a->port_index == b->port_index;
}

static bool same_group(const struct claim *a, const struct claim *b)
{
    return same_port(a, b) && bytes_equal(a->reference->route->object.namespace,
                                          b->reference->route->object.namespace);
}

/* All claims of one port, one namespace: the first has the winning kind. Returns where they end. */
static uint32_t settle_group(struct route_attachments *attachments, uint32_t begin)
{
    struct claim *first = &attachments->claims[begin];
    enum route_kind winner = first->reference->route->object.kind;
    uint32_t end = begin;
    for (; end < attachments->claims_count && same_group(first, &attachments->claims[end]); end++) {
        struct claim *claim = &attachments->claims[end];
        if (claim->reference->route->object.kind != winner) {
            claim->has_lost = true;
            claim->reference->losses++;
            claim->reference->winner = winner;
        }
    }
    return end;
}

/* The routes of the group that begins at `begin`, as the table's source. */
static void publish_group(struct route_attachments *attachments, uint32_t begin, uint32_t end,
                          enum route_set set)
{
    const struct claim *first = &attachments->claims[begin];
    struct attached *attached = &attachments->attached[first->service_index];
    const struct route_service *service =
        route_services_at(attachments->services, first->service_index);
    if (attached->ports == NULL) {
        attached->ports =
            arena_alloc_zero(attachments->arena, service->ports_count, sizeof(*attached->ports));
        attached->declares_http = arena_alloc_zero(attachments->arena, service->ports_count, 1);
    }
    const struct route **routes =
        arena_alloc_zero(attachments->arena, end - begin, sizeof(const struct route *));
    if (attached->ports == NULL || attached->declares_http == NULL || routes == NULL) {
        attachments->is_out_of_memory = true;
        return;
    }
    enum route_kind kind = first->reference->route->object.kind;
    uint32_t count = 0;
    for (uint32_t i = begin; i < end; i++) {
        const struct claim *claim = &attachments->claims[i];
        if (claim->has_lost) {
            continue;
        }
        /* Two references of one route may name the same port, by number and by name. */
        if (count == 0 || routes[count - 1] != claim->reference->route) {
            routes[count++] = claim->reference->route;
        }
        bool is_http = kind == ROUTE_KIND_HTTP_ROUTE || kind == ROUTE_KIND_GRPC_ROUTE;
        if (is_http && claim->is_named) {
            attached->declares_http[claim->port_index] = 1;
        }
    }
    attached->ports[attached->ports_count++] = (struct route_table_port){
        .port = service->ports[first->port_index].source->port,
        .kind = kind,
        .set = set,
        .routes = routes,
        .routes_count = count,
    };
}

/* The groups of one port: consumer routes of our namespace, else the producer's. Returns where the
 * port's claims end. */
static uint32_t settle_port(struct route_attachments *attachments, uint32_t begin)
{
    const struct claim *first = &attachments->claims[begin];
    struct bytes producer =
        route_services_at(attachments->services, first->service_index)->object->object.namespace;
    uint32_t chosen = UINT32_MAX;
    uint32_t chosen_end = 0;
    enum route_set set = ROUTE_SET_PRODUCER;
    uint32_t at = begin;
    while (at < attachments->claims_count && same_port(first, &attachments->claims[at])) {
        uint32_t end = settle_group(attachments, at);
        struct bytes namespace = attachments->claims[at].reference->route->object.namespace;
        bool is_producer = bytes_equal(namespace, producer);
        bool is_ours = attachments->options.namespace.data != NULL &&
                       bytes_equal(namespace, attachments->options.namespace);
        if ((is_producer && chosen == UINT32_MAX) || (is_ours && !is_producer)) {
            chosen = at;
            chosen_end = end;
            set = is_producer ? ROUTE_SET_PRODUCER : ROUTE_SET_CONSUMER;
        }
        at = end;
    }
    if (chosen != UINT32_MAX) {
        publish_group(attachments, chosen, chosen_end, set);
    }
    return at;
}

static struct error settle(struct route_attachments *attachments)
{
    if (attachments->claims_count > 0) {
        qsort(attachments->claims, attachments->claims_count, sizeof(*attachments->claims),
              compare_claims);
    }
    uint32_t services = route_services_count(attachments->services);
    attachments->attached =
        arena_alloc_zero(attachments->arena, services, sizeof(*attachments->attached));
    if (attachments->attached == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    uint32_t at = 0;
    while (at < attachments->claims_count) {
        at = settle_port(attachments, at);
    }
    return attachments->is_out_of_memory ? error_make(ERROR_NO_MEMORY, 0) : OK;
}

/* ---- Backends ---- */

static struct error collect_grants(struct route_attachments *attachments)
{
    for (uint32_t i = 0; i < attachments->objects_count; i++) {
        attachments->grants_count += attachments->objects[i]->kind == ROUTE_KIND_REFERENCE_GRANT;
    }
    attachments->grants = arena_alloc_zero(attachments->arena, attachments->grants_count,
                                           sizeof(const struct route_reference_grant *));
    if (attachments->grants == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < attachments->objects_count; i++) {
        if (attachments->objects[i]->kind == ROUTE_KIND_REFERENCE_GRANT) {
            attachments->grants[count++] =
                (const struct route_reference_grant *)attachments->objects[i];
        }
    }
    return OK;
}

/* Does a ReferenceGrant in the target's namespace allow the reference? */
static bool is_granted(const struct route_attachments *attachments, const struct route *route,
                       const struct route_backend_ref *ref)
{
    for (uint32_t i = 0; i < attachments->grants_count; i++) {
        const struct route_reference_grant *grant = attachments->grants[i];
        if (!bytes_equal(grant->object.namespace, ref->namespace)) {
            continue;
        }
        bool is_from = false;
        for (uint32_t j = 0; j < grant->from_count; j++) {
            is_from = is_from || (bytes_equal(grant->from[j].group, route->object.group) &&
                                  bytes_equal(grant->from[j].kind, route->object.kind_name) &&
                                  bytes_equal(grant->from[j].namespace, route->object.namespace));
        }
        for (uint32_t j = 0; is_from && j < grant->to_count; j++) {
            if (bytes_equal(grant->to[j].group, ref->group) &&
                bytes_equal(grant->to[j].kind, ref->kind) &&
                (grant->to[j].name.data == NULL || bytes_equal(grant->to[j].name, ref->name))) {
                return true;
            }
        }
    }
    return false;
}

/* Is TLS to this port configured? Then wss can be spoken to it. */
static bool has_backend_tls(const struct route_attachments *attachments,
                            const struct route_service_port *port, struct bytes namespace,
                            struct bytes name)
{
    for (uint32_t i = 0; i < attachments->objects_count; i++) {
        const struct route_object *object = attachments->objects[i];
        if (object->kind != ROUTE_KIND_BACKEND_TLS_POLICY ||
            !bytes_equal(object->namespace, namespace)) {
            continue;
        }
        const struct route_backend_tls_policy *policy =
            (const struct route_backend_tls_policy *)object;
        for (uint32_t j = 0; j < policy->target_refs_count; j++) {
            const struct route_target_ref *target = &policy->target_refs[j];
            if (bytes_equal(target->name, name) &&
                (target->section_name.size == 0 || bytes_equal(target->section_name, port->name))) {
                return true;
            }
        }
    }
    return false;
}

/* Reference 2.24: which routes can speak what the port declares. */
static bool speaks(const struct route_attachments *attachments, const struct route *route,
                   const struct route_service_port *port, const struct route_backend_ref *ref)
{
    bool is_wss = bytes_equal_nocase(port->app_protocol, BYTES("kubernetes.io/wss"));
    bool is_ws = bytes_equal_nocase(port->app_protocol, BYTES("kubernetes.io/ws"));
    if (route->object.kind == ROUTE_KIND_GRPC_ROUTE) {
        return !is_ws && !is_wss;
    }
    if (route->object.kind == ROUTE_KIND_HTTP_ROUTE && is_wss) {
        return has_backend_tls(attachments, port, ref->namespace, ref->name);
    }
    return true;
}

static enum route_backend_fault resolve_backend(void *argument, const struct route *route,
                                                const struct route_backend_ref *ref)
{
    const struct route_attachments *attachments = argument;
    if (ref->group.size > 0 || !text_is(ref->kind, "Service")) {
        return ROUTE_BACKEND_KIND_UNSUPPORTED;
    }
    if (attachments->options.require_reference_grants &&
        !bytes_equal(ref->namespace, route->object.namespace) &&
        !is_granted(attachments, route, ref)) {
        return ROUTE_BACKEND_NOT_PERMITTED;
    }
    const struct route_object *object =
        route_index_find(attachments->index, ROUTE_KIND_SERVICE, ref->namespace, ref->name);
    if (object == NULL) {
        return ROUTE_BACKEND_NOT_FOUND;
    }
    const struct route_service_object *service = (const struct route_service_object *)object;
    if (service->type == ROUTE_SERVICE_EXTERNAL_NAME) {
        return ROUTE_BACKEND_KIND_UNSUPPORTED; /* the proxy never resolves names */
    }
    for (uint32_t i = 0; i < service->ports_count; i++) {
        const struct route_service_port *port = &service->ports[i];
        if (port->port == ref->port && serves_transport(port, route->object.kind)) {
            return speaks(attachments, route, port, ref) ? ROUTE_BACKEND_VALID
                                                         : ROUTE_BACKEND_PROTOCOL_UNSUPPORTED;
        }
    }
    return ROUTE_BACKEND_PORT_NOT_FOUND;
}

static const struct route_body_match *resolve_body_match(void *argument, struct bytes namespace,
                                                         struct bytes name)
{
    const struct route_attachments *attachments = argument;
    return (const struct route_body_match *)route_index_find(
        attachments->index, ROUTE_KIND_BODY_MATCH, namespace, name);
}

/* ---- Conditions ---- */

static void add_condition(struct route_attachments *attachments, struct route_condition condition)
{
    struct route_condition *conditions =
        grow(attachments, attachments->conditions, attachments->conditions_count,
             &attachments->conditions_capacity, sizeof(*conditions));
    if (conditions == NULL) {
        return;
    }
    attachments->conditions = conditions;
    conditions[attachments->conditions_count++] = condition;
}

static uint8_t *put(uint8_t *out, struct bytes text)
{
    if (text.size > 0) {
        memcpy(out, text.data, text.size);
    }
    return out + text.size;
}

/* "Service shop/web:80#http"; put together by hand, as there is one for every reference of every
 * route. */
static struct bytes name_parent(struct route_attachments *attachments,
                                const struct route_parent_ref *ref)
{
    enum {
        REST_BYTES = 32
    }; /* blank, slash, colon, digits of the port, '#' and NUL */

    size_t most = ref->kind.size + ref->namespace.size + ref->name.size + ref->section_name.size;
    uint8_t *text = arena_alloc(attachments->arena, most + REST_BYTES);
    if (text == NULL) {
        attachments->is_out_of_memory = true;
        return BYTES("");
    }
    uint8_t *end = put(put(text, ref->kind), BYTES(" "));
    end = put(put(put(end, ref->namespace), BYTES("/")), ref->name);
    if (ref->port != 0) {
        end = put(end, BYTES(":"));
        end += bytes_print_decimal(ref->port, end);
    }
    if (ref->section_name.size > 0) {
        end = put(put(end, BYTES("#")), ref->section_name);
    }
    *end = '\0';
    return bytes_make(text, (size_t)(end - text));
}

/* The reason and text for a backend that cannot be served, as Gateway API names it. */
static const char *fault_reason(enum route_backend_fault fault)
{
    switch (fault) {
    case ROUTE_BACKEND_VALID:
        return "ResolvedRefs";
    case ROUTE_BACKEND_KIND_UNSUPPORTED:
        return "InvalidKind";
    case ROUTE_BACKEND_NOT_FOUND:
    case ROUTE_BACKEND_PORT_NOT_FOUND:
        return "BackendNotFound";
    case ROUTE_BACKEND_NOT_PERMITTED:
        return "RefNotPermitted";
    case ROUTE_BACKEND_PROTOCOL_UNSUPPORTED:
        return "UnsupportedProtocol";
    case ROUTE_BACKEND_FILTER_UNSUPPORTED: /* table.c's own finding, never asked of us */
        break;
    }
    return "ResolvedRefs";
}

static const char *fault_text(struct route_attachments *attachments,
                              const struct route_backend_ref *ref, enum route_backend_fault fault)
{
    const char *namespace = (const char *)ref->namespace.data;
    const char *name = (const char *)ref->name.data;
    switch (fault) {
    case ROUTE_BACKEND_VALID:
        return "";
    case ROUTE_BACKEND_KIND_UNSUPPORTED:
        return SAY(attachments, "%s %s/%s cannot be a backend here; a Service with endpoints can",
                   (const char *)ref->kind.data, namespace, name);
    case ROUTE_BACKEND_NOT_FOUND:
        return SAY(attachments, "there is no Service %s/%s", namespace, name);
    case ROUTE_BACKEND_PORT_NOT_FOUND:
        return SAY(attachments, "Service %s/%s has no port %u", namespace, name, ref->port);
    case ROUTE_BACKEND_NOT_PERMITTED:
        return SAY(attachments, "no ReferenceGrant in %s allows a reference to Service %s",
                   namespace, name);
    case ROUTE_BACKEND_PROTOCOL_UNSUPPORTED:
        return SAY(attachments,
                   "port %u of Service %s/%s has an appProtocol that this kind of "
                   "route does not speak",
                   ref->port, namespace, name);
    case ROUTE_BACKEND_FILTER_UNSUPPORTED:
        break;
    }
    return "";
}

/* The first reference of a route that does not resolve. */
struct unresolved {
    const char *reason;
    const char *message;
    struct route_position position;
};

static bool judge_backend(struct route_attachments *attachments, const struct route *route,
                          const struct route_backend_ref *ref, struct unresolved *ret_unresolved)
{
    enum route_backend_fault fault = resolve_backend(attachments, route, ref);
    if (fault == ROUTE_BACKEND_VALID) {
        return true;
    }
    *ret_unresolved = (struct unresolved){fault_reason(fault), fault_text(attachments, ref, fault),
                                          ref->position};
    return false;
}

/* References within filters: mirrors, external authorisation, our own extensions. */
static bool judge_filters(struct route_attachments *attachments, const struct route *route,
                          const struct route_filter *filters, uint32_t count,
                          struct unresolved *ret_unresolved)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_filter *filter = &filters[i];
        if (filter->mirror != NULL &&
            !judge_backend(attachments, route, &filter->mirror->backend, ret_unresolved)) {
            return false;
        }
        if (filter->external_auth != NULL &&
            !judge_backend(attachments, route, &filter->external_auth->backend, ret_unresolved)) {
            return false;
        }
        const struct route_extension_ref *extension = filter->extension_ref;
        if (extension == NULL) {
            continue;
        }
        bool is_known =
            text_is(extension->group, "outrigger.dev") && text_is(extension->kind, "BodyMatch");
        if (!is_known ||
            resolve_body_match(attachments, route->object.namespace, extension->name) == NULL) {
            *ret_unresolved = (struct unresolved){
                is_known ? "BackendNotFound" : "InvalidKind",
                SAY(attachments, "there is no %s %s/%s; requests of its rule are answered 500",
                    (const char *)extension->kind.data, (const char *)route->object.namespace.data,
                    (const char *)extension->name.data),
                filter->position};
            return false;
        }
    }
    return true;
}

static bool judge_references(struct route_attachments *attachments, const struct route *route,
                             struct unresolved *ret_unresolved)
{
    for (uint32_t i = 0; i < route->rules_count; i++) {
        const struct route_rule *rule = &route->rules[i];
        if (!judge_filters(attachments, route, rule->filters, rule->filters_count,
                           ret_unresolved)) {
            return false;
        }
        for (uint32_t j = 0; j < rule->backend_refs_count; j++) {
            const struct route_backend_ref *ref = &rule->backend_refs[j];
            if (!judge_backend(attachments, route, ref, ret_unresolved) ||
                !judge_filters(attachments, route, ref->filters, ref->filters_count,
                               ret_unresolved)) {
                return false;
            }
        }
    }
    return true;
}

/* Accepted: the message of a route that is in force, or in force for others. */
static const char *describe_acceptance(struct route_attachments *attachments,
                                       const struct reference *reference)
{
    struct bytes ours = attachments->options.namespace;
    struct bytes route = reference->route->object.namespace;
    struct bytes service = reference->service->object->object.namespace;
    if (ours.data != NULL && !bytes_equal(route, service) && !bytes_equal(route, ours)) {
        return SAY(attachments, "applies to clients in namespace %s only, and not here",
                   (const char *)route.data);
    }
    return bytes_equal(route, service) ? "producer route" : "consumer route";
}

static void say_accepted(struct route_attachments *attachments, const struct reference *reference,
                         struct route_condition base)
{
    base.type = "Accepted";
    base.position = reference->ref->position;
    if (reference->service == NULL) {
        base.reason = reference->reason;
        base.message = reference->refusal;
        add_condition(attachments, base);
        return;
    }
    bool has_lost_all = reference->losses == reference->claims;
    base.status = !has_lost_all;
    base.reason = has_lost_all ? "Conflicted" : "Accepted";
    base.message = has_lost_all ? "a kind of higher precedence is attached to the same ports"
                                : describe_acceptance(attachments, reference);
    add_condition(attachments, base);
    if (reference->losses == 0) {
        return;
    }
    base.type = "Conflicted";
    base.status = true;
    base.reason = "Conflicted";
    base.message = SAY(attachments, "%u of %u ports follow %ss instead", reference->losses,
                       reference->claims, route_kind_name(reference->winner));
    add_condition(attachments, base);
}

/* PartiallyInvalid: some rules cannot be served, and are left out. */
static void say_partial(struct route_attachments *attachments, const struct route *route,
                        struct route_condition base)
{
    uint32_t dropped = 0;
    struct route_regex_fault first = {0};
    for (uint32_t i = 0; i < route->rules_count; i++) {
        struct route_regex_fault fault;
        const struct route_position *position = NULL;
        if (route_rule_is_usable(&route->rules[i], &fault, &position)) {
            continue;
        }
        if (dropped++ == 0) {
            first = fault;
            base.position = *position;
        }
    }
    if (dropped == 0 || dropped == route->rules_count) {
        return;
    }
    base.type = "PartiallyInvalid";
    base.status = true;
    base.reason = "UnsupportedValue";
    base.message = SAY(attachments, "Dropped Rule: %u of %u rules cannot be served; the first: %s",
                       dropped, route->rules_count, first.text);
    add_condition(attachments, base);
}

static void say_conditions(struct route_attachments *attachments)
{
    const struct route *judged = NULL;
    struct unresolved unresolved = {0};
    bool is_resolved = true;
    for (uint32_t i = 0; i < attachments->references_count; i++) {
        const struct reference *reference = &attachments->references[i];
        const struct route *route = reference->route;
        CHECK(route != NULL);
        if (route != judged) {
            is_resolved = judge_references(attachments, route, &unresolved);
            judged = route;
        }
        struct route_condition base = {.object = &route->object,
                                       .parent = name_parent(attachments, reference->ref)};
        say_accepted(attachments, reference, base);
        if (reference->service == NULL) {
            continue; /* not attached: the rest says nothing */
        }
        base.type = "ResolvedRefs";
        base.status = is_resolved;
        base.reason = is_resolved ? "ResolvedRefs" : unresolved.reason;
        base.message = is_resolved ? "" : unresolved.message;
        base.position = is_resolved ? reference->ref->position : unresolved.position;
        add_condition(attachments, base);
        say_partial(attachments, route, base);
    }
}

/* ---- Entry points ---- */

FALLIBLE route_attach(const struct route_attach_options *options,
                      const struct route_object *const *objects, uint32_t objects_count,
                      const struct route_index *index, const struct route_services *services,
                      struct arena *arena, struct route_attachments **ret_attachments)
{
    struct route_attachments *attachments = arena_alloc_zero(arena, 1, sizeof(*attachments));
    if (attachments == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    attachments->options = *options;
    attachments->index = index;
    attachments->services = services;
    attachments->objects = objects;
    attachments->objects_count = objects_count;
    attachments->arena = arena;
    attachments->resolver = (struct route_table_resolver){
        .argument = attachments,
        .backend = resolve_backend,
        .body_match = resolve_body_match,
    };
    TRY(collect_grants(attachments));
    TRY(resolve_references(attachments));
    TRY(settle(attachments));
    say_conditions(attachments);
    if (attachments->is_out_of_memory) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *ret_attachments = attachments;
    return OK;
}

const struct route_condition *
route_attachments_conditions(const struct route_attachments *attachments, uint32_t *ret_count)
{
    *ret_count = attachments->conditions_count;
    return attachments->conditions;
}

const struct route_table_port *route_attachments_ports(const struct route_attachments *attachments,
                                                       uint32_t service_index, uint32_t *ret_count)
{
    *ret_count = attachments->attached[service_index].ports_count;
    return attachments->attached[service_index].ports;
}

bool route_attachments_declares_http(const struct route_attachments *attachments,
                                     uint32_t service_index, uint32_t port_index)
{
    const struct attached *attached = &attachments->attached[service_index];
    return attached->declares_http != NULL && attached->declares_http[port_index] != 0;
}

const struct route_table_resolver *
route_attachments_resolver(const struct route_attachments *attachments)
{
    return &attachments->resolver;
}

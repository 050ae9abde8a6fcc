/*
 * Attachment in three passes: every parentRef finds its Service and ports (one `claim` for each
 * port); the claims of a port are grouped by the route's namespace, and within a group the kind of
 * highest precedence wins; then conditions are said, route by route, from what the claims have
 * become.
 *
 * What a route has become is its verdict, which keeps the names that it was made from (changes.h)
 * and is shared with the next configuration while none of them changes. The claims of a Service are
 * settled again, all of them, when the Service or one of them is new.
 */
#include "routes/attach.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "routes/service.h"

enum {
    VERDICT_BYTES_MAX = 16 << 20
};

/* One parentRef of a route. */
struct reference {
    const struct route *route;
    const struct route_parent_ref *ref;
    const struct route_service_object *service; /* NULL: none, and `refusal` says why */
    uint64_t service_name; /* its route_name_hash, whether or not it is there */
    uint32_t service_place;
    const char *refusal; /* the message of Accepted=False */
    const char *reason;
    uint32_t claims; /* ports it was attached to */
    uint32_t losses; /* of them, where another kind won */
    enum route_kind winner;
};

/* What a route has become. Counted, because configurations share it; everything is in `arena`, this
 * struct too. */
struct verdict {
    uint32_t refs;
    struct arena arena;
    struct reference *references; /* parentRefs that name a Service */
    uint32_t references_count;
    struct route_condition *conditions;
    uint32_t conditions_count;
    uint32_t conditions_max;
    uint64_t *names; /* what it was made from */
    uint32_t names_count;
};

/* One port that a reference is attached to. */
struct claim {
    struct reference *reference;
    uint32_t port_index;
    bool is_named; /* by port or sectionName */
    bool has_lost;
};

/* What a Service is compiled from. */
struct attached {
    struct route_table_port *ports;
    uint32_t ports_count;
};

/* Objects of one kind. */
struct list {
    const struct route_object **items;
    uint32_t count;
};

struct route_attachments {
    struct route_attach_options options;
    const struct route_objects *objects;
    struct list grants;
    struct list tls_policies;
    struct verdict **verdicts; /* by place; one reference each, NULL: no route */
    struct route_table_resolver resolver;
    /* Of the load that makes them; `scratch` ends with it. */
    const struct route_attachments *previous;
    const struct route_changes *changes;
    struct arena *scratch;
    struct arena *arena;       /* where texts are made: of a verdict */
    struct attached *attached; /* by place: Services whose claims were settled */
    struct claim *claims;
    uint32_t claims_count;
    uint32_t claims_capacity;
    uint64_t *names; /* of the route that is looked at */
    uint32_t names_count;
    uint32_t names_capacity;
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

/* Double an array of the load. */
static void *grow(struct route_attachments *attachments, void *items, uint32_t count,
                  uint32_t *capacity, size_t size)
{
    if (count < *capacity) {
        return items;
    }
    uint32_t wider = *capacity == 0 ? 64 : *capacity * 2;
    void *memory = arena_alloc(attachments->scratch, (size_t)wider * size);
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
                              const struct route_service_object *service)
{
    char text[256];
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < service->ports_count && used < sizeof(text); i++) {
        const struct route_service_port *port = &service->ports[i];
        int written = snprintf(text + used, sizeof(text) - used, "%s%u%s%s%s", i == 0 ? "" : ", ",
                               port->port, port->name.size > 0 ? " (" : "",
                               port->name.size > 0 ? (const char *)port->name.data : "",
                               port->name.size > 0 ? ")" : "");
        used += written < 0 ? sizeof(text) : (size_t)written;
    }
    return used == 0 ? "none" : SAY(attachments, "%s", text);
}

static void add_claim(struct route_attachments *attachments, struct reference *reference,
                      uint32_t port_index)
{
    struct claim *claims = grow(attachments, attachments->claims, attachments->claims_count,
                                &attachments->claims_capacity, sizeof(*claims));
    if (claims == NULL) {
        return;
    }
    attachments->claims = claims;
    claims[attachments->claims_count++] = (struct claim){
        .reference = reference,
        .port_index = port_index,
        .is_named = reference->ref->port != 0 || reference->ref->section_name.size > 0,
    };
    reference->claims++;
}

/* Attach to every port that the reference means. */
static void claim_ports(struct route_attachments *attachments, struct reference *reference)
{
    const struct route_parent_ref *ref = reference->ref;
    const struct route_service_object *service = reference->service;
    enum route_kind kind = reference->route->object.kind;
    bool is_named = ref->port != 0 || ref->section_name.size > 0;
    bool is_http = kind == ROUTE_KIND_HTTP_ROUTE || kind == ROUTE_KIND_GRPC_ROUTE;
    uint32_t opaque = 0;
    for (uint32_t i = 0; i < service->ports_count; i++) {
        const struct route_service_port *port = &service->ports[i];
        bool is_meant = serves_transport(port, kind) &&
                        (ref->port == 0 || ref->port == port->port) &&
                        (ref->section_name.size == 0 || bytes_equal(ref->section_name, port->name));
        if (is_meant && !is_named && is_http &&
            route_protocol_is_opaque(route_protocol_declared(port))) {
            opaque++; /* design section 5: the rest passes through */
        } else if (is_meant) {
            add_claim(attachments, reference, i);
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
    const struct route_service_object *parent = reference->service;
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
    const struct route_service_object *parent = reference->service;
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
    reference->service_place =
        route_index_find(attachments->objects->index, reference->service_name, ROUTE_KIND_SERVICE,
                         ref->namespace, ref->name);
    if (reference->service_place == ROUTE_PLACE_NONE) {
        refuse(reference, "NoMatchingParent",
               SAY(attachments, "there is no Service %s/%s", (const char *)ref->namespace.data,
                   (const char *)ref->name.data));
        return;
    }
    reference->service =
        (const struct route_service_object *)attachments->objects->items[reference->service_place];
    const char *reason = judge_parent(attachments, reference, usable);
    if (reason != NULL) {
        refuse(reference, reason, describe_refusal(attachments, reference));
        return;
    }
    claim_ports(attachments, reference);
}

/* Gateways and other people's parents are none of our business, and say nothing. */
static bool is_our_parent(const struct route_parent_ref *ref)
{
    return text_is(ref->kind, "Service");
}

/* ---- Verdicts ---- */

static void verdict_unref(struct verdict *verdict)
{
    /* tidy: allow crossing: configurations share verdicts; whoever drops the last one frees them */
    if (verdict == NULL || __atomic_fetch_sub(&verdict->refs, 1, __ATOMIC_ACQ_REL) != 1) {
        return;
    }
    struct arena arena = verdict->arena; /* which holds itself */
    arena_finish(&arena);
}

static struct verdict *verdict_ref(struct verdict *verdict)
{
    /* tidy: allow crossing: as above */
    __atomic_fetch_add(&verdict->refs, 1, __ATOMIC_RELAXED);
    return verdict;
}

static bool is_changed(const struct route_changes *changes, const struct verdict *verdict)
{
    for (uint32_t i = 0; i < verdict->names_count; i++) {
        if (route_changes_has(changes, verdict->names[i])) {
            return true;
        }
    }
    return false;
}

/* Are the claims of a Service settled in this load, for it or one of them is new? */
static bool is_settled_again(const struct route_attachments *attachments, uint64_t service)
{
    return route_changes_has(attachments->changes, service) ||
           route_changes_has(attachments->changes, route_name_claims(service));
}

static void add_name(struct route_attachments *attachments, uint64_t name)
{
    uint64_t *names = grow(attachments, attachments->names, attachments->names_count,
                           &attachments->names_capacity, sizeof(*names));
    if (names != NULL) {
        attachments->names = names;
        names[attachments->names_count++] = name;
    }
}

static void name_backend(struct route_attachments *attachments, const struct route *route,
                         const struct route_backend_ref *ref)
{
    add_name(attachments, route_name_hash(ROUTE_KIND_SERVICE, ref->namespace, ref->name));
    if (!bytes_equal(ref->namespace, route->object.namespace)) {
        add_name(attachments, route_name_grants(ref->namespace));
    }
}

static void name_filters(struct route_attachments *attachments, const struct route *route,
                         const struct route_filter *filters, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (filters[i].mirror != NULL) {
            name_backend(attachments, route, &filters[i].mirror->backend);
        }
        if (filters[i].external_auth != NULL) {
            name_backend(attachments, route, &filters[i].external_auth->backend);
        }
        if (filters[i].extension_ref != NULL) {
            add_name(attachments, route_name_hash(ROUTE_KIND_BODY_MATCH, route->object.namespace,
                                                  filters[i].extension_ref->name));
        }
    }
}

/* Everything that judging the route, or compiling it, asks about. */
static void name_references(struct route_attachments *attachments, const struct verdict *verdict,
                            const struct route *route)
{
    attachments->names_count = 0;
    for (uint32_t i = 0; i < verdict->references_count; i++) {
        add_name(attachments, verdict->references[i].service_name);
        add_name(attachments, route_name_claims(verdict->references[i].service_name));
    }
    for (uint32_t r = 0; r < route->rules_count; r++) {
        const struct route_rule *rule = &route->rules[r];
        name_filters(attachments, route, rule->filters, rule->filters_count);
        for (uint32_t b = 0; b < rule->backend_refs_count; b++) {
            const struct route_backend_ref *ref = &rule->backend_refs[b];
            name_backend(attachments, route, ref);
            name_filters(attachments, route, ref->filters, ref->filters_count);
        }
    }
}

/* Memory for a verdict on `route` with its references; NULL (and noted) when there is none. */
static struct verdict *verdict_create(struct route_attachments *attachments,
                                      const struct route *route)
{
    enum {
        FIXED_BYTES = 192,
        REFERENCE_BYTES = 384, /* with its names and conditions: measured */
    };

    uint32_t ours = 0;
    for (uint32_t i = 0; i < route->parent_refs_count; i++) {
        ours += is_our_parent(&route->parent_refs[i]);
    }
    struct arena arena;
    arena_init(&arena, FIXED_BYTES + (size_t)ours * REFERENCE_BYTES, VERDICT_BYTES_MAX);
    struct verdict *verdict = arena_alloc_zero(&arena, 1, sizeof(*verdict));
    struct reference *references =
        verdict == NULL ? NULL : arena_alloc_zero(&arena, ours, sizeof(*references));
    if (references == NULL) {
        arena_finish(&arena);
        attachments->is_out_of_memory = true;
        return NULL;
    }
    verdict->refs = 1;
    verdict->arena = arena;
    verdict->references = references;
    for (uint32_t i = 0; i < route->parent_refs_count; i++) {
        const struct route_parent_ref *ref = &route->parent_refs[i];
        if (is_our_parent(ref)) {
            references[verdict->references_count++] = (struct reference){
                .route = route,
                .ref = ref,
                .service_name = route_name_hash(ROUTE_KIND_SERVICE, ref->namespace, ref->name)};
        }
    }
    return verdict;
}

/* Find the parents of a route. Where the claims of a parent are not settled again, the route has
 * won and lost there what it did before. */
static void resolve_references(struct route_attachments *attachments, struct verdict *verdict,
                               const struct verdict *before, const struct route *route)
{
    uint32_t usable = count_usable(route);
    for (uint32_t i = 0; i < verdict->references_count; i++) {
        struct reference *reference = &verdict->references[i];
        uint32_t claims_count = attachments->claims_count;
        resolve_reference(attachments, reference, usable);
        if (!is_settled_again(attachments, reference->service_name)) {
            CHECK(before != NULL && i < before->references_count);
            attachments->claims_count = claims_count;
            reference->claims = before->references[i].claims;
            reference->losses = before->references[i].losses;
            reference->winner = before->references[i].winner;
        }
    }
}

/* The verdict on the route at `place`: the one that it had, or the beginning of a new one. */
static struct verdict *find_verdict(struct route_attachments *attachments, uint32_t place,
                                    struct route_changes *changes)
{
    const struct route *route = (const struct route *)attachments->objects->items[place];
    uint32_t origin = attachments->objects->origins[place];
    struct verdict *before = attachments->previous == NULL || origin == ROUTE_PLACE_NONE
                                 ? NULL
                                 : attachments->previous->verdicts[origin];
    if (before != NULL && !is_changed(changes, before)) {
        return verdict_ref(before);
    }
    struct verdict *verdict = verdict_create(attachments, route);
    if (verdict == NULL) {
        return NULL;
    }
    attachments->arena = &verdict->arena;
    resolve_references(attachments, verdict, before, route);
    name_references(attachments, verdict, route);
    verdict->names =
        arena_alloc(&verdict->arena, attachments->names_count * sizeof(*verdict->names));
    if (verdict->names == NULL) {
        attachments->is_out_of_memory = true;
        return verdict;
    }
    verdict->names_count = attachments->names_count;
    if (verdict->names_count > 0) {
        memcpy(verdict->names, attachments->names, verdict->names_count * sizeof(*verdict->names));
    }
    return verdict;
}

static struct error find_verdicts(struct route_attachments *attachments,
                                  struct route_changes *changes)
{
    const struct route_objects *objects = attachments->objects;
    for (uint32_t i = 0; i < objects->count; i++) {
        if (is_route(objects->kinds[i])) {
            attachments->verdicts[i] = find_verdict(attachments, i, changes);
        }
    }
    return attachments->is_out_of_memory ? error_make(ERROR_NO_MEMORY, 0) : OK;
}

/* Is the verdict of this load, not shared? It has no conditions yet. */
static bool is_new(const struct verdict *verdict)
{
    return verdict->conditions == NULL;
}

/* The tables of Services whose routes have new verdicts are looked at again. */
static void tell_tables(const struct route_attachments *attachments, struct route_changes *changes)
{
    for (uint32_t i = 0; i < attachments->objects->count; i++) {
        const struct verdict *verdict = attachments->verdicts[i];
        for (uint32_t r = 0; verdict != NULL && is_new(verdict) && r < verdict->references_count;
             r++) {
            route_changes_add(changes, route_name_references(verdict->references[r].service_name));
        }
    }
}

/* ---- Precedence of kinds, producer and consumer ---- */

/* Claims of one port side by side, of one namespace side by side within it, the winning kind first.
 */
static int compare_claims(const void *left, const void *right)
{
    const struct claim *a = left;
    const struct claim *b = right;
    if (a->reference->service_place != b->reference->service_place) {
        return a->reference->service_place < b->reference->service_place ? -1 : 1;
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
    return a->reference->service_place == b->reference->service_place &&
           a->port_index == b->port_index;
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
    struct attached *attached = &attachments->attached[first->reference->service_place];
    const struct route_service_object *service = first->reference->service;
    if (attached->ports == NULL) {
        attached->ports =
            arena_alloc_zero(attachments->scratch, service->ports_count, sizeof(*attached->ports));
    }
    const struct route **routes =
        arena_alloc_zero(attachments->scratch, end - begin, sizeof(const struct route *));
    if (attached->ports == NULL || routes == NULL) {
        attachments->is_out_of_memory = true;
        return;
    }
    bool is_declared_http = false;
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
        is_declared_http = is_declared_http || (is_http && claim->is_named);
    }
    attached->ports[attached->ports_count++] = (struct route_table_port){
        .port = service->ports[first->port_index].port,
        .kind = kind,
        .set = set,
        .is_declared_http = is_declared_http,
        .routes = routes,
        .routes_count = count,
    };
}

/* The groups of one port: consumer routes of our namespace, else the producer's. Returns where the
 * port's claims end. */
static uint32_t settle_port(struct route_attachments *attachments, uint32_t begin)
{
    const struct claim *first = &attachments->claims[begin];
    struct bytes producer = first->reference->service->object.namespace;
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
    attachments->attached = arena_alloc_zero(attachments->scratch, attachments->objects->count,
                                             sizeof(*attachments->attached));
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

static struct error collect(const struct route_objects *objects, enum route_kind kind,
                            struct arena *arena, struct list *list)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < objects->count; i++) {
        count += objects->kinds[i] == kind;
    }
    list->items = arena_alloc_zero(arena, count, sizeof(*list->items));
    if (list->items == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; count > 0 && i < objects->count; i++) {
        if (objects->kinds[i] == kind) {
            list->items[list->count++] = objects->items[i];
        }
    }
    return OK;
}

/* Does a ReferenceGrant in the target's namespace allow the reference? */
static bool is_granted(const struct route_attachments *attachments, const struct route *route,
                       const struct route_backend_ref *ref)
{
    for (uint32_t i = 0; i < attachments->grants.count; i++) {
        const struct route_reference_grant *grant =
            (const struct route_reference_grant *)attachments->grants.items[i];
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
    for (uint32_t i = 0; i < attachments->tls_policies.count; i++) {
        const struct route_object *object = attachments->tls_policies.items[i];
        if (!bytes_equal(object->namespace, namespace)) {
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
        route_objects_find(attachments->objects, ROUTE_KIND_SERVICE, ref->namespace, ref->name);
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
    return (const struct route_body_match *)route_objects_find(
        attachments->objects, ROUTE_KIND_BODY_MATCH, namespace, name);
}

/* ---- Conditions ---- */

static void add_condition(struct verdict *verdict, struct route_condition condition)
{
    CHECK(verdict->conditions_count < verdict->conditions_max);
    verdict->conditions[verdict->conditions_count++] = condition;
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
    struct bytes service = reference->service->object.namespace;
    if (ours.data != NULL && !bytes_equal(route, service) && !bytes_equal(route, ours)) {
        return SAY(attachments, "applies to clients in namespace %s only, and not here",
                   (const char *)route.data);
    }
    return bytes_equal(route, service) ? "producer route" : "consumer route";
}

static void say_accepted(struct route_attachments *attachments, struct verdict *verdict,
                         const struct reference *reference, struct route_condition base)
{
    base.type = "Accepted";
    base.position = reference->ref->position;
    if (reference->service == NULL) {
        base.reason = reference->reason;
        base.message = reference->refusal;
        add_condition(verdict, base);
        return;
    }
    bool has_lost_all = reference->losses == reference->claims;
    base.status = !has_lost_all;
    base.reason = has_lost_all ? "Conflicted" : "Accepted";
    base.message = has_lost_all ? "a kind of higher precedence is attached to the same ports"
                                : describe_acceptance(attachments, reference);
    add_condition(verdict, base);
    if (reference->losses == 0) {
        return;
    }
    base.type = "Conflicted";
    base.status = true;
    base.reason = "Conflicted";
    base.message = SAY(attachments, "%u of %u ports follow %ss instead", reference->losses,
                       reference->claims, route_kind_name(reference->winner));
    add_condition(verdict, base);
}

/* PartiallyInvalid: some rules cannot be served, and are left out. */
struct partial {
    const char *message; /* NULL: all rules are served, or none */
    struct route_position position;
};

static struct partial judge_partial(struct route_attachments *attachments,
                                    const struct route *route)
{
    struct partial partial = {0};
    uint32_t dropped = 0;
    struct route_regex_fault first = {0};
    for (uint32_t i = 0; i < route->rules_count; i++) {
        struct route_regex_fault fault;
        const struct route_position *position = NULL;
        if (!route_rule_is_usable(&route->rules[i], &fault, &position) && dropped++ == 0) {
            first = fault;
            partial.position = *position;
        }
    }
    if (dropped > 0 && dropped < route->rules_count) {
        partial.message =
            SAY(attachments, "Dropped Rule: %u of %u rules cannot be served; the first: %s",
                dropped, route->rules_count, first.text);
    }
    return partial;
}

/* Room for all conditions: Accepted, and of what is attached ResolvedRefs, and perhaps Conflicted
 * and PartiallyInvalid. */
static bool make_conditions(struct route_attachments *attachments, struct verdict *verdict,
                            bool is_partial)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < verdict->references_count; i++) {
        const struct reference *reference = &verdict->references[i];
        most += reference->service == NULL ? 1 : 2 + (reference->losses > 0) + is_partial;
    }
    verdict->conditions = arena_alloc_zero(&verdict->arena, most, sizeof(*verdict->conditions));
    verdict->conditions_max = most;
    attachments->is_out_of_memory = attachments->is_out_of_memory || verdict->conditions == NULL;
    return verdict->conditions != NULL;
}

static void say_conditions(struct route_attachments *attachments, struct verdict *verdict,
                           const struct route *route)
{
    struct unresolved unresolved = {0};
    attachments->arena = &verdict->arena;
    bool is_resolved = judge_references(attachments, route, &unresolved);
    struct partial partial = judge_partial(attachments, route);
    if (!make_conditions(attachments, verdict, partial.message != NULL)) {
        return;
    }
    for (uint32_t i = 0; i < verdict->references_count; i++) {
        const struct reference *reference = &verdict->references[i];
        struct route_condition base = {.object = &route->object,
                                       .parent = name_parent(attachments, reference->ref)};
        say_accepted(attachments, verdict, reference, base);
        if (reference->service == NULL) {
            continue; /* not attached: the rest says nothing */
        }
        base.type = "ResolvedRefs";
        base.status = is_resolved;
        base.reason = is_resolved ? "ResolvedRefs" : unresolved.reason;
        base.message = is_resolved ? "" : unresolved.message;
        base.position = is_resolved ? reference->ref->position : unresolved.position;
        add_condition(verdict, base);
        if (partial.message != NULL) {
            base.type = "PartiallyInvalid";
            base.status = true;
            base.reason = "UnsupportedValue";
            base.message = partial.message;
            base.position = partial.position;
            add_condition(verdict, base);
        }
    }
}

static struct error say_all(struct route_attachments *attachments)
{
    const struct route_objects *objects = attachments->objects;
    for (uint32_t i = 0; i < objects->count; i++) {
        struct verdict *verdict = attachments->verdicts[i];
        if (verdict != NULL && is_new(verdict)) {
            say_conditions(attachments, verdict, (const struct route *)objects->items[i]);
        }
    }
    return attachments->is_out_of_memory ? error_make(ERROR_NO_MEMORY, 0) : OK;
}

/* ---- Entry points ---- */

void route_attachments_release(struct route_attachments *attachments)
{
    for (uint32_t i = 0; attachments != NULL && i < attachments->objects->count; i++) {
        verdict_unref(attachments->verdicts[i]);
    }
}

static struct error attach(struct route_attachments *attachments, struct route_changes *changes,
                           struct arena *arena)
{
    TRY(collect(attachments->objects, ROUTE_KIND_REFERENCE_GRANT, arena, &attachments->grants));
    TRY(collect(attachments->objects, ROUTE_KIND_BACKEND_TLS_POLICY, arena,
                &attachments->tls_policies));
    TRY(find_verdicts(attachments, changes));
    tell_tables(attachments, changes);
    TRY(settle(attachments));
    return say_all(attachments);
}

FALLIBLE route_attach(const struct route_attach_options *options,
                      const struct route_attach_load *load, struct arena *arena,
                      struct route_attachments **ret_attachments)
{
    struct route_attachments *attachments = arena_alloc_zero(arena, 1, sizeof(*attachments));
    struct verdict **verdicts =
        arena_alloc_zero(arena, load->objects->count, sizeof(struct verdict *));
    if (attachments == NULL || verdicts == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *attachments = (struct route_attachments){
        .options = *options,
        .objects = load->objects,
        .verdicts = verdicts,
        .resolver = {.argument = attachments,
                     .backend = resolve_backend,
                     .body_match = resolve_body_match},
        .previous = load->previous,
        .changes = load->changes,
        .scratch = load->scratch,
    };
    struct error error = attach(attachments, load->changes, arena);
    if (error_is(error)) {
        route_attachments_release(attachments);
        return error;
    }
    *ret_attachments = attachments;
    return OK;
}

const struct route_condition *
route_attachments_conditions(const struct route_attachments *attachments, uint32_t place,
                             uint32_t *ret_count)
{
    const struct verdict *verdict = attachments->verdicts[place];
    *ret_count = verdict == NULL ? 0 : verdict->conditions_count;
    return verdict == NULL ? NULL : verdict->conditions;
}

bool route_attachments_settled(const struct route_attachments *attachments, uint32_t place,
                               const struct route_table_port **ret_ports, uint32_t *ret_count)
{
    if (attachments->objects->origins[place] != ROUTE_PLACE_NONE &&
        !is_settled_again(attachments, attachments->objects->names[place])) {
        return false;
    }
    *ret_ports = attachments->attached[place].ports;
    *ret_count = attachments->attached[place].ports_count;
    return true;
}

const struct route_table_resolver *
route_attachments_resolver(const struct route_attachments *attachments)
{
    return &attachments->resolver;
}

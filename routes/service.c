/*
 * Services from Service and EndpointSlice objects. Three open-addressed tables, built once, answer
 * the data path: what was dialled (address and port), which Service has an address, and which
 * Service ports have an endpoint.
 *
 * Services lie side by side in the order of their names. What did not change is copied from the
 * last configuration, in that order: copying bytes is cheaper than counting references, and leaves
 * nothing to be let go.
 */
#include "routes/service.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "routes/changes.h"
#include "routes/index.h"

/* A key of all three tables; port 0 where only the address counts. */
struct place {
    struct route_ip ip;
    uint16_t port;
    uint8_t transport;
};

/* What the entries of a table are, and so where their places stand. */
enum entries {
    ENTRIES_DIALLED,   /* a port and a ClusterIP of its Service */
    ENTRIES_ADDRESSES, /* a Service and a ClusterIP of it */
    ENTRIES_ENDPOINTS, /* a port and an address of one of its endpoints */
};

/* A slot says where its place stands rather than the place, so that the tables stay in the caches.
 */
struct slot {
    const void *value; /* the port or Service; NULL: free */
    uint32_t
        which;    /* the ClusterIP by its index; of an endpoint: twice its index and its address */
    uint32_t tag; /* of the place, which tells most others apart */
};

struct place_table {
    enum entries entries;
    struct slot *slots;
    uint32_t mask;
};

/* A name of a Service; a tag tells most others apart. */
struct name_slot {
    uint32_t tag;
    uint32_t index; /* of the Service, plus 1; 0: free */
};

/* About a Service, for the load after. */
struct background {
    uint32_t place; /* of its object */
    bool is_copied;
    bool has_warnings; /* of its endpoints, which are to be said again */
};

struct route_services {
    struct route_service *items;    /* by namespace, name */
    struct background *backgrounds; /* of each */
    uint32_t count;
    uint32_t objects_count;  /* of all kinds, that it was made of */
    struct name_slot *names; /* open addressing */
    uint32_t names_mask;
    struct place_table dialled;   /* place -> route_port */
    struct place_table addresses; /* ip -> route_service */
    struct place_table endpoints; /* endpoint's place -> route_port, route_endpoint; several of one
                                     place are neighbours */
};

struct builder {
    const struct route_objects *objects;
    const struct route_services *previous;
    const struct route_changes *changes;
    struct arena *arena;
    struct route_diagnostics *diagnostics;
    struct route_services *services;
    uint32_t *befores; /* owned: for each Service its index in `previous`, or ROUTE_PLACE_NONE */
    const struct route_endpoint_slice **slices; /* owned: of the Services that are built; by
                                                   namespace, service, name */
    uint32_t slices_count;
};

/* ---- tables ---- */

static uint32_t hash_place(const struct place *place)
{
    uint64_t words[2];
    memcpy(words, place->ip.bytes, sizeof(words));
    uint64_t hash = words[0] * UINT64_C(0x9e3779b97f4a7c15) ^ words[1];
    hash = (hash ^ (hash >> 31) ^ (uint64_t)place->port << 8 ^ place->transport) *
           UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(hash >> 32);
}

bool route_ip_equal(const struct route_ip *a, const struct route_ip *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, a->family == 4 ? 4 : 16) == 0;
}

static struct error make_table(struct arena *arena, enum entries entries, size_t count,
                               struct place_table *ret_table)
{
    size_t size = 8;
    while (size < count * 2) {
        size *= 2;
    }
    *ret_table = (struct place_table){.entries = entries,
                                      .slots = arena_alloc_zero(arena, size, sizeof(struct slot)),
                                      .mask = (uint32_t)size - 1};
    return ret_table->slots == NULL ? error_make(ERROR_NO_MEMORY, 0) : OK;
}

static const struct route_endpoint *endpoint_of(const struct slot *slot)
{
    const struct route_port *port = slot->value;
    return &port->endpoints[slot->which / 2];
}

static bool has_place(const struct place_table *table, const struct slot *slot,
                      const struct place *place)
{
    const struct route_port *port = slot->value;
    switch (table->entries) {
    case ENTRIES_DIALLED:
        return port->source->port == place->port && port->source->transport == place->transport &&
               route_ip_equal(&port->service->cluster_ips[slot->which], &place->ip);
    case ENTRIES_ADDRESSES: {
        const struct route_service *service = slot->value;
        return route_ip_equal(&service->cluster_ips[slot->which], &place->ip);
    }
    case ENTRIES_ENDPOINTS:
        return endpoint_of(slot)->port == place->port &&
               route_ip_equal(&endpoint_of(slot)->addresses[slot->which % 2], &place->ip);
    }
    return false;
}

/* The slot of `place`, or the free one where it would go. */
static struct slot *find_slot(const struct place_table *table, const struct place *place)
{
    uint32_t tag = hash_place(place);
    uint32_t at = tag & table->mask;
    while (table->slots[at].value != NULL &&
           (table->slots[at].tag != tag || !has_place(table, &table->slots[at], place))) {
        at = (at + 1) & table->mask;
    }
    return &table->slots[at];
}

/* Add without looking for an equal one. */
static void add_slot(struct place_table *table, const struct place *place, const void *value,
                     uint32_t which)
{
    uint32_t tag = hash_place(place);
    uint32_t at = tag & table->mask;
    while (table->slots[at].value != NULL) {
        at = (at + 1) & table->mask;
    }
    table->slots[at] = (struct slot){value, which, tag};
}

/* ---- small parts ---- */

struct error route_ip_parse(struct bytes text, struct route_ip *ret_ip)
{
    char copy[INET6_ADDRSTRLEN];
    if (text.size == 0 || text.size >= sizeof(copy)) {
        return error_make(ERROR_SYNTAX, 0);
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    struct route_ip ip = {.family = bytes_find(text, ':') < text.size ? 6 : 4};
    if (inet_pton(ip.family == 4 ? AF_INET : AF_INET6, copy, ip.bytes) != 1) {
        return error_make(ERROR_SYNTAX, 0);
    }
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (ip.family == 6 && memcmp(ip.bytes, mapped, sizeof(mapped)) == 0) { /* as everywhere: IPv4 */
        struct route_ip inner = {.family = 4};
        memcpy(inner.bytes, ip.bytes + 12, 4);
        ip = inner;
    }
    *ret_ip = ip;
    return OK;
}

bool route_protocol_is_opaque(enum route_protocol protocol)
{
    return protocol >= ROUTE_PROTOCOL_TCP;
}

/* Design 5: appProtocol, compared without case; else the port's name up to its first "-". */
enum route_protocol route_protocol_declared(const struct route_service_port *port)
{
    static const struct {
        struct bytes word;
        enum route_protocol protocol;
        bool is_for_names; /* a port's name can say it too */
    } words[] = {
        {BYTES_LITERAL("http"), ROUTE_PROTOCOL_HTTP, true},
        {BYTES_LITERAL("kubernetes.io/ws"), ROUTE_PROTOCOL_HTTP, false},
        {BYTES_LITERAL("kubernetes.io/wss"), ROUTE_PROTOCOL_WSS, false},
        {BYTES_LITERAL("kubernetes.io/h2c"), ROUTE_PROTOCOL_HTTP2, false},
        {BYTES_LITERAL("http2"), ROUTE_PROTOCOL_HTTP2, true},
        {BYTES_LITERAL("grpc"), ROUTE_PROTOCOL_GRPC, true},
        {BYTES_LITERAL("tcp"), ROUTE_PROTOCOL_TCP, true},
        {BYTES_LITERAL("tls"), ROUTE_PROTOCOL_TLS, true},
        {BYTES_LITERAL("https"), ROUTE_PROTOCOL_HTTPS, true},
    };

    bool is_name = port->app_protocol.size == 0;
    struct bytes word =
        is_name ? bytes_first(port->name, bytes_find(port->name, '-')) : port->app_protocol;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (bytes_equal_nocase(word, words[i].word) && (!is_name || words[i].is_for_names)) {
            return words[i].protocol;
        }
    }
    return ROUTE_PROTOCOL_UNDECLARED;
}

/* ---- endpoints ---- */

static int compare_slices(const void *left, const void *right)
{
    const struct route_endpoint_slice *a = *(const struct route_endpoint_slice *const *)left;
    const struct route_endpoint_slice *b = *(const struct route_endpoint_slice *const *)right;
    int order = bytes_compare(a->object.namespace, b->object.namespace);
    order = order != 0 ? order : bytes_compare(a->service, b->service);
    return order != 0 ? order : bytes_compare(a->object.name, b->object.name);
}

/* The slices of a Service: neighbours in the sorted array. */
static uint32_t slices_of(const struct builder *builder, const struct route_object *service,
                          uint32_t *ret_first)
{
    uint32_t low = 0;
    uint32_t high = builder->slices_count;
    while (low < high) { /* the first that is not before the Service */
        uint32_t middle = low + (high - low) / 2;
        const struct route_endpoint_slice *slice = builder->slices[middle];
        int order = bytes_compare(slice->object.namespace, service->namespace);
        order = order != 0 ? order : bytes_compare(slice->service, service->name);
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    uint32_t count = 0;
    while (low + count < builder->slices_count) {
        const struct route_endpoint_slice *slice = builder->slices[low + count];
        if (!bytes_equal(slice->object.namespace, service->namespace) ||
            !bytes_equal(slice->service, service->name)) {
            break;
        }
        count++;
    }
    *ret_first = low;
    return count;
}

/* The port of `slice` that stands for the Service's port: by name; NULL: it has none. */
static const struct route_slice_port *slice_port_of(const struct route_endpoint_slice *slice,
                                                    const struct route_service_port *port)
{
    for (uint32_t i = 0; i < slice->ports_count; i++) {
        if (slice->ports[i].transport == port->transport &&
            bytes_equal(slice->ports[i].name, port->name)) {
            return &slice->ports[i];
        }
    }
    return NULL;
}

static uint16_t number_of(const struct route_slice_port *slice_port,
                          const struct route_service_port *port)
{
    if (slice_port->port != 0) {
        return slice_port->port;
    }
    return port->target_port != 0 ? port->target_port : port->port; /* a slice for all ports */
}

/* An endpoint that is there already and that `address` belongs to as its other family; NULL: a new
 * one. */
static struct route_endpoint *find_pod(struct route_endpoint *endpoints, uint32_t count,
                                       const struct route_slice_endpoint *from, uint16_t port,
                                       const struct route_ip *address)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_endpoint *endpoint = &endpoints[i];
        for (uint32_t a = 0; a < endpoint->addresses_count; a++) {
            if (endpoint->port == port && route_ip_equal(&endpoint->addresses[a], address)) {
                return endpoint; /* in two slices for a moment, as the API allows */
            }
        }
        bool is_same_pod =
            from->pod.size > 0 && bytes_equal(endpoint->pod, from->pod) && endpoint->port == port;
        if (is_same_pod && endpoint->addresses_count == 1 &&
            endpoint->addresses[0].family != address->family) {
            return endpoint;
        }
    }
    return NULL;
}

/* Only the first address of an entry counts: the API says that the others are reserved. */
static void add_endpoint(struct builder *builder, const struct route_slice_endpoint *from,
                         uint16_t port_number, struct route_endpoint *endpoints, uint32_t *count)
{
    struct route_ip address;
    if (from->addresses_count == 0 || error_is(route_ip_parse(from->addresses[0], &address))) {
        route_diagnostics_add(builder->diagnostics, ROUTE_SEVERITY_WARNING, from->position,
                              "endpoint-address", NULL,
                              "this endpoint has no IP address and is left out");
        return;
    }
    struct route_endpoint *endpoint = find_pod(endpoints, *count, from, port_number, &address);
    if (endpoint == NULL) {
        endpoint = &endpoints[(*count)++];
        *endpoint =
            (struct route_endpoint){.port = port_number, .pod = from->pod, .zone = from->zone};
    } else if (route_ip_equal(&endpoint->addresses[0], &address)) {
        return;
    }
    if (endpoint->addresses_count < 2) {
        endpoint->addresses[endpoint->addresses_count++] = address;
    }
}

static struct error build_endpoints(struct builder *builder, struct route_port *port,
                                    uint32_t first, uint32_t slices)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < slices; i++) {
        most += builder->slices[first + i]->endpoints_count;
    }
    struct route_endpoint *endpoints = arena_alloc_zero(builder->arena, most, sizeof(*endpoints));
    if (endpoints == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < slices; i++) {
        const struct route_endpoint_slice *slice = builder->slices[first + i];
        const struct route_slice_port *slice_port = slice_port_of(slice, port->source);
        if (slice_port == NULL || slice->address_type == ROUTE_ADDRESS_UNSUPPORTED) {
            continue;
        }
        for (uint32_t e = 0; e < slice->endpoints_count; e++) {
            if (slice->endpoints[e].is_ready) {
                add_endpoint(builder, &slice->endpoints[e], number_of(slice_port, port->source),
                             endpoints, &count);
            }
        }
    }
    port->endpoints = endpoints;
    port->endpoints_count = count;
    return OK;
}

/* ---- Services ---- */

static struct error build_addresses(struct builder *builder, struct route_service *service)
{
    const struct route_service_object *object = service->object;
    struct route_ip *ips =
        arena_alloc_zero(builder->arena, object->cluster_ips_count, sizeof(*ips));
    if (ips == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < object->cluster_ips_count; i++) {
        if (!error_is(route_ip_parse(object->cluster_ips[i], &ips[service->cluster_ips_count]))) {
            service->cluster_ips_count++;
        }
    }
    service->cluster_ips = ips;
    return OK;
}

static struct error build_service(struct builder *builder, struct route_service *service)
{
    const struct route_object *object = &service->object->object;
    const char *reference = arena_format(builder->arena, "%.*s/%.*s", (int)object->namespace.size,
                                         (const char *)object->namespace.data,
                                         (int)object->name.size, (const char *)object->name.data);
    service->ports_count = service->object->ports_count;
    service->ports =
        arena_alloc_zero(builder->arena, service->ports_count, sizeof(*service->ports));
    if (reference == NULL || service->ports == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    service->reference = bytes_from_string(reference);
    TRY(build_addresses(builder, service));
    uint32_t first = 0;
    uint32_t slices = slices_of(builder, object, &first);
    service->has_slices = slices > 0;
    for (uint32_t i = 0; i < service->ports_count; i++) {
        struct route_port *port = &service->ports[i];
        port->service = service;
        port->source = &service->object->ports[i];
        port->protocol = route_protocol_declared(port->source);
        TRY(build_endpoints(builder, port, first, slices));
    }
    return OK;
}

/* Is what was made of the Service's slices to be made again? */
static bool has_new_endpoints(const struct builder *builder, uint32_t index)
{
    uint32_t before = builder->befores[index];
    uint64_t name = builder->objects->names[builder->services->backgrounds[index].place];
    return before == ROUTE_PLACE_NONE || builder->previous->backgrounds[before].has_warnings ||
           route_changes_has(builder->changes, name) ||
           route_changes_has(builder->changes, route_name_slices(name));
}

/* Have its routes, or what they refer to, changed? */
static bool has_new_routes(const struct builder *builder, uint32_t index)
{
    uint64_t name = builder->objects->names[builder->services->backgrounds[index].place];
    return route_changes_has(builder->changes, route_name_claims(name)) ||
           route_changes_has(builder->changes, route_name_references(name));
}

static void *copy(struct arena *arena, const void *items, size_t count, size_t size)
{
    void *memory = arena_alloc(arena, count * size);
    if (memory != NULL && count > 0) {
        memcpy(memory, items, count * size);
    }
    return memory;
}

/* A Service as it was, with everything that hangs on it. */
static struct error copy_service(struct builder *builder, const struct route_service *before,
                                 struct route_service *service)
{
    struct arena *arena = builder->arena;
    *service = *before;
    service->reference = arena_copy(arena, before->reference);
    service->cluster_ips =
        copy(arena, before->cluster_ips, before->cluster_ips_count, sizeof(*before->cluster_ips));
    service->ports = copy(arena, before->ports, before->ports_count, sizeof(*before->ports));
    if (service->reference.data == NULL || service->cluster_ips == NULL || service->ports == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < service->ports_count; i++) {
        struct route_port *port = &service->ports[i];
        port->service = service;
        port->endpoints =
            copy(arena, port->endpoints, port->endpoints_count, sizeof(*port->endpoints));
        if (port->endpoints == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
    }
    return OK;
}

/* It is to be compiled: what it had of its routes is forgotten. */
static void detach(struct route_service *service)
{
    service->table = NULL;
    for (uint32_t i = 0; i < service->ports_count; i++) {
        service->ports[i].rules = NULL;
        service->ports[i].protocol = route_protocol_declared(service->ports[i].source);
    }
}

static struct error make_service(struct builder *builder, uint32_t index)
{
    struct route_service *service = &builder->services->items[index];
    struct background *background = &builder->services->backgrounds[index];
    if (has_new_endpoints(builder, index)) {
        uint32_t warnings = builder->diagnostics->warnings_count;
        *service = (struct route_service){
            .object =
                (const struct route_service_object *)builder->objects->items[background->place]};
        TRY(build_service(builder, service));
        background->has_warnings = builder->diagnostics->warnings_count > warnings;
        return OK;
    }
    TRY(copy_service(builder, &builder->previous->items[builder->befores[index]], service));
    background->is_copied = !has_new_routes(builder, index);
    if (!background->is_copied) {
        detach(service);
    }
    return OK;
}

/* ---- which Services and slices there are ---- */

static int compare_names(const struct route_object *a, const struct route_object *b)
{
    int order = bytes_compare(a->namespace, b->namespace);
    return order != 0 ? order : bytes_compare(a->name, b->name);
}

/* A Service that was not there before. */
struct arrival {
    const struct route_object *object;
    uint32_t place;
};

static int compare_arrivals(const void *left, const void *right)
{
    const struct arrival *a = left;
    const struct arrival *b = right;
    return compare_names(a->object, b->object);
}

/* Where the objects of the previous configuration are now; NULL without memory. */
static uint32_t *find_places(const struct route_objects *objects, uint32_t count)
{
    uint32_t *places = malloc(((size_t)count + 1) * sizeof(*places));
    if (places != NULL) {
        memset(places, 0xff, count * sizeof(*places)); /* ROUTE_PLACE_NONE */
        for (uint32_t i = 0; i < objects->count; i++) {
            if (objects->origins[i] != ROUTE_PLACE_NONE) {
                places[objects->origins[i]] = i;
            }
        }
    }
    return places;
}

static void add_service(struct builder *builder, uint32_t place, uint32_t before)
{
    struct route_services *services = builder->services;
    builder->befores[services->count] = before;
    services->backgrounds[services->count++].place = place;
}

/* Those that were there before, in their order, and between them the arrivals in theirs. */
static void merge(struct builder *builder, const uint32_t *places, const struct arrival *arrivals,
                  uint32_t arrivals_count)
{
    const struct route_services *previous = builder->previous;
    uint32_t at = 0;
    for (uint32_t i = 0; previous != NULL && i < previous->count; i++) {
        uint32_t place = places[previous->backgrounds[i].place];
        if (place == ROUTE_PLACE_NONE) {
            continue;
        }
        while (at < arrivals_count &&
               compare_names(arrivals[at].object, builder->objects->items[place]) < 0) {
            add_service(builder, arrivals[at++].place, ROUTE_PLACE_NONE);
        }
        add_service(builder, place, i);
    }
    while (at < arrivals_count) {
        add_service(builder, arrivals[at++].place, ROUTE_PLACE_NONE);
    }
}

/* Find the Services and their order. `arrivals` has room for all of them. */
static void order_services(struct builder *builder, const uint32_t *places,
                           struct arrival *arrivals)
{
    const struct route_objects *objects = builder->objects;
    uint32_t count = 0;
    for (uint32_t i = 0; i < objects->count; i++) {
        if (objects->kinds[i] == ROUTE_KIND_SERVICE &&
            (builder->previous == NULL || objects->origins[i] == ROUTE_PLACE_NONE)) {
            arrivals[count++] = (struct arrival){objects->items[i], i};
        }
    }
    if (count > 0) {
        qsort(arrivals, count, sizeof(*arrivals), compare_arrivals);
    }
    merge(builder, places, arrivals, count);
}

static uint32_t count_kind(const struct route_objects *objects, enum route_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < objects->count; i++) {
        count += objects->kinds[i] == kind;
    }
    return count;
}

static struct error collect_services(struct builder *builder)
{
    struct route_services *services = builder->services;
    uint32_t count = count_kind(builder->objects, ROUTE_KIND_SERVICE);
    uint32_t before = builder->previous == NULL ? 0 : builder->previous->objects_count;
    services->objects_count = builder->objects->count;
    services->items = arena_alloc(builder->arena, count * sizeof(*services->items));
    services->backgrounds = arena_alloc_zero(builder->arena, count, sizeof(*services->backgrounds));
    builder->befores = malloc(((size_t)count + 1) * sizeof(*builder->befores));
    struct arrival *arrivals = malloc(((size_t)count + 1) * sizeof(*arrivals));
    uint32_t *places = find_places(builder->objects, before);
    bool is_complete = services->items != NULL && services->backgrounds != NULL &&
                       builder->befores != NULL && arrivals != NULL && places != NULL;
    if (is_complete) {
        order_services(builder, places, arrivals);
    }
    free(arrivals);
    free(places);
    return is_complete ? OK : error_make(ERROR_NO_MEMORY, 0);
}

/* The slices of the Services whose endpoints are made anew. `wanted`: for each place, is it one? */
static void choose_slices(struct builder *builder, const bool *wanted)
{
    const struct route_objects *objects = builder->objects;
    for (uint32_t i = 0; i < objects->count; i++) {
        if (objects->kinds[i] != ROUTE_KIND_ENDPOINT_SLICE) {
            continue;
        }
        const struct route_endpoint_slice *slice =
            (const struct route_endpoint_slice *)objects->items[i];
        struct bytes namespace = slice->object.namespace;
        uint32_t place = route_index_find(
            objects->index, route_name_hash(ROUTE_KIND_SERVICE, namespace, slice->service),
            ROUTE_KIND_SERVICE, namespace, slice->service);
        if (place != ROUTE_PLACE_NONE && wanted[place]) {
            builder->slices[builder->slices_count++] = slice;
        }
    }
    if (builder->slices_count > 0) {
        qsort(builder->slices, builder->slices_count, sizeof(*builder->slices), compare_slices);
    }
}

static struct error collect_slices(struct builder *builder)
{
    const struct route_services *services = builder->services;
    bool *wanted = NULL;
    for (uint32_t i = 0; i < services->count; i++) {
        if (!has_new_endpoints(builder, i)) {
            continue;
        }
        if (wanted == NULL) {
            wanted = calloc(builder->objects->count, sizeof(*wanted));
        }
        if (wanted == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        wanted[services->backgrounds[i].place] = true;
    }
    uint32_t count = count_kind(builder->objects, ROUTE_KIND_ENDPOINT_SLICE);
    if (wanted == NULL || count == 0) {
        free(wanted);
        return OK;
    }
    builder->slices = calloc(count, sizeof(*builder->slices));
    if (builder->slices != NULL) {
        choose_slices(builder, wanted);
    }
    free(wanted);
    return builder->slices == NULL ? error_make(ERROR_NO_MEMORY, 0) : OK;
}

/* ---- what the data path asks ---- */

static void warn_claimed(struct builder *builder, const struct route_service *loser,
                         const struct route_service *winner, const struct route_service_port *port)
{
    route_diagnostics_add(
        builder->diagnostics, ROUTE_SEVERITY_WARNING, loser->object->object.name_position,
        "cluster-ip-taken", NULL,
        "port %u of this Service has the ClusterIP of Service %.*s, which is older", port->port,
        (int)winner->reference.size, (const char *)winner->reference.data);
}

/* Give a port of a Service to one of its addresses; of two that claim it the older counts. */
static void claim(struct builder *builder, const struct route_port *port, uint32_t which)
{
    struct place place = {.ip = port->service->cluster_ips[which],
                          .port = port->source->port,
                          .transport = (uint8_t)port->source->transport};
    struct slot *slot = find_slot(&builder->services->dialled, &place);
    if (slot->value == NULL) {
        *slot = (struct slot){port, which, hash_place(&place)};
        return;
    }
    const struct route_port *other = slot->value;
    const struct route_object *ours = &port->service->object->object;
    const struct route_object *theirs = &other->service->object->object;
    if (ours == theirs) {
        return;
    }
    bool is_older = route_object_compare_age(ours, theirs) < 0;
    warn_claimed(builder, is_older ? other->service : port->service,
                 is_older ? port->service : other->service, port->source);
    if (is_older) {
        slot->value = port;
        slot->which = which;
    }
}

static void index_addresses(struct builder *builder, const struct route_service *service)
{
    for (uint32_t i = 0; i < service->cluster_ips_count; i++) {
        struct place place = {.ip = service->cluster_ips[i]};
        struct slot *slot = find_slot(&builder->services->addresses, &place);
        const struct route_service *other = slot->value;
        if (other == NULL ||
            route_object_compare_age(&service->object->object, &other->object->object) < 0) {
            *slot = (struct slot){service, i, hash_place(&place)};
        }
    }
}

static void index_service(struct builder *builder, const struct route_service *service)
{
    struct place_table *endpoints = &builder->services->endpoints;
    index_addresses(builder, service);
    for (uint32_t p = 0; p < service->ports_count; p++) {
        const struct route_port *port = &service->ports[p];
        for (uint32_t i = 0; i < service->cluster_ips_count; i++) {
            claim(builder, port, i);
        }
        for (uint32_t e = 0; e < port->endpoints_count; e++) {
            const struct route_endpoint *endpoint = &port->endpoints[e];
            for (uint32_t a = 0; a < endpoint->addresses_count; a++) {
                struct place place = {.ip = endpoint->addresses[a], .port = endpoint->port};
                add_slot(endpoints, &place, port, e * 2 + a);
            }
        }
    }
}

/* The slot of that name, or the free one where it would go. */
static struct name_slot *find_name(const struct route_services *services, uint64_t hash,
                                   struct bytes namespace, struct bytes name)
{
    uint32_t tag = (uint32_t)hash;
    uint32_t at = (uint32_t)(hash >> 32) & services->names_mask;
    for (; services->names[at].index != 0; at = (at + 1) & services->names_mask) {
        if (services->names[at].tag == tag) {
            const struct route_object *object =
                &services->items[services->names[at].index - 1].object->object;
            if (bytes_equal(object->name, name) && bytes_equal(object->namespace, namespace)) {
                break;
            }
        }
    }
    return &services->names[at];
}

static struct error build_names(struct builder *builder)
{
    struct route_services *services = builder->services;
    uint32_t size = 8;
    while (size < services->count * 2) {
        size *= 2;
    }
    services->names = arena_alloc_zero(builder->arena, size, sizeof(*services->names));
    services->names_mask = size - 1;
    if (services->names == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    for (uint32_t i = 0; i < services->count; i++) {
        uint64_t hash = builder->objects->names[services->backgrounds[i].place];
        uint32_t at = (uint32_t)(hash >> 32) & services->names_mask;
        while (services->names[at].index != 0) { /* no name is there twice */
            at = (at + 1) & services->names_mask;
        }
        services->names[at] = (struct name_slot){.tag = (uint32_t)hash, .index = i + 1};
    }
    return OK;
}

static struct error build_index(struct builder *builder)
{
    struct route_services *services = builder->services;
    size_t dialled = 0;
    size_t addresses = 0;
    size_t endpoints = 0;
    for (uint32_t i = 0; i < services->count; i++) {
        const struct route_service *service = &services->items[i];
        addresses += service->cluster_ips_count;
        dialled += (size_t)service->cluster_ips_count * service->ports_count;
        for (uint32_t p = 0; p < service->ports_count; p++) {
            endpoints += (size_t)service->ports[p].endpoints_count * 2;
        }
    }
    TRY(make_table(builder->arena, ENTRIES_DIALLED, dialled, &services->dialled));
    TRY(make_table(builder->arena, ENTRIES_ADDRESSES, addresses, &services->addresses));
    TRY(make_table(builder->arena, ENTRIES_ENDPOINTS, endpoints, &services->endpoints));
    for (uint32_t i = 0; i < services->count; i++) {
        index_service(builder, &services->items[i]);
    }
    return OK;
}

static struct error build(struct builder *builder)
{
    TRY(collect_services(builder));
    TRY(collect_slices(builder));
    for (uint32_t i = 0; i < builder->services->count; i++) {
        TRY(make_service(builder, i));
    }
    TRY(build_names(builder));
    return build_index(builder);
}

FALLIBLE route_services_update(const struct route_services_load *load, struct arena *arena,
                               struct route_diagnostics *diagnostics,
                               struct route_services **ret_services)
{
    struct builder builder = {
        .objects = load->objects,
        .previous = load->previous,
        .changes = load->changes,
        .arena = arena,
        .diagnostics = diagnostics,
        .services = arena_alloc_zero(arena, 1, sizeof(*builder.services)),
    };
    if (builder.services == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct error error = build(&builder);
    free(builder.befores);
    free(builder.slices);
    if (!error_is(error)) {
        *ret_services = builder.services;
    }
    return error;
}

FALLIBLE route_services_build(const struct route_object *const *objects, uint32_t objects_count,
                              struct arena *arena, struct route_diagnostics *diagnostics,
                              struct route_services **ret_services)
{
    struct route_objects set;
    struct route_changes changes;
    TRY(route_objects_init(&set, objects_count, arena));
    for (uint32_t i = 0; i < objects_count; i++) {
        route_objects_add(
            &set, objects[i],
            route_name_hash(objects[i]->kind, objects[i]->namespace, objects[i]->name));
    }
    route_changes_init(&changes, true);
    struct route_services_load load = {.objects = &set, .changes = &changes};
    struct error error = route_services_update(&load, arena, diagnostics, ret_services);
    route_changes_finish(&changes);
    return error;
}

const struct route_port *route_services_find_address(const struct route_services *services,
                                                     const struct route_ip *address, uint16_t port,
                                                     enum route_transport transport)
{
    struct place place = {.ip = *address, .port = port, .transport = (uint8_t)transport};
    return find_slot(&services->dialled, &place)->value;
}

const struct route_service *route_services_find_ip(const struct route_services *services,
                                                   const struct route_ip *address)
{
    struct place place = {.ip = *address};
    return find_slot(&services->addresses, &place)->value;
}

const struct route_service *route_services_find(const struct route_services *services,
                                                struct bytes namespace, struct bytes name)
{
    uint64_t hash = route_name_hash(ROUTE_KIND_SERVICE, namespace, name);
    uint32_t found = find_name(services, hash, namespace, name)->index;
    return found == 0 ? NULL : &services->items[found - 1];
}

const struct route_port *route_service_port_find(const struct route_service *service, uint16_t port,
                                                 enum route_transport transport)
{
    for (uint32_t i = 0; i < service->ports_count; i++) {
        if (service->ports[i].source->port == port &&
            service->ports[i].source->transport == transport) {
            return &service->ports[i];
        }
    }
    return NULL;
}

uint32_t route_services_find_endpoint(const struct route_services *services,
                                      const struct route_ip *address, uint16_t port,
                                      struct route_endpoint_owner *ret_owners, uint32_t owners_max)
{
    const struct place_table *table = &services->endpoints;
    struct place place = {.ip = *address, .port = port};
    uint32_t found = 0;
    uint32_t tag = hash_place(&place);
    for (uint32_t at = tag & table->mask; table->slots[at].value != NULL;
         at = (at + 1) & table->mask) {
        const struct slot *slot = &table->slots[at];
        if (slot->tag != tag || !has_place(table, slot, &place)) {
            continue;
        }
        if (found < owners_max) {
            ret_owners[found] = (struct route_endpoint_owner){slot->value, endpoint_of(slot)};
        }
        found++;
    }
    return found;
}

uint32_t route_services_count(const struct route_services *services)
{
    return services->count;
}

const struct route_service *route_services_at(const struct route_services *services, uint32_t index)
{
    CHECK(index < services->count);
    return &services->items[index];
}

bool route_services_is_copied(const struct route_services *services, uint32_t index)
{
    CHECK(index < services->count);
    return services->backgrounds[index].is_copied;
}

uint32_t route_services_place(const struct route_services *services, uint32_t index)
{
    CHECK(index < services->count);
    return services->backgrounds[index].place;
}

struct route_service *route_services_edit(struct route_services *services, uint32_t index)
{
    CHECK(index < services->count);
    return &services->items[index];
}

/*
 * Services as the data path sees them: from an original destination to a Service and its port, from
 * there to endpoints and to the routes that apply. Built by load.c from Service and EndpointSlice
 * objects; immutable.
 *
 * An address belongs to at most one Service: of two that claim the same ClusterIP and port the
 * older counts, with a warning.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/diagnostic.h"
#include "routes/resource.h"
#include "routes/table.h"

/* An IP address as bytes in network order; routes/ knows no sockets. */
struct route_ip {
    uint8_t family; /* 4 or 6 */
    uint8_t bytes[16];
};

/* What the port's appProtocol, else the first word of its name, declares. */
enum route_protocol {
    ROUTE_PROTOCOL_UNDECLARED, /* detect */
    ROUTE_PROTOCOL_HTTP,       /* also kubernetes.io/ws; towards a backend: HTTP/1.1 */
    ROUTE_PROTOCOL_HTTP2,      /* http2, kubernetes.io/h2c */
    ROUTE_PROTOCOL_GRPC,
    ROUTE_PROTOCOL_TCP, /* this and all below are opaque */
    ROUTE_PROTOCOL_TLS,
    ROUTE_PROTOCOL_HTTPS,
    ROUTE_PROTOCOL_WSS,
};

/* One pod (or one address of a slice without pods) behind one port. */
struct route_endpoint {
    struct route_ip addresses[2]; /* at most one of each family */
    uint8_t addresses_count;
    uint16_t port;
    struct bytes pod;
    struct bytes zone;
};

struct route_service;

struct route_port {
    const struct route_service *service;     /* borrowed: the Service that this is a port of */
    const struct route_service_port *source; /* number, name, target port */
    enum route_protocol
        protocol; /* a port that an HTTPRoute or GRPCRoute names counts as declared HTTP */
    const struct route_endpoint *endpoints; /* ready ones */
    uint32_t endpoints_count;
    const struct route_rules *rules; /* NULL: no route applies, traffic flows as without a mesh */
};

struct route_service {
    const struct route_service_object *object;
    struct bytes reference; /* "namespace/name" */
    const struct route_ip *cluster_ips;
    uint32_t cluster_ips_count;
    bool has_slices; /* false: the ClusterIP itself is the only endpoint */
    struct route_port *ports;
    uint32_t ports_count;
    const struct route_table *table; /* NULL: no route is attached */
};

/* What a pod address and port are known as: the Service port whose slice lists them. */
struct route_endpoint_owner {
    const struct route_port *port;
    const struct route_endpoint *endpoint;
};

struct route_services;

/* The port of the Service that has this ClusterIP; NULL when no Service does. TCP and UDP ports are
 * apart. */
const struct route_port *route_services_find_address(const struct route_services *services,
                                                     const struct route_ip *address, uint16_t port,
                                                     enum route_transport transport);

/* The Service has this ClusterIP, whatever the port: tells "unknown port of a known Service" from
 * "unknown". */
const struct route_service *route_services_find_ip(const struct route_services *services,
                                                   const struct route_ip *address);

/* The Service of that name, NULL when there is none. */
const struct route_service *route_services_find(const struct route_services *services,
                                                struct bytes namespace, struct bytes name);

/* A port of `service` by number, NULL when it has none. */
const struct route_port *route_service_port_find(const struct route_service *service, uint16_t port,
                                                 enum route_transport transport);

/*
 * Which Service ports have this endpoint (an address that somebody dialled directly, or our own)?
 * Writes at most `owners_max` in a stable order and returns how many there are.
 */
uint32_t route_services_find_endpoint(const struct route_services *services,
                                      const struct route_ip *address, uint16_t port,
                                      struct route_endpoint_owner *ret_owners, uint32_t owners_max);

/* All Services in order of namespace and name. */
uint32_t route_services_count(const struct route_services *services);
const struct route_service *route_services_at(const struct route_services *services,
                                              uint32_t index);

/* What the port's appProtocol, else its name, declares. */
enum route_protocol route_protocol_declared(const struct route_service_port *port);

/* Is the protocol one whose bytes are not looked into? */
bool route_protocol_is_opaque(enum route_protocol protocol);

/* "10.0.0.1" or "fd00::1" to bytes. Errors: ERROR_SYNTAX. */
FALLIBLE route_ip_parse(struct bytes text, struct route_ip *ret_ip);

/* Same family and same bytes. */
bool route_ip_equal(const struct route_ip *a, const struct route_ip *b);

/* ---- Building (load.c) ---- */

/*
 * Make the Services of `objects` (any kinds; Services and EndpointSlices are taken), everything
 * allocated in `arena`. Doubtful addresses become warnings. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE route_services_build(const struct route_object *const *objects, uint32_t objects_count,
                              struct arena *arena, struct route_diagnostics *diagnostics,
                              struct route_services **ret_services);

struct route_objects;
struct route_changes;

struct route_services_load {
    const struct route_objects *objects;
    const struct route_services *previous; /* NULL: none */
    const struct route_changes *changes;   /* since then, with those that route_attach tells */
};

/*
 * The same, on top of the last configuration: a Service none of whose facets has changed is copied
 * as it was published, with its table (of which no reference is taken) and its ports' rules. The
 * others have none yet; of these what is made of EndpointSlices is copied when only their routes
 * have changed. Addresses are given out anew: that is between all Services.
 */
FALLIBLE route_services_update(const struct route_services_load *load, struct arena *arena,
                               struct route_diagnostics *diagnostics,
                               struct route_services **ret_services);

/* Was the Service copied with its table? */
bool route_services_is_copied(const struct route_services *services, uint32_t index);

/* The place of the Service among the objects that it was made of. */
uint32_t route_services_place(const struct route_services *services, uint32_t index);

/* For load.c, between building and publishing: the same Service, writable. */
struct route_service *route_services_edit(struct route_services *services, uint32_t index);

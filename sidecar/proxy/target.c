/* From destinations to targets: see target.h. */
#include "proxy/target.h"

#include <string.h>

#include "proxy/worker_state.h"

enum {
    OWNERS_MAX = 8, /* Services that list one pod's port: more make no difference */
};

struct address destination_address(const struct destination *destination)
{
    struct address address = {.family = destination->family, .port = destination->port};
    memcpy(address.ip, destination->ip, sizeof(destination->ip));
    return address;
}

/*
 * The address that the self-test dials (cli/redirection.h; control/interception.c). Its rule stands
 * before the one that lets the proxy's own connections pass, so passing it through would come back
 * here for ever.
 */
bool destination_is_self_test(const struct destination *destination)
{
    static const uint8_t ipv4[4] = {192, 0, 2, 2};
    static const uint8_t ipv6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 0x02};
    return (destination->family == ADDRESS_IPV4 &&
            memcmp(destination->ip, ipv4, sizeof(ipv4)) == 0) ||
           (destination->family == ADDRESS_IPV6 &&
            memcmp(destination->ip, ipv6, sizeof(ipv6)) == 0);
}

static struct cluster *find_cluster(struct worker *worker, const struct route_port *port)
{
    const struct route_object *object = &port->service->object->object;
    const struct cluster_source source = {.generation = worker_snapshot(worker)->generation,
                                          .namespace = object->namespace,
                                          .name = object->name,
                                          .port = port->source->port,
                                          .found = port};
    return clusters_find(worker->clusters, &source);
}

/* A Service port by its ClusterIP or by its name: its routes apply. */
static void aim_at_service(struct worker *worker, const struct route_port *port,
                           struct target *target)
{
    bool is_tcp_routed =
        port->rules != NULL && route_rules_kind(port->rules) == ROUTE_KIND_TCP_ROUTE;
    target->port = port;
    /* A TCPRoute takes the bytes as they are, whatever the port declares, and the server may speak
     * first. */
    target->protocol = is_tcp_routed ? ROUTE_PROTOCOL_TCP : port->protocol;
    target->cluster = find_cluster(worker, port);
    target->parent = target->cluster;
    if (target->cluster == NULL) {
        target->refusal = CAUSE_LIMIT_CONNECTIONS;
    }
}

/* One pod: known by the slices that list it, or a bare address. */
static void aim_at_address(struct worker *worker, const struct address *address,
                           struct target *target)
{
    const struct snapshot *snapshot = worker_snapshot(worker);
    struct route_ip ip = {.family = address->family == ADDRESS_IPV4 ? 4 : 6};
    memcpy(ip.bytes, address->ip, sizeof(ip.bytes));
    struct route_endpoint_owner owners[OWNERS_MAX];
    uint32_t count = route_services_find_endpoint(route_config_services(snapshot->config), &ip,
                                                  address->port, owners, OWNERS_MAX);
    target->protocol = ROUTE_PROTOCOL_TCP;
    if (count == 0) {
        return;
    }
    /* Services may disagree about one pod's port: one that declares it knows better. */
    const struct route_port *port = owners[0].port;
    for (uint32_t i = 1; i < count && port->protocol == ROUTE_PROTOCOL_UNDECLARED; i++) {
        port = owners[i].port;
    }
    target->protocol = port->protocol;
    target->parent = find_cluster(worker, port);
    target->cluster = clusters_find_address(worker->clusters, address, snapshot->generation);
}

static void aim_outbound(struct worker *worker, const struct destination *destination,
                         struct target *target)
{
    const struct route_services *services = route_config_services(worker_snapshot(worker)->config);
    struct route_ip ip = {.family = destination->family == ADDRESS_IPV4 ? 4 : 6};
    memcpy(ip.bytes, destination->ip, sizeof(ip.bytes));
    const struct route_port *port =
        route_services_find_address(services, &ip, destination->port, ROUTE_TRANSPORT_TCP);
    if (port != NULL) {
        aim_at_service(worker, port, target);
        return;
    }
    const struct address address = destination_address(destination);
    aim_at_address(worker, &address, target);
    if (target->parent == NULL && worker->settings->is_registry_only) {
        target->refusal = CAUSE_REGISTRY_ONLY;
    }
}

static void aim_named(struct worker *worker, const struct worker_listener *source,
                      struct target *target)
{
    const struct route_service *service =
        route_services_find(route_config_services(worker_snapshot(worker)->config),
                            source->service_namespace, source->service_name);
    const struct route_port *port =
        service == NULL
            ? NULL
            : route_service_port_find(service, source->service_port, ROUTE_TRANSPORT_TCP);
    if (port == NULL) {
        target->refusal = CAUSE_NO_ENDPOINTS;
        target->protocol = ROUTE_PROTOCOL_TCP;
        return;
    }
    aim_at_service(worker, port, target);
}

void target_aim(struct worker *worker, const struct worker_listener *source,
                const struct destination *destination, struct target *target)
{
    switch (source->kind) {
    case LISTENER_OUTBOUND:
        aim_outbound(worker, destination, target);
        break;
    case LISTENER_INBOUND: {
        const struct address address = destination_address(destination);
        aim_at_address(worker, &address, target);
        break;
    }
    case LISTENER_NAMED:
        aim_named(worker, source, target);
        break;
    }
}

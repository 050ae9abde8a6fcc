/* Commands about what workers own: a question travels by cursor through one worker after the other
 * (design 4.1). */
#include "control/admin_workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "proxy/worker.h"
#include "routes/service.h"

struct collection {
    struct admin_call admin;
    struct worker_query query;
    struct json *rows;
    uint32_t worker;
};

static struct json *json_address(const struct address *address)
{
    char text[ADDRESS_TEXT_MAX] = "";
    if (address->family != ADDRESS_NONE) {
        address_print(address, text);
    }
    return json_new_text(text);
}

static struct json *json_connection(const struct worker_connection_row *row, uint32_t worker)
{
    static const char *const protocols[STATS_PROTOCOL_COUNT] = {"tcp", "http1", "http2"};
    struct json *json = json_new_object();
    json_put(json, "worker", json_new_number(worker));
    json_put(json, "number", json_new_number((int64_t)row->number));
    json_put(json, "direction",
             json_new_text(row->direction == STATS_OUTBOUND ? "outbound" : "inbound"));
    json_put(json, "protocol", json_new_text(protocols[row->protocol]));
    json_put(json, "downstream", json_address(&row->downstream));
    json_put(json, "destination", json_address(&row->destination));
    json_put(json, "endpoint", json_address(&row->endpoint));
    json_put(json, "parent", json_new_text(row->parent));
    json_put(json, "state", json_new_text(row->state));
    json_put(json, "ageMs", json_new_number((int64_t)(row->age_ns / CLOCK_NS_PER_MS)));
    json_put(json, "receivedBytes", json_new_number((int64_t)row->received_bytes));
    json_put(json, "sentBytes", json_new_number((int64_t)row->sent_bytes));
    return json;
}

static struct json *json_endpoint(const struct worker_endpoint_row *row)
{
    struct json *json = json_new_object();
    json_put(json, "service", json_new_text(row->service));
    json_put(json, "port", json_new_number(row->port));
    json_put(json, "address", json_address(&row->address));
    json_put(json, "source", json_new_text(row->is_cluster_ip ? "clusterIP" : "slice"));
    json_put(json, "state", json_new_text(row->is_ejected ? "ejected" : "ready"));
    json_put(json, "active", json_new_number(row->active));
    json_put(json, "connections", json_new_number(row->connections));
    return json;
}

/* Endpoints that no worker has used yet are in no cluster: the configuration's own list is the
 * base, and what workers say is added to it. */
struct endpoint_sum {
    struct worker_endpoint_row row;
    struct endpoint_sum *next;
};

struct endpoint_collection {
    struct collection base;
    struct endpoint_sum *sums; /* in order of the configuration */
    struct endpoint_sum **end;
};

static struct endpoint_sum *find_sum(struct endpoint_collection *all,
                                     const struct worker_endpoint_row *row)
{
    for (struct endpoint_sum *sum = all->sums; sum != NULL; sum = sum->next) {
        if (sum->row.port == row->port && address_equal(&sum->row.address, &row->address) &&
            strcmp(sum->row.service, row->service) == 0) {
            return sum;
        }
    }
    return NULL;
}

static void add_endpoint(struct endpoint_collection *all, const struct worker_endpoint_row *row)
{
    struct endpoint_sum *sum = find_sum(all, row);
    if (sum != NULL) {
        sum->row.active += row->active;
        sum->row.connections += row->connections;
        sum->row.is_ejected = sum->row.is_ejected || row->is_ejected;
        return;
    }
    sum = calloc(1, sizeof(*sum));
    if (sum == NULL) {
        return;
    }
    sum->row = *row;
    *all->end = sum;
    all->end = &sum->next;
}

static struct address address_of(const struct route_ip *ip, uint16_t port)
{
    struct address address = {.family = ip->family == 4 ? ADDRESS_IPV4 : ADDRESS_IPV6,
                              .port = port};
    memcpy(address.ip, ip->bytes, ip->family == 4 ? 4 : 16);
    return address;
}

static void add_configured(struct endpoint_collection *all, const struct route_port *port)
{
    struct worker_endpoint_row row = {.port = port->source->port};
    snprintf(row.service, sizeof(row.service), "%.*s", (int)port->service->reference.size,
             (const char *)port->service->reference.data);
    for (uint32_t i = 0; i < port->endpoints_count; i++) {
        row.address = address_of(&port->endpoints[i].addresses[0], port->endpoints[i].port);
        add_endpoint(all, &row);
    }
    if (port->service->cluster_ips_count > 0) {
        row.is_cluster_ip = true;
        row.address = address_of(&port->service->cluster_ips[0], port->source->port);
        add_endpoint(all, &row);
    }
}

static void finish_endpoints(struct collection *collection)
{
    struct endpoint_collection *all = (struct endpoint_collection *)collection;
    while (all->sums != NULL) {
        struct endpoint_sum *sum = all->sums;
        all->sums = sum->next;
        json_push(collection->rows, json_endpoint(&sum->row));
        free(sum);
    }
}

static void add_rows(struct collection *collection)
{
    const struct worker_query *query = &collection->query;
    for (uint32_t i = 0; i < query->rows_count; i++) {
        switch (query->kind) {
        case WORKER_QUERY_CONNECTIONS:
            json_push(collection->rows,
                      json_connection(&query->connections[i], collection->worker));
            break;
        case WORKER_QUERY_ENDPOINTS:
            add_endpoint((struct endpoint_collection *)collection, &query->endpoints[i]);
            break;
        case WORKER_QUERY_DUMP:
            json_push(collection->rows, json_new_text(query->lines[i]));
            break;
        case WORKER_QUERY_ALIVE:
            break;
        }
    }
}

static void on_rows(struct worker_query *query)
{
    struct collection *collection = LIST_OWNER(query, struct collection, query);
    struct control *control = collection->admin.control;
    add_rows(collection);
    if (query->cursor == WORKER_QUERY_END) {
        collection->worker++;
        query->cursor = 0;
    }
    if (collection->worker < control->workers_count) {
        worker_ask(control->workers[collection->worker], query);
        return;
    }
    if (query->kind == WORKER_QUERY_ENDPOINTS) {
        finish_endpoints(collection);
    }
    admin_reply(&collection->admin, 200, collection->rows);
    free(collection);
}

static void begin_collection(struct collection *collection, const struct admin_call *admin,
                             enum worker_query_kind kind)
{
    collection->admin = *admin;
    collection->rows = json_new_array();
    collection->query.kind = kind;
    collection->query.asker = admin->control->io;
    collection->query.on_answer = on_rows;
    worker_ask(admin->control->workers[0], &collection->query);
}

static void collect(const struct admin_call *admin, enum worker_query_kind kind)
{
    struct collection *collection = calloc(1, sizeof(*collection));
    if (collection == NULL) {
        admin_reply_error(admin, 503, "out_of_memory", "out of memory");
        return;
    }
    begin_collection(collection, admin, kind);
}

void admin_get_connections(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    collect(admin, WORKER_QUERY_CONNECTIONS);
}

void admin_get_dump(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    collect(admin, WORKER_QUERY_DUMP);
}

void admin_get_endpoints(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    struct endpoint_collection *all = calloc(1, sizeof(*all));
    if (all == NULL) {
        admin_reply_error(admin, 503, "out_of_memory", "out of memory");
        return;
    }
    all->end = &all->sums;
    const struct route_services *services = route_config_services(admin->control->current->config);
    for (uint32_t i = 0; i < route_services_count(services); i++) {
        const struct route_service *service = route_services_at(services, i);
        for (uint32_t p = 0; p < service->ports_count; p++) {
            add_configured(all, &service->ports[p]);
        }
    }
    begin_collection(&all->base, admin, WORKER_QUERY_ENDPOINTS);
}

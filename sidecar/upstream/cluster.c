/*
 * Clusters: two hash tables over two slabs. Refreshing compares by address: what stays keeps its
 * state and its connections, what is new begins sound, what is gone is put out of choice.
 */
#include "upstream/cluster.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/slab.h"

#define EJECTION_FIRST_NS (5 * CLOCK_NS_PER_S)
#define EJECTION_MAX_NS (300 * CLOCK_NS_PER_S)

enum {
    BUCKETS = 4096,
    PAIRS_TRIED = 4, /* before the search becomes a walk */
    ARRAY_BYTES_MAX = 1 << 20,
};

struct clusters {
    struct clusters_options options;
    struct slab cluster_slab;
    struct slab endpoint_slab;
    struct list all;
    struct list *sweep; /* borrowed: the next one of `all` to look at; NULL: no sweep under way */
    struct cluster *buckets[BUCKETS];           /* owned by the slab */
    struct endpoint *endpoint_buckets[BUCKETS]; /* likewise */
};

/* ---- hashing ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 29);
}

static uint64_t mix_bytes(uint64_t hash, struct bytes bytes)
{
    while (bytes.size >= 8) {
        uint64_t word = 0;
        memcpy(&word, bytes.data, 8);
        hash = mix(hash, word);
        bytes = bytes_skip(bytes, 8);
    }
    uint64_t rest = bytes.size;
    for (size_t i = 0; i < bytes.size; i++) {
        rest = rest << 8 | bytes.data[i];
    }
    return mix(hash, rest);
}

static uint64_t hash_name(struct bytes namespace, struct bytes name, uint16_t port)
{
    return mix_bytes(mix_bytes(port, namespace), name);
}

static uint64_t hash_endpoint(const struct cluster *cluster, const struct address *address)
{
    return mix(address_hash(address), cluster->hash);
}

/* ---- memory ---- */

FALLIBLE clusters_create(const struct clusters_options *options, struct clusters **ret_clusters)
{
    struct clusters *clusters = calloc(1, sizeof(*clusters));
    if (clusters == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    clusters->options = *options;
    list_init(&clusters->all);
    struct error error =
        slab_init(&clusters->cluster_slab, sizeof(struct cluster), options->clusters_max);
    if (!error_is(error)) {
        error =
            slab_init(&clusters->endpoint_slab, sizeof(struct endpoint), options->endpoints_max);
    }
    if (error_is(error)) {
        slab_finish(&clusters->cluster_slab);
        free(clusters);
        return error;
    }
    *ret_clusters = clusters;
    return OK;
}

static void free_cluster(struct cluster *cluster)
{
    struct clusters *clusters = cluster->clusters;
    CHECK(cluster->holds == 0 && cluster->connections == 0);
    struct cluster **place = &clusters->buckets[cluster->hash % BUCKETS];
    while (*place != cluster) {
        place = &(*place)->next_same_hash;
    }
    *place = cluster->next_same_hash;
    if (clusters->sweep == &cluster->all) {
        clusters->sweep = cluster->all.next;
    }
    list_remove(&cluster->all);
    arena_finish(&cluster->arenas[0]);
    arena_finish(&cluster->arenas[1]);
    slab_put(&clusters->cluster_slab, cluster);
}

static void free_endpoint(struct endpoint *endpoint)
{
    struct cluster *cluster = endpoint->cluster;
    struct clusters *clusters = cluster->clusters;
    CHECK(endpoint->holds == 0 && endpoint->active == 0 && endpoint->connections == 0);
    uint64_t hash = hash_endpoint(cluster, &endpoint->addresses[0]);
    struct endpoint **place = &clusters->endpoint_buckets[hash % BUCKETS];
    while (*place != endpoint) {
        place = &(*place)->next_same_hash;
    }
    *place = endpoint->next_same_hash;
    slab_put(&clusters->endpoint_slab, endpoint);
    cluster_release(cluster);
}

/* Out of choice now, out of memory when nothing uses it. */
static void retire_endpoint(struct endpoint *endpoint)
{
    CHECK(!endpoint->is_gone);
    endpoint->is_gone = true;
    endpoint->holds++; /* closing idle connections may be what ends the last hold */
    const struct clusters *clusters = endpoint->cluster->clusters;
    if (clusters->options.on_endpoint_gone != NULL) {
        clusters->options.on_endpoint_gone(endpoint);
    }
    endpoint->holds--;
    if (endpoint->holds == 0) {
        free_endpoint(endpoint);
    }
}

static void retire_cluster(struct cluster *cluster)
{
    cluster->is_gone = true;
    cluster_hold(cluster);
    struct endpoint *cluster_ip = cluster->cluster_ip;
    cluster->cluster_ip = NULL;
    for (uint32_t i = 0; i < cluster->endpoints_count; i++) {
        if (cluster->endpoints[i] != cluster_ip) {
            retire_endpoint(cluster->endpoints[i]);
        }
    }
    cluster->endpoints_count = 0;
    if (cluster_ip != NULL) {
        retire_endpoint(cluster_ip);
    }
    cluster_release(cluster);
}

void clusters_destroy(struct clusters *clusters)
{
    if (clusters == NULL) {
        return;
    }
    while (!list_is_empty(&clusters->all)) {
        struct cluster *cluster = LIST_OWNER(clusters->all.next, struct cluster, all);
        CHECK(!cluster->is_gone);
        retire_cluster(cluster);
    }
    CHECK(clusters->endpoint_slab.used == 0 && clusters->cluster_slab.used == 0);
    slab_finish(&clusters->cluster_slab);
    slab_finish(&clusters->endpoint_slab);
    free(clusters);
}

void cluster_hold(struct cluster *cluster)
{
    cluster->holds++;
}

void cluster_release(struct cluster *cluster)
{
    CHECK(cluster->holds > 0);
    if (--cluster->holds == 0 && cluster->is_gone) {
        free_cluster(cluster);
    }
}

/* ---- making and refreshing ---- */

static struct address address_of_ip(const struct route_ip *ip, uint16_t port)
{
    struct address address = {.family = ip->family == 4 ? ADDRESS_IPV4 : ADDRESS_IPV6,
                              .port = port};
    memcpy(address.ip, ip->bytes, ip->family == 4 ? 4 : 16);
    return address;
}

/* The endpoint of `cluster` with that first address: the one it has, or a new one; NULL when the
 * bound is reached. */
static struct endpoint *get_endpoint(struct cluster *cluster, const struct address *address,
                                     bool is_cluster_ip)
{
    struct clusters *clusters = cluster->clusters;
    struct endpoint **bucket =
        &clusters->endpoint_buckets[hash_endpoint(cluster, address) % BUCKETS];
    for (struct endpoint *endpoint = *bucket; endpoint != NULL;
         endpoint = endpoint->next_same_hash) {
        if (endpoint->cluster == cluster && !endpoint->is_gone &&
            endpoint->is_cluster_ip == is_cluster_ip &&
            address_equal(&endpoint->addresses[0], address)) {
            return endpoint;
        }
    }
    struct endpoint *endpoint = slab_take(&clusters->endpoint_slab);
    if (endpoint == NULL) {
        return NULL;
    }
    *endpoint = (struct endpoint){.cluster = cluster,
                                  .addresses = {*address},
                                  .addresses_count = 1,
                                  .is_cluster_ip = is_cluster_ip,
                                  .next_same_hash = *bucket};
    for (int i = 0; i < ENDPOINT_POOLS; i++) {
        list_init(&endpoint->idle[i]);
    }
    list_init(&endpoint->shared);
    *bucket = endpoint;
    cluster_hold(cluster);
    return endpoint;
}

/* As get_endpoint, of both families; NULL also when the refresh under way has it already. */
static struct endpoint *refresh_endpoint(struct cluster *cluster, const struct route_ip *ips,
                                         uint32_t ips_count, uint16_t port, bool is_cluster_ip)
{
    struct address first = address_of_ip(&ips[0], port);
    struct endpoint *endpoint = get_endpoint(cluster, &first, is_cluster_ip);
    if (endpoint == NULL || endpoint->generation == cluster->generation) {
        return NULL;
    }
    endpoint->addresses_count = 1;
    if (ips_count > 1 && ips[1].family != ips[0].family) {
        endpoint->addresses[1] = address_of_ip(&ips[1], port);
        endpoint->addresses_count = 2;
    }
    endpoint->generation = cluster->generation;
    return endpoint;
}

/* Fill `list` with what `port` says, and put what is no longer said out of choice. */
static void replace_endpoints(struct cluster *cluster, const struct route_port *port,
                              struct endpoint **list)
{
    const struct route_service *service = port->service;
    struct endpoint *cluster_ip = NULL;
    if (service->cluster_ips_count > 0) {
        cluster_ip = refresh_endpoint(cluster, service->cluster_ips, service->cluster_ips_count,
                                      port->source->port, true);
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < port->endpoints_count && service->has_slices; i++) {
        const struct route_endpoint *source = &port->endpoints[i];
        struct endpoint *endpoint = refresh_endpoint(cluster, source->addresses,
                                                     source->addresses_count, source->port, false);
        if (endpoint != NULL) {
            list[count++] = endpoint;
        }
    }
    if (!service->has_slices && cluster_ip != NULL) {
        list[count++] = cluster_ip;
    }
    struct endpoint **old = cluster->endpoints;
    uint32_t old_count = cluster->endpoints_count;
    struct endpoint *old_ip = cluster->cluster_ip;
    cluster->endpoints = list;
    cluster->endpoints_count = count;
    cluster->cluster_ip = cluster_ip;
    for (uint32_t i = 0; i < old_count; i++) {
        if (old[i]->generation != cluster->generation && old[i] != old_ip) {
            retire_endpoint(old[i]);
        }
    }
    if (old_ip != NULL && old_ip != cluster_ip) {
        retire_endpoint(old_ip);
    }
}

/* Compare `cluster` with `port`. Without memory for the new list the old one stays in force. */
static void refresh(struct cluster *cluster, const struct route_port *port, uint64_t generation)
{
    cluster->generation = generation;
    cluster->protocol = port->protocol;
    uint8_t next = cluster->arena_index ^ 1;
    arena_reset(&cluster->arenas[next]);
    struct endpoint **list =
        arena_alloc_zero(&cluster->arenas[next], port->endpoints_count + 1, sizeof(*list));
    if (list != NULL) {
        cluster->arena_index = next;
        replace_endpoints(cluster, port, list);
    }
}

static struct cluster *make_cluster(struct clusters *clusters, uint64_t hash)
{
    struct cluster *cluster = slab_take(&clusters->cluster_slab);
    if (cluster == NULL) {
        return NULL;
    }
    struct cluster **bucket = &clusters->buckets[hash % BUCKETS];
    *cluster = (struct cluster){.clusters = clusters, .hash = hash, .next_same_hash = *bucket};
    *bucket = cluster;
    list_init(&cluster->all);
    list_append(&clusters->all, &cluster->all);
    arena_init(&cluster->arenas[0], 64, ARRAY_BYTES_MAX);
    arena_init(&cluster->arenas[1], 64, ARRAY_BYTES_MAX);
    return cluster;
}

/* `a`, a separator, `b`, ":port"; returns the size. */
static size_t print_reference(char *text, struct bytes a, char separator, struct bytes b,
                              uint16_t port)
{
    size_t size = 0;
    memcpy(text, a.data, a.size);
    size += a.size;
    text[size++] = separator;
    memcpy(text + size, b.data, b.size);
    size += b.size;
    text[size++] = ':';
    return size + bytes_print_decimal(port, (uint8_t *)text + size);
}

/* Both texts, into the cluster's own; false when they do not fit, which no valid name does. */
static bool set_reference(struct cluster *cluster, const struct cluster_source *source)
{
    struct bytes name = source->name;
    struct bytes namespace = source->namespace;
    if (name.size + namespace.size + 24 > sizeof(cluster->text)) {
        return false;
    }
    size_t size = print_reference(cluster->text, name, '.', namespace, source->port);
    cluster->reference = bytes_make(cluster->text, size);
    cluster->name = bytes_make(cluster->text, name.size);
    cluster->namespace = bytes_make(cluster->text + name.size + 1, namespace.size);
    size = print_reference(cluster->label_text, namespace, '/', name, source->port);
    cluster->label = bytes_make(cluster->label_text, size);
    cluster->port = source->port;
    return true;
}

static const struct route_port *find_port(const struct cluster_source *source)
{
    if (source->found != NULL) {
        return source->found;
    }
    const struct route_service *service =
        route_services_find(source->services, source->namespace, source->name);
    return service == NULL ? NULL
                           : route_service_port_find(service, source->port, ROUTE_TRANSPORT_TCP);
}

struct cluster *clusters_find(struct clusters *clusters, const struct cluster_source *source)
{
    uint64_t hash = hash_name(source->namespace, source->name, source->port);
    struct cluster *cluster = clusters->buckets[hash % BUCKETS];
    while (cluster != NULL &&
           (cluster->hash != hash || cluster->is_gone || cluster->is_address ||
            cluster->port != source->port || !bytes_equal(cluster->name, source->name) ||
            !bytes_equal(cluster->namespace, source->namespace))) {
        cluster = cluster->next_same_hash;
    }
    if (cluster != NULL && cluster->generation >= source->generation) {
        return cluster;
    }
    const struct route_port *port = find_port(source);
    if (port == NULL) {
        return NULL;
    }
    if (cluster == NULL) {
        cluster = make_cluster(clusters, hash);
        if (cluster == NULL) {
            return NULL;
        }
        if (!set_reference(cluster, source)) {
            free_cluster(cluster);
            return NULL;
        }
    }
    refresh(cluster, port, source->generation);
    return cluster;
}

struct cluster *clusters_find_address(struct clusters *clusters, const struct address *address,
                                      uint64_t generation)
{
    uint64_t hash = mix(address_hash(address), 1);
    struct cluster *cluster = clusters->buckets[hash % BUCKETS];
    while (cluster != NULL && (cluster->hash != hash || cluster->is_gone || !cluster->is_address ||
                               !address_equal(&cluster->endpoints[0]->addresses[0], address))) {
        cluster = cluster->next_same_hash;
    }
    if (cluster != NULL) {
        if (cluster->generation < generation) {
            cluster->generation = generation;
        }
        return cluster;
    }
    cluster = make_cluster(clusters, hash);
    if (cluster == NULL) {
        return NULL;
    }
    cluster->is_address = true;
    cluster->generation = generation;
    cluster->endpoints = arena_alloc_zero(&cluster->arenas[0], 1, sizeof(struct endpoint *));
    struct endpoint *endpoint =
        cluster->endpoints == NULL ? NULL : get_endpoint(cluster, address, false);
    if (endpoint == NULL) {
        free_cluster(cluster);
        return NULL;
    }
    cluster->endpoints[0] = endpoint;
    cluster->endpoints_count = 1;
    return cluster;
}

/* A bare address that nothing uses: no exchange, no connection. */
static bool is_unused_address(const struct cluster *cluster)
{
    return cluster->endpoints[0]->holds == 0 && cluster->holds == 1;
}

static void sweep_one(struct cluster *cluster, const struct route_services *services,
                      uint64_t generation)
{
    if (cluster->is_gone || cluster->generation >= generation) {
        return;
    }
    if (cluster->is_address) {
        if (is_unused_address(cluster)) {
            retire_cluster(cluster);
        }
        return;
    }
    const struct cluster_source source = {.services = services,
                                          .namespace = cluster->namespace,
                                          .name = cluster->name,
                                          .port = cluster->port};
    const struct route_port *port = find_port(&source);
    if (port == NULL) {
        retire_cluster(cluster);
    } else {
        refresh(cluster, port, generation);
    }
}

bool clusters_sweep(struct clusters *clusters, const struct route_services *services,
                    uint64_t generation, uint32_t max)
{
    if (clusters->sweep == NULL) {
        clusters->sweep = clusters->all.next;
    }
    for (; clusters->sweep != &clusters->all && max > 0; max--) {
        struct cluster *cluster = LIST_OWNER(clusters->sweep, struct cluster, all);
        clusters->sweep = cluster->all.next;
        sweep_one(cluster, services, generation);
    }
    if (clusters->sweep == &clusters->all) {
        clusters->sweep = NULL;
        return true;
    }
    return false;
}

/* ---- choice ---- */

static bool was_tried(const struct cluster_choice *choice, const struct endpoint *endpoint)
{
    for (uint32_t i = 0; i < choice->tried_count; i++) {
        if (choice->tried[i] == endpoint) {
            return true;
        }
    }
    return false;
}

static bool is_usable(const struct cluster_choice *choice, const struct endpoint *endpoint)
{
    return !endpoint_is_ejected(endpoint, choice->now_ns) && !was_tried(choice, endpoint);
}

/* Scale 32 random bits to an index below `count`. */
static uint32_t scale(uint64_t random, uint32_t count)
{
    return (uint32_t)(((random & UINT32_MAX) * count) >> 32);
}

static struct endpoint *pick_sound(const struct cluster *cluster,
                                   const struct cluster_choice *choice)
{
    uint32_t count = cluster->endpoints_count;
    uint64_t random = choice->random;
    for (int i = 0; i < PAIRS_TRIED; i++) {
        struct endpoint *a = cluster->endpoints[scale(random, count)];
        struct endpoint *b = cluster->endpoints[scale(random >> 32, count)];
        bool is_a = is_usable(choice, a);
        bool is_b = is_usable(choice, b);
        if (is_a && is_b) {
            return b->active < a->active ? b : a;
        }
        if (is_a || is_b) {
            return is_a ? a : b;
        }
        random = mix(random, (uint64_t)i + 1);
    }
    uint32_t start = scale(random, count);
    for (uint32_t i = 0; i < count; i++) {
        struct endpoint *endpoint = cluster->endpoints[(start + i) % count];
        if (is_usable(choice, endpoint)) {
            return endpoint;
        }
    }
    return NULL;
}

struct endpoint *cluster_pick(const struct cluster *cluster, const struct cluster_choice *choice)
{
    uint32_t count = cluster->endpoints_count;
    struct endpoint *cluster_ip = cluster->cluster_ip;
    if (count > 0) {
        struct endpoint *endpoint = pick_sound(cluster, choice);
        if (endpoint != NULL) {
            return endpoint;
        }
    }
    if (cluster_ip != NULL && is_usable(choice, cluster_ip)) {
        return cluster_ip;
    }
    uint32_t start = count == 0 ? 0 : scale(choice->random, count);
    for (uint32_t i = 0; i < count; i++) {
        struct endpoint *endpoint = cluster->endpoints[(start + i) % count];
        if (!was_tried(choice, endpoint)) {
            return endpoint;
        }
    }
    return cluster_ip != NULL && !was_tried(choice, cluster_ip) ? cluster_ip : NULL;
}

bool cluster_has_room(const struct cluster *cluster)
{
    return cluster->connections < cluster->clusters->options.connections_max;
}

/* ---- endpoints ---- */

static void release_endpoint(struct endpoint *endpoint)
{
    CHECK(endpoint->holds > 0);
    if (--endpoint->holds == 0 && endpoint->is_gone) {
        free_endpoint(endpoint);
    }
}

void endpoint_begin(struct endpoint *endpoint)
{
    endpoint->active++;
    endpoint->holds++;
}

void endpoint_end(struct endpoint *endpoint)
{
    CHECK(endpoint->active > 0);
    endpoint->active--;
    release_endpoint(endpoint);
}

void endpoint_connect(struct endpoint *endpoint)
{
    endpoint->connections++;
    endpoint->cluster->connections++;
    endpoint->holds++;
}

void endpoint_disconnect(struct endpoint *endpoint)
{
    CHECK(endpoint->connections > 0 && endpoint->cluster->connections > 0);
    endpoint->connections--;
    endpoint->cluster->connections--;
    release_endpoint(endpoint);
}

void endpoint_on_failed(struct endpoint *endpoint, uint64_t now_ns)
{
    /* Several attempts may have been under way: they count as one failure. */
    if (endpoint_is_ejected(endpoint, now_ns)) {
        return;
    }
    uint64_t span_ns = EJECTION_MAX_NS;
    if (endpoint->failures < 6) {
        span_ns = EJECTION_FIRST_NS << endpoint->failures;
    }
    endpoint->failures++;
    endpoint->ejected_until_ns = now_ns + (span_ns < EJECTION_MAX_NS ? span_ns : EJECTION_MAX_NS);
}

void endpoint_on_connected(struct endpoint *endpoint)
{
    endpoint->failures = 0;
    endpoint->ejected_until_ns = 0;
}

const struct address *endpoint_address(const struct endpoint *endpoint, uint8_t family)
{
    if (endpoint->addresses_count > 1 && endpoint->addresses[1].family == family) {
        return &endpoint->addresses[1];
    }
    return &endpoint->addresses[0];
}

const struct endpoint *clusters_next(const struct clusters *clusters, uint64_t *cursor)
{
    while (*cursor < clusters->endpoint_slab.touched) {
        const struct endpoint *endpoint = slab_at(&clusters->endpoint_slab, (uint32_t)*cursor);
        (*cursor)++;
        if (slab_is_used(&clusters->endpoint_slab, endpoint) && !endpoint->is_gone) {
            return endpoint;
        }
    }
    return NULL;
}

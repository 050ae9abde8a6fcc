/*
 * Clusters: choice, ejection, the last resort, and what survives a new configuration. The two
 * look-ups of routes/ are played here, so that a configuration is a few lines.
 */
#include "upstream/cluster.h"

#include <criterion/criterion.h>

#include "base/clock.h"

static struct route_service_port port_source = {.port = 80};
static struct route_ip cluster_ip = {.family = 4, .bytes = {10, 96, 0, 1}};
static struct route_endpoint pods[8];
static struct route_port port = {.source = &port_source, .endpoints = pods};
static struct route_service service = {.cluster_ips = &cluster_ip, .has_slices = true};
static bool is_service_known = true;

/* Played: the configuration has one Service, "web" in "shop". */
const struct route_service *route_services_find(const struct route_services *services,
                                                struct bytes namespace, struct bytes name)
{
    (void)services;
    return is_service_known && bytes_equal(namespace, BYTES("shop")) &&
                   bytes_equal(name, BYTES("web"))
               ? &service
               : NULL;
}

/* Played: it has one port. */
const struct route_port *route_service_port_find(const struct route_service *of, uint16_t number,
                                                 enum route_transport transport)
{
    return of == &service && number == 80 && transport == ROUTE_TRANSPORT_TCP ? &port : NULL;
}

static uint32_t gone_count;

static void on_gone(struct endpoint *endpoint)
{
    cr_assert(endpoint->is_gone);
    gone_count++;
}

static struct clusters *make(uint32_t pods_count)
{
    static const struct clusters_options options = {
        .clusters_max = 4, .endpoints_max = 16, .connections_max = 2, .on_endpoint_gone = on_gone};
    for (uint8_t i = 0; i < 8; i++) {
        pods[i] = (struct route_endpoint){
            .addresses = {{.family = 4, .bytes = {10, 0, 0, (uint8_t)(i + 1)}},
                          {.family = 6, .bytes = {0xfd, [15] = (uint8_t)(i + 1)}}},
            .addresses_count = 2,
            .port = 8080};
    }
    port.service = &service;
    port.endpoints_count = pods_count;
    service.ports = &port;
    service.ports_count = 1;
    service.cluster_ips_count = 1;
    struct clusters *clusters = NULL;
    cr_assert(!error_is(clusters_create(&options, &clusters)));
    return clusters;
}

static struct cluster *find(struct clusters *clusters, uint64_t generation)
{
    const struct cluster_source source = {.generation = generation,
                                          .namespace = BYTES_LITERAL("shop"),
                                          .name = BYTES_LITERAL("web"),
                                          .port = 80};
    return clusters_find(clusters, &source);
}

static uint64_t next_random(void)
{
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return state ^ (state >> 33) * UINT64_C(0xff51afd7ed558ccd);
}

Test(cluster, is_found_by_name_and_has_a_reference)
{
    struct clusters *clusters = make(2);
    struct cluster *cluster = find(clusters, 1);
    cr_assert_not_null(cluster);
    cr_assert(bytes_equal(cluster->reference, BYTES("web.shop:80")));
    cr_assert(bytes_equal(cluster->label, BYTES("shop/web:80")));
    cr_assert_eq(find(clusters, 1), cluster);
    cr_assert_eq(cluster->endpoints_count, 2);
    cr_assert_eq(cluster->endpoints[0]->addresses[0].port, 8080);
    cr_assert_eq(endpoint_address(cluster->endpoints[0], ADDRESS_IPV6)->family, ADDRESS_IPV6);
    cr_assert_eq(endpoint_address(cluster->endpoints[0], ADDRESS_IPV4)->family, ADDRESS_IPV4);
    const struct cluster_source unknown = {
        .namespace = BYTES_LITERAL("shop"), .name = BYTES_LITERAL("other"), .port = 80};
    cr_assert_null(clusters_find(clusters, &unknown));
    clusters_destroy(clusters);
}

Test(cluster, prefers_the_endpoint_with_fewer_exchanges)
{
    struct clusters *clusters = make(2);
    struct cluster *cluster = find(clusters, 1);
    for (int i = 0; i < 10; i++) {
        endpoint_begin(cluster->endpoints[0]);
    }
    int busy = 0;
    for (int i = 0; i < 1000; i++) {
        const struct cluster_choice choice = {.random = next_random()};
        busy += cluster_pick(cluster, &choice) == cluster->endpoints[0];
    }
    /* Only when both draws are the busy one: a quarter. */
    cr_assert(busy > 150 && busy < 350, "%d", busy);
    for (int i = 0; i < 10; i++) {
        endpoint_end(cluster->endpoints[0]);
    }
    clusters_destroy(clusters);
}

Test(cluster, spreads_evenly_over_equal_endpoints)
{
    struct clusters *clusters = make(4);
    struct cluster *cluster = find(clusters, 1);
    int counts[4] = {0};
    for (int i = 0; i < 4000; i++) {
        const struct cluster_choice choice = {.random = next_random()};
        const struct endpoint *endpoint = cluster_pick(cluster, &choice);
        for (int j = 0; j < 4; j++) {
            counts[j] += endpoint == cluster->endpoints[j];
        }
    }
    for (int j = 0; j < 4; j++) {
        cr_assert(counts[j] > 850 && counts[j] < 1150, "%d", counts[j]);
    }
    clusters_destroy(clusters);
}

Test(cluster, ejects_for_five_seconds_and_then_twice_as_long_up_to_five_minutes)
{
    struct clusters *clusters = make(1);
    struct endpoint *endpoint = find(clusters, 1)->endpoints[0];
    uint64_t now_ns = 1;
    static const uint64_t spans_s[] = {5, 10, 20, 40, 80, 160, 300, 300};
    for (size_t i = 0; i < sizeof(spans_s) / sizeof(spans_s[0]); i++) {
        endpoint_on_failed(endpoint, now_ns);
        endpoint_on_failed(endpoint, now_ns + 1);
        cr_assert_eq(endpoint->ejected_until_ns - now_ns, spans_s[i] * CLOCK_NS_PER_S, "%zu", i);
        now_ns = endpoint->ejected_until_ns;
        cr_assert(!endpoint_is_ejected(endpoint, now_ns));
    }
    endpoint_on_connected(endpoint);
    endpoint_on_failed(endpoint, now_ns);
    cr_assert_eq(endpoint->ejected_until_ns - now_ns, 5 * CLOCK_NS_PER_S);
    clusters_destroy(clusters);
}

Test(cluster, leaves_ejected_and_tried_endpoints_out)
{
    struct clusters *clusters = make(4);
    struct cluster *cluster = find(clusters, 1);
    endpoint_on_failed(cluster->endpoints[1], 10);
    for (int i = 0; i < 1000; i++) {
        const struct cluster_choice choice = {.now_ns = 11,
                                              .random = next_random(),
                                              .tried = {cluster->endpoints[0]},
                                              .tried_count = 1};
        const struct endpoint *endpoint = cluster_pick(cluster, &choice);
        cr_assert(endpoint == cluster->endpoints[2] || endpoint == cluster->endpoints[3]);
    }
    clusters_destroy(clusters);
}

Test(cluster, falls_back_to_the_cluster_ip_then_to_ejected_endpoints_then_to_nothing)
{
    struct clusters *clusters = make(2);
    struct cluster *cluster = find(clusters, 1);
    endpoint_on_failed(cluster->endpoints[0], 10);
    endpoint_on_failed(cluster->endpoints[1], 10);
    struct cluster_choice choice = {.now_ns = 11, .random = next_random()};
    struct endpoint *first = cluster_pick(cluster, &choice);
    cr_assert_eq(first, cluster->cluster_ip);
    cr_assert(first->is_cluster_ip);
    cr_assert_eq(first->addresses[0].port, 80);
    choice.tried[choice.tried_count++] = first;
    struct endpoint *second = cluster_pick(cluster, &choice);
    cr_assert_not_null(second);
    cr_assert(!second->is_cluster_ip);
    choice.tried[choice.tried_count++] = second;
    struct endpoint *third = cluster_pick(cluster, &choice);
    cr_assert(third != NULL && third != second);
    choice.tried[choice.tried_count++] = third;
    cr_assert_null(cluster_pick(cluster, &choice));
    clusters_destroy(clusters);
}

Test(cluster, of_a_service_without_slices_is_its_cluster_ip)
{
    struct clusters *clusters = make(0);
    service.has_slices = false;
    struct cluster *cluster = find(clusters, 1);
    cr_assert_eq(cluster->endpoints_count, 1);
    cr_assert_eq(cluster->endpoints[0], cluster->cluster_ip);
    service.cluster_ips_count = 0;
    cluster = find(clusters, 2);
    cr_assert_eq(cluster->endpoints_count, 0);
    const struct cluster_choice choice = {.random = next_random()};
    cr_assert_null(cluster_pick(cluster, &choice));
    clusters_destroy(clusters);
    service.has_slices = true;
}

Test(cluster, keeps_the_state_of_endpoints_that_stay_and_drops_those_that_go)
{
    struct clusters *clusters = make(4);
    struct cluster *cluster = find(clusters, 1);
    struct endpoint *kept = cluster->endpoints[3];
    struct endpoint *used = cluster->endpoints[1];
    endpoint_on_failed(kept, 10);
    endpoint_begin(used);
    gone_count = 0;
    pods[0] = pods[3];
    port.endpoints_count = 1;
    cr_assert_eq(find(clusters, 2), cluster);
    cr_assert_eq(cluster->endpoints_count, 1);
    cr_assert_eq(cluster->endpoints[0], kept);
    cr_assert(endpoint_is_ejected(kept, 11));
    cr_assert_eq(gone_count, 3);
    cr_assert(used->is_gone);
    endpoint_end(used);
    uint64_t cursor = 0;
    int left = 0;
    while (clusters_next(clusters, &cursor) != NULL) {
        left++;
    }
    cr_assert_eq(left, 2);
    clusters_destroy(clusters);
}

Test(cluster, takes_an_endpoint_that_is_listed_twice_once)
{
    struct clusters *clusters = make(2);
    pods[1] = pods[0];
    struct cluster *cluster = find(clusters, 1);
    cr_assert_eq(cluster->endpoints_count, 1);
    port.endpoints_count = 0;
    cr_assert_eq(find(clusters, 2)->endpoints_count, 0);
    clusters_destroy(clusters);
}

Test(cluster, is_swept_when_its_service_is_gone_but_lives_while_it_is_used)
{
    struct clusters *clusters = make(1);
    struct cluster *cluster = find(clusters, 1);
    struct endpoint *endpoint = cluster->endpoints[0];
    endpoint_connect(endpoint);
    is_service_known = false;
    cr_assert(clusters_sweep(clusters, NULL, 2, 100));
    cr_assert(cluster->is_gone && endpoint->is_gone);
    cr_assert_null(find(clusters, 2));
    is_service_known = true;
    struct cluster *again = find(clusters, 3);
    cr_assert(again != NULL && again != cluster);
    endpoint_disconnect(endpoint);
    clusters_destroy(clusters);
}

Test(cluster, of_a_bare_address_has_that_endpoint_and_goes_when_unused)
{
    struct clusters *clusters = make(1);
    const struct address address = {.family = ADDRESS_IPV4, .port = 8080, .ip = {10, 0, 0, 9}};
    struct cluster *cluster = clusters_find_address(clusters, &address, 1);
    cr_assert_not_null(cluster);
    cr_assert_eq(clusters_find_address(clusters, &address, 1), cluster);
    endpoint_connect(cluster->endpoints[0]);
    cr_assert(clusters_sweep(clusters, NULL, 2, 100));
    cr_assert(!cluster->is_gone);
    endpoint_disconnect(cluster->endpoints[0]);
    gone_count = 0;
    cr_assert(clusters_sweep(clusters, NULL, 3, 100));
    cr_assert_eq(gone_count, 1);
    clusters_destroy(clusters);
}

Test(cluster, sweeps_in_steps)
{
    struct clusters *clusters = make(1);
    struct address address = {.family = ADDRESS_IPV4, .port = 1, .ip = {10, 0, 0, 9}};
    for (uint16_t i = 1; i <= 4; i++) {
        address.port = i;
        cr_assert_not_null(clusters_find_address(clusters, &address, 1));
    }
    address.port = 5;
    cr_assert_null(clusters_find_address(clusters, &address, 1));
    cr_assert(!clusters_sweep(clusters, NULL, 2, 3));
    cr_assert(clusters_sweep(clusters, NULL, 2, 3));
    cr_assert_not_null(clusters_find_address(clusters, &address, 2));
    clusters_destroy(clusters);
}

Test(cluster, bounds_its_connections)
{
    struct clusters *clusters = make(1);
    struct cluster *cluster = find(clusters, 1);
    cr_assert(cluster_has_room(cluster));
    endpoint_connect(cluster->endpoints[0]);
    endpoint_connect(cluster->endpoints[0]);
    cr_assert(!cluster_has_room(cluster));
    endpoint_disconnect(cluster->endpoints[0]);
    cr_assert(cluster_has_room(cluster));
    endpoint_disconnect(cluster->endpoints[0]);
    clusters_destroy(clusters);
}

Test(cluster, survives_want_of_memory)
{
    struct clusters *clusters = make(8);
    port.endpoints_count = 8;
    struct cluster *cluster = find(clusters, 1);
    arena_fail_after(&cluster->arenas[cluster->arena_index ^ 1], 1);
    cr_assert_eq(find(clusters, 2), cluster);
    cr_assert_eq(cluster->endpoints_count, 8);
    const struct cluster_choice choice = {.random = next_random()};
    cr_assert_not_null(cluster_pick(cluster, &choice));
    clusters_destroy(clusters);
}

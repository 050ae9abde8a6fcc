/* Test support: see world.h. */
#include "proxy/world.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "routes/load.h"
#include "routes/table.h"

/* What routes/load.h keeps to itself, played: one Service. */
struct route_config {
    struct arena arena;
    struct route_diagnostics diagnostics;
    struct route_services *services;
    const struct route_table *table;
};

static uint32_t snapshots_alive;
static uint64_t heap_bytes_max = UINT64_MAX;

void world_limit_heap(uint64_t bytes)
{
    heap_bytes_max = bytes;
}

const struct route_services *route_config_services(const struct route_config *config)
{
    return config->services;
}

const char *route_config_hash(const struct route_config *config)
{
    (void)config;
    return "000000000000";
}

void route_config_unref(const struct route_config *config)
{
    struct route_config *own = NULL;
    memcpy(&own, &config, sizeof(own)); /* it is ours: made by make_config */
    route_table_unref(own->table);
    route_diagnostics_finish(&own->diagnostics);
    arena_finish(&own->arena);
    free(own);
    snapshots_alive--;
}

uint32_t world_snapshots(void)
{
    return snapshots_alive;
}

void route_object_ref(const struct route_object *object)
{
    (void)object;
}

void route_object_unref(const struct route_object *object)
{
    (void)object;
}

int route_object_compare_age(const struct route_object *a, const struct route_object *b)
{
    return bytes_compare(a->name, b->name);
}

static struct bytes format(struct arena *arena, const char *text, unsigned number)
{
    char *copy = arena_format(arena, text, number);
    cr_assert_not_null(copy);
    return bytes_from_string(copy);
}

static void *make(struct arena *arena, size_t count, size_t size)
{
    void *memory = arena_alloc_zero(arena, count, size);
    cr_assert_not_null(memory);
    return memory;
}

static const struct route_object *make_service(struct arena *arena,
                                               const struct world_config *config)
{
    struct route_service_object *service = make(arena, 1, sizeof(*service));
    struct bytes *ips = make(arena, 1, sizeof(*ips));
    struct route_service_port *port = make(arena, 1, sizeof(*port));
    ips[0] = BYTES("10.96.0.1");
    *port = (struct route_service_port){.name = bytes_from_string(config->port_name),
                                        .transport = ROUTE_TRANSPORT_TCP,
                                        .port = 80,
                                        .target_port = 8080};
    *service = (struct route_service_object){
        .object = {.kind = ROUTE_KIND_SERVICE, .namespace = BYTES("shop"), .name = BYTES("web")},
        .type = ROUTE_SERVICE_CLUSTER_IP,
        .cluster_ips = ips,
        .cluster_ips_count = 1,
        .ports = port,
        .ports_count = 1};
    return &service->object;
}

static const struct route_object *make_slice(struct arena *arena, const struct world_config *config)
{
    struct route_endpoint_slice *slice = make(arena, 1, sizeof(*slice));
    struct route_slice_endpoint *endpoints = make(arena, config->pods + 1, sizeof(*endpoints));
    struct route_slice_port *port = make(arena, 1, sizeof(*port));
    for (uint32_t i = 0; i < config->pods; i++) {
        struct bytes *address = make(arena, 1, sizeof(*address));
        *address = format(arena, "10.0.0.%u", i + 1);
        endpoints[i] = (struct route_slice_endpoint){.addresses = address,
                                                     .addresses_count = 1,
                                                     .is_ready = true,
                                                     .pod = format(arena, "web-%u", i)};
    }
    *port = (struct route_slice_port){.name = bytes_from_string(config->port_name),
                                      .transport = ROUTE_TRANSPORT_TCP,
                                      .port = 8080};
    *slice = (struct route_endpoint_slice){.object = {.kind = ROUTE_KIND_ENDPOINT_SLICE,
                                                      .namespace = BYTES("shop"),
                                                      .name = BYTES("web-1")},
                                           .service = BYTES("web"),
                                           .address_type = ROUTE_ADDRESS_IPV4,
                                           .endpoints = endpoints,
                                           .endpoints_count = config->pods,
                                           .ports = port,
                                           .ports_count = 1};
    return &slice->object;
}

static enum route_backend_fault resolve(void *argument, const struct route *route,
                                        const struct route_backend_ref *reference)
{
    (void)argument;
    (void)route;
    return bytes_equal(reference->name, BYTES("web")) ? ROUTE_BACKEND_VALID
                                                      : ROUTE_BACKEND_NOT_FOUND;
}

static const struct route_body_match *find_body_match(void *argument, struct bytes namespace,
                                                      struct bytes name)
{
    (void)argument;
    (void)namespace;
    (void)name;
    return NULL;
}

static void attach_routes(struct route_config *own, const struct world_config *config)
{
    struct arena *arena = &own->arena;
    enum route_kind kind = config->is_tcp_route ? ROUTE_KIND_TCP_ROUTE : ROUTE_KIND_HTTP_ROUTE;
    struct route *route = make(arena, 1, sizeof(*route));
    *route =
        (struct route){.object = {.kind = kind, .namespace = BYTES("shop"), .name = BYTES("route")},
                       .rules = config->rules,
                       .rules_count = config->rules_count};
    const struct route **routes = make(arena, 1, sizeof(struct route *));
    routes[0] = route;
    const struct route_table_port port = {
        .port = 80, .kind = kind, .routes = routes, .routes_count = 1};
    const struct route_table_resolver resolver = {.backend = resolve,
                                                  .body_match = find_body_match};
    const struct route_table_source source = {.namespace = BYTES("shop"),
                                              .name = BYTES("web"),
                                              .ports = &port,
                                              .ports_count = 1,
                                              .resolver = &resolver};
    cr_assert(!error_is(route_table_compile(&source, &own->table)));
    struct route_service *service = route_services_edit(own->services, 0);
    service->table = own->table;
    service->ports[0].rules = route_table_find(own->table, 80, ROUTE_TRANSPORT_TCP);
    cr_assert_not_null(service->ports[0].rules);
}

static struct snapshot *make_snapshot(const struct world_config *config, uint64_t generation)
{
    struct route_config *own = calloc(1, sizeof(*own));
    cr_assert_not_null(own);
    arena_init(&own->arena, 16384, 1 << 24);
    route_diagnostics_init(&own->diagnostics);
    const struct route_object *objects[2] = {make_service(&own->arena, config)};
    uint32_t count = 1;
    if (config->has_slices) {
        objects[count++] = make_slice(&own->arena, config);
    }
    cr_assert(!error_is(
        route_services_build(objects, count, &own->arena, &own->diagnostics, &own->services)));
    if (config->rules != NULL) {
        attach_routes(own, config);
    }
    struct snapshot *snapshot = NULL;
    cr_assert(!error_is(snapshot_create(own, generation, &snapshot)));
    snapshots_alive++;
    return snapshot;
}

struct address world_address(const char *text)
{
    struct address address = {0};
    cr_assert(!error_is(address_parse(bytes_from_string(text), &address)), "%s", text);
    return address;
}

struct address world_pod(uint32_t index)
{
    char text[32];
    snprintf(text, sizeof(text), "10.0.0.%u:8080", index + 1);
    return world_address(text);
}

struct address world_cluster_ip(void)
{
    return world_address("10.96.0.1:80");
}

struct address world_listener(enum listener_kind kind)
{
    static const char *const addresses[] = {[LISTENER_OUTBOUND] = "127.0.0.1:15001",
                                            [LISTENER_INBOUND] = "10.0.9.9:15006",
                                            [LISTENER_NAMED] = "127.0.0.1:9000"};
    return world_address(addresses[kind]);
}

static void set_defaults(struct world *world)
{
    world->own_addresses[0] = world_address("10.0.9.9:0");
    world->settings = (struct worker_settings){.own_namespace = BYTES("shop"),
                                               .connect_timeout_ns = CLOCK_NS_PER_S,
                                               .detect_timeout_ns = 300 * CLOCK_NS_PER_MS,
                                               .pool_idle_timeout_ns = 3 * CLOCK_NS_PER_S,
                                               .access_log = ACCESS_LOG_TEXT,
                                               .own_ports = {15001, 15006},
                                               .own_ports_count = 2,
                                               .own_addresses = world->own_addresses,
                                               .own_addresses_count = 1,
                                               .connections_max = 200};
    for (int i = 0; i < 3; i++) {
        struct address address = world_listener((enum listener_kind)i);
        world->listeners[i] = (struct worker_listener){.kind = (enum listener_kind)i,
                                                       .fd = io_fake_listen(world->io, &address),
                                                       .address = address,
                                                       .service_name = BYTES("web"),
                                                       .service_namespace = BYTES("shop"),
                                                       .service_port = 80};
    }
}

void world_begin_with(struct world *world, uint64_t seed, const struct world_config *config,
                      uint32_t block_count, void (*change)(struct world *world))
{
    *world = (struct world){.seed = seed, .generation = 1};
    struct io_options io_options = io_options_default();
    if (heap_bytes_max != UINT64_MAX) {
        io_options.heap_bytes_max = heap_bytes_max;
    }
    if (block_count > 0) {
        io_options.block_count = block_count;
        io_options.block_bytes = 2048;
    }
    cr_assert(!error_is(io_fake_create(&io_options, seed, &world->io)));
    cr_assert(!error_is(stats_create(0, &world->stats)));
    cr_assert(!error_is(log_ring_create(1 << 20, &world->log)));
    cr_assert(!error_is(log_ring_create(1 << 20, &world->access_log)));
    set_defaults(world);
    if (change != NULL) {
        change(world);
    }
    const struct worker_options options = {.count = 1,
                                           .io = io_options,
                                           .settings = &world->settings,
                                           .listeners = world->listeners,
                                           .listeners_count = 3,
                                           .workers = world->workers,
                                           .snapshot = make_snapshot(config, world->generation),
                                           .stats = world->stats,
                                           .log = world->log,
                                           .access_log = world->access_log};
    cr_assert(!error_is(worker_create(&options, world->io, &world->workers[0])));
    world->worker = world->workers[0];
}

void world_begin(struct world *world, uint64_t seed, const struct world_config *config,
                 uint32_t block_count)
{
    world_begin_with(world, seed, config, block_count, NULL);
}

void world_publish(struct world *world, const struct world_config *config)
{
    worker_publish(world->worker, make_snapshot(config, ++world->generation));
}

void world_end(struct world *world)
{
    worker_destroy(world->worker);
    const char *fault = io_fake_finish(world->io);
    cr_assert_null(fault, "seed %lu: %s", (unsigned long)world->seed, fault);
    io_destroy(world->io);
    stats_destroy(world->stats);
    log_ring_destroy(world->log);
    log_ring_destroy(world->access_log);
    cr_assert_eq(snapshots_alive, 0, "seed %lu: %u snapshots are left", (unsigned long)world->seed,
                 snapshots_alive);
}

void world_run_until(struct world *world, bool (*is_done)(void *argument), void *argument)
{
    enum {
        TURNS_MAX = 400000
    };

    if (!io_fake_run_until(world->io, is_done, argument, TURNS_MAX)) {
        io_fake_describe(world->io);
        cr_assert(false, "seed %lu: nothing more happens", (unsigned long)world->seed);
    }
}

struct io_fake_peer *world_dial(struct world *world, enum listener_kind kind, const char *original,
                                const struct io_fake_script *script, void *owner)
{
    return io_fake_connect(
        world->io, &(struct io_fake_client){.listener = world_listener(kind),
                                            .client = world_address("10.0.9.9:40000"),
                                            .original = original == NULL ? (struct address){0}
                                                                         : world_address(original),
                                            .script = script,
                                            .owner = owner});
}

uint64_t world_hash(uint64_t hash, struct bytes data)
{
    for (size_t i = 0; i < data.size; i++) {
        hash = (hash ^ data.data[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

const char *world_log(struct world *world)
{
    static char text[1 << 20];
    size_t size = log_ring_read(world->access_log, (uint8_t *)text, sizeof(text) - 1);
    text[size] = '\0';
    return text;
}

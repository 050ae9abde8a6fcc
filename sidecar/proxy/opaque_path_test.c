/*
 * TCP through a whole worker on the fake I/O: both ends passed on as they are, endpoints that are
 * dead or stale, destinations of every kind. Each test runs on the calm network and on a few seeds
 * of trouble; the last one on thousands.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "proxy/world.h"

static const uint64_t seeds[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

enum {
    SEEDS_COUNT = sizeof(seeds) / sizeof(seeds[0]),
    TURNS_MAX = 200000,
};

/* A played peer that keeps what it got. */
struct party {
    struct io_fake_peer *peer;
    uint64_t received_bytes;
    uint64_t hash;
    uint32_t connected;
    bool has_ended;
    bool was_reset;
    bool was_refused;
};

static void note(struct party *party, struct bytes data)
{
    for (size_t i = 0; i < data.size; i++) {
        party->hash = (party->hash ^ data.data[i]) * UINT64_C(0x100000001b3);
    }
    party->received_bytes += data.size;
}

static uint64_t hash_of(const char *text)
{
    struct party party = {0};
    note(&party, bytes_from_string(text));
    return party.hash;
}

static void on_connected(struct io_fake_peer *peer)
{
    struct party *party = io_fake_owner(peer);
    party->connected++;
    party->peer = peer;
}

static void on_data(struct io_fake_peer *peer, struct bytes data)
{
    note(io_fake_owner(peer), data);
}

static void on_end(struct io_fake_peer *peer)
{
    ((struct party *)io_fake_owner(peer))->has_ended = true;
}

static void on_reset(struct io_fake_peer *peer)
{
    ((struct party *)io_fake_owner(peer))->was_reset = true;
}

static void on_refused(struct io_fake_peer *peer)
{
    ((struct party *)io_fake_owner(peer))->was_refused = true;
}

/* Keeps, says nothing. */
static const struct io_fake_script listens = {.on_connected = on_connected,
                                              .on_data = on_data,
                                              .on_end = on_end,
                                              .on_reset = on_reset,
                                              .on_refused = on_refused};

static void echo_data(struct io_fake_peer *peer, struct bytes data)
{
    on_data(peer, data);
    io_fake_send(peer, data);
}

static void echo_end(struct io_fake_peer *peer)
{
    on_end(peer);
    io_fake_send_end(peer);
}

static const struct io_fake_script echoes = {
    .on_connected = on_connected, .on_data = echo_data, .on_end = echo_end, .on_reset = on_reset};

static void say_220(struct io_fake_peer *peer)
{
    on_connected(peer);
    io_fake_send(peer, BYTES("220 ready\n"));
}

static const struct io_fake_script speaks_first = {
    .on_connected = say_220, .on_data = on_data, .on_end = echo_end, .on_reset = on_reset};

static void serve(struct world *world, struct address address, const struct io_fake_script *script,
                  struct party *party)
{
    io_fake_serve(world->io,
                  &(struct io_fake_service){.address = address, .script = script, .owner = party});
}

static void serve_as(struct world *world, struct address address, enum io_fake_outcome outcome)
{
    io_fake_serve(world->io, &(struct io_fake_service){.address = address, .outcome = outcome});
}

static struct io_fake_peer *dial_from(struct world *world, enum listener_kind kind,
                                      const char *original, struct party *party)
{
    return io_fake_connect(
        world->io, &(struct io_fake_client){.listener = world_listener(kind),
                                            .client = world_address("10.0.9.9:40000"),
                                            .original = original == NULL ? (struct address){0}
                                                                         : world_address(original),
                                            .script = &listens,
                                            .owner = party});
}

static struct io_fake_peer *dial(struct world *world, struct party *party)
{
    return dial_from(world, LISTENER_NAMED, NULL, party);
}

static bool is_over(void *argument)
{
    const struct party *party = argument;
    return party->has_ended || party->was_reset || party->was_refused;
}

static void run_until_over(struct world *world, struct party *party)
{
    if (!io_fake_run_until(world->io, is_over, party, TURNS_MAX)) {
        io_fake_describe(world->io);
        cr_assert(false, "seed %lu: nothing more happens", (unsigned long)world->seed);
    }
}

static const struct world_config two_pods = {.port_name = "tcp", .pods = 2, .has_slices = true};
static const struct world_config one_pod = {.port_name = "tcp", .pods = 1, .has_slices = true};

static void each_seed(void (*test)(uint64_t seed))
{
    for (size_t i = 0; i < SEEDS_COUNT; i++) {
        test(seeds[i]);
    }
}

static void echo_once(uint64_t seed)
{
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin(&world, seed, &one_pod, 0);
    serve(&world, world_pod(0), &echoes, &server);
    struct io_fake_peer *peer = dial(&world, &client);
    io_fake_send(peer, BYTES("ping"));
    io_fake_send_end(peer);
    run_until_over(&world, &client);
    cr_assert_eq(client.hash, hash_of("ping"), "seed %lu", (unsigned long)seed);
    cr_assert(client.has_ended && !client.was_reset);
    io_fake_close(peer);
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    const char *log = world_log(&world);
    cr_assert_not_null(strstr(log, "shop/web:80"), "%s", log);
    cr_assert_not_null(strstr(log, "web.shop:80"), "%s", log);
    cr_assert_not_null(strstr(log, "10.0.0.1:8080"), "%s", log);
    cr_assert_eq(worker_open_exchanges(world.worker), 0);
    world_end(&world);
}

Test(opaque_path, passes_bytes_both_ways_and_both_ends)
{
    each_seed(echo_once);
}

static void server_ends_first(uint64_t seed)
{
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin(&world, seed, &one_pod, 0);
    serve(&world, world_pod(0), &listens, &server);
    struct io_fake_peer *peer = dial(&world, &client);
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    cr_assert_eq(server.connected, 1);
    io_fake_send(server.peer, BYTES("bye"));
    io_fake_send_end(server.peer);
    run_until_over(&world, &client);
    cr_assert_eq(client.hash, hash_of("bye"));
    io_fake_send(peer, BYTES("still here"));
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    cr_assert_eq(server.hash, hash_of("still here"));
    cr_assert(!server.has_ended);
    io_fake_close(peer);
    run_until_over(&world, &server);
    cr_assert(server.has_ended && !server.was_reset);
    world_end(&world);
}

Test(opaque_path, keeps_one_direction_when_the_server_ends_the_other)
{
    each_seed(server_ends_first);
}

static void client_resets(uint64_t seed)
{
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin(&world, seed, &one_pod, 0);
    serve(&world, world_pod(0), &listens, &server);
    struct io_fake_peer *peer = dial(&world, &client);
    io_fake_send(peer, BYTES("x"));
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    cr_assert_eq(server.received_bytes, 1);
    io_fake_reset(peer);
    run_until_over(&world, &server);
    cr_assert(server.was_reset);
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    cr_assert_not_null(strstr(world_log(&world), "downstream_reset"));
    world_end(&world);
}

Test(opaque_path, passes_the_reset_of_a_client_on)
{
    each_seed(client_resets);
}

static void server_resets(uint64_t seed)
{
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin(&world, seed, &one_pod, 0);
    serve(&world, world_pod(0), &listens, &server);
    struct io_fake_peer *peer = dial(&world, &client);
    io_fake_send(peer, BYTES("x"));
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    io_fake_reset(server.peer);
    run_until_over(&world, &client);
    cr_assert(client.was_reset);
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    cr_assert_not_null(strstr(world_log(&world), "upstream_reset"));
    world_end(&world);
}

Test(opaque_path, passes_the_reset_of_a_server_on)
{
    each_seed(server_resets);
}

/* One side sends until everything is full, because the other one reads nothing, and then resets:
 * nobody receives from it any more. */
static void reset_when_all_is_full(uint64_t seed, bool is_client)
{
    static const uint8_t zeros[1 << 20];
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin(&world, seed, &one_pod, 0);
    serve(&world, world_pod(0), &listens, &server);
    struct io_fake_peer *peer = dial(&world, &client);
    io_fake_send(peer, BYTES("x"));
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    struct io_fake_peer *sender = is_client ? peer : server.peer;
    io_fake_stop_reading(is_client ? server.peer : peer);
    io_fake_send(sender, bytes_make(zeros, sizeof(zeros)));
    io_fake_run_for(world.io, 30 * CLOCK_NS_PER_S);
    cr_assert_eq((is_client ? server : client).received_bytes, is_client ? 1 : 0);
    cr_assert_not(client.was_reset || server.was_reset);
    io_fake_reset(sender);
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    cr_assert(is_client ? server.was_reset : client.was_reset, "seed %lu", (unsigned long)seed);
    cr_assert_not_null(
        strstr(world_log(&world), is_client ? "downstream_reset" : "upstream_reset"));
    world_end(&world);
}

static void client_resets_full(uint64_t seed)
{
    reset_when_all_is_full(seed, true);
}

static void server_resets_full(uint64_t seed)
{
    reset_when_all_is_full(seed, false);
}

Test(opaque_path, passes_a_reset_on_when_the_other_side_reads_nothing)
{
    each_seed(client_resets_full);
    each_seed(server_resets_full);
}

/* Clients one after the other against pods of which some are dead: none notices. */
static void dial_many(uint64_t seed, enum io_fake_outcome dead, uint32_t dead_count)
{
    struct world world;
    struct party server = {0};
    static const struct world_config four = {.port_name = "tcp", .pods = 4, .has_slices = true};
    world_begin(&world, seed, &four, 0);
    for (uint32_t i = 0; i < 4; i++) {
        if (i < dead_count) {
            serve_as(&world, world_pod(i), dead);
        } else {
            serve(&world, world_pod(i), &echoes, &server);
        }
    }
    serve(&world, world_cluster_ip(), &echoes, &server);
    for (int i = 0; i < 40; i++) {
        struct party client = {0};
        struct io_fake_peer *peer = dial(&world, &client);
        io_fake_send(peer, BYTES("ping"));
        io_fake_send_end(peer);
        run_until_over(&world, &client);
        cr_assert_eq(client.hash, hash_of("ping"), "seed %lu client %d", (unsigned long)seed, i);
        io_fake_close(peer);
    }
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    /* Ejection keeps most clients away from the dead. */
    struct address first = world_pod(0);
    cr_assert_leq(io_fake_connect_count(world.io, &first), 4, "seed %lu: %lu", (unsigned long)seed,
                  (unsigned long)io_fake_connect_count(world.io, &first));
    world_end(&world);
}

static void one_refuses(uint64_t seed)
{
    dial_many(seed, IO_FAKE_REFUSE, 1);
}

static void one_swallows(uint64_t seed)
{
    dial_many(seed, IO_FAKE_BLACKHOLE, 1);
}

static void all_are_stale(uint64_t seed)
{
    dial_many(seed, IO_FAKE_UNREACHABLE, 4);
}

static void all_swallow(uint64_t seed)
{
    dial_many(seed, IO_FAKE_BLACKHOLE, 4);
}

Test(opaque_path, loses_no_connection_to_a_pod_that_refuses)
{
    each_seed(one_refuses);
}

Test(opaque_path, loses_no_connection_to_a_pod_that_swallows_them)
{
    each_seed(one_swallows);
}

Test(opaque_path, dials_the_cluster_ip_when_all_pods_are_stale)
{
    each_seed(all_are_stale);
    each_seed(all_swallow);
}

static void nobody_answers(uint64_t seed)
{
    struct world world;
    struct party client = {0};
    world_begin(&world, seed, &two_pods, 0);
    struct io_fake_peer *peer = dial(&world, &client);
    io_fake_send(peer, BYTES("ping"));
    run_until_over(&world, &client);
    cr_assert(client.was_reset && client.received_bytes == 0);
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    const char *log = world_log(&world);
    cr_assert_not_null(strstr(log, "connect_refused"), "%s", log);
    cr_assert_not_null(strstr(log, "attempts=3"), "%s", log);
    world_end(&world);
}

Test(opaque_path, resets_a_client_whom_nobody_answers)
{
    each_seed(nobody_answers);
}

static void unknown_passes(uint64_t seed)
{
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin(&world, seed, &one_pod, 0);
    serve(&world, world_address("192.0.2.7:443"), &speaks_first, &server);
    struct io_fake_peer *peer = dial_from(&world, LISTENER_OUTBOUND, "192.0.2.7:443", &client);
    io_fake_send_end(peer);
    run_until_over(&world, &client);
    cr_assert_eq(client.hash, hash_of("220 ready\n"));
    world_end(&world);
}

Test(opaque_path, passes_an_unknown_destination_through)
{
    each_seed(unknown_passes);
}

static void be_registry_only(struct world *world)
{
    world->settings.is_registry_only = true;
}

/* Dial `original` and expect a reset without a connection upstream. */
static void expect_refusal(uint64_t seed, enum listener_kind kind, const char *original,
                           void (*change)(struct world *world))
{
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin_with(&world, seed, &one_pod, 0, change);
    serve(&world, world_address(original), &echoes, &server);
    dial_from(&world, kind, original, &client);
    run_until_over(&world, &client);
    cr_assert(client.was_reset, "%s", original);
    cr_assert_eq(server.connected, 0);
    const char *log = world_log(&world);
    /* The self-test only asks whether it arrives. */
    bool is_self_test =
        strncmp(original, "192.0.2.2:", 10) == 0 || strncmp(original, "[2001:", 6) == 0;
    const char *cause = change == NULL ? "cause=loop" : "cause=registry_only";
    cr_assert(is_self_test || strstr(log, cause) != NULL, "%s", log);
    cr_assert(is_self_test || strstr(log, original) != NULL, "%s", log);
    world_end(&world);
}

static void refusals(uint64_t seed)
{
    expect_refusal(seed, LISTENER_OUTBOUND, "192.0.2.7:443", be_registry_only);
    expect_refusal(seed, LISTENER_OUTBOUND, "127.0.0.1:15001", NULL);
    expect_refusal(seed, LISTENER_OUTBOUND, "192.0.2.2:15001", NULL); /* the self-test's */
    expect_refusal(seed, LISTENER_OUTBOUND, "[2001:db8::2]:15001", NULL);
    expect_refusal(seed, LISTENER_OUTBOUND, "10.0.9.9:15001", NULL);
    expect_refusal(seed, LISTENER_INBOUND, "10.0.9.9:15006", NULL);
    expect_refusal(seed, LISTENER_INBOUND, "10.0.9.9:15001", NULL);
    expect_refusal(seed, LISTENER_INBOUND, "127.0.0.1:8080", NULL);
}

Test(opaque_path, refuses_unknown_destinations_on_demand_and_loops_always)
{
    each_seed(refusals);
}

static void finds_by_address(uint64_t seed)
{
    struct world world;
    struct party client[3] = {{0}};
    struct party server[3] = {{0}};
    world_begin(&world, seed, &two_pods, 0);
    serve(&world, world_pod(0), &echoes, &server[0]);
    serve(&world, world_pod(1), &echoes, &server[1]);
    serve(&world, world_address("10.0.9.9:8080"), &echoes, &server[2]);
    struct io_fake_peer *peers[3] = {
        dial_from(&world, LISTENER_OUTBOUND, "10.96.0.1:80", &client[0]),
        dial_from(&world, LISTENER_OUTBOUND, "10.0.0.2:8080", &client[1]),
        dial_from(&world, LISTENER_INBOUND, "10.0.9.9:8080", &client[2])};
    for (int i = 0; i < 3; i++) {
        io_fake_send(peers[i], BYTES("ping"));
        io_fake_send_end(peers[i]);
        run_until_over(&world, &client[i]);
        cr_assert_eq(client[i].hash, hash_of("ping"));
        io_fake_close(peers[i]);
    }
    cr_assert_geq(server[1].connected, 1);
    cr_assert_eq(server[2].connected, 1);
    cr_assert_eq(server[0].connected + server[1].connected, 2);
    io_fake_run_for(world.io, CLOCK_NS_PER_S);
    world_end(&world);
}

Test(opaque_path, goes_to_services_to_pods_and_to_the_own_application)
{
    each_seed(finds_by_address);
}

static void hears_server(uint64_t seed)
{
    struct world world;
    struct party client[2] = {{0}};
    struct party server = {0};
    static const struct world_config undeclared = {.port_name = "x", .pods = 1, .has_slices = true};
    world_begin(&world, seed, &undeclared, 0);
    io_fake_faults_of(world.io)->latency_ns_max = 0;
    io_fake_faults_of(world.io)->accept_limit_percent = 0;
    serve(&world, world_pod(0), &speaks_first, &server);
    uint64_t waited_ns[2];
    for (int i = 0; i < 2; i++) {
        uint64_t begin_ns = io_now(world.io);
        struct io_fake_peer *peer = dial(&world, &client[i]);
        while (client[i].received_bytes < 10) {
            cr_assert(!error_is(worker_turn(world.worker, CLOCK_NEVER)));
        }
        waited_ns[i] = io_now(world.io) - begin_ns;
        cr_assert_eq(client[i].hash, hash_of("220 ready\n"));
        io_fake_close(peer);
        run_until_over(&world, &client[i]);
    }
    cr_assert_geq(waited_ns[0], 300 * CLOCK_NS_PER_MS);
    cr_assert_lt(waited_ns[1], 100 * CLOCK_NS_PER_MS);
    world_end(&world);
}

Test(opaque_path, remembers_a_server_that_speaks_first)
{
    each_seed(hears_server);
}

static void idles(uint64_t seed)
{
    struct world world;
    struct party client = {0};
    struct party server = {0};
    world_begin(&world, seed, &one_pod, 0);
    serve(&world, world_pod(0), &listens, &server);
    struct io_fake_peer *peer = dial(&world, &client);
    io_fake_send(peer, BYTES("x"));
    io_fake_run_for(world.io, 3000 * CLOCK_NS_PER_S);
    cr_assert(!client.was_reset && !server.was_reset);
    io_fake_run_for(world.io, 1500 * CLOCK_NS_PER_S);
    cr_assert(client.was_reset && server.was_reset);
    cr_assert_not_null(strstr(world_log(&world), "idle"));
    world_end(&world);
}

Test(opaque_path, closes_what_idles_for_an_hour)
{
    each_seed(idles);
}

static void allow_three(struct world *world)
{
    world->settings.connections_max = 3;
}

static void waits_for_room(uint64_t seed)
{
    enum {
        CLIENTS = 10
    };

    struct world world;
    struct party clients[CLIENTS];
    struct party server = {0};
    struct io_fake_peer *peers[CLIENTS];
    memset(clients, 0, sizeof(clients));
    world_begin_with(&world, seed, &one_pod, 0, allow_three);
    serve(&world, world_pod(0), &echoes, &server);
    for (int i = 0; i < CLIENTS; i++) {
        peers[i] = dial(&world, &clients[i]);
        io_fake_send(peers[i], BYTES("ping"));
        io_fake_run_for(world.io, CLOCK_NS_PER_S);
    }
    /* Those that the kernel had accepted already, and no more. */
    cr_assert_leq(server.connected, 5, "seed %lu: %u", (unsigned long)seed, server.connected);
    for (int i = 0; i < CLIENTS; i++) {
        io_fake_send_end(peers[i]);
        run_until_over(&world, &clients[i]);
        cr_assert_eq(clients[i].hash, hash_of("ping"), "seed %lu", (unsigned long)seed);
        io_fake_close(peers[i]);
    }
    world_end(&world);
}

Test(opaque_path, lets_clients_wait_when_there_are_too_many)
{
    each_seed(waits_for_room);
}

/* ---- many at once ---- */

enum {
    CROWD = 10,
    CROWD_BYTES_MAX = 60000,
};

struct member {
    struct party client;
    uint64_t sent_hash;
    uint64_t sent_bytes;
    bool will_reset;
};

static void send_random(struct world *world, struct io_fake_peer *peer, struct member *member)
{
    uint64_t size = io_fake_random(world->io) % CROWD_BYTES_MAX;
    uint8_t *data = malloc(size + 1);
    cr_assert_not_null(data);
    uint64_t word = io_fake_random(world->io);
    for (uint64_t i = 0; i < size; i++) {
        word = word * UINT64_C(6364136223846793005) + 1;
        data[i] = (uint8_t)(word >> 56);
    }
    struct party sum = {0};
    note(&sum, bytes_make(data, size));
    member->sent_hash = sum.hash;
    member->sent_bytes = size;
    io_fake_send(peer, bytes_make(data, size));
    free(data);
}

static bool is_crowd_over(void *argument)
{
    struct member *members = argument;
    for (int i = 0; i < CROWD; i++) {
        if (!is_over(&members[i].client) && !members[i].will_reset) {
            return false;
        }
    }
    return true;
}

static void run_crowd(uint64_t seed)
{
    struct world world;
    struct party server = {0};
    static const struct world_config four = {.port_name = "tcp", .pods = 4, .has_slices = true};
    world_begin(&world, seed, &four, seed % 2 == 0 ? 0 : 16);
    for (uint32_t i = 0; i < 3; i++) {
        serve(&world, world_pod(i), &echoes, &server);
    }
    serve_as(&world, world_pod(3), seed % 3 == 0 ? IO_FAKE_BLACKHOLE : IO_FAKE_REFUSE);
    struct member members[CROWD];
    memset(members, 0, sizeof(members));
    struct io_fake_peer *peers[CROWD];
    for (int i = 0; i < CROWD; i++) {
        peers[i] = dial(&world, &members[i].client);
        send_random(&world, peers[i], &members[i]);
        members[i].will_reset = io_fake_random(world.io) % 8 == 0;
        if (!members[i].will_reset) {
            io_fake_send_end(peers[i]);
        }
    }
    io_fake_run_for(world.io, io_fake_random(world.io) % CLOCK_NS_PER_S);
    for (int i = 0; i < CROWD; i++) {
        if (members[i].will_reset) {
            io_fake_reset(peers[i]);
        }
    }
    if (!io_fake_run_until(world.io, is_crowd_over, members, TURNS_MAX)) {
        io_fake_describe(world.io);
        cr_assert(false, "seed %lu: nothing more happens", (unsigned long)seed);
    }
    for (int i = 0; i < CROWD; i++) {
        if (!members[i].will_reset) {
            cr_assert(members[i].client.has_ended && !members[i].client.was_reset,
                      "seed %lu member %d", (unsigned long)seed, i);
            cr_assert_eq(members[i].client.received_bytes, members[i].sent_bytes,
                         "seed %lu member %d", (unsigned long)seed, i);
            cr_assert_eq(members[i].client.hash, members[i].sent_hash, "seed %lu member %d",
                         (unsigned long)seed, i);
        }
    }
    world_end(&world);
}

Test(opaque_path, conserves_the_bytes_of_a_crowd, .timeout = 120)
{
    for (uint64_t seed = 0; seed < 1500 / OUTRIGGER_TEST_DIVISOR; seed++) {
        run_crowd(seed);
    }
}

/*
 * TCP through a whole worker on the fake I/O: both ends passed on as they are, endpoints that are
 * dead or stale, destinations of every kind. Each test runs on the calm network and on a few seeds
 * of trouble; the last one on thousands.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "proxy/stage.h"

static const struct world_config four_pods = {.port_name = "tcp", .pods = 4, .has_slices = true};
static const struct world_config two_pods = {.port_name = "tcp", .pods = 2, .has_slices = true};
static const struct world_config one_pod = {.port_name = "tcp", .pods = 1, .has_slices = true};

TEST_EACH_SEED(opaque_path, passes_bytes_both_ways_and_both_ends)
{
    struct stage *stage = stage_begin(seed, &one_pod, &party_echoes, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    party_say(peer, "ping");
    io_fake_send_end(peer);
    stage_run_until_over(stage, &stage->client);
    cr_assert_str_eq(stage->client.text, "ping");
    cr_assert(stage->client.has_ended && !stage->client.was_reset);
    io_fake_close(peer);
    stage_settle(stage);
    const char *log = world_log(&stage->world);
    cr_assert_not_null(strstr(log, "shop/web:80"), "%s", log);
    cr_assert_not_null(strstr(log, "web.shop:80"), "%s", log);
    cr_assert_not_null(strstr(log, "10.0.0.1:8080"), "%s", log);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, keeps_one_direction_when_the_server_ends_the_other)
{
    struct stage *stage = stage_begin(seed, &one_pod, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_settle(stage);
    cr_assert_eq(stage->servers[0].connected, 1);
    party_say(stage->servers[0].peer, "bye");
    io_fake_send_end(stage->servers[0].peer);
    stage_run_until_over(stage, &stage->client);
    cr_assert_str_eq(stage->client.text, "bye");
    stage_say(stage, peer, "still here");
    cr_assert_str_eq(stage->servers[0].text, "still here");
    cr_assert(!stage->servers[0].has_ended);
    io_fake_close(peer);
    stage_run_until_over(stage, &stage->servers[0]);
    cr_assert(stage->servers[0].has_ended && !stage->servers[0].was_reset);
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, passes_the_reset_of_a_client_on)
{
    struct stage *stage = stage_begin(seed, &one_pod, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, "x");
    cr_assert_eq(stage->servers[0].received_bytes, 1);
    io_fake_reset(peer);
    stage_run_until_over(stage, &stage->servers[0]);
    cr_assert(stage->servers[0].was_reset);
    stage_settle(stage);
    cr_assert_not_null(strstr(world_log(&stage->world), "downstream_reset"));
    stage_end(stage);
}

/* The protocol is found from the first bytes, for at most 300 ms: until then there is no stream,
 * and a drain must not find that nothing is open. */
TEST_EACH_SEED(opaque_path, counts_a_connection_of_unknown_protocol_as_open)
{
    static const struct world_config undeclared = {
        .port_name = "db", .pods = 1, .has_slices = true};
    struct stage *stage = stage_begin(seed, &undeclared, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    for (int i = 0; i < 100 && worker_open_exchanges(stage->world.worker) == 0; i++) {
        io_fake_run_for(stage->world.io, 10 * CLOCK_NS_PER_MS);
    }
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 1, "seed %lu", (unsigned long)seed);
    cr_assert_eq(stage->servers[0].connected, 0);
    io_fake_reset(peer);
    stage_settle(stage);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    const char *log = world_log(&stage->world);
    cr_assert_not_null(strstr(log, "downstream_reset"), "%s", log);
    cr_assert_not_null(strstr(log, "shop/web:80"), "%s", log);
    peer = stage_dial(stage, &stage->client);
    stage_settle(stage);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 1);
    cr_assert_eq(stage->servers[0].connected, 1);
    io_fake_reset(peer);
    stage_settle(stage);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, passes_the_reset_of_a_server_on)
{
    struct stage *stage = stage_begin(seed, &one_pod, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, "x");
    io_fake_reset(stage->servers[0].peer);
    stage_run_until_over(stage, &stage->client);
    cr_assert(stage->client.was_reset);
    stage_settle(stage);
    cr_assert_not_null(strstr(world_log(&stage->world), "upstream_reset"));
    stage_end(stage);
}

/* One side sends until everything is full, because the other one reads nothing, and then resets:
 * nobody receives from it any more. */
static void reset_when_all_is_full(uint64_t seed, bool is_client)
{
    static const uint8_t zeros[1 << 20];
    struct stage *stage = stage_begin(seed, &one_pod, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, "x");
    struct io_fake_peer *sender = is_client ? peer : stage->servers[0].peer;
    const struct party *other = is_client ? &stage->servers[0] : &stage->client;
    io_fake_stop_reading(is_client ? stage->servers[0].peer : peer);
    io_fake_send(sender, bytes_make(zeros, sizeof(zeros)));
    io_fake_run_for(stage->world.io, 30 * CLOCK_NS_PER_S);
    cr_assert_eq(other->received_bytes, is_client ? 1 : 0);
    cr_assert_not(stage->client.was_reset || stage->servers[0].was_reset);
    io_fake_reset(sender);
    stage_settle(stage);
    cr_assert(other->was_reset, "seed %lu", (unsigned long)seed);
    cr_assert_not_null(
        strstr(world_log(&stage->world), is_client ? "downstream_reset" : "upstream_reset"));
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, passes_a_reset_on_when_the_other_side_reads_nothing)
{
    reset_when_all_is_full(seed, true);
    reset_when_all_is_full(seed, false);
}

/* Clients one after the other against pods of which some are dead: none notices. */
static void dial_many(uint64_t seed, enum io_fake_outcome dead, uint32_t dead_count)
{
    struct stage *stage = stage_begin(seed, &four_pods, NULL, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        if (i < dead_count) {
            stage_fail(stage, i, dead);
        } else {
            stage_serve(stage, i, &party_echoes, NULL);
        }
    }
    struct party last_resort = {0};
    stage_serve_at(stage, world_cluster_ip(), &party_echoes, &last_resort);
    for (int i = 0; i < 40; i++) {
        struct party client = {.seed = seed};
        struct io_fake_peer *peer = stage_dial(stage, &client);
        party_say(peer, "ping");
        io_fake_send_end(peer);
        stage_run_until_over(stage, &client);
        cr_assert_str_eq(client.text, "ping");
        io_fake_close(peer);
    }
    stage_settle(stage);
    /* Ejection keeps most clients away from the dead. */
    struct address first = world_pod(0);
    cr_assert_leq(io_fake_connect_count(stage->world.io, &first), 4, "seed %lu: %lu",
                  (unsigned long)seed,
                  (unsigned long)io_fake_connect_count(stage->world.io, &first));
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, loses_no_connection_to_a_pod_that_refuses)
{
    dial_many(seed, IO_FAKE_REFUSE, 1);
}

TEST_EACH_SEED(opaque_path, loses_no_connection_to_a_pod_that_swallows_them)
{
    dial_many(seed, IO_FAKE_BLACKHOLE, 1);
}

TEST_EACH_SEED(opaque_path, dials_the_cluster_ip_when_all_pods_are_stale)
{
    dial_many(seed, IO_FAKE_UNREACHABLE, 4);
    dial_many(seed, IO_FAKE_BLACKHOLE, 4);
}

TEST_EACH_SEED(opaque_path, resets_a_client_whom_nobody_answers)
{
    struct stage *stage = stage_begin(seed, &two_pods, NULL, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    party_say(peer, "ping");
    stage_run_until_over(stage, &stage->client);
    cr_assert(stage->client.was_reset && stage->client.received_bytes == 0);
    stage_settle(stage);
    const char *log = world_log(&stage->world);
    cr_assert_not_null(strstr(log, "connect_refused"), "%s", log);
    cr_assert_not_null(strstr(log, "attempts=3"), "%s", log);
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, gives_an_only_address_the_time_of_three)
{
    /* As when the first SYN is lost: after a second the kernel sends another one. */
    static const struct {
        const char *address;
        const struct world_config *config;
        uint64_t delay_ms;
        bool is_reached;
    } rows[] = {
        {"192.0.2.7:443", &one_pod, 1200, true},
        {"192.0.2.7:443", &one_pod, 3200, false},
        {"10.0.0.1:8080", &one_pod, 1200, true},
        {"10.96.0.1:80", &two_pods, 1200, false}, /* both pods, then the ClusterIP */
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct stage *stage = stage_begin(seed, rows[i].config, NULL, NULL);
        const char *slow[] = {"192.0.2.7:443", "10.0.0.1:8080", "10.0.0.2:8080", "10.96.0.1:80"};
        for (size_t j = 0; j < sizeof(slow) / sizeof(slow[0]); j++) {
            io_fake_serve(stage->world.io,
                          &(struct io_fake_service){.address = world_address(slow[j]),
                                                    .delay_ns = rows[i].delay_ms * CLOCK_NS_PER_MS,
                                                    .script = &party_echoes,
                                                    .owner = &stage->servers[0]});
        }
        uint64_t began_ns = io_now(stage->world.io);
        struct io_fake_peer *peer =
            stage_dial_original(stage, LISTENER_OUTBOUND, rows[i].address, &stage->client);
        party_say(peer, "ping");
        io_fake_send_end(peer);
        stage_run_until_over(stage, &stage->client);
        cr_assert_eq(stage->client.received_bytes, rows[i].is_reached ? 4 : 0, "seed %lu row %lu",
                     (unsigned long)seed, (unsigned long)i);
        cr_assert_lt(io_now(stage->world.io) - began_ns, 4 * CLOCK_NS_PER_S);
        stage_end(stage);
    }
}

TEST_EACH_SEED(opaque_path, passes_an_unknown_destination_through)
{
    struct stage *stage = stage_begin(seed, &one_pod, NULL, NULL);
    stage->servers[0].answer = "220 ready\n";
    stage_serve_at(stage, world_address("192.0.2.7:443"), &party_greets, &stage->servers[0]);
    struct io_fake_peer *peer =
        stage_dial_original(stage, LISTENER_OUTBOUND, "192.0.2.7:443", &stage->client);
    io_fake_send_end(peer);
    stage_run_until_over(stage, &stage->client);
    cr_assert_str_eq(stage->client.text, "220 ready\n");
    stage_end(stage);
}

static void be_registry_only(struct world *world)
{
    world->settings.is_registry_only = true;
}

/* Dial `original` and expect a reset without a connection upstream. */
static void expect_refusal(uint64_t seed, enum listener_kind kind, const char *original,
                           void (*change)(struct world *world))
{
    struct stage *stage = stage_begin_with(seed, &one_pod, change, NULL, NULL);
    stage_serve_at(stage, world_address(original), &party_echoes, &stage->servers[0]);
    stage_dial_original(stage, kind, original, &stage->client);
    stage_run_until_over(stage, &stage->client);
    cr_assert(stage->client.was_reset, "%s", original);
    cr_assert_eq(stage->servers[0].connected, 0);
    const char *log = world_log(&stage->world);
    /* The self-test only asks whether it arrives. */
    bool is_self_test =
        strncmp(original, "192.0.2.2:", 10) == 0 || strncmp(original, "[2001:", 6) == 0;
    const char *cause = change == NULL ? "cause=loop" : "cause=registry_only";
    cr_assert(is_self_test || strstr(log, cause) != NULL, "%s", log);
    cr_assert(is_self_test || strstr(log, original) != NULL, "%s", log);
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, refuses_unknown_destinations_on_demand_and_loops_always)
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

TEST_EACH_SEED(opaque_path, goes_to_services_to_pods_and_to_the_own_application)
{
    struct stage *stage = stage_begin(seed, &two_pods, &party_echoes, NULL);
    struct party client[3] = {{0}};
    const struct party *server = stage->servers;
    stage_serve(stage, 1, &party_echoes, NULL);
    stage_serve_at(stage, world_address("10.0.9.9:8080"), &party_echoes, &stage->servers[2]);
    struct io_fake_peer *peers[3] = {
        stage_dial_original(stage, LISTENER_OUTBOUND, "10.96.0.1:80", &client[0]),
        stage_dial_original(stage, LISTENER_OUTBOUND, "10.0.0.2:8080", &client[1]),
        stage_dial_original(stage, LISTENER_INBOUND, "10.0.9.9:8080", &client[2])};
    for (int i = 0; i < 3; i++) {
        party_say(peers[i], "ping");
        io_fake_send_end(peers[i]);
        stage_run_until_over(stage, &client[i]);
        cr_assert_str_eq(client[i].text, "ping");
        io_fake_close(peers[i]);
    }
    cr_assert_geq(server[1].connected, 1);
    cr_assert_eq(server[2].connected, 1);
    cr_assert_eq(server[0].connected + server[1].connected, 2);
    stage_settle(stage);
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, remembers_a_server_that_speaks_first)
{
    static const struct world_config undeclared = {.port_name = "x", .pods = 1, .has_slices = true};
    struct stage *stage = stage_begin(seed, &undeclared, &party_greets, "220 ready\n");
    struct party client[2] = {{0}};
    io_fake_faults_of(stage->world.io)->latency_ns_max = 0;
    io_fake_faults_of(stage->world.io)->accept_limit_percent = 0;
    uint64_t waited_ns[2];
    for (int i = 0; i < 2; i++) {
        uint64_t begin_ns = io_now(stage->world.io);
        struct io_fake_peer *peer = stage_dial(stage, &client[i]);
        while (client[i].received_bytes < 10) {
            cr_assert(!error_is(worker_turn(stage->world.worker, CLOCK_NEVER)));
        }
        waited_ns[i] = io_now(stage->world.io) - begin_ns;
        cr_assert_str_eq(client[i].text, "220 ready\n");
        io_fake_close(peer);
        stage_run_until_over(stage, &client[i]);
    }
    cr_assert_geq(waited_ns[0], 300 * CLOCK_NS_PER_MS);
    cr_assert_lt(waited_ns[1], 100 * CLOCK_NS_PER_MS);
    stage_end(stage);
}

TEST_EACH_SEED(opaque_path, closes_what_idles_for_an_hour)
{
    struct stage *stage = stage_begin(seed, &one_pod, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    party_say(peer, "x");
    io_fake_run_for(stage->world.io, 3000 * CLOCK_NS_PER_S);
    cr_assert(!stage->client.was_reset && !stage->servers[0].was_reset);
    io_fake_run_for(stage->world.io, 1500 * CLOCK_NS_PER_S);
    cr_assert(stage->client.was_reset && stage->servers[0].was_reset);
    cr_assert_not_null(strstr(world_log(&stage->world), "idle"));
    stage_end(stage);
}

static void allow_three(struct world *world)
{
    world->settings.connections_max = 3;
}

TEST_EACH_SEED(opaque_path, lets_clients_wait_when_there_are_too_many)
{
    enum {
        CLIENTS = 10
    };

    struct stage *stage = stage_begin_with(seed, &one_pod, allow_three, &party_echoes, NULL);
    static struct party clients[CLIENTS];
    struct io_fake_peer *peers[CLIENTS];
    memset(clients, 0, sizeof(clients));
    for (int i = 0; i < CLIENTS; i++) {
        peers[i] = stage_dial(stage, &clients[i]);
        stage_say(stage, peers[i], "ping");
    }
    /* Those that the kernel had accepted already, and no more. */
    cr_assert_leq(stage->servers[0].connected, 5, "seed %lu: %u", (unsigned long)seed,
                  stage->servers[0].connected);
    for (int i = 0; i < CLIENTS; i++) {
        io_fake_send_end(peers[i]);
        stage_run_until_over(stage, &clients[i]);
        cr_assert_str_eq(clients[i].text, "ping");
        io_fake_close(peers[i]);
    }
    stage_end(stage);
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
    member->sent_hash = world_hash(0, bytes_make(data, size));
    member->sent_bytes = size;
    io_fake_send(peer, bytes_make(data, size));
    free(data);
}

static bool is_crowd_over(void *argument)
{
    struct member *members = argument;
    for (int i = 0; i < CROWD; i++) {
        if (!party_is_over(&members[i].client) && !members[i].will_reset) {
            return false;
        }
    }
    return true;
}

static void run_crowd(uint64_t seed)
{
    struct world world;
    static struct party server;
    world_begin(&world, seed, &four_pods, seed % 2 == 0 ? 0 : 16);
    for (uint32_t i = 0; i < 3; i++) {
        io_fake_serve(world.io, &(struct io_fake_service){.address = world_pod(i),
                                                          .script = &party_echoes,
                                                          .owner = &server});
    }
    io_fake_serve(world.io, &(struct io_fake_service){.address = world_pod(3),
                                                      .outcome = seed % 3 == 0 ? IO_FAKE_BLACKHOLE
                                                                               : IO_FAKE_REFUSE});
    static struct member members[CROWD];
    memset(members, 0, sizeof(members));
    struct io_fake_peer *peers[CROWD];
    for (int i = 0; i < CROWD; i++) {
        peers[i] = world_dial(&world, LISTENER_NAMED, NULL, &party_keeps, &members[i].client);
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
    world_run_until(&world, is_crowd_over, members);
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

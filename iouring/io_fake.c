/*
 * A world of events in order of their virtual time (io_fake_world.h), behind the driver's table. A
 * turn runs what is due; a wait jumps to the next event.
 */
#include "iouring/io_fake.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_fake_world.h"

enum {
    TURN_NS = 1000, /* what a turn without waiting takes, so that busy programs see time pass */
    CALM_BUFFER_BYTES = 256 << 10,
    SEED_START_NS_HOURS = 1,
};

/* ---- the turn ---- */

static struct error wait_fake(struct io *io, uint64_t wait_ns)
{
    struct fake_world *world = fake_world_of(io);
    uint64_t span_ns = world->is_rung ? 0 : wait_ns;
    uint64_t until_ns = clock_add(world->now_ns, span_ns > TURN_NS ? span_ns : TURN_NS);
    world->is_rung = false;
    world->is_stuck = world->event_count == 0 && span_ns == CLOCK_NEVER;
    if (world->event_count == 0 || world->events[0].due_ns > until_ns) {
        if (until_ns != CLOCK_NEVER) {
            world->now_ns = until_ns;
        }
        return OK;
    }
    /* The first event ends the sleep; what comes within a moment of it is seen in the same turn. */
    uint64_t first_ns =
        world->events[0].due_ns > world->now_ns ? world->events[0].due_ns : world->now_ns;
    uint64_t moment_ns = clock_add(first_ns, fake_latency(world) / 2);
    if (moment_ns > until_ns) {
        moment_ns = until_ns;
    }
    for (uint32_t i = 0; i < io->options.completion_entries && world->event_count > 0 &&
                         world->events[0].due_ns <= moment_ns;
         i++) {
        struct fake_event event = fake_pop_event(world);
        world->now_ns = event.due_ns > world->now_ns ? event.due_ns : world->now_ns;
        io->counters.completions++;
        event.run(event.argument);
    }
    /* Set again each time, so that tests may change it. */
    io->has_kernel_credit = !world->faults.is_without_credit;
    return OK;
}

static uint64_t now_of(const struct io *io)
{
    return fake_world_of(io)->now_ns;
}

/* Messages come from this thread: the same seed must give the same run. */
static void ring(struct io *io)
{
    fake_world_of(io)->is_rung = true;
}

/* A rate for one kind of trouble: none for half of the seeds, else mild to heavy. */
static uint32_t choose_rate(struct fake_world *world)
{
    static const uint32_t rates[] = {1, 5, 20, 50};
    return fake_coin(world) ? 0 : rates[fake_pick(world, sizeof(rates) / sizeof(rates[0]))];
}

static void choose_faults(struct fake_world *world)
{
    struct io_fake_faults *faults = &world->faults;
    faults->buffer_bytes = CALM_BUFFER_BYTES;
    if (world->seed == 0) {
        return;
    }
    static const uint64_t latencies[] = {0, 50000, 1000000, 40000000};
    static const uint32_t buffers[] = {1 << 10, 7000, 64 << 10, CALM_BUFFER_BYTES};
    faults->latency_ns_max = latencies[fake_pick(world, sizeof(latencies) / sizeof(latencies[0]))];
    faults->receive_short_percent = choose_rate(world);
    faults->receive_starved_percent = choose_rate(world);
    faults->receive_ended_percent = choose_rate(world);
    faults->send_short_percent = choose_rate(world);
    faults->send_whole_percent = fake_coin(world) ? 100 : (uint32_t)fake_pick(world, 100);
    faults->delivery_short_percent = choose_rate(world);
    faults->accept_limit_percent = choose_rate(world);
    faults->accept_ended_percent = choose_rate(world);
    faults->reset_loss_percent = choose_rate(world);
    faults->datagram_loss_percent = choose_rate(world);
    faults->buffer_bytes = buffers[fake_pick(world, sizeof(buffers) / sizeof(buffers[0]))];
    faults->is_without_credit = fake_coin(world);
}

static struct error open_fake(struct io *io, const struct io_options *options)
{
    struct fake_world *world = calloc(1, sizeof(*world));
    if (world == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    world->io = io;
    world->now_ns = SEED_START_NS_HOURS * UINT64_C(3600) * CLOCK_NS_PER_S;
    world->seed = options->seed - 1;
    world->random_network = world->seed * 3;
    world->random_script = world->seed * 3 + 1;
    list_init(&world->peers);
    choose_faults(world);
    io->driver_state = world;
    io->has_kernel_credit = !world->faults.is_without_credit;
    return OK;
}

static void close_fake(struct io *io)
{
    struct fake_world *world = fake_world_of(io);
    struct list *node = NULL;
    while ((node = list_take(&world->peers)) != NULL) {
        struct io_fake_peer *peer = LIST_OWNER(node, struct io_fake_peer, link);
        free(peer->to_socket.data);
        free(peer->to_peer.data);
        free(peer->kept.data);
        free(peer);
    }
    for (size_t i = 0; i < world->descriptor_count; i++) {
        free(world->descriptors[i].listener);
    }
    for (size_t i = 0; i < world->event_count; i++) {
        if (world->events[i].run == fake_packet_step) {
            free(world->events[i].argument); /* still on its way */
        }
    }
    for (size_t i = 0; i < world->watch_count; i++) {
        fake_free_packets(&world->watches[i]->packets);
        fake_free_packets(&world->watches[i]->taken);
        free(world->watches[i]);
    }
    free(world->watches);
    free(world->descriptors);
    free(world->services);
    free(world->events);
    free(world);
    io->driver_state = NULL;
}

static const struct io_driver fake_driver = {
    .backend = IO_BACKEND_FAKE,
    .open = open_fake,
    .close = close_fake,
    .wait = wait_fake,
    .now = now_of,
    .socket = fake_open_socket,
    .connect = fake_connect_socket,
    .address = fake_address_of,
    .adopt = fake_adopt,
    .discard = fake_discard,
    .receive_arm = fake_arm_receive,
    .receive_disarm = fake_disarm_receive,
    .send = fake_start_send,
    .send_cancel = fake_cancel_send,
    .send_end = fake_end_send,
    .socket_close = fake_close_socket,
    .error_watch = fake_watch_for_error,
    .take_error = fake_take_error,
    .has_unread = fake_has_unread,
    .listener_arm = fake_arm_listener,
    .listener_disarm = fake_disarm_listener,
    .listener_close = fake_close_listener,
    .watch_arm = fake_arm_watch,
    .watch_close = fake_close_watch,
    .datagram_receive = fake_receive_datagrams,
    .datagram_send = fake_send_datagram,
    .datagram_close = fake_close_datagram,
    .ring_doorbell = ring,
};

struct error io_fake_create(const struct io_options *options, uint64_t seed, struct io **ret_io)
{
    struct io_options own = *options;
    own.seed = seed + 1; /* 0 would ask the kernel */
    return io_create_with(&fake_driver, &own, ret_io);
}

/* ---- the test's view of the world ---- */

struct io_fake_faults *io_fake_faults_of(struct io *io)
{
    return &fake_world_of(io)->faults;
}

bool io_fake_run_until(struct io *io, bool (*is_done)(void *argument), void *argument,
                       uint64_t turns_max)
{
    const struct fake_world *world = fake_world_of(io);
    uint32_t stuck_turns = 0;
    for (uint64_t i = 0; i < turns_max; i++) {
        struct error error = io_turn(io, CLOCK_NEVER);
        CHECK(!error_is(error));
        if (is_done(argument)) {
            return true;
        }
        /* What the callbacks of a stuck turn started may go on in the next one. */
        stuck_turns = world->is_stuck ? stuck_turns + 1 : 0;
        if (stuck_turns == 3) {
            return false;
        }
    }
    return false;
}

void io_fake_run_for(struct io *io, uint64_t span_ns)
{
    uint64_t until_ns = clock_add(fake_world_of(io)->now_ns, span_ns);
    do {
        struct error error = io_turn(io, until_ns);
        CHECK(!error_is(error));
    } while (fake_world_of(io)->now_ns < until_ns);
}

void io_fake_after(struct io *io, uint64_t delay_ns, void (*action)(void *argument), void *argument)
{
    fake_push_event(fake_world_of(io), delay_ns, action, argument);
}

uint64_t io_fake_random(struct io *io)
{
    return fake_next_random(&fake_world_of(io)->random_script);
}

const char *io_fake_finish(struct io *io)
{
    const struct fake_world *world = fake_world_of(io);
    if (!io_is_idle(io)) {
        return "a socket, listener or watch is open, or an op is in the kernel";
    }
    if (block_pool_out(io->pool) != 0) {
        return "a block on loan did not come back";
    }
    if (io_heap_bytes(io) != 0) {
        return "a heap block did not come back";
    }
    if (world->descriptors_in_use != 0) {
        return "an accepted descriptor was neither adopted nor discarded";
    }
    for (const struct list *node = world->peers.next; node != &world->peers; node = node->next) {
        const struct io_fake_peer *peer =
            (const struct io_fake_peer *)(const void *)((const char *)node -
                                                        offsetof(struct io_fake_peer, link));
        fake_check_peer(peer);
    }
    return NULL;
}

static void describe_peer(const struct io_fake_peer *peer)
{
    char own[ADDRESS_TEXT_MAX];
    char remote[ADDRESS_TEXT_MAX];
    address_print(&peer->address, own);
    address_print(&peer->remote, remote);
    fprintf(
        stderr,
        "peer=%u fd=%d own=%s remote=%s connected=%d dead=%d reading=%d | to code: sent=%" PRIu64
        " taken=%" PRIu64 " waiting=%zu arrived=%zu end=%d armed=%d | to peer: sent=%" PRIu64
        " delivered=%" PRIu64 " waiting=%zu shut=%d end=%d | socket=%d closing=%d gone=%d\n",
        peer->id, peer->fd, own, remote, peer->is_connected, peer->is_dead, peer->is_reading,
        peer->script_sent, peer->socket_taken, peer->to_socket.size, peer->arrived,
        peer->is_end_arrived, peer->is_armed, peer->socket_sent, peer->delivered,
        peer->to_peer.size, peer->is_shut, peer->is_end_delivered, peer->socket != NULL,
        peer->is_closing, peer->is_gone);
}

static void describe_op(const char *name, uint64_t age_ns, int fd, void *argument)
{
    (void)argument;
    fprintf(stderr, "op=%s fd=%d age_ns=%" PRIu64 "\n", name, fd, age_ns);
}

void io_fake_describe(struct io *io)
{
    struct fake_world *world = fake_world_of(io);
    fprintf(stderr, "fake seed=%" PRIu64 " now_ns=%" PRIu64 " events=%zu peers=%u fds=%u out=%u\n",
            world->seed, world->now_ns, world->event_count, world->peer_count,
            world->descriptors_in_use, block_pool_out(io->pool));
    for (struct list *node = world->peers.next; node != &world->peers; node = node->next) {
        describe_peer(LIST_OWNER(node, struct io_fake_peer, link));
    }
    io_for_each_op(io, describe_op, NULL);
}

void io_fake_serve(struct io *io, const struct io_fake_service *service)
{
    fake_entry_of(fake_world_of(io), &service->address)->service = *service;
}

uint64_t io_fake_connect_count(const struct io *io, const struct address *address)
{
    return fake_entry_of(fake_world_of(io), address)->connect_count;
}

/*
 * The fake network, by a small forwarder that runs on it: what it promises is what the tests of the
 * whole worker stand on. Every failure prints its seed; run_seed(seed, is_pump) runs it alone.
 */
#include "iouring/io_fake.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEEDS = 1000 / OUTRIGGER_TEST_DIVISOR, /* of each way of forwarding */
    WINDOW_BYTES = 8 << 10,
    CONNECT_TIMEOUT_MS = 5000,
    TURNS_MAX = 400000,
    PORT_FIRST = 1000,
};

/* ---- the program under test: forwards each connection to its original destination ---- */

struct link {
    struct io_socket sides[2]; /* the client's, the upstream's */
    struct io_timer timer;     /* of the connect */
    struct program *program;   /* borrowed */
    uint32_t open_count;
    bool is_closing;
    bool has_ended[2];
};

struct program {
    struct io *io; /* borrowed */
    struct io_listener listener;
    struct link *links; /* owned */
    uint32_t accepted;
    uint32_t links_max;
    uint32_t links_open;
    uint32_t refused;
    bool is_pump;
    bool is_listener_closed;
};

static void close_link(struct link *link, void (*close_side)(struct io_socket *socket))
{
    if (link->is_closing) {
        return;
    }
    link->is_closing = true;
    io_timer_stop(link->program->io, &link->timer);
    for (int i = 0; i < 2; i++) {
        if (link->sides[i].io != NULL) {
            close_side(&link->sides[i]);
        }
    }
}

static void grant_more(struct io_socket *from, const struct io_socket *to)
{
    uint64_t on_the_way = io_receive_credit(from) + io_socket_unsent(to) + from->received.size;
    if (on_the_way < WINDOW_BYTES) {
        io_receive_grant(from, WINDOW_BYTES - on_the_way);
    }
}

static struct link *link_of(struct io_socket *socket, int side)
{
    return (struct link *)(void *)((char *)socket - offsetof(struct link, sides) -
                                   (size_t)side * sizeof(struct io_socket));
}

static void on_events(struct link *link, int side, uint32_t events)
{
    struct io_socket *self = &link->sides[side];
    struct io_socket *other = &link->sides[1 - side];
    if ((events & IO_EVENT_CLOSED) != 0) {
        cr_assert_eq(events, IO_EVENT_CLOSED);
        cr_assert(link->is_closing);
        if (--link->open_count == 0) {
            link->program->links_open--;
        }
        return;
    }
    cr_assert_not(link->is_closing, "silent after the close");
    if ((events & IO_EVENT_FAILED) != 0) {
        cr_assert(error_is(self->error));
        close_link(link, io_abort);
        return;
    }
    if ((events & IO_EVENT_CONNECTED) != 0) {
        io_timer_stop(link->program->io, &link->timer);
    }
    if (!link->program->is_pump) {
        if (self->received.size > 0) {
            cr_assert_not(error_is(io_send(other, &self->received)));
        }
        grant_more(self, other);
        grant_more(other, self);
    } else {
        cr_assert_eq(self->received.size, 0);
    }
    if ((events & IO_EVENT_RECEIVE_ENDED) != 0) {
        cr_assert_not(link->has_ended[side], "one end");
        link->has_ended[side] = true;
        io_send_end(other);
    }
    if (link->has_ended[0] && link->has_ended[1] && io_socket_unsent(self) == 0 &&
        io_socket_unsent(other) == 0) {
        close_link(link, io_close);
    }
}

static void on_client_side(struct io_socket *socket, uint32_t events)
{
    on_events(link_of(socket, 0), 0, events);
}

static void on_upstream_side(struct io_socket *socket, uint32_t events)
{
    on_events(link_of(socket, 1), 1, events);
}

static void on_connect_timeout(struct io_timer *timer)
{
    close_link(LIST_OWNER(timer, struct link, timer), io_abort);
}

static void on_accept(struct io_listener *listener, int fd)
{
    struct program *program = LIST_OWNER(listener, struct program, listener);
    cr_assert_lt(program->accepted, program->links_max);
    struct link *link = &program->links[program->accepted++];
    link->program = program;
    link->open_count = 1;
    program->links_open++;
    cr_assert_not(error_is(io_socket_adopt(&link->sides[0], program->io, fd, on_client_side)));
    struct address upstream = {0};
    cr_assert_not(error_is(io_socket_address(&link->sides[0], IO_ADDRESS_ORIGINAL, &upstream)));
    struct error error =
        io_socket_connect(&link->sides[1], program->io, &upstream, NULL, on_upstream_side);
    if (error_is(error)) {
        cr_assert_eq(error.code, ERROR_LIMIT);
        program->refused++;
        close_link(link, io_abort);
        return;
    }
    link->open_count = 2;
    io_timer_start(program->io, &link->timer,
                   io_now(program->io) + CONNECT_TIMEOUT_MS * CLOCK_NS_PER_MS, on_connect_timeout);
    if (program->is_pump) {
        cr_assert_not(error_is(io_pump_start(&link->sides[0], &link->sides[1])));
        cr_assert_not(error_is(io_pump_start(&link->sides[1], &link->sides[0])));
    } else {
        grant_more(&link->sides[0], &link->sides[1]);
        grant_more(&link->sides[1], &link->sides[0]);
    }
}

static void on_listener_closed(struct io_listener *listener)
{
    LIST_OWNER(listener, struct program, listener)->is_listener_closed = true;
}

static bool is_listener_closed(void *argument)
{
    return ((const struct program *)argument)->is_listener_closed;
}

/* ---- the peers: what each session does, and what must come of it ---- */

enum kind {
    KIND_PLAIN,
    KIND_BIG,
    KIND_SLOW_CLIENT, /* reads nothing for two seconds */
    KIND_SLOW_SERVER,
    KIND_LATE_ACCEPT,
    KIND_EMPTY,
    KIND_CLIENT_RESETS,
    KIND_SERVER_RESETS,
    KIND_SERVER_CLOSES, /* with bytes unread */
    KIND_REFUSED,
    KIND_UNREACHABLE,
    KIND_BLACKHOLE,
    KIND_COUNT,
};

struct end {
    uint64_t wanted; /* to send */
    uint64_t sent;
    uint64_t got;
    uint32_t ends;
    uint32_t resets;
    bool is_connected;
};

struct session {
    struct world_of_test *test; /* borrowed */
    struct io_fake_peer *client;
    struct io_fake_peer *server;
    enum kind kind;
    uint32_t index;
    struct end ends[2]; /* client, server */
};

enum {
    SESSIONS = KIND_COUNT + 4,
};

struct world_of_test {
    struct io *io;
    uint64_t seed;
    struct program program;
    struct session sessions[SESSIONS];
};

static uint8_t pattern(uint32_t index, int direction, uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 8) + index * 7 + (uint32_t)direction * 13);
}

static void send_part(struct session *session, int side)
{
    struct end *end = &session->ends[side];
    struct io_fake_peer *peer = side == 0 ? session->client : session->server;
    uint64_t left = end->wanted - end->sent;
    uint64_t size = left == 0 ? 0 : 1 + io_fake_random(session->test->io) % left;
    uint8_t *data = malloc(size + 1);
    for (uint64_t i = 0; i < size; i++) {
        data[i] = pattern(session->index, side, end->sent + i);
    }
    io_fake_send(peer, bytes_make(data, size));
    free(data);
    end->sent += size;
    if (end->sent == end->wanted) {
        io_fake_send_end(peer);
    }
}

static void send_client_part(void *argument)
{
    struct session *session = argument;
    struct io *io = session->test->io;
    send_part(session, 0);
    if (session->kind == KIND_CLIENT_RESETS && io_fake_random(io) % 3 == 0) {
        io_fake_reset(session->client);
    } else if (session->ends[0].sent < session->ends[0].wanted) {
        io_fake_after(io, io_fake_random(io) % (50 * CLOCK_NS_PER_MS), send_client_part, session);
    }
}

static void send_server_part(void *argument)
{
    struct session *session = argument;
    struct io *io = session->test->io;
    send_part(session, 1);
    if (session->ends[1].sent < session->ends[1].wanted) {
        io_fake_after(io, io_fake_random(io) % (50 * CLOCK_NS_PER_MS), send_server_part, session);
    } else if (session->kind == KIND_SERVER_CLOSES) {
        io_fake_close(session->server);
    }
}

static void read_again(void *argument)
{
    io_fake_start_reading(argument);
}

static void client_connected(struct io_fake_peer *peer)
{
    struct session *session = io_fake_owner(peer);
    session->ends[0].is_connected = true;
    if (session->kind == KIND_SLOW_CLIENT) {
        io_fake_stop_reading(peer);
        io_fake_after(io_fake_io(peer), 2 * CLOCK_NS_PER_S, read_again, peer);
    }
    send_client_part(session);
}

static void server_connected(struct io_fake_peer *peer)
{
    struct session *session = io_fake_owner(peer);
    session->server = peer;
    session->ends[1].is_connected = true;
    if (session->kind == KIND_SLOW_SERVER) {
        io_fake_stop_reading(peer);
        io_fake_after(io_fake_io(peer), 2 * CLOCK_NS_PER_S, read_again, peer);
    }
    send_server_part(session);
}

static int side_of(const struct session *session, const struct io_fake_peer *peer)
{
    return peer == session->client ? 0 : 1;
}

static void peer_data(struct io_fake_peer *peer, struct bytes data)
{
    struct session *session = io_fake_owner(peer);
    int side = side_of(session, peer);
    struct end *end = &session->ends[side];
    cr_assert_eq(end->ends + end->resets, 0, "seed %llu: bytes after the end",
                 (unsigned long long)session->test->seed);
    for (size_t i = 0; i < data.size; i++) {
        cr_assert_eq(data.data[i], pattern(session->index, 1 - side, end->got + i),
                     "seed %llu session %u side %d offset %llu",
                     (unsigned long long)session->test->seed, session->index, side,
                     (unsigned long long)(end->got + i));
    }
    end->got += data.size;
}

static void peer_end(struct io_fake_peer *peer)
{
    struct session *session = io_fake_owner(peer);
    session->ends[side_of(session, peer)].ends++;
}

static void peer_reset(struct io_fake_peer *peer)
{
    struct session *session = io_fake_owner(peer);
    session->ends[side_of(session, peer)].resets++;
}

static const struct io_fake_script client_script = {.on_connected = client_connected,
                                                    .on_data = peer_data,
                                                    .on_end = peer_end,
                                                    .on_reset = peer_reset};
static const struct io_fake_script server_script = {.on_connected = server_connected,
                                                    .on_data = peer_data,
                                                    .on_end = peer_end,
                                                    .on_reset = peer_reset};

static struct address address_at(const char *ip, uint32_t port)
{
    struct address address = {0};
    cr_assert_not(error_is(address_parse_ip(bytes_from_string(ip), (uint16_t)port, &address)));
    return address;
}

static void start_client(void *argument)
{
    struct session *session = argument;
    struct io_fake_client client = {
        .listener = address_at("127.0.0.1", 15001),
        .client = address_at("10.0.0.9", 40000 + session->index),
        .original = address_at("10.96.0.1", PORT_FIRST + session->index),
        .script = &client_script,
        .owner = session,
    };
    session->client = io_fake_connect(session->test->io, &client);
}

static void serve(struct session *session)
{
    struct io *io = session->test->io;
    struct io_fake_service service = {
        .address = address_at("10.96.0.1", PORT_FIRST + session->index),
        .script = &server_script,
        .owner = session,
    };
    switch (session->kind) {
    case KIND_REFUSED:
        service.outcome = IO_FAKE_REFUSE;
        break;
    case KIND_UNREACHABLE:
        service.outcome = IO_FAKE_UNREACHABLE;
        break;
    case KIND_BLACKHOLE:
        service.outcome = IO_FAKE_BLACKHOLE;
        break;
    case KIND_SERVER_RESETS:
        service.outcome = IO_FAKE_RESET;
        service.reset_after_bytes = io_fake_random(io) % session->ends[0].wanted;
        break;
    case KIND_LATE_ACCEPT:
        service.delay_ns = 300 * CLOCK_NS_PER_MS;
        break;
    case KIND_PLAIN:
    case KIND_BIG:
    case KIND_SLOW_CLIENT:
    case KIND_SLOW_SERVER:
    case KIND_EMPTY:
    case KIND_CLIENT_RESETS:
    case KIND_SERVER_CLOSES:
    case KIND_COUNT:
        break;
    }
    io_fake_serve(io, &service);
}

static void start_session(struct world_of_test *test, uint32_t index)
{
    struct io *io = test->io;
    struct session *session = &test->sessions[index];
    session->test = test;
    session->index = index;
    session->kind = (enum kind)(index % KIND_COUNT);
    /* Some are more than the window of a pump. */
    uint64_t big = test->seed % 16 == 0 ? 200000 : 40000;
    uint64_t most = session->kind == KIND_BIG ? big : 4000;
    for (int side = 0; side < 2; side++) {
        bool is_empty = session->kind == KIND_EMPTY;
        session->ends[side].wanted = is_empty ? 0 : 1 + io_fake_random(io) % most;
    }
    serve(session);
    io_fake_after(io, io_fake_random(io) % (100 * CLOCK_NS_PER_MS), start_client, session);
}

static bool is_over(void *argument)
{
    const struct world_of_test *test = argument;
    return test->program.accepted == test->program.links_max && test->program.links_open == 0;
}

static void check_session(const struct session *session)
{
    unsigned long long seed = session->test->seed;
    uint32_t index = session->index;
    const struct end *client = &session->ends[0];
    const struct end *server = &session->ends[1];
    cr_assert_leq(client->got, server->sent);
    cr_assert_leq(server->got, client->sent);
    switch (session->kind) {
    case KIND_PLAIN:
    case KIND_BIG:
    case KIND_SLOW_CLIENT:
    case KIND_SLOW_SERVER:
    case KIND_LATE_ACCEPT:
    case KIND_EMPTY:
        cr_assert_eq(client->got, server->wanted, "seed %llu session %u", seed, index);
        cr_assert_eq(server->got, client->wanted, "seed %llu session %u", seed, index);
        cr_assert_eq(client->ends, 1, "seed %llu session %u", seed, index);
        cr_assert_eq(server->ends, 1, "seed %llu session %u", seed, index);
        cr_assert_eq(client->resets + server->resets, 0, "seed %llu session %u", seed, index);
        break;
    case KIND_SERVER_RESETS:
        cr_assert(client->resets + client->ends >= 1, "seed %llu session %u", seed, index);
        break;
    case KIND_REFUSED:
    case KIND_UNREACHABLE:
    case KIND_BLACKHOLE:
        cr_assert_not(server->is_connected);
        cr_assert_eq(client->resets, 1, "seed %llu session %u", seed, index);
        cr_assert_eq(client->got, 0);
        break;
    case KIND_CLIENT_RESETS:
    case KIND_SERVER_CLOSES:
        cr_assert_leq(client->ends + client->resets, 2);
        break;
    case KIND_COUNT:
        break;
    }
}

static void start_program(struct program *program, struct io *io, uint32_t links_max)
{
    struct address address = address_at("127.0.0.1", 15001);
    program->io = io;
    program->links_max = links_max;
    program->links = calloc(links_max, sizeof(*program->links));
    cr_assert_not_null(program->links);
    io_listener_open(&program->listener, io, io_fake_listen(io, &address), on_accept,
                     on_listener_closed);
}

static void finish_program(struct program *program, uint64_t seed)
{
    struct io *io = program->io;
    io_listener_close(&program->listener);
    cr_assert(io_fake_run_until(io, is_listener_closed, program, TURNS_MAX));
    io_fake_run_for(io, 10 * CLOCK_NS_PER_S); /* what is on its way to the peers */
    const char *wrong = io_fake_finish(io);
    if (wrong != NULL) {
        io_fake_describe(io);
    }
    cr_assert_null(wrong, "seed %llu: %s", (unsigned long long)seed, wrong);
    io_destroy(io);
    free(program->links);
}

static uint64_t run_seed(uint64_t seed, bool is_pump)
{
    static const uint32_t block_counts[] = {4, 16, 256};
    struct io_options options = io_options_default();
    options.block_bytes = seed % 2 == 0 ? 16 << 10 : 1024;
    options.block_count = seed == 0 ? 256 : block_counts[seed % 3];
    options.heap_bytes_max = 4 << 20;
    struct world_of_test *test = calloc(1, sizeof(*test));
    cr_assert_not_null(test);
    test->seed = seed;
    cr_assert_not(error_is(io_fake_create(&options, seed, &test->io)));
    test->program.is_pump = is_pump;
    start_program(&test->program, test->io, SESSIONS);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        start_session(test, i);
    }
    bool is_done = io_fake_run_until(test->io, is_over, test, TURNS_MAX);
    if (!is_done) {
        io_fake_describe(test->io);
    }
    cr_assert(is_done, "seed %llu does not come to an end", (unsigned long long)seed);
    io_fake_run_for(test->io, 10 * CLOCK_NS_PER_S);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        check_session(&test->sessions[i]);
    }
    uint64_t end_ns = io_now(test->io);
    finish_program(&test->program, seed);
    free(test);
    return end_ns;
}

Test(io_fake, a_forwarder_keeps_every_promise_on_every_seed, .timeout = 120)
{
    for (uint64_t seed = 0; seed <= SEEDS; seed++) {
        run_seed(seed, false);
    }
}

Test(io_fake, a_pumping_forwarder_keeps_every_promise_on_every_seed, .timeout = 120)
{
    for (uint64_t seed = 0; seed <= SEEDS; seed++) {
        run_seed(seed, true);
    }
}

Test(io_fake, the_same_seed_gives_the_same_run)
{
    for (uint64_t seed = 1; seed < 20; seed++) {
        cr_assert_eq(run_seed(seed, false), run_seed(seed, false));
    }
}

/* ---- single promises, on the calm network and on others ---- */

/* The smallest code under test: one socket that notes what it hears. */
struct probe {
    struct io_socket socket;
    uint32_t seen;
    struct error error;
    uint64_t failed_ns;
    bool is_closed;
};

struct stage {
    struct io *io;
    struct io_listener listener;
    struct probe probes[8];
    uint32_t probe_count;
    uint32_t accepted;
    bool is_discarding;
    bool is_listener_closed;
};

static void on_probe(struct io_socket *socket, uint32_t events)
{
    struct probe *probe = LIST_OWNER(socket, struct probe, socket);
    probe->seen |= events;
    if ((events & IO_EVENT_FAILED) != 0) {
        probe->error = socket->error;
        probe->failed_ns = io_now(socket->io);
        io_close(socket);
    }
    probe->is_closed = (events & IO_EVENT_CLOSED) != 0;
}

static void on_stage_accept(struct io_listener *listener, int fd)
{
    struct stage *stage = LIST_OWNER(listener, struct stage, listener);
    stage->accepted++;
    if (stage->is_discarding) {
        io_discard(stage->io, fd);
        return;
    }
    struct probe *probe = &stage->probes[stage->probe_count++];
    cr_assert_not(error_is(io_socket_adopt(&probe->socket, stage->io, fd, on_probe)));
}

static void on_stage_closed(struct io_listener *listener)
{
    LIST_OWNER(listener, struct stage, listener)->is_listener_closed = true;
}

static struct stage *make_stage(uint64_t seed, bool has_listener)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    cr_assert_not_null(stage);
    struct io_options options = io_options_default();
    cr_assert_not(error_is(io_fake_create(&options, seed, &stage->io)));
    if (has_listener) {
        struct address address = address_at("127.0.0.1", 15001);
        io_listener_open(&stage->listener, stage->io, io_fake_listen(stage->io, &address),
                         on_stage_accept, on_stage_closed);
    }
    return stage;
}

static void close_stage(struct stage *stage)
{
    for (uint32_t i = 0; i < stage->probe_count; i++) {
        if (!stage->probes[i].is_closed && stage->probes[i].socket.io != NULL) {
            io_close(&stage->probes[i].socket);
        }
    }
    if (stage->listener.io != NULL && !stage->is_listener_closed) {
        io_listener_close(&stage->listener);
    }
    io_fake_run_for(stage->io, 60 * CLOCK_NS_PER_S);
    const char *wrong = io_fake_finish(stage->io);
    cr_assert_null(wrong, "%s", wrong);
    io_destroy(stage->io);
    free(stage);
}

static struct io_fake_peer *connect_client(struct stage *stage, struct end *end)
{
    static const struct io_fake_script script = {0};
    struct io_fake_client client = {.listener = address_at("127.0.0.1", 15001),
                                    .client = address_at("10.0.0.9", 40000),
                                    .script = &script,
                                    .owner = end};
    return io_fake_connect(stage->io, &client);
}

static struct probe *connect_out(struct stage *stage, const struct io_fake_service *service)
{
    io_fake_serve(stage->io, service);
    struct probe *probe = &stage->probes[stage->probe_count++];
    cr_assert_not(
        error_is(io_socket_connect(&probe->socket, stage->io, &service->address, NULL, on_probe)));
    return probe;
}

static void send_zeros(struct stage *stage, struct io_socket *socket, size_t size)
{
    uint8_t *zeros = calloc(1, size);
    struct buffer bytes = {0};
    cr_assert_not(error_is(buffer_append(&bytes, io_blocks(stage->io), bytes_make(zeros, size))));
    cr_assert_not(error_is(io_send(socket, &bytes)));
    free(zeros);
}

Test(io_fake, gives_each_outcome_of_a_connect_after_its_delay)
{
    static const struct {
        enum io_fake_outcome outcome;
        uint32_t events;
        enum error_code code;
    } cases[] = {
        {IO_FAKE_ACCEPT, IO_EVENT_CONNECTED, ERROR_NONE},
        {IO_FAKE_REFUSE, IO_EVENT_FAILED | IO_EVENT_CLOSED, ERROR_REFUSED},
        {IO_FAKE_UNREACHABLE, IO_EVENT_FAILED | IO_EVENT_CLOSED, ERROR_UNREACHABLE},
        {IO_FAKE_BLACKHOLE, 0, ERROR_NONE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct stage *stage = make_stage(0, false);
        struct io_fake_service service = {.address = address_at("10.96.0.1", 80),
                                          .outcome = cases[i].outcome,
                                          .delay_ns = 7 * CLOCK_NS_PER_S};
        struct probe *probe = connect_out(stage, &service);
        io_fake_run_for(stage->io, 6 * CLOCK_NS_PER_S);
        cr_expect_eq(probe->seen, 0);
        io_fake_run_for(stage->io, 2 * CLOCK_NS_PER_S);
        cr_expect_eq(probe->seen, cases[i].events);
        cr_expect_eq(probe->error.code, cases[i].code);
        cr_expect_eq(io_fake_connect_count(stage->io, &service.address), 1);
        close_stage(stage);
    }
}

Test(io_fake, refuses_where_nobody_listens_or_serves)
{
    struct stage *stage = make_stage(0, false);
    struct probe *probe = &stage->probes[stage->probe_count++];
    struct address nobody = address_at("10.96.0.1", 81);
    cr_assert_not(error_is(io_socket_connect(&probe->socket, stage->io, &nobody, NULL, on_probe)));
    struct io_fake_peer *peer = connect_client(stage, NULL);
    io_fake_run_for(stage->io, CLOCK_NS_PER_S);
    cr_assert_eq(probe->error.code, ERROR_REFUSED);
    cr_assert_not(io_fake_is_connected(peer));
    close_stage(stage);
}

Test(io_fake, gives_the_addresses_of_the_script)
{
    struct stage *stage = make_stage(0, true);
    struct io_fake_client client = {.listener = address_at("127.0.0.1", 15001),
                                    .client = address_at("10.0.0.9", 40000),
                                    .original = address_at("fd00::1", 443)};
    io_fake_connect(stage->io, &client);
    client.original = (struct address){0};
    io_fake_connect(stage->io, &client);
    io_fake_run_for(stage->io, CLOCK_NS_PER_S);
    cr_assert_eq(stage->accepted, 2);
    const struct io_socket *socket = &stage->probes[0].socket;
    struct address address = {0};
    struct address original = address_at("fd00::1", 443);
    cr_assert_not(error_is(io_socket_address(socket, IO_ADDRESS_ORIGINAL, &address)));
    cr_assert(address_equal(&address, &original));
    cr_assert_not(error_is(io_socket_address(socket, IO_ADDRESS_PEER, &address)));
    cr_assert(address_equal(&address, &client.client));
    cr_assert_not(error_is(io_socket_address(socket, IO_ADDRESS_LOCAL, &address)));
    cr_assert(address_equal(&address, &client.listener));
    socket = &stage->probes[1].socket;
    cr_assert_eq(io_socket_address(socket, IO_ADDRESS_ORIGINAL, &address).code, ERROR_NOT_FOUND);
    close_stage(stage);
}

Test(io_fake, holds_the_sender_back_while_the_peer_does_not_read)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct stage *stage = make_stage(seed, true);
        struct io_fake_peer *peer = connect_client(stage, NULL);
        io_fake_stop_reading(peer);
        io_fake_run_for(stage->io, CLOCK_NS_PER_S);
        struct io_socket *socket = &stage->probes[0].socket;
        send_zeros(stage, socket, 1 << 20);
        io_fake_run_for(stage->io, 60 * CLOCK_NS_PER_S);
        cr_assert_leq(socket->sent_bytes, io_fake_faults_of(stage->io)->buffer_bytes);
        cr_assert_eq(io_fake_received_bytes(peer), 0);
        io_fake_start_reading(peer);
        /* In pieces of a byte on some seeds: as long as it gets on. */
        uint64_t before = 0;
        while (io_fake_received_bytes(peer) < (1 << 20)) {
            io_fake_run_for(stage->io, 60 * CLOCK_NS_PER_S);
            cr_assert_gt(io_fake_received_bytes(peer), before, "seed %d", (int)seed);
            before = io_fake_received_bytes(peer);
        }
        cr_assert_eq(io_fake_received(peer).size, 1 << 20);
        close_stage(stage);
    }
}

Test(io_fake, resets_after_so_many_bytes_and_not_one_more)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct stage *stage = make_stage(seed, false);
        struct io_fake_service service = {.address = address_at("10.96.0.1", 80),
                                          .outcome = IO_FAKE_RESET,
                                          .reset_after_bytes = 777};
        struct probe *probe = connect_out(stage, &service);
        send_zeros(stage, &probe->socket, 3000);
        io_receive_grant(&probe->socket, 1);
        io_fake_run_for(stage->io, 600 * CLOCK_NS_PER_S);
        cr_assert_eq(probe->error.code, ERROR_RESET, "seed %d", (int)seed);
        cr_assert_not(probe->seen & IO_EVENT_RECEIVE_ENDED, "a reset is no end");
        close_stage(stage);
    }
}

Test(io_fake, makes_a_close_with_unread_bytes_a_reset)
{
    for (int unread = 0; unread < 2; unread++) {
        struct stage *stage = make_stage(0, true);
        struct io_fake_peer *peer = connect_client(stage, NULL);
        if (unread) {
            io_fake_send(peer, BYTES("nobody reads this"));
        }
        io_fake_run_for(stage->io, CLOCK_NS_PER_S);
        io_close(&stage->probes[0].socket);
        io_fake_run_for(stage->io, CLOCK_NS_PER_S);
        cr_expect(io_fake_is_gone(peer));
        cr_expect_eq(io_fake_was_reset(peer), unread == 1);
        cr_expect_eq(io_fake_unsent_bytes(peer), 0);
        close_stage(stage);
    }
}

Test(io_fake, discards_what_nobody_adopts)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct stage *stage = make_stage(seed, true);
        stage->is_discarding = true;
        struct io_fake_peer *peer = connect_client(stage, NULL);
        io_fake_send(peer, BYTES("hello"));
        io_fake_run_for(stage->io, 60 * CLOCK_NS_PER_S);
        cr_assert_eq(stage->accepted, 1);
        cr_assert(io_fake_was_reset(peer));
        close_stage(stage);
    }
}

Test(io_fake, leaves_connections_in_the_backlog_while_no_descriptor_is_left)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct stage *stage = make_stage(seed, true);
        io_fake_faults_of(stage->io)->descriptors_max = 2;
        for (int i = 0; i < 5; i++) {
            connect_client(stage, NULL);
        }
        for (uint32_t closed = 0; closed < 5; closed++) {
            io_fake_run_for(stage->io, 10 * CLOCK_NS_PER_S);
            cr_assert_eq(stage->accepted, closed + 2 < 5 ? closed + 2 : 5, "seed %d", (int)seed);
            struct address upstream = address_at("10.96.0.1", 80);
            struct io_socket more = {0};
            if (closed < 4) {
                cr_assert_eq(io_socket_connect(&more, stage->io, &upstream, NULL, on_probe).code,
                             ERROR_LIMIT);
            }
            io_close(&stage->probes[closed].socket);
        }
        io_fake_run_for(stage->io, 10 * CLOCK_NS_PER_S);
        close_stage(stage);
    }
}

static uint64_t timer_ns;

static void on_timer(struct io_timer *timer)
{
    (void)timer;
    timer_ns++;
}

static bool has_fired(void *argument)
{
    (void)argument;
    return timer_ns > 0;
}

static bool never(void *argument)
{
    (void)argument;
    return false;
}

Test(io_fake, jumps_to_what_happens_next_and_says_when_nothing_will)
{
    struct stage *stage = make_stage(0, false);
    uint64_t start_ns = io_now(stage->io);
    struct io_timer timer = {0};
    io_timer_start(stage->io, &timer, start_ns + 3600 * CLOCK_NS_PER_S, on_timer);
    cr_assert(io_fake_run_until(stage->io, has_fired, NULL, 100));
    cr_assert_geq(io_now(stage->io), start_ns + 3600 * CLOCK_NS_PER_S);
    cr_assert_leq(io_now(stage->io), start_ns + 3601 * CLOCK_NS_PER_S);
    cr_assert_not(io_fake_run_until(stage->io, never, NULL, UINT64_MAX));
    close_stage(stage);
}

struct note {
    struct io_message message;
    struct io *io;
    uint64_t run_ns;
};

static void on_message(struct io_message *message)
{
    struct note *note = LIST_OWNER(message, struct note, message);
    note->run_ns = io_now(note->io);
}

static void post_message(void *argument)
{
    struct note *note = argument;
    io_post(note->io, &note->message);
}

Test(io_fake, wakes_for_a_message_at_once)
{
    struct stage *stage = make_stage(0, false);
    struct note note = {.message = {.run = on_message}, .io = stage->io};
    uint64_t start_ns = io_now(stage->io);
    struct io_timer far = {0};
    io_timer_start(stage->io, &far, start_ns + 100 * CLOCK_NS_PER_S, on_timer);
    io_fake_after(stage->io, CLOCK_NS_PER_S, post_message, &note);
    io_fake_run_for(stage->io, 200 * CLOCK_NS_PER_S);
    cr_assert_geq(note.run_ns, start_ns + CLOCK_NS_PER_S);
    cr_assert_lt(note.run_ns, start_ns + CLOCK_NS_PER_S + CLOCK_NS_PER_MS);
    close_stage(stage);
}

static uint32_t readable_count;

static void on_readable(struct io_watch *watch)
{
    (void)watch;
    readable_count++;
}

static void on_watch_closed(struct io_watch *watch)
{
    watch->fd = -1;
}

Test(io_fake, tells_a_watch_once_for_each_time_it_is_made_readable)
{
    struct stage *stage = make_stage(0, false);
    struct io_watch watch = {0};
    io_watch_open(&watch, stage->io, 7, on_readable, on_watch_closed);
    io_fake_run_for(stage->io, CLOCK_NS_PER_S);
    cr_assert_eq(readable_count, 0);
    for (uint32_t i = 1; i < 4; i++) {
        io_fake_make_readable(stage->io, 7);
        io_fake_run_for(stage->io, CLOCK_NS_PER_S);
        cr_assert_eq(readable_count, i);
    }
    io_watch_close(&watch);
    io_fake_run_for(stage->io, CLOCK_NS_PER_S);
    cr_assert_eq(watch.fd, -1);
    close_stage(stage);
}

Test(io_fake, says_what_is_left_at_the_end)
{
    struct stage *stage = make_stage(0, true);
    struct io_fake_peer *peer = connect_client(stage, NULL);
    io_fake_send(peer, BYTES("kept"));
    io_fake_run_for(stage->io, CLOCK_NS_PER_S);
    cr_assert_not_null(io_fake_finish(stage->io), "a socket is open");
    struct io_socket *socket = &stage->probes[0].socket;
    io_receive_grant(socket, 100);
    io_fake_run_for(stage->io, CLOCK_NS_PER_S);
    cr_assert_eq(socket->received.size, 4);
    struct buffer kept = {0};
    cr_assert_not(error_is(buffer_move(&socket->received, &kept, 4)));
    io_close(socket);
    io_listener_close(&stage->listener);
    io_fake_run_for(stage->io, CLOCK_NS_PER_S);
    cr_assert(io_is_idle(stage->io));
    cr_assert_str_eq(io_fake_finish(stage->io), "a block on loan did not come back");
    buffer_clear(&kept);
    close_stage(stage);
}

Test(io_fake, tells_a_reset_but_no_end_where_nothing_is_received)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct stage *stage = make_stage(seed, true);
        struct io_fake_peer *peer = connect_client(stage, NULL);
        struct probe *probe = &stage->probes[0];
        io_fake_send(peer, BYTES("nobody receives this"));
        if (seed % 2 == 0) {
            io_fake_send_end(peer);
        }
        io_fake_run_for(stage->io, 60 * CLOCK_NS_PER_S);
        cr_assert_eq(probe->seen, 0, "seed %d", (int)seed);
        io_fake_reset(peer);
        io_fake_run_for(stage->io, CLOCK_NS_PER_S);
        cr_assert_neq(probe->seen & IO_EVENT_FAILED, 0, "seed %d", (int)seed);
        cr_assert_eq(probe->error.code, ERROR_RESET);
        cr_assert_eq(probe->socket.received_bytes, 0);
        close_stage(stage);
    }
}

Test(io_fake, receives_no_more_than_was_granted_where_the_kernel_has_credit)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct stage *stage = make_stage(seed, true);
        io_fake_faults_of(stage->io)->is_without_credit = false;
        struct io_fake_peer *peer = connect_client(stage, NULL);
        uint8_t bytes[5000] = {0};
        io_fake_send(peer, bytes_make(bytes, sizeof(bytes)));
        io_fake_run_for(stage->io, 60 * CLOCK_NS_PER_S);
        struct io_socket *socket = &stage->probes[0].socket;
        cr_assert_eq(socket->received_bytes, 0);
        io_receive_grant(socket, 1000);
        io_fake_run_for(stage->io, 600 * CLOCK_NS_PER_S);
        cr_assert_eq(socket->received_bytes, 1000, "seed %d", (int)seed);
        io_receive_grant(socket, 500);
        io_receive_grant(socket, 500);
        io_fake_run_for(stage->io, 600 * CLOCK_NS_PER_S);
        cr_assert_eq(socket->received_bytes, 2000, "seed %d", (int)seed);
        close_stage(stage);
    }
}

/*
 * Random programs on the fake network: every call of io.h at every moment, on sockets of both
 * origins, with few blocks. What must hold is said in take_some, on_side, peer_data and peer_end.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "iouring/io_fake.h"

enum {
    SEEDS = 1500 / OUTRIGGER_TEST_DIVISOR,
    SESSIONS = 14,
    STEPS = 250,
    UNSENT_MAX = 64 << 10,
    PORT_FIRST = 2000,
};

/* One connection: the program's socket and the played peer. */
struct session {
    struct play *play; /* borrowed */
    struct io_fake_peer *peer;
    struct side *side; /* borrowed; NULL until there is a socket */
    uint32_t index;
    uint64_t peer_sent;
    uint64_t peer_got;
    bool is_outbound;
    bool is_started;
    bool has_peer_ended;
    bool is_disturbed; /* reset, or closed early: from here on only prefixes are promised */
};

struct side {
    struct io_socket socket;
    struct session *session; /* borrowed */
    uint64_t taken;          /* bytes of the peer's pattern */
    uint64_t queued;         /* bytes of ours */
    bool is_send_ended;
    bool is_open;
    bool is_closed;
};

struct play {
    struct io *io;
    unsigned long long seed;
    struct io_listener listener;
    struct session sessions[SESSIONS];
    struct side sides[SESSIONS];
    uint32_t sides_used;
    bool is_listener_closed;
};

static uint8_t pattern(const struct session *session, int direction, uint64_t offset)
{
    return (uint8_t)(offset * 37 + (offset >> 9) + session->index * 11 + (uint32_t)direction * 5);
}

static uint64_t dice(const struct play *play, uint64_t count)
{
    return io_fake_random(play->io) % count;
}

static struct address address_of(const char *ip, uint32_t port)
{
    struct address address = {0};
    cr_assert_not(error_is(address_parse_ip(bytes_from_string(ip), (uint16_t)port, &address)));
    return address;
}

/* ---- the program ---- */

/* Take the first `size` received bytes: they are the next ones that the peer sent. */
static void take_some(struct side *side, size_t size)
{
    struct session *session = side->session;
    uint8_t *bytes = malloc(size + 1);
    cr_assert_not_null(bytes);
    buffer_copy_out(&side->socket.received, size, bytes);
    for (size_t i = 0; i < size; i++) {
        cr_assert_eq(bytes[i], pattern(session, 1, side->taken + i), "seed %llu session %u",
                     session->play->seed, session->index);
    }
    free(bytes);
    side->taken += size;
    buffer_consume(&side->socket.received, size);
}

static void on_side(struct io_socket *socket, uint32_t events)
{
    struct side *side = LIST_OWNER(socket, struct side, socket);
    struct session *session = side->session;
    unsigned long long seed = session->play->seed;
    cr_assert_not(side->is_closed, "seed %llu: silent after the end", seed);
    if ((events & IO_EVENT_CLOSED) != 0) {
        cr_assert_eq(events, IO_EVENT_CLOSED);
        cr_assert(socket->is_closing);
        side->is_open = false;
        side->is_closed = true;
        return;
    }
    cr_assert_not(socket->is_closing, "seed %llu: only the end after a close", seed);
    cr_assert_eq(side->taken + socket->received.size, socket->received_bytes, "seed %llu", seed);
    cr_assert_leq(socket->received_bytes, session->peer_sent, "seed %llu", seed);
    if ((events & IO_EVENT_RECEIVE_ENDED) != 0) {
        cr_assert_eq(socket->received_bytes, session->peer_sent,
                     "seed %llu session %u: a FIN "
                     "after the last byte",
                     seed, session->index);
    }
    if ((events & IO_EVENT_FAILED) != 0) {
        cr_assert(error_is(socket->error));
        cr_assert(session->is_disturbed, "seed %llu session %u: %s", seed, session->index,
                  error_text(socket->error.code));
    }
    if (socket->received.size > 0 && dice(session->play, 2) == 0) {
        take_some(side, 1 + dice(session->play, socket->received.size));
    }
}

static void on_accept(struct io_listener *listener, int fd)
{
    struct play *play = LIST_OWNER(listener, struct play, listener);
    if (listener->is_closing || dice(play, 20) == 0) {
        io_discard(play->io, fd); /* its session never gets a side */
        return;
    }
    struct side *side = &play->sides[play->sides_used++];
    struct address client = {0};
    cr_assert_not(error_is(io_socket_adopt(&side->socket, play->io, fd, on_side)));
    cr_assert_not(error_is(io_socket_address(&side->socket, IO_ADDRESS_PEER, &client)));
    side->session = &play->sessions[client.port - PORT_FIRST];
    side->session->side = side;
    side->is_open = true;
}

static void on_listener_closed(struct io_listener *listener)
{
    LIST_OWNER(listener, struct play, listener)->is_listener_closed = true;
}

static void send_some(struct side *side, size_t size)
{
    struct buffer bytes = {0};
    uint8_t chunk[512];
    while (size > 0) {
        size_t part = size < sizeof(chunk) ? size : sizeof(chunk);
        for (size_t i = 0; i < part; i++) {
            chunk[i] = pattern(side->session, 0, side->queued + i);
        }
        struct block_source *blocks = io_blocks(side->session->play->io);
        cr_assert_not(error_is(buffer_append(&bytes, blocks, bytes_make(chunk, part))));
        side->queued += part;
        size -= part;
    }
    cr_assert_not(error_is(io_send(&side->socket, &bytes)));
}

static void step_side(struct play *play, struct side *side)
{
    struct io_socket *socket = &side->socket;
    struct session *session = side->session;
    bool is_sendable = !side->is_send_ended && !error_is(socket->error);
    switch (dice(play, 12)) {
    case 0:
    case 1:
    case 2:
        if (is_sendable && io_socket_unsent(socket) < UNSENT_MAX) {
            send_some(side, 1 + dice(play, dice(play, 2) == 0 ? 20 : 20000));
        }
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        io_receive_grant(socket, 1 + dice(play, dice(play, 3) == 0 ? 3 : 30000));
        break;
    case 7:
    case 8:
        take_some(side, socket->received.size);
        break;
    case 9:
        if (dice(play, 4) == 0) {
            side->is_send_ended = true;
            io_send_end(socket);
        }
        break;
    case 10:
        if (dice(play, 6) == 0) {
            session->is_disturbed = true;
            io_close(socket);
        }
        break;
    case 11:
        if (dice(play, 6) == 0) {
            session->is_disturbed = true;
            io_abort(socket);
        }
        break;
    }
}

/* ---- the peers ---- */

static void peer_connected(struct io_fake_peer *peer)
{
    struct session *session = io_fake_owner(peer);
    session->peer = peer;
}

static void peer_data(struct io_fake_peer *peer, struct bytes data)
{
    struct session *session = io_fake_owner(peer);
    for (size_t i = 0; i < data.size; i++) {
        cr_assert_eq(data.data[i], pattern(session, 0, session->peer_got + i),
                     "seed %llu session %u", session->play->seed, session->index);
    }
    session->peer_got += data.size;
    cr_assert_leq(session->peer_got, session->side->queued);
}

static void peer_end(struct io_fake_peer *peer)
{
    const struct session *session = io_fake_owner(peer);
    if (!session->is_disturbed) {
        cr_assert(session->side->is_send_ended, "seed %llu", session->play->seed);
        cr_assert_eq(session->peer_got, session->side->queued, "seed %llu", session->play->seed);
    }
}

static void peer_reset(struct io_fake_peer *peer)
{
    const struct session *session = io_fake_owner(peer);
    cr_assert(session->is_disturbed || session->side == NULL, "seed %llu session %u",
              session->play->seed, session->index);
}

static const struct io_fake_script script = {.on_connected = peer_connected,
                                             .on_data = peer_data,
                                             .on_end = peer_end,
                                             .on_reset = peer_reset};

static void peer_send(struct play *play, struct session *session)
{
    uint8_t bytes[3000];
    size_t size = 1 + dice(play, dice(play, 2) == 0 ? 10 : sizeof(bytes));
    for (size_t i = 0; i < size; i++) {
        bytes[i] = pattern(session, 1, session->peer_sent + i);
    }
    session->peer_sent += size;
    io_fake_send(session->peer, bytes_make(bytes, size));
}

static void step_peer(struct play *play, struct session *session)
{
    struct io_fake_peer *peer = session->peer;
    switch (dice(play, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        /* After a reset the fake takes nothing more, so nothing may be counted. */
        if (!session->has_peer_ended && !session->is_disturbed) {
            peer_send(play, session);
        }
        break;
    case 4:
        io_fake_stop_reading(peer);
        break;
    case 5:
    case 6:
        io_fake_start_reading(peer);
        break;
    case 7:
        if (dice(play, 4) == 0) {
            session->has_peer_ended = true;
            io_fake_send_end(peer);
        }
        break;
    case 8:
        if (dice(play, 10) == 0) {
            session->is_disturbed = true;
            io_fake_reset(peer);
        }
        break;
    case 9:
        if (dice(play, 10) == 0) {
            session->has_peer_ended = true;
            session->is_disturbed = true;
            io_fake_close(peer);
        }
        break;
    }
}

/* ---- a run ---- */

static void start_session(struct play *play, struct session *session)
{
    session->is_started = true;
    uint32_t port = PORT_FIRST + session->index;
    if (!session->is_outbound) {
        io_fake_connect(play->io, &(struct io_fake_client){.listener = address_of("127.0.0.1", 9),
                                                           .client = address_of("10.0.0.9", port),
                                                           .script = &script,
                                                           .owner = session});
        return;
    }
    struct io_fake_service service = {.address = address_of("10.96.0.1", port),
                                      .outcome = (enum io_fake_outcome)dice(play, 4),
                                      .delay_ns = dice(play, 2 * CLOCK_NS_PER_MS),
                                      .script = &script,
                                      .owner = session};
    session->is_disturbed = service.outcome != IO_FAKE_ACCEPT;
    io_fake_serve(play->io, &service);
    struct side *side = &play->sides[play->sides_used++];
    side->session = session;
    session->side = side;
    cr_assert_not(
        error_is(io_socket_connect(&side->socket, play->io, &service.address, NULL, on_side)));
    side->is_open = true;
}

static void step(struct play *play)
{
    struct session *session = &play->sessions[dice(play, SESSIONS)];
    if (!session->is_started) {
        start_session(play, session);
        return;
    }
    if (dice(play, 30) == 0) {
        if (dice(play, 2) == 0) {
            io_listener_pause(&play->listener);
        } else {
            io_listener_resume(&play->listener);
        }
    }
    if (session->peer != NULL && dice(play, 2) == 0) {
        step_peer(play, session);
    } else if (session->side != NULL && session->side->is_open &&
               !session->side->socket.is_closing) {
        step_side(play, session->side);
    }
}

static void close_all(struct play *play)
{
    for (uint32_t i = 0; i < SESSIONS; i++) {
        play->sessions[i].is_disturbed = true;
    }
    for (uint32_t i = 0; i < play->sides_used; i++) {
        struct side *side = &play->sides[i];
        if (side->is_open && !side->socket.is_closing) {
            (dice(play, 2) == 0 ? io_close : io_abort)(&side->socket);
        }
    }
    io_listener_close(&play->listener);
    io_fake_run_for(play->io, 60 * CLOCK_NS_PER_S);
}

static void run_seed(uint64_t seed)
{
    struct play *play = calloc(1, sizeof(*play));
    cr_assert_not_null(play);
    play->seed = seed;
    struct io_options options = io_options_default();
    options.block_bytes = seed % 3 == 0 ? 16 << 10 : 700;
    options.block_count = seed % 2 == 0 ? 4 : 64;
    options.heap_bytes_max = 8 << 20;
    options.ready_max = seed % 5 == 0 ? 2 : 256;
    cr_assert_not(error_is(io_fake_create(&options, seed, &play->io)));
    struct address address = address_of("127.0.0.1", 9);
    io_listener_open(&play->listener, play->io, io_fake_listen(play->io, &address), on_accept,
                     on_listener_closed);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        play->sessions[i] = (struct session){.play = play, .index = i, .is_outbound = i % 2 == 0};
    }
    for (uint32_t i = 0; i < STEPS; i++) {
        uint64_t actions = dice(play, 6);
        for (; actions > 0; actions--) {
            step(play);
        }
        uint64_t until_ns = io_now(play->io) + dice(play, CLOCK_NS_PER_MS);
        cr_assert_not(error_is(io_turn(play->io, until_ns)));
    }
    close_all(play);
    cr_assert(play->is_listener_closed, "seed %llu", play->seed);
    const char *wrong = io_fake_finish(play->io);
    if (wrong != NULL) {
        io_fake_describe(play->io);
    }
    cr_assert_null(wrong, "seed %llu: %s", play->seed, wrong);
    io_destroy(play->io);
    for (uint32_t i = 0; i < play->sides_used; i++) {
        cr_assert(play->sides[i].is_closed, "seed %llu: each close comes to its end", play->seed);
    }
    free(play);
}

Test(io_random, every_call_at_every_moment_keeps_the_promises, .timeout = 120)
{
    for (uint64_t seed = 0; seed <= SEEDS; seed++) {
        run_seed(seed);
    }
}

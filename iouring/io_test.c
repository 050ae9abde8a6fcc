/*
 * What every back end promises, on real sockets: each behaviour is one function, run once for each
 * back end.
 *
 * The notes "trap:" in io_uring.c name the tests that show them.
 */
#include "iouring/io.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iouring/io_driver.h"

enum {
    PATIENCE_MS = 25000,
    ENDS_MAX = 512,
    CREDIT = 64 << 10,
};

/* What an end does with what it receives. */
enum manner {
    MANNER_SINK, /* checks the pattern, drops, grants as much again */
    MANNER_ECHO, /* sends it back, grants as it is sent */
    MANNER_KEEP, /* leaves it, grants nothing */
};

struct world;

/* One side of a connection. */
struct end {
    struct io_socket socket;
    struct world *world;
    enum manner manner;
    uint32_t seen;     /* all events so far */
    uint32_t order[8]; /* the first event sets */
    uint32_t order_count;
    uint64_t taken; /* bytes of the pattern that arrived */
    uint64_t to_send;
    uint64_t sent_pattern;
    bool is_end_after_sending;
    bool is_wrong;
    bool is_closed;
    bool is_open;
};

struct world {
    struct io *io;
    struct io_listener listener;
    struct address address;
    enum manner manner; /* of accepted ends */
    uint64_t accepted_to_send;
    uint64_t accepted_credit;
    int kernel_bytes; /* of socket buffers; 0: as large as the kernel likes */
    bool is_accepted_ended;
    struct end ends[ENDS_MAX];
    uint32_t count;
    uint32_t accepted;
    struct end *last_accepted;
    bool is_listener_closed;
    uint32_t starved; /* how often the listener said so */
};

static uint8_t pattern_at(uint64_t position)
{
    return (uint8_t)((position * 31 + (position >> 8) * 7 + (position >> 16)) & 0xff);
}

static void send_pattern(struct end *end)
{
    while (end->sent_pattern < end->to_send && io_socket_unsent(&end->socket) < (256 << 10)) {
        uint8_t bytes[1500];
        uint64_t left = end->to_send - end->sent_pattern;
        size_t size = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
        for (size_t i = 0; i < size; i++) {
            bytes[i] = pattern_at(end->sent_pattern + i);
        }
        struct buffer buffer = {0};
        /* From elsewhere, so that the budget of the thread is left to what is tested. */
        cr_assert(!error_is(buffer_append(&buffer, block_source_heap(), bytes_make(bytes, size))));
        cr_assert(!error_is(io_send(&end->socket, &buffer)));
        end->sent_pattern += size;
    }
    if (end->sent_pattern == end->to_send && end->is_end_after_sending) {
        end->is_end_after_sending = false;
        io_send_end(&end->socket);
    }
}

static void check_pattern(struct end *end, const struct buffer *received)
{
    uint8_t bytes[4096];
    struct buffer *buffer = &end->socket.received;
    cr_assert_eq(buffer, received);
    while (buffer->size > 0) {
        size_t size = buffer->size < sizeof(bytes) ? buffer->size : sizeof(bytes);
        buffer_copy_out(buffer, size, bytes);
        for (size_t i = 0; i < size; i++) {
            end->is_wrong |= bytes[i] != pattern_at(end->taken + i);
        }
        buffer_consume(buffer, size);
        end->taken += size;
    }
}

static void on_event(struct io_socket *socket, uint32_t events)
{
    struct end *end = LIST_OWNER(socket, struct end, socket);
    end->seen |= events;
    if (end->order_count < 8) {
        end->order[end->order_count++] = events;
    }
    if ((events & IO_EVENT_CLOSED) != 0) {
        cr_assert_eq(events, (uint32_t)IO_EVENT_CLOSED);
        end->is_closed = true;
        end->is_open = false;
        return;
    }
    if ((events & IO_EVENT_RECEIVED) != 0) {
        uint64_t size = socket->received.size;
        if (end->manner == MANNER_SINK) {
            check_pattern(end, &socket->received);
            io_receive_grant(socket, size);
        } else if (end->manner == MANNER_ECHO) {
            end->taken += size;
            cr_assert(!error_is(io_send(socket, &socket->received)));
        }
    }
    if (end->manner == MANNER_ECHO) {
        uint64_t on_the_way = io_socket_unsent(socket) + io_receive_credit(socket);
        if (on_the_way < CREDIT) {
            io_receive_grant(socket, CREDIT - on_the_way);
        }
        if ((events & IO_EVENT_RECEIVE_ENDED) != 0) {
            io_send_end(socket);
        }
    }
    send_pattern(end);
}

static struct end *take_end(struct world *world, enum manner manner)
{
    cr_assert(world->count < ENDS_MAX);
    struct end *end = &world->ends[world->count++];
    end->world = world;
    end->manner = manner;
    end->is_open = true;
    return end;
}

/* Small buffers fill soon, so that a test of stalled peers need not move much. */
static void limit_kernel_bytes(const struct world *world, int fd)
{
    if (world->kernel_bytes > 0) {
        int bytes = world->kernel_bytes;
        cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
        cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
    }
}

static void on_accept(struct io_listener *listener, int fd)
{
    struct world *world = LIST_OWNER(listener, struct world, listener);
    struct end *end = take_end(world, world->manner);
    limit_kernel_bytes(world, fd);
    cr_assert(!error_is(io_socket_adopt(&end->socket, world->io, fd, on_event)));
    io_receive_grant(&end->socket, world->accepted_credit);
    world->accepted++;
    world->last_accepted = end;
    end->to_send = world->accepted_to_send;
    end->is_end_after_sending = world->is_accepted_ended;
    send_pattern(end);
}

static void on_listener_closed(struct io_listener *listener)
{
    LIST_OWNER(listener, struct world, listener)->is_listener_closed = true;
}

static struct world *world_create(enum io_backend backend, const struct io_options *options)
{
    struct world *world = calloc(1, sizeof(*world));
    cr_assert_not_null(world);
    struct error error = io_create(backend, options, &world->io);
    cr_assert(!error_is(error), "no %s here: %s (%d)", io_backend_name(backend),
              error_text(error.code), error.detail);
    struct io_listen_options listen_options = {0};
    cr_assert(!error_is(address_parse(BYTES("127.0.0.1:0"), &listen_options.address)));
    int fd = -1;
    cr_assert(!error_is(io_listen_socket(&listen_options, &fd)));
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&storage, &size), 0);
    cr_assert(
        !error_is(address_from_sockaddr((const struct sockaddr *)&storage, size, &world->address)));
    io_listener_open(&world->listener, world->io, fd, on_accept, on_listener_closed);
    world->accepted_credit = CREDIT;
    return world;
}

static struct end *connect_end(struct world *world, enum manner manner, uint64_t credit)
{
    struct end *end = take_end(world, manner);
    cr_assert(
        !error_is(io_socket_connect(&end->socket, world->io, &world->address, NULL, on_event)));
    limit_kernel_bytes(world, end->socket.fd);
    io_receive_grant(&end->socket, credit);
    return end;
}

static uint64_t deadline(const struct world *world)
{
    return io_now_exact(world->io) + PATIENCE_MS * CLOCK_NS_PER_MS;
}

/* One turn; fails the test when it takes too long in all. */
static void turn(struct world *world, uint64_t deadline_ns)
{
    cr_assert(!error_is(io_turn(world->io, deadline_ns)));
    cr_assert(io_now_exact(world->io) < deadline_ns, "%s: nothing happened for %d ms",
              io_backend_name(io_backend_of(world->io)), PATIENCE_MS);
}

#define TURN_UNTIL(world, condition)                                                               \
    for (uint64_t until_ = deadline(world); !(condition);) {                                       \
        turn(world, until_);                                                                       \
    }

/* Turns while there is something to do. */
static void settle(struct world *world)
{
    for (int i = 0; i < 20; i++) {
        cr_assert(!error_is(io_turn(world->io, io_now_exact(world->io) + CLOCK_NS_PER_MS)));
    }
}

static bool all_closed(const struct world *world)
{
    for (uint32_t i = 0; i < world->count; i++) {
        if (world->ends[i].is_open) {
            return false;
        }
    }
    return true;
}

static void world_destroy(struct world *world)
{
    for (uint32_t i = 0; i < world->count; i++) {
        struct end *end = &world->ends[i];
        if (end->is_open && !end->socket.is_closing) {
            io_close(&end->socket);
        }
    }
    if (!world->listener.is_closing) {
        io_listener_close(&world->listener);
    }
    TURN_UNTIL(world, world->is_listener_closed && all_closed(world));
    TURN_UNTIL(world, io_is_idle(world->io));
    const struct io_counters *counters = io_counters_of(world->io);
    cr_assert_eq(counters->ops_in_kernel, 0);
    cr_assert_eq(block_pool_out(world->io->pool), 0);
    cr_assert_eq(io_heap_bytes(world->io), 0);
    io_destroy(world->io);
    free(world);
}

/* Run one behaviour on each back end. */
static void on_each(void (*behaviour)(struct world *world), struct io_options options)
{
    static const enum io_backend backends[] = {IO_BACKEND_URING, IO_BACKEND_EPOLL};

    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        struct world *world = world_create(backends[i], &options);
        behaviour(world);
        world_destroy(world);
    }
}

/* ---- connections ---- */

static void connect_and_accept(struct world *world)
{
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, world->accepted == 1 && client->seen != 0);
    cr_assert_eq(client->seen, (uint32_t)IO_EVENT_CONNECTED);
    struct address a;
    struct address b;
    cr_assert(!error_is(io_socket_address(&client->socket, IO_ADDRESS_LOCAL, &a)));
    cr_assert(!error_is(io_socket_address(&world->last_accepted->socket, IO_ADDRESS_PEER, &b)));
    cr_assert(address_equal(&a, &b));
    cr_assert(!error_is(io_socket_address(&client->socket, IO_ADDRESS_PEER, &b)));
    cr_assert(address_equal(&b, &world->address));
    struct error error = io_socket_address(&client->socket, IO_ADDRESS_ORIGINAL, &b);
    cr_assert_eq(error.code, ERROR_NOT_FOUND);
}

Test(io, connects_and_accepts)
{
    on_each(connect_and_accept, io_options_default());
}

/* A pacing timer for every burst on loopback was a third of the CPU of a bulk transfer. */
static void loopback_unpaced(struct world *world)
{
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, world->accepted == 1 && client->seen != 0);
    const int fds[] = {client->socket.fd, world->last_accepted->socket.fd};
    for (size_t i = 0; i < 2; i++) {
        char name[16] = "";
        socklen_t size = sizeof(name);
        cr_assert_eq(getsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, name, &size), 0);
        cr_assert_str_eq(name, "reno");
    }
}

Test(io, does_not_pace_connections_inside_the_host)
{
    on_each(loopback_unpaced, io_options_default());
}

static void connect_refused(struct world *world)
{
    io_listener_close(&world->listener);
    TURN_UNTIL(world, world->is_listener_closed);
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, client->seen != 0);
    cr_assert_eq(client->seen, (uint32_t)IO_EVENT_FAILED);
    cr_assert_eq(client->socket.error.code, ERROR_REFUSED);
}

Test(io, reports_a_refused_connect)
{
    on_each(connect_refused, io_options_default());
}

static void close_connecting(struct world *world)
{
    /* TEST-NET-1 has no host: the SYN is lost or refused by the route; either way it must close. */
    struct end *client = take_end(world, MANNER_SINK);
    struct address nowhere;
    cr_assert(!error_is(address_parse(BYTES("192.0.2.1:9"), &nowhere)));
    cr_assert(!error_is(io_socket_connect(&client->socket, world->io, &nowhere, NULL, on_event)));
    struct end *other = connect_end(world, MANNER_SINK, CREDIT);
    io_close(&other->socket); /* before the connect was submitted */
    settle(world);
    io_close(&client->socket);
    TURN_UNTIL(world, client->is_closed && other->is_closed);
    cr_assert_eq(other->seen, (uint32_t)IO_EVENT_CLOSED);
}

Test(io, closes_a_socket_that_is_still_connecting)
{
    on_each(close_connecting, io_options_default());
}

/* ---- bytes ---- */

static void echo(struct world *world)
{
    world->manner = MANNER_ECHO;
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    client->to_send = 100;
    send_pattern(client); /* queued before the connect is done */
    TURN_UNTIL(world, client->taken == 100);
    cr_assert(!client->is_wrong);
    cr_assert_eq(client->socket.sent_bytes, 100);
    cr_assert_eq(client->socket.received_bytes, 100);
}

Test(io, echoes)
{
    on_each(echo, io_options_default());
}

static void large_transfer(struct world *world)
{
    world->manner = MANNER_ECHO;
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    client->to_send = 24 << 20;
    client->is_end_after_sending = true;
    send_pattern(client);
    TURN_UNTIL(world, (client->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    cr_assert_eq(client->taken, 24 << 20);
    cr_assert(!client->is_wrong);
}

Test(io, transfers_much_both_ways_unharmed)
{
    on_each(large_transfer, io_options_default());
}

static void half_close(struct world *world)
{
    /* The peer's FIN comes after its last byte, and sending goes on after it. */
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    client->to_send = 10;
    client->is_end_after_sending = true;
    send_pattern(client);
    TURN_UNTIL(world, world->accepted == 1);
    struct end *peer = world->last_accepted;
    TURN_UNTIL(world, (peer->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    cr_assert_eq(peer->taken, 10);
    cr_assert_eq(peer->seen & IO_EVENT_FAILED, 0);
    peer->to_send = 300000;
    peer->is_end_after_sending = true;
    send_pattern(peer);
    TURN_UNTIL(world, (client->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    cr_assert_eq(client->taken, 300000);
    cr_assert(!client->is_wrong);
}

Test(io, goes_on_sending_after_the_peers_end)
{
    on_each(half_close, io_options_default());
}

static void reset(struct world *world)
{
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, world->accepted == 1 && client->seen != 0);
    struct end *peer = world->last_accepted;
    io_abort(&client->socket);
    TURN_UNTIL(world, client->is_closed && peer->seen != 0);
    cr_assert_eq(peer->seen, (uint32_t)IO_EVENT_FAILED, "a reset must not look like an end");
    cr_assert_eq(peer->socket.error.code, ERROR_RESET);
}

Test(io, tells_a_reset_from_an_end)
{
    on_each(reset, io_options_default());
}

static void last_words(struct world *world)
{
    /* A peer answers, and resets because it has not read everything. Sending into the reset fails
     * before the answer is read; the answer must come all the same, and no clean end after it. */
    struct end *client = connect_end(world, MANNER_SINK, 0);
    TURN_UNTIL(world, world->accepted == 1 && client->seen != 0);
    struct end *peer = world->last_accepted;
    peer->to_send = 5000;
    send_pattern(peer);
    TURN_UNTIL(world, peer->socket.sent_bytes == 5000);
    io_abort(&peer->socket);
    TURN_UNTIL(world, peer->is_closed);
    client->to_send = 10;
    send_pattern(client);
    io_receive_grant(&client->socket, CREDIT);
    TURN_UNTIL(world, (client->seen & (IO_EVENT_FAILED | IO_EVENT_RECEIVE_ENDED)) != 0);
    cr_assert_eq(client->seen & IO_EVENT_RECEIVE_ENDED, 0);
    cr_assert_neq(client->seen & IO_EVENT_FAILED, 0);
    cr_assert_eq(client->socket.error.code, ERROR_RESET);
    cr_assert(!client->is_wrong);
}

Test(io, shows_no_clean_end_after_a_reset)
{
    on_each(last_words, io_options_default());
}

static void reset_while_sending(struct world *world)
{
    /* Part of a send has gone, the rest waits for room when the reset comes. The send takes the
     * socket's error with it and still succeeds, for what had gone; what the receive sees then must
     * not pass for an end. */
    world->manner = MANNER_KEEP;
    world->accepted_credit = 0;
    world->kernel_bytes = 64 << 10;
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, world->accepted == 1 && client->seen != 0);
    struct end *peer = world->last_accepted;
    client->to_send = 4 << 20;
    send_pattern(client);
    peer->to_send = 5000;
    send_pattern(peer);
    TURN_UNTIL(world, client->taken == 5000 && peer->socket.sent_bytes == 5000);
    settle(world);
    cr_assert_gt(io_socket_unsent(&client->socket), 0);
    io_abort(&peer->socket);
    TURN_UNTIL(world, peer->is_closed && (client->seen & IO_EVENT_FAILED) != 0);
    cr_assert_eq(client->seen & IO_EVENT_RECEIVE_ENDED, 0, "a reset must not look like an end");
    cr_assert_eq(client->socket.error.code, ERROR_RESET);
}

Test(io, shows_no_clean_end_when_a_waiting_send_is_reset)
{
    on_each(reset_while_sending, io_options_default());
}

/* ---- connections that nothing is received from ---- */

enum {
    PROMPT_MS = 5000, /* on a machine with other work; the promise is a few ticks */
    TICKS_MS = 3 * IO_UNREAD_TICK_MS,
};

static void pass_time(struct world *world, uint64_t span_ms)
{
    uint64_t end_ns = io_now_exact(world->io) + span_ms * CLOCK_NS_PER_MS;
    while (io_now_exact(world->io) < end_ns) {
        cr_assert(!error_is(io_turn(world->io, end_ns)));
    }
}

/* The peer of `end` has just reset the connection. */
static void await_reset(struct world *world, const struct end *end, const char *what)
{
    uint64_t begin_ns = io_now_exact(world->io);
    TURN_UNTIL(world, (end->seen & IO_EVENT_FAILED) != 0);
    uint64_t span_ns = io_now_exact(world->io) - begin_ns;
    cr_assert_eq(end->socket.error.code, ERROR_RESET, "%s: %s", what,
                 error_text(end->socket.error.code));
    cr_assert_lt(span_ns, PROMPT_MS * CLOCK_NS_PER_MS, "%s", what);
}

/* How an end comes to be without a receive, before its peer resets the connection. */
struct unread_row {
    const char *what;
    uint64_t credit;   /* of the end that is reset */
    uint64_t bytes;    /* that its peer sends before */
    uint64_t to_send;  /* that the end has for its peer, which reads nothing */
    bool is_ended;     /* by its peer, before */
    bool is_end_shown; /* and it was received */
    bool is_end_sent;  /* by the end */
};

static const struct unread_row unread_rows[] = {
    {.what = "nothing was ever granted"},
    {.what = "bytes wait for a grant", .bytes = 5000},
    {.what = "bytes and an end wait for a grant", .bytes = 5000, .is_ended = true},
    {.what = "the credit is used up", .credit = 10, .bytes = 5000},
    {.what = "the peer has ended",
     .credit = CREDIT,
     .bytes = 10,
     .is_ended = true,
     .is_end_shown = true},
    {.what = "our direction has ended", .bytes = 5000, .is_end_sent = true},
    {.what = "a send waits", .bytes = 5000, .to_send = 4 << 20},
};

enum {
    UNREAD_ROWS = sizeof(unread_rows) / sizeof(unread_rows[0])
};

/* Returns the end that is accepted; its peer is the end before it. */
static struct end *make_unread(struct world *world, const struct unread_row *row)
{
    world->accepted = 0;
    world->accepted_credit = row->credit;
    world->accepted_to_send = row->to_send;
    world->is_accepted_ended = row->is_end_sent;
    struct end *client = connect_end(world, MANNER_KEEP, 0);
    client->to_send = row->bytes;
    client->is_end_after_sending = row->is_ended;
    send_pattern(client);
    TURN_UNTIL(world, world->accepted == 1 && client->socket.sent_bytes == row->bytes);
    struct end *end = world->last_accepted;
    TURN_UNTIL(world, !row->is_end_shown || (end->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    return end;
}

static void reset_unread(struct world *world)
{
    world->manner = MANNER_KEEP;
    world->kernel_bytes = 64 << 10;
    for (int is_early = 0; is_early < 2; is_early++) {
        struct end *ends[UNREAD_ROWS];
        for (int i = 0; i < UNREAD_ROWS; i++) {
            ends[i] = make_unread(world, &unread_rows[i]);
        }
        uint64_t turns = io_counters_of(world->io)->turns;
        pass_time(world, is_early ? 0 : TICKS_MS);
        cr_assert_lt(io_counters_of(world->io)->turns - turns, 40, "it spins");
        for (int i = 0; i < UNREAD_ROWS; i++) {
            cr_assert_eq(ends[i]->seen & IO_EVENT_FAILED, 0, "%s: it is whole",
                         unread_rows[i].what);
        }
        for (int i = 0; i < UNREAD_ROWS; i++) {
            io_abort(&(ends[i] - 1)->socket);
            await_reset(world, ends[i], unread_rows[i].what);
            cr_assert_eq((ends[i]->seen & IO_EVENT_RECEIVE_ENDED) != 0, unread_rows[i].is_end_shown,
                         "%s", unread_rows[i].what);
        }
    }
}

Test(io, tells_a_reset_from_an_end_without_receiving)
{
    on_each(reset_unread, io_options_default());
}

static void reset_under_a_slow_reader(struct world *world)
{
    /* Without credit, but not for long: what came before the reset is received first. */
    world->manner = MANNER_KEEP;
    world->accepted_credit = 10;
    bool is_seen = false;
    for (int i = 0; i < 100 && !is_seen; i++) {
        world->accepted = 0;
        struct end *client = connect_end(world, MANNER_SINK, CREDIT);
        client->to_send = 5000;
        send_pattern(client);
        TURN_UNTIL(world, client->socket.sent_bytes == 5000 && world->accepted == 1);
        struct end *end = world->last_accepted;
        uint64_t begin_ns = io_now_exact(world->io);
        TURN_UNTIL(world, end->socket.received.size == 10);
        io_abort(&client->socket);
        TURN_UNTIL(world, client->is_closed);
        end->manner = MANNER_SINK;
        io_receive_grant(&end->socket, CREDIT);
        TURN_UNTIL(world, (end->seen & IO_EVENT_FAILED) != 0);
        /* A turn that was late says nothing. */
        is_seen = io_now_exact(world->io) - begin_ns < IO_UNREAD_TICK_MS * CLOCK_NS_PER_MS;
        cr_assert(!is_seen || end->socket.received_bytes == 5000);
        cr_assert_eq(end->socket.error.code, ERROR_RESET);
    }
    cr_assert(is_seen);
}

Test(io, receives_what_came_before_a_reset_when_it_is_only_slow)
{
    on_each(reset_under_a_slow_reader, io_options_default());
}

/* Whoever wants the tail gets it, however late; where there is none the news comes at once. */
static void reset_behind_a_wanted_tail(struct world *world)
{
    static const struct unread_row with_tail = {.what = "a tail", .credit = 10, .bytes = 5000};
    static const struct unread_row without = {.what = "no tail"};
    world->manner = MANNER_KEEP;
    for (int is_late = 0; is_late < 2; is_late++) {
        struct end *end = make_unread(world, &with_tail);
        io_want_tail(&end->socket);
        pass_time(world, is_late ? TICKS_MS : 0);
        io_abort(&(end - 1)->socket);
        pass_time(world, 2 * (uint64_t)TICKS_MS);
        cr_assert_eq(end->seen & IO_EVENT_FAILED, 0, "its bytes were not received yet");
        io_receive_grant(&end->socket, CREDIT);
        await_reset(world, end, with_tail.what);
        cr_assert_eq(end->socket.received_bytes, 5000);

        end = make_unread(world, &without);
        io_want_tail(&end->socket);
        io_abort(&(end - 1)->socket);
        await_reset(world, end, without.what);
    }
}

Test(io, receives_a_wanted_tail_before_a_reset_however_late)
{
    on_each(reset_behind_a_wanted_tail, io_options_default());
}

static void talk(struct world *world)
{
    /* As a proxy does all day: no op but those for the bytes. */
    world->manner = MANNER_ECHO;
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 500; j++) {
            client->to_send += 100;
            send_pattern(client);
            TURN_UNTIL(world, client->taken == client->to_send);
        }
        pass_time(world, TICKS_MS);
        cr_assert(!client->socket.error_op.is_in_kernel);
        cr_assert(!world->last_accepted->socket.error_op.is_in_kernel);
    }
    uint64_t completions = io_counters_of(world->io)->completions;
    pass_time(world, TICKS_MS);
    cr_assert_eq(io_counters_of(world->io)->completions, completions);
}

Test(io, watches_nothing_that_is_received_from)
{
    on_each(talk, io_options_default());
}

static void credit(struct world *world)
{
    struct end *client = connect_end(world, MANNER_KEEP, 10);
    world->accepted_to_send = 200000;
    TURN_UNTIL(world, world->accepted == 1 && client->socket.received.size >= 10);
    settle(world);
    cr_assert_eq(client->socket.received.size, 10);
    io_receive_grant(&client->socket, 50000);
    TURN_UNTIL(world, client->socket.received.size >= 50010);
    settle(world);
    /* The last block may overrun it. */
    cr_assert_leq(client->socket.received.size, 50010 + world->io->options.block_bytes);
    client->manner = MANNER_SINK;
    io_receive_grant(&client->socket, CREDIT);
    TURN_UNTIL(world, client->taken == 200000);
    cr_assert(!client->is_wrong);
}

Test(io, receives_what_was_granted_and_no_more)
{
    on_each(credit, io_options_default());
}

/* ---- scarce blocks ---- */

static struct io_options small_pool(uint32_t blocks)
{
    struct io_options options = io_options_default();
    options.block_count = blocks;
    options.block_bytes = 4096;
    return options;
}

static void starve(struct world *world)
{
    world->manner = MANNER_ECHO;
    struct end *clients[100];
    for (int i = 0; i < 100; i++) {
        clients[i] = connect_end(world, MANNER_SINK, CREDIT);
        clients[i]->to_send = 20000;
        clients[i]->is_end_after_sending = true;
        send_pattern(clients[i]);
    }
    for (int i = 0; i < 100; i++) {
        TURN_UNTIL(world, (clients[i]->seen & IO_EVENT_RECEIVE_ENDED) != 0);
        cr_assert_eq(clients[i]->taken, 20000);
        cr_assert(!clients[i]->is_wrong);
    }
    const struct io_counters *counters = io_counters_of(world->io);
    cr_assert_gt(counters->receive_starved, 0);
    cr_assert_lt(counters->receive_starved, 100000, "re-arming made a storm: %lu",
                 (unsigned long)counters->receive_starved);
    cr_assert_leq(counters->blocks_lent_max, 4);
}

Test(io, serves_many_connections_with_four_blocks)
{
    on_each(starve, small_pool(4));
}

static void stalled_readers(struct world *world)
{
    /* Ends that echo to clients which never read hold blocks; others must not notice. */
    world->manner = MANNER_ECHO;
    world->kernel_bytes = 64 << 10;
    struct end *deaf[30];
    for (int i = 0; i < 30; i++) {
        deaf[i] = connect_end(world, MANNER_KEEP, 0);
        deaf[i]->to_send = 1 << 20;
        send_pattern(deaf[i]);
    }
    for (int i = 0; i < 20; i++) {
        settle(world);
    }
    world->kernel_bytes = 0;
    struct end *healthy = connect_end(world, MANNER_SINK, CREDIT);
    healthy->to_send = 2 << 20;
    healthy->is_end_after_sending = true;
    send_pattern(healthy);
    TURN_UNTIL(world, (healthy->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    cr_assert_eq(healthy->taken, 2 << 20);
    cr_assert(!healthy->is_wrong);
    cr_assert_gt(io_counters_of(world->io)->unlent_bytes, 0);

    /* What was copied away for them is what they get when they listen at last. */
    for (int i = 0; i < 30; i++) {
        deaf[i]->manner = MANNER_SINK;
        io_receive_grant(&deaf[i]->socket, CREDIT);
    }
    for (int i = 0; i < 30; i++) {
        TURN_UNTIL(world, deaf[i]->taken == 1 << 20);
        cr_assert(!deaf[i]->is_wrong);
    }
}

Test(io, lets_a_reader_that_never_reads_cost_only_itself)
{
    on_each(stalled_readers, small_pool(16));
}

/* ---- listeners ---- */

enum {
    FILLERS_MAX = 1024
};

/* Want of descriptors. */
struct squeeze {
    struct rlimit before;
    int fillers[FILLERS_MAX];
    int filler_count;
};

/* Leave `room` descriptors. The kernel takes the limit when an accept is armed: while this lasts
 * the listener must be paused. */
static void squeeze(struct squeeze *squeeze, uint32_t room)
{
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &squeeze->before), 0);
    int highest = 0;
    for (int fd = 0; fd < FILLERS_MAX; fd++) {
        highest = fcntl(fd, F_GETFD) >= 0 ? fd : highest;
    }
    /* Holes would be room, too. The test's runner leaves some, in one process of ten. */
    int filler = -1;
    while ((filler = dup(STDERR_FILENO)) < highest) {
        cr_assert(filler >= 0 && squeeze->filler_count < FILLERS_MAX);
        squeeze->fillers[squeeze->filler_count++] = filler;
    }
    close(filler);
    struct rlimit lower = {(rlim_t)highest + 1 + room, squeeze->before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &lower), 0);
}

static void release(struct squeeze *squeeze)
{
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &squeeze->before), 0);
    while (squeeze->filler_count > 0) {
        close(squeeze->fillers[--squeeze->filler_count]);
    }
}

static void on_starved(struct io_listener *listener)
{
    LIST_OWNER(listener, struct world, listener)->starved++;
}

static void exhaust_descriptors(struct world *world)
{
    struct squeeze scarce = {0};
    world->listener.on_starved = on_starved;
    io_listener_pause(&world->listener);
    settle(world);
    squeeze(&scarce, 8);
    io_listener_resume(&world->listener);
    settle(world);

    struct end *clients[6];
    for (int i = 0; i < 6; i++) {
        clients[i] = connect_end(world, MANNER_SINK, CREDIT);
    }
    TURN_UNTIL(world, io_counters_of(world->io)->accept_paused > 0);
    cr_assert_lt(world->accepted, 6);
    TURN_UNTIL(world, world->starved > 0);
    uint64_t turns = io_counters_of(world->io)->turns;
    pass_time(world, 300);
    cr_assert_lt(io_counters_of(world->io)->turns - turns, 50, "accepting spins");
    cr_assert_lt(world->starved, 50);
    for (int i = 0; i < 3; i++) {
        io_close(&clients[i]->socket);
    }
    TURN_UNTIL(world, world->accepted >= 5);
    release(&scarce);
}

Test(io, accepts_again_after_descriptors_ran_out)
{
    on_each(exhaust_descriptors, io_options_default());
}

static void pause_listener(struct world *world)
{
    io_listener_pause(&world->listener);
    settle(world);
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, client->seen != 0);
    settle(world);
    cr_assert_eq(world->accepted, 0);
    io_listener_resume(&world->listener);
    TURN_UNTIL(world, world->accepted == 1);
    io_listener_pause(&world->listener);
    io_listener_resume(&world->listener);
    io_listener_pause(&world->listener);
    settle(world);
    io_listener_resume(&world->listener);
    connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, world->accepted == 2);
}

Test(io, pauses_and_resumes_a_listener)
{
    on_each(pause_listener, io_options_default());
}

/* ---- closing ---- */

static void abort_while_cancelling(struct world *world)
{
    /* A send's blocks were asked back, as under scarcity, when the owner gives the connection up:
     * the receive, which no shutdown ends, must be cancelled after that. */
    world->manner = MANNER_KEEP;
    world->accepted_credit = 0;
    world->kernel_bytes = 64 << 10;
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, world->accepted == 1 && client->seen != 0);
    client->to_send = 4 << 20;
    send_pattern(client);
    settle(world);
    cr_assert_gt(io_socket_unsent(&client->socket), 0);
    if (world->io->driver->send_cancel != NULL) {
        client->socket.is_unlend_wanted = true;
        world->io->driver->send_cancel(&client->socket);
    }
    io_abort(&client->socket);
    TURN_UNTIL(world, client->is_closed);
}

Test(io, aborts_while_a_send_is_being_cancelled)
{
    on_each(abort_while_cancelling, io_options_default());
}

static void close_busy(struct world *world)
{
    /* A receive and a send that cannot go on are in the kernel when both ends close. */
    world->manner = MANNER_KEEP;
    world->accepted_credit = 1;
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    client->to_send = 64 << 20;
    send_pattern(client);
    TURN_UNTIL(world, world->accepted == 1);
    settle(world);
    cr_assert_gt(io_socket_unsent(&client->socket), 0);
    io_close(&client->socket);
    io_abort(&world->last_accepted->socket);
    TURN_UNTIL(world, client->is_closed && world->last_accepted->is_closed);
    cr_assert_eq(io_counters_of(world->io)->blocks_lent, 0);
}

Test(io, waits_for_the_kernel_before_it_reports_closed)
{
    on_each(close_busy, io_options_default());
}

static void close_in_callbacks(struct world *world)
{
    /* Data, the peer's end and our close race; nothing may come after CLOSED. */
    world->manner = MANNER_ECHO;
    for (int i = 0; i < 100; i++) {
        struct end *client = connect_end(world, MANNER_SINK, CREDIT);
        client->to_send = 5000;
        client->is_end_after_sending = i % 2 == 0;
        send_pattern(client);
        for (int turns = i % 7; turns > 0; turns--) {
            cr_assert(!error_is(io_turn(world->io, 0)));
        }
        io_close(&client->socket);
        if (i % 3 == 0 && world->last_accepted != NULL && world->last_accepted->is_open &&
            !world->last_accepted->socket.is_closing) {
            io_abort(&world->last_accepted->socket);
        }
    }
}

Test(io, survives_closes_at_any_moment)
{
    on_each(close_in_callbacks, io_options_default());
}

/* ---- pumps ---- */

struct relay {
    struct end *client;
    struct end *near;
    struct end *far;
    struct end *server;
};

/* client -> near [pumps] far -> echoing server, all in one world. */
static struct relay relay_create(struct world *world)
{
    struct relay relay = {0};
    world->manner = MANNER_KEEP;
    relay.client = connect_end(world, MANNER_SINK, CREDIT);
    relay.client->to_send = 1000;
    send_pattern(relay.client);
    TURN_UNTIL(world, world->accepted == 1);
    relay.near = world->last_accepted;
    TURN_UNTIL(world, relay.near->socket.received.size > 0); /* these go first */
    world->manner = MANNER_ECHO;
    relay.far = connect_end(world, MANNER_KEEP, 0);
    TURN_UNTIL(world, world->accepted == 2);
    relay.server = world->last_accepted;
    cr_assert(!error_is(io_pump_start(&relay.near->socket, &relay.far->socket)));
    cr_assert(!error_is(io_pump_start(&relay.far->socket, &relay.near->socket)));
    return relay;
}

static void relay_more(struct world *world, const struct relay *relay, uint64_t bytes)
{
    relay->client->to_send += bytes;
    send_pattern(relay->client);
    TURN_UNTIL(world, relay->client->taken == relay->client->to_send);
    cr_assert(!relay->client->is_wrong);
}

static void relay_finish(struct world *world, const struct relay *relay, uint64_t bytes)
{
    struct end *client = relay->client;
    client->to_send += bytes;
    client->is_end_after_sending = true;
    send_pattern(client);
    TURN_UNTIL(world, (relay->near->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    cr_assert_eq(relay->server->seen & IO_EVENT_RECEIVE_ENDED, 0);
    io_send_end(&relay->far->socket);
    TURN_UNTIL(world, (relay->far->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    io_send_end(&relay->near->socket);
    TURN_UNTIL(world, (client->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    cr_assert_eq(client->taken, client->to_send);
    cr_assert(!client->is_wrong);
    cr_assert_eq(relay->near->socket.pumped_bytes, client->to_send);
    cr_assert_eq(relay->far->socket.pumped_bytes, client->to_send);
    TURN_UNTIL(world, io_socket_unsent(&relay->near->socket) == 0);
}

static void pump_both_ways(struct world *world)
{
    struct relay relay = relay_create(world);
    relay_finish(world, &relay, 8 << 20);
    cr_assert_gt(io_counters_of(world->io)->spliced_bytes, 0);
}

Test(io, pumps_both_ways_and_passes_the_end_on)
{
    on_each(pump_both_ways, io_options_default());
}

static void pump_changing(struct world *world)
{
    /* Bulk, then small messages, then bulk again: in order through blocks and pipe. */
    struct relay relay = relay_create(world);
    for (int i = 0; i < 3; i++) {
        relay_more(world, &relay, 4 << 20);
        uint64_t spliced = io_counters_of(world->io)->spliced_bytes;
        cr_assert_gt(spliced, 0);
        for (int j = 0; j < 50; j++) {
            relay_more(world, &relay, (uint64_t)j * 37 + 1);
        }
        cr_assert_lt(io_counters_of(world->io)->spliced_bytes - spliced, 20 * 2000,
                     "small messages are still spliced");
        relay_more(world, &relay, 10000);
    }
    relay_finish(world, &relay, 3 << 20);
}

Test(io, returns_from_splicing_when_messages_are_small)
{
    on_each(pump_changing, io_options_default());
}

static void stalled_pumps(struct world *world)
{
    /* Far more is on its way to readers that never read than the heap's budget could hold. */
    world->kernel_bytes = 16 << 10;
    world->accepted_credit = 2000; /* before the pump decides */
    for (int i = 0; i < 60; i++) {
        struct relay relay = relay_create(world);
        relay.near->socket.is_splice_refused = true;
        relay.server->manner = MANNER_KEEP;
        relay.client->to_send += 1 << 20;
        send_pattern(relay.client);
        world->accepted = 0;
    }
    for (int i = 0; i < 10; i++) {
        settle(world);
    }
    world->kernel_bytes = 0;
    world->accepted_credit = CREDIT;
    struct relay healthy = relay_create(world);
    relay_finish(world, &healthy, 4 << 20);
}

Test(io, lets_a_stalled_pump_cost_only_itself)
{
    struct io_options options = small_pool(16);
    options.heap_bytes_max = 1 << 20; /* a quarter of 60 full windows */
    on_each(stalled_pumps, options);
}

static void pump_end_behind_bytes(struct world *world)
{
    /* The source ends while the target's reader rests: its last bytes are in the pipe then. */
    world->kernel_bytes = 64 << 10;
    struct relay relay = relay_create(world);
    relay.server->manner = MANNER_SINK;
    relay.client->to_send += 8 << 20;
    relay.client->is_end_after_sending = true;
    send_pattern(relay.client);
    TURN_UNTIL(world, relay.server->taken > 4 << 20);
    cr_assert_gt(io_counters_of(world->io)->spliced_bytes, 0);
    relay.server->manner = MANNER_KEEP;
    for (int i = 0; i < 5; i++) {
        settle(world);
    }
    relay.server->manner = MANNER_SINK;
    io_receive_grant(&relay.server->socket, CREDIT);
    for (uint64_t until = deadline(world); (relay.near->seen & IO_EVENT_RECEIVE_ENDED) == 0;) {
        turn(world, until);
    }
    io_send_end(&relay.far->socket);
    TURN_UNTIL(world, (relay.server->seen & IO_EVENT_RECEIVE_ENDED) != 0);
    cr_assert_eq(relay.server->socket.received_bytes, relay.client->to_send);
}

Test(io, passes_the_end_on_behind_what_is_in_the_pipe)
{
    on_each(pump_end_behind_bytes, io_options_default());
}

static void pump_without_pipes(struct world *world)
{
    struct relay relay = relay_create(world);
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct rlimit none = {0, limit.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    relay_finish(world, &relay, 4 << 20);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(io_counters_of(world->io)->spliced_bytes, 0);
}

Test(io, pumps_by_blocks_when_pipes_are_refused)
{
    on_each(pump_without_pipes, io_options_default());
}

static void give_pipes_up(struct world *world)
{
    /* Pipes that are only kept for the next bulk are descriptors for a connect or an accept. */
    struct squeeze scarce = {0};
    struct relay relay = relay_create(world);
    for (int is_accept = 0; is_accept < 2; is_accept++) {
        uint64_t spliced = io_counters_of(world->io)->spliced_bytes;
        relay_more(world, &relay, 4 << 20);
        cr_assert_gt(io_counters_of(world->io)->spliced_bytes, spliced);
        TURN_UNTIL(world, world->io->pipe_count > 0);
        io_listener_pause(&world->listener);
        settle(world);
        struct end *end = is_accept ? connect_end(world, MANNER_SINK, CREDIT) : NULL;
        settle(world);
        squeeze(&scarce, 0);
        if (is_accept) {
            io_listener_resume(&world->listener);
            TURN_UNTIL(world, world->accepted > 2);
        } else {
            end = connect_end(world, MANNER_SINK, CREDIT);
        }
        cr_assert_eq(world->io->pipe_count, 0);
        release(&scarce);
        io_close(&end->socket);
        TURN_UNTIL(world, end->is_closed);
    }
}

Test(io, gives_the_pipes_that_it_keeps_up_when_descriptors_ran_out)
{
    on_each(give_pipes_up, io_options_default());
}

static void pump_broken(struct world *world)
{
    /* The target resets while bytes are in the pipe; the source does; the target goes away with a
     * FIN first, after which splice(2) would raise SIGPIPE. */
    enum {
        TARGET_RESETS,
        SOURCE_RESETS,
        TARGET_LEAVES,
        CASES
    };

    for (int i = 0; i < CASES; i++) {
        struct relay relay = relay_create(world);
        relay.server->manner = MANNER_SINK;
        relay.client->to_send += 64 << 20;
        send_pattern(relay.client);
        uint64_t spliced = io_counters_of(world->io)->spliced_bytes;
        TURN_UNTIL(world, io_counters_of(world->io)->spliced_bytes > spliced + (2 << 20));
        if (i == TARGET_LEAVES) {
            io_close(&relay.server->socket);
        } else {
            io_abort(i == TARGET_RESETS ? &relay.server->socket : &relay.client->socket);
        }
        struct end *broken = i == SOURCE_RESETS ? relay.near : relay.far;
        TURN_UNTIL(world, (broken->seen & IO_EVENT_FAILED) != 0);
        cr_assert_eq(broken->socket.error.code, ERROR_RESET);
        cr_assert(i == TARGET_LEAVES || (broken->seen & IO_EVENT_RECEIVE_ENDED) == 0);
        io_close(&relay.near->socket);
        io_close(&relay.far->socket);
        TURN_UNTIL(world, relay.near->is_closed && relay.far->is_closed);
        world->accepted = 0;
    }
}

Test(io, reports_a_reset_through_a_pump_as_one)
{
    on_each(pump_broken, io_options_default());
}

static void reset_stalled_pump(struct world *world)
{
    /* The target reads nothing and the pipe is full, or the window of blocks; then the source is
     * reset, or the target is. The other one hears nothing of it by itself. */
    world->kernel_bytes = 256 << 10;
    for (int i = 0; i < 4; i++) {
        bool is_spliced = i % 2 == 0;
        bool is_source = i / 2 == 0;
        const char *what = is_spliced ? "spliced" : "by blocks";
        struct relay relay = relay_create(world);
        relay.server->manner = MANNER_SINK;
        relay.near->socket.is_splice_refused = !is_spliced;
        relay.client->to_send += 64 << 20;
        send_pattern(relay.client);
        TURN_UNTIL(world, relay.server->taken > (2 << 20) &&
                              (relay.near->socket.splice != NULL) == is_spliced);
        relay.server->manner = MANNER_KEEP;
        pass_time(world, TICKS_MS);
        cr_assert_gt(io_socket_unsent(&relay.client->socket), 0);
        cr_assert_eq(relay.near->seen & IO_EVENT_FAILED, 0);
        io_abort(is_source ? &relay.client->socket : &relay.server->socket);
        await_reset(world, is_source ? relay.near : relay.far, what);
        io_abort(&relay.near->socket);
        io_abort(&relay.far->socket);
        TURN_UNTIL(world, relay.near->is_closed && relay.far->is_closed);
        world->accepted = 0;
    }
}

Test(io, reports_a_reset_of_either_end_of_a_pump_that_is_held_back)
{
    on_each(reset_stalled_pump, io_options_default());
}

static void pump_into_stalled(struct world *world)
{
    /* A pump towards a reader that never reads takes in a bounded amount. */
    world->manner = MANNER_KEEP;
    struct end *client = connect_end(world, MANNER_SINK, CREDIT);
    TURN_UNTIL(world, world->accepted == 1);
    struct end *near = world->last_accepted;
    world->accepted_credit = 0;
    struct end *far = connect_end(world, MANNER_KEEP, 0);
    TURN_UNTIL(world, world->accepted == 2 && (far->seen & IO_EVENT_CONNECTED) != 0);
    cr_assert(!error_is(io_pump_start(&near->socket, &far->socket)));
    client->to_send = 64 << 20;
    send_pattern(client);
    for (int i = 0; i < 10; i++) {
        settle(world);
    }
    cr_assert_gt(io_socket_unsent(&client->socket), 0);
    /* A window of blocks, or a full pipe. */
    cr_assert_leq(near->socket.received_bytes - far->socket.sent_bytes, 256 << 10);
    io_abort(&far->socket);
    TURN_UNTIL(world, far->is_closed);
    settle(world);
}

Test(io, holds_a_pump_back_when_the_other_side_stalls)
{
    on_each(pump_into_stalled, io_options_default());
}

/* ---- timers, tasks, messages, watches ---- */

struct clockwork {
    struct io_timer timer;
    struct io_task task;
    struct io *io;
    int timers_run;
    int tasks_run;
    uint64_t fired_ns;
};

static void on_timer(struct io_timer *timer)
{
    struct clockwork *clockwork = LIST_OWNER(timer, struct clockwork, timer);
    clockwork->timers_run++;
    clockwork->fired_ns = io_now(clockwork->io);
}

static void on_task(struct io_task *task)
{
    struct clockwork *clockwork = LIST_OWNER(task, struct clockwork, task);
    clockwork->tasks_run++;
    if (clockwork->tasks_run < 3) {
        io_task_schedule(clockwork->io, task, on_task);
    }
}

static void time_passes(struct world *world)
{
    struct clockwork clockwork = {.io = world->io};
    settle(world);
    uint64_t deadline_ns = io_now_exact(world->io) + 20 * CLOCK_NS_PER_MS;
    io_timer_start(world->io, &clockwork.timer, deadline_ns, on_timer);
    uint64_t turns = io_counters_of(world->io)->turns;
    TURN_UNTIL(world, clockwork.timers_run == 1);
    cr_assert_geq(clockwork.fired_ns, deadline_ns);
    cr_assert_lt(clockwork.fired_ns, deadline_ns + 10 * CLOCK_NS_PER_S);
    cr_assert_lt(io_counters_of(world->io)->turns - turns, 10, "waiting for a timer spins");

    io_task_schedule(world->io, &clockwork.task, on_task);
    uint64_t before_ns = io_now_exact(world->io);
    TURN_UNTIL(world, clockwork.tasks_run == 3);
    cr_assert_lt(io_now_exact(world->io) - before_ns, 10 * CLOCK_NS_PER_S,
                 "tasks are not waited for");
    io_task_schedule(world->io, &clockwork.task, on_task);
    io_task_cancel(world->io, &clockwork.task);
    settle(world);
    cr_assert_eq(clockwork.tasks_run, 3);
}

Test(io, runs_timers_in_time_and_tasks_without_waiting)
{
    on_each(time_passes, io_options_default());
}

enum {
    POSTERS = 4,
    POSTS = 5000,
    PINGS = 200,
};

struct letter {
    struct io_message message;
    struct poster *poster;
    uint32_t number;
};

struct poster {
    pthread_t thread;
    struct io *target;
    struct letter letters[POSTS];
    uint32_t received; /* the receiver's */
    bool is_disordered;
};

static void on_letter(struct io_message *message)
{
    struct letter *letter = LIST_OWNER(message, struct letter, message);
    struct poster *poster = letter->poster;
    poster->is_disordered |= letter->number != poster->received;
    poster->received++;
}

static void *post_all(void *argument)
{
    struct poster *poster = argument;
    for (uint32_t i = 0; i < POSTS; i++) {
        poster->letters[i] = (struct letter){{.run = on_letter}, poster, i};
        io_post(poster->target, &poster->letters[i].message);
    }
    return NULL;
}

static void messages(struct world *world)
{
    struct poster *posters = calloc(POSTERS, sizeof(*posters));
    cr_assert_not_null(posters);
    for (int i = 0; i < POSTERS; i++) {
        posters[i].target = world->io;
        cr_assert_eq(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
    }
    for (int i = 0; i < POSTERS; i++) {
        TURN_UNTIL(world, posters[i].received == POSTS);
        cr_assert(!posters[i].is_disordered);
        cr_assert_eq(pthread_join(posters[i].thread, NULL), 0);
    }
    free(posters);
}

Test(io, takes_messages_from_other_threads_in_order)
{
    on_each(messages, io_options_default());
}

struct pinger {
    struct io_message message;
    struct io *target;
    sem_t answered;
    int count;
};

static void on_ping(struct io_message *message)
{
    struct pinger *pinger = LIST_OWNER(message, struct pinger, message);
    pinger->count++;
    sem_post(&pinger->answered);
}

static void *ping(void *argument)
{
    struct pinger *pinger = argument;
    for (int i = 0; i < PINGS; i++) {
        pinger->message.run = on_ping;
        io_post(pinger->target, &pinger->message);
        while (sem_wait(&pinger->answered) != 0) {
        }
    }
    return NULL;
}

static void wake_up(struct world *world)
{
    /* Each message finds the thread asleep, or soon to be. */
    struct pinger pinger = {.target = world->io};
    cr_assert_eq(sem_init(&pinger.answered, 0, 0), 0);
    settle(world);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, ping, &pinger), 0);
    TURN_UNTIL(world, pinger.count == PINGS);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    sem_destroy(&pinger.answered);
}

Test(io, wakes_for_every_message)
{
    on_each(wake_up, io_options_default());
}

struct watcher {
    struct io_watch watch;
    int calls;
    bool is_closed;
};

static void on_readable(struct io_watch *watch)
{
    LIST_OWNER(watch, struct watcher, watch)->calls++;
}

static void on_watch_closed(struct io_watch *watch)
{
    LIST_OWNER(watch, struct watcher, watch)->is_closed = true;
}

static void watch_descriptor(struct world *world)
{
    struct watcher watcher = {0};
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    io_watch_open(&watcher.watch, world->io, fd, on_readable, on_watch_closed);
    settle(world);
    cr_assert_eq(watcher.calls, 0);
    uint64_t one = 1;
    cr_assert_eq(write(fd, &one, sizeof(one)), (ssize_t)sizeof(one));
    TURN_UNTIL(world, watcher.calls >= 3); /* level-triggered */
    cr_assert_eq(read(fd, &one, sizeof(one)), (ssize_t)sizeof(one));
    settle(world);
    int calls = watcher.calls;
    settle(world);
    cr_assert_eq(watcher.calls, calls);
    io_watch_close(&watcher.watch);
    TURN_UNTIL(world, watcher.is_closed);
    close(fd);
}

Test(io, watches_other_descriptors)
{
    on_each(watch_descriptor, io_options_default());
}

/* ---- variants of the ring that this kernel would not choose ---- */

static void on_old_ring(void (*behaviour)(struct world *world), struct io_options options)
{
    struct world *world = world_create(IO_BACKEND_URING, &options);
    world->io->has_kernel_credit = false; /* as before 6.17: receives are ended by cancelling */
    behaviour(world);
    world_destroy(world);
}

static void credit_with_overrun(struct world *world)
{
    struct end *client = connect_end(world, MANNER_KEEP, 10);
    world->accepted_to_send = 16 << 20;
    TURN_UNTIL(world, world->accepted == 1 && client->socket.received.size >= 10);
    settle(world);
    uint64_t stopped_at = client->socket.received.size;
    cr_assert_lt(stopped_at, 16 << 20);
    settle(world);
    cr_assert_eq(client->socket.received.size, stopped_at);
    client->manner = MANNER_SINK;
    io_receive_grant(&client->socket, CREDIT);
    TURN_UNTIL(world, client->taken == 16 << 20);
    cr_assert(!client->is_wrong);
}

Test(io, stops_receiving_by_cancelling_where_the_kernel_knows_no_credit)
{
    on_old_ring(credit_with_overrun, io_options_default());
    on_old_ring(large_transfer, io_options_default());
    on_old_ring(stalled_readers, small_pool(16));
    on_old_ring(pump_changing, io_options_default());
    on_old_ring(reset_unread, io_options_default());
}

Test(io, spins_before_it_sleeps_and_misses_nothing)
{
    struct io_options options = io_options_default();
    options.spin_ns = 30 * CLOCK_NS_PER_US;
    on_each(echo, options);
    on_each(wake_up, options);
    on_each(time_passes, options);
    on_each(large_transfer, options);
}

/* ---- everything at random ---- */

enum {
    CHURN_STEPS = 2000,
    CHURN_ENDS = 40,
};

static void churn_step(struct world *world, struct end *clients[])
{
    uint64_t dice = io_random(world->io);
    struct end **slot = &clients[dice % CHURN_ENDS];
    struct end *client = *slot;
    dice >>= 16;
    if (client == NULL || client->is_closed) {
        if (world->count + 8 > ENDS_MAX) {
            return;
        }
        *slot = connect_end(world, MANNER_SINK, dice % 3 == 0 ? 1 : CREDIT);
        return;
    }
    if (client->socket.is_closing) {
        return;
    }
    switch (dice % 8) {
    case 0:
        io_abort(&client->socket);
        break;
    case 1:
        io_close(&client->socket);
        break;
    case 2:
        client->is_end_after_sending = true;
        send_pattern(client);
        break;
    case 3:
        io_receive_grant(&client->socket, dice % 100000);
        break;
    default:
        client->to_send += dice % 50000;
        send_pattern(client);
    }
}

static void churn(struct world *world)
{
    struct end *clients[CHURN_ENDS] = {0};
    world->manner = MANNER_ECHO;
    for (int step = 0; step < CHURN_STEPS; step++) {
        churn_step(world, clients);
        if (step % 3 == 0) {
            cr_assert(!error_is(io_turn(world->io, 0)));
        }
        struct end *accepted = world->last_accepted;
        if (step % 97 == 0 && accepted != NULL && accepted->is_open &&
            !accepted->socket.is_closing) {
            io_abort(&accepted->socket);
        }
    }
    for (uint32_t i = 0; i < world->count; i++) {
        cr_assert(!world->ends[i].is_wrong, "seed %lu", (unsigned long)world->io->options.seed);
    }
}

Test(io, keeps_its_books_through_random_churn)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct io_options options = small_pool(seed % 2 == 0 ? 8 : 64);
        options.seed = seed;
        on_each(churn, options);
    }
}

/* Datagrams on every back end. */
#include "iouring/datagram.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "iouring/io_fake.h"

enum {
    TURNS_MAX = 2000,
    PATIENCE_MS = 5000,
};

/* Answers every packet from the address that it was sent to. */
struct echo {
    struct io_datagram datagram;
    struct address last_local;
    struct address last_peer;
    size_t last_size;
    uint32_t packets;
    bool is_answering;
    bool is_closing_at_once;
    bool is_closed;
};

static void on_packet(struct io_datagram *datagram, const struct io_packet *packet)
{
    struct echo *echo = LIST_OWNER(datagram, struct echo, datagram);
    echo->packets++;
    echo->last_local = packet->local;
    echo->last_peer = packet->peer;
    echo->last_size = packet->payload.size;
    if (echo->is_answering) {
        cr_assert_not(
            error_is(io_datagram_send(datagram, &packet->peer, &packet->local, packet->payload)));
    }
    if (echo->is_closing_at_once) {
        io_datagram_close(datagram);
    }
}

static void on_closed(struct io_datagram *datagram)
{
    LIST_OWNER(datagram, struct echo, datagram)->is_closed = true;
}

static void turn_until(struct io *io, const uint32_t *count, uint32_t wanted)
{
    uint64_t deadline_ns = io_now(io) + PATIENCE_MS * CLOCK_NS_PER_MS;
    while (*count < wanted) {
        cr_assert_lt(io_now(io), deadline_ns, "%s: nothing came",
                     io_backend_name(io_backend_of(io)));
        cr_assert_not(error_is(io_turn(io, deadline_ns)));
    }
}

static struct address parse(const char *text)
{
    struct address address = {0};
    cr_assert_not(error_is(address_parse(bytes_from_string(text), &address)));
    return address;
}

static void open_echo(struct echo *echo, struct io *io, const char *local)
{
    struct io_datagram_options options = {.local = parse(local)};
    int fd = -1;
    cr_assert_not(error_is(io_datagram_socket(&options, &fd)));
    cr_assert_not(error_is(io_datagram_open(&echo->datagram, io, fd, on_packet, on_closed)));
}

static void close_echo(struct echo *echo)
{
    struct io *io = echo->datagram.io;
    io_datagram_close(&echo->datagram);
    for (int i = 0; i < TURNS_MAX && !echo->is_closed; i++) {
        cr_assert_not(error_is(io_turn(io, io_now(io) + CLOCK_NS_PER_MS)));
    }
    cr_assert(echo->is_closed);
}

/* One packet there and back; the answer comes from the address that was asked. */
static void ask(struct io *io, const char *server_bind, const char *server, const char *client)
{
    struct echo server_end = {.is_answering = true};
    struct echo client_end = {0};
    open_echo(&server_end, io, server_bind);
    open_echo(&client_end, io, client);
    struct address bound = {0};
    cr_assert_not(error_is(address_of_local(server_end.datagram.fd, &bound)));
    struct address target = parse(server);
    target.port = bound.port;
    static uint8_t question[30000];
    memset(question, 'q', sizeof(question));
    for (uint32_t i = 1; i <= 40; i++) { /* more than one batch in all */
        struct bytes payload = bytes_make(question, i % 4 == 0 ? sizeof(question) : i % 4);
        cr_assert_not(error_is(io_datagram_send(&client_end.datagram, &target, NULL, payload)));
        if (i % 8 == 0) {
            turn_until(io, &client_end.packets, i);
        }
        cr_expect(i % 8 != 0 || client_end.last_size == sizeof(question));
    }
    cr_expect(address_equal(&server_end.last_local, &target));
    cr_expect(address_equal(&client_end.last_peer, &target));
    cr_expect(address_equal(&server_end.last_peer, &client_end.last_local));
    close_echo(&server_end);
    close_echo(&client_end);
}

static void on_each(void (*test)(struct io *io))
{
    static const enum io_backend backends[] = {IO_BACKEND_URING, IO_BACKEND_EPOLL};

    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        struct io *io = NULL;
        struct io_options options = io_options_default();
        struct error error = io_create(backends[i], &options, &io);
        if (error.code == ERROR_UNSUPPORTED) {
            continue; /* no io_uring here: the other one is tested */
        }
        cr_assert_not(error_is(error));
        test(io);
        cr_assert(io_is_idle(io));
        io_destroy(io);
    }
}

static void ask_ipv4(struct io *io)
{
    ask(io, "0.0.0.0:0", "127.0.0.2:0", "127.0.0.3:0");
}

static void ask_ipv6(struct io *io)
{
    ask(io, "[::]:0", "[::1]:0", "[::1]:0");
}

Test(datagram, answers_from_the_address_that_was_asked)
{
    on_each(ask_ipv4);
}

Test(datagram, answers_from_the_address_that_was_asked_on_ipv6)
{
    struct io_datagram_options options = {.local = parse("[::1]:0")};
    int fd = -1;
    if (error_is(io_datagram_socket(&options, &fd))) {
        return; /* a machine without IPv6 */
    }
    close(fd);
    on_each(ask_ipv6);
}

static void close_in_a_callback(struct io *io)
{
    struct echo receiver = {.is_closing_at_once = true};
    struct echo sender = {0};
    open_echo(&receiver, io, "127.0.0.1:0");
    open_echo(&sender, io, "127.0.0.1:0");
    struct address target = {0};
    cr_assert_not(error_is(address_of_local(receiver.datagram.fd, &target)));
    for (int i = 0; i < 5; i++) {
        cr_assert_not(error_is(io_datagram_send(&sender.datagram, &target, NULL, BYTES("packet"))));
    }
    turn_until(io, &receiver.packets, 1);
    for (int i = 0; i < TURNS_MAX && !receiver.is_closed; i++) {
        cr_assert_not(error_is(io_turn(io, io_now(io) + CLOCK_NS_PER_MS)));
    }
    cr_assert(receiver.is_closed);
    cr_assert_eq(receiver.packets, 1, "none after the close");
    close_echo(&sender);
}

Test(datagram, gives_no_packet_after_the_close)
{
    on_each(close_in_a_callback);
}

static void send_too_much(struct io *io)
{
    static uint8_t payload[IO_PACKET_BYTES_MAX];
    struct echo sender = {0};
    open_echo(&sender, io, "127.0.0.1:0");
    struct address nowhere = parse("127.0.0.1:1");
    cr_assert(error_is(
        io_datagram_send(&sender.datagram, &nowhere, NULL, bytes_make(payload, sizeof(payload)))));
    close_echo(&sender);
}

Test(datagram, says_when_one_cannot_be_sent)
{
    on_each(send_too_much);
}

/* ---- on the fake network ---- */

struct tally {
    struct address asked;
    uint32_t answers;
};

static void on_answer(struct io *io, const struct io_packet *packet, void *argument)
{
    struct tally *tally = argument;
    (void)io;
    cr_assert(address_equal_ip(&packet->local, &tally->asked));
    tally->answers++;
}

Test(datagram, goes_through_the_fake_network_with_its_losses)
{
    uint32_t lost = 0;
    uint32_t doubled = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct io *io = NULL;
        struct io_options options = io_options_default();
        cr_assert_not(error_is(io_fake_create(&options, seed, &io)));
        struct address local = parse("0.0.0.0:53");
        struct address client = parse("10.0.0.9:4000");
        struct tally tally = {.asked = parse("10.96.0.10:53")};
        struct echo echo = {.is_answering = true};
        int fd = io_fake_datagram(io, &local);
        cr_assert_not(error_is(io_datagram_open(&echo.datagram, io, fd, on_packet, on_closed)));
        io_fake_on_packet(io, on_answer, &tally);
        for (int i = 0; i < 50; i++) {
            io_fake_datagram_send(io, fd, &client, &tally.asked, BYTES("?"));
        }
        io_fake_run_for(io, CLOCK_NS_PER_S);
        bool is_lossless = io_fake_faults_of(io)->datagram_loss_percent == 0;
        cr_assert(!is_lossless || tally.answers == 50, "seed %d", (int)seed);
        lost += tally.answers < 50;
        doubled += tally.answers > 50;
        io_fake_datagram_send(io, fd, &client, &tally.asked, BYTES("on its way at the end"));
        io_datagram_close(&echo.datagram);
        io_fake_run_for(io, CLOCK_NS_PER_S);
        cr_assert(echo.is_closed);
        cr_assert_null(io_fake_finish(io));
        io_destroy(io);
    }
    cr_assert_gt(lost, 10);
    cr_assert_gt(doubled, 10);
}

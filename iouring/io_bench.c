/*
 * Parts of a measurement of the I/O layer alone: a server that answers a fixed number of bytes, a
 * forwarder of two pumps a connection, and a load of connections that ask and wait in turn.
 * integration/bench/forward puts them together beside HAProxy. Not built into anything shipped.
 *
 *   io_bench server REQUEST_BYTES RESPONSE_BYTES
 *   io_bench forward BACKEND TARGET_PORT           BACKEND: uring, epoll
 *   io_bench load PORT CONNECTIONS REQUEST_BYTES RESPONSE_BYTES SECONDS [EXCHANGES]
 *                                                  EXCHANGES of one connection, then a new one
 *
 * Server and forwarder print "port N" and run until they are ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "iouring/io.h"

enum {
    CREDIT = 64 << 10,
    QUEUE_BYTES_MAX = 256 << 10,
    CHUNK_BYTES = 16 << 10,
    CONNECTIONS_MAX = 1024,
};

struct bench {
    struct io *io;
    struct io_listener listener;
    struct address target;
    uint64_t request_bytes;
    uint64_t response_bytes;
    uint64_t exchanges;
    uint64_t exchanges_each; /* of one connection; 0: no end */
    struct block *filler;    /* borrowed by every answer: what is measured is not memcpy */
};

static struct bench bench;

static uint64_t number_of(const char *text)
{
    uint64_t value = 0;
    CHECK(!error_is(bytes_parse_decimal(bytes_from_string(text), UINT32_MAX, &value)));
    return value;
}

static void must(struct error error)
{
    if (error_is(error)) {
        (void)fprintf(stderr, "io_bench: %s (%d)\n", error_text(error.code), error.detail);
        exit(1);
    }
}

static void send_filler(struct io_socket *socket, uint64_t *left)
{
    struct buffer buffer = {0};
    while (*left > 0 && io_socket_unsent(socket) + buffer.size < QUEUE_BYTES_MAX) {
        size_t size = *left < CHUNK_BYTES ? (size_t)*left : CHUNK_BYTES;
        must(buffer_append_slice(&buffer, bench.filler, bytes_make(bench.filler->data, size)));
        *left -= size;
    }
    if (buffer.size > 0) {
        must(io_send(socket, &buffer));
    }
}

/* ---- both ends of an exchange: bytes to send, bytes to wait for ---- */

struct party {
    struct io_socket socket;
    bool is_asking;
    uint64_t exchanges;
    uint64_t to_send;
    uint64_t to_receive;
};

static void begin_asking(struct party *party)
{
    party->to_send = bench.request_bytes;
    party->to_receive = bench.response_bytes;
    send_filler(&party->socket, &party->to_send);
}

static void on_party(struct io_socket *socket, uint32_t events);

static void connect_party(struct io *io)
{
    struct party *party = calloc(1, sizeof(*party));
    CHECK(party != NULL);
    party->is_asking = true;
    must(io_socket_connect(&party->socket, io, &bench.target, NULL, on_party));
    io_receive_grant(&party->socket, CREDIT);
}

static void on_party(struct io_socket *socket, uint32_t events)
{
    struct party *party = LIST_OWNER(socket, struct party, socket);
    if ((events & IO_EVENT_CLOSED) != 0) {
        if (party->is_asking && bench.exchanges_each > 0) {
            connect_party(socket->io);
        }
        free(party);
        return;
    }
    if ((events & (IO_EVENT_FAILED | IO_EVENT_RECEIVE_ENDED)) != 0) {
        io_close(socket);
        return;
    }
    if ((events & IO_EVENT_CONNECTED) != 0) {
        begin_asking(party);
    }
    uint64_t size = socket->received.size;
    if (size > 0) {
        buffer_clear(&socket->received);
        party->to_receive -= size < party->to_receive ? size : party->to_receive;
        if (io_receive_credit(socket) < CREDIT / 2) {
            io_receive_grant(socket, CREDIT - io_receive_credit(socket));
        }
        if (party->to_receive == 0 && party->is_asking) {
            bench.exchanges++;
            if (++party->exchanges == bench.exchanges_each) {
                io_close(socket);
                return;
            }
            begin_asking(party);
        } else if (party->to_receive == 0) {
            party->to_receive = bench.request_bytes;
            party->to_send = bench.response_bytes;
        }
    }
    send_filler(socket, &party->to_send);
}

static void on_accept_server(struct io_listener *listener, int fd)
{
    struct party *party = calloc(1, sizeof(*party));
    CHECK(party != NULL);
    party->to_receive = bench.request_bytes;
    must(io_socket_adopt(&party->socket, listener->io, fd, on_party));
    io_receive_grant(&party->socket, CREDIT);
}

/* ---- the forwarder ---- */

struct link {
    struct io_socket sides[2];
    int open;
    bool has_ended[2];
};

static void close_both(struct link *link, void (*how)(struct io_socket *socket))
{
    for (int i = 0; i < 2; i++) {
        if (!link->sides[i].is_closing) {
            how(&link->sides[i]);
        }
    }
}

static void on_side(struct link *link, int side, uint32_t events)
{
    if ((events & IO_EVENT_CLOSED) != 0) {
        if (--link->open == 0) {
            free(link);
        }
        return;
    }
    if ((events & IO_EVENT_FAILED) != 0) {
        close_both(link, io_abort);
        return;
    }
    if ((events & IO_EVENT_RECEIVE_ENDED) != 0) {
        link->has_ended[side] = true;
        io_send_end(&link->sides[1 - side]);
    }
    if (link->has_ended[0] && link->has_ended[1] && io_socket_unsent(&link->sides[0]) == 0 &&
        io_socket_unsent(&link->sides[1]) == 0) {
        close_both(link, io_close);
    }
}

static void on_near(struct io_socket *socket, uint32_t events)
{
    on_side(LIST_OWNER(socket, struct link, sides[0]), 0, events);
}

static void on_far(struct io_socket *socket, uint32_t events)
{
    on_side(LIST_OWNER(socket, struct link, sides[1]), 1, events);
}

static void on_accept_forward(struct io_listener *listener, int fd)
{
    struct link *link = calloc(1, sizeof(*link));
    CHECK(link != NULL);
    link->open = 2;
    must(io_socket_adopt(&link->sides[0], listener->io, fd, on_near));
    must(io_socket_connect(&link->sides[1], listener->io, &bench.target, NULL, on_far));
    must(io_pump_start(&link->sides[0], &link->sides[1]));
    must(io_pump_start(&link->sides[1], &link->sides[0]));
}

/* ---- roles ---- */

static void start(enum io_backend backend)
{
    struct io_options options = io_options_default();
    must(io_create(backend, &options, &bench.io));
    struct block_source *heap = block_source_heap();
    bench.filler = heap->take(heap, CHUNK_BYTES);
    CHECK(bench.filler != NULL);
    memset(bench.filler->data, 'x', CHUNK_BYTES);
}

static struct address loopback(uint64_t port)
{
    struct address address = {.family = ADDRESS_IPV4, .port = (uint16_t)port, .ip = {127, 0, 0, 1}};
    return address;
}

static void serve(void (*on_accept)(struct io_listener *listener, int fd))
{
    struct io_listen_options options = {.address = loopback(0)};
    int fd = -1;
    must(io_listen_socket(&options, &fd));
    struct sockaddr_in bound;
    socklen_t size = sizeof(bound);
    CHECK(getsockname(fd, (struct sockaddr *)&bound, &size) == 0);
    (void)printf("port %d\n", ntohs(bound.sin_port));
    (void)fflush(stdout);
    io_listener_open(&bench.listener, bench.io, fd, on_accept, NULL);
    for (;;) {
        must(io_turn(bench.io, CLOCK_NEVER));
    }
}

static void load(uint64_t connections, uint64_t seconds)
{
    CHECK(connections <= CONNECTIONS_MAX);
    for (uint64_t i = 0; i < connections; i++) {
        connect_party(bench.io);
    }
    uint64_t begin_ns = io_now_exact(bench.io);
    uint64_t end_ns = begin_ns + seconds * CLOCK_NS_PER_S;
    while (io_now_exact(bench.io) < end_ns) {
        must(io_turn(bench.io, end_ns));
    }
    uint64_t elapsed_ns = io_now_exact(bench.io) - begin_ns;
    (void)printf("exchanges %lu seconds %.3f\n", (unsigned long)bench.exchanges,
                 (double)elapsed_ns / (double)CLOCK_NS_PER_S);
}

int main(int argc, char **argv)
{
    const char *role = argc > 1 ? argv[1] : "";
    if (strcmp(role, "server") == 0 && argc == 4) {
        bench.request_bytes = number_of(argv[2]);
        bench.response_bytes = number_of(argv[3]);
        start(IO_BACKEND_AUTO);
        serve(on_accept_server);
    } else if (strcmp(role, "forward") == 0 && argc == 4) {
        bench.target = loopback(number_of(argv[3]));
        start(strcmp(argv[2], "epoll") == 0 ? IO_BACKEND_EPOLL : IO_BACKEND_URING);
        serve(on_accept_forward);
    } else if (strcmp(role, "load") == 0 && (argc == 7 || argc == 8)) {
        bench.target = loopback(number_of(argv[2]));
        bench.request_bytes = number_of(argv[4]);
        bench.response_bytes = number_of(argv[5]);
        bench.exchanges_each = argc == 8 ? number_of(argv[7]) : 0;
        start(IO_BACKEND_AUTO);
        load(number_of(argv[3]), number_of(argv[6]));
    } else {
        (void)fprintf(stderr, "io_bench server|forward|load: see the head of io_bench.c\n");
        return 2;
    }
    return 0;
}

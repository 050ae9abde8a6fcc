/*
 * The third back end: a network, a clock and a chance that exist only in memory, from a seed.
 *
 * The code under test sees a `struct io` like any other. The test stands on the other side of every
 * socket: it registers who answers at an address (io_fake_serve), connects to the listeners of the
 * code under test (io_fake_connect) and plays each peer from callbacks. No descriptor, no sleep and
 * no thread is involved: a turn jumps to the time of the next event, so a minute of timeouts takes
 * a millisecond, and the same seed gives the same run to the byte.
 *
 * Seed 0 is a calm network: whole blocks, no latency, no faults; begin with it. Every other seed
 * chooses the kinds of trouble of io_fake_faults and their rates for itself. What peers *do* is
 * never chosen by the seed: only when, in which pieces, and in which order it is seen. So a correct
 * program gives the same outcome on every seed, with these exceptions, which the seed may not
 * hide: a reset may destroy bytes of either direction that were on the way. As in the kernel,
 * closing a socket with bytes unread is a reset.
 *
 *     struct io *io = NULL;
 *     TRY(io_fake_create(&options, seed, &io));
 *     io_fake_serve(io, &(struct io_fake_service){.address = upstream, .script = &server});
 *     io_listener_open(&listener, io, io_fake_listen(io, &address), on_accept, on_closed);
 *     io_fake_connect(io, &(struct io_fake_client){
 *         .listener = address, .client = from, .original = service, .script = &client});
 *     if (!io_fake_run_until(io, is_finished, &test, 10000)) {
 *         io_fake_describe(io);
 *         fail, and print the seed;
 *     }
 *
 * Invariants that are CHECKed at every step: bytes are conserved for each connection and direction;
 * ops begin and finish in pairs; nothing is received without credit (beyond what was on the way),
 * sent twice or armed twice; a socket is silent after IO_EVENT_CLOSED; blocks come back once.
 * io_fake_finish checks what must hold at the end.
 *
 * Thread: everything here is called on the thread of the `struct io`, outside or inside callbacks
 * of either side. Descriptors that it gives out are numbers from IO_FAKE_FD_FIRST on, good for this
 * io only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "iouring/address.h"
#include "iouring/datagram.h"
#include "iouring/io.h"

enum {
    IO_FAKE_FD_FIRST = 1 << 20
};

/* One end of a connection that the test plays. Made by the fake; valid until io_destroy. */
struct io_fake_peer;

/* ---- the world ---- */

/* Trouble. Rates are in percent of the ops that they may happen to; 0 = never. */
struct io_fake_faults {
    uint64_t latency_ns_max; /* of each completion and each way through the network, from 0 */
    uint32_t receive_short_percent;   /* fewer bytes than there are, down to 1 */
    uint32_t receive_starved_percent; /* ENOBUFS although blocks are free */
    uint32_t receive_ended_percent;   /* a multishot ends by itself */
    uint32_t send_short_percent;      /* the socket takes fewer bytes than it has room for */
    uint32_t send_whole_percent;      /* completes when all is taken, as io_uring; else as epoll */
    uint32_t delivery_short_percent;  /* what peers get comes in smaller pieces, down to 1 */
    uint32_t accept_limit_percent;    /* EMFILE; the connection stays in the backlog */
    uint32_t accept_ended_percent;    /* a multishot ends by itself */
    uint32_t reset_loss_percent;      /* a reset destroys what was on the way */
    uint32_t datagram_loss_percent;   /* lost, and as many sent twice */
    /* 0 on every seed, as they change what a correct program does: tests switch them on. */
    uint32_t connect_limit_percent; /* io_socket_connect answers ERROR_LIMIT */
    uint32_t descriptors_max;       /* of accepted and connecting sockets; 0: any number */
    uint32_t buffer_bytes;  /* of each socket in each direction: where back-pressure begins */
    bool is_without_credit; /* as old kernels: more than the credit may come until it is stopped */
};

/*
 * Make the I/O of the calling thread. options->block_count may be small to provoke want of blocks.
 * The time begins at one hour, the random numbers of io_random come from the seed.
 * Errors: ERROR_NO_MEMORY.
 */
FALLIBLE io_fake_create(const struct io_options *options, uint64_t seed, struct io **ret_io);

/* What this seed chose, in place: tests may read and change it at any time. */
struct io_fake_faults *io_fake_faults_of(struct io *io);

/* Call io_turn until `is_done(argument)`, which is asked after every turn. False when `turns_max`
 * are over or nothing can happen any more (no event, timer or message). */
bool io_fake_run_until(struct io *io, bool (*is_done)(void *argument), void *argument,
                       uint64_t turns_max);

/* Turn until nothing can happen before `until_ns` any more, and go to that time. */
void io_fake_run_for(struct io *io, uint64_t span_ns);

/* Call `action(argument)` at io_now + `delay_ns`, outside callbacks of the code under test. */
void io_fake_after(struct io *io, uint64_t delay_ns, void (*action)(void *argument),
                   void *argument);

/* From the seed, for scripts; apart from the numbers of io_random and of the network. */
uint64_t io_fake_random(struct io *io);

/* What must hold when the code under test has closed everything: io_is_idle, every block back,
 * every descriptor closed. Returns NULL, or what is wrong (static storage). */
const char *io_fake_finish(struct io *io);

/* One line on each connection and what it waits for, to the standard error: for failed tests. */
void io_fake_describe(struct io *io);

/* ---- what a peer does when something reaches it ---- */

/* All may be NULL. Called from a turn, outside callbacks of the code under test. */
struct io_fake_script {
    /* The connection stands (for clients: it is in the backlog). */
    void (*on_connected)(struct io_fake_peer *peer);
    /* Clients only: refused; there is no listener, or its backlog is full. Nothing follows. */
    void (*on_refused)(struct io_fake_peer *peer);
    /* Bytes from the code under test, in order. Without it they are kept: io_fake_received. */
    void (*on_data)(struct io_fake_peer *peer, struct bytes data);
    void (*on_end)(struct io_fake_peer *peer);   /* FIN, after the last byte */
    void (*on_reset)(struct io_fake_peer *peer); /* RST; nothing follows */
    void (*on_sent)(struct io_fake_peer *peer);  /* all that io_fake_send queued has left */
};

/* ---- who answers where ---- */

enum io_fake_outcome {
    IO_FAKE_ACCEPT,
    IO_FAKE_REFUSE,
    IO_FAKE_UNREACHABLE,
    IO_FAKE_BLACKHOLE, /* never an answer */
    IO_FAKE_RESET,     /* accepts, and resets after reset_after_bytes from the code under test */
};

struct io_fake_service {
    struct address address;
    enum io_fake_outcome outcome;
    uint64_t delay_ns;                   /* before the outcome */
    uint64_t reset_after_bytes;          /* IO_FAKE_RESET; 0: at once after the handshake */
    const struct io_fake_script *script; /* borrowed until io_destroy; may be NULL */
    void *owner;                         /* of each peer; borrowed */
};

/* From now on `service` decides about connects to its address (until the next call for the same
 * one). Addresses without a service refuse. */
void io_fake_serve(struct io *io, const struct io_fake_service *service);

/* Connects of the code under test to `address` so far. */
uint64_t io_fake_connect_count(const struct io *io, const struct address *address);

/* ---- clients of the code under test ---- */

/* A descriptor for io_listener_open, as if listening on `address`. */
int io_fake_listen(struct io *io, const struct address *address);

struct io_fake_client {
    struct address listener; /* address of an io_fake_listen */
    struct address client;
    struct address original;             /* ADDRESS_NONE: not redirected */
    const struct io_fake_script *script; /* borrowed until io_destroy; may be NULL */
    void *owner;                         /* borrowed */
};

/* Connect; bytes may be sent at once. on_connected or on_refused follows. */
struct io_fake_peer *io_fake_connect(struct io *io, const struct io_fake_client *client);

/* ---- peers ---- */

/* What the test hangs on the peer, and how it answers from now on. */
void *io_fake_owner(const struct io_fake_peer *peer);
void io_fake_set_owner(struct io_fake_peer *peer, void *owner);
void io_fake_set_script(struct io_fake_peer *peer, const struct io_fake_script *script);
struct io *io_fake_io(const struct io_fake_peer *peer);

/* The address that the code under test has for this peer, and its own end as the peer sees it. */
const struct address *io_fake_address(const struct io_fake_peer *peer);
const struct address *io_fake_remote_address(const struct io_fake_peer *peer);

/* Send a copy of `bytes`. The script's queue is unbounded; what the code under test has not taken
 * waits in it. Nothing happens after a reset or a close. */
void io_fake_send(struct io_fake_peer *peer, struct bytes bytes);

/* FIN behind everything sent. */
void io_fake_send_end(struct io_fake_peer *peer);

/* RST at once. Bytes on the way, both ways, may be lost. */
void io_fake_reset(struct io_fake_peer *peer);

/* As close(2): FIN behind everything sent; what arrives from now on is answered with RST. */
void io_fake_close(struct io_fake_peer *peer);

/* Leave what arrives in the socket's buffer, which fills; and take it again. */
void io_fake_stop_reading(struct io_fake_peer *peer);
void io_fake_start_reading(struct io_fake_peer *peer);

/* Bytes kept for want of on_data; valid until the next turn. */
struct bytes io_fake_received(const struct io_fake_peer *peer);

/* Forget the first `size` of them. */
void io_fake_consume(struct io_fake_peer *peer, size_t size);

/* All that arrived so far, also what on_data took. */
uint64_t io_fake_received_bytes(const struct io_fake_peer *peer);
/* Queued by io_fake_send and not yet received by the code under test. */
uint64_t io_fake_unsent_bytes(const struct io_fake_peer *peer);
bool io_fake_is_connected(const struct io_fake_peer *peer);
bool io_fake_has_ended(const struct io_fake_peer *peer); /* the code under test's FIN has come */
bool io_fake_was_reset(const struct io_fake_peer *peer); /* RST has come */
/* The code under test has closed its side, in whichever way. */
bool io_fake_is_gone(const struct io_fake_peer *peer);

/* ---- datagrams ---- */

/* A descriptor for io_datagram_open, bound to `local`. */
int io_fake_datagram(struct io *io, const struct address *local);

/* Send one from `peer` to `local` (where it was sent to, which under TPROXY is another address than
 * the descriptor's). It may be lost, come twice or out of order: faults.datagram_loss_percent. */
void io_fake_datagram_send(struct io *io, int fd, const struct address *peer,
                           const struct address *local, struct bytes payload);

/* Call `on_packet` for what the code under test sends: `packet->local` is its address. */
typedef void (*io_fake_packet_fn)(struct io *io, const struct io_packet *packet, void *argument);
void io_fake_on_packet(struct io *io, io_fake_packet_fn on_packet, void *argument);

/* Let on_readable of a watch on `fd` (any number) be called once. */
void io_fake_make_readable(struct io *io, int fd);

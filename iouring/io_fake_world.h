/*
 * What the files of the fake share. Private to io_fake*.c; tests see iouring/io_fake.h.
 *
 * Each connection has two queues of bytes: one towards the code under test, of which the first
 * `arrived` bytes are in its socket, and one towards the peer. Every step of a connection (arrive,
 * receive, send, deliver, reset, close) is an event with a latency of its own, so what real kernels
 * leave open comes in every order; a step that finds nothing to do does nothing, so steps need no
 * cancelling.
 *
 * Thread: that of the `struct io`. Memory that cannot be had is a CHECK: this is for tests.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/list.h"
#include "iouring/address.h"
#include "iouring/datagram.h"
#include "iouring/io.h"
#include "iouring/io_fake.h"

enum {
    FAKE_SEND_SLICES_MAX = 64, /* of one send */
};

/* Bytes in order, in one growing array. */
struct fake_queue {
    uint8_t *data; /* owned */
    size_t start;
    size_t size;
    size_t capacity;
};

struct fake_event {
    uint64_t due_ns;
    uint64_t serial; /* first come, first served at the same time */
    void (*run)(void *argument);
    void *argument; /* borrowed */
};

/* What stands for a listening descriptor. */
struct fake_listener {
    struct fake_world *world; /* borrowed */
    struct address address;
    struct io_listener *listener; /* borrowed; NULL before it is armed and after it is closed */
    struct list backlog;          /* of peers */
    uint32_t backlog_count;
    bool is_armed;
    bool is_disarm_wanted;
    bool is_closing;
    bool is_closed;
    bool is_accept_due;
};

/* A datagram on its way, either way. */
struct fake_packet {
    struct fake_world *world; /* borrowed */
    struct fake_watch *to;    /* borrowed: the descriptor; NULL: to the test */
    struct list link;         /* of those that have arrived */
    struct io_packet packet;
    uint8_t payload[];
};

struct fake_service {
    struct io_fake_service service;
    uint64_t connect_count;
};

struct fake_watch {
    struct fake_world *world; /* borrowed */
    struct io_watch *watch;   /* borrowed; NULL while it is not open */
    int fd;
    bool is_readable;
    /* Of a datagram descriptor. */
    bool is_datagram;
    struct address local;
    struct list packets; /* owned: arrived */
    struct list taken;   /* owned: given to the owner in this turn */
};

/* What a descriptor of the fake stands for; one of the two, or none any more. */
struct fake_descriptor {
    struct io_fake_peer *peer;      /* owned by the world's list */
    struct fake_listener *listener; /* owned */
};

struct fake_world {
    struct io *io; /* borrowed */
    uint64_t now_ns;
    uint64_t random_network;
    uint64_t random_script;
    uint64_t seed;
    struct io_fake_faults faults;
    struct fake_event *events; /* owned: a heap */
    size_t event_count;
    size_t event_capacity;
    uint64_t serial;
    struct list peers; /* owned */
    uint32_t peer_count;
    uint32_t descriptors_in_use;
    struct fake_descriptor *descriptors; /* owned; index is fd - IO_FAKE_FD_FIRST */
    size_t descriptor_count;
    struct fake_service *services; /* owned */
    size_t service_count;
    struct fake_watch **watches; /* owned, each */
    size_t watch_count;
    io_fake_packet_fn on_packet;
    void *on_packet_argument; /* borrowed */
    bool is_rung;
    bool is_stuck; /* the last wait could have slept for ever */
};

struct io_fake_peer {
    struct fake_world *world; /* borrowed */
    struct list link;
    struct list backlog;
    const struct io_fake_script *script; /* borrowed; may be NULL */
    void *owner;                         /* borrowed */
    struct io_socket *socket; /* borrowed; NULL before it is adopted and after it is closed */
    uint32_t id;
    int fd;
    struct address address; /* this peer's */
    struct address remote;  /* the code under test's */
    struct address original;
    struct address wanted_listener; /* clients, before they are in a backlog */

    /* Bytes, and where each one is. sent = arrived and taken + waiting + lost, both ways. */
    struct fake_queue to_socket;
    struct fake_queue to_peer;
    struct fake_queue kept;
    size_t arrived; /* of to_socket */
    uint64_t script_sent;
    uint64_t socket_taken;
    uint64_t to_socket_lost;
    uint64_t socket_sent; /* into to_peer */
    uint64_t delivered;
    uint64_t to_peer_lost;

    /* The script's side. */
    bool is_client;
    bool is_connected;
    bool is_reading;
    bool is_end_wanted;
    bool is_end_delivered; /* on_end was called */
    bool is_script_closed;
    bool is_dead; /* reset from either side, or refused: the script hears nothing more */
    bool was_reset;
    bool has_reset_limit;
    uint64_t reset_limit;

    /* The socket's side. */
    bool is_end_arrived;
    bool is_reset_arrived;
    bool is_error_taken; /* the first op after a reset says so; later ones see EPIPE and an end */
    bool is_armed;
    bool is_disarm_wanted;
    uint64_t armed_credit;
    bool is_error_watched;
    bool is_send_whole;
    bool is_send_cancelled;
    struct bytes
        sending[FAKE_SEND_SLICES_MAX]; /* what the kernel reads from until the send is over */
    size_t send_wanted;
    size_t send_done;
    bool is_connect_pending;
    int connect_error;
    bool is_shut; /* the code under test sends nothing more */
    bool is_closing;
    bool is_gone;         /* closed */
    bool is_reset_on_way; /* to the peer */

    bool is_connect_due;
    bool is_arrive_due;
    bool is_error_due;
    bool is_receive_due;
    bool is_send_due;
    bool is_deliver_due;
    bool is_reset_due;
    bool is_close_due;
};

/* ---- io_fake_world.c: chance, bytes, events, descriptors ---- */

/* The next number of a sequence; `state` is where it is. */
uint64_t fake_next_random(uint64_t *state);

/* From the network's sequence: a number below `count`; true in `percent` of the cases. */
uint64_t fake_pick(struct fake_world *world, uint64_t count);
bool fake_chance(struct fake_world *world, uint32_t percent);

/* An even chance on a seed with faults; never on the calm one. */
bool fake_coin(struct fake_world *world);

/* All of `size`, or with `percent` a part of it: often a tiny one. */
size_t fake_part_of(struct fake_world *world, uint32_t percent, size_t size);

/* What a step takes, in nanoseconds. */
uint64_t fake_latency(struct fake_world *world);

/* Put a copy of bytes at the end; drop bytes at the front. */
void fake_queue_append(struct fake_queue *queue, const uint8_t *data, size_t size);
void fake_queue_consume(struct fake_queue *queue, size_t size);

/* Let `run(argument)` happen `delay_ns` from now; take the event that is due first. */
void fake_push_event(struct fake_world *world, uint64_t delay_ns, void (*run)(void *argument),
                     void *argument);
struct fake_event fake_pop_event(struct fake_world *world);

/* The world behind an io that io_fake_create made. */
struct fake_world *fake_world_of(const struct io *io);

/* What a descriptor stands for; a new one for either, or (NULL, NULL) for a datagram socket. */
struct fake_descriptor *fake_descriptor_of(struct fake_world *world, int fd);
int fake_new_descriptor(struct fake_world *world, struct io_fake_peer *peer,
                        struct fake_listener *listener);

/* May another connection have a descriptor (descriptors_max)? */
bool fake_is_descriptor_left(const struct fake_world *world);

/* Who answers at an address; REFUSE until a test says otherwise. */
struct fake_service *fake_entry_of(struct fake_world *world, const struct address *address);

/* ---- io_fake_peer.c: peers and the network between them and sockets ---- */

/* Let `step` of the peer happen after a latency, unless it is on its way already. */
void fake_soon(struct io_fake_peer *peer, bool *is_due, void (*step)(void *argument));

/* The balance of bytes and ops that holds between any two steps. */
void fake_check_peer(const struct io_fake_peer *peer);

/* A peer at `address` of what will be a socket at `remote`. Owned by the world. */
struct io_fake_peer *fake_new_peer(struct fake_world *world, const struct address *address,
                                   const struct address *remote);

/* Lose what is towards the socket but for the first `kept` bytes. */
void fake_lose_to_socket(struct io_fake_peer *peer, size_t kept);

/* The connection stands: on_connected. */
void fake_connected(struct io_fake_peer *peer);

/* The code under test's side answers with RST, or sends one. */
void fake_reset_peer(struct io_fake_peer *peer);

/* Steps: what is towards the peer reaches the script; what is towards the socket reaches it. */
void fake_deliver_step(void *argument);
void fake_arrive_step(void *argument);

/* ---- io_fake_socket.c: the driver's calls for connections (io_driver.h), and their steps ---- */
void fake_send_step(void *argument);
void fake_receive_step(void *argument);
void fake_error_step(void *argument);
FALLIBLE fake_open_socket(struct io *io, const struct address *remote, const struct address *local,
                          int *ret_fd);
FALLIBLE fake_connect_socket(struct io_socket *socket, const struct address *remote);
FALLIBLE fake_adopt(struct io_socket *socket);
void fake_discard(struct io *io, int fd);
FALLIBLE fake_address_of(const struct io_socket *socket, enum io_address_kind kind,
                         struct address *ret_address);
void fake_start_send(struct io_socket *socket);
void fake_cancel_send(struct io_socket *socket);
void fake_end_send(struct io_socket *socket);
void fake_arm_receive(struct io_socket *socket);
void fake_disarm_receive(struct io_socket *socket);
void fake_watch_for_error(struct io_socket *socket);
int fake_take_error(struct io_socket *socket);
bool fake_has_unread(const struct io_socket *socket);
void fake_close_socket(struct io_socket *socket, bool is_reset);

/* ---- io_fake_listener.c: the driver's calls for listeners ---- */
void fake_arm_listener(struct io_listener *listener);
void fake_disarm_listener(struct io_listener *listener);
void fake_close_listener(struct io_listener *listener);

/* ---- io_fake_datagram.c: the driver's calls for watches and datagrams ---- */
void fake_arm_watch(struct io_watch *watch);
void fake_close_watch(struct io_watch *watch);
uint32_t fake_receive_datagrams(struct io_datagram *datagram, struct io_packet *packets);
FALLIBLE fake_send_datagram(struct io_datagram *datagram, const struct address *peer,
                            const struct address *local, struct bytes payload);
void fake_close_datagram(struct io_datagram *datagram);

/* A datagram arrives, on either side; until then it is owned by its event. */
void fake_packet_step(void *argument);

/* Free what a list holds. */
void fake_free_packets(struct list *packets);

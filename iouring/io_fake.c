/*
 * A world of events in order of their virtual time. Each connection has two queues of bytes: one
 * towards the code under test, of which the first `arrived` bytes are in its socket, and one
 * towards the peer. Every step of a connection (arrive, receive, send, deliver, reset, close) is an
 * event with a latency of its own, so what real kernels leave open comes in every order; a step
 * that finds nothing to do does nothing, so steps need no cancelling.
 *
 * The rules that a kernel would keep are CHECKs here: see check_peer and the driver functions.
 */
#include "iouring/io_fake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "iouring/io_driver.h"

enum {
    BACKLOG_MAX = 4096,
    EPHEMERAL_PORT_FIRST = 30000,
    SEND_SLICES_MAX = 64,
    TURN_NS = 1000, /* what a turn without waiting takes, so that busy programs see time pass */
    CALM_BUFFER_BYTES = 256 << 10,
    SEED_START_NS_HOURS = 1,
};

/* Bytes in order, in one growing array. */
struct queue {
    uint8_t *data; /* owned */
    size_t start;
    size_t size;
    size_t capacity;
};

struct event {
    uint64_t due_ns;
    uint64_t serial; /* first come, first served at the same time */
    void (*run)(void *argument);
    void *argument; /* borrowed */
};

/* What stands for a listening descriptor. */
struct fake_listener {
    struct world *world; /* borrowed */
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
    struct world *world;   /* borrowed */
    struct fake_watch *to; /* borrowed: the descriptor; NULL: to the test */
    struct list link;      /* of those that have arrived */
    struct io_packet packet;
    uint8_t payload[];
};

struct service_entry {
    struct io_fake_service service;
    uint64_t connect_count;
};

struct fake_watch {
    struct world *world;    /* borrowed */
    struct io_watch *watch; /* borrowed; NULL while it is not open */
    int fd;
    bool is_readable;
    /* Of a datagram descriptor. */
    bool is_datagram;
    struct address local;
    struct list packets; /* owned: arrived */
    struct list taken;   /* owned: given to the owner in this turn */
};

/* What a descriptor of the fake stands for; one of the two, or none any more. */
struct descriptor {
    struct io_fake_peer *peer;      /* owned by the world's list */
    struct fake_listener *listener; /* owned */
};

struct world {
    struct io *io; /* borrowed */
    uint64_t now_ns;
    uint64_t random_network;
    uint64_t random_script;
    uint64_t seed;
    struct io_fake_faults faults;
    struct event *events; /* owned: a heap */
    size_t event_count;
    size_t event_capacity;
    uint64_t serial;
    struct list peers; /* owned */
    uint32_t peer_count;
    uint32_t descriptors_in_use;
    struct descriptor *descriptors; /* owned; index is fd - IO_FAKE_FD_FIRST */
    size_t descriptor_count;
    struct service_entry *services; /* owned */
    size_t service_count;
    struct fake_watch **watches; /* owned, each */
    size_t watch_count;
    io_fake_packet_fn on_packet;
    void *on_packet_argument; /* borrowed */
    bool is_rung;
    bool is_stuck; /* the last wait could have slept for ever */
};

struct io_fake_peer {
    struct world *world; /* borrowed */
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
    struct queue to_socket;
    struct queue to_peer;
    struct queue kept;
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
    struct bytes sending[SEND_SLICES_MAX]; /* what the kernel reads from until the send is over */
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

/* ---- chance ---- */

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = (*state ^ (*state >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t pick(struct world *world, uint64_t count)
{
    return next_random(&world->random_network) % count;
}

static bool chance(struct world *world, uint32_t percent)
{
    return percent > 0 && pick(world, 100) < percent;
}

/* An even chance on a seed with faults; never on the calm one. */
static bool coin(struct world *world)
{
    return world->seed != 0 && pick(world, 2) == 0;
}

/* All of `size`, or with `percent` a part of it: often a tiny one. */
static size_t part_of(struct world *world, uint32_t percent, size_t size)
{
    if (size <= 1 || !chance(world, percent)) {
        return size;
    }
    size_t most = coin(world) && size > 8 ? 8 : size;
    return 1 + (size_t)pick(world, most);
}

static uint64_t latency(struct world *world)
{
    uint64_t max = world->faults.latency_ns_max;
    return max == 0 ? 0 : pick(world, max + 1);
}

/* ---- bytes ---- */

static void queue_append(struct queue *queue, const uint8_t *data, size_t size)
{
    if (queue->capacity - queue->start - queue->size < size) {
        if (queue->start > 0) {
            memmove(queue->data, queue->data + queue->start, queue->size);
            queue->start = 0;
        }
        if (queue->capacity - queue->size < size) {
            queue->capacity = (queue->size + size) * 2;
            queue->data = realloc(queue->data, queue->capacity);
            CHECK(queue->data != NULL);
        }
    }
    if (size > 0) {
        memcpy(queue->data + queue->start + queue->size, data, size);
        queue->size += size;
    }
}

static void queue_consume(struct queue *queue, size_t size)
{
    CHECK(size <= queue->size);
    queue->start += size;
    queue->size -= size;
    if (queue->size == 0) {
        queue->start = 0;
    }
}

/* ---- events ---- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->serial < b->serial;
}

static void push_event(struct world *world, uint64_t delay_ns, void (*run)(void *argument),
                       void *argument)
{
    if (world->event_count == world->event_capacity) {
        world->event_capacity = world->event_capacity == 0 ? 64 : world->event_capacity * 2;
        world->events = realloc(world->events, world->event_capacity * sizeof(*world->events));
        CHECK(world->events != NULL);
    }
    struct event event = {clock_add(world->now_ns, delay_ns), world->serial++, run, argument};
    size_t at = world->event_count++;
    while (at > 0 && is_before(&event, &world->events[(at - 1) / 2])) {
        world->events[at] = world->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->events[at] = event;
}

static struct event pop_event(struct world *world)
{
    struct event first = world->events[0];
    struct event last = world->events[--world->event_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= world->event_count) {
            break;
        }
        if (child + 1 < world->event_count &&
            is_before(&world->events[child + 1], &world->events[child])) {
            child++;
        }
        if (!is_before(&world->events[child], &last)) {
            break;
        }
        world->events[at] = world->events[child];
        at = child;
    }
    world->events[at] = last;
    return first;
}

/* Let `step` of `peer` happen after a latency, unless it is on its way already. */
static void soon(struct io_fake_peer *peer, bool *is_due, void (*step)(void *argument))
{
    if (!*is_due) {
        *is_due = true;
        push_event(peer->world, latency(peer->world), step, peer);
    }
}

/* ---- peers ---- */

static struct world *world_of(const struct io *io)
{
    CHECK(io->driver->backend == IO_BACKEND_FAKE);
    return io->driver_state;
}

static void check_peer(const struct io_fake_peer *peer)
{
    CHECK(peer->script_sent == peer->socket_taken + peer->to_socket.size + peer->to_socket_lost);
    CHECK(peer->socket_sent == peer->delivered + peer->to_peer.size + peer->to_peer_lost);
    CHECK(peer->arrived <= peer->to_socket.size);
    const struct io_socket *socket = peer->socket;
    if (socket != NULL) {
        CHECK(socket->driver_data == peer && !peer->is_gone);
        CHECK(socket->received_bytes == peer->socket_taken);
        CHECK(socket->sent_bytes + peer->send_done == peer->socket_sent);
        CHECK(socket->receive_op.is_in_kernel == peer->is_armed);
        CHECK(socket->error_op.is_in_kernel == peer->is_error_watched);
        CHECK(socket->send_op.is_in_kernel == (socket->send_in_flight != 0));
        CHECK(socket->send_queue.size >= peer->send_wanted);
    }
}

static struct descriptor *descriptor_of(struct world *world, int fd)
{
    CHECK(fd >= IO_FAKE_FD_FIRST && (size_t)(fd - IO_FAKE_FD_FIRST) < world->descriptor_count);
    return &world->descriptors[fd - IO_FAKE_FD_FIRST];
}

static int new_descriptor(struct world *world, struct io_fake_peer *peer,
                          struct fake_listener *listener)
{
    size_t count = world->descriptor_count;
    if ((count & (count - 1)) == 0) { /* 0 or a power of two: full */
        size_t capacity = count == 0 ? 1 : count * 2;
        world->descriptors = realloc(world->descriptors, capacity * sizeof(*world->descriptors));
        CHECK(world->descriptors != NULL);
    }
    world->descriptors[world->descriptor_count++] = (struct descriptor){peer, listener};
    return IO_FAKE_FD_FIRST + (int)count;
}

static bool is_descriptor_left(const struct world *world)
{
    uint32_t max = world->faults.descriptors_max;
    return max == 0 || world->descriptors_in_use < max;
}

static struct io_fake_peer *new_peer(struct world *world, const struct address *address,
                                     const struct address *remote)
{
    struct io_fake_peer *peer = calloc(1, sizeof(*peer));
    CHECK(peer != NULL);
    peer->world = world;
    peer->id = ++world->peer_count;
    peer->fd = -1;
    peer->address = *address;
    peer->remote = *remote;
    peer->is_reading = true;
    list_init(&peer->backlog);
    list_append(&world->peers, &peer->link);
    return peer;
}

static void lose_to_peer(struct io_fake_peer *peer)
{
    peer->to_peer_lost += peer->to_peer.size;
    queue_consume(&peer->to_peer, peer->to_peer.size);
}

/* Lose what is towards the socket but for the first `kept` bytes. */
static void lose_to_socket(struct io_fake_peer *peer, size_t kept)
{
    size_t lost = peer->to_socket.size - kept;
    peer->to_socket_lost += lost;
    peer->to_socket.size -= lost;
    if (peer->arrived > kept) {
        peer->arrived = kept;
    }
}

static void connected(struct io_fake_peer *peer)
{
    peer->is_connected = true;
    if (peer->script != NULL && peer->script->on_connected != NULL) {
        peer->script->on_connected(peer);
    }
}

/* ---- towards the peer ---- */

static void send_step(void *argument);
static void deliver_step(void *argument);

/* The code under test's side answers with RST, or sends one. */
static void reset_peer(struct io_fake_peer *peer)
{
    if (peer->is_dead || peer->is_reset_on_way) {
        return;
    }
    peer->is_reset_on_way = true;
    lose_to_socket(peer, 0);
    if (chance(peer->world, peer->world->faults.reset_loss_percent)) {
        lose_to_peer(peer);
    }
    soon(peer, &peer->is_deliver_due, deliver_step);
}

/* The next bytes for the script. */
static void deliver_bytes(struct io_fake_peer *peer)
{
    struct world *world = peer->world;
    size_t size = part_of(world, world->faults.delivery_short_percent, peer->to_peer.size);
    if (peer->has_reset_limit && size > peer->reset_limit - peer->delivered) {
        size = (size_t)(peer->reset_limit - peer->delivered);
    }
    /* A copy: the script may reset the connection, which empties the queue. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, peer->to_peer.data + peer->to_peer.start, size);
    queue_consume(&peer->to_peer, size);
    peer->delivered += size;
    if (peer->script != NULL && peer->script->on_data != NULL) {
        peer->script->on_data(peer, bytes_make(copy, size));
    } else {
        queue_append(&peer->kept, copy, size);
    }
    free(copy);
    if (peer->has_reset_limit && peer->delivered >= peer->reset_limit) {
        io_fake_reset(peer);
    }
    if (peer->socket != NULL && peer->socket->send_in_flight != 0) {
        soon(peer, &peer->is_send_due, send_step);
    }
}

static void deliver_reset(struct io_fake_peer *peer)
{
    lose_to_peer(peer);
    lose_to_socket(peer, 0);
    peer->is_dead = true;
    peer->was_reset = true;
    if (peer->script != NULL && peer->script->on_reset != NULL) {
        peer->script->on_reset(peer);
    }
}

static void deliver_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    peer->is_deliver_due = false;
    if (peer->is_dead || !peer->is_connected) {
        return;
    }
    if (peer->to_peer.size > 0 && peer->is_script_closed) {
        lose_to_peer(peer);
        if (!peer->is_reset_on_way) {
            io_fake_reset(peer);
            return;
        }
    }
    if (peer->to_peer.size > 0 && peer->is_reading) {
        deliver_bytes(peer);
    } else if (peer->is_reset_on_way) {
        deliver_reset(peer);
    } else if (peer->to_peer.size == 0 && peer->is_shut && !peer->is_end_delivered &&
               peer->is_reading) {
        peer->is_end_delivered = true;
        if (peer->script != NULL && peer->script->on_end != NULL) {
            peer->script->on_end(peer);
        }
    } else {
        return;
    }
    check_peer(peer);
    soon(peer, &peer->is_deliver_due, deliver_step);
}

/* ---- sends of the code under test ---- */

static void finish_send(struct io_fake_peer *peer, int error_number)
{
    struct io_socket *socket = peer->socket;
    size_t done = peer->send_done;
    peer->send_done = 0;
    peer->send_wanted = 0;
    peer->is_send_cancelled = false;
    socket->send_in_flight = 0;
    io_op_finish(socket->io, &socket->send_op);
    if (error_number == 0 || done > 0) {
        io_note_sent(socket, (uint32_t)done);
    }
    if (error_number != 0) {
        io_note_failed(socket, error_number);
    }
}

/* Copy `size` bytes behind the first `offset` of the send, late, from where they were when it
 * began: whoever moved or freed them meanwhile took them from the kernel. */
static void copy_queued(struct io_fake_peer *peer, size_t offset, size_t size)
{
    for (uint32_t i = 0; size > 0; i++) {
        CHECK(i < SEND_SLICES_MAX);
        struct bytes slice = peer->sending[i];
        CHECK(buffer_slice(&peer->socket->send_queue, i)->data == slice.data);
        if (offset >= slice.size) {
            offset -= slice.size;
            continue;
        }
        size_t part = slice.size - offset < size ? slice.size - offset : size;
        queue_append(&peer->to_peer, slice.data + offset, part);
        peer->socket_sent += part;
        peer->send_done += part;
        size -= part;
        offset = 0;
    }
}

static void send_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    struct world *world = peer->world;
    peer->is_send_due = false;
    if (peer->socket == NULL || peer->socket->send_in_flight == 0) {
        return;
    }
    if (peer->is_reset_arrived) {
        int error_number = peer->is_error_taken ? EPIPE : ECONNRESET;
        peer->is_error_taken = true;
        finish_send(peer, error_number);
        return;
    }
    if (peer->is_send_cancelled || peer->is_closing) {
        if (!peer->is_closing) { /* else the close ends it, in its own time */
            finish_send(peer, 0);
        }
        return;
    }
    size_t buffered = peer->to_peer.size;
    size_t room = world->faults.buffer_bytes > buffered ? world->faults.buffer_bytes - buffered : 0;
    if (room == 0) {
        return; /* a delivery makes room and calls again */
    }
    size_t left = peer->send_wanted - peer->send_done;
    size_t size = part_of(world, world->faults.send_short_percent, left < room ? left : room);
    copy_queued(peer, peer->send_done, size);
    if (peer->send_done == peer->send_wanted || !peer->is_send_whole) {
        finish_send(peer, 0);
    } else {
        soon(peer, &peer->is_send_due, send_step);
    }
    soon(peer, &peer->is_deliver_due, deliver_step);
    check_peer(peer);
}

static struct io_fake_peer *peer_of(const struct io_socket *socket)
{
    struct io_fake_peer *peer = socket->driver_data;
    CHECK(peer != NULL && peer->socket == socket);
    return peer;
}

static void start_send(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(socket->send_in_flight == 0 && socket->send_queue.size > 0);
    CHECK(!peer->is_shut && !peer->is_closing && !peer->is_connect_pending);
    peer->send_wanted = 0;
    for (uint32_t i = 0; i < socket->send_queue.count && i < SEND_SLICES_MAX; i++) {
        const struct slice *slice = buffer_slice(&socket->send_queue, i);
        peer->sending[i] = bytes_make(slice->data, slice->size);
        peer->send_wanted += slice->size;
    }
    peer->is_send_whole = chance(peer->world, peer->world->faults.send_whole_percent);
    socket->send_in_flight = 1;
    io_op_begin(socket->io, &socket->send_op);
    soon(peer, &peer->is_send_due, send_step);
}

static void cancel_send(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(socket->send_in_flight != 0);
    peer->is_send_cancelled = true;
    soon(peer, &peer->is_send_due, send_step);
}

static void end_send(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(socket->send_in_flight == 0 && socket->send_queue.size == 0 && !peer->is_shut);
    peer->is_shut = true;
    soon(peer, &peer->is_deliver_due, deliver_step);
}

/* ---- receives of the code under test ---- */

static void receive_step(void *argument);
static void arrive_step(void *argument);

static void stop_receive(struct io_fake_peer *peer, int error_number)
{
    peer->is_armed = false;
    peer->is_disarm_wanted = false;
    io_op_finish(peer->socket->io, &peer->socket->receive_op);
    io_note_receive_stopped(peer->socket, error_number);
}

/* One block of what has arrived. False: there is no block. */
static bool receive_block(struct io_fake_peer *peer)
{
    struct world *world = peer->world;
    struct io_socket *socket = peer->socket;
    struct block *block = block_pool_take(socket->io->pool);
    if (block == NULL) {
        return false;
    }
    size_t size = peer->arrived < block->capacity ? peer->arrived : block->capacity;
    if (!world->faults.is_without_credit && size > peer->armed_credit) {
        size = (size_t)peer->armed_credit;
    }
    size = part_of(world, world->faults.receive_short_percent, size);
    CHECK(size > 0);
    memcpy(block->data, peer->to_socket.data + peer->to_socket.start, size);
    queue_consume(&peer->to_socket, size);
    peer->arrived -= size;
    peer->socket_taken += size;
    peer->armed_credit -= size < peer->armed_credit ? size : peer->armed_credit;
    io_note_received(socket, block, block->data, (uint32_t)size);
    soon(peer, &peer->is_arrive_due, arrive_step);
    return true;
}

/* No bytes are left: what else the socket has to say. */
static void receive_rest(struct io_fake_peer *peer)
{
    bool is_reset = peer->is_reset_arrived;
    if (is_reset && !peer->is_error_taken) {
        peer->is_error_taken = true;
        stop_receive(peer, ECONNRESET);
    } else if (is_reset || peer->is_end_arrived) {
        peer->is_armed = false;
        peer->is_disarm_wanted = false;
        io_op_finish(peer->socket->io, &peer->socket->receive_op);
        io_note_receive_ended(peer->socket);
    } else if (peer->is_disarm_wanted) {
        stop_receive(peer, ECANCELED);
    }
}

static void receive_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    struct world *world = peer->world;
    peer->is_receive_due = false;
    if (!peer->is_armed) {
        return;
    }
    /* An empty ring refuses at once, with or without data (io-uring.md 6). */
    if (block_pool_available(peer->socket->io->pool) == 0 ||
        chance(world, world->faults.receive_starved_percent)) {
        stop_receive(peer, ENOBUFS);
        return;
    }
    if (peer->is_disarm_wanted && (peer->arrived == 0 || coin(world))) {
        stop_receive(peer, ECANCELED);
        return;
    }
    if (peer->arrived == 0) {
        receive_rest(peer);
        return;
    }
    do {
        if (!receive_block(peer)) {
            stop_receive(peer, ENOBUFS);
            return;
        }
        if (!world->faults.is_without_credit && peer->armed_credit == 0) {
            stop_receive(peer, 0);
            return;
        }
    } while (peer->arrived > 0 && (world->seed == 0 || coin(world)));
    check_peer(peer);
    if (chance(world, world->faults.receive_ended_percent)) {
        stop_receive(peer, 0);
    } else if (peer->arrived > 0 || peer->is_end_arrived || peer->is_reset_arrived ||
               peer->is_disarm_wanted) {
        soon(peer, &peer->is_receive_due, receive_step);
    }
}

static void arm_receive(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(!peer->is_armed && socket->credit_bytes > 0);
    CHECK(!peer->is_closing && !peer->is_connect_pending);
    peer->is_armed = true;
    peer->armed_credit = socket->credit_bytes;
    io_op_begin(socket->io, &socket->receive_op);
    soon(peer, &peer->is_receive_due, receive_step);
}

static void disarm_receive(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(peer->is_armed && !peer->is_disarm_wanted);
    peer->is_disarm_wanted = true;
    soon(peer, &peer->is_receive_due, receive_step);
}

/* What is watched may have broken; or the watch ends by itself, as a multishot does. */
static void error_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    peer->is_error_due = false;
    if (!peer->is_error_watched || peer->is_closing) {
        return;
    }
    if (chance(peer->world, peer->world->faults.receive_ended_percent)) {
        peer->is_error_watched = false;
        io_op_finish(peer->socket->io, &peer->socket->error_op);
        io_note_error_watch_stopped(peer->socket);
    } else if (peer->is_reset_arrived && !peer->is_error_taken) {
        io_note_error_seen(peer->socket);
    }
}

static void watch_for_error(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(!peer->is_error_watched && !peer->is_closing && !peer->is_connect_pending);
    peer->is_error_watched = true;
    io_op_begin(socket->io, &socket->error_op);
    soon(peer, &peer->is_error_due, error_step);
}

static int take_error(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    bool is_left = peer->is_reset_arrived && !peer->is_error_taken;
    peer->is_error_taken |= is_left;
    return is_left ? ECONNRESET : 0;
}

/* The script's bytes and its FIN reach the socket. */
static void arrive_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    struct world *world = peer->world;
    peer->is_arrive_due = false;
    if (!peer->is_connected || peer->is_dead || peer->is_end_arrived) {
        return;
    }
    size_t waiting = peer->to_socket.size - peer->arrived;
    if (peer->is_gone && waiting > 0) {
        reset_peer(peer);
        return;
    }
    size_t room =
        world->faults.buffer_bytes > peer->arrived ? world->faults.buffer_bytes - peer->arrived : 0;
    size_t size =
        part_of(world, world->faults.delivery_short_percent, waiting < room ? waiting : room);
    peer->arrived += size;
    bool is_all = peer->arrived == peer->to_socket.size;
    if (is_all && peer->is_end_wanted && (size == 0 || !coin(world))) {
        peer->is_end_arrived = true;
    } else if (size > 0 && (!is_all || peer->is_end_wanted)) {
        soon(peer, &peer->is_arrive_due, arrive_step);
    }
    soon(peer, &peer->is_receive_due, receive_step);
    check_peer(peer);
    if (is_all && size > 0 && peer->script != NULL && peer->script->on_sent != NULL) {
        peer->script->on_sent(peer);
    }
}

static void reset_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    peer->is_reset_due = false;
    if (peer->is_gone) {
        return;
    }
    peer->is_reset_arrived = true;
    if (chance(peer->world, peer->world->faults.reset_loss_percent)) {
        lose_to_socket(peer, 0);
    }
    soon(peer, &peer->is_receive_due, receive_step);
    soon(peer, &peer->is_send_due, send_step);
    soon(peer, &peer->is_error_due, error_step);
}

/* ---- closing ---- */

static void release_descriptor(struct io_fake_peer *peer)
{
    descriptor_of(peer->world, peer->fd)->peer = NULL;
    peer->world->descriptors_in_use--;
    peer->is_gone = true;
    /* RFC 2525 2.17, as every kernel does: bytes that nobody read make the close a reset. */
    if (peer->to_socket.size > 0) {
        reset_peer(peer);
    }
}

/* End one op that the kernel still has, any of them. False: there is none. */
static bool end_one_op(struct io_fake_peer *peer)
{
    struct io_socket *socket = peer->socket;
    bool is_sending = socket->send_in_flight != 0;
    if (peer->is_connect_pending) {
        peer->is_connect_pending = false;
        io_op_finish(socket->io, &socket->connect_op);
        io_note_connected(socket, ECANCELED);
    } else if (peer->is_armed && (!is_sending || coin(peer->world))) {
        if (peer->arrived > 0 && coin(peer->world)) {
            (void)receive_block(peer); /* it was on the way before the cancel */
        }
        stop_receive(peer, ECANCELED);
    } else if (is_sending) {
        finish_send(peer, coin(peer->world) ? 0 : EPIPE);
    } else if (peer->is_error_watched) {
        peer->is_error_watched = false;
        io_op_finish(socket->io, &socket->error_op);
    } else {
        return false;
    }
    return true;
}

static void close_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    peer->is_close_due = false;
    check_peer(peer);
    if (end_one_op(peer)) {
        soon(peer, &peer->is_close_due, close_step);
        return;
    }
    struct io_socket *socket = peer->socket;
    peer->socket = NULL;
    release_descriptor(peer);
    io_note_closed(socket);
}

static void close_socket(struct io_socket *socket, bool is_reset)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(!peer->is_closing);
    peer->is_closing = true;
    peer->is_shut = true;
    if (peer->is_connected && is_reset) {
        reset_peer(peer);
    } else {
        soon(peer, &peer->is_deliver_due, deliver_step);
    }
    soon(peer, &peer->is_close_due, close_step);
}

static void discard(struct io *io, int fd)
{
    struct io_fake_peer *peer = descriptor_of(world_of(io), fd)->peer;
    CHECK(peer != NULL && peer->socket == NULL);
    peer->is_shut = true;
    reset_peer(peer);
    release_descriptor(peer);
}

/* ---- connecting ---- */

static struct service_entry *entry_of(struct world *world, const struct address *address)
{
    for (size_t i = 0; i < world->service_count; i++) {
        if (address_equal(&world->services[i].service.address, address)) {
            return &world->services[i];
        }
    }
    world->services =
        realloc(world->services, (world->service_count + 1) * sizeof(*world->services));
    CHECK(world->services != NULL);
    struct service_entry *entry = &world->services[world->service_count++];
    *entry = (struct service_entry){
        .service = {.address = *address, .outcome = IO_FAKE_REFUSE},
    };
    return entry;
}

static struct error open_socket(struct io *io, const struct address *remote,
                                const struct address *local, int *ret_fd)
{
    struct world *world = world_of(io);
    if (chance(world, world->faults.connect_limit_percent) || !is_descriptor_left(world)) {
        return error_make(ERROR_LIMIT, EMFILE);
    }
    struct address own = {.family = ADDRESS_IPV4, .ip = {10, 255, 0, 1}};
    if (local != NULL && local->family != ADDRESS_NONE) {
        own = *local;
    }
    if (own.port == 0) {
        own.port = (uint16_t)(EPHEMERAL_PORT_FIRST + world->peer_count % 30000);
    }
    struct io_fake_peer *peer = new_peer(world, remote, &own);
    peer->fd = new_descriptor(world, peer, NULL);
    world->descriptors_in_use++;
    *ret_fd = peer->fd;
    return OK;
}

static void connect_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    peer->is_connect_due = false;
    if (!peer->is_connect_pending) {
        return; /* closed meanwhile: the SYN is forgotten */
    }
    if (peer->is_closing) {
        return;
    }
    peer->is_connect_pending = false;
    io_op_finish(peer->socket->io, &peer->socket->connect_op);
    io_note_connected(peer->socket, peer->connect_error);
    if (peer->connect_error != 0) {
        peer->is_dead = true;
        return;
    }
    connected(peer);
    soon(peer, &peer->is_arrive_due, arrive_step);
    if (peer->has_reset_limit && peer->reset_limit == 0) {
        io_fake_reset(peer);
    }
}

static struct error connect_socket(struct io_socket *socket, const struct address *remote)
{
    struct world *world = world_of(socket->io);
    struct io_fake_peer *peer = descriptor_of(world, socket->fd)->peer;
    struct service_entry *entry = entry_of(world, remote);
    const struct io_fake_service *service = &entry->service;
    entry->connect_count++;
    peer->socket = socket;
    socket->driver_data = peer;
    peer->script = service->script;
    peer->owner = service->owner;
    peer->is_connect_pending = true;
    io_op_begin(socket->io, &socket->connect_op);
    switch (service->outcome) {
    case IO_FAKE_ACCEPT:
        break;
    case IO_FAKE_REFUSE:
        peer->connect_error = ECONNREFUSED;
        break;
    case IO_FAKE_UNREACHABLE:
        peer->connect_error = EHOSTUNREACH;
        break;
    case IO_FAKE_BLACKHOLE:
        return OK;
    case IO_FAKE_RESET:
        peer->has_reset_limit = true;
        peer->reset_limit = service->reset_after_bytes;
        break;
    }
    peer->is_connect_due = true;
    push_event(world, clock_add(service->delay_ns, latency(world)), connect_step, peer);
    return OK;
}

static struct error adopt(struct io_socket *socket)
{
    struct io_fake_peer *peer = descriptor_of(world_of(socket->io), socket->fd)->peer;
    CHECK(peer != NULL && peer->socket == NULL && peer->is_client);
    peer->socket = socket;
    socket->driver_data = peer;
    return OK;
}

static struct error address_of(const struct io_socket *socket, enum io_address_kind kind,
                               struct address *ret_address)
{
    const struct io_fake_peer *peer = peer_of(socket);
    switch (kind) {
    case IO_ADDRESS_LOCAL:
        *ret_address = peer->remote;
        return OK;
    case IO_ADDRESS_PEER:
        *ret_address = peer->address;
        return OK;
    case IO_ADDRESS_ORIGINAL:
        break;
    }
    if (peer->original.family == ADDRESS_NONE) {
        return error_make(ERROR_NOT_FOUND, 0);
    }
    *ret_address = peer->original;
    return OK;
}

/* ---- listeners ---- */

static void accept_step(void *argument);

static void accept_soon(struct fake_listener *fake)
{
    if (!fake->is_accept_due && fake->listener != NULL) {
        fake->is_accept_due = true;
        push_event(fake->world, latency(fake->world), accept_step, fake);
    }
}

static void stop_accept(struct fake_listener *fake, int error_number)
{
    fake->is_armed = false;
    fake->is_disarm_wanted = false;
    io_op_finish(fake->world->io, &fake->listener->accept_op);
    io_note_accept_stopped(fake->listener, error_number);
}

static void accept_one(struct fake_listener *fake)
{
    struct world *world = fake->world;
    if (!is_descriptor_left(world) || chance(world, world->faults.accept_limit_percent)) {
        stop_accept(fake, EMFILE);
        return;
    }
    struct io_fake_peer *peer = LIST_OWNER(list_take(&fake->backlog), struct io_fake_peer, backlog);
    fake->backlog_count--;
    peer->fd = new_descriptor(world, peer, NULL);
    world->descriptors_in_use++;
    io_note_accepted(fake->listener, peer->fd);
    if (chance(world, world->faults.accept_ended_percent)) {
        stop_accept(fake, 0);
    }
}

static void finish_listener(struct fake_listener *fake)
{
    struct list *node = NULL;
    while ((node = list_take(&fake->backlog)) != NULL) {
        struct io_fake_peer *peer = LIST_OWNER(node, struct io_fake_peer, backlog);
        peer->is_shut = true;
        peer->is_gone = true;
        reset_peer(peer);
    }
    struct io_listener *listener = fake->listener;
    fake->is_closed = true;
    fake->listener = NULL;
    io_note_listener_closed(listener);
}

static void accept_step(void *argument)
{
    struct fake_listener *fake = argument;
    fake->is_accept_due = false;
    if (fake->is_armed && !list_is_empty(&fake->backlog) &&
        (!fake->is_disarm_wanted || coin(fake->world))) {
        accept_one(fake);
    } else if (fake->is_armed && fake->is_disarm_wanted) {
        stop_accept(fake, ECANCELED);
    } else if (fake->is_closing && !fake->is_closed) {
        finish_listener(fake);
        return;
    }
    if (fake->is_disarm_wanted || fake->is_closing ||
        (fake->is_armed && !list_is_empty(&fake->backlog))) {
        accept_soon(fake);
    }
}

static void arm_listener(struct io_listener *listener)
{
    struct fake_listener *fake = descriptor_of(world_of(listener->io), listener->fd)->listener;
    CHECK(fake != NULL && !fake->is_armed && !fake->is_closing);
    CHECK(fake->listener == NULL || fake->listener == listener);
    fake->listener = listener;
    fake->is_armed = true;
    io_op_begin(listener->io, &listener->accept_op);
    accept_soon(fake);
}

static void disarm_listener(struct io_listener *listener)
{
    struct fake_listener *fake = descriptor_of(world_of(listener->io), listener->fd)->listener;
    CHECK(fake->is_armed && !fake->is_disarm_wanted);
    fake->is_disarm_wanted = true;
    accept_soon(fake);
}

static void close_listener(struct io_listener *listener)
{
    struct fake_listener *fake = descriptor_of(world_of(listener->io), listener->fd)->listener;
    CHECK(fake != NULL && !fake->is_closing);
    fake->listener = listener;
    fake->is_closing = true;
    fake->is_disarm_wanted = fake->is_armed;
    accept_soon(fake);
}

static struct fake_listener *listener_at(struct world *world, const struct address *address)
{
    for (size_t i = 0; i < world->descriptor_count; i++) {
        struct fake_listener *fake = world->descriptors[i].listener;
        if (fake != NULL && !fake->is_closing && address_equal(&fake->address, address)) {
            return fake;
        }
    }
    return NULL;
}

static void client_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    peer->is_connect_due = false;
    struct fake_listener *fake = listener_at(peer->world, &peer->wanted_listener);
    if (fake == NULL || fake->backlog_count == BACKLOG_MAX) {
        peer->is_dead = true;
        peer->is_gone = true;
        lose_to_socket(peer, 0);
        if (peer->script != NULL && peer->script->on_refused != NULL) {
            peer->script->on_refused(peer);
        }
        return;
    }
    list_append(&fake->backlog, &peer->backlog);
    fake->backlog_count++;
    accept_soon(fake);
    connected(peer);
    soon(peer, &peer->is_arrive_due, arrive_step);
}

int io_fake_listen(struct io *io, const struct address *address)
{
    struct world *world = world_of(io);
    CHECK(listener_at(world, address) == NULL);
    struct fake_listener *fake = calloc(1, sizeof(*fake));
    CHECK(fake != NULL);
    fake->world = world;
    fake->address = *address;
    list_init(&fake->backlog);
    return new_descriptor(world, NULL, fake);
}

struct io_fake_peer *io_fake_connect(struct io *io, const struct io_fake_client *client)
{
    struct world *world = world_of(io);
    struct io_fake_peer *peer = new_peer(world, &client->client, &client->listener);
    peer->original = client->original;
    peer->wanted_listener = client->listener;
    peer->script = client->script;
    peer->owner = client->owner;
    peer->is_client = true;
    soon(peer, &peer->is_connect_due, client_step);
    return peer;
}

/* ---- watches ---- */

static struct fake_watch *watch_of(struct world *world, int fd)
{
    for (size_t i = 0; i < world->watch_count; i++) {
        if (world->watches[i]->fd == fd) {
            return world->watches[i];
        }
    }
    world->watches = realloc(world->watches, (world->watch_count + 1) * sizeof(*world->watches));
    struct fake_watch *watch = calloc(1, sizeof(*watch));
    CHECK(world->watches != NULL && watch != NULL);
    watch->world = world;
    watch->fd = fd;
    list_init(&watch->packets);
    list_init(&watch->taken);
    world->watches[world->watch_count++] = watch;
    return watch;
}

static void watch_step(void *argument)
{
    struct fake_watch *fake = argument;
    bool is_readable = fake->is_readable || !list_is_empty(&fake->packets);
    if (is_readable && fake->watch != NULL && fake->watch->poll_op.is_in_kernel) {
        fake->is_readable = false;
        io_op_finish(fake->world->io, &fake->watch->poll_op);
        io_note_readable(fake->watch);
    }
}

static void arm_watch(struct io_watch *watch)
{
    struct fake_watch *fake = watch_of(world_of(watch->io), watch->fd);
    CHECK(fake->watch == NULL || fake->watch == watch);
    fake->watch = watch;
    io_op_begin(watch->io, &watch->poll_op);
    push_event(fake->world, latency(fake->world), watch_step, fake);
}

static void close_watch(struct io_watch *watch)
{
    struct fake_watch *fake = watch_of(world_of(watch->io), watch->fd);
    fake->watch = NULL;
    if (watch->poll_op.is_in_kernel) {
        io_op_finish(watch->io, &watch->poll_op);
    }
    io_note_watch_closed(watch);
}

void io_fake_make_readable(struct io *io, int fd)
{
    struct fake_watch *fake = watch_of(world_of(io), fd);
    fake->is_readable = true;
    push_event(fake->world, latency(fake->world), watch_step, fake);
}

/* ---- datagrams ---- */

static void free_packets(struct list *packets)
{
    struct list *node = NULL;
    while ((node = list_take(packets)) != NULL) {
        free(LIST_OWNER(node, struct fake_packet, link));
    }
}

static void packet_step(void *argument)
{
    struct fake_packet *packet = argument;
    struct world *world = packet->world;
    if (packet->to != NULL) {
        list_append(&packet->to->packets, &packet->link);
        watch_step(packet->to);
        return;
    }
    if (world->on_packet != NULL) {
        world->on_packet(world->io, &packet->packet, world->on_packet_argument);
    }
    free(packet);
}

/* Put a copy on its way, unless it gets lost; perhaps a second one too. */
static void send_packet(struct world *world, struct fake_watch *to, const struct io_packet *packet)
{
    uint32_t copies = 1;
    if (chance(world, world->faults.datagram_loss_percent)) {
        copies = coin(world) ? 0 : 2;
    }
    for (; copies > 0; copies--) {
        struct fake_packet *copy = malloc(sizeof(*copy) + packet->payload.size);
        CHECK(copy != NULL);
        *copy = (struct fake_packet){.world = world, .to = to, .packet = *packet};
        list_init(&copy->link);
        if (packet->payload.size > 0) {
            memcpy(copy->payload, packet->payload.data, packet->payload.size);
        }
        copy->packet.payload.data = copy->payload;
        push_event(world, latency(world), packet_step, copy);
    }
}

static uint32_t receive_datagrams(struct io_datagram *datagram, struct io_packet *packets)
{
    struct fake_watch *fake = watch_of(world_of(datagram->io), datagram->fd);
    CHECK(fake->is_datagram);
    free_packets(&fake->taken);
    uint32_t count = 0;
    for (; count < IO_PACKETS_A_TURN && !list_is_empty(&fake->packets); count++) {
        struct list *node = list_take(&fake->packets);
        list_append(&fake->taken, node);
        packets[count] = LIST_OWNER(node, struct fake_packet, link)->packet;
    }
    return count;
}

static struct error send_datagram(struct io_datagram *datagram, const struct address *peer,
                                  const struct address *local, struct bytes payload)
{
    struct world *world = world_of(datagram->io);
    const struct fake_watch *fake = watch_of(world, datagram->fd);
    CHECK(fake->is_datagram);
    if (payload.size > IO_PACKET_BYTES_MAX) {
        return error_make(ERROR_OS, EMSGSIZE);
    }
    struct io_packet packet = {.peer = *peer, .local = fake->local, .payload = payload};
    if (local != NULL) {
        packet.local = *local;
        packet.local.port = fake->local.port;
    }
    send_packet(world, NULL, &packet);
    return OK;
}

static void close_datagram(struct io_datagram *datagram)
{
    struct fake_watch *fake = watch_of(world_of(datagram->io), datagram->fd);
    free_packets(&fake->packets);
    fake->world->descriptors_in_use--;
}

int io_fake_datagram(struct io *io, const struct address *local)
{
    struct world *world = world_of(io);
    int fd = new_descriptor(world, NULL, NULL);
    struct fake_watch *fake = watch_of(world, fd);
    fake->is_datagram = true;
    fake->local = *local;
    world->descriptors_in_use++;
    return fd;
}

void io_fake_datagram_send(struct io *io, int fd, const struct address *peer,
                           const struct address *local, struct bytes payload)
{
    struct world *world = world_of(io);
    struct fake_watch *fake = watch_of(world, fd);
    CHECK(fake->is_datagram && payload.size <= IO_PACKET_BYTES_MAX);
    struct io_packet packet = {.peer = *peer, .local = *local, .payload = payload};
    send_packet(world, fake, &packet);
}

void io_fake_on_packet(struct io *io, io_fake_packet_fn on_packet, void *argument)
{
    world_of(io)->on_packet = on_packet;
    world_of(io)->on_packet_argument = argument;
}

/* ---- the turn ---- */

static struct error wait_fake(struct io *io, uint64_t wait_ns)
{
    struct world *world = world_of(io);
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
    uint64_t moment_ns = clock_add(first_ns, latency(world) / 2);
    if (moment_ns > until_ns) {
        moment_ns = until_ns;
    }
    for (uint32_t i = 0; i < io->options.completion_entries && world->event_count > 0 &&
                         world->events[0].due_ns <= moment_ns;
         i++) {
        struct event event = pop_event(world);
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
    return world_of(io)->now_ns;
}

/* Messages come from this thread: the same seed must give the same run. */
static void ring(struct io *io)
{
    world_of(io)->is_rung = true;
}

/* A rate for one kind of trouble: none for half of the seeds, else mild to heavy. */
static uint32_t choose_rate(struct world *world)
{
    static const uint32_t rates[] = {1, 5, 20, 50};
    return coin(world) ? 0 : rates[pick(world, sizeof(rates) / sizeof(rates[0]))];
}

static void choose_faults(struct world *world)
{
    struct io_fake_faults *faults = &world->faults;
    faults->buffer_bytes = CALM_BUFFER_BYTES;
    if (world->seed == 0) {
        return;
    }
    static const uint64_t latencies[] = {0, 50000, 1000000, 40000000};
    static const uint32_t buffers[] = {1 << 10, 7000, 64 << 10, CALM_BUFFER_BYTES};
    faults->latency_ns_max = latencies[pick(world, sizeof(latencies) / sizeof(latencies[0]))];
    faults->receive_short_percent = choose_rate(world);
    faults->receive_starved_percent = choose_rate(world);
    faults->receive_ended_percent = choose_rate(world);
    faults->send_short_percent = choose_rate(world);
    faults->send_whole_percent = coin(world) ? 100 : (uint32_t)pick(world, 100);
    faults->delivery_short_percent = choose_rate(world);
    faults->accept_limit_percent = choose_rate(world);
    faults->accept_ended_percent = choose_rate(world);
    faults->reset_loss_percent = choose_rate(world);
    faults->datagram_loss_percent = choose_rate(world);
    faults->buffer_bytes = buffers[pick(world, sizeof(buffers) / sizeof(buffers[0]))];
    faults->is_without_credit = coin(world);
}

static struct error open_fake(struct io *io, const struct io_options *options)
{
    struct world *world = calloc(1, sizeof(*world));
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
    struct world *world = world_of(io);
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
        if (world->events[i].run == packet_step) {
            free(world->events[i].argument); /* still on its way */
        }
    }
    for (size_t i = 0; i < world->watch_count; i++) {
        free_packets(&world->watches[i]->packets);
        free_packets(&world->watches[i]->taken);
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
    .socket = open_socket,
    .connect = connect_socket,
    .address = address_of,
    .adopt = adopt,
    .discard = discard,
    .receive_arm = arm_receive,
    .receive_disarm = disarm_receive,
    .send = start_send,
    .send_cancel = cancel_send,
    .send_end = end_send,
    .socket_close = close_socket,
    .error_watch = watch_for_error,
    .take_error = take_error,
    .listener_arm = arm_listener,
    .listener_disarm = disarm_listener,
    .listener_close = close_listener,
    .watch_arm = arm_watch,
    .watch_close = close_watch,
    .datagram_receive = receive_datagrams,
    .datagram_send = send_datagram,
    .datagram_close = close_datagram,
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
    return &world_of(io)->faults;
}

bool io_fake_run_until(struct io *io, bool (*is_done)(void *argument), void *argument,
                       uint64_t turns_max)
{
    const struct world *world = world_of(io);
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
    uint64_t until_ns = clock_add(world_of(io)->now_ns, span_ns);
    do {
        struct error error = io_turn(io, until_ns);
        CHECK(!error_is(error));
    } while (world_of(io)->now_ns < until_ns);
}

void io_fake_after(struct io *io, uint64_t delay_ns, void (*action)(void *argument), void *argument)
{
    push_event(world_of(io), delay_ns, action, argument);
}

uint64_t io_fake_random(struct io *io)
{
    return next_random(&world_of(io)->random_script);
}

const char *io_fake_finish(struct io *io)
{
    const struct world *world = world_of(io);
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
        check_peer(peer);
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
    struct world *world = world_of(io);
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
    entry_of(world_of(io), &service->address)->service = *service;
}

uint64_t io_fake_connect_count(const struct io *io, const struct address *address)
{
    return entry_of(world_of(io), address)->connect_count;
}

/* ---- the test's hands ---- */

void *io_fake_owner(const struct io_fake_peer *peer)
{
    return peer->owner;
}

void io_fake_set_owner(struct io_fake_peer *peer, void *owner)
{
    peer->owner = owner;
}

void io_fake_set_script(struct io_fake_peer *peer, const struct io_fake_script *script)
{
    peer->script = script;
}

struct io *io_fake_io(const struct io_fake_peer *peer)
{
    return peer->world->io;
}

const struct address *io_fake_address(const struct io_fake_peer *peer)
{
    return &peer->address;
}

const struct address *io_fake_remote_address(const struct io_fake_peer *peer)
{
    return &peer->remote;
}

void io_fake_send(struct io_fake_peer *peer, struct bytes bytes)
{
    if (peer->is_dead || peer->is_end_wanted || peer->is_reset_on_way) {
        return;
    }
    queue_append(&peer->to_socket, bytes.data, bytes.size);
    peer->script_sent += bytes.size;
    soon(peer, &peer->is_arrive_due, arrive_step);
}

void io_fake_send_end(struct io_fake_peer *peer)
{
    if (!peer->is_dead) {
        peer->is_end_wanted = true;
        soon(peer, &peer->is_arrive_due, arrive_step);
    }
}

void io_fake_reset(struct io_fake_peer *peer)
{
    if (peer->is_dead || !peer->is_connected) {
        return;
    }
    peer->is_dead = true;
    lose_to_peer(peer);
    lose_to_socket(peer, peer->arrived);
    soon(peer, &peer->is_reset_due, reset_step);
}

void io_fake_close(struct io_fake_peer *peer)
{
    io_fake_send_end(peer);
    peer->is_script_closed = true;
    soon(peer, &peer->is_deliver_due, deliver_step);
}

void io_fake_stop_reading(struct io_fake_peer *peer)
{
    peer->is_reading = false;
}

void io_fake_start_reading(struct io_fake_peer *peer)
{
    peer->is_reading = true;
    soon(peer, &peer->is_deliver_due, deliver_step);
}

struct bytes io_fake_received(const struct io_fake_peer *peer)
{
    const struct queue *kept = &peer->kept;
    return bytes_make(kept->data == NULL ? NULL : kept->data + kept->start, kept->size);
}

void io_fake_consume(struct io_fake_peer *peer, size_t size)
{
    queue_consume(&peer->kept, size);
}

uint64_t io_fake_received_bytes(const struct io_fake_peer *peer)
{
    return peer->delivered;
}

uint64_t io_fake_unsent_bytes(const struct io_fake_peer *peer)
{
    return peer->to_socket.size;
}

bool io_fake_is_connected(const struct io_fake_peer *peer)
{
    return peer->is_connected;
}

bool io_fake_has_ended(const struct io_fake_peer *peer)
{
    return peer->is_end_delivered;
}

bool io_fake_was_reset(const struct io_fake_peer *peer)
{
    return peer->was_reset;
}

bool io_fake_is_gone(const struct io_fake_peer *peer)
{
    return peer->is_gone;
}

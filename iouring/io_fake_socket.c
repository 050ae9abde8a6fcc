/*
 * The fake's driver for connections: sends, receives, closing, connecting of the code under test.
 * The rules that a kernel would keep are CHECKs here.
 */
#include <errno.h>
#include <string.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_fake.h"
#include "iouring/io_fake_world.h"

enum {
    EPHEMERAL_PORT_FIRST = 30000,
};

static struct io_fake_peer *peer_of(const struct io_socket *socket)
{
    struct io_fake_peer *peer = socket->driver_data;
    CHECK(peer != NULL && peer->socket == socket);
    return peer;
}

/* ---- sends ---- */

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
        CHECK(i < FAKE_SEND_SLICES_MAX);
        struct bytes slice = peer->sending[i];
        CHECK(buffer_slice(&peer->socket->send_queue, i)->data == slice.data);
        if (offset >= slice.size) {
            offset -= slice.size;
            continue;
        }
        size_t part = slice.size - offset < size ? slice.size - offset : size;
        fake_queue_append(&peer->to_peer, slice.data + offset, part);
        peer->socket_sent += part;
        peer->send_done += part;
        size -= part;
        offset = 0;
    }
}

void fake_send_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    struct fake_world *world = peer->world;
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
    size_t size = fake_part_of(world, world->faults.send_short_percent, left < room ? left : room);
    copy_queued(peer, peer->send_done, size);
    if (peer->send_done == peer->send_wanted || !peer->is_send_whole) {
        finish_send(peer, 0);
    } else {
        fake_soon(peer, &peer->is_send_due, fake_send_step);
    }
    fake_soon(peer, &peer->is_deliver_due, fake_deliver_step);
    fake_check_peer(peer);
}

void fake_start_send(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(socket->send_in_flight == 0 && socket->send_queue.size > 0);
    CHECK(!peer->is_shut && !peer->is_closing && !peer->is_connect_pending);
    peer->send_wanted = 0;
    for (uint32_t i = 0; i < socket->send_queue.count && i < FAKE_SEND_SLICES_MAX; i++) {
        const struct slice *slice = buffer_slice(&socket->send_queue, i);
        peer->sending[i] = bytes_make(slice->data, slice->size);
        peer->send_wanted += slice->size;
    }
    peer->is_send_whole = fake_chance(peer->world, peer->world->faults.send_whole_percent);
    socket->send_in_flight = 1;
    io_op_begin(socket->io, &socket->send_op);
    fake_soon(peer, &peer->is_send_due, fake_send_step);
}

void fake_cancel_send(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(socket->send_in_flight != 0);
    peer->is_send_cancelled = true;
    fake_soon(peer, &peer->is_send_due, fake_send_step);
}

void fake_end_send(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(socket->send_in_flight == 0 && socket->send_queue.size == 0 && !peer->is_shut);
    peer->is_shut = true;
    fake_soon(peer, &peer->is_deliver_due, fake_deliver_step);
}

/* ---- receives ---- */

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
    struct fake_world *world = peer->world;
    struct io_socket *socket = peer->socket;
    struct block *block = block_pool_take(socket->io->pool);
    if (block == NULL) {
        return false;
    }
    size_t size = peer->arrived < block->capacity ? peer->arrived : block->capacity;
    if (!world->faults.is_without_credit && size > peer->armed_credit) {
        size = (size_t)peer->armed_credit;
    }
    size = fake_part_of(world, world->faults.receive_short_percent, size);
    CHECK(size > 0);
    memcpy(block->data, peer->to_socket.data + peer->to_socket.start, size);
    fake_queue_consume(&peer->to_socket, size);
    peer->arrived -= size;
    peer->socket_taken += size;
    peer->armed_credit -= size < peer->armed_credit ? size : peer->armed_credit;
    io_note_received(socket, block, block->data, (uint32_t)size);
    fake_soon(peer, &peer->is_arrive_due, fake_arrive_step);
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

void fake_receive_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    struct fake_world *world = peer->world;
    peer->is_receive_due = false;
    if (!peer->is_armed) {
        return;
    }
    /* An empty ring refuses at once, with or without data (io-uring.md 6). */
    if (block_pool_available(peer->socket->io->pool) == 0 ||
        fake_chance(world, world->faults.receive_starved_percent)) {
        stop_receive(peer, ENOBUFS);
        return;
    }
    if (peer->is_disarm_wanted && (peer->arrived == 0 || fake_coin(world))) {
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
    } while (peer->arrived > 0 && (world->seed == 0 || fake_coin(world)));
    fake_check_peer(peer);
    if (fake_chance(world, world->faults.receive_ended_percent)) {
        stop_receive(peer, 0);
    } else if (peer->arrived > 0 || peer->is_end_arrived || peer->is_reset_arrived ||
               peer->is_disarm_wanted) {
        fake_soon(peer, &peer->is_receive_due, fake_receive_step);
    }
}

void fake_arm_receive(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(!peer->is_armed && socket->credit_bytes > 0);
    CHECK(!peer->is_closing && !peer->is_connect_pending);
    peer->is_armed = true;
    peer->armed_credit = socket->credit_bytes;
    io_op_begin(socket->io, &socket->receive_op);
    fake_soon(peer, &peer->is_receive_due, fake_receive_step);
}

void fake_disarm_receive(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(peer->is_armed && !peer->is_disarm_wanted);
    peer->is_disarm_wanted = true;
    fake_soon(peer, &peer->is_receive_due, fake_receive_step);
}

/* What is watched may have broken; or the watch ends by itself, as a multishot does. */
void fake_error_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    peer->is_error_due = false;
    if (!peer->is_error_watched || peer->is_closing) {
        return;
    }
    if (fake_chance(peer->world, peer->world->faults.receive_ended_percent)) {
        peer->is_error_watched = false;
        io_op_finish(peer->socket->io, &peer->socket->error_op);
        io_note_error_watch_stopped(peer->socket);
    } else if (peer->is_reset_arrived && !peer->is_error_taken) {
        io_note_error_seen(peer->socket);
    }
}

void fake_watch_for_error(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(!peer->is_error_watched && !peer->is_closing && !peer->is_connect_pending);
    peer->is_error_watched = true;
    io_op_begin(socket->io, &socket->error_op);
    fake_soon(peer, &peer->is_error_due, fake_error_step);
}

int fake_take_error(struct io_socket *socket)
{
    struct io_fake_peer *peer = peer_of(socket);
    bool is_left = peer->is_reset_arrived && !peer->is_error_taken;
    peer->is_error_taken |= is_left;
    return is_left ? ECONNRESET : 0;
}

bool fake_has_unread(const struct io_socket *socket)
{
    return peer_of(socket)->to_socket.size > 0;
}

/* ---- closing ---- */

static void release_descriptor(struct io_fake_peer *peer)
{
    fake_descriptor_of(peer->world, peer->fd)->peer = NULL;
    peer->world->descriptors_in_use--;
    peer->is_gone = true;
    /* RFC 2525 2.17, as every kernel does: bytes that nobody read make the close a reset. */
    if (peer->to_socket.size > 0) {
        fake_reset_peer(peer);
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
    } else if (peer->is_armed && (!is_sending || fake_coin(peer->world))) {
        if (peer->arrived > 0 && fake_coin(peer->world)) {
            (void)receive_block(peer); /* it was on the way before the cancel */
        }
        stop_receive(peer, ECANCELED);
    } else if (is_sending) {
        finish_send(peer, fake_coin(peer->world) ? 0 : EPIPE);
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
    fake_check_peer(peer);
    if (end_one_op(peer)) {
        fake_soon(peer, &peer->is_close_due, close_step);
        return;
    }
    struct io_socket *socket = peer->socket;
    peer->socket = NULL;
    release_descriptor(peer);
    io_note_closed(socket);
}

void fake_close_socket(struct io_socket *socket, bool is_reset)
{
    struct io_fake_peer *peer = peer_of(socket);
    CHECK(!peer->is_closing);
    peer->is_closing = true;
    peer->is_shut = true;
    if (peer->is_connected && is_reset) {
        fake_reset_peer(peer);
    } else {
        fake_soon(peer, &peer->is_deliver_due, fake_deliver_step);
    }
    fake_soon(peer, &peer->is_close_due, close_step);
}

void fake_discard(struct io *io, int fd)
{
    struct io_fake_peer *peer = fake_descriptor_of(fake_world_of(io), fd)->peer;
    CHECK(peer != NULL && peer->socket == NULL);
    peer->is_shut = true;
    fake_reset_peer(peer);
    release_descriptor(peer);
}

/* ---- connecting ---- */

struct error fake_open_socket(struct io *io, const struct address *remote,
                              const struct address *local, int *ret_fd)
{
    struct fake_world *world = fake_world_of(io);
    if (fake_chance(world, world->faults.connect_limit_percent) ||
        !fake_is_descriptor_left(world)) {
        return error_make(ERROR_LIMIT, EMFILE);
    }
    struct address own = {.family = ADDRESS_IPV4, .ip = {10, 255, 0, 1}};
    if (local != NULL && local->family != ADDRESS_NONE) {
        own = *local;
    }
    if (own.port == 0) {
        own.port = (uint16_t)(EPHEMERAL_PORT_FIRST + world->peer_count % 30000);
    }
    struct io_fake_peer *peer = fake_new_peer(world, remote, &own);
    peer->fd = fake_new_descriptor(world, peer, NULL);
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
    fake_connected(peer);
    fake_soon(peer, &peer->is_arrive_due, fake_arrive_step);
    if (peer->has_reset_limit && peer->reset_limit == 0) {
        io_fake_reset(peer);
    }
}

struct error fake_connect_socket(struct io_socket *socket, const struct address *remote)
{
    struct fake_world *world = fake_world_of(socket->io);
    struct io_fake_peer *peer = fake_descriptor_of(world, socket->fd)->peer;
    struct fake_service *entry = fake_entry_of(world, remote);
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
    fake_push_event(world, clock_add(service->delay_ns, fake_latency(world)), connect_step, peer);
    return OK;
}

struct error fake_adopt(struct io_socket *socket)
{
    struct io_fake_peer *peer = fake_descriptor_of(fake_world_of(socket->io), socket->fd)->peer;
    CHECK(peer != NULL && peer->socket == NULL && peer->is_client);
    peer->socket = socket;
    socket->driver_data = peer;
    return OK;
}

struct error fake_address_of(const struct io_socket *socket, enum io_address_kind kind,
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

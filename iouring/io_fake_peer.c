/*
 * A played peer: what goes through the network between it and the socket, and the test's hands on
 * it. The steps of a connection come in every order that a kernel may show; fake_check_peer has the
 * balance that all of them must keep.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_fake.h"
#include "iouring/io_fake_world.h"

/* ---- what every peer has ---- */

/* Let `step` of `peer` happen after a fake_latency, unless it is on its way already. */
void fake_soon(struct io_fake_peer *peer, bool *is_due, void (*step)(void *argument))
{
    if (!*is_due) {
        *is_due = true;
        fake_push_event(peer->world, fake_latency(peer->world), step, peer);
    }
}

void fake_check_peer(const struct io_fake_peer *peer)
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

struct io_fake_peer *fake_new_peer(struct fake_world *world, const struct address *address,
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
    fake_queue_consume(&peer->to_peer, peer->to_peer.size);
}

/* Lose what is towards the socket but for the first `kept` bytes. */
void fake_lose_to_socket(struct io_fake_peer *peer, size_t kept)
{
    size_t lost = peer->to_socket.size - kept;
    peer->to_socket_lost += lost;
    peer->to_socket.size -= lost;
    if (peer->arrived > kept) {
        peer->arrived = kept;
    }
}

void fake_connected(struct io_fake_peer *peer)
{
    peer->is_connected = true;
    if (peer->script != NULL && peer->script->on_connected != NULL) {
        peer->script->on_connected(peer);
    }
}

/* ---- ways through the network ---- */

/* The code under test's side answers with RST, or sends one. */
void fake_reset_peer(struct io_fake_peer *peer)
{
    if (peer->is_dead || peer->is_reset_on_way) {
        return;
    }
    peer->is_reset_on_way = true;
    fake_lose_to_socket(peer, 0);
    if (fake_chance(peer->world, peer->world->faults.reset_loss_percent)) {
        lose_to_peer(peer);
    }
    fake_soon(peer, &peer->is_deliver_due, fake_deliver_step);
}

/* The next bytes for the script. */
static void deliver_bytes(struct io_fake_peer *peer)
{
    struct fake_world *world = peer->world;
    size_t size = fake_part_of(world, world->faults.delivery_short_percent, peer->to_peer.size);
    if (peer->has_reset_limit && size > peer->reset_limit - peer->delivered) {
        size = (size_t)(peer->reset_limit - peer->delivered);
    }
    /* A copy: the script may reset the connection, which empties the queue. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, peer->to_peer.data + peer->to_peer.start, size);
    fake_queue_consume(&peer->to_peer, size);
    peer->delivered += size;
    if (peer->script != NULL && peer->script->on_data != NULL) {
        peer->script->on_data(peer, bytes_make(copy, size));
    } else {
        fake_queue_append(&peer->kept, copy, size);
    }
    free(copy);
    if (peer->has_reset_limit && peer->delivered >= peer->reset_limit) {
        io_fake_reset(peer);
    }
    if (peer->socket != NULL && peer->socket->send_in_flight != 0) {
        fake_soon(peer, &peer->is_send_due, fake_send_step);
    }
}

static void deliver_reset(struct io_fake_peer *peer)
{
    lose_to_peer(peer);
    fake_lose_to_socket(peer, 0);
    peer->is_dead = true;
    peer->was_reset = true;
    if (peer->script != NULL && peer->script->on_reset != NULL) {
        peer->script->on_reset(peer);
    }
}

void fake_deliver_step(void *argument)
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
    fake_check_peer(peer);
    fake_soon(peer, &peer->is_deliver_due, fake_deliver_step);
}

/* The script's bytes and its FIN reach the socket. */
void fake_arrive_step(void *argument)
{
    struct io_fake_peer *peer = argument;
    struct fake_world *world = peer->world;
    peer->is_arrive_due = false;
    if (!peer->is_connected || peer->is_dead || peer->is_end_arrived) {
        return;
    }
    size_t waiting = peer->to_socket.size - peer->arrived;
    if (peer->is_gone && waiting > 0) {
        fake_reset_peer(peer);
        return;
    }
    size_t room =
        world->faults.buffer_bytes > peer->arrived ? world->faults.buffer_bytes - peer->arrived : 0;
    size_t size =
        fake_part_of(world, world->faults.delivery_short_percent, waiting < room ? waiting : room);
    peer->arrived += size;
    bool is_all = peer->arrived == peer->to_socket.size;
    if (is_all && peer->is_end_wanted && (size == 0 || !fake_coin(world))) {
        peer->is_end_arrived = true;
    } else if (size > 0 && (!is_all || peer->is_end_wanted)) {
        fake_soon(peer, &peer->is_arrive_due, fake_arrive_step);
    }
    fake_soon(peer, &peer->is_receive_due, fake_receive_step);
    fake_check_peer(peer);
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
    if (fake_chance(peer->world, peer->world->faults.reset_loss_percent)) {
        fake_lose_to_socket(peer, 0);
    }
    fake_soon(peer, &peer->is_receive_due, fake_receive_step);
    fake_soon(peer, &peer->is_send_due, fake_send_step);
    fake_soon(peer, &peer->is_error_due, fake_error_step);
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
    fake_queue_append(&peer->to_socket, bytes.data, bytes.size);
    peer->script_sent += bytes.size;
    fake_soon(peer, &peer->is_arrive_due, fake_arrive_step);
}

void io_fake_send_end(struct io_fake_peer *peer)
{
    if (!peer->is_dead) {
        peer->is_end_wanted = true;
        fake_soon(peer, &peer->is_arrive_due, fake_arrive_step);
    }
}

void io_fake_reset(struct io_fake_peer *peer)
{
    if (peer->is_dead || !peer->is_connected) {
        return;
    }
    peer->is_dead = true;
    lose_to_peer(peer);
    fake_lose_to_socket(peer, peer->arrived);
    fake_soon(peer, &peer->is_reset_due, reset_step);
}

void io_fake_close(struct io_fake_peer *peer)
{
    io_fake_send_end(peer);
    peer->is_script_closed = true;
    fake_soon(peer, &peer->is_deliver_due, fake_deliver_step);
}

void io_fake_stop_reading(struct io_fake_peer *peer)
{
    peer->is_reading = false;
}

void io_fake_start_reading(struct io_fake_peer *peer)
{
    peer->is_reading = true;
    fake_soon(peer, &peer->is_deliver_due, fake_deliver_step);
}

struct bytes io_fake_received(const struct io_fake_peer *peer)
{
    const struct fake_queue *kept = &peer->kept;
    return bytes_make(kept->data == NULL ? NULL : kept->data + kept->start, kept->size);
}

void io_fake_consume(struct io_fake_peer *peer, size_t size)
{
    fake_queue_consume(&peer->kept, size);
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

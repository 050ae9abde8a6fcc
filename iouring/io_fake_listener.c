/*
 * The fake's driver for listeners, and the clients that connect to them.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_fake.h"
#include "iouring/io_fake_world.h"

enum {
    BACKLOG_MAX = 4096,
};

static void accept_step(void *argument);

/* ---- accepting ---- */

static void accept_soon(struct fake_listener *fake)
{
    if (!fake->is_accept_due && fake->listener != NULL) {
        fake->is_accept_due = true;
        fake_push_event(fake->world, fake_latency(fake->world), accept_step, fake);
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
    struct fake_world *world = fake->world;
    if (!fake_is_descriptor_left(world) || fake_chance(world, world->faults.accept_limit_percent)) {
        stop_accept(fake, EMFILE);
        return;
    }
    struct io_fake_peer *peer = LIST_OWNER(list_take(&fake->backlog), struct io_fake_peer, backlog);
    fake->backlog_count--;
    peer->fd = fake_new_descriptor(world, peer, NULL);
    world->descriptors_in_use++;
    io_note_accepted(fake->listener, peer->fd);
    if (fake_chance(world, world->faults.accept_ended_percent)) {
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
        fake_reset_peer(peer);
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
        (!fake->is_disarm_wanted || fake_coin(fake->world))) {
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

void fake_arm_listener(struct io_listener *listener)
{
    struct fake_listener *fake =
        fake_descriptor_of(fake_world_of(listener->io), listener->fd)->listener;
    CHECK(fake != NULL && !fake->is_armed && !fake->is_closing);
    CHECK(fake->listener == NULL || fake->listener == listener);
    fake->listener = listener;
    fake->is_armed = true;
    io_op_begin(listener->io, &listener->accept_op);
    accept_soon(fake);
}

void fake_disarm_listener(struct io_listener *listener)
{
    struct fake_listener *fake =
        fake_descriptor_of(fake_world_of(listener->io), listener->fd)->listener;
    CHECK(fake->is_armed && !fake->is_disarm_wanted);
    fake->is_disarm_wanted = true;
    accept_soon(fake);
}

void fake_close_listener(struct io_listener *listener)
{
    struct fake_listener *fake =
        fake_descriptor_of(fake_world_of(listener->io), listener->fd)->listener;
    CHECK(fake != NULL && !fake->is_closing);
    fake->listener = listener;
    fake->is_closing = true;
    fake->is_disarm_wanted = fake->is_armed;
    accept_soon(fake);
}

/* ---- clients of the code under test ---- */

static struct fake_listener *listener_at(struct fake_world *world, const struct address *address)
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
        fake_lose_to_socket(peer, 0);
        if (peer->script != NULL && peer->script->on_refused != NULL) {
            peer->script->on_refused(peer);
        }
        return;
    }
    list_append(&fake->backlog, &peer->backlog);
    fake->backlog_count++;
    accept_soon(fake);
    fake_connected(peer);
    fake_soon(peer, &peer->is_arrive_due, fake_arrive_step);
}

int io_fake_listen(struct io *io, const struct address *address)
{
    struct fake_world *world = fake_world_of(io);
    CHECK(listener_at(world, address) == NULL);
    struct fake_listener *fake = calloc(1, sizeof(*fake));
    CHECK(fake != NULL);
    fake->world = world;
    fake->address = *address;
    list_init(&fake->backlog);
    return fake_new_descriptor(world, NULL, fake);
}

struct io_fake_peer *io_fake_connect(struct io *io, const struct io_fake_client *client)
{
    struct fake_world *world = fake_world_of(io);
    struct io_fake_peer *peer = fake_new_peer(world, &client->client, &client->listener);
    peer->original = client->original;
    peer->wanted_listener = client->listener;
    peer->script = client->script;
    peer->owner = client->owner;
    peer->is_client = true;
    fake_soon(peer, &peer->is_connect_due, client_step);
    return peer;
}

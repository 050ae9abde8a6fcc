/*
 * The fake's driver for watched descriptors and datagrams.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_fake.h"
#include "iouring/io_fake_world.h"

/* ---- watches ---- */

static struct fake_watch *watch_of(struct fake_world *world, int fd)
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

void fake_arm_watch(struct io_watch *watch)
{
    struct fake_watch *fake = watch_of(fake_world_of(watch->io), watch->fd);
    CHECK(fake->watch == NULL || fake->watch == watch);
    fake->watch = watch;
    io_op_begin(watch->io, &watch->poll_op);
    fake_push_event(fake->world, fake_latency(fake->world), watch_step, fake);
}

void fake_close_watch(struct io_watch *watch)
{
    struct fake_watch *fake = watch_of(fake_world_of(watch->io), watch->fd);
    fake->watch = NULL;
    if (watch->poll_op.is_in_kernel) {
        io_op_finish(watch->io, &watch->poll_op);
    }
    io_note_watch_closed(watch);
}

void io_fake_make_readable(struct io *io, int fd)
{
    struct fake_watch *fake = watch_of(fake_world_of(io), fd);
    fake->is_readable = true;
    fake_push_event(fake->world, fake_latency(fake->world), watch_step, fake);
}

/* ---- datagrams ---- */

void fake_free_packets(struct list *packets)
{
    struct list *node = NULL;
    while ((node = list_take(packets)) != NULL) {
        free(LIST_OWNER(node, struct fake_packet, link));
    }
}

void fake_packet_step(void *argument)
{
    struct fake_packet *packet = argument;
    struct fake_world *world = packet->world;
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
static void send_packet(struct fake_world *world, struct fake_watch *to,
                        const struct io_packet *packet)
{
    uint32_t copies = 1;
    if (fake_chance(world, world->faults.datagram_loss_percent)) {
        copies = fake_coin(world) ? 0 : 2;
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
        fake_push_event(world, fake_latency(world), fake_packet_step, copy);
    }
}

uint32_t fake_receive_datagrams(struct io_datagram *datagram, struct io_packet *packets)
{
    struct fake_watch *fake = watch_of(fake_world_of(datagram->io), datagram->fd);
    CHECK(fake->is_datagram);
    fake_free_packets(&fake->taken);
    uint32_t count = 0;
    for (; count < IO_PACKETS_A_TURN && !list_is_empty(&fake->packets); count++) {
        struct list *node = list_take(&fake->packets);
        list_append(&fake->taken, node);
        packets[count] = LIST_OWNER(node, struct fake_packet, link)->packet;
    }
    return count;
}

struct error fake_send_datagram(struct io_datagram *datagram, const struct address *peer,
                                const struct address *local, struct bytes payload)
{
    struct fake_world *world = fake_world_of(datagram->io);
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

void fake_close_datagram(struct io_datagram *datagram)
{
    struct fake_watch *fake = watch_of(fake_world_of(datagram->io), datagram->fd);
    fake_free_packets(&fake->packets);
    fake->world->descriptors_in_use--;
}

int io_fake_datagram(struct io *io, const struct address *local)
{
    struct fake_world *world = fake_world_of(io);
    int fd = fake_new_descriptor(world, NULL, NULL);
    struct fake_watch *fake = watch_of(world, fd);
    fake->is_datagram = true;
    fake->local = *local;
    world->descriptors_in_use++;
    return fd;
}

void io_fake_datagram_send(struct io *io, int fd, const struct address *peer,
                           const struct address *local, struct bytes payload)
{
    struct fake_world *world = fake_world_of(io);
    struct fake_watch *fake = watch_of(world, fd);
    CHECK(fake->is_datagram && payload.size <= IO_PACKET_BYTES_MAX);
    struct io_packet packet = {.peer = *peer, .local = *local, .payload = payload};
    send_packet(world, fake, &packet);
}

void io_fake_on_packet(struct io *io, io_fake_packet_fn on_packet, void *argument)
{
    fake_world_of(io)->on_packet = on_packet;
    fake_world_of(io)->on_packet_argument = argument;
}

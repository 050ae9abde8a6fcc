/*
 * A connection that is received from shows a reset as the answer of the receive, behind the last
 * byte. One that is not is looked at here: when nothing was received from it for one to two ticks,
 * its driver is asked to tell of errors, and an error is then a failure at once, whatever bytes are
 * before it: their reader does not take them, and the other side waits to be told. Unless the owner
 * wants these bytes first.
 *
 * Not before, because a slow reader may still get all that came before the reset, and because a
 * bulk transfer is without credit many times a second: it never costs more here than two list
 * operations.
 */
#include "iouring/io_unread.h"

#include <errno.h>

#include "base/check.h"
#include "iouring/io_splice.h"

static bool is_received_from(const struct io_socket *socket)
{
    return socket->splice != NULL ? !io_splice_holds(socket) : socket->is_receive_armed;
}

/* An error was seen, and nobody will receive it. */
static void report(struct io_socket *socket)
{
    if (socket->is_tail_wanted && socket->io->driver->has_unread(socket)) {
        return; /* the receive that takes the last of it tells */
    }
    int number = socket->io->driver->take_error(socket);
    /* 0: a send that had gone in part took it. */
    io_note_failed(socket, number == 0 ? ECONNRESET : number);
}

/* Nothing was received for long enough. */
static void settle(struct io_socket *socket)
{
    const struct io_driver *driver = socket->io->driver;
    int number = io_splice_read_error(socket);
    CHECK(!socket->is_closing);
    if (error_is(socket->error) || is_received_from(socket)) {
        return;
    }
    socket->is_unread = true;
    if (number != 0) {
        io_note_failed(socket, number);
    } else if (socket->is_error_seen) {
        report(socket);
    } else if (driver->error_watch != NULL && !socket->error_op.is_in_kernel) {
        driver->error_watch(socket);
    }
}

static void on_tick(struct io_timer *timer);

static void start_timer(struct io *io, uint64_t span_ns)
{
    io_timer_start(io, &io->unread_timer, clock_add(io->now_ns, span_ns), on_tick);
}

static void on_tick(struct io_timer *timer)
{
    struct io *io = LIST_OWNER(timer, struct io, unread_timer);
    for (uint32_t i = 0; i < io->options.ready_max && !list_is_empty(&io->unread_old); i++) {
        settle(LIST_OWNER(list_take(&io->unread_old), struct io_socket, unread));
    }
    if (!list_is_empty(&io->unread_old)) {
        start_timer(io, 0); /* the rest in the next turn */
        return;
    }
    list_move_all(&io->unread_new, &io->unread_old);
    if (!list_is_empty(&io->unread_old)) {
        start_timer(io, IO_UNREAD_TICK_MS * CLOCK_NS_PER_MS);
    }
}

void io_unread_update(struct io_socket *socket)
{
    struct io *io = socket->io;
    if (is_received_from(socket)) {
        if (socket->is_unread || !list_is_empty(&socket->unread)) {
            io_unread_stop(socket);
        }
    } else if (!socket->is_unread && list_is_empty(&socket->unread)) {
        list_append(&io->unread_new, &socket->unread);
        if (!io_timer_is_running(&io->unread_timer)) {
            start_timer(io, IO_UNREAD_TICK_MS * CLOCK_NS_PER_MS);
        }
    }
}

void io_unread_stop(struct io_socket *socket)
{
    socket->is_unread = false;
    list_remove(&socket->unread);
}

void io_note_error_seen(struct io_socket *socket)
{
    if (socket->is_closing || error_is(socket->error)) {
        return;
    }
    socket->is_error_seen = true;
    if (socket->is_unread) {
        report(socket);
    }
}

void io_note_error_watch_stopped(struct io_socket *socket)
{
    if (!socket->is_closing) {
        io_unread_stop(socket);
        io_mark_dirty(socket);
    }
}

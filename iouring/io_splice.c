/*
 * splice(2) from socket to pipe to socket, both ends non-blocking, until neither moves.
 *
 * A pipe is held only while bytes are in it: between two steps of a pump that found nothing more to
 * read there is none, so a thousand streams need a few pipes. That matters because the kernel
 * limits the pages of all pipes of a user. Where no large enough pipe is to be had, and for streams
 * that turn into small messages, the pump goes back to moving blocks: splicing those costs more.
 */
#include "iouring/io_splice.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "iouring/io_os.h"
#include "iouring/io_unread.h"

enum {
    PIPE_BYTES = 256 << 10, /* also what a stalled reader can pin */
    STEP_BYTES = 1 << 20,   /* of one pump in one turn; then the others */
    PIPES_MAX = 64,         /* of a thread: 16 MiB, a quarter of what a user may have */
    SMALL_BYTES = 8 << 10,
    SMALL_STEPS_MAX = 8, /* steps in a row that moved less: no longer bulk */
};

struct io_splice {
    struct list ready;
    struct io_socket *from; /* borrowed */
    int pipe[2];            /* read end, write end; owned; -1 when none is held */
    uint64_t held;
    struct io_timer retry; /* the target lacks memory, and no event will tell */
    uint32_t small_steps;
    bool is_read_over; /* end, or `read_error` */
    int read_error;
};

/* ---- pipes ---- */

/* splice(2) has no MSG_NOSIGNAL: towards a peer that is gone it raises SIGPIPE in this thread
 * (reports_a_reset_through_a_pump_as_one). */
static void block_broken_pipe_signal(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

enum pipe_answer {
    PIPE_TAKEN,
    PIPE_NOT_NOW, /* too many streams have stalled */
    PIPE_REFUSED, /* by the kernel */
};

static enum pipe_answer take_pipe(struct io *io, struct io_splice *bulk)
{
    if (io->pipe_count > 0) {
        io->pipe_count--;
        bulk->pipe[0] = io->pipes[io->pipe_count][0];
        bulk->pipe[1] = io->pipes[io->pipe_count][1];
        return PIPE_TAKEN;
    }
    if (io->pipes_open >= PIPES_MAX) {
        return PIPE_NOT_NOW;
    }
    if (pipe2(bulk->pipe, O_NONBLOCK | O_CLOEXEC) != 0) {
        bulk->pipe[0] = bulk->pipe[1] = -1;
        return PIPE_REFUSED;
    }
    if (fcntl(bulk->pipe[1], F_SETPIPE_SZ, PIPE_BYTES) < PIPE_BYTES) {
        close(bulk->pipe[0]);
        close(bulk->pipe[1]);
        bulk->pipe[0] = bulk->pipe[1] = -1;
        return PIPE_REFUSED;
    }
    block_broken_pipe_signal();
    io->pipes_open++;
    return PIPE_TAKEN;
}

/* Only an empty pipe may be used again. */
static void put_pipe(struct io *io, struct io_splice *bulk)
{
    if (bulk->pipe[0] < 0) {
        return;
    }
    if (bulk->held == 0 && io->pipe_count < IO_PIPES_KEPT) {
        io->pipes[io->pipe_count][0] = bulk->pipe[0];
        io->pipes[io->pipe_count][1] = bulk->pipe[1];
        io->pipe_count++;
    } else {
        close(bulk->pipe[0]);
        close(bulk->pipe[1]);
        io->pipes_open--;
    }
    bulk->pipe[0] = bulk->pipe[1] = -1;
}

void io_splice_close_pipes(struct io *io)
{
    while (io->pipe_count > 0) {
        io->pipe_count--;
        io->pipes_open--;
        close(io->pipes[io->pipe_count][0]);
        close(io->pipes[io->pipe_count][1]);
    }
}

/* ---- one step ---- */

static bool is_target_open(const struct io_socket *to)
{
    return to->send_state == IO_DIRECTION_OPEN && !to->is_send_end_wanted;
}

/* Whether bytes came. */
static bool read_in(struct io_splice *bulk)
{
    struct io_socket *from = bulk->from;
    if (bulk->is_read_over || bulk->held >= PIPE_BYTES || !is_target_open(from->pump_to)) {
        return false;
    }
    ssize_t count = splice(from->fd, NULL, bulk->pipe[1], NULL, PIPE_BYTES - bulk->held,
                           SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (count > 0) {
        bulk->held += (uint64_t)count;
        from->received_bytes += (uint64_t)count;
        from->io->counters.received_bytes += (uint64_t)count;
        return true;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    bulk->is_read_over = true;
    bulk->read_error = count < 0 ? errno : io_os_is_end_a_reset(from) ? ECONNRESET : 0;
    return false;
}

/* Whether bytes went. */
static bool write_out(struct io_splice *bulk)
{
    struct io_socket *from = bulk->from;
    struct io_socket *to = from->pump_to;
    if (bulk->held == 0 || to->send_state != IO_DIRECTION_OPEN) {
        return false;
    }
    ssize_t count =
        splice(bulk->pipe[0], NULL, to->fd, NULL, bulk->held, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (count > 0) {
        bulk->held -= (uint64_t)count;
        to->sent_bytes += (uint64_t)count;
        to->io->counters.sent_bytes += (uint64_t)count;
        to->io->counters.spliced_bytes += (uint64_t)count;
        from->pumped_bytes += (uint64_t)count;
        return true;
    }
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
        io_note_failed(to, errno);
    }
    return false;
}

static uint64_t move(struct io_splice *bulk)
{
    uint64_t before = bulk->from->pumped_bytes;
    bool has_moved = true;
    while (has_moved && bulk->from->pumped_bytes - before < STEP_BYTES) {
        has_moved = read_in(bulk);
        has_moved |= write_out(bulk);
    }
    return bulk->from->pumped_bytes - before;
}

/* The pipe is empty and the source is over. */
static void report_end(struct io_socket *from, int error_number)
{
    if (error_number == 0) {
        io_note_receive_ended(from);
    } else {
        io_note_receive_stopped(from, error_number);
    }
}

/* Back to moving blocks, now or for good. */
static void leave(struct io_splice *bulk, bool is_refused)
{
    struct io_socket *from = bulk->from;
    from->is_splice_refused |= is_refused;
    from->bulk_bytes = 0;
    io_splice_stop(from);
    io_note_receive_stopped(from, 0); /* makes io.c grant again */
}

/* Nothing is held and nothing can be read now. */
static void rest(struct io_splice *bulk, uint64_t moved)
{
    struct io_socket *from = bulk->from;
    put_pipe(from->io, bulk);
    bulk->small_steps = moved < SMALL_BYTES ? bulk->small_steps + 1 : 0;
    if (bulk->small_steps >= SMALL_STEPS_MAX) {
        leave(bulk, false);
    } else {
        from->io->driver->poll(from, false);
    }
}

static void on_retry(struct io_timer *timer)
{
    io_splice_ready(LIST_OWNER(timer, struct io_splice, retry)->from);
}

/* Bytes are held that the target does not take now. */
static void wait_for_target(struct io_splice *bulk, struct io_socket *to)
{
    struct io *io = to->io;
    if (io_os_is_send_unannounced(to->fd)) {
        io_timer_start(io, &bulk->retry,
                       clock_add(io->now_ns, IO_OS_SEND_RETRY_MS * CLOCK_NS_PER_MS), on_retry);
    } else {
        io->driver->poll(to, true);
    }
}

static void step(struct io_splice *bulk)
{
    struct io_socket *from = bulk->from;
    struct io_socket *to = from->pump_to;
    enum pipe_answer answer = bulk->pipe[0] < 0 ? take_pipe(from->io, bulk) : PIPE_TAKEN;
    if (answer != PIPE_TAKEN) {
        leave(bulk, answer == PIPE_REFUSED);
        return;
    }
    uint64_t moved = move(bulk);
    if (moved > 0 || bulk->held == 0) {
        io_unread_stop(from);
    }
    if (to->send_state != IO_DIRECTION_OPEN) {
        io_splice_stop(from); /* its failure is on its way to the owner */
    } else if (moved >= STEP_BYTES) {
        io_splice_ready(from);
    } else if (bulk->held > 0) {
        wait_for_target(bulk, to);
        io_mark_dirty(from); /* which nothing is received from meanwhile */
    } else if (bulk->is_read_over) {
        int error_number = bulk->read_error;
        io_splice_stop(from);
        report_end(from, error_number);
    } else if (to->is_send_end_wanted) {
        io_splice_stop(from);
        io_mark_dirty(to);
    } else {
        rest(bulk, moved);
    }
}

/* ---- seen from io.c ---- */

static bool make_non_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && ((flags & O_NONBLOCK) != 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
}

bool io_splice_start(struct io_socket *from)
{
    CHECK(from->splice == NULL && from->pump_to != NULL);
    struct io_splice *bulk = calloc(1, sizeof(*bulk));
    if (bulk == NULL || !make_non_blocking(from->fd) || !make_non_blocking(from->pump_to->fd)) {
        free(bulk);
        from->is_splice_refused = true;
        return false;
    }
    bulk->from = from;
    bulk->pipe[0] = bulk->pipe[1] = -1;
    list_init(&bulk->ready);
    from->splice = bulk;
    io_splice_ready(from);
    return true;
}

void io_splice_stop(struct io_socket *from)
{
    struct io_splice *bulk = from->splice;
    if (bulk == NULL) {
        return;
    }
    put_pipe(from->io, bulk);
    list_remove(&bulk->ready);
    io_timer_stop(from->io, &bulk->retry);
    from->splice = NULL;
    free(bulk);
}

bool io_splice_holds(const struct io_socket *from)
{
    return from->splice != NULL && from->splice->held > 0;
}

int io_splice_read_error(const struct io_socket *from)
{
    return from->splice == NULL ? 0 : from->splice->read_error;
}

void io_splice_ready(struct io_socket *from)
{
    struct io_splice *bulk = from->splice;
    if (list_is_empty(&bulk->ready)) {
        list_append(&from->io->ready_splices, &bulk->ready);
    }
}

void io_splice_run(struct io *io)
{
    struct list ready;
    struct list *node = NULL;
    list_init(&ready);
    list_move_all(&io->ready_splices, &ready);
    while ((node = list_take(&ready)) != NULL) {
        step(LIST_OWNER(node, struct io_splice, ready));
    }
}

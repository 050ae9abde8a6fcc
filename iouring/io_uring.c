/*
 * One ring a thread: multishot accept and receive into a shared buffer ring, one send in flight for
 * a socket, one io_uring_enter a turn that submits everything and waits.
 *
 * Written against liburing 2.3, whose structs, prep helpers and barriers are used; publishing and
 * entering are our own, because its waiting calls hide when they enter. The notes "trap:" are
 * the measured pitfalls of the ring, each with the test of io_test.c (or io_uring_test.c) that
 * shows it.
 */
#include "iouring/io_uring.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "iouring/io_os.h"

enum {
    SEND_SLICES_MAX = 64,
    COMPLETIONS_A_TURN =
        256, /* so that timers and sends are not late where the kernel has no cap */
    BUFFER_GROUP = 0,
    SUBMISSION_ENTRIES_MIN = 64,
    COMPLETION_ENTRIES_MIN = 256,
    BUFFER_ENTRIES_MIN = 64,
    UNCAPPED_KERNEL_FACTOR = 8, /* completion entries where the kernel runs all that is ready */
    SUBMIT_TRIES_MAX = 1000,
    UNCHARGE_MS = 20,
};

/* What an op is; io_op.kind, never 0. */
enum op_kind {
    OP_RECEIVE = 1,
    OP_SEND,
    OP_CONNECT,
    OP_SOCKET_CANCEL,
    OP_CLOSE,
    OP_ACCEPT,
    OP_LISTENER_CANCEL,
    OP_POLL,
    OP_WATCH_CANCEL,
    OP_DOORBELL,
    OP_POLL_IN,
    OP_POLL_OUT,
    OP_POLL_ERROR,
};

/* What a submission points at until io_uring_enter has taken it; one for each submission entry. */
struct submission_memory {
    struct sockaddr_storage address;
    struct msghdr message;
    struct iovec vectors[SEND_SLICES_MAX];
};

struct uring {
    struct io_uring ring;
    bool is_ring_open;
    struct io_uring_buf_ring *buffers; /* owned: mapped, registered */
    size_t buffers_bytes;
    uint32_t buffer_entries;
    uint32_t buffers_lent; /* in the buffer ring now */
    struct submission_memory *memory;
    size_t memory_bytes;
    struct error fault; /* the ring can no longer be used */
    int doorbell_fd;
    uint64_t doorbell_value; /* written by the kernel */
    struct io_op doorbell_op;
    bool is_doorbell_armed;
    uint64_t recent_wait_ns; /* how long waits were lately; decides on spinning */
};

static struct uring *uring_of(const struct io *io)
{
    return io->driver_state;
}

/* ---- entering the kernel ---- */

static bool has_overflow(const struct uring *uring)
{
    return (IO_URING_READ_ONCE(*uring->ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0;
}

/*
 * Submit what is prepared, run the kernel's deferred work, wait for `wait_count` completions or
 * `wait_ns`. Returns 0 or an errno.
 */
static int enter(struct uring *uring, unsigned wait_count, uint64_t wait_ns)
{
    struct io_uring_sq *sq = &uring->ring.sq;
    sq->sqe_head = sq->sqe_tail;
    io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    unsigned to_submit = sq->sqe_tail - IO_URING_READ_ONCE(*sq->khead);

    struct __kernel_timespec timeout = {.tv_sec = (long long)(wait_ns / CLOCK_NS_PER_S),
                                        .tv_nsec = (long long)(wait_ns % CLOCK_NS_PER_S)};
    bool is_timed = wait_count > 0 && wait_ns != CLOCK_NEVER;
    struct io_uring_getevents_arg argument = {.sigmask_sz = _NSIG / 8,
                                              .ts = is_timed ? (uint64_t)(uintptr_t)&timeout : 0};
    /* trap: with DEFER_TASKRUN completions are only made inside an enter with GETEVENTS, so it is
     * set even when nothing is waited for (runs_timers_in_time_and_tasks_without_waiting). */
    int result = io_uring_enter2((unsigned)uring->ring.ring_fd, to_submit, wait_count,
                                 IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                                 (sigset_t *)(void *)&argument, sizeof(argument));
    return result >= 0 ? 0 : -result; /* liburing's answers are negative errnos: -1 is EPERM */
}

/* trap: these are ordinary answers; EBUSY: the kernel keeps completions that found no room
 * (loses_nothing_when_completions_overflow). */
static bool is_transient(int error_number)
{
    return error_number == 0 || error_number == EINTR || error_number == ETIME ||
           error_number == EAGAIN || error_number == EBUSY;
}

static void reap(struct io *io, uint32_t max);

/* A free submission entry; a full queue is flushed. NULL when the ring is beyond use. */
static struct io_uring_sqe *take_submission(struct io *io)
{
    struct uring *uring = uring_of(io);
    for (int i = 0; i < SUBMIT_TRIES_MAX && !error_is(uring->fault); i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
        if (sqe != NULL) {
            return sqe;
        }
        int error_number = enter(uring, 0, 0);
        if (error_number == EBUSY || error_number == EAGAIN) {
            reap(io, UINT32_MAX); /* makes room; completions only record, so here is as good */
        } else if (!is_transient(error_number)) {
            uring->fault = error_make(ERROR_OS, error_number);
        }
    }
    if (!error_is(uring->fault)) {
        uring->fault = error_make(ERROR_OS, EBUSY);
    }
    return NULL;
}

static struct submission_memory *memory_of(const struct uring *uring,
                                           const struct io_uring_sqe *sqe)
{
    return &uring->memory[sqe - uring->ring.sq.sqes];
}

/* The op's address is the completion's name; its owner is pinned until the last one came. */
static void submit(struct io *io, struct io_uring_sqe *sqe, struct io_op *op, enum op_kind kind)
{
    op->kind = (uint8_t)kind;
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)op);
    io_op_begin(io, op);
}

static void submit_for_socket(struct io_socket *socket, struct io_uring_sqe *sqe, struct io_op *op,
                              enum op_kind kind)
{
    submit(socket->io, sqe, op, kind);
    socket->ops_in_kernel++;
}

/* ---- lent buffers ---- */

/* Give the kernel every free block; one publication for all of them. */
static void publish_buffers(struct io *io)
{
    struct uring *uring = uring_of(io);
    int count = 0;
    int mask = io_uring_buf_ring_mask(uring->buffer_entries);
    while (uring->buffers_lent < uring->buffer_entries) {
        const struct block *block = block_pool_lend(io->pool);
        if (block == NULL) {
            break;
        }
        io_uring_buf_ring_add(uring->buffers, block->data, block->capacity, block->id, mask, count);
        uring->buffers_lent++;
        count++;
    }
    if (count > 0) {
        io_uring_buf_ring_advance(uring->buffers, count);
    }
}

static struct block *take_received(struct io *io, const struct io_uring_cqe *cqe)
{
    struct uring *uring = uring_of(io);
    uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    uring->buffers_lent--;
    return block_pool_receive(io->pool, id, cqe->res > 0 ? (uint32_t)cqe->res : 0);
}

/* ---- completions ---- */

static void on_receive(struct io *io, struct io_socket *socket, const struct io_uring_cqe *cqe)
{
    /* trap: a buffer id counts only with F_BUFFER; a result without bytes may still carry one
     * (serves_many_connections_with_four_blocks: an id taken twice stops the process). */
    if ((cqe->flags & IORING_CQE_F_BUFFER) != 0) {
        struct block *block = take_received(io, cqe);
        if (cqe->res > 0) {
            io_note_received(socket, block, block->data, (uint32_t)cqe->res);
        } else {
            block_unref(block);
        }
    }
    if ((cqe->flags & IORING_CQE_F_MORE) != 0) {
        return;
    }
    /* trap: a multishot may end with data in its last completion (credit, overflow):
     * receives_what_was_granted_and_no_more. ENOBUFS comes at once on an empty buffer ring, even
     * without data: io.c arms again only when blocks are back, a few at a time
     * (serves_many_connections_with_four_blocks). */
    io_op_finish(io, &socket->receive_op);
    if (cqe->res == 0 && !io_os_is_end_a_reset(socket)) {
        io_note_receive_ended(socket);
    } else if (cqe->res == 0) {
        /* trap: a send that has gone in part answers how much, and a reset that ended it is told to
         * nobody (shows_no_clean_end_when_a_waiting_send_is_reset). */
        io_note_receive_stopped(socket, ECONNRESET);
    } else {
        io_note_receive_stopped(socket, cqe->res > 0 ? 0 : -cqe->res);
    }
}

static void on_send(struct io *io, struct io_socket *socket, const struct io_uring_cqe *cqe)
{
    io_op_finish(io, &socket->send_op);
    socket->send_in_flight = 0;
    if (cqe->res >= 0) {
        /* trap: short even with MSG_WAITALL, at the latest when it was cancelled; what is left is
         * sent again (lets_a_reader_that_never_reads_cost_only_itself compares every byte). */
        io_note_sent(socket, (uint32_t)cqe->res);
        return;
    }
    switch (-cqe->res) {
    case ECANCELED:
    case EINTR:
    case EAGAIN:
        io_note_sent(socket, 0);
        break;
    default:
        io_note_failed(socket, -cqe->res);
    }
}

/*
 * trap: a poll wakes for a half-close, whether asked for or not, and a one-shot poll armed after it
 * would do nothing else; a multishot one tells every change and stays
 * (tells_a_reset_from_an_end_without_receiving).
 */
static void on_poll_error(struct io *io, struct io_socket *socket, const struct io_uring_cqe *cqe)
{
    if (cqe->res > 0 && (cqe->res & POLLERR) != 0) {
        io_note_error_seen(socket);
    }
    if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
        io_op_finish(io, &socket->error_op);
        io_note_error_watch_stopped(socket);
    }
}

static void on_socket_op(struct io *io, struct io_op *op, const struct io_uring_cqe *cqe)
{
    struct io_socket *socket = op->owner;
    bool is_last = (cqe->flags & IORING_CQE_F_MORE) == 0;
    CHECK(socket->ops_in_kernel > 0);
    socket->ops_in_kernel -= is_last;
    switch ((enum op_kind)op->kind) {
    case OP_RECEIVE:
        on_receive(io, socket, cqe);
        break;
    case OP_SEND:
        on_send(io, socket, cqe);
        break;
    case OP_CONNECT:
        io_op_finish(io, op);
        io_note_connected(socket, -cqe->res);
        break;
    case OP_SOCKET_CANCEL:
        /* trap: whatever a cancel answers, the end of its target is the target's own completion
         * (survives_closes_at_any_moment, keeps_its_books_through_random_churn). */
        io_op_finish(io, op);
        if (cqe->res == -EALREADY) {
            /* The target was busy with data: ask again, if it does not end by itself. */
            socket->is_receive_disarming = false;
            socket->is_unlend_wanted &= !socket->send_op.is_in_kernel;
            io_mark_dirty(socket);
        }
        break;
    case OP_CLOSE:
        io_op_finish(io, op);
        io_note_closed(socket);
        return;
    case OP_POLL_IN:
    case OP_POLL_OUT:
        io_op_finish(io, op);
        io_note_pollable(socket, op->kind == OP_POLL_OUT);
        break;
    case OP_POLL_ERROR:
        on_poll_error(io, socket, cqe);
        break;
    case OP_ACCEPT:
    case OP_LISTENER_CANCEL:
    case OP_POLL:
    case OP_WATCH_CANCEL:
    case OP_DOORBELL:
        CHECK(false);
    }
    /* Closing goes on in the flush, socket_close_more; an earlier cancel may have been in its way
     * (aborts_while_a_send_is_being_cancelled). */
    if (socket->is_closing && (socket->ops_in_kernel == 0 || op->kind == OP_SOCKET_CANCEL)) {
        io_mark_dirty(socket);
    }
}

static void finish_listener(struct io_listener *listener)
{
    if (listener->is_close_started && !listener->accept_op.is_in_kernel &&
        !listener->cancel_op.is_in_kernel) {
        close(listener->fd);
        io_note_listener_closed(listener);
    }
}

static void on_listener_op(struct io *io, struct io_op *op, const struct io_uring_cqe *cqe)
{
    struct io_listener *listener = op->owner;
    if (op->kind == OP_LISTENER_CANCEL) {
        io_op_finish(io, op);
        finish_listener(listener);
        return;
    }
    if (cqe->res >= 0) {
        io_note_accepted(listener, cqe->res);
    }
    if ((cqe->flags & IORING_CQE_F_MORE) != 0) {
        return;
    }
    /* trap: a multishot accept ends in silence on EMFILE, on overflow and on one bad connection
     * (accepts_again_after_descriptors_ran_out). */
    io_op_finish(io, op);
    io_note_accept_stopped(listener, cqe->res >= 0 ? 0 : -cqe->res);
    finish_listener(listener);
}

static void on_watch_op(struct io *io, struct io_op *op, const struct io_uring_cqe *cqe)
{
    struct io_watch *watch = op->owner;
    io_op_finish(io, op);
    if (op->kind == OP_POLL && cqe->res != -ECANCELED) {
        io_note_readable(watch);
    }
    if (watch->is_close_started && !watch->poll_op.is_in_kernel && !watch->cancel_op.is_in_kernel) {
        io_note_watch_closed(watch);
    }
}

static void dispatch(struct io *io, const struct io_uring_cqe *cqe)
{
    struct io_op *op = (struct io_op *)(uintptr_t)cqe->user_data;
    io->counters.completions++;
    switch ((enum op_kind)op->kind) {
    case OP_RECEIVE:
    case OP_SEND:
    case OP_CONNECT:
    case OP_SOCKET_CANCEL:
    case OP_CLOSE:
    case OP_POLL_IN:
    case OP_POLL_OUT:
    case OP_POLL_ERROR:
        on_socket_op(io, op, cqe);
        break;
    case OP_ACCEPT:
    case OP_LISTENER_CANCEL:
        on_listener_op(io, op, cqe);
        break;
    case OP_POLL:
    case OP_WATCH_CANCEL:
        on_watch_op(io, op, cqe);
        break;
    case OP_DOORBELL:
        uring_of(io)->is_doorbell_armed = false;
        break;
    }
}

static void reap(struct io *io, uint32_t max)
{
    struct io_uring *ring = &uring_of(io)->ring;
    unsigned head = *ring->cq.khead;
    for (; max > 0 && head != io_uring_smp_load_acquire(ring->cq.ktail); max--) {
        struct io_uring_cqe cqe = ring->cq.cqes[head & ring->cq.ring_mask];
        io_uring_smp_store_release(ring->cq.khead, ++head);
        dispatch(io, &cqe);
    }
}

/* ---- a turn ---- */

static void arm_doorbell(struct io *io)
{
    struct uring *uring = uring_of(io);
    if (uring->is_doorbell_armed) {
        return;
    }
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_read(sqe, uring->doorbell_fd, &uring->doorbell_value,
                       sizeof(uring->doorbell_value), 0);
    uring->doorbell_op.kind = OP_DOORBELL;
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)&uring->doorbell_op);
    uring->is_doorbell_armed = true;
}

/*
 * Watch for work without sleeping, at most options.spin_ns: the sleep and the wake-up cost more
 * than that when the next event is near. Only where waits were short lately.
 */
static bool spin(struct io *io)
{
    struct uring *uring = uring_of(io);
    uint64_t start_ns = io_os_now(io);
    do {
        unsigned flags = IO_URING_READ_ONCE(*uring->ring.sq.kflags);
        if ((flags & IORING_SQ_TASKRUN) != 0 || io_uring_cq_ready(&uring->ring) > 0) {
            return true;
        }
    } while (io_os_now(io) - start_ns < io->options.spin_ns);
    return false;
}

static struct error wait_for_events(struct io *io, uint64_t wait_ns)
{
    struct uring *uring = uring_of(io);
    arm_doorbell(io);
    publish_buffers(io);
    if (has_overflow(uring)) {
        /* trap: completions that found no room wait in the kernel; an enter brings them, and the
         * multishots among them have ended. Nothing is lost, but sleeping now would be wrong
         * (loses_nothing_when_completions_overflow). */
        io->counters.completion_overflows++;
        wait_ns = 0;
    }
    bool is_wait = wait_ns > 0 && io_uring_cq_ready(&uring->ring) == 0;
    int error_number = 0;
    if (is_wait && io->options.spin_ns > 0) {
        uint64_t start_ns = io_os_now(io);
        error_number = enter(uring, 0, 0);
        if (is_transient(error_number) && io_uring_cq_ready(&uring->ring) == 0) {
            bool is_found = uring->recent_wait_ns < io->options.spin_ns && spin(io);
            error_number = enter(uring, is_found ? 0 : 1, wait_ns);
        }
        uint64_t waited_ns = io_os_now(io) - start_ns;
        uring->recent_wait_ns += waited_ns / 8 - uring->recent_wait_ns / 8;
    } else {
        error_number = enter(uring, is_wait ? 1 : 0, wait_ns);
    }
    if (!is_transient(error_number)) {
        uring->fault = error_make(ERROR_OS, error_number);
    }
    reap(io, COMPLETIONS_A_TURN);
    return uring->fault;
}

static void ring_doorbell(struct io *io)
{
    uint64_t one = 1;
    /* EAGAIN: the counter is full, so the bell is ringing already. */
    ssize_t written = write(uring_of(io)->doorbell_fd, &one, sizeof(one));
    (void)written;
}

/* ---- sockets ---- */

static struct error connect_socket(struct io_socket *socket, const struct address *remote)
{
    struct io *io = socket->io;
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return uring_of(io)->fault;
    }
    struct submission_memory *memory = memory_of(uring_of(io), sqe);
    socklen_t size = address_to_sockaddr(remote, &memory->address);
    io_uring_prep_connect(sqe, socket->fd, (const struct sockaddr *)&memory->address, size);
    submit_for_socket(socket, sqe, &socket->connect_op, OP_CONNECT);
    return OK;
}

/*
 * Since 6.17: the receive ends by itself after so many bytes in all (the field is called optlen),
 * with at most so many at a time. The last block may overrun the first, not the second.
 */
static void set_credit(struct io_uring_sqe *sqe, uint64_t credit, uint32_t block_bytes)
{
    sqe->file_index = credit < INT32_MAX ? (uint32_t)credit : INT32_MAX;
    sqe->len = credit < block_bytes ? (uint32_t)credit : 0;
}

static void arm_receive(struct io_socket *socket)
{
    struct io *io = socket->io;
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_recv_multishot(sqe, socket->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    if (io->has_kernel_credit) {
        set_credit(sqe, socket->credit_bytes, io->options.block_bytes);
    }
    submit_for_socket(socket, sqe, &socket->receive_op, OP_RECEIVE);
}

/* Ask for the end of one op. False when that cannot be asked now. */
static bool cancel_op(struct io_socket *socket, const struct io_op *op)
{
    if (socket->cancel_op.is_in_kernel || !op->is_in_kernel) {
        return false;
    }
    struct io_uring_sqe *sqe = take_submission(socket->io);
    if (sqe == NULL) {
        return false;
    }
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
    submit_for_socket(socket, sqe, &socket->cancel_op, OP_SOCKET_CANCEL);
    return true;
}

static void disarm_receive(struct io_socket *socket)
{
    if (!cancel_op(socket, &socket->receive_op)) {
        socket->is_receive_disarming = false; /* io.c asks again when more has come */
    }
}

static void cancel_send(struct io_socket *socket)
{
    if (!cancel_op(socket, &socket->send_op)) {
        socket->is_unlend_wanted = false; /* io.c asks again while blocks are scarce */
    }
}

static void send_queued(struct io_socket *socket)
{
    struct io *io = socket->io;
    struct buffer *queue = &socket->send_queue;
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return;
    }
    int flags = MSG_WAITALL | MSG_NOSIGNAL;
    uint32_t size = 0;
    if (queue->count == 1) {
        const struct slice *slice = buffer_slice(queue, 0);
        size = slice->size;
        io_uring_prep_send(sqe, socket->fd, slice->data, size, flags);
    } else {
        struct submission_memory *memory = memory_of(uring_of(io), sqe);
        uint32_t count = queue->count < SEND_SLICES_MAX ? queue->count : SEND_SLICES_MAX;
        for (uint32_t i = 0; i < count; i++) {
            const struct slice *slice = buffer_slice(queue, i);
            memory->vectors[i] = (struct iovec){slice->data, slice->size};
            size += slice->size;
        }
        memory->message = (struct msghdr){.msg_iov = memory->vectors, .msg_iovlen = count};
        io_uring_prep_sendmsg(sqe, socket->fd, &memory->message, (unsigned)flags);
    }
    socket->send_in_flight = size;
    submit_for_socket(socket, sqe, &socket->send_op, OP_SEND);
}

static void poll_socket(struct io_socket *socket, bool is_out)
{
    struct io_op *op = is_out ? &socket->poll_out_op : &socket->poll_in_op;
    struct io_uring_sqe *sqe = op->is_in_kernel ? NULL : take_submission(socket->io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_poll_add(sqe, socket->fd, is_out ? POLLOUT : POLLIN);
    submit_for_socket(socket, sqe, op, is_out ? OP_POLL_OUT : OP_POLL_IN);
}

static void watch_for_error(struct io_socket *socket)
{
    struct io_uring_sqe *sqe = take_submission(socket->io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_poll_multishot(sqe, socket->fd, 0); /* errors come unasked */
    submit_for_socket(socket, sqe, &socket->error_op, OP_POLL_ERROR);
}

static void end_sending(struct io_socket *socket)
{
    /* Not OP_SHUTDOWN, which goes through a kernel thread. ENOTCONN: the peer was first. */
    (void)shutdown(socket->fd, SHUT_WR);
}

static void submit_close(struct io_socket *socket)
{
    struct io_uring_sqe *sqe = take_submission(socket->io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_close(sqe, socket->fd);
    submit_for_socket(socket, sqe, &socket->close_op, OP_CLOSE);
}

/*
 * trap: closing a descriptor ends no op: each holds the file, and its completion would come for an
 * owner that is gone. So: shut down, cancel, wait for every last completion, and only then close
 * (waits_for_the_kernel_before_it_reports_closed).
 */
static void close_socket_more(struct io_socket *socket)
{
    if (socket->close_op.is_in_kernel) {
        return;
    }
    if (socket->ops_in_kernel == 0) {
        submit_close(socket);
        return;
    }
    if (socket->cancel_op.is_in_kernel || socket->is_cancel_sent) {
        return;
    }
    struct io_uring_sqe *sqe = take_submission(socket->io);
    if (sqe == NULL) {
        return;
    }
    socket->is_cancel_sent = true;
    io_uring_prep_cancel_fd(sqe, socket->fd, IORING_ASYNC_CANCEL_ALL);
    submit_for_socket(socket, sqe, &socket->cancel_op, OP_SOCKET_CANCEL);
}

static void close_socket(struct io_socket *socket, bool is_reset)
{
    if (is_reset || socket->ops_in_kernel > 0) {
        io_os_shut_down(socket->fd, is_reset);
    }
    close_socket_more(socket);
}

/* ---- listeners and watches ---- */

static void arm_listener(struct io_listener *listener)
{
    struct io *io = listener->io;
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_multishot_accept(sqe, listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    submit(io, sqe, &listener->accept_op, OP_ACCEPT);
}

static void disarm_listener(struct io_listener *listener)
{
    struct io *io = listener->io;
    if (!listener->accept_op.is_in_kernel || listener->cancel_op.is_in_kernel) {
        return;
    }
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)&listener->accept_op, 0);
    submit(io, sqe, &listener->cancel_op, OP_LISTENER_CANCEL);
}

static void close_listener(struct io_listener *listener)
{
    disarm_listener(listener);
    finish_listener(listener);
}

static void arm_watch(struct io_watch *watch)
{
    struct io *io = watch->io;
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_poll_add(sqe, watch->fd, POLLIN);
    submit(io, sqe, &watch->poll_op, OP_POLL);
}

static void close_watch(struct io_watch *watch)
{
    struct io *io = watch->io;
    if (!watch->poll_op.is_in_kernel) {
        io_note_watch_closed(watch);
        return;
    }
    struct io_uring_sqe *sqe = take_submission(io);
    if (sqe == NULL) {
        return;
    }
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)&watch->poll_op, 0);
    submit(io, sqe, &watch->cancel_op, OP_WATCH_CANCEL);
}

/* ---- setting up ---- */

/* Best first. Without any of them every completion interrupts the thread: +40 % CPU. */
static const unsigned task_flags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* 6.1 */
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,  /* 6.0 */
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                               /* 5.19 */
};

/* Since 6.14 the kernel makes at most 20 requests' completions an enter, and counts the rings as
 * locked memory; before, all that is ready comes at once and memory does not count. */
static bool has_completion_cap(void)
{
    struct utsname name;
    unsigned major = 0;
    unsigned minor = 0;
    if (uname(&name) != 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2) {
        return true;
    }
    return major > 6 || (major == 6 && minor >= 14);
}

static int open_ring(struct uring *uring, uint32_t submissions, uint32_t completions)
{
    int result = -EINVAL;
    for (size_t i = 0; i < sizeof(task_flags) / sizeof(task_flags[0]) && result == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags =
                task_flags[i] | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
            .cq_entries = completions,
        };
        result = io_uring_queue_init_params(submissions, &uring->ring, &params);
    }
    if (result < 0) {
        return -result;
    }
    uring->is_ring_open = true;
    unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG;
    return (uring->ring.features & needed) == needed ? 0 : ENOSYS;
}

static int open_buffers(struct uring *uring, uint32_t entries)
{
    size_t bytes = entries * sizeof(struct io_uring_buf);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return ENOMEM;
    }
    uring->buffers = memory;
    uring->buffers_bytes = bytes;
    uring->buffer_entries = entries;
    io_uring_buf_ring_init(uring->buffers);
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)memory, .ring_entries = entries, .bgid = BUFFER_GROUP};
    return -io_uring_register_buf_ring(&uring->ring, &registration, 0);
}

static void close_ring(struct uring *uring)
{
    if (uring->is_ring_open) {
        io_uring_queue_exit(&uring->ring);
        uring->is_ring_open = false;
    }
    if (uring->buffers != NULL) {
        munmap(uring->buffers, uring->buffers_bytes);
        uring->buffers = NULL;
    }
}

/* trap: rings count as locked memory for the user over the whole node; half of it may still fit
 * (takes_a_smaller_ring_when_locked_memory_is_short). */
static int open_ring_that_fits(struct uring *uring, const struct io_options *options)
{
    uint32_t submissions = options->submission_entries;
    uint32_t completions =
        options->completion_entries * (has_completion_cap() ? 1 : UNCAPPED_KERNEL_FACTOR);
    uint32_t buffers = options->block_count;
    for (;;) {
        int error_number = open_ring(uring, submissions, completions);
        if (error_number == 0) {
            error_number = open_buffers(uring, buffers);
        }
        if (error_number == 0) {
            return 0;
        }
        close_ring(uring);
        if (error_number != ENOMEM ||
            (submissions <= SUBMISSION_ENTRIES_MIN && completions <= COMPLETION_ENTRIES_MIN)) {
            return error_number;
        }
        /* The kernel uncharges a closed ring a little later. */
        struct timespec pause = {.tv_nsec = UNCHARGE_MS * (long)CLOCK_NS_PER_MS};
        (void)nanosleep(&pause, NULL);
        submissions = submissions > SUBMISSION_ENTRIES_MIN ? submissions / 2 : submissions;
        completions = completions > COMPLETION_ENTRIES_MIN ? completions / 2 : completions;
        buffers = buffers > BUFFER_ENTRIES_MIN ? buffers / 2 : buffers;
    }
}

enum {
    SELF_TEST_SENT = 6,
    SELF_TEST_CREDIT = 3,
};

/*
 * Receive through the ring, once, from one end of a socket pair: the only proof that multishot
 * receive, buffer rings and the credit field work here. Returns 0 or an errno.
 */
static int receive_once(struct io *io, int fd, uint32_t credit, struct io_uring_cqe *ret_cqe)
{
    struct uring *uring = uring_of(io);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    CHECK(sqe != NULL);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    if (credit > 0) {
        set_credit(sqe, credit, io->options.block_bytes);
    }
    io_uring_sqe_set_data64(sqe, 0);
    publish_buffers(io);
    bool is_first = true;
    for (int i = 0; i < SELF_TEST_SENT; i++) {
        int error_number = enter(uring, 1, CLOCK_NS_PER_S);
        if (error_number != 0 && error_number != EINTR) {
            return error_number;
        }
        struct io_uring_cqe *cqe = NULL;
        while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
            struct io_uring_cqe copy = *cqe;
            io_uring_cqe_seen(&uring->ring, cqe);
            if ((copy.flags & IORING_CQE_F_BUFFER) != 0) {
                block_unref(take_received(io, &copy));
            }
            if (is_first) {
                *ret_cqe = copy;
            }
            is_first = false;
            if ((copy.flags & IORING_CQE_F_MORE) == 0) {
                return 0;
            }
            /* Bring a receive without credit to its end. */
            (void)shutdown(fd, SHUT_RD);
        }
    }
    return ETIME;
}

static int self_test_pair(struct io *io, const int pair[2])
{
    if (write(pair[1], "credit", SELF_TEST_SENT) != SELF_TEST_SENT) {
        return errno;
    }
    struct io_uring_cqe cqe = {0};
    int error_number = receive_once(io, pair[0], SELF_TEST_CREDIT, &cqe);
    if (error_number != 0) {
        return error_number;
    }
    if (cqe.res == SELF_TEST_CREDIT && (cqe.flags & IORING_CQE_F_MORE) == 0) {
        io->has_kernel_credit = true;
        return 0;
    }
    error_number = receive_once(io, pair[0], 0, &cqe);
    if (error_number != 0) {
        return error_number;
    }
    return cqe.res == SELF_TEST_SENT ? 0 : ENOSYS;
}

static int self_test(struct io *io)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return errno;
    }
    int error_number = self_test_pair(io, pair);
    close(pair[0]);
    close(pair[1]);
    return error_number;
}

static void close_driver(struct io *io)
{
    struct uring *uring = uring_of(io);
    /* The doorbell's read writes into our memory: let it end before that goes. */
    for (int i = 0; i < SUBMIT_TRIES_MAX && uring->is_doorbell_armed; i++) {
        ring_doorbell(io);
        (void)enter(uring, 1, CLOCK_NS_PER_MS);
        reap(io, COMPLETIONS_A_TURN);
    }
    close_ring(uring);
    if (uring->doorbell_fd >= 0) {
        close(uring->doorbell_fd);
    }
    if (uring->memory != NULL) {
        munmap(uring->memory, uring->memory_bytes);
    }
    free(uring);
    io->driver_state = NULL;
}

static int open_parts(struct io *io, const struct io_options *options)
{
    struct uring *uring = uring_of(io);
    int error_number = open_ring_that_fits(uring, options);
    if (error_number != 0) {
        return error_number;
    }
    uring->doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (uring->doorbell_fd < 0) {
        return errno;
    }
    /* Mapped, not allocated: most of it is never touched. */
    uring->memory_bytes = uring->ring.sq.ring_entries * sizeof(*uring->memory);
    void *memory = mmap(NULL, uring->memory_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return ENOMEM;
    }
    uring->memory = memory;
    return self_test(io);
}

static struct error open_driver(struct io *io, const struct io_options *options)
{
    struct uring *uring = calloc(1, sizeof(*uring));
    if (uring == NULL) {
        return error_make(ERROR_NO_MEMORY, ENOMEM);
    }
    uring->doorbell_fd = -1;
    io->driver_state = uring;
    int error_number = open_parts(io, options);
    if (error_number == 0) {
        return OK;
    }
    close_driver(io);
    switch (error_number) {
    case ENOMEM:
        return error_make(ERROR_NO_MEMORY, error_number);
    case EPERM:
    case EACCES:
    case ENOSYS:
    case EINVAL:
    case EOPNOTSUPP:
        return error_make(ERROR_UNSUPPORTED, error_number);
    default:
        return error_from_errno(error_number);
    }
}

/* The switch is there where the kernel has io_uring (Linux 6.6 or newer): its value, else -1. */
static int read_switch(void)
{
    FILE *file = fopen("/proc/sys/kernel/io_uring_disabled", "re");
    int value = file == NULL ? -1 : fgetc(file);
    if (file != NULL) {
        (void)fclose(file);
    }
    return value >= '0' && value <= '9' ? value - '0' : -1;
}

enum io_refusal io_uring_refusal(int error_number)
{
    int value = read_switch();
    switch (error_number) {
    case 0:
        return IO_REFUSAL_NONE;
    case ENOMEM:
        return IO_REFUSAL_MEMLOCK;
    case EPERM:
    case EACCES:
        /* Both answer EPERM; only the switch can be read. */
        return value > 0 ? IO_REFUSAL_SYSCTL : IO_REFUSAL_SECCOMP;
    case ENOSYS:
        /* Profiles may answer as a kernel without io_uring does. */
        return value == 0 ? IO_REFUSAL_SECCOMP : IO_REFUSAL_KERNEL;
    default:
        return IO_REFUSAL_KERNEL;
    }
}

const struct io_driver *io_uring_driver(void)
{
    static const struct io_driver driver = {
        .backend = IO_BACKEND_URING,
        .open = open_driver,
        .close = close_driver,
        .wait = wait_for_events,
        .now = io_os_now,
        .socket = io_os_socket,
        .connect = connect_socket,
        .address = io_os_address,
        .adopt = io_os_adopt,
        .discard = io_os_discard,
        .receive_arm = arm_receive,
        .receive_disarm = disarm_receive,
        .send = send_queued,
        .send_cancel = cancel_send,
        .send_end = end_sending,
        .socket_close = close_socket,
        .socket_close_more = close_socket_more,
        .poll = poll_socket,
        .error_watch = watch_for_error,
        .take_error = io_os_take_error,
        .has_unread = io_os_has_unread,
        .listener_arm = arm_listener,
        .listener_disarm = disarm_listener,
        .listener_close = close_listener,
        .watch_arm = arm_watch,
        .watch_close = close_watch,
        .datagram_receive = io_os_datagram_receive,
        .datagram_send = io_os_datagram_send,
        .datagram_close = io_os_datagram_close,
        .ring_doorbell = ring_doorbell,
    };
    return &driver;
}

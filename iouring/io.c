/*
 * What all back ends promise: credit, send queues, the ready list, the order of a turn, starvation,
 * copying under scarcity, closing, pumps by moving blocks. The back end behind it only moves bytes.
 *
 * Everything that a completion or an owner changes is marked dirty and looked at once, in flush():
 * that is where ops are started, so a turn's changes to a socket make one send and at most one arm.
 */
#include "iouring/io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_splice.h"
#include "iouring/io_unread.h"
#include "iouring/mailbox.h"
#include "iouring/timer.h"

enum {
    SPLICE_AFTER_BYTES = 256 << 10,
    PUMP_WINDOW_BYTES = 64 << 10, /* received and not yet sent on, for one direction */
    PUMP_WINDOW_BYTES_MIN = 2 << 10,
    PUMP_SHARES = 256, /* of what is left of the heap's budget: the window of one direction */
    UNLEND_SOCKETS_A_TURN = 64, /* looked at while blocks are scarce */
    BLOCKS_FOR_ONE_REARM = 8,   /* re-arming all starved receivers at once is a storm */
    ACCEPTED_CAPACITY_START = 64,
    ACCEPT_RETRY_MS = 100,
    OP_TICK_BITS = 20,
};

/* ---- marking ---- */

static void mark(struct list *list, struct list *node)
{
    if (list_is_empty(node)) {
        list_append(list, node);
    }
}

void io_mark_dirty(struct io_socket *socket)
{
    mark(&socket->io->dirty, &socket->dirty);
}

static void raise_event(struct io_socket *socket, uint32_t event)
{
    socket->events |= event;
    mark(&socket->io->ready_sockets, &socket->ready);
}

static struct error os_error(struct io *io, int error_number)
{
    struct error error = error_from_errno(error_number);
    if (error.code == ERROR_OS) {
        io->counters.unknown_errors++;
    }
    return error;
}

static void fail(struct io_socket *socket, struct error error)
{
    if (socket->is_closing || error_is(socket->error)) {
        return;
    }
    socket->error = error;
    socket->send_state = IO_DIRECTION_FAILED;
    raise_event(socket, IO_EVENT_FAILED);
}

/* ---- pumps ---- */

static bool is_sendable(const struct io_socket *socket)
{
    return !socket->is_closing && socket->send_state == IO_DIRECTION_OPEN &&
           !socket->is_send_end_wanted;
}

/* What one direction may have on the way. A stalled one ends up holding it on the heap, so it gets
 * smaller as the budget is used up: the last one must still find room. */
static uint64_t pump_window(const struct io *io)
{
    uint64_t share = block_pool_heap_room(io->pool) / PUMP_SHARES;
    if (share >= PUMP_WINDOW_BYTES) {
        return PUMP_WINDOW_BYTES;
    }
    return share > PUMP_WINDOW_BYTES_MIN ? share : PUMP_WINDOW_BYTES_MIN;
}

static bool is_bulk(const struct io_socket *from)
{
    return from->bulk_bytes >= SPLICE_AFTER_BYTES && !from->is_splice_refused &&
           from->io->driver->poll != NULL;
}

/* Keep between half a window and a window on the way through a pump; or, when bulk comes, let it
 * run dry and splice. */
static void pump_go_on(struct io_socket *from)
{
    const struct io_socket *to = from->pump_to;
    if (from->splice != NULL || from->receive_state != IO_DIRECTION_OPEN) {
        return;
    }
    if (is_bulk(from)) {
        if (from->credit_bytes > 0 || from->is_receive_armed || to->send_queue.size > 0 ||
            to->send_in_flight > 0) {
            return;
        }
        if (io_splice_start(from)) {
            return;
        }
    }
    uint64_t window = pump_window(from->io);
    uint64_t on_the_way = from->credit_bytes + to->send_queue.size;
    if (on_the_way <= window / 2) {
        io_receive_grant(from, window - on_the_way);
    }
}

struct error io_pump_start(struct io_socket *from, struct io_socket *to)
{
    CHECK(from != to && from->io == to->io);
    CHECK(!from->is_closing && !to->is_closing);
    CHECK(from->pump_to == NULL && to->pump_from == NULL);
    from->pumped_bytes += from->received.size;
    if (is_sendable(to)) {
        TRY(buffer_move(&from->received, &to->send_queue, from->received.size));
        mark(&to->io->holding, &to->holding);
        io_mark_dirty(to);
    }
    buffer_clear(&from->received);
    from->events &= ~(uint32_t)IO_EVENT_RECEIVED;
    from->pump_to = to;
    to->pump_from = from;
    pump_go_on(from);
    return OK;
}

static void pump_unlink(struct io_socket *socket)
{
    if (socket->pump_to != NULL) {
        io_splice_stop(socket);
        socket->pump_to->pump_from = NULL;
        socket->pump_to = NULL;
    }
    if (socket->pump_from != NULL) {
        io_splice_stop(socket->pump_from);
        socket->pump_from->pump_to = NULL;
        socket->pump_from = NULL;
    }
}

/* ---- what became of ops ---- */

void io_op_begin(struct io *io, struct io_op *op)
{
    CHECK(!op->is_in_kernel);
    op->since_ticks = (uint32_t)(io->now_ns >> OP_TICK_BITS);
    op->is_in_kernel = true;
    io->counters.ops_in_kernel++;
}

void io_op_finish(struct io *io, struct io_op *op)
{
    CHECK(op->is_in_kernel && io->counters.ops_in_kernel > 0);
    op->is_in_kernel = false;
    io->counters.ops_in_kernel--;
}

void io_note_connected(struct io_socket *socket, int error_number)
{
    CHECK(socket->is_connecting);
    socket->is_connecting = false;
    if (error_number != 0) {
        fail(socket, os_error(socket->io, error_number));
        return;
    }
    if (!socket->is_closing) {
        raise_event(socket, IO_EVENT_CONNECTED);
        io_mark_dirty(socket);
    }
}

/* Large pieces add up; a small one halves what they came to, so that talk never counts as bulk. */
static void count_bulk(struct io_socket *from, uint32_t size)
{
    bool is_large = size >= from->io->options.block_bytes / 4;
    from->bulk_bytes = is_large ? from->bulk_bytes + size : from->bulk_bytes / 2;
}

/* Where received bytes go; NULL: nowhere any more. */
static struct buffer *receive_target(struct io_socket *socket)
{
    if (socket->is_closing || (error_is(socket->error) && !socket->is_failure_pending)) {
        return NULL;
    }
    if (socket->pump_to == NULL) {
        return &socket->received;
    }
    return is_sendable(socket->pump_to) ? &socket->pump_to->send_queue : NULL;
}

void io_note_received(struct io_socket *socket, struct block *block, const uint8_t *data,
                      uint32_t size)
{
    struct io *io = socket->io;
    io->counters.received_bytes += size;
    socket->received_bytes += size;
    socket->credit_bytes -= size < socket->credit_bytes ? size : socket->credit_bytes;
    struct buffer *target = receive_target(socket);
    if (target != NULL) {
        struct error error = buffer_append_slice(target, block, bytes_make(data, size));
        if (error_is(error)) {
            fail(socket, error);
        } else if (socket->pump_to != NULL) {
            socket->pumped_bytes += size;
            count_bulk(socket, size);
            mark(&io->holding, &socket->pump_to->holding);
            io_mark_dirty(socket->pump_to);
        } else {
            raise_event(socket, IO_EVENT_RECEIVED);
        }
    }
    block_unref(block);
    if (socket->credit_bytes == 0) {
        io_mark_dirty(socket);
    }
}

/* The armed receive is over, for whatever reason. */
static void receive_over(struct io_socket *socket)
{
    socket->is_receive_armed = false;
    socket->is_receive_disarming = false;
}

/* A send failed before; now nothing more can be received. */
static bool report_pending_failure(struct io_socket *socket)
{
    if (!socket->is_failure_pending) {
        return false;
    }
    socket->is_failure_pending = false;
    if (!socket->is_closing) {
        raise_event(socket, IO_EVENT_FAILED);
    }
    return true;
}

void io_note_receive_ended(struct io_socket *socket)
{
    receive_over(socket);
    /* After a reset that a send has seen, the kernel shows an end: it is none. */
    if (report_pending_failure(socket) || socket->is_closing || error_is(socket->error)) {
        return;
    }
    socket->receive_state = IO_DIRECTION_ENDED;
    raise_event(socket, IO_EVENT_RECEIVE_ENDED);
    io_mark_dirty(socket);
}

void io_note_receive_stopped(struct io_socket *socket, int error_number)
{
    struct io *io = socket->io;
    receive_over(socket);
    if (report_pending_failure(socket) || socket->is_closing || error_is(socket->error)) {
        return;
    }
    switch (error_number) {
    case 0:
    case EINTR:
    case EAGAIN:
    case ECANCELED:
        io_mark_dirty(socket);
        if (socket->pump_to != NULL) {
            pump_go_on(socket);
        }
        return;
    case ENOBUFS:
        io->counters.receive_starved++;
        socket->is_starved = true;
        mark(&io->starved_sockets, &socket->starved);
        return;
    default:
        socket->receive_state = IO_DIRECTION_FAILED;
        fail(socket, os_error(io, error_number));
    }
}

void io_note_sent(struct io_socket *socket, uint32_t size)
{
    CHECK(size <= socket->send_queue.size);
    buffer_consume(&socket->send_queue, size);
    socket->sent_bytes += size;
    socket->io->counters.sent_bytes += size;
    if (socket->is_closing) {
        return;
    }
    struct io_socket *from = socket->pump_from;
    if (from == NULL || from->receive_state != IO_DIRECTION_OPEN) {
        if (size > 0) {
            raise_event(socket, IO_EVENT_SENT);
        }
    } else {
        pump_go_on(from);
    }
    if (socket->send_queue.size > 0 || socket->is_send_end_wanted) {
        io_mark_dirty(socket);
    }
}

void io_note_failed(struct io_socket *socket, int error_number)
{
    if (socket->is_closing || error_is(socket->error)) {
        return;
    }
    if (socket->is_receive_armed && (error_number == EPIPE || error_number == ECONNRESET)) {
        socket->error = os_error(socket->io, error_number);
        socket->send_state = IO_DIRECTION_FAILED;
        socket->is_failure_pending = true;
        return;
    }
    fail(socket, os_error(socket->io, error_number));
}

/* A descriptor became free, or it is time to try: listeners that had none go on. */
static void retry_accepting(struct io *io)
{
    struct list *node = NULL;
    while ((node = list_take(&io->starved_listeners)) != NULL) {
        struct io_listener *listener = LIST_OWNER(node, struct io_listener, starved);
        mark(&io->dirty_listeners, &listener->dirty);
    }
}

void io_note_pollable(struct io_socket *socket, bool is_out)
{
    struct io_socket *from = is_out ? socket->pump_from : socket;
    if (from != NULL && from->splice != NULL) {
        io_splice_ready(from);
    }
}

void io_note_closed(struct io_socket *socket)
{
    CHECK(socket->is_closing && !socket->is_closed && socket->ops_in_kernel == 0);
    socket->is_closed = true;
    socket->fd = -1;
    buffer_clear(&socket->received);
    buffer_clear(&socket->send_queue);
    list_remove(&socket->dirty);
    list_remove(&socket->holding);
    raise_event(socket, IO_EVENT_CLOSED);
}

/* ---- sockets ---- */

static void socket_open(struct io_socket *socket, struct io *io, int fd, io_socket_fn on_event)
{
    CHECK(socket->io == NULL || socket->is_closed);
    *socket = (struct io_socket){.io = io, .on_event = on_event, .fd = fd};
    list_init(&socket->ready);
    list_init(&socket->open);
    list_init(&socket->dirty);
    list_init(&socket->holding);
    list_init(&socket->starved);
    list_init(&socket->unread);
    struct io_op *ops[] = {&socket->receive_op,  &socket->send_op,  &socket->connect_op,
                           &socket->cancel_op,   &socket->close_op, &socket->poll_in_op,
                           &socket->poll_out_op, &socket->error_op};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        ops[i]->owner = socket;
    }
}

struct error io_socket_adopt(struct io_socket *socket, struct io *io, int fd, io_socket_fn on_event)
{
    socket_open(socket, io, fd, on_event);
    struct error error = io->driver->adopt(socket);
    if (error_is(error)) {
        close(fd);
        *socket = (struct io_socket){0};
        return error;
    }
    list_append(&io->open_sockets, &socket->open);
    io_mark_dirty(socket);
    return OK;
}

struct error io_socket_connect(struct io_socket *socket, struct io *io,
                               const struct address *remote, const struct address *local,
                               io_socket_fn on_event)
{
    int fd = -1;
    struct error error = io->driver->socket(io, remote, local, &fd);
    if (error.code == ERROR_LIMIT && io->pipe_count > 0) {
        io_splice_close_pipes(io);
        error = io->driver->socket(io, remote, local, &fd);
    }
    if (error_is(error)) {
        return error;
    }
    socket_open(socket, io, fd, on_event);
    socket->is_connecting = true;
    error = io->driver->connect(socket, remote);
    if (error_is(error)) {
        close(fd);
        *socket = (struct io_socket){0};
        return error;
    }
    list_append(&io->open_sockets, &socket->open);
    return OK;
}

void io_want_tail(struct io_socket *socket)
{
    socket->is_tail_wanted = true;
}

void io_receive_grant(struct io_socket *socket, uint64_t bytes)
{
    socket->credit_bytes = clock_add(socket->credit_bytes, bytes); /* saturates */
    if (!socket->is_receive_armed && !socket->is_closing) {
        io_mark_dirty(socket);
    }
}

struct error io_send(struct io_socket *socket, struct buffer *bytes)
{
    if (!is_sendable(socket)) {
        buffer_clear(bytes);
        return OK;
    }
    TRY(buffer_move(bytes, &socket->send_queue, bytes->size));
    mark(&socket->io->holding, &socket->holding);
    io_mark_dirty(socket);
    return OK;
}

void io_send_end(struct io_socket *socket)
{
    if (is_sendable(socket)) {
        socket->is_send_end_wanted = true;
        io_mark_dirty(socket);
    }
}

static void start_closing(struct io_socket *socket, bool is_reset)
{
    CHECK(socket->io != NULL && !socket->is_closing);
    socket->is_closing = true;
    socket->is_reset_wanted = is_reset;
    socket->events = 0;
    socket->is_starved = false;
    list_remove(&socket->ready);
    list_remove(&socket->starved);
    io_unread_stop(socket);
    pump_unlink(socket);
    buffer_clear(&socket->received);
    io_mark_dirty(socket); /* send_queue stays: the kernel may be reading it */
}

void io_close(struct io_socket *socket)
{
    start_closing(socket, false);
}

void io_abort(struct io_socket *socket)
{
    start_closing(socket, true);
}

struct error io_socket_address(const struct io_socket *socket, enum io_address_kind kind,
                               struct address *ret_address)
{
    return socket->io->driver->address(socket, kind, ret_address);
}

/* ---- scarcity ---- */

static uint64_t lent_bytes(struct buffer *buffer)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < buffer->count; i++) {
        const struct slice *slice = buffer_slice(buffer, i);
        bytes += slice->block->is_lent ? slice->size : 0;
    }
    return bytes;
}

static void unlend(struct io *io, struct buffer *buffer)
{
    uint64_t before = lent_bytes(buffer);
    if (before == 0) {
        return;
    }
    /* Without budget the blocks stay lent, and the receivers starve until their reader reads. */
    error_ignore(buffer_unlend(buffer, block_pool_heap(io->pool)));
    io->counters.unlent_bytes += before - lent_bytes(buffer);
}

/* Returns whether something was copied, or will be as soon as the kernel lets go of it. */
static bool unlend_socket(struct io_socket *socket)
{
    struct io *io = socket->io;
    uint64_t before = io->counters.unlent_bytes;
    unlend(io, &socket->received);
    if (socket->send_in_flight == 0 || io->driver->send_cancel == NULL) {
        unlend(io, &socket->send_queue);
        return io->counters.unlent_bytes != before;
    }
    /* The kernel reads from the blocks: it must let go first. Asking costs a resend, so not in
     * vain: slices have headers and classes, hence the factor. */
    uint64_t needed = lent_bytes(&socket->send_queue) * 2;
    if (!socket->is_unlend_wanted && needed > 0 && needed <= block_pool_heap_room(io->pool)) {
        socket->is_unlend_wanted = true;
        io->driver->send_cancel(socket);
        return true;
    }
    return io->counters.unlent_bytes != before;
}

/*
 * Less than a quarter of the blocks is left: copy what waits for slow peers (design 4.4). A turn
 * looks at some sockets; `is_relieving` keeps the next one from sleeping while that helps.
 */
static void relieve(struct io *io)
{
    struct list kept;
    list_init(&kept);
    bool is_useful = false;
    if (io->options.on_scarce != NULL) {
        io->options.on_scarce(io->options.owner);
    }
    for (uint32_t i = 0; i < UNLEND_SOCKETS_A_TURN && !list_is_empty(&io->holding); i++) {
        struct list *node = list_take(&io->holding);
        struct io_socket *socket = LIST_OWNER(node, struct io_socket, holding);
        if (socket->is_closing) {
            continue;
        }
        is_useful |= unlend_socket(socket);
        if (lent_bytes(&socket->received) > 0 || lent_bytes(&socket->send_queue) > 0) {
            list_append(&kept, node);
        } else {
            is_useful = true; /* off the list, which is now shorter */
        }
    }
    io->is_relieving = is_useful && !list_is_empty(&io->holding);
    list_move_all(&kept, &io->holding);
}

static void rearm_starved(struct io *io)
{
    uint32_t available = block_pool_available(io->pool);
    uint32_t count = available == 0 ? 0 : 1 + available / BLOCKS_FOR_ONE_REARM;
    for (; count > 0 && !list_is_empty(&io->starved_sockets); count--) {
        struct list *node = list_take(&io->starved_sockets);
        struct io_socket *socket = LIST_OWNER(node, struct io_socket, starved);
        socket->is_starved = false;
        io->counters.receive_rearmed++;
        io_mark_dirty(socket);
    }
}

/* ---- starting ops ---- */

static void flush_send(struct io_socket *socket)
{
    const struct io_driver *driver = socket->io->driver;
    if (socket->send_state != IO_DIRECTION_OPEN || socket->send_in_flight > 0) {
        return;
    }
    if (socket->is_unlend_wanted) {
        socket->is_unlend_wanted = false;
        unlend(socket->io, &socket->send_queue);
    }
    if (socket->send_queue.size > 0) {
        driver->send(socket);
    }
    bool is_pipe_empty = socket->pump_from == NULL || !io_splice_holds(socket->pump_from);
    if (socket->send_queue.size == 0 && socket->send_in_flight == 0 && is_pipe_empty &&
        socket->is_send_end_wanted && socket->send_state == IO_DIRECTION_OPEN) {
        socket->send_state = IO_DIRECTION_ENDED;
        driver->send_end(socket);
    }
}

static void flush_receive(struct io_socket *socket)
{
    const struct io_driver *driver = socket->io->driver;
    if (socket->receive_state != IO_DIRECTION_OPEN) {
        return;
    }
    if (!socket->is_receive_armed) {
        if (socket->credit_bytes > 0 && !socket->is_starved) {
            socket->is_receive_armed = true;
            driver->receive_arm(socket);
        }
    } else if (socket->credit_bytes == 0 && !socket->io->has_kernel_credit &&
               !socket->is_receive_disarming) {
        socket->is_receive_disarming = true;
        driver->receive_disarm(socket);
    }
}

static void flush_socket(struct io_socket *socket)
{
    const struct io_driver *driver = socket->io->driver;
    if (socket->is_closing) {
        if (!socket->is_close_started) {
            socket->is_close_started = true;
            driver->socket_close(socket, socket->is_reset_wanted);
        } else if (driver->socket_close_more != NULL) {
            driver->socket_close_more(socket);
        }
        return;
    }
    if (socket->is_connecting || error_is(socket->error)) {
        return;
    }
    flush_send(socket);
    flush_receive(socket);
    io_unread_update(socket);
}

static void flush_listener(struct io_listener *listener)
{
    const struct io_driver *driver = listener->io->driver;
    if (listener->is_closing) {
        if (!listener->is_close_started) {
            listener->is_close_started = true;
            driver->listener_close(listener);
        }
        return;
    }
    bool is_wanted = !listener->is_paused && list_is_empty(&listener->starved);
    if (is_wanted && !listener->is_armed) {
        listener->is_armed = true;
        driver->listener_arm(listener);
    } else if (!is_wanted && listener->is_armed && !listener->is_disarming) {
        listener->is_disarming = true;
        driver->listener_disarm(listener);
    }
}

static void flush_watch(struct io_watch *watch)
{
    if (watch->is_closing) {
        if (!watch->is_close_started) {
            watch->is_close_started = true;
            watch->io->driver->watch_close(watch);
        }
    } else if (!watch->is_armed) {
        watch->is_armed = true;
        watch->io->driver->watch_arm(watch);
    }
}

/* Start what the turn asked for. What a driver's answer marks in the meantime is the next turn's.
 */
static void flush(struct io *io)
{
    struct list dirty;
    struct list *node = NULL;
    list_init(&dirty);
    list_move_all(&io->dirty, &dirty);
    while ((node = list_take(&dirty)) != NULL) {
        flush_socket(LIST_OWNER(node, struct io_socket, dirty));
    }
    list_move_all(&io->dirty_listeners, &dirty);
    while ((node = list_take(&dirty)) != NULL) {
        flush_listener(LIST_OWNER(node, struct io_listener, dirty));
    }
    list_move_all(&io->dirty_watches, &dirty);
    while ((node = list_take(&dirty)) != NULL) {
        flush_watch(LIST_OWNER(node, struct io_watch, dirty));
    }
}

/* ---- listeners ---- */

void io_listener_open(struct io_listener *listener, struct io *io, int fd,
                      void (*on_accept)(struct io_listener *listener, int fd),
                      void (*on_closed)(struct io_listener *listener))
{
    *listener =
        (struct io_listener){.io = io, .fd = fd, .on_accept = on_accept, .on_closed = on_closed};
    list_init(&listener->open);
    list_init(&listener->ready);
    list_init(&listener->dirty);
    list_init(&listener->starved);
    listener->accept_op.owner = listener;
    listener->cancel_op.owner = listener;
    list_append(&io->open_listeners, &listener->open);
    mark(&io->dirty_listeners, &listener->dirty);
}

void io_listener_pause(struct io_listener *listener)
{
    listener->is_paused = true;
    mark(&listener->io->dirty_listeners, &listener->dirty);
}

void io_listener_resume(struct io_listener *listener)
{
    listener->is_paused = false;
    mark(&listener->io->dirty_listeners, &listener->dirty);
}

void io_listener_close(struct io_listener *listener)
{
    CHECK(listener->io != NULL && !listener->is_closing);
    listener->is_closing = true;
    list_remove(&listener->starved);
    mark(&listener->io->dirty_listeners, &listener->dirty);
}

static bool grow_accepted(struct io *io)
{
    uint32_t pending = io->accepted_count - io->accepted_first;
    if (io->accepted_first > 0) {
        for (uint32_t i = 0; i < pending; i++) {
            io->accepted[i] = io->accepted[io->accepted_first + i];
        }
        io->accepted_first = 0;
        io->accepted_count = pending;
        return true;
    }
    uint32_t capacity =
        io->accepted_capacity == 0 ? ACCEPTED_CAPACITY_START : io->accepted_capacity * 2;
    struct io_accepted *accepted = realloc(io->accepted, capacity * sizeof(*accepted));
    if (accepted == NULL) {
        return false;
    }
    io->accepted = accepted;
    io->accepted_capacity = capacity;
    return true;
}

void io_note_accepted(struct io_listener *listener, int fd)
{
    struct io *io = listener->io;
    if (io->accepted_count == io->accepted_capacity && !grow_accepted(io)) {
        close(fd); /* no memory for 16 bytes: this connection is the least of our losses */
        io->counters.accept_paused++;
        return;
    }
    io->accepted[io->accepted_count++] = (struct io_accepted){listener, fd};
}

void io_discard(struct io *io, int fd)
{
    io->driver->discard(io, fd);
    retry_accepting(io);
}

static void on_accept_timer(struct io_timer *timer)
{
    retry_accepting(LIST_OWNER(timer, struct io, accept_timer));
}

void io_note_accept_stopped(struct io_listener *listener, int error_number)
{
    struct io *io = listener->io;
    listener->is_armed = false;
    listener->is_disarming = false;
    if (listener->is_closing) {
        return;
    }
    switch (error_number) {
    case 0:
    case EINTR:
    case EAGAIN:
    case ECANCELED:
    case ECONNABORTED:
    case EPROTO:
        mark(&io->dirty_listeners, &listener->dirty);
        return;
    case EMFILE:
    case ENFILE:
        listener->is_starving = true;
        mark(&io->ready_listeners, &listener->ready);
        break;
    case ENOBUFS:
    case ENOMEM:
        break;
    default:
        io->counters.unknown_errors++; /* not armed again at once: it may fail at once */
        break;
    }
    io->counters.accept_paused++;
    mark(&io->starved_listeners, &listener->starved);
    if (!io_timer_is_running(&io->accept_timer)) {
        io_timer_start(io, &io->accept_timer,
                       clock_add(io->now_ns, ACCEPT_RETRY_MS * CLOCK_NS_PER_MS), on_accept_timer);
    }
}

void io_note_listener_closed(struct io_listener *listener)
{
    CHECK(listener->is_closing && !listener->is_closed);
    listener->is_closed = true;
    listener->is_armed = false;
    listener->fd = -1;
    list_remove(&listener->dirty);
    mark(&listener->io->ready_listeners, &listener->ready);
    retry_accepting(listener->io);
}

/* ---- watches ---- */

void io_watch_open(struct io_watch *watch, struct io *io, int fd,
                   void (*on_readable)(struct io_watch *watch),
                   void (*on_closed)(struct io_watch *watch))
{
    *watch =
        (struct io_watch){.io = io, .fd = fd, .on_readable = on_readable, .on_closed = on_closed};
    list_init(&watch->open);
    list_init(&watch->ready);
    list_init(&watch->dirty);
    watch->poll_op.owner = watch;
    watch->cancel_op.owner = watch;
    list_append(&io->open_watches, &watch->open);
    mark(&io->dirty_watches, &watch->dirty);
}

void io_watch_close(struct io_watch *watch)
{
    CHECK(watch->io != NULL && !watch->is_closing);
    watch->is_closing = true;
    watch->is_readable = false;
    list_remove(&watch->ready);
    mark(&watch->io->dirty_watches, &watch->dirty);
}

void io_note_readable(struct io_watch *watch)
{
    watch->is_armed = false;
    if (!watch->is_closing) {
        watch->is_readable = true;
        mark(&watch->io->ready_watches, &watch->ready);
    }
}

void io_note_watch_closed(struct io_watch *watch)
{
    CHECK(watch->is_closing && !watch->is_closed);
    watch->is_closed = true;
    watch->is_armed = false;
    list_remove(&watch->dirty);
    mark(&watch->io->ready_watches, &watch->ready);
}

/* ---- a turn ---- */

static void deliver_socket(struct io_socket *socket)
{
    uint32_t events = socket->events;
    socket->events = 0;
    if (socket->is_closed) {
        struct io *io = socket->io;
        list_remove(&socket->open);
        socket->on_event(socket, IO_EVENT_CLOSED); /* its memory is gone now */
        retry_accepting(io);
        return;
    }
    if (socket->is_closing || events == 0) {
        return;
    }
    socket->on_event(socket, events);
    if (socket->received.size > 0) {
        mark(&socket->io->holding, &socket->holding);
    }
}

static void deliver_accepted(struct io *io, uint32_t max)
{
    for (; max > 0 && io->accepted_first < io->accepted_count; max--) {
        struct io_accepted accepted = io->accepted[io->accepted_first++];
        accepted.listener->on_accept(accepted.listener, accepted.fd);
    }
    if (io->accepted_first == io->accepted_count) {
        io->accepted_first = 0;
        io->accepted_count = 0;
    }
}

/* What is kept for speed goes first. */
static void deliver_starved(struct io_listener *listener)
{
    struct io *io = listener->io;
    listener->is_starving = false;
    if (listener->is_closing) {
        return;
    }
    if (io->pipe_count > 0) {
        io_splice_close_pipes(io);
        retry_accepting(io);
    } else if (listener->on_starved != NULL) {
        listener->on_starved(listener);
    }
}

static void deliver_listeners(struct io *io)
{
    struct list *node = NULL;
    while (io->accepted_count == 0 && (node = list_take(&io->ready_listeners)) != NULL) {
        struct io_listener *listener = LIST_OWNER(node, struct io_listener, ready);
        if (listener->is_closed) {
            list_remove(&listener->open);
            listener->on_closed(listener);
        } else if (listener->is_starving) {
            deliver_starved(listener);
        }
    }
}

static void deliver_watches(struct io *io)
{
    struct list ready;
    struct list *node = NULL;
    list_init(&ready);
    list_move_all(&io->ready_watches, &ready);
    while ((node = list_take(&ready)) != NULL) {
        struct io_watch *watch = LIST_OWNER(node, struct io_watch, ready);
        if (watch->is_closed) {
            list_remove(&watch->open);
            watch->on_closed(watch);
            continue;
        }
        watch->is_readable = false;
        mark(&io->dirty_watches, &watch->dirty);
        watch->on_readable(watch);
    }
}

static void deliver_messages(struct io *io, uint32_t max)
{
    if (io->messages == NULL) {
        io->messages = io_mailbox_take_all(io->mailbox);
    }
    for (; max > 0 && io->messages != NULL; max--) {
        struct io_message *message = io->messages;
        io->messages = message->next;
        message->run(message);
    }
    if (io->messages == NULL) {
        /* Posted while older ones ran: their doorbell may be answered already, so look again. */
        io->messages = io_mailbox_take_all(io->mailbox);
    }
}

static void run_tasks(struct io *io, uint32_t max)
{
    struct list tasks;
    struct list *node = NULL;
    list_init(&tasks);
    list_move_all(&io->tasks, &tasks); /* what tasks schedule is the next turn's */
    for (; max > 0 && (node = list_take(&tasks)) != NULL; max--) {
        struct io_task *task = LIST_OWNER(node, struct io_task, link);
        io_task_fn run = task->run;
        task->run = NULL;
        run(task);
    }
    list_move_all(&io->tasks, &tasks);
    list_move_all(&tasks, &io->tasks); /* the rest keeps its place before the new ones */
}

/* How long the turn may sleep. */
static uint64_t wait_time(const struct io *io, uint64_t until_ns)
{
    bool is_work_left = !list_is_empty(&io->ready_sockets) || !list_is_empty(&io->dirty) ||
                        !list_is_empty(&io->tasks) || io->messages != NULL ||
                        io->accepted_count > 0 || !list_is_empty(&io->ready_listeners) ||
                        !list_is_empty(&io->ready_watches) || !list_is_empty(&io->ready_splices) ||
                        !list_is_empty(&io->dirty_listeners) || !list_is_empty(&io->dirty_watches);
    bool can_rearm = !list_is_empty(&io->starved_sockets) && block_pool_available(io->pool) > 0;
    if (is_work_left || can_rearm || io->is_relieving) {
        return 0;
    }
    uint64_t next_ns = io_timers_next(io->timers);
    uint64_t deadline_ns = next_ns < until_ns ? next_ns : until_ns;
    if (deadline_ns == CLOCK_NEVER) {
        return CLOCK_NEVER;
    }
    uint64_t now_ns = io->driver->now(io);
    return deadline_ns <= now_ns ? 0 : deadline_ns - now_ns;
}

struct error io_turn(struct io *io, uint64_t until_ns)
{
    io->is_relieving = false;
    if (block_pool_is_scarce(io->pool)) {
        relieve(io);
    }
    rearm_starved(io);
    flush(io);
    uint64_t wait_ns = wait_time(io, until_ns);
    io->counters.turns++;
    io->counters.waits += wait_ns > 0;
    TRY(io->driver->wait(io, wait_ns));
    io->now_ns = io->driver->now(io);
    io->counters.blocks_lent = block_pool_out(io->pool);
    if (io->counters.blocks_lent > io->counters.blocks_lent_max) {
        io->counters.blocks_lent_max = io->counters.blocks_lent;
    }

    uint32_t max = io->options.ready_max;
    deliver_accepted(io, max);
    deliver_listeners(io);
    deliver_watches(io);
    /* Before sockets: bytes that a peer sent after it was told of a message find its effect. */
    deliver_messages(io, max);
    for (uint32_t i = 0; i < max && !list_is_empty(&io->ready_sockets); i++) {
        deliver_socket(LIST_OWNER(list_take(&io->ready_sockets), struct io_socket, ready));
    }
    io_splice_run(io);
    io_timers_run(io->timers, io->now_ns, max);
    run_tasks(io, max);
    return OK;
}

/* ---- timers, tasks, messages ---- */

void io_timer_start(struct io *io, struct io_timer *timer, uint64_t deadline_ns,
                    io_timer_fn on_timer)
{
    io_timers_start(io->timers, timer, deadline_ns, on_timer);
}

void io_timer_stop(struct io *io, struct io_timer *timer)
{
    io_timers_stop(io->timers, timer);
}

void io_task_schedule(struct io *io, struct io_task *task, io_task_fn run)
{
    if (!io_task_is_scheduled(task)) {
        task->run = run;
        list_init(&task->link);
        list_append(&io->tasks, &task->link);
    }
}

void io_task_cancel(struct io *io, struct io_task *task)
{
    (void)io;
    if (io_task_is_scheduled(task)) {
        task->run = NULL;
        list_remove(&task->link);
    }
}

void io_post(struct io *target, struct io_message *message)
{
    if (io_mailbox_push(target->mailbox, message)) {
        target->driver->ring_doorbell(target);
    }
}

/* ---- one thread's I/O ---- */

struct io_options io_options_default(void)
{
    return (struct io_options){.block_bytes = 16 << 10,
                               .block_count = 256,
                               .submission_entries = 128,
                               .completion_entries = 1024,
                               .heap_bytes_max = UINT64_C(64) << 20,
                               .ready_max = 256};
}

/* splitmix64: spreads a seed over the state of xoroshiro128+. */
static uint64_t spread(uint64_t *seed)
{
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t io_random(struct io *io)
{
    uint64_t a = io->random[0];
    uint64_t b = io->random[1];
    uint64_t result = a + b;
    b ^= a;
    io->random[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
    io->random[1] = (b << 37) | (b >> 27);
    return result;
}

static void seed_random(struct io *io)
{
    uint64_t seed = io->options.seed;
    if (seed == 0 && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t)sizeof(seed)) {
        seed = (uint64_t)(uintptr_t)io ^ (uint64_t)getpid(); /* spreads load, keeps no secret */
    }
    io->random[0] = spread(&seed);
    io->random[1] = spread(&seed);
}

static void init_lists(struct io *io)
{
    struct list *lists[] = {
        &io->ready_sockets,     &io->ready_listeners, &io->ready_watches, &io->open_sockets,
        &io->open_listeners,    &io->open_watches,    &io->dirty,         &io->dirty_listeners,
        &io->dirty_watches,     &io->holding,         &io->tasks,         &io->starved_sockets,
        &io->starved_listeners, &io->ready_splices,   &io->unread_new,    &io->unread_old,
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        list_init(lists[i]);
    }
}

static void free_io(struct io *io)
{
    io_timers_destroy(io->timers);
    io_mailbox_destroy(io->mailbox);
    block_pool_destroy(io->pool);
    free(io->accepted);
    free(io->packet_memory);
    free(io);
}

struct error io_create_with(const struct io_driver *driver, const struct io_options *options,
                            struct io **ret_io)
{
    struct io *io = calloc(1, sizeof(*io));
    if (io == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    io->driver = driver;
    io->options = *options;
    init_lists(io);
    seed_random(io);
    struct error error = block_pool_create(options->block_bytes, options->block_count,
                                           options->heap_bytes_max, &io->pool);
    if (!error_is(error)) {
        error = io_mailbox_create(&io->mailbox);
    }
    if (!error_is(error)) {
        error = driver->open(io, options);
    }
    if (error_is(error)) {
        free_io(io);
        return error;
    }
    io->now_ns = driver->now(io);
    error = io_timers_create(io->now_ns, &io->timers);
    if (error_is(error)) {
        driver->close(io);
        free_io(io);
        return error;
    }
    *ret_io = io;
    return OK;
}

bool io_is_idle(const struct io *io)
{
    return list_is_empty(&io->open_sockets) && list_is_empty(&io->open_listeners) &&
           list_is_empty(&io->open_watches) && io->counters.ops_in_kernel == 0;
}

void io_destroy(struct io *io)
{
    if (io == NULL) {
        return;
    }
    CHECK(io_is_idle(io));
    io_splice_close_pipes(io);
    io->driver->close(io);
    free_io(io);
}

uint64_t io_now(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_now_exact(const struct io *io)
{
    return io->driver->now(io);
}

enum io_backend io_backend_of(const struct io *io)
{
    return io->driver->backend;
}

const char *io_backend_name(enum io_backend backend)
{
    switch (backend) {
    case IO_BACKEND_AUTO:
        return "auto";
    case IO_BACKEND_URING:
        return "uring"; /* the words of --io */
    case IO_BACKEND_EPOLL:
        return "epoll";
    case IO_BACKEND_FAKE:
        return "fake";
    }
    return "unknown";
}

struct block_source *io_blocks(struct io *io)
{
    return block_pool_heap(io->pool);
}

uint64_t io_heap_bytes(const struct io *io)
{
    return block_pool_heap_bytes(io->pool);
}

const struct io_counters *io_counters_of(const struct io *io)
{
    return &io->counters;
}

/* An op's name is its place in its owner. */
struct op_place {
    const char *name;
    size_t offset;
};

static void list_ops(const struct io *io, const void *owner, int fd, const struct op_place *places,
                     size_t count, io_op_line_fn line, void *argument)
{
    uint32_t now_ticks = (uint32_t)(io->now_ns >> OP_TICK_BITS);
    for (size_t i = 0; i < count; i++) {
        const struct io_op *op =
            (const struct io_op *)(const void *)((const char *)owner + places[i].offset);
        if (op->is_in_kernel) {
            uint64_t age_ns = (uint64_t)(now_ticks - op->since_ticks) << OP_TICK_BITS;
            line(places[i].name, age_ns, fd, argument);
        }
    }
}

void io_for_each_op(const struct io *io, io_op_line_fn line, void *argument)
{
    static const struct op_place of_socket[] = {
        {"receive", offsetof(struct io_socket, receive_op)},
        {"send", offsetof(struct io_socket, send_op)},
        {"connect", offsetof(struct io_socket, connect_op)},
        {"cancel", offsetof(struct io_socket, cancel_op)},
        {"close", offsetof(struct io_socket, close_op)},
        {"poll in", offsetof(struct io_socket, poll_in_op)},
        {"poll out", offsetof(struct io_socket, poll_out_op)},
        {"poll error", offsetof(struct io_socket, error_op)},
    };
    static const struct op_place of_listener[] = {
        {"accept", offsetof(struct io_listener, accept_op)},
        {"cancel accept", offsetof(struct io_listener, cancel_op)},
    };
    static const struct op_place of_watch[] = {
        {"watch", offsetof(struct io_watch, poll_op)},
        {"cancel watch", offsetof(struct io_watch, cancel_op)},
    };
    for (struct list *node = io->open_sockets.next; node != &io->open_sockets; node = node->next) {
        const struct io_socket *socket = LIST_OWNER(node, struct io_socket, open);
        list_ops(io, socket, socket->fd, of_socket, sizeof(of_socket) / sizeof(of_socket[0]), line,
                 argument);
    }
    for (struct list *node = io->open_listeners.next; node != &io->open_listeners;
         node = node->next) {
        const struct io_listener *listener = LIST_OWNER(node, struct io_listener, open);
        list_ops(io, listener, listener->fd, of_listener,
                 sizeof(of_listener) / sizeof(of_listener[0]), line, argument);
    }
    for (struct list *node = io->open_watches.next; node != &io->open_watches; node = node->next) {
        const struct io_watch *watch = LIST_OWNER(node, struct io_watch, open);
        list_ops(io, watch, watch->fd, of_watch, sizeof(of_watch) / sizeof(of_watch[0]), line,
                 argument);
    }
}

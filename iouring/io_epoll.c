/*
 * Each socket is registered once, edge-triggered for everything; what the edges said is kept as
 * bits. A socket that could make progress (armed and readable, or a send that waits and writable)
 * stands on the work list, and every `wait` visits that list once with a bounded number of system
 * calls for each. Sends are tried where io.c asks for them, at the end of the turn, so that most of
 * them never wait.
 *
 * What would hang or leak, and the test in io_test.c that shows it: a short read that forgets a FIN
 * seen with it (goes_on_sending_after_the_peers_end); an accept edge lost to EMFILE
 * (accepts_again_after_descriptors_ran_out); an event of the same batch for a socket that was
 * closed (survives_closes_at_any_moment; closing happens between batches only).
 */
#include "iouring/io_epoll.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "iouring/io_os.h"

enum {
    EVENTS_MAX = 256,
    READS_MAX = 4, /* of one socket in one visit: 64 KiB of usual blocks, then the others */
    SENDS_MAX = 4, /* likewise, of up to SLICES_MAX slices each */
    SLICES_MAX = 64,
    ACCEPTS_MAX = 64,
};

/* Who an event is for: the low bits of its pointer. */
enum kind {
    KIND_SOCKET,
    KIND_LISTENER,
    KIND_WATCH,
    KIND_MASK = 3,
};

enum bits {
    BIT_READABLE = 1 << 0, /* a read may give something */
    BIT_END_SEEN = 1 << 1, /* FIN or error: a short read is not the last one */
    BIT_WRITABLE = 1 << 2,
    BIT_RECEIVING = 1 << 3, /* armed by io.c */
    BIT_REGISTERED = 1 << 4,
    BIT_POLL_IN = 1 << 5, /* asked for by io.c, once */
    BIT_POLL_OUT = 1 << 6,
    BIT_UNANNOUNCED = 1 << 7, /* a send waits for memory: no edge will come */
};

struct io_epoll {
    int fd;
    int doorbell;            /* eventfd */
    struct list sockets;     /* the work list */
    struct list listeners;   /* likewise */
    struct list unannounced; /* sockets that try to send again when `retry` fires */
    struct io_timer retry;
    bool has_no_pwait2; /* kernel before 5.11, or a profile that does not know the call */
    struct epoll_event events[EVENTS_MAX];
};

static struct io_epoll *state_of(const struct io *io)
{
    return io->driver_state;
}

static void work_on(struct list *list, struct list *link)
{
    list_remove(link);
    list_append(list, link);
}

/* ---- sockets ---- */

/* On the work list exactly while a visit can get anywhere. */
static void update_work(struct io_socket *socket)
{
    uint32_t bits = socket->driver_bits;
    bool can_read = (bits & BIT_RECEIVING) != 0 && (bits & BIT_READABLE) != 0;
    bool can_send = socket->send_in_flight != 0 && (bits & BIT_WRITABLE) != 0;
    bool must_retry = socket->send_in_flight != 0 && (bits & BIT_UNANNOUNCED) != 0;
    if (can_read || can_send) {
        work_on(&state_of(socket->io)->sockets, &socket->driver_link);
    } else if (must_retry) {
        work_on(&state_of(socket->io)->unannounced, &socket->driver_link);
    } else {
        list_remove(&socket->driver_link);
    }
}

static struct error register_socket(struct io_socket *socket)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u64 = (uintptr_t)socket | KIND_SOCKET};
    if (epoll_ctl(state_of(socket->io)->fd, EPOLL_CTL_ADD, socket->fd, &event) != 0) {
        return error_from_errno(errno);
    }
    socket->driver_bits |= BIT_REGISTERED;
    return OK;
}

static struct error adopt_socket(struct io_socket *socket)
{
    list_init(&socket->driver_link);
    socket->driver_bits = BIT_WRITABLE; /* most likely; a wrong guess costs one EAGAIN */
    TRY(io_os_adopt(socket));
    return register_socket(socket);
}

static struct error connect_socket(struct io_socket *socket, const struct address *remote)
{
    list_init(&socket->driver_link);
    socket->driver_bits = 0;
    struct sockaddr_storage storage;
    socklen_t size = address_to_sockaddr(remote, &storage);
    int result = connect(socket->fd, (const struct sockaddr *)&storage, size);
    if (result != 0 && errno != EINPROGRESS) {
        io_note_connected(socket, errno);
        return OK;
    }
    if (result == 0) {
        socket->driver_bits = BIT_WRITABLE;
        io_note_connected(socket, 0);
    } else {
        io_op_begin(socket->io, &socket->connect_op);
    }
    /* After connect(2): a fresh socket reports a hang-up. */
    return register_socket(socket);
}

/* An event for a socket whose connect is under way. */
static void finish_connect(struct io_socket *socket, uint32_t events)
{
    int number = 0;
    socklen_t size = sizeof(number);
    if (getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &number, &size) != 0) {
        number = errno;
    }
    if (number == 0 && (events & EPOLLOUT) == 0) {
        return;
    }
    io_op_finish(socket->io, &socket->connect_op);
    io_note_connected(socket, number);
}

static void stop_receiving(struct io_socket *socket, int error_number)
{
    socket->driver_bits &= ~(uint32_t)BIT_RECEIVING;
    io_op_finish(socket->io, &socket->receive_op);
    io_note_receive_stopped(socket, error_number);
}

/* One read. True when another one may give more. */
static bool read_once(struct io_socket *socket)
{
    struct block *block = block_pool_take(socket->io->pool);
    if (block == NULL) {
        stop_receiving(socket, ENOBUFS);
        return false;
    }
    size_t wanted = block->capacity < socket->credit_bytes ? block->capacity : socket->credit_bytes;
    ssize_t got = recv(socket->fd, block->data, wanted, 0);
    int number = errno;
    if (got > 0) {
        if ((size_t)got < wanted && (socket->driver_bits & BIT_END_SEEN) == 0) {
            socket->driver_bits &= ~(uint32_t)BIT_READABLE; /* what comes now makes a new edge */
        }
        io_note_received(socket, block, block->data, (uint32_t)got);
        if (socket->credit_bytes == 0) {
            stop_receiving(socket, 0);
            return false;
        }
        return (socket->driver_bits & BIT_READABLE) != 0;
    }
    block_unref(block);
    if (got == 0) {
        socket->driver_bits &= ~(uint32_t)BIT_RECEIVING;
        io_op_finish(socket->io, &socket->receive_op);
        io_note_receive_ended(socket);
    } else if (number == EAGAIN) {
        socket->driver_bits &= ~(uint32_t)BIT_READABLE;
    } else if (number != EINTR) {
        stop_receiving(socket, number);
    }
    return got < 0 && number == EINTR;
}

static void read_some(struct io_socket *socket)
{
    for (uint32_t i = 0; i < READS_MAX && read_once(socket); i++) {
    }
}

static void arm_receive(struct io_socket *socket)
{
    CHECK((socket->driver_bits & BIT_RECEIVING) == 0 && socket->credit_bytes > 0);
    socket->driver_bits |= BIT_RECEIVING;
    io_op_begin(socket->io, &socket->receive_op);
    update_work(socket);
}

static void disarm_receive(struct io_socket *socket)
{
    if ((socket->driver_bits & BIT_RECEIVING) != 0) {
        stop_receiving(socket, 0);
        update_work(socket);
    }
}

static void on_retry(struct io_timer *timer)
{
    struct io_epoll *state = LIST_OWNER(timer, struct io_epoll, retry);
    struct list tried;
    struct list *link = NULL;
    list_init(&tried);
    list_move_all(&state->unannounced, &tried);
    while ((link = list_take(&tried)) != NULL) {
        struct io_socket *socket = LIST_OWNER(link, struct io_socket, driver_link);
        socket->driver_bits &= ~(uint32_t)BIT_UNANNOUNCED;
        socket->driver_bits |= BIT_WRITABLE;
        update_work(socket);
    }
}

/* The socket takes no more. Room makes an edge, or else a timer has to. */
static void note_full(struct io_socket *socket)
{
    struct io *io = socket->io;
    socket->driver_bits &= ~(uint32_t)(BIT_WRITABLE | BIT_UNANNOUNCED);
    if (io_os_is_send_unannounced(socket->fd)) {
        struct io_timer *retry = &state_of(io)->retry;
        socket->driver_bits |= BIT_UNANNOUNCED;
        if (!io_timer_is_running(retry)) {
            uint64_t span_ns = IO_OS_SEND_RETRY_MS * CLOCK_NS_PER_MS;
            io_timer_start(io, retry, clock_add(io->now_ns, span_ns), on_retry);
        }
    }
}

/* Send what the socket takes, at most SENDS_MAX calls. True while there is more to send. */
static bool send_some(struct io_socket *socket)
{
    for (uint32_t i = 0; i < SENDS_MAX && socket->send_queue.size > 0; i++) {
        struct iovec vector[SLICES_MAX];
        uint32_t count = 0;
        size_t wanted = 0;
        for (; count < socket->send_queue.count && count < SLICES_MAX; count++) {
            const struct slice *slice = buffer_slice(&socket->send_queue, count);
            vector[count] = (struct iovec){.iov_base = slice->data, .iov_len = slice->size};
            wanted += slice->size;
        }
        struct msghdr message = {.msg_iov = vector, .msg_iovlen = count};
        ssize_t sent = sendmsg(socket->fd, &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) {
                note_full(socket);
                return true;
            }
            if (errno != EINTR) {
                io_note_failed(socket, errno);
                return false;
            }
            continue;
        }
        io_note_sent(socket, (uint32_t)sent);
        if ((size_t)sent < wanted) {
            note_full(socket);
            return true;
        }
    }
    return socket->send_queue.size > 0;
}

/* Send now; what the socket does not take waits as if it were in the kernel. */
static void send_queued(struct io_socket *socket)
{
    CHECK(socket->send_in_flight == 0 && socket->send_queue.size > 0);
    if ((socket->driver_bits & BIT_WRITABLE) != 0 && !send_some(socket)) {
        return;
    }
    socket->send_in_flight = 1;
    io_op_begin(socket->io, &socket->send_op);
    update_work(socket);
}

/* A send that waited, and the socket is writable again. */
static void send_more(struct io_socket *socket)
{
    /* Not in flight while it is noted: io.c sees each note as the end of a send. */
    socket->send_in_flight = 0;
    io_op_finish(socket->io, &socket->send_op);
    if (send_some(socket)) {
        socket->send_in_flight = 1;
        io_op_begin(socket->io, &socket->send_op);
    }
}

static void end_sending(struct io_socket *socket)
{
    shutdown(socket->fd, SHUT_WR); /* fails only where the connection is gone, which is noted */
}

static void close_socket(struct io_socket *socket, bool is_reset)
{
    list_remove(&socket->driver_link);
    if (socket->connect_op.is_in_kernel) {
        io_op_finish(socket->io, &socket->connect_op);
    }
    if (socket->send_in_flight != 0) {
        socket->send_in_flight = 0;
        io_op_finish(socket->io, &socket->send_op);
    }
    if ((socket->driver_bits & BIT_RECEIVING) != 0) {
        stop_receiving(socket, 0);
    }
    if ((socket->driver_bits & BIT_REGISTERED) != 0) {
        /* close(2) alone leaves the registration to whoever has a copy of the descriptor. */
        epoll_ctl(state_of(socket->io)->fd, EPOLL_CTL_DEL, socket->fd, NULL);
    }
    io_os_shut_down(socket->fd, is_reset);
    close(socket->fd);
    io_note_closed(socket);
}

static void poll_socket(struct io_socket *socket, bool is_out)
{
    /* The attempt that found nothing was not ours, so the bit may still say otherwise. */
    socket->driver_bits &= ~(uint32_t)(is_out ? BIT_WRITABLE : BIT_READABLE);
    socket->driver_bits |= is_out ? BIT_POLL_OUT : BIT_POLL_IN;
}

static void note_polls(struct io_socket *socket)
{
    if ((socket->driver_bits & BIT_POLL_IN) != 0 && (socket->driver_bits & BIT_READABLE) != 0) {
        socket->driver_bits &= ~(uint32_t)BIT_POLL_IN;
        io_note_pollable(socket, false);
    }
    if ((socket->driver_bits & BIT_POLL_OUT) != 0 && (socket->driver_bits & BIT_WRITABLE) != 0) {
        socket->driver_bits &= ~(uint32_t)BIT_POLL_OUT;
        io_note_pollable(socket, true);
    }
}

static void note_socket_events(struct io_socket *socket, uint32_t events)
{
    if (socket->connect_op.is_in_kernel) {
        finish_connect(socket, events);
    }
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        socket->driver_bits |= BIT_END_SEEN;
        events |= EPOLLIN | EPOLLOUT; /* the calls say what it is */
    }
    if ((events & EPOLLIN) != 0) {
        socket->driver_bits |= BIT_READABLE;
    }
    if ((events & EPOLLOUT) != 0) {
        socket->driver_bits |= BIT_WRITABLE;
    }
    if ((events & EPOLLERR) != 0 && !socket->is_connecting) {
        io_note_error_seen(socket);
    }
    note_polls(socket);
    update_work(socket);
}

/* Visit each socket of the work list once; who could go on stands on it again afterwards. */
static void work_on_sockets(struct io_epoll *state)
{
    struct list visited;
    list_init(&visited);
    list_move_all(&state->sockets, &visited);
    for (struct list *link = list_take(&visited); link != NULL; link = list_take(&visited)) {
        struct io_socket *socket = LIST_OWNER(link, struct io_socket, driver_link);
        if (socket->send_in_flight != 0 && (socket->driver_bits & BIT_WRITABLE) != 0) {
            send_more(socket);
        }
        if ((socket->driver_bits & BIT_RECEIVING) != 0 &&
            (socket->driver_bits & BIT_READABLE) != 0) {
            read_some(socket);
        }
        update_work(socket);
    }
}

/* ---- listeners ---- */

static void update_listener(struct io_listener *listener)
{
    if ((listener->driver_bits & BIT_RECEIVING) != 0 &&
        (listener->driver_bits & BIT_READABLE) != 0) {
        work_on(&state_of(listener->io)->listeners, &listener->driver_link);
    } else {
        list_remove(&listener->driver_link);
    }
}

static void stop_accepting(struct io_listener *listener, int error_number)
{
    listener->driver_bits &= ~(uint32_t)BIT_RECEIVING;
    io_op_finish(listener->io, &listener->accept_op);
    io_note_accept_stopped(listener, error_number);
}

static void arm_listener(struct io_listener *listener)
{
    if ((listener->driver_bits & BIT_REGISTERED) == 0) {
        list_init(&listener->driver_link);
        listener->driver_bits = BIT_REGISTERED;
        int flags = fcntl(listener->fd, F_GETFL);
        fcntl(listener->fd, F_SETFL, flags | O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN | EPOLLET,
                                    .data.u64 = (uintptr_t)listener | KIND_LISTENER};
        int result = epoll_ctl(state_of(listener->io)->fd, EPOLL_CTL_ADD, listener->fd, &event);
        CHECK(result == 0 || errno == ENOMEM || errno == ENOSPC);
    }
    listener->driver_bits |= BIT_RECEIVING | BIT_READABLE;
    io_op_begin(listener->io, &listener->accept_op);
    update_listener(listener);
}

static void disarm_listener(struct io_listener *listener)
{
    if ((listener->driver_bits & BIT_RECEIVING) != 0) {
        stop_accepting(listener, 0);
        update_listener(listener);
    }
}

static void close_listener(struct io_listener *listener)
{
    if ((listener->driver_bits & BIT_REGISTERED) != 0) {
        list_remove(&listener->driver_link);
        if ((listener->driver_bits & BIT_RECEIVING) != 0) {
            stop_accepting(listener, 0);
        }
        epoll_ctl(state_of(listener->io)->fd, EPOLL_CTL_DEL, listener->fd, NULL);
    }
    close(listener->fd);
    io_note_listener_closed(listener);
}

static void accept_some(struct io_listener *listener)
{
    for (uint32_t i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            io_note_accepted(listener, fd);
            continue;
        }
        switch (errno) {
        case EAGAIN:
            listener->driver_bits &= ~(uint32_t)BIT_READABLE;
            return;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            stop_accepting(listener, errno);
            return;
        default:
            continue; /* accept(2): errors of the new connection, which is gone; or EINTR */
        }
    }
}

static void work_on_listeners(struct io_epoll *state)
{
    struct list visited;
    list_init(&visited);
    list_move_all(&state->listeners, &visited);
    for (struct list *link = list_take(&visited); link != NULL; link = list_take(&visited)) {
        struct io_listener *listener = LIST_OWNER(link, struct io_listener, driver_link);
        accept_some(listener);
        update_listener(listener);
    }
}

/* ---- watches ---- */

static void arm_watch(struct io_watch *watch)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT,
                                .data.u64 = (uintptr_t)watch | KIND_WATCH};
    int fd = state_of(watch->io)->fd;
    int result = epoll_ctl(fd, EPOLL_CTL_MOD, watch->fd, &event);
    if (result != 0 && errno == ENOENT) {
        result = epoll_ctl(fd, EPOLL_CTL_ADD, watch->fd, &event);
    }
    CHECK(result == 0 || errno == ENOMEM || errno == ENOSPC);
    io_op_begin(watch->io, &watch->poll_op);
}

static void close_watch(struct io_watch *watch)
{
    epoll_ctl(state_of(watch->io)->fd, EPOLL_CTL_DEL, watch->fd, NULL);
    if (watch->poll_op.is_in_kernel) {
        io_op_finish(watch->io, &watch->poll_op);
    }
    io_note_watch_closed(watch);
}

/* ---- the turn ---- */

/* Wait for events, at most `wait_ns` (CLOCK_NEVER: as long as it takes). */
static int wait_for_events(struct io_epoll *state, uint64_t wait_ns)
{
    if (!state->has_no_pwait2) {
        struct timespec span = {.tv_sec = (time_t)(wait_ns / CLOCK_NS_PER_S),
                                .tv_nsec = (long)(wait_ns % CLOCK_NS_PER_S)};
        int count = epoll_pwait2(state->fd, state->events, EVENTS_MAX,
                                 wait_ns == CLOCK_NEVER ? NULL : &span, NULL);
        if (count >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return count;
        }
        state->has_no_pwait2 = true;
    }
    uint64_t wait_ms = wait_ns / CLOCK_NS_PER_MS + (wait_ns % CLOCK_NS_PER_MS != 0);
    bool is_endless = wait_ns == CLOCK_NEVER;
    return epoll_wait(state->fd, state->events, EVENTS_MAX,
                      is_endless ? -1 : (int)(wait_ms < 3600000 ? wait_ms : 3600000));
}

/* Look without sleeping for spin_ns, then sleep for the rest. */
static int spin_and_wait(struct io *io, uint64_t wait_ns)
{
    struct io_epoll *state = state_of(io);
    uint64_t spin_ns = wait_ns < io->options.spin_ns ? wait_ns : io->options.spin_ns;
    uint64_t begin_ns = spin_ns > 0 ? io_os_now(io) : 0;
    while (spin_ns > 0 && io_os_now(io) - begin_ns < spin_ns) {
        int count = wait_for_events(state, 0);
        if (count != 0) {
            return count;
        }
    }
    return wait_for_events(state, wait_ns == CLOCK_NEVER ? wait_ns : wait_ns - spin_ns);
}

static void note_event(struct io *io, const struct epoll_event *event)
{
    struct io_epoll *state = state_of(io);
    if (event->data.u64 == 0) {
        uint64_t rings = 0;
        ssize_t got = read(state->doorbell, &rings, sizeof(rings));
        CHECK(got == (ssize_t)sizeof(rings) || errno == EAGAIN);
        return;
    }
    void *owner = (void *)(uintptr_t)(event->data.u64 & ~(uint64_t)KIND_MASK);
    switch ((enum kind)(event->data.u64 & KIND_MASK)) {
    case KIND_SOCKET:
        note_socket_events(owner, event->events);
        break;
    case KIND_LISTENER: {
        struct io_listener *listener = owner;
        listener->driver_bits |= BIT_READABLE;
        update_listener(listener);
        break;
    }
    case KIND_WATCH: {
        struct io_watch *watch = owner;
        io_op_finish(io, &watch->poll_op);
        io_note_readable(watch);
        break;
    }
    case KIND_MASK:
        CHECK(false);
    }
}

static struct error wait_epoll(struct io *io, uint64_t wait_ns)
{
    struct io_epoll *state = state_of(io);
    bool has_work = !list_is_empty(&state->sockets) || !list_is_empty(&state->listeners);
    uint64_t span_ns = has_work ? 0 : wait_ns;
    int count = span_ns > 0 ? spin_and_wait(io, span_ns) : wait_for_events(state, 0);
    if (count < 0 && errno != EINTR) {
        return error_from_errno(errno);
    }
    io->counters.completions += count > 0 ? (uint64_t)count : 0;
    for (int i = 0; i < count; i++) {
        note_event(io, &state->events[i]);
    }
    work_on_listeners(state);
    work_on_sockets(state);
    return OK;
}

static void ring(struct io *io)
{
    uint64_t one = 1;
    ssize_t put = write(state_of(io)->doorbell, &one, sizeof(one));
    CHECK(put == (ssize_t)sizeof(one) || errno == EAGAIN); /* full: it rings already */
}

static void close_epoll(struct io *io)
{
    struct io_epoll *state = state_of(io);
    if (state == NULL) {
        return;
    }
    if (state->fd >= 0) {
        close(state->fd);
    }
    if (state->doorbell >= 0) {
        close(state->doorbell);
    }
    free(state);
    io->driver_state = NULL;
}

static struct error open_epoll(struct io *io, const struct io_options *options)
{
    (void)options;
    struct io_epoll *state = calloc(1, sizeof(*state));
    if (state == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    list_init(&state->sockets);
    list_init(&state->listeners);
    list_init(&state->unannounced);
    state->fd = epoll_create1(EPOLL_CLOEXEC);
    state->doorbell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    io->driver_state = state;
    io->has_kernel_credit = true; /* a read never asks for more than the credit */
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    if (state->fd < 0 || state->doorbell < 0 ||
        epoll_ctl(state->fd, EPOLL_CTL_ADD, state->doorbell, &event) != 0) {
        int number = errno;
        close_epoll(io);
        return error_from_errno(number);
    }
    return OK;
}

const struct io_driver *io_epoll_driver(void)
{
    static const struct io_driver driver = {
        .backend = IO_BACKEND_EPOLL,
        .open = open_epoll,
        .close = close_epoll,
        .wait = wait_epoll,
        .now = io_os_now,
        .socket = io_os_socket,
        .connect = connect_socket,
        .address = io_os_address,
        .adopt = adopt_socket,
        .discard = io_os_discard,
        .receive_arm = arm_receive,
        .receive_disarm = disarm_receive,
        .send = send_queued,
        .send_cancel = NULL,
        .send_end = end_sending,
        .socket_close = close_socket,
        .poll = poll_socket,
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
        .ring_doorbell = ring,
    };
    return &driver;
}

/*
 * Transport: what one socket's events mean for its owner. Everything is in terms of io.h; a filter
 * sits between the socket's bytes and the owner's, and the plain path does not know that it exists.
 */
#include "proxy/transport.h"

#include "base/check.h"

#define LINGER_TICK_NS (1 * CLOCK_NS_PER_S)

enum {
    LINGER_BYTES_MAX = 64 * 1024,
    LINGER_TICKS_MAX = 30, /* of a peer that still reads what is queued */
};

static struct transport *transport_of(struct io_socket *socket)
{
    return LIST_OWNER(socket, struct transport, socket);
}

static void init(struct transport *transport, const struct transport_options *options,
                 const struct transport_events *events)
{
    *transport = (struct transport){
        .events = events,
        .receive_window_bytes = options->receive_window_bytes,
        .send_high_bytes = options->send_high_bytes,
    };
}

static void fail(struct transport *transport, struct error error)
{
    if (!transport->is_closing) {
        transport->events->on_failed(transport, error);
    }
}

/* ---- through a filter ---- */

/* Wire bytes that the filter made go out; an empty buffer is no send. */
static struct error send_wire(struct transport *transport, struct buffer *wire)
{
    if (buffer_is_empty(wire)) {
        return OK;
    }
    struct error error = io_send(&transport->socket, wire);
    buffer_clear(wire);
    return error;
}

static struct error send_through(struct transport *transport, struct buffer *plain)
{
    struct transport_filter *filter = transport->filter;
    struct buffer wire = {0};
    struct error error = filter->ops->send(filter, plain, &wire);
    if (error_is(error)) {
        buffer_clear(&wire);
        return error;
    }
    return send_wire(transport, &wire);
}

static struct error send_end_through(struct transport *transport)
{
    struct buffer wire = {0};
    struct error error = transport->filter->ops->end(transport->filter, &wire);
    struct error sent = send_wire(transport, &wire);
    io_send_end(&transport->socket);
    return error_is(error) ? error : sent;
}

/* The handshake is done: what waited for it goes out. */
static struct error open_filter(struct transport *transport)
{
    struct transport_filter *filter = transport->filter;
    transport->is_open = true;
    if (!buffer_is_empty(&filter->pending)) {
        TRY(send_through(transport, &filter->pending));
    }
    if (transport->is_send_end_wanted) {
        TRY(send_end_through(transport));
    }
    return OK;
}

/* Run received wire bytes through the filter and tell what came of it. */
static void feed_filter(struct transport *transport)
{
    struct transport_filter *filter = transport->filter;
    size_t plain_before = filter->plain.size;
    struct buffer reply = {0};
    struct error error =
        filter->ops->receive(filter, &transport->socket.received, &filter->plain, &reply);
    /* Also on failure: an alert tells the peer why. */
    struct error sent = send_wire(transport, &reply);
    if (!error_is(error)) {
        error = sent;
    }
    bool has_opened = !transport->is_open && filter->state != TRANSPORT_FILTER_HANDSHAKE;
    if (!error_is(error) && has_opened) {
        error = open_filter(transport);
    }
    if (error_is(error)) {
        fail(transport, error);
        return;
    }
    if (has_opened && transport->events->on_open != NULL) {
        transport->events->on_open(transport);
    }
    if (!transport->is_closing && filter->plain.size > plain_before) {
        transport->events->on_received(transport);
    }
    if (!transport->is_closing && filter->state == TRANSPORT_FILTER_ENDED &&
        !transport->is_end_delivered) {
        transport->is_end_delivered = true;
        transport->events->on_end(transport, CODEC_END_CLEAN);
    }
}

static struct error begin_filter(struct transport *transport)
{
    struct buffer wire = {0};
    struct error error = transport->filter->ops->begin(transport->filter, &wire);
    struct error sent = send_wire(transport, &wire);
    return error_is(error) ? error : sent;
}

/* ---- closing ---- */

static void finish_closed(struct transport *transport)
{
    io_timer_stop(transport->socket.io, &transport->linger);
    struct transport_filter *filter = transport->filter;
    if (filter != NULL) {
        transport->filter = NULL;
        buffer_clear(&filter->plain);
        buffer_clear(&filter->pending);
        filter->ops->destroy(filter);
    }
    transport->events->on_closed(transport);
}

/* A lingering close goes on: drop what arrives, close when both directions are done. */
static void linger(struct transport *transport, uint32_t events)
{
    struct io_socket *socket = &transport->socket;
    size_t size = socket->received.size;
    buffer_consume(&socket->received, size);
    transport->linger_bytes -=
        size < transport->linger_bytes ? (uint32_t)size : transport->linger_bytes;
    bool is_peer_done = (events & IO_EVENT_RECEIVE_ENDED) != 0 || transport->is_end_delivered;
    transport->is_end_delivered = is_peer_done;
    if ((events & IO_EVENT_FAILED) != 0 ||
        (io_socket_unsent(socket) == 0 && (is_peer_done || transport->linger_bytes == 0))) {
        transport->is_lingering = false;
        io_timer_stop(socket->io, &transport->linger);
        io_close(socket);
    }
}

/* Every second: a peer that takes what is queued gets more time, one that does not is given up. */
static void on_linger_timer(struct io_timer *timer)
{
    struct transport *transport = LIST_OWNER(timer, struct transport, linger);
    if (io_socket_unsent(&transport->socket) > 0 && transport->linger_ticks < LINGER_TICKS_MAX) {
        transport->linger_ticks++;
        io_timer_start(transport->socket.io, timer, io_now(transport->socket.io) + LINGER_TICK_NS,
                       on_linger_timer);
        return;
    }
    transport->is_lingering = false;
    io_close(&transport->socket);
}

/* ---- events of the socket ---- */

static void on_connected(struct transport *transport)
{
    transport->is_connected = true;
    if (transport->filter != NULL) {
        struct error error = begin_filter(transport);
        if (error_is(error)) {
            fail(transport, error);
        }
        return;
    }
    transport->is_open = true;
    if (transport->events->on_open != NULL) {
        transport->events->on_open(transport);
    }
}

static void on_receive_ended(struct transport *transport)
{
    if (transport->is_end_delivered) {
        return;
    }
    transport->is_end_delivered = true;
    bool is_truncated =
        transport->filter != NULL && transport->filter->state != TRANSPORT_FILTER_ENDED;
    transport->events->on_end(transport, is_truncated ? CODEC_END_TRUNCATED : CODEC_END_CLEAN);
}

/* The peer broke the connection behind bytes that are not consumed and that the owner wants: for
 * whoever reads them it is an end that is none. */
static bool is_tail_held(const struct transport *transport)
{
    return transport->socket.is_tail_wanted && transport->is_open &&
           !buffer_is_empty(&transport->socket.received);
}

static void on_sent(struct transport *transport)
{
    if (transport->is_full &&
        io_socket_unsent(&transport->socket) < transport->send_high_bytes / 2) {
        transport->is_full = false;
        transport->events->on_room(transport);
    }
}

static void on_socket_event(struct io_socket *socket, uint32_t events)
{
    struct transport *transport = transport_of(socket);
    if ((events & IO_EVENT_CLOSED) != 0) {
        finish_closed(transport);
        return;
    }
    if (transport->is_closing) {
        if (transport->is_lingering) {
            linger(transport, events);
        }
        return;
    }
    if ((events & IO_EVENT_CONNECTED) != 0) {
        on_connected(transport);
    }
    if ((events & IO_EVENT_RECEIVED) != 0 && !transport->is_closing) {
        if (transport->filter != NULL) {
            feed_filter(transport);
        } else {
            transport->events->on_received(transport);
        }
    }
    if ((events & IO_EVENT_RECEIVE_ENDED) != 0 && !transport->is_closing) {
        on_receive_ended(transport);
    }
    if ((events & IO_EVENT_SENT) != 0 && !transport->is_closing) {
        on_sent(transport);
    }
    if ((events & IO_EVENT_FAILED) == 0 || transport->is_closing) {
        return;
    }
    if (!is_tail_held(transport)) {
        fail(transport, socket->error);
    } else if (!transport->is_end_delivered) {
        transport->is_end_delivered = true;
        transport->events->on_end(transport, CODEC_END_TRUNCATED);
    }
}

/* ---- the owner's calls ---- */

static void begin_receiving(struct transport *transport, const struct transport_options *options)
{
    if (options->is_tail_wanted) {
        io_want_tail(&transport->socket);
    }
    io_receive_grant(&transport->socket, options->receive_window_bytes);
}

FALLIBLE transport_adopt(struct transport *transport, struct io *io, int fd,
                         const struct transport_options *options,
                         const struct transport_events *events)
{
    init(transport, options, events);
    TRY(io_socket_adopt(&transport->socket, io, fd, on_socket_event));
    transport->is_connected = true;
    transport->is_open = true;
    begin_receiving(transport, options);
    return OK;
}

FALLIBLE transport_connect(struct transport *transport, struct io *io, const struct address *remote,
                           const struct address *local, const struct transport_options *options,
                           const struct transport_events *events)
{
    init(transport, options, events);
    TRY(io_socket_connect(&transport->socket, io, remote, local, on_socket_event));
    begin_receiving(transport, options);
    return OK;
}

FALLIBLE transport_set_filter(struct transport *transport, struct transport_filter *filter)
{
    CHECK(transport->filter == NULL && !transport->is_closing);
    transport->filter = filter;
    transport->is_open = false;
    if (!transport->is_connected) {
        return OK;
    }
    TRY(begin_filter(transport));
    if (!buffer_is_empty(&transport->socket.received)) {
        feed_filter(transport);
    }
    return OK;
}

struct buffer *transport_received(struct transport *transport)
{
    return transport->filter != NULL ? &transport->filter->plain : &transport->socket.received;
}

size_t transport_received_size(const struct transport *transport)
{
    return transport->filter != NULL ? transport->filter->plain.size
                                     : transport->socket.received.size;
}

void transport_resume(struct transport *transport)
{
    if (transport->is_closing) {
        return;
    }
    uint64_t held = transport->socket.received.size;
    if (transport->filter != NULL) {
        held += transport->filter->plain.size;
    }
    if (held >= transport->receive_window_bytes) {
        return;
    }
    uint64_t wanted = transport->receive_window_bytes - held;
    uint64_t credit = io_receive_credit(&transport->socket);
    /* In steps of half a window, so that small messages do not each cost a grant. */
    if (credit < wanted &&
        (credit == 0 || wanted - credit >= transport->receive_window_bytes / 2)) {
        io_receive_grant(&transport->socket, wanted - credit);
    }
}

FALLIBLE transport_send(struct transport *transport, struct buffer *bytes)
{
    if (transport->is_closing) {
        buffer_clear(bytes);
        return OK;
    }
    if (transport->filter == NULL) {
        TRY(io_send(&transport->socket, bytes));
    } else if (!transport->is_open) {
        TRY(buffer_move(bytes, &transport->filter->pending, bytes->size));
    } else {
        TRY(send_through(transport, bytes));
    }
    return OK;
}

uint64_t transport_room(struct transport *transport)
{
    if (transport->is_closing || transport->is_full) {
        return 0;
    }
    uint64_t queued = io_socket_unsent(&transport->socket);
    if (transport->filter != NULL) {
        queued += transport->filter->pending.size;
    }
    if (queued >= transport->send_high_bytes) {
        transport->is_full = true;
        return 0;
    }
    return transport->send_high_bytes - queued;
}

void transport_send_end(struct transport *transport)
{
    if (transport->is_closing) {
        return;
    }
    if (transport->filter == NULL) {
        io_send_end(&transport->socket);
    } else if (!transport->is_open) {
        transport->is_send_end_wanted = true;
    } else {
        /* What fails here fails the socket too, which says so. */
        error_ignore(send_end_through(transport));
    }
}

void transport_close_lingering(struct transport *transport)
{
    if (transport->is_closing) {
        return;
    }
    if (!transport->is_connected) {
        transport_close(transport);
        return;
    }
    transport_send_end(transport);
    transport->is_closing = true;
    transport->is_lingering = true;
    transport->linger_bytes = LINGER_BYTES_MAX;
    struct io *io = transport->socket.io;
    /* At least a byte, or the peer's end would not be seen. */
    if (io_receive_credit(&transport->socket) < LINGER_BYTES_MAX) {
        io_receive_grant(&transport->socket,
                         LINGER_BYTES_MAX - io_receive_credit(&transport->socket));
    }
    io_timer_start(io, &transport->linger, io_now(io) + LINGER_TICK_NS, on_linger_timer);
    linger(transport, 0);
}

void transport_close(struct transport *transport)
{
    if (transport->is_closing && !transport->is_lingering) {
        return;
    }
    transport->is_closing = true;
    transport->is_lingering = false;
    io_timer_stop(transport->socket.io, &transport->linger);
    io_close(&transport->socket);
}

void transport_abort(struct transport *transport)
{
    if (transport->is_closing && !transport->is_lingering) {
        return;
    }
    transport->is_closing = true;
    transport->is_lingering = false;
    io_timer_stop(transport->socket.io, &transport->linger);
    io_abort(&transport->socket);
}

bool transport_can_pump(struct transport *from, struct transport *to)
{
    return from->filter == NULL && to->filter == NULL && from->is_open && to->is_open &&
           !from->is_closing && !to->is_closing && from->socket.io == to->socket.io;
}

FALLIBLE transport_pump(struct transport *from, struct transport *to)
{
    CHECK(transport_can_pump(from, to));
    return io_pump_start(&from->socket, &to->socket);
}

/* A connection is a transport, an HTTP/1 codec and at most one call. A call outlives its connection
 * when it must. */
#include "control/server.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/list.h"
#include "http/codec.h"
#include "http/http1.h"
#include "proxy/transport.h"

enum {
    CALL_SECONDS = 5, /* a whole request, or a reader that takes nothing */
    HEAD_ARENA_BYTES = 4096,
    HEAD_ARENA_BYTES_MAX = 128 * 1024,
    SEND_PIECE_BYTES = 16 * 1024,
    ACCEPT_SLACK = 512, /* accepted by the kernel when the listener was paused */
};

struct server_connection;

struct server_call {
    struct server *server;
    struct server_connection *connection; /* borrowed; NULL once it is gone */
    struct exchange exchange;
    struct arena arena;
    bool is_handled; /* the handler has seen it */
    bool is_owed;    /* the handler has yet to answer: the call is not freed before that */
    bool is_answered;
    bool is_late; /* answered in the handler's place, whose answer is dropped */
    bool is_head_request;
    char *text; /* owned: the answer's body */
    size_t size;
    size_t sent;
};

struct server_connection {
    struct server *server;
    struct transport transport;
    struct codec *codec;
    struct server_call *call; /* that reads or is being answered */
    struct io_timer timer;
    struct io_task pump; /* serve again what waits in the input */
    struct list link;
    bool is_serving; /* within codec_receive: what is wanted is done after it */
    bool is_closing;
    bool is_dropped; /* aborted to make room */
};

struct server {
    struct io *io;
    struct server_options options;
    struct io_listener listener;
    struct list connections; /* the oldest first */
    uint32_t connections_count;
    uint32_t dropped_count; /* of them */
    uint32_t calls_count;
    bool is_closing;
    bool is_listener_closed;
};

static void maybe_free(struct server *server)
{
    if (server->is_closing && server->is_listener_closed && server->connections_count == 0 &&
        server->calls_count == 0) {
        free(server);
    }
}

static void free_call(struct server_call *call)
{
    struct server *server = call->server;
    if (call->connection != NULL && call->connection->call == call) {
        call->connection->call = NULL;
    }
    free(call->text);
    arena_finish(&call->arena);
    free(call);
    server->calls_count--;
    maybe_free(server);
}

/* The client is gone, or the call is over. */
static void detach_call(struct server_connection *connection)
{
    struct server_call *call = connection->call;
    if (call == NULL) {
        return;
    }
    exchange_reset(&call->exchange, EXCHANGE_RESET_CANCEL);
    call->connection = NULL;
    connection->call = NULL;
    if (!call->is_owed) {
        free_call(call);
    }
}

static void close_connection(struct server_connection *connection)
{
    if (connection->is_closing) {
        return;
    }
    connection->is_closing = true;
    io_timer_stop(connection->server->io, &connection->timer);
    io_task_cancel(connection->server->io, &connection->pump);
    detach_call(connection);
    transport_close(&connection->transport);
}

static void drop(struct server_connection *connection)
{
    struct server *server = connection->server;
    connection->is_dropped = true;
    server->dropped_count++;
    connection->is_closing = true;
    io_timer_stop(server->io, &connection->timer);
    io_task_cancel(server->io, &connection->pump);
    detach_call(connection);
    transport_abort(&connection->transport);
    if (server->dropped_count == server->options.connections_max) {
        io_listener_pause(&server->listener); /* until the kernel has handed them back */
    }
}

/* The oldest connection goes that is over but for its peer's end, else the oldest that waits for
 * its client, be it for a request or for a reader. The youngest may be the kubelet's, which asks at
 * once. False: all of them wait for us. */
static bool drop_oldest(struct server *server)
{
    struct server_connection *oldest = NULL;
    struct list *node = server->connections.next;
    for (; node != &server->connections; node = node->next) {
        struct server_connection *connection = LIST_OWNER(node, struct server_connection, link);
        const struct server_call *call = connection->call;
        bool is_ours = call != NULL && call->is_handled && !call->is_answered;
        if (connection->is_dropped || is_ours) {
            continue;
        }
        if (connection->is_closing) {
            drop(connection);
            return true;
        }
        oldest = oldest == NULL ? connection : oldest;
    }
    if (oldest != NULL) {
        drop(oldest);
    }
    return oldest != NULL;
}

static void on_timeout(struct io_timer *timer);

static void restart_timer(struct server_connection *connection)
{
    struct io *io = connection->server->io;
    io_timer_start(io, &connection->timer, clock_add(io_now(io), CALL_SECONDS * CLOCK_NS_PER_S),
                   on_timeout);
}

/* Hand what the codec has written to the transport, and do what it wants done. */
static void flush(struct server_connection *connection)
{
    struct codec *codec = connection->codec;
    if (connection->is_closing || connection->is_serving) {
        return;
    }
    if (error_is(transport_send(&connection->transport, &codec->out))) {
        close_connection(connection);
        return;
    }
    codec_set_room(codec, transport_room(&connection->transport));
    if (codec->is_abort_wanted) {
        close_connection(connection);
    } else if (codec->is_close_wanted &&
               (connection->call == NULL || connection->call->is_answered)) {
        connection->is_closing = true;
        io_timer_stop(connection->server->io, &connection->timer);
        detach_call(connection);
        transport_close_lingering(&connection->transport);
    }
}

/* Let the codec work on the input. */
static void serve(struct server_connection *connection)
{
    if (connection->is_closing) {
        return;
    }
    struct buffer *input = transport_received(&connection->transport);
    connection->is_serving = true;
    struct error error = codec_receive(connection->codec, input);
    connection->is_serving = false;
    flush(connection);
    if (connection->is_closing) {
        return;
    }
    if (error_is(error)) {
        close_connection(connection);
        return;
    }
    transport_resume(&connection->transport);
}

static void on_pump(struct io_task *task)
{
    serve(LIST_OWNER(task, struct server_connection, pump));
}

/* ---- the exchange: a request comes in, an answer goes out ---- */

static void send_more(struct server_call *call)
{
    struct exchange *exchange = &call->exchange;
    while (call->sent < call->size && exchange->codec != NULL) {
        uint64_t room = exchange_room(exchange);
        size_t left = call->size - call->sent;
        size_t piece = left < SEND_PIECE_BYTES ? left : SEND_PIECE_BYTES;
        if (room == 0) {
            return;
        }
        piece = piece < room ? piece : (size_t)room;
        struct buffer data = {0};
        struct error error = buffer_append(&data, io_blocks(call->server->io),
                                           bytes_make(call->text + call->sent, piece));
        if (!error_is(error)) {
            error = exchange_send_data(exchange, &data);
        }
        buffer_clear(&data);
        if (error_is(error)) {
            exchange_reset(exchange, EXCHANGE_RESET_INTERNAL);
            return;
        }
        call->sent += piece;
    }
    if (call->sent == call->size && exchange->codec != NULL && !exchange->is_send_over) {
        if (error_is(exchange_send_end(exchange))) {
            exchange_reset(exchange, EXCHANGE_RESET_INTERNAL);
        }
    }
}

static void on_head(struct exchange *exchange, struct message_head *head, bool is_end)
{
    struct server_call *call = LIST_OWNER(exchange, struct server_call, exchange);
    call->is_handled = true;
    call->is_owed = true;
    call->is_head_request = head->is_head_request;
    restart_timer(call->connection); /* the time that the connection was idle does not count */
    if (!is_end) {
        exchange_grant(exchange, UINT32_MAX); /* a body is read and dropped: no command has one */
    }
    call->server->options.handle(call, head, call->server->options.owner);
}

static void on_data(struct exchange *exchange, struct buffer *data)
{
    (void)exchange;
    buffer_clear(data);
}

static void on_interim(struct exchange *exchange, struct message_head *head)
{
    (void)exchange;
    (void)head;
}

static void on_end(struct exchange *exchange)
{
    (void)exchange;
}

static void on_reset(struct exchange *exchange, enum exchange_reset reason, struct error error)
{
    (void)reason;
    (void)error;
    struct server_call *call = LIST_OWNER(exchange, struct server_call, exchange);
    struct server_connection *connection = call->connection;
    if (connection != NULL) {
        io_task_schedule(connection->server->io, &connection->pump, on_pump);
    }
}

static void on_room(struct exchange *exchange)
{
    struct server_call *call = LIST_OWNER(exchange, struct server_call, exchange);
    if (call->is_answered) {
        send_more(call);
    }
}

static void on_done(struct exchange *exchange)
{
    struct server_call *call = LIST_OWNER(exchange, struct server_call, exchange);
    struct server_connection *connection = call->connection;
    if (!call->is_owed) {
        free_call(call);
    } else if (connection != NULL) {
        call->connection = NULL;
        connection->call = NULL;
    }
    if (connection != NULL) {
        restart_timer(connection);
        io_task_schedule(connection->server->io, &connection->pump, on_pump);
    }
}

static const struct exchange_events exchange_events = {
    .on_head = on_head,
    .on_interim = on_interim,
    .on_data = on_data,
    .on_trailers = on_interim,
    .on_end = on_end,
    .on_reset = on_reset,
    .on_room = on_room,
    .on_done = on_done,
};

static struct exchange *on_exchange(struct codec *codec)
{
    struct server_connection *connection = codec->owner;
    if (connection->call != NULL) {
        return NULL;
    }
    struct server_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return NULL;
    }
    arena_init(&call->arena, HEAD_ARENA_BYTES, HEAD_ARENA_BYTES_MAX);
    call->server = connection->server;
    call->connection = connection;
    call->exchange.events = &exchange_events;
    call->exchange.arena = &call->arena;
    connection->call = call;
    connection->server->calls_count++;
    return &call->exchange;
}

static void on_malformed(struct codec *codec, uint16_t status, const char *reason)
{
    (void)codec;
    (void)status;
    (void)reason;
}

static void on_output(struct codec *codec)
{
    flush(codec->owner);
}

static void on_input_wanted(struct codec *codec)
{
    struct server_connection *connection = codec->owner;
    io_task_schedule(connection->server->io, &connection->pump, on_pump);
}

static void on_idle(struct codec *codec)
{
    (void)codec;
}

static const struct codec_events codec_events = {
    .on_exchange = on_exchange,
    .on_malformed = on_malformed,
    .on_output = on_output,
    .on_input_wanted = on_input_wanted,
    .on_idle = on_idle,
};

/* ---- answers ---- */

static void reply(struct server_call *call, uint16_t status, const char *type, const char *allow)
{
    struct message_head head = {.version = MESSAGE_HTTP_1_1,
                                .status = status,
                                .reason = message_reason(status),
                                .body = MESSAGE_BODY_LENGTH,
                                .content_length = call->size,
                                .is_head_request = call->is_head_request};
    struct exchange *exchange = &call->exchange;
    struct error error =
        message_add(&head, &call->arena, BYTES("Content-Type"), bytes_from_string(type));
    if (!error_is(error)) {
        error = message_add(&head, &call->arena, BYTES("Cache-Control"), BYTES("no-store"));
    }
    if (!error_is(error) && allow != NULL) {
        error = message_add(&head, &call->arena, BYTES("Allow"), bytes_from_string(allow));
    }
    bool is_bare = call->is_head_request || call->size == 0;
    if (!error_is(error)) {
        error = exchange_send_head(exchange, &head, is_bare);
    }
    if (error_is(error)) {
        exchange_reset(exchange, EXCHANGE_RESET_INTERNAL);
    } else if (!is_bare) {
        send_more(call);
    }
}

static void give(struct server_call *call, uint16_t status, const char *type, const char *allow,
                 char *text, size_t size)
{
    call->is_answered = true;
    call->text = text;
    call->size = text == NULL ? 0 : size;
    struct server_connection *connection = call->connection;
    if (connection == NULL) {
        free_call(call); /* the client left before its answer was there */
        return;
    }
    restart_timer(connection);
    reply(call, text == NULL && size > 0 ? 500 : status, type, allow);
    flush(connection);
}

/* The handler's answer. */
static void answer(struct server_call *call, uint16_t status, const char *type, const char *allow,
                   char *text, size_t size)
{
    CHECK(call->is_owed);
    call->is_owed = false;
    if (!call->is_late) {
        give(call, status, type, allow, text, size);
        return;
    }
    free(text);
    if (call->connection == NULL) {
        free_call(call);
    }
}

/* A handler that waits for too long (a worker is stuck) is not waited for: its client is told. */
static void on_timeout(struct io_timer *timer)
{
    struct server_connection *connection = LIST_OWNER(timer, struct server_connection, timer);
    struct server_call *call = connection->call;
    if (call == NULL || !call->is_owed || call->is_late) {
        close_connection(connection);
        return;
    }
    char *text = strdup("{\"code\":\"timeout\",\"message\":\"no answer in time: a worker or the "
                        "builder is stuck\"}\n");
    call->is_late = true;
    give(call, 503, "application/json", NULL, text, text == NULL ? 0 : strlen(text));
}

void server_wait_longer(struct server_call *call, uint32_t seconds)
{
    struct server_connection *connection = call->connection;
    if (connection != NULL) {
        struct io *io = connection->server->io;
        io_timer_start(io, &connection->timer, clock_add(io_now(io), seconds * CLOCK_NS_PER_S),
                       on_timeout);
    }
}

void server_reply(struct server_call *call, uint16_t status, const char *type, char *text,
                  size_t size)
{
    answer(call, text == NULL ? 500 : status, type, NULL, text, size);
}

void server_reply_not_allowed(struct server_call *call, const char *allow)
{
    char *text =
        strdup("{\"code\":\"method_not_allowed\",\"message\":\"this path has another method\"}\n");
    answer(call, 405, "application/json", allow, text, text == NULL ? 0 : strlen(text));
}

/* ---- transport ---- */

static struct server_connection *connection_of(struct transport *transport)
{
    return LIST_OWNER(transport, struct server_connection, transport);
}

static void on_open(struct transport *transport)
{
    (void)transport;
}

static void on_received(struct transport *transport)
{
    serve(connection_of(transport));
}

static void on_transport_end(struct transport *transport, enum codec_end end)
{
    struct server_connection *connection = connection_of(transport);
    if (connection->is_closing) {
        return;
    }
    if (connection->call ==
        NULL) { /* nothing more will be asked; what was answered may still be on its way */
        connection->is_closing = true;
        io_timer_stop(connection->server->io, &connection->timer);
        io_task_cancel(connection->server->io, &connection->pump);
        transport_close_lingering(&connection->transport);
        return;
    }
    codec_receive_end(connection->codec, end); /* half-closed clients still get their answer */
    flush(connection);
}

static void on_transport_room(struct transport *transport)
{
    struct server_connection *connection = connection_of(transport);
    restart_timer(connection);
    codec_set_room(connection->codec, transport_room(transport));
    flush(connection);
}

static void on_failed(struct transport *transport, struct error error)
{
    (void)error;
    close_connection(connection_of(transport));
}

static void on_closed(struct transport *transport)
{
    struct server_connection *connection = connection_of(transport);
    struct server *server = connection->server;
    detach_call(connection);
    codec_destroy(connection->codec);
    io_task_cancel(server->io, &connection->pump);
    io_timer_stop(server->io, &connection->timer);
    list_remove(&connection->link);
    server->connections_count--;
    if (connection->is_dropped && server->dropped_count-- == server->options.connections_max &&
        !server->is_closing) {
        io_listener_resume(&server->listener);
    }
    free(connection);
    maybe_free(server);
}

static const struct transport_events transport_events = {
    .on_open = on_open,
    .on_received = on_received,
    .on_end = on_transport_end,
    .on_room = on_transport_room,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

static void on_accept(struct io_listener *listener, int fd)
{
    static const struct transport_options transport_options = {.receive_window_bytes = 16 * 1024,
                                                               .send_high_bytes = 64 * 1024};
    struct server *server = LIST_OWNER(listener, struct server, listener);
    uint32_t count = server->connections_count - server->dropped_count;
    bool is_welcome = !server->is_closing &&
                      (server->options.is_allowed == NULL || server->options.is_allowed(fd));
    if (!is_welcome || server->dropped_count >= server->options.connections_max + ACCEPT_SLACK ||
        (count >= server->options.connections_max && !drop_oldest(server))) {
        close(fd);
        return;
    }
    struct server_connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->server = server;
    struct http1_options http1_options = {.date = server->options.date, .has_json_errors = true};
    struct error error = http1_create(CODEC_ROLE_SERVER, &codec_events, connection,
                                      io_blocks(server->io), &http1_options, &connection->codec);
    if (error_is(error)) {
        close(fd);
        free(connection);
        return;
    }
    error = transport_adopt(&connection->transport, server->io, fd, &transport_options,
                            &transport_events);
    if (error_is(error)) {
        codec_destroy(connection->codec);
        free(connection);
        return;
    }
    list_append(&server->connections, &connection->link);
    server->connections_count++;
    codec_set_room(connection->codec, transport_room(&connection->transport));
    restart_timer(connection);
    transport_resume(&connection->transport);
}

static void on_listener_closed(struct io_listener *listener)
{
    struct server *server = LIST_OWNER(listener, struct server, listener);
    server->is_listener_closed = true;
    maybe_free(server);
}

struct error server_open(struct io *io, const struct server_options *options,
                         struct server **ret_server)
{
    struct server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        close(options->fd);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    server->io = io;
    server->options = *options;
    list_init(&server->connections);
    io_listener_open(&server->listener, io, options->fd, on_accept, on_listener_closed);
    *ret_server = server;
    return OK;
}

void server_close(struct server *server)
{
    if (server == NULL) {
        return;
    }
    server->is_closing = true;
    for (struct list *node = server->connections.next, *next; node != &server->connections;
         node = next) {
        next = node->next;
        close_connection(LIST_OWNER(node, struct server_connection, link));
    }
    io_listener_close(&server->listener);
}

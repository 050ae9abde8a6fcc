/* What every connection does with its codec. */
#include "proxy/connection.h"

#include "base/check.h"

enum {
    FLUSHES_A_TURN = 4096, /* of all connections; a bound on work that makes work */
};

static void give_input(struct connection *connection)
{
    struct codec *codec = connection->codec;
    struct transport *transport = &connection->transport;
    if (codec == NULL || connection->is_broken || connection_is_closing(connection)) {
        return;
    }
    connection->is_receiving = true;
    struct error error = codec_receive(codec, transport_received(transport));
    connection->is_receiving = false;
    if (error_is(error)) {
        /* Its last words still go out. */
        connection->is_broken = true;
        codec->is_close_wanted = true;
    } else {
        transport_resume(transport);
    }
    connection_mark(connection);
}

static void close_now(struct connection *connection)
{
    struct codec *codec = connection->codec;
    struct transport *transport = &connection->transport;
    enum connection_close how = connection->close_wanted;
    if (transport->is_closing && !transport->is_lingering) {
        return;
    }
    if (codec != NULL && codec->is_abort_wanted) {
        how = CONNECTION_CLOSE_ABORT;
    }
    if (how != CONNECTION_CLOSE_ABORT && codec != NULL && !buffer_is_empty(&codec->out)) {
        /* Without memory it ends short, as it would have a moment later. */
        error_ignore(transport_send(transport, &codec->out));
    }
    if (how == CONNECTION_CLOSE_ABORT) {
        transport_abort(transport);
    } else if (how == CONNECTION_CLOSE_LINGERING ||
               (transport->is_connected && io_socket_unsent(&transport->socket) > 0)) {
        transport_close_lingering(transport);
    } else {
        transport_close(transport);
    }
}

bool connection_is_closing(const struct connection *connection)
{
    return connection->close_wanted != CONNECTION_CLOSE_NONE || connection->transport.is_closing;
}

void connection_close(struct connection *connection, enum connection_close how)
{
    if (how > connection->close_wanted) {
        connection->close_wanted = how;
    }
    if (connection->is_receiving) {
        connection_mark(connection);
    } else {
        close_now(connection);
    }
}

/* What the codec asks of the transport, the most final first. */
static void honour_wants(struct connection *connection)
{
    const struct codec *codec = connection->codec;
    struct transport *transport = &connection->transport;
    if (codec->is_abort_wanted) {
        transport_abort(transport);
    } else if (codec->is_close_wanted) {
        transport_close_lingering(transport);
    } else if (codec->is_send_end_wanted && !connection->is_end_sent) {
        connection->is_end_sent = true;
        transport_send_end(transport);
    }
}

static void flush(struct connection *connection)
{
    struct codec *codec = connection->codec;
    struct transport *transport = &connection->transport;
    if (connection->close_wanted != CONNECTION_CLOSE_NONE) {
        close_now(connection);
        return;
    }
    if (connection->is_input_wanted) {
        connection->is_input_wanted = false;
        give_input(connection);
    }
    if (codec == NULL || connection_is_closing(connection)) {
        return;
    }
    if (!buffer_is_empty(&codec->out) && !codec->is_abort_wanted) {
        struct error error = transport_send(transport, &codec->out);
        if (error_is(error)) {
            codec->is_abort_wanted = true;
        }
    }
    codec_set_room(codec, transport_room(transport));
    /* What that made due may have written more: the wants are for after it. */
    if (connection_is_closing(connection)) {
        return;
    }
    if (buffer_is_empty(&codec->out) || codec->is_abort_wanted) {
        honour_wants(connection);
    } else {
        connection_mark(connection);
    }
}

static void flush_all(struct io_task *task)
{
    struct flusher *flusher = LIST_OWNER(task, struct flusher, task);
    struct list *node = NULL;
    for (int i = 0; i < FLUSHES_A_TURN && (node = list_take(&flusher->dirty)) != NULL; i++) {
        flush(LIST_OWNER(node, struct connection, dirty));
    }
    if (!list_is_empty(&flusher->dirty)) {
        io_task_schedule(flusher->io, &flusher->task, flush_all);
    }
}

void flusher_init(struct flusher *flusher, struct io *io)
{
    *flusher = (struct flusher){.io = io};
    list_init(&flusher->dirty);
}

void flusher_finish(struct flusher *flusher)
{
    io_task_cancel(flusher->io, &flusher->task);
}

void connection_init(struct connection *connection, struct flusher *flusher)
{
    connection->flusher = flusher;
    connection->codec = NULL;
    list_init(&connection->dirty);
    connection->close_wanted = CONNECTION_CLOSE_NONE;
    connection->is_receiving = false;
    connection->is_input_wanted = false;
    connection->is_end_sent = false;
    connection->is_broken = false;
}

void connection_set_codec(struct connection *connection, struct codec *codec)
{
    CHECK(connection->codec == NULL);
    connection->codec = codec;
    codec->transport_room = transport_room(&connection->transport);
    give_input(connection);
}

void connection_on_received(struct connection *connection)
{
    give_input(connection);
}

void connection_on_room(struct connection *connection)
{
    if (connection->codec != NULL) {
        connection_mark(connection);
    }
}

void connection_on_end(struct connection *connection, enum codec_end end)
{
    if (connection->codec != NULL) {
        codec_receive_end(connection->codec, end);
        connection_mark(connection);
    }
}

void connection_mark(struct connection *connection)
{
    if (!list_is_empty(&connection->dirty)) {
        return;
    }
    struct flusher *flusher = connection->flusher;
    list_append(&flusher->dirty, &connection->dirty);
    io_task_schedule(flusher->io, &flusher->task, flush_all);
}

void connection_want_input(struct connection *connection)
{
    connection->is_input_wanted = true;
    connection_mark(connection);
}

void connection_finish(struct connection *connection)
{
    list_remove(&connection->dirty);
    struct codec *codec = connection->codec;
    connection->codec = NULL;
    codec_destroy(codec);
    /* Its last events may have marked it again. */
    list_remove(&connection->dirty);
}

void connection_on_output(struct codec *codec)
{
    connection_mark(codec->owner);
}

void connection_on_input_wanted(struct codec *codec)
{
    connection_want_input(codec->owner);
}

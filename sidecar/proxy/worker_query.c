/* What the control thread asks of a worker: rows of connections, endpoints and streams, a bounded
 * number a turn. */
#include <stdio.h>

#include "proxy/downstream.h"
#include "proxy/stream.h"
#include "proxy/worker_state.h"

static void copy_text(char *to, size_t size, struct bytes from)
{
    size_t count = from.size < size - 1 ? from.size : size - 1;
    if (count > 0) {
        memcpy(to, from.data, count);
    }
    to[count] = '\0';
}

static const char *state_of(const struct downstream *downstream, const struct stream *stream)
{
    if (stream != NULL) {
        return stream_state_name(stream->state);
    }
    switch (downstream->state) {
    case DOWNSTREAM_STATE_DETECT:
        return "detect";
    case DOWNSTREAM_STATE_CODEC:
        return downstream->connection.transport.is_closing ? "closing" : "idle";
    case DOWNSTREAM_STATE_OPAQUE:
    case DOWNSTREAM_STATE_CLOSING:
        break;
    }
    return "closing";
}

static void fill_connection(const struct downstream *downstream, uint64_t now_ns,
                            struct worker_connection_row *row)
{
    const struct io_socket *socket = &downstream->connection.transport.socket;
    const struct stream *stream =
        list_is_empty(&downstream->streams)
            ? NULL
            : LIST_OWNER(downstream->streams.next, struct stream, of_downstream);
    *row = (struct worker_connection_row){.number = downstream->number,
                                          .direction = downstream->direction,
                                          .protocol = downstream->protocol,
                                          .destination = downstream_destination(downstream),
                                          .state = state_of(downstream, stream),
                                          .age_ns = now_ns - downstream->accepted_ns,
                                          .received_bytes = socket->received_bytes,
                                          .sent_bytes = socket->sent_bytes};
    /* A peer that is gone has no address any more. */
    error_ignore(io_socket_address(socket, IO_ADDRESS_PEER, &row->downstream));
    if (stream != NULL) {
        row->endpoint = stream->dialled;
        if (stream->parent != NULL) {
            copy_text(row->parent, sizeof(row->parent), stream->parent->label);
        }
    }
}

/* Slab order: the cursor is an index, so what comes and goes meanwhile disturbs nobody. */
static void fill_connections(const struct worker *worker, struct worker_query *query)
{
    const struct slab *slab = &worker->downstream_slab;
    uint64_t now_ns = io_now(worker->io);
    uint64_t index = query->cursor;
    for (; index < slab->touched && query->rows_count < WORKER_QUERY_ROWS_MAX; index++) {
        const struct downstream *downstream = slab_at(slab, (uint32_t)index);
        if (slab_is_used(slab, downstream)) {
            fill_connection(downstream, now_ns, &query->connections[query->rows_count++]);
        }
    }
    query->cursor = index < slab->touched ? index : WORKER_QUERY_END;
}

static void fill_endpoints(const struct worker *worker, struct worker_query *query)
{
    uint64_t now_ns = io_now(worker->io);
    while (query->rows_count < WORKER_QUERY_ROWS_MAX) {
        const struct endpoint *endpoint = clusters_next(worker->clusters, &query->cursor);
        if (endpoint == NULL) {
            query->cursor = WORKER_QUERY_END;
            return;
        }
        const struct cluster *cluster = endpoint->cluster;
        if (cluster->is_address) {
            continue;
        }
        struct worker_endpoint_row *row = &query->endpoints[query->rows_count++];
        *row = (struct worker_endpoint_row){.port = cluster->port,
                                            .address = endpoint->addresses[0],
                                            .is_cluster_ip = endpoint->is_cluster_ip,
                                            .is_ejected = endpoint_is_ejected(endpoint, now_ns),
                                            .active = endpoint->active,
                                            .connections = endpoint->connections};
        snprintf(row->service, sizeof(row->service), "%.*s/%.*s", (int)cluster->namespace.size,
                 (const char *)cluster->namespace.data, (int)cluster->name.size,
                 (const char *)cluster->name.data);
    }
}

/* Lines of the dump: `skip` of them were given before. */
struct lines {
    struct worker_query *query;
    uint64_t skip;
    uint64_t seen;
};

static char *next_line(struct lines *lines)
{
    uint64_t number = lines->seen++;
    struct worker_query *query = lines->query;
    if (number < lines->skip || query->rows_count == WORKER_QUERY_ROWS_MAX) {
        return NULL;
    }
    return query->lines[query->rows_count++];
}

static void add_op(const char *name, uint64_t age_ns, int fd, void *argument)
{
    char *line = next_line(argument);
    if (line != NULL) {
        snprintf(line, sizeof(((struct worker_query *)0)->lines[0]), "op %s fd=%d age_ms=%lu", name,
                 fd, (unsigned long)(age_ns / CLOCK_NS_PER_MS));
    }
}

static void fill_dump(const struct worker *worker, struct worker_query *query)
{
    uint64_t now_ns = io_now(worker->io);
    struct lines lines = {.query = query, .skip = query->cursor};
    const struct slab *slab = &worker->stream_slab;
    for (uint32_t i = 0; i < slab->touched; i++) {
        const struct stream *stream = slab_at(slab, i);
        char *line = slab_is_used(slab, stream) ? next_line(&lines) : NULL;
        if (line != NULL) {
            snprintf(line, sizeof(query->lines[0]),
                     "stream connection=%lu state=%s age_ms=%lu idle_ms=%lu attempts=%u %s",
                     (unsigned long)stream->number, stream_state_name(stream->state),
                     (unsigned long)((now_ns - stream->began_ns) / CLOCK_NS_PER_MS),
                     (unsigned long)((now_ns - stream->active_ns) / CLOCK_NS_PER_MS),
                     stream->attempts, stream->is_opaque ? "opaque" : "http");
        }
    }
    io_for_each_op(worker->io, add_op, &lines);
    uint64_t given = lines.skip + query->rows_count;
    query->cursor = given < lines.seen ? given : WORKER_QUERY_END;
}

static void on_answer(struct io_message *message)
{
    struct worker_query *query = LIST_OWNER(message, struct worker_query, message);
    query->on_answer(query);
}

static void on_question(struct io_message *message)
{
    struct worker_query *query = LIST_OWNER(message, struct worker_query, message);
    query->rows_count = 0;
    switch (query->kind) {
    case WORKER_QUERY_CONNECTIONS:
        fill_connections(query->worker, query);
        break;
    case WORKER_QUERY_ENDPOINTS:
        fill_endpoints(query->worker, query);
        break;
    case WORKER_QUERY_DUMP:
        fill_dump(query->worker, query);
        break;
    case WORKER_QUERY_ALIVE:
        query->cursor = WORKER_QUERY_END;
        break;
    }
    query->message.run = on_answer;
    io_post(query->asker, &query->message);
}

void worker_ask(struct worker *worker, struct worker_query *query)
{
    query->worker = worker;
    query->message.run = on_question;
    io_post(worker->io, &query->message);
}

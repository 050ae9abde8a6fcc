/*
 * A worker: its memory, its turn, its look at the configuration, what it is told and asked by the
 * control thread.
 */
#include "proxy/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "http/opaque.h"
#include "limits.h"
#include "proxy/downstream.h"
#include "proxy/stream.h"
#include "proxy/worker_state.h"
#include "upstream/upstream.h"

#define DRAIN_TICK_NS (20 * CLOCK_NS_PER_MS)
#define DRAIN_IDLE_NS (100 * CLOCK_NS_PER_MS)
#define STOP_NS CLOCK_NS_PER_S /* for last bytes; a second signal should not take longer */

enum {
    SWEEP_CLUSTERS = 64, /* looked at in one turn after a new snapshot */
};

/* ---- the configuration ---- */

struct snapshot_hold *worker_hold(struct worker *worker)
{
    worker->current->streams++;
    return worker->current;
}

static void free_hold(struct worker *worker, struct snapshot_hold *hold)
{
    snapshot_unref(hold->snapshot);
    slab_put(&worker->hold_slab, hold);
}

void worker_release(struct worker *worker, struct snapshot_hold *hold)
{
    CHECK(hold->streams > 0);
    if (--hold->streams > 0 || hold->is_current) {
        return;
    }
    struct snapshot_hold **place = &worker->current->older;
    while (*place != hold) {
        place = &(*place)->older;
    }
    *place = hold->older;
    free_hold(worker, hold);
}

static void sweep(struct io_task *task)
{
    struct worker *worker = LIST_OWNER(task, struct worker, sweep_task);
    const struct snapshot *snapshot = worker_snapshot(worker);
    if (!clusters_sweep(worker->clusters, route_config_services(snapshot->config),
                        snapshot->generation, SWEEP_CLUSTERS)) {
        io_task_schedule(worker->io, task, sweep);
    }
}

/* Streams that need the old snapshot no more let go of it now; the others when they are ready. */
static void detach_streams(struct worker *worker)
{
    struct list *node = worker->streams.next;
    while (node != &worker->streams) {
        struct stream *stream = LIST_OWNER(node, struct stream, open);
        node = node->next;
        stream_detach(stream);
    }
}

/* Errors: ERROR_NO_MEMORY: the snapshot is let go, the old one stays in force. */
static struct error take_snapshot(struct worker *worker, struct snapshot *snapshot)
{
    struct snapshot_hold *hold = slab_take(&worker->hold_slab);
    if (hold == NULL) {
        snapshot_unref(snapshot);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct snapshot_hold *old = worker->current;
    *hold = (struct snapshot_hold){.snapshot = snapshot, .is_current = true, .older = old};
    worker->current = hold;
    if (old == NULL) {
        return OK;
    }
    old->is_current = false;
    /* Held over the walk, which may end its last use. */
    old->streams++;
    detach_streams(worker);
    worker_release(worker, old);
    io_task_schedule(worker->io, &worker->sweep_task, sweep);
    return OK;
}

/* ---- small services ---- */

void worker_count_exchange(struct worker *worker, int change)
{
    stats_set(&worker->open_exchanges,
              (uint64_t)((int64_t)stats_read(&worker->open_exchanges) + change));
}

void worker_refresh_date(struct worker *worker)
{
    uint64_t second = io_now(worker->io) / CLOCK_NS_PER_S;
    if (second != worker->date_second) {
        worker->date_second = second;
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        http1_print_date((uint64_t)now.tv_sec, worker->date);
    }
}

void worker_close_descriptor(struct worker *worker, int fd)
{
    if (io_backend_of(worker->io) != IO_BACKEND_FAKE) {
        close(fd);
    }
}

static bool has_address(const struct worker_settings *settings, const struct address *address)
{
    for (uint32_t i = 0; i < settings->own_addresses_count; i++) {
        if (address_equal_ip(&settings->own_addresses[i], address)) {
            return true;
        }
    }
    return address_is_loopback(address);
}

bool worker_is_listen(const struct worker *worker, const struct address *address)
{
    static const uint8_t any[sizeof(address->ip)];
    const struct worker_settings *settings = worker->settings;
    for (uint32_t i = 0; i < settings->listeners_count; i++) {
        const struct address *item = &settings->listeners[i].address;
        if (settings->listeners[i].kind != LISTENER_NAMED || item->port != address->port ||
            item->family != address->family) {
            continue;
        }
        bool is_any = memcmp(item->ip, any, sizeof(any)) == 0;
        if (address_equal_ip(item, address) || (is_any && has_address(settings, address))) {
            return true;
        }
    }
    return false;
}

bool worker_is_own(const struct worker *worker, const struct address *address)
{
    const struct worker_settings *settings = worker->settings;
    bool is_own_port = false;
    for (uint32_t i = 0; i < settings->own_ports_count; i++) {
        is_own_port = is_own_port || settings->own_ports[i] == address->port;
    }
    return is_own_port && has_address(settings, address);
}

static void on_endpoint_gone(struct endpoint *endpoint)
{
    conn_pool_close_endpoint(endpoint);
}

/* ---- codecs ---- */

static struct error make_opaque(struct worker *worker, enum codec_role role,
                                const struct codec_events *events, struct connection *connection,
                                struct codec **ret_codec)
{
    return opaque_create(role, events, connection, io_blocks(worker->io), ret_codec);
}

static struct error make_http1(struct worker *worker, enum codec_role role,
                               const struct codec_events *events, struct connection *connection,
                               struct codec **ret_codec)
{
    const struct http1_options options = {.date = worker->date};
    return http1_create(role, events, connection, io_blocks(worker->io), &options, ret_codec);
}

/* ---- memory ---- */

static struct error init_slabs(struct worker *worker)
{
    uint32_t connections = worker->settings->connections_max + ACCEPT_SLACK;
    TRY(slab_init(&worker->hold_slab, sizeof(struct snapshot_hold), SNAPSHOTS_MAX));
    TRY(slab_init(&worker->downstream_slab, sizeof(struct downstream), connections));
    TRY(slab_init(&worker->upstream_slab, sizeof(struct upstream),
                  connections * UPSTREAMS_PER_CONNECTION));
    TRY(slab_init(&worker->stream_slab, sizeof(struct stream),
                  connections * STREAMS_PER_CONNECTION));
    const struct clusters_options options = {.clusters_max = CLUSTERS_MAX,
                                             .endpoints_max = ENDPOINTS_MAX,
                                             .connections_max = CLUSTER_CONNECTIONS_MAX,
                                             .on_endpoint_gone = on_endpoint_gone};
    TRY(clusters_create(&options, &worker->clusters));
    return route_scratch_create(&worker->scratch);
}

static void free_worker(struct worker *worker)
{
    clusters_destroy(worker->clusters);
    route_scratch_destroy(worker->scratch);
    while (worker->current != NULL) {
        struct snapshot_hold *hold = worker->current;
        CHECK(hold->streams == 0);
        worker->current = hold->older;
        free_hold(worker, hold);
    }
    for (uint32_t i = 0; i < worker->stream_slab.touched; i++) {
        struct stream *stream = slab_at(&worker->stream_slab, i);
        arena_finish(&stream->arena);
    }
    slab_finish(&worker->downstream_slab);
    slab_finish(&worker->upstream_slab);
    slab_finish(&worker->stream_slab);
    slab_finish(&worker->hold_slab);
    listeners_finish(worker);
    free(worker);
}

static struct error init(struct worker *worker, const struct worker_options *options, struct io *io)
{
    worker->options = *options;
    worker->settings = options->settings;
    worker->io = io;
    worker->codecs[CODEC_OPAQUE] = make_opaque;
    worker->codecs[CODEC_HTTP1] = make_http1;
    flusher_init(&worker->flusher, io);
    list_init(&worker->downstreams);
    list_init(&worker->upstreams);
    list_init(&worker->streams);
    conn_pool_init(&worker->pool, io, options->settings->pool_idle_timeout_ns);
    shortage_init(&worker->shortage, worker);
    worker_refresh_date(worker);
    TRY(init_slabs(worker));
    TRY(take_snapshot(worker, options->snapshot));
    return listeners_open(worker);
}

FALLIBLE worker_create(const struct worker_options *options, struct io *io,
                       struct worker **ret_worker)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) {
        snapshot_unref(options->snapshot);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct error error = init(worker, options, io);
    if (error_is(error)) {
        if (worker->current == NULL) {
            snapshot_unref(options->snapshot);
        }
        free_worker(worker);
        return error;
    }
    *ret_worker = worker;
    return OK;
}

/* ---- the turn ---- */

FALLIBLE worker_turn(struct worker *worker, uint64_t until_ns)
{
    TRY(io_turn(worker->io, until_ns));
    stats_set(&worker->last_turn_ns, io_now(worker->io));
    return OK;
}

uint64_t worker_open_exchanges(const struct worker *worker)
{
    return stats_read(&worker->open_exchanges) + stats_read(&worker->unsent);
}

uint64_t worker_last_turn_ns(const struct worker *worker)
{
    return stats_read(&worker->last_turn_ns);
}

/* ---- what it is told ---- */

/* A message of the control thread, which has no other memory for it. */
struct order {
    struct io_message message;
    struct worker *worker;     /* borrowed */
    struct snapshot *snapshot; /* one reference; NULL where none is meant */
};

static void give_order(struct worker *worker, io_message_fn run, struct snapshot *snapshot)
{
    struct order *order = malloc(sizeof(*order));
    if (order == NULL) {
        /* Nothing can be told any more; a publication is made up for by the next one. */
        log_line(NULL, LOG_ERROR, "msg=\"no memory to tell a worker\" worker=%u",
                 worker->options.index);
        snapshot_unref(snapshot);
        return;
    }
    *order = (struct order){.message = {.run = run}, .worker = worker, .snapshot = snapshot};
    io_post(worker->io, &order->message);
}

static struct order take_order(struct io_message *message)
{
    struct order *order = LIST_OWNER(message, struct order, message);
    struct order copy = *order;
    free(order);
    return copy;
}

static void on_publish(struct io_message *message)
{
    struct order order = take_order(message);
    struct worker *worker = order.worker;
    uint64_t generation = order.snapshot->generation;
    if (error_is(take_snapshot(worker, order.snapshot))) {
        log_line(worker->options.log, LOG_ERROR,
                 "msg=\"too many generations are in use\" worker=%u generation=%lu",
                 worker->options.index, (unsigned long)generation);
    }
}

void worker_publish(struct worker *worker, struct snapshot *snapshot)
{
    give_order(worker, on_publish, snapshot);
}

static void drain_connections(struct worker *worker, bool is_idle_too)
{
    struct list *node = worker->downstreams.next;
    while (node != &worker->downstreams) {
        struct downstream *downstream = LIST_OWNER(node, struct downstream, open);
        node = node->next;
        if (is_idle_too || !list_is_empty(&downstream->streams)) {
            downstream_drain(downstream);
        }
    }
}

/* An answer that is given and not sent is not finished. */
static void count_unsent(struct io_timer *timer)
{
    struct worker *worker = LIST_OWNER(timer, struct worker, drain_timer);
    if (worker->drain_idle_ns != 0 && io_now(worker->io) >= worker->drain_idle_ns) {
        worker->drain_idle_ns = 0;
        drain_connections(worker, true);
    }
    uint64_t unsent = 0;
    const struct list *node = worker->downstreams.next;
    for (; node != &worker->downstreams; node = node->next) {
        const struct downstream *downstream =
            (const struct downstream *)(const void *)((const char *)node -
                                                      offsetof(struct downstream, open));
        unsent += io_socket_unsent(&downstream->connection.transport.socket) > 0;
    }
    stats_set(&worker->unsent, unsent);
    io_timer_start(worker->io, timer, io_now(worker->io) + DRAIN_TICK_NS, count_unsent);
}

static void on_drain(struct io_message *message)
{
    struct worker *worker = take_order(message).worker;
    worker->is_draining = true;
    /* Idle connections a little later: a request may be on its way already, and is answered. */
    worker->drain_idle_ns = clock_add(io_now(worker->io), DRAIN_IDLE_NS);
    drain_connections(worker, false);
    count_unsent(&worker->drain_timer);
}

void worker_drain(struct worker *worker)
{
    give_order(worker, on_drain, NULL);
}

/* What is open on `downstream` ends because we do. */
static void cut_off(struct downstream *downstream)
{
    struct list *node = downstream->streams.next;
    for (; node != &downstream->streams; node = node->next) {
        struct stream *stream = LIST_OWNER(node, struct stream, of_downstream);
        stream->cause = stream->cause == CAUSE_NONE ? CAUSE_DRAIN : stream->cause;
    }
    downstream_abort(downstream);
}

static void abort_all(struct worker *worker)
{
    struct list *node = worker->downstreams.next;
    while (node != &worker->downstreams) {
        struct downstream *downstream = LIST_OWNER(node, struct downstream, open);
        node = node->next;
        cut_off(downstream);
    }
    node = worker->upstreams.next;
    while (node != &worker->upstreams) {
        struct upstream *upstream = LIST_OWNER(node, struct upstream, open);
        node = node->next;
        if (upstream->attempts_count == 0) {
            upstream_abort(upstream);
        }
    }
}

static void on_stop_timer(struct io_timer *timer)
{
    abort_all(LIST_OWNER(timer, struct worker, stop_timer));
}

/* Did all that is open on `downstream` begin after the drain was found to be over? */
static bool is_young(const struct worker *worker, const struct downstream *downstream)
{
    if (!worker->is_draining || worker->is_cut_off) {
        return false;
    }
    uint64_t now_ns = io_now(worker->io);
    const struct list *node = downstream->streams.next;
    for (; node != &downstream->streams; node = node->next) {
        const struct stream *stream =
            (const struct stream *)(const void *)((const char *)node -
                                                  offsetof(struct stream, of_downstream));
        if (now_ns - stream->began_ns >= STOP_NS) {
            return false;
        }
    }
    return true;
}

/*
 * What is under way is cut off; what has only its last bytes to send gets a moment for them, and so
 * do requests that came when the drain was just found to be over.
 */
static void close_all(struct worker *worker)
{
    worker->is_stopping = true;
    listeners_close(worker);
    io_timer_stop(worker->io, &worker->drain_timer);
    struct list *node = worker->downstreams.next;
    while (node != &worker->downstreams) {
        struct downstream *downstream = LIST_OWNER(node, struct downstream, open);
        node = node->next;
        if (list_is_empty(&downstream->streams)) {
            connection_close(&downstream->connection, CONNECTION_CLOSE_FLUSHED);
        } else if (!is_young(worker, downstream)) {
            cut_off(downstream);
        }
    }
    conn_pool_close_all(&worker->pool);
    io_timer_start(worker->io, &worker->stop_timer, io_now(worker->io) + STOP_NS, on_stop_timer);
}

static void on_stop(struct io_message *message)
{
    close_all(take_order(message).worker);
}

static void on_cut_off(struct io_message *message)
{
    struct worker *worker = take_order(message).worker;
    worker->is_cut_off = true;
    close_all(worker);
}

void worker_cut_off(struct worker *worker)
{
    give_order(worker, on_cut_off, NULL);
}

void worker_stop(struct worker *worker)
{
    give_order(worker, on_stop, NULL);
}

/* Everything is closed and handed back. */
static bool is_over(const struct worker *worker)
{
    return worker->is_stopping && list_is_empty(&worker->downstreams) &&
           list_is_empty(&worker->upstreams) && list_is_empty(&worker->streams) &&
           io_is_idle(worker->io);
}

static void finish_tasks(struct worker *worker)
{
    flusher_finish(&worker->flusher);
    shortage_finish(&worker->shortage);
    io_task_cancel(worker->io, &worker->sweep_task);
    io_timer_stop(worker->io, &worker->stop_timer);
}

void worker_destroy(struct worker *worker)
{
    close_all(worker);
    /* A handful of turns: every socket reports its end. */
    while (!is_over(worker)) {
        struct error error = worker_turn(worker, io_now(worker->io) + CLOCK_NS_PER_S);
        CHECK(!error_is(error));
    }
    finish_tasks(worker);
    free_worker(worker);
}

/* ---- with a thread of its own ---- */

struct worker_thread {
    pthread_t thread;
    struct worker_options options;
    struct worker *worker;
    struct error error; /* of the start */
    int started;        /* eventfd: the thread is ready, or has failed */
};

static void *run_thread(void *argument)
{
    struct worker_thread *thread = argument;
    char name[16];
    snprintf(name, sizeof(name), "worker-%u", thread->options.index);
    pthread_setname_np(pthread_self(), name);
    struct io *io = NULL;
    struct worker *worker = NULL;
    thread->options.io.heap_bytes_max = HEAP_BYTES_MAX;
    struct error error = io_create(thread->options.backend, &thread->options.io, &io);
    if (error_is(error)) {
        snapshot_unref(thread->options.snapshot);
    } else {
        error = worker_create(&thread->options, io, &worker);
        if (error_is(error)) {
            io_destroy(io);
        } else {
            worker->thread = thread;
        }
    }
    thread->worker = worker;
    thread->error = error;
    uint64_t one = 1;
    bool is_told = write(thread->started, &one, sizeof(one)) == sizeof(one);
    CHECK(is_told);
    if (error_is(error)) {
        return NULL;
    }
    while (!is_over(worker)) {
        error = worker_turn(worker, CLOCK_NEVER);
        if (error_is(error)) {
            log_line(NULL, LOG_ERROR,
                     "msg=\"the ring is unusable\" worker=%u error=\"%s\" detail=%d",
                     thread->options.index, error_text(error.code), error.detail);
            abort();
        }
    }
    finish_tasks(worker);
    return NULL;
}

FALLIBLE worker_start(const struct worker_options *options, struct worker **ret_worker)
{
    struct worker_thread *thread = calloc(1, sizeof(*thread));
    int started = eventfd(0, EFD_CLOEXEC);
    if (thread == NULL || started < 0) {
        struct error error =
            started < 0 ? error_from_errno(errno) : error_make(ERROR_NO_MEMORY, ENOMEM);
        free(thread);
        if (started >= 0) {
            close(started);
        }
        snapshot_unref(options->snapshot);
        return error;
    }
    thread->options = *options;
    thread->started = started;
    int number = pthread_create(&thread->thread, NULL, run_thread, thread);
    if (number != 0) {
        close(started);
        free(thread);
        snapshot_unref(options->snapshot);
        return error_from_errno(number);
    }
    uint64_t count = 0;
    bool is_told = read(started, &count, sizeof(count)) == sizeof(count);
    CHECK(is_told);
    close(started);
    struct error error = thread->error;
    if (error_is(error)) {
        pthread_join(thread->thread, NULL);
        free(thread);
        return error;
    }
    *ret_worker = thread->worker;
    return OK;
}

void worker_join(struct worker *worker)
{
    struct worker_thread *thread = worker->thread;
    CHECK(thread != NULL);
    pthread_join(thread->thread, NULL);
}

void worker_free(struct worker *worker)
{
    struct worker_thread *thread = worker->thread;
    struct io *io = worker->io;
    free_worker(worker);
    io_destroy(io);
    free(thread);
}

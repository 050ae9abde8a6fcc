/* The builder thread is a small event loop that may block: inotify, a look every 10 s, and requests
 * from control. */
#include "control/builder.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

enum {
    SETTLE_MS = 50,   /* after a change: an editor writes several files */
    WRITING_MS = 400, /* while a file is being written: an empty half of it would be valid YAML */
    SETTLE_MS_MAX = 700, /* after the first change, whatever follows: in force within 1 s */
    LOOK_SECONDS = 10,   /* contract section 2: in force within 10 s if the watch is deaf */
    REWATCH_MS = 1000,   /* while the directory is not there */
    INOTIFY_BYTES = 4096,
};

struct builder {
    struct builder_options options;
    const struct route_config
        *config; /* one reference: the last good one, for sharing with the next */
    uint64_t generation;
    /* The thread's own from here on. */
    pthread_t thread;
    bool is_started;
    bool is_stopping;
    struct io *io;
    int inotify_fd;
    int watch; /* -1: the directory could not be watched */
    struct io_watch inotify;
    struct io_timer settle;
    uint64_t changed_ns; /* the first change that is not loaded yet */
    struct io_timer look;
    pthread_barrier_t ready;
    struct error start_error;
};

/* A request, a retired snapshot, or the end: what control and workers send to the builder. */
struct builder_request {
    struct io_message message;
    struct builder *builder;
    void *argument;
};

static uint64_t wall_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
}

void builder_result_free(struct builder_result *result)
{
    if (result == NULL) {
        return;
    }
    snapshot_unref(result->snapshot);
    route_diagnostics_finish(&result->diagnostics);
    free(result);
}

static void run_retire(struct io_message *message)
{
    snapshot_destroy(LIST_OWNER(message, struct snapshot, retire_message));
}

/* The last unref of a snapshot, on any thread: free it here, where that may take its milliseconds.
 */
static void retire(struct snapshot *snapshot, void *argument)
{
    struct builder *builder = argument;
    if (builder->io == NULL) {
        snapshot_destroy(snapshot); /* the thread never started */
        return;
    }
    snapshot->retire_message.run = run_retire;
    io_post(builder->io, &snapshot->retire_message);
}

/* Load; the outcome is in the result, which is NULL only without memory. */
static struct builder_result *load(struct builder *builder, void *argument)
{
    struct builder_result *result = calloc(1, sizeof(*result));
    if (result == NULL) {
        return NULL;
    }
    route_diagnostics_init(&result->diagnostics);
    result->builder = builder;
    result->argument = argument;
    result->at_ms = wall_clock_ms();
    uint64_t begin_ns = monotonic_ns();
    struct route_load_options options = builder->options.load;
    options.ret_hash = result->hash;
    if (builder->config != NULL && route_config_is_unchanged(&options, builder->config)) {
        memcpy(result->hash, route_config_hash(builder->config), sizeof(result->hash));
        result->outcome = BUILDER_UNCHANGED;
        return result;
    }
    struct route_config *config = NULL;
    result->error = route_config_load(&options, builder->config, &result->diagnostics, &config);
    result->duration_ns = monotonic_ns() - begin_ns;
    if (error_is(result->error)) {
        result->outcome = BUILDER_REFUSED;
        return result;
    }
    result->error =
        snapshot_create(route_config_ref(config), builder->generation + 1, &result->snapshot);
    if (error_is(result->error)) {
        result->outcome = BUILDER_REFUSED;
        route_config_unref(config);
        route_config_unref(config);
        return result;
    }
    result->snapshot->retire = retire;
    result->snapshot->retire_argument = builder;
    builder->generation++;
    route_config_unref(builder->config);
    builder->config = config;
    result->outcome = BUILDER_APPLIED;
    return result;
}

static void deliver(struct io_message *message)
{
    struct builder_result *result = LIST_OWNER(message, struct builder_result, message);
    struct builder *builder = result->builder;
    if (builder->is_stopping) {
        builder_result_free(result);
        return;
    }
    builder->options.on_result(result, builder->options.owner);
}

/* Load on the builder thread and send what came of it. */
static void load_and_post(struct builder *builder, void *argument)
{
    io_timer_stop(builder->io, &builder->settle);
    struct builder_result *result = load(builder, argument);
    if (result == NULL) {
        return; /* without memory for 200 bytes nothing can be said either; the next look tries
                   again */
    }
    result->message.run = deliver;
    io_post(builder->options.control, &result->message);
}

static void watch_directory(struct builder *builder)
{
    static const uint32_t events = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
                                   IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF |
                                   IN_MOVE_SELF | IN_ONLYDIR;
    builder->watch = inotify_add_watch(builder->inotify_fd, builder->options.directory, events);
}

static void on_look(struct io_timer *timer)
{
    struct builder *builder = LIST_OWNER(timer, struct builder, look);
    bool was_watched = builder->watch >= 0;
    watch_directory(builder); /* also follows a directory that was replaced under its name */
    load_and_post(builder, NULL);
    uint64_t pause_ns = builder->watch >= 0 || was_watched ? LOOK_SECONDS * CLOCK_NS_PER_S
                                                           : REWATCH_MS * CLOCK_NS_PER_MS;
    io_timer_start(builder->io, &builder->look, clock_add(io_now(builder->io), pause_ns), on_look);
}

static void on_settled(struct io_timer *timer)
{
    struct builder *builder = LIST_OWNER(timer, struct builder, settle);
    load_and_post(builder, NULL);
}

static void on_inotify(struct io_watch *watch)
{
    struct builder *builder = LIST_OWNER(watch, struct builder, inotify);
    bool is_lost = false;
    bool is_writing = false;
    for (;;) {
        _Alignas(struct inotify_event) char buffer[INOTIFY_BYTES];
        ssize_t size = read(builder->inotify_fd, buffer, sizeof(buffer));
        if (size <= 0) {
            break;
        }
        for (ssize_t at = 0; at < size;) {
            const struct inotify_event *event =
                (const struct inotify_event *)(const void *)(buffer + at);
            is_writing = (event->mask & (IN_CREATE | IN_MODIFY)) != 0;
            is_lost = is_lost || (event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0;
            at += (ssize_t)(sizeof(*event) + event->len);
        }
    }
    if (is_lost) {
        builder->watch = -1;
        uint64_t soon_ns = clock_add(io_now(builder->io), REWATCH_MS * CLOCK_NS_PER_MS);
        io_timer_start(builder->io, &builder->look, soon_ns, on_look);
    }
    uint64_t now_ns = io_now(builder->io);
    if (!io_timer_is_running(&builder->settle)) {
        builder->changed_ns = now_ns;
    }
    uint64_t quiet_ms = is_writing ? WRITING_MS : SETTLE_MS;
    uint64_t settled_ns = clock_add(now_ns, quiet_ms * CLOCK_NS_PER_MS);
    uint64_t latest_ns = clock_add(builder->changed_ns, SETTLE_MS_MAX * CLOCK_NS_PER_MS);
    io_timer_start(builder->io, &builder->settle, settled_ns < latest_ns ? settled_ns : latest_ns,
                   on_settled);
}

static void on_inotify_closed(struct io_watch *watch)
{
    (void)watch;
}

static struct error open_thread(struct builder *builder)
{
    struct io_options options = io_options_default();
    options.block_count = 1;
    TRY(io_create(IO_BACKEND_EPOLL, &options, &builder->io));
    builder->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    builder->watch = -1;
    if (builder->inotify_fd >= 0) { /* without it the look every 10 s remains: contract section 2 */
        watch_directory(builder);
        io_watch_open(&builder->inotify, builder->io, builder->inotify_fd, on_inotify,
                      on_inotify_closed);
    }
    uint64_t pause_ns =
        builder->watch >= 0 ? LOOK_SECONDS * CLOCK_NS_PER_S : REWATCH_MS * CLOCK_NS_PER_MS;
    io_timer_start(builder->io, &builder->look, clock_add(io_now(builder->io), pause_ns), on_look);
    /* What changed between the first load and the watch. */
    io_timer_start(builder->io, &builder->settle, io_now(builder->io), on_settled);
    return OK;
}

static void close_thread(struct builder *builder)
{
    if (builder->inotify_fd >= 0) {
        io_watch_close(&builder->inotify);
    }
    io_timer_stop(builder->io, &builder->look);
    io_timer_stop(builder->io, &builder->settle);
    while (!io_is_idle(builder->io)) {
        if (error_is(io_turn(builder->io, io_now(builder->io)))) {
            break;
        }
    }
    if (builder->inotify_fd >= 0) {
        close(builder->inotify_fd);
    }
}

static void *run(void *argument)
{
    struct builder *builder = argument;
    pthread_setname_np(pthread_self(), "builder");
    builder->start_error = open_thread(builder);
    bool is_open = !error_is(builder->start_error);
    if (!is_open) { /* before anybody learns of it and looks at io */
        io_destroy(builder->io);
        builder->io = NULL;
    }
    pthread_barrier_wait(&builder->ready);
    if (!is_open) {
        return NULL;
    }
    while (!builder->is_stopping) {
        if (error_is(io_turn(builder->io, CLOCK_NEVER))) {
            break; /* the last good configuration stays in force; control's liveness does not depend
                      on us */
        }
    }
    close_thread(builder);
    return NULL;
}

struct error builder_create(const struct builder_options *options, struct builder **ret_builder,
                            struct builder_result **ret_result)
{
    struct builder *builder = calloc(1, sizeof(*builder));
    if (builder == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    builder->options = *options;
    builder->inotify_fd = -1;
    struct builder_result *result = load(builder, NULL);
    if (result == NULL) {
        free(builder);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *ret_builder = builder;
    *ret_result = result;
    return OK;
}

struct error builder_start(struct builder *builder)
{
    pthread_barrier_init(&builder->ready, NULL, 2);
    int failure = pthread_create(&builder->thread, NULL, run, builder);
    if (failure != 0) {
        pthread_barrier_destroy(&builder->ready);
        return error_from_errno(failure);
    }
    builder->is_started = true;
    pthread_barrier_wait(
        &builder->ready); /* destroyed when the thread has left it: after the join */
    return builder->start_error;
}

static void run_request(struct io_message *message)
{
    struct builder_request *request = LIST_OWNER(message, struct builder_request, message);
    struct builder *builder = request->builder;
    void *argument = request->argument;
    free(request);
    load_and_post(builder, argument);
}

void builder_ask(struct builder *builder, void *argument)
{
    struct builder_request *request = calloc(1, sizeof(*request));
    CHECK(request != NULL); /* control thread, 32 bytes: as good as never, and nobody to tell */
    request->message.run = run_request;
    request->builder = builder;
    request->argument = argument;
    io_post(builder->io, &request->message);
}

static void run_stop(struct io_message *message)
{
    struct builder_request *request = LIST_OWNER(message, struct builder_request, message);
    request->builder->is_stopping = true;
}

void builder_destroy(struct builder *builder)
{
    if (builder == NULL) {
        return;
    }
    if (builder->is_started) {
        struct builder_request stop = {.message = {.run = run_stop}, .builder = builder};
        if (builder->io != NULL) {
            io_post(builder->io, &stop.message);
        }
        pthread_join(builder->thread, NULL);
        pthread_barrier_destroy(&builder->ready);
        io_destroy(builder->io);
        builder->io = NULL;
        builder->is_stopping = true;
        /* The last results are still on their way to this thread. */
        error_ignore(io_turn(builder->options.control, io_now(builder->options.control)));
    }
    route_config_unref(builder->config);
    free(builder);
}

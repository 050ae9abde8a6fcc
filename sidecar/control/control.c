/*
 * The control thread. Start-up in order of what can fail for the user's reasons (configuration,
 * addresses), then one event loop until everything is told to end.
 */
#include "control/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "control/admin.h"
#include "control/admin_socket.h"
#include "control/health.h"
#include "control/startup.h"
#include "http/http1.h"

enum {
    LOG_RING_BYTES = 256 * 1024, /* of one worker; touched lazily */
    LOG_BATCH_BYTES = 64 * 1024,
    LOG_MS = 20,               /* while lines come; a ring that falls asleep wakes us */
    DRAIN_FIRST_LOOK_MS = 150, /* idle connections are closed after 100 ms (worker.c) */
    DRAIN_LOOK_MS = 20,
    STOP_MS = 1000,          /* for the kernel to hand everything back at the end */
    BYPASS_CONNECTIONS = 20, /* before it is said that nobody dials a ClusterIP */
    SELF_TEST_MS = 2000,
    SELF_TEST_TIMEOUT_MS = 1000,
    HEALTH_CONNECTIONS_MAX = 64,
    ADMIN_CONNECTIONS_MAX = 8,
};

static void say(enum log_level level, const char *message, const char *detail)
{
    log_line(NULL, level, "msg=\"%s\"%s%s", message, detail[0] == '\0' ? "" : " ", detail);
}

/* ---- logs ---- */

/* Write what a ring holds; true when there was something. */
static bool drain_ring(struct log_ring *ring, int fd)
{
    static uint8_t batch[LOG_BATCH_BYTES]; /* the control thread's alone */
    bool is_any = false;
    if (ring == NULL) { /* a start that failed before this worker */
        return false;
    }
    for (int rounds = 0; rounds < 16; rounds++) {
        size_t size = log_ring_read(ring, batch, sizeof(batch));
        if (size == 0) {
            return is_any;
        }
        is_any = true;
        (void)log_write(
            fd,
            bytes_make(batch, size)); /* a pipe that nobody reads loses lines, never holds us up */
    }
    return is_any;
}

static void drain_logs(struct control *control)
{
    for (uint32_t i = 0; i < control->workers_count; i++) {
        drain_ring(control->logs[i], STDERR_FILENO);
        drain_ring(control->access_logs[i], STDOUT_FILENO);
    }
}

static void on_log_timer(struct io_timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, log_timer);
    bool is_quiet = true;
    for (uint32_t i = 0; i < control->workers_count; i++) {
        bool is_any = drain_ring(control->logs[i], STDERR_FILENO);
        is_any = drain_ring(control->access_logs[i], STDOUT_FILENO) || is_any;
        is_quiet = is_quiet && !is_any && log_ring_sleep(control->logs[i]) &&
                   log_ring_sleep(control->access_logs[i]);
    }
    if (!is_quiet) {
        io_timer_start(control->io, timer, clock_add(io_now(control->io), LOG_MS * CLOCK_NS_PER_MS),
                       on_log_timer);
    }
}

struct log_wake {
    struct io_message message;
    struct control *control;
};

static void run_log_wake(struct io_message *message)
{
    struct log_wake *wake = LIST_OWNER(message, struct log_wake, message);
    struct control *control = wake->control;
    free(wake);
    if (!io_timer_is_running(&control->log_timer) && control->state != CONTROL_STOPPED) {
        io_timer_start(control->io, &control->log_timer,
                       clock_add(io_now(control->io), LOG_MS * CLOCK_NS_PER_MS), on_log_timer);
    }
}

/* On a worker's thread: it wrote a line and we had gone to sleep. */
static void wake_for_log(void *argument)
{
    struct control *control = argument;
    struct log_wake *wake = malloc(sizeof(*wake));
    if (wake != NULL) { /* else the lines wait for the next wake */
        *wake = (struct log_wake){.message = {.run = run_log_wake}, .control = control};
        io_post(control->io, &wake->message);
    }
}

/* ---- configuration ---- */

static void log_diagnostics(const struct route_diagnostics *diagnostics)
{
    for (uint32_t i = 0; i < diagnostics->count; i++) {
        const struct route_diagnostic *item = &diagnostics->items[i];
        enum log_level level = item->severity == ROUTE_SEVERITY_ERROR ? LOG_ERROR : LOG_WARNING;
        char text[1024];
        text[log_escape(text, 0, sizeof(text) - 1, bytes_from_string(item->message))] = '\0';
        log_line(NULL, level, "msg=\"%s\" code=%s at=%s:%u:%u", text, item->code,
                 item->position.file == NULL ? "-" : item->position.file, item->position.line,
                 item->position.column);
    }
}

static void log_refusal(const struct control *control, const struct builder_result *result)
{
    log_diagnostics(&result->diagnostics);
    if (result->error.code == ERROR_CONFIG) {
        log_line(NULL, LOG_ERROR, "msg=\"configuration refused\" config=%s errors=%u",
                 control->options->config, result->diagnostics.errors_count);
    } else {
        log_line(NULL, LOG_ERROR,
                 "msg=\"configuration cannot be read\" config=%s reason=\"%s\" errno=\"%s\"",
                 control->options->config, error_text(result->error.code),
                 strerror(result->error.detail));
    }
}

/* Put a new generation in force. */
static void apply(struct control *control, struct builder_result *result)
{
    struct snapshot *snapshot = result->snapshot;
    result->snapshot = NULL;
    for (uint32_t i = 0; i < control->workers_count; i++) {
        worker_publish(control->workers[i], snapshot_ref(snapshot));
    }
    snapshot_unref(control->current);
    control->current = snapshot;
    builder_result_free(control->refused);
    control->refused = NULL;
    control->reloads_applied++;
    struct route_load_stats stats = route_config_stats(snapshot->config);
    log_line(NULL, LOG_INFO,
             "msg=\"configuration applied\" generation=%llu hash=%s files=%u parsed=%u tables=%u "
             "compiled=%u ms=%llu",
             (unsigned long long)snapshot->generation, snapshot->hash, stats.files,
             stats.files_parsed, stats.tables, stats.tables_compiled,
             (unsigned long long)(result->duration_ns / CLOCK_NS_PER_MS));
}

/* The same refusal again and again (a look every 10 s) is told once. */
static bool is_same_refusal(const struct builder_result *a, const struct builder_result *b)
{
    if (a == NULL || a->error.code != b->error.code || a->error.detail != b->error.detail ||
        strcmp(a->hash, b->hash) != 0 || a->diagnostics.count != b->diagnostics.count) {
        return false;
    }
    for (uint32_t i = 0; i < a->diagnostics.count; i++) {
        if (strcmp(a->diagnostics.items[i].message, b->diagnostics.items[i].message) != 0) {
            return false;
        }
    }
    return true;
}

static void on_result(struct builder_result *result, void *owner)
{
    struct control *control = owner;
    void *argument = result->argument;
    switch (result->outcome) {
    case BUILDER_APPLIED:
        log_diagnostics(&result->diagnostics);
        apply(control, result);
        break;
    case BUILDER_UNCHANGED:
        control->reloads_unchanged++;
        builder_result_free(control->refused); /* the files are those in force again */
        control->refused = NULL;
        break;
    case BUILDER_REFUSED:
        if (argument != NULL || !is_same_refusal(control->refused, result)) {
            control->reloads_refused++;
            log_refusal(control, result);
        }
        builder_result_free(control->refused);
        control->refused = result;
        break;
    }
    if (argument != NULL) {
        admin_reload_done(control, argument, result);
    }
    if (result != control->refused) {
        builder_result_free(result);
    }
}

/* ---- readiness and metrics ---- */

uint32_t control_not_ready(const struct control *control, char *text, size_t size)
{
    uint32_t count = 0;
    size_t length = 0;
    text[0] = '\0';
    if (control->current == NULL) {
        length += (size_t)snprintf(text + length, size - length, "config: none is in force\n");
        count++;
    }
    if (control->options->require_interception &&
        control->interception != CONTROL_INTERCEPTION_PASSED) {
        length += (size_t)snprintf(
            text + length, size - length,
            "interception: the self-test %s; run outrigger intercept --check\n",
            control->interception == CONTROL_INTERCEPTION_FAILED ? "failed" : "has not run yet");
        count++;
    }
    if (control->state != CONTROL_RUNNING) {
        snprintf(text + length, size - length, "draining\n");
        count++;
    }
    return count;
}

bool control_is_bypassed(const struct control *control)
{
    return stats_destination_sum(control->stats, control->workers_count,
                                 STATS_DESTINATION_CLUSTER_IP) == 0 &&
           stats_destination_sum(control->stats, control->workers_count,
                                 STATS_DESTINATION_ENDPOINT) >= BYPASS_CONNECTIONS;
}

static double process_cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* The number behind `name` in /proc/self/status, in its own unit; 0 when it is not there. */
static double process_status(const char *name)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        close(fd);
    }
    if (size <= 0) {
        return 0;
    }
    text[size] = '\0';
    const char *found = strstr(text, name);
    return found == NULL ? 0 : strtod(found + strlen(name), NULL);
}

/* What /proc/self/fd lists; its own descriptor is one of them. */
static uint32_t open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    uint32_t count = 0;
    while (directory != NULL && readdir(directory) != NULL) {
        count++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count < 3 ? 0 : count - 3; /* less ".", ".." and the listing itself */
}

static uint64_t logs_dropped(const struct control *control)
{
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < control->workers_count; i++) {
        dropped += log_ring_dropped(control->logs[i]) + log_ring_dropped(control->access_logs[i]);
    }
    return dropped;
}

static void add_gauge(struct stats_gauge *gauges, uint32_t *count, uint32_t max,
                      struct stats_gauge gauge)
{
    if (*count < max) {
        gauges[(*count)++] = gauge;
    }
}

#define GAUGE(name, help, value)                                                                   \
    add_gauge(ret_gauges, &count, max, (struct stats_gauge){(name), (help), false, (double)(value)})
#define COUNTER(name, help, value)                                                                 \
    add_gauge(ret_gauges, &count, max, (struct stats_gauge){(name), (help), true, (double)(value)})

uint32_t control_gauges(const struct control *control, struct stats_gauge *ret_gauges, uint32_t max)
{
    uint32_t count = 0;
    char text[1024];
    GAUGE("outrigger_config_generation", "Generation in force.",
          control->current == NULL ? 0 : control->current->generation);
    COUNTER("outrigger_config_reloads_total{result=\"applied\"}",
            "Configurations read, by what came of them.", control->reloads_applied);
    COUNTER("outrigger_config_reloads_total{result=\"unchanged\"}", NULL,
            control->reloads_unchanged);
    COUNTER("outrigger_config_reloads_total{result=\"refused\"}", NULL, control->reloads_refused);
    GAUGE("outrigger_config_refused", "1 while the files on disk are not those in force.",
          control->refused != NULL);
    GAUGE("outrigger_ready", "1 while the proxy is ready.",
          control_not_ready(control, text, sizeof(text)) == 0);
    GAUGE("outrigger_io_backend{backend=\"uring\"}", "1 for the back end in use.",
          control->probe.backend == IO_BACKEND_URING);
    GAUGE("outrigger_io_backend{backend=\"epoll\"}", NULL,
          control->probe.backend == IO_BACKEND_EPOLL);
    GAUGE("outrigger_interception",
          "1 when the self-test passed, 0 when it failed, -1 when it is not asked for.",
          control->interception == CONTROL_INTERCEPTION_UNKNOWN
              ? -1
              : control->interception == CONTROL_INTERCEPTION_PASSED);
    GAUGE("outrigger_cluster_ip_bypassed", "1 when endpoints are dialled and never a ClusterIP.",
          control_is_bypassed(control));
    COUNTER("outrigger_log_lines_dropped_total", "Lines dropped because a log ring was full.",
            logs_dropped(control));
    COUNTER("process_cpu_seconds_total", "User and system time.", process_cpu_seconds());
    GAUGE("process_resident_memory_bytes", "Resident memory.", process_status("VmRSS:") * 1024);
    GAUGE("process_virtual_memory_bytes", "Virtual memory.", process_status("VmSize:") * 1024);
    GAUGE("process_threads", "Threads.", process_status("Threads:"));
    GAUGE("process_open_fds", "Open descriptors.", open_descriptors());
    GAUGE("process_start_time_seconds", "Wall clock at the start.", control->started_at_seconds);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    GAUGE("process_max_fds", "Limit of open descriptors.", limit.rlim_cur);
    return count;
}

/* ---- drain and end ---- */

static uint64_t open_exchanges(const struct control *control)
{
    uint64_t open = 0;
    for (uint32_t i = 0; i < control->workers_count; i++) {
        open += worker_open_exchanges(control->workers[i]);
    }
    return open;
}

static void stop(struct control *control, enum exit_status status)
{
    if (control->state == CONTROL_STOPPED) {
        return;
    }
    control->state = CONTROL_STOPPED;
    control->exit_status = status;
    io_timer_stop(control->io, &control->drain_timer);
}

static void on_drain_timer(struct io_timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, drain_timer);
    uint64_t open = open_exchanges(control);
    if (open == 0) {
        say(LOG_INFO, "drained", "cut_off=0");
        stop(control, EXIT_STATUS_OK);
        return;
    }
    if (io_now(control->io) >= control->drain_deadline_ns) {
        log_line(NULL, LOG_WARNING, "msg=\"drain deadline\" cut_off=%llu",
                 (unsigned long long)open);
        stop(control, EXIT_STATUS_CUT_OFF);
        return;
    }
    io_timer_start(control->io, timer,
                   clock_add(io_now(control->io), DRAIN_LOOK_MS * CLOCK_NS_PER_MS), on_drain_timer);
}

void control_drain(struct control *control)
{
    if (control->state != CONTROL_RUNNING) {
        return;
    }
    control->state = CONTROL_DRAINING;
    log_line(NULL, LOG_INFO, "msg=draining open=%llu seconds=%u",
             (unsigned long long)open_exchanges(control), control->options->drain_seconds);
    control->drain_deadline_ns =
        clock_add(io_now(control->io), control->options->drain_seconds * CLOCK_NS_PER_S);
    for (uint32_t i = 0; i < control->workers_count; i++) {
        worker_drain(control->workers[i]);
    }
    /* Not at once: the workers first hear of it and count what they had accepted but not yet read.
     */
    io_timer_start(control->io, &control->drain_timer,
                   clock_add(io_now(control->io), DRAIN_FIRST_LOOK_MS * CLOCK_NS_PER_MS),
                   on_drain_timer);
}

static void on_signal(struct io_watch *watch)
{
    struct control *control = LIST_OWNER(watch, struct control, signals);
    struct signalfd_siginfo info;
    while (read(control->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP) {
            builder_ask(control->builder, NULL);
        } else if (control->state == CONTROL_RUNNING) {
            control_drain(control);
        } else {
            say(LOG_WARNING, "stopping at once", "");
            stop(control, open_exchanges(control) == 0 ? EXIT_STATUS_OK : EXIT_STATUS_CUT_OFF);
        }
    }
}

static void on_signals_closed(struct io_watch *watch)
{
    (void)watch; /* the descriptor is closed in finish(), when the kernel is done */
}

/* ---- small clocks ---- */

static void on_date_timer(struct io_timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, date_timer);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    http1_print_date((uint64_t)now.tv_sec, control->date);
    uint64_t rest_ns = CLOCK_NS_PER_S - (uint64_t)now.tv_nsec;
    io_timer_start(control->io, timer, clock_add(io_now(control->io), rest_ns), on_date_timer);
}

static void on_level_timer(struct io_timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, level_timer);
    log_set_level(control->options->log_level);
    log_line(NULL, LOG_INFO, "msg=\"log level restored\" to=%s",
             log_level_name(control->options->log_level));
}

void control_restore_level_at(struct control *control, uint64_t until_ns)
{
    if (until_ns == CLOCK_NEVER) {
        io_timer_stop(control->io, &control->level_timer);
    } else {
        io_timer_start(control->io, &control->level_timer, until_ns, on_level_timer);
    }
}

/* ---- the self-test of the redirection (design 6) ---- */

static void on_self_test(struct io_timer *timer);

static void finish_self_test(struct control *control, bool is_passed)
{
    enum control_interception before = control->interception;
    control->interception = is_passed ? CONTROL_INTERCEPTION_PASSED : CONTROL_INTERCEPTION_FAILED;
    if (before != control->interception) {
        log_line(NULL, is_passed ? LOG_INFO : LOG_WARNING,
                 "msg=\"interception self-test\" result=%s", is_passed ? "passed" : "failed");
    }
}

static void on_probe_event(struct io_socket *socket, uint32_t events)
{
    struct control *control = LIST_OWNER(socket, struct control, probe_socket);
    if ((events & IO_EVENT_CLOSED) != 0) {
        control->is_probe_open = false;
        return;
    }
    if ((events & IO_EVENT_CONNECTED) != 0) {
        finish_self_test(control, true);
        io_close(socket);
    } else if ((events & IO_EVENT_FAILED) != 0) {
        finish_self_test(control, false);
        io_close(socket);
    }
}

/* A probe that nothing redirects goes to TEST-NET-1, where nobody answers: at the next tick it has
 * failed. */
static void on_self_test(struct io_timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, probe_timer);
    if (control->is_probe_open) {
        if (!control->probe_socket.is_closing) {
            finish_self_test(control, false);
            io_close(&control->probe_socket);
        }
    } else {
        struct address probe;
        error_ignore(address_parse_ip(BYTES("192.0.2.2"), control->options->outbound_port,
                                      &probe)); /* a constant */
        control->probe_socket = (struct io_socket){0};
        if (error_is(io_socket_connect(&control->probe_socket, control->io, &probe, NULL,
                                       on_probe_event))) {
            finish_self_test(control, false);
        } else {
            control->is_probe_open = true;
        }
    }
    uint64_t pause_ms = control->is_probe_open ? SELF_TEST_TIMEOUT_MS : SELF_TEST_MS;
    io_timer_start(control->io, timer, clock_add(io_now(control->io), pause_ms * CLOCK_NS_PER_MS),
                   on_self_test);
}

/* ---- start-up ---- */

static struct error start_worker(struct control *control, uint32_t index,
                                 const struct startup_listeners *listeners)
{
    TRY(stats_create(index, &control->stats[index]));
    TRY(log_ring_create(LOG_RING_BYTES, &control->logs[index]));
    TRY(log_ring_create(control->options->access_log == ACCESS_LOG_OFF ? 16 : 4 * LOG_RING_BYTES,
                        &control->access_logs[index]));
    log_ring_set_wake(control->logs[index], wake_for_log, control);
    log_ring_set_wake(control->access_logs[index], wake_for_log, control);
    struct worker_options options = {
        .index = index,
        .count = control->workers_count,
        .backend = control->probe.backend,
        .io = io_options_default(),
        .settings = &control->settings,
        .listeners = index == 0 ? listeners->items : NULL,
        .listeners_count = index == 0 ? listeners->count : 0,
        .workers = control->workers,
        .snapshot = snapshot_ref(control->current),
        .stats = control->stats[index],
        .log = control->logs[index],
        .access_log = control->access_logs[index],
    };
    return worker_start(&options, &control->workers[index]);
}

/* The last worker first: worker 0 accepts, and hands over to the others from its first turn on. */
static bool start_workers(struct control *control, const struct startup_listeners *listeners)
{
    for (uint32_t i = control->workers_count; i-- > 0;) {
        struct error error = start_worker(control, i, listeners);
        if (error_is(error)) {
            log_line(NULL, LOG_ERROR,
                     "msg=\"cannot start a worker\" worker=%u reason=\"%s\" errno=\"%s\"", i,
                     error_text(error.code), strerror(error.detail));
            return false;
        }
    }
    return true;
}

static bool choose_backend(struct control *control)
{
    io_probe(&control->probe);
    enum io_backend asked = control->options->io;
    if (asked == IO_BACKEND_EPOLL) {
        control->probe = (struct io_probe){.backend = IO_BACKEND_EPOLL,
                                           .refusal = IO_REFUSAL_ASKED,
                                           .reason = "epoll was asked for by --io",
                                           .remedy = ""};
    }
    if (control->probe.refusal == IO_REFUSAL_NONE) {
        return true;
    }
    enum log_level level = control->probe.refusal == IO_REFUSAL_ASKED ? LOG_INFO
                           : asked == IO_BACKEND_URING                ? LOG_ERROR
                                                                      : LOG_WARNING;
    log_line(NULL, level, "msg=\"io_uring is not in use\" reason=\"%s\" remedy=\"%s\"",
             control->probe.reason, control->probe.remedy);
    return asked != IO_BACKEND_URING;
}

static struct error open_io(struct control *control)
{
    struct io_options options = io_options_default();
    options.block_count = 16;
    options.block_bytes = 4096;
    options.submission_entries = 32;
    options.completion_entries = 128;
    return io_create(control->probe.backend, &options, &control->io);
}

static bool load_first(struct control *control)
{
    const struct options *options = control->options;
    static const char *paths[1];
    paths[0] = options->config;
    struct builder_options builder = {
        .load = {.paths = paths,
                 .paths_count = 1,
                 .namespace = options->own_namespace,
                 .require_reference_grants = options->require_reference_grants,
                 .skip_invalid_objects = options->skip_invalid_objects},
        .directory = options->config,
        .control = control->io,
        .on_result = on_result,
        .owner = control,
    };
    struct builder_result *result = NULL;
    struct error error = builder_create(&builder, &control->builder, &result);
    if (error_is(error)) {
        say(LOG_ERROR, "out of memory", "");
        control->exit_status = EXIT_STATUS_ENVIRONMENT;
        return false;
    }
    bool is_applied = result->outcome == BUILDER_APPLIED;
    if (is_applied) {
        log_diagnostics(&result->diagnostics);
        apply(control, result);
    } else {
        log_refusal(control, result);
        control->exit_status =
            result->error.code == ERROR_CONFIG ? EXIT_STATUS_CONFIG : EXIT_STATUS_ENVIRONMENT;
    }
    builder_result_free(result);
    return is_applied;
}

/* Paths of the command line that must be there from the start; a line says which is not. */
static bool are_paths_usable(const struct options *options)
{
    int fd = open(options->config, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        log_line(NULL, LOG_ERROR,
                 "msg=\"cannot open the directory\" flag=--config path=%s reason=\"%s\"",
                 options->config, strerror(errno));
        return false;
    }
    close(fd);
    if (options->pod_labels != NULL && access(options->pod_labels, R_OK) != 0) {
        log_line(NULL, LOG_ERROR,
                 "msg=\"cannot read the file\" flag=--pod-labels path=%s reason=\"%s\"",
                 options->pod_labels, strerror(errno));
        return false;
    }
    return true;
}

/* Not yet served by this version, and not to be ignored in silence. */
static bool refuse_unserved(const struct options *options)
{
    if (options->certs != NULL || options->credential_bundle != NULL ||
        options->trust_bundle != NULL) {
        say(LOG_ERROR, "mesh TLS is not in this version",
            "remedy=\"leave --certs, --credential-bundle and --trust-bundle out\"");
        return false;
    }
    return true;
}

static bool open_health(struct control *control)
{
    if (control->options->health_port == 0) {
        return true;
    }
    struct server_options server = {.connections_max = HEALTH_CONNECTIONS_MAX,
                                    .date = control->date,
                                    .handle = health_handle,
                                    .owner = control};
    return startup_health_listener(control->options->health_port, &server.fd) &&
           !error_is(server_open(control->io, &server, &control->health));
}

static bool open_admin(struct control *control)
{
    const struct options *options = control->options;
    char reason[256];
    int fd = -1;
    struct error error =
        admin_socket_open(options->admin_socket, options->admin_group, &fd, reason, sizeof(reason));
    if (error_is(error)) {
        log_line(NULL, LOG_ERROR,
                 "msg=\"cannot open the admin socket\" flag=--admin-socket path=%s reason=\"%s\"",
                 options->admin_socket, reason);
        return false;
    }
    struct server_options server = {
        .fd = fd,
        .connections_max = ADMIN_CONNECTIONS_MAX,
        .date = control->date,
        .is_allowed = options->admin_group == NULL ? admin_socket_is_allowed : NULL,
        .handle = admin_handle,
        .owner = control};
    return !error_is(server_open(control->io, &server, &control->admin));
}

static bool open_signals(struct control *control)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before any thread starts: all inherit it */
    signal(SIGPIPE, SIG_IGN);
    control->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (control->signal_fd < 0) {
        say(LOG_ERROR, "cannot watch signals", strerror(errno));
        return false;
    }
    return true;
}

/* Everything that can fail, in the order in which a user would want to hear of it; exit_status says
 * what did. */
static bool start(struct control *control, struct startup_listeners *listeners)
{
    control->exit_status = EXIT_STATUS_ENVIRONMENT;
    if (!are_paths_usable(control->options) || !open_signals(control) || !choose_backend(control)) {
        return false;
    }
    struct error error = open_io(control);
    if (error_is(error)) {
        log_line(NULL, LOG_ERROR, "msg=\"cannot set up I/O\" reason=\"%s\" errno=\"%s\"",
                 error_text(error.code), strerror(error.detail));
        return false;
    }
    control->started_ns = io_now_exact(control->io);
    control->started_at_seconds = (uint64_t)time(NULL);
    on_date_timer(&control->date_timer);
    control->workers_count = 0; /* nobody to publish to yet */
    if (!load_first(control)) {
        return false;
    }
    control->exit_status = EXIT_STATUS_ENVIRONMENT;
    control->workers_count = startup_workers_count(control->options);
    startup_settings(control->options, control->workers_count, control->own_addresses,
                     sizeof(control->own_addresses) / sizeof(control->own_addresses[0]),
                     &control->settings);
    if (!startup_open_listeners(control->options, listeners) || !open_health(control) ||
        !open_admin(control)) {
        return false;
    }
    if (!start_workers(control, listeners)) {
        return false;
    }
    return !error_is(builder_start(control->builder));
}

static void log_started(const struct control *control)
{
    log_line(NULL, LOG_INFO,
             "msg=started version=%s io=%s workers=%u generation=%llu outbound=%u inbound=%u "
             "health=%u admin=%s listens=%u",
             OUTRIGGER_VERSION, io_backend_name(control->probe.backend), control->workers_count,
             (unsigned long long)control->current->generation, control->options->outbound_port,
             control->options->inbound_port, control->options->health_port,
             control->options->admin_socket, control->options->listens_count);
}

/* Turn until the kernel has handed everything back, at most for a second. */
static void settle(struct control *control)
{
    uint64_t until_ns = clock_add(io_now_exact(control->io), STOP_MS * CLOCK_NS_PER_MS);
    while (!io_is_idle(control->io) && io_now_exact(control->io) < until_ns) {
        if (error_is(
                io_turn(control->io, clock_add(io_now_exact(control->io), 10 * CLOCK_NS_PER_MS)))) {
            return;
        }
    }
}

static void finish(struct control *control)
{
    for (uint32_t i = 0; i < control->workers_count; i++) {
        if (control->workers[i] != NULL) {
            if (control->exit_status == EXIT_STATUS_CUT_OFF) {
                worker_cut_off(control->workers[i]);
            } else {
                worker_stop(control->workers[i]);
            }
        }
    }
    for (uint32_t i = 0; i < control->workers_count; i++) {
        if (control->workers[i] != NULL) {
            worker_join(control->workers[i]);
        }
    }
    server_close(control->health);
    server_close(control->admin);
    if (control->admin != NULL) {
        unlink(control->options->admin_socket);
    }
    if (control->is_probe_open && !control->probe_socket.is_closing) {
        io_close(&control->probe_socket);
    }
    if (control->signals.io != NULL) {
        io_watch_close(&control->signals);
    }
    if (control->io != NULL) {
        settle(control);
        drain_logs(control);
    }
    snapshot_unref(control->current);
    builder_result_free(control->refused);
    builder_destroy(control->builder);
    if (control->io != NULL && io_is_idle(control->io)) {
        io_destroy(control->io);
    }
    for (uint32_t i = 0; i < control->workers_count; i++) {
        stats_destroy(control->stats[i]);
        log_ring_destroy(control->logs[i]);
        log_ring_destroy(control->access_logs[i]);
    }
    if (control->signal_fd >= 0) {
        close(control->signal_fd);
    }
}

enum exit_status control_run(const struct options *options)
{
    static struct control control; /* one process, one control; large */
    control = (struct control){.options = options, .signal_fd = -1};
    log_set_level(options->log_level);
    static struct startup_listeners listeners;
    if (!refuse_unserved(options)) {
        return EXIT_STATUS_USAGE;
    }
    if (start(&control, &listeners)) {
        control.exit_status = EXIT_STATUS_OK;
        io_watch_open(&control.signals, control.io, control.signal_fd, on_signal,
                      on_signals_closed);
        on_log_timer(&control.log_timer);
        if (options->require_interception) {
            on_self_test(&control.probe_timer);
        }
        log_started(&control);
        while (control.state != CONTROL_STOPPED) {
            if (error_is(io_turn(control.io, CLOCK_NEVER))) {
                stop(&control, EXIT_STATUS_ENVIRONMENT);
            }
        }
    }
    finish(&control);
    return control.exit_status;
}

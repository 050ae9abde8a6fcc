/*
 * The control thread. Start-up in order of what can fail for the user's reasons (configuration,
 * addresses), then one event loop until everything is told to end.
 */
#include "control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/admin.h"
#include "control/admin_socket.h"
#include "control/health.h"
#include "control/interception.h"
#include "control/log_output.h"
#include "control/reload.h"
#include "control/startup.h"
#include "http/http1.h"

enum {
    LOG_RING_BYTES = 256 * 1024, /* of one worker; touched lazily */
    DRAIN_FIRST_LOOK_MS = 150,   /* idle connections are closed after 100 ms (worker.c) */
    DRAIN_LOOK_MS = 20,
    STOP_MS = 1000, /* for the kernel to hand everything back at the end */
    HEALTH_CONNECTIONS_MAX = 64,
    ADMIN_CONNECTIONS_MAX = 16,
};

static void say(enum log_level level, const char *message, const char *detail)
{
    log_line(NULL, level, "msg=\"%s\"%s%s", message, detail[0] == '\0' ? "" : " ", detail);
}

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

/* ---- start-up ---- */

/* Say why io_uring is not in use; false: it was asked for, so that there is no other way. */
static bool accept_refusal(const struct control *control)
{
    enum io_backend asked = control->options->io;
    enum log_level level = control->probe.refusal == IO_REFUSAL_ASKED ? LOG_INFO
                           : asked == IO_BACKEND_URING                ? LOG_ERROR
                                                                      : LOG_WARNING;
    log_line(NULL, level, "msg=\"io_uring is not in use\" reason=\"%s\" remedy=\"%s\"",
             control->probe.reason, control->probe.remedy);
    return asked != IO_BACKEND_URING;
}

static bool choose_backend(struct control *control)
{
    if (control->options->io == IO_BACKEND_EPOLL) {
        control->probe = (struct io_probe){.backend = IO_BACKEND_EPOLL,
                                           .refusal = IO_REFUSAL_ASKED,
                                           .reason = "epoll was asked for by --io",
                                           .remedy = ""};
    } else {
        io_probe(&control->probe);
    }
    return control->probe.refusal == IO_REFUSAL_NONE || accept_refusal(control);
}

/* The probe found room for a ring, and then there was none for all of them (locked memory counts
 * for the user over the whole node): epoll for the workers. False: `error` is about something else.
 */
static bool fall_back(struct control *control, struct error error)
{
    bool is_ring = error.code == ERROR_NO_MEMORY || error.code == ERROR_UNSUPPORTED;
    if (!is_ring || control->probe.backend != IO_BACKEND_URING) {
        return false;
    }
    io_probe_from_error(error, &control->probe);
    return accept_refusal(control);
}

static struct error create_cells(struct control *control, uint32_t index)
{
    TRY(stats_create(index, &control->stats[index]));
    TRY(log_ring_create(LOG_RING_BYTES, &control->logs[index]));
    TRY(log_ring_create(control->options->access_log == ACCESS_LOG_OFF ? 16 : 4 * LOG_RING_BYTES,
                        &control->access_logs[index]));
    log_output_attach(control, index);
    return OK;
}

static struct error start_worker(struct control *control, uint32_t index,
                                 const struct startup_listeners *listeners)
{
    if (control->stats[index] == NULL) {
        TRY(create_cells(control, index));
    }
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
    options.io.own_addresses = control->settings.own_addresses;
    options.io.own_addresses_count = control->settings.own_addresses_count;
    return worker_start(&options, &control->workers[index]);
}

static void stop_workers(struct control *control)
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
    for (uint32_t i = 0; i < control->workers_count; i++) {
        if (control->workers[i] != NULL) {
            worker_free(control->workers[i]);
            control->workers[i] = NULL;
        }
    }
}

/* The last worker first: worker 0 accepts, and hands over to the others from its first turn on. */
static bool start_workers(struct control *control, const struct startup_listeners *listeners)
{
    for (uint32_t i = control->workers_count; i-- > 0;) {
        struct error error = start_worker(control, i, listeners);
        if (error_is(error) && fall_back(control, error)) {
            stop_workers(control);
            i = control->workers_count; /* all of them again: it happens once */
            continue;
        }
        if (error_is(error)) {
            log_line(NULL, LOG_ERROR,
                     "msg=\"cannot start a worker\" worker=%u reason=\"%s\" errno=\"%s\"", i,
                     error_text(error.code), strerror(error.detail));
            return false;
        }
    }
    return true;
}

static struct error open_io(struct control *control)
{
    struct io_options options = io_options_default();
    options.block_count = 16;
    options.block_bytes = 4096;
    options.submission_entries = 32;
    options.completion_entries = 128;
    struct error error = io_create(control->probe.backend, &options, &control->io);
    return error_is(error) && fall_back(control, error)
               ? io_create(control->probe.backend, &options, &control->io)
               : error;
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
    if (!reload_first(control)) {
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
    control->settings.listeners = listeners->items;
    control->settings.listeners_count = listeners->count;
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
    stop_workers(control);
    server_close(control->health);
    server_close(control->admin);
    if (control->admin != NULL) {
        unlink(control->options->admin_socket);
    }
    interception_stop(control);
    if (control->signals.io != NULL) {
        io_watch_close(&control->signals);
    }
    if (control->io != NULL) {
        settle(control);
        log_output_drain(control);
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
        log_output_start(&control);
        if (options->require_interception) {
            interception_start(&control);
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

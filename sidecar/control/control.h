/*
 * The control thread: starts everything, then signals, drain, health port, admin socket, metrics
 * and log output. It never blocks, so that a liveness probe is answered whatever else happens.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/builder.h"
#include "control/server.h"
#include "control/snapshot.h"
#include "control/stats.h"
#include "options.h"
#include "proxy/worker.h"

enum exit_status {
    EXIT_STATUS_OK = 0,
    EXIT_STATUS_ENVIRONMENT = 1,
    EXIT_STATUS_USAGE = 2,
    EXIT_STATUS_CUT_OFF = 4,
    EXIT_STATUS_CONFIG = 78,
};

enum control_state {
    CONTROL_RUNNING,
    CONTROL_DRAINING,
    CONTROL_STOPPED,
};

enum control_interception {
    CONTROL_INTERCEPTION_UNKNOWN, /* not asked to look: --require-interception is off */
    CONTROL_INTERCEPTION_PASSED,
    CONTROL_INTERCEPTION_FAILED,
};

/* One connection of the self-test (interception.c). */
struct interception_probe {
    struct control *control; /* borrowed */
    struct io_socket socket;
    bool is_open;
    bool is_waiting; /* for its result in this round */
    bool is_passed;  /* in the last round that is over */
};

enum {
    INTERCEPTION_FAMILIES = 2 /* IPv4, IPv6 */
};

/* What the rooms of control/ share; the control thread's alone. */
struct control {
    const struct options *options; /* borrowed */
    struct io *io;
    struct io_probe probe;
    struct builder *builder;
    struct snapshot *current;       /* in force; one reference */
    struct builder_result *refused; /* owned: the last refusal; NULL: none since the last success */
    uint64_t reloads_applied;
    uint64_t reloads_unchanged;
    uint64_t reloads_refused;
    struct worker_settings settings;
    struct address own_addresses[64];
    struct worker *workers[OPTIONS_WORKERS_MAX];
    struct stats *stats[OPTIONS_WORKERS_MAX];
    struct log_ring *logs[OPTIONS_WORKERS_MAX];
    struct log_ring *access_logs[OPTIONS_WORKERS_MAX];
    uint64_t log_lines_lost; /* nobody reads standard output or standard error */
    uint32_t workers_count;
    struct server *health;
    uint32_t live_late_count; /* probes that a worker has left without an answer (health.c) */
    struct server *admin;
    struct io_watch signals;
    int signal_fd;
    struct io_timer log_timer;
    struct io_timer date_timer;
    struct io_timer drain_timer;
    struct io_timer level_timer; /* puts the log level back after POST /log?for= */
    struct io_timer probe_timer;
    struct interception_probe probes[INTERCEPTION_FAMILIES];
    enum control_interception interception;
    const char *interception_gap; /* as it was logged last */
    enum control_state state;
    uint64_t drain_deadline_ns;
    uint64_t started_ns;
    uint64_t started_at_seconds; /* wall clock */
    enum exit_status exit_status;
    char date[32];
};

/* Run the proxy until it is told to end; the process's exit status. */
enum exit_status control_run(const struct options *options);

/* Begin to drain; a second call does nothing. */
void control_drain(struct control *control);

/* Why the proxy is not ready, one reason a line, into `text`; returns their number. */
uint32_t control_not_ready(const struct control *control, char *text, size_t size);

/* Put the log level of the options back at `until_ns`; CLOCK_NEVER: keep the present one. */
void control_restore_level_at(struct control *control, uint64_t until_ns);

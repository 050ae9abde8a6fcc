/*
 * Log output: what the workers' log rings hold goes to standard error and standard output. While
 * lines come the rings are looked at every LOG_MS; when all are empty they fall asleep, and the
 * first line after that wakes control by its mailbox.
 */
#include "control/log_output.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/control.h"

enum {
    LOG_BATCH_BYTES = 64 * 1024,
    LOG_MS = 20, /* while lines come; a ring that falls asleep wakes us */
};

/* Write what a ring holds; true when there was something. A pipe that nobody reads loses lines,
 * never holds us up. */
static bool drain_ring(struct control *control, struct log_ring *ring, int fd)
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
        control->log_lines_lost += log_write(fd, bytes_make(batch, size));
    }
    return is_any;
}

static void on_log_timer(struct io_timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, log_timer);
    bool is_quiet = true;
    for (uint32_t i = 0; i < control->workers_count; i++) {
        bool is_any = drain_ring(control, control->logs[i], STDERR_FILENO);
        is_any = drain_ring(control, control->access_logs[i], STDOUT_FILENO) || is_any;
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

void log_output_attach(struct control *control, uint32_t worker)
{
    log_ring_set_wake(control->logs[worker], wake_for_log, control);
    log_ring_set_wake(control->access_logs[worker], wake_for_log, control);
}

void log_output_start(struct control *control)
{
    on_log_timer(&control->log_timer);
}

void log_output_drain(struct control *control)
{
    for (uint32_t i = 0; i < control->workers_count; i++) {
        drain_ring(control, control->logs[i], STDERR_FILENO);
        drain_ring(control, control->access_logs[i], STDOUT_FILENO);
    }
}

uint64_t log_output_dropped(const struct control *control)
{
    uint64_t dropped = control->log_lines_lost;
    for (uint32_t i = 0; i < control->workers_count; i++) {
        dropped += log_ring_dropped(control->logs[i]) + log_ring_dropped(control->access_logs[i]);
    }
    return dropped;
}

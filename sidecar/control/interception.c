/*
 * The self-test dials TEST-NET-1 on the outbound port: only the redirection's probe rule can answer
 * there (design 6). One connection at a time, again and again, because rules can be flushed.
 */
#include "control/interception.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/control.h"

enum {
    BYPASS_CONNECTIONS = 20, /* before it is said that nobody dials a ClusterIP */
    SELF_TEST_MS = 2000,
    SELF_TEST_TIMEOUT_MS = 1000,
};

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

void interception_start(struct control *control)
{
    on_self_test(&control->probe_timer);
}

void interception_stop(struct control *control)
{
    if (control->is_probe_open && !control->probe_socket.is_closing) {
        io_close(&control->probe_socket);
    }
}

bool interception_is_bypassed(const struct control *control)
{
    return stats_destination_sum(control->stats, control->workers_count,
                                 STATS_DESTINATION_CLUSTER_IP) == 0 &&
           stats_destination_sum(control->stats, control->workers_count,
                                 STATS_DESTINATION_ENDPOINT) >= BYPASS_CONNECTIONS;
}

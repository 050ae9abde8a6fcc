/*
 * The self-test dials an address of each family, on the outbound port, where only the redirection's
 * probe rules can answer (design 6): again and again, because rules can be flushed.
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

static const struct {
    const char *name;
    uint8_t family;
    struct bytes address; /* nobody's: TEST-NET-1, and the documentation's network of IPv6 */
} families[INTERCEPTION_FAMILIES] = {
    {"IPv4", ADDRESS_IPV4, BYTES_LITERAL("192.0.2.2")},
    {"IPv6", ADDRESS_IPV6, BYTES_LITERAL("2001:db8::2")},
};

/* Has the pod an address of this family with which it reaches others? */
static bool is_family_in_use(const struct control *control, uint8_t family)
{
    for (uint32_t i = 0; i < control->settings.own_addresses_count; i++) {
        const struct address *address = &control->own_addresses[i];
        bool is_link_local = family == ADDRESS_IPV4
                                 ? address->ip[0] == 169 && address->ip[1] == 254
                                 : address->ip[0] == 0xfe && (address->ip[1] & 0xc0) == 0x80;
        if (address->family == family && !is_link_local) {
            return true;
        }
    }
    return false;
}

const char *interception_gap(const struct control *control)
{
    for (size_t i = 0; i < INTERCEPTION_FAMILIES; i++) {
        if (control->interception == CONTROL_INTERCEPTION_PASSED && !control->probes[i].is_passed &&
            is_family_in_use(control, families[i].family)) {
            return families[i].name;
        }
    }
    return NULL;
}

/* A family is enough: a pod may have one only, or be told to redirect one only. What is then left
 * out is said. */
static void judge(struct control *control)
{
    bool is_any = false;
    bool is_waiting = false;
    for (size_t i = 0; i < INTERCEPTION_FAMILIES; i++) {
        is_any = is_any || control->probes[i].is_passed;
        is_waiting = is_waiting || control->probes[i].is_waiting;
    }
    if (!is_any && is_waiting) {
        return;
    }
    enum control_interception before = control->interception;
    control->interception = is_any ? CONTROL_INTERCEPTION_PASSED : CONTROL_INTERCEPTION_FAILED;
    if (before != control->interception) {
        log_line(NULL, is_any ? LOG_INFO : LOG_WARNING, "msg=\"interception self-test\" result=%s",
                 is_any ? "passed" : "failed");
    }
    const char *gap = is_waiting ? control->interception_gap : interception_gap(control);
    if (gap != NULL && gap != control->interception_gap) {
        log_line(NULL, LOG_WARNING,
                 "msg=\"connections over %s are not redirected\" remedy=\"outrigger intercept "
                 "--install, without --family\"",
                 gap);
    }
    control->interception_gap = gap;
}

static void set_result(struct interception_probe *probe, bool is_passed)
{
    probe->is_waiting = false;
    probe->is_passed = is_passed;
    judge(probe->control);
}

static void on_probe_event(struct io_socket *socket, uint32_t events)
{
    struct interception_probe *probe = LIST_OWNER(socket, struct interception_probe, socket);
    if ((events & IO_EVENT_CLOSED) != 0) {
        probe->is_open = false;
    } else if ((events & (IO_EVENT_CONNECTED | IO_EVENT_FAILED)) != 0) {
        io_close(socket);
        set_result(probe, (events & IO_EVENT_CONNECTED) != 0);
    }
}

static void start_probe(struct control *control, size_t index)
{
    struct interception_probe *probe = &control->probes[index];
    struct address address;
    error_ignore(address_parse_ip(families[index].address, control->options->outbound_port,
                                  &address)); /* a constant */
    probe->control = control;
    probe->socket = (struct io_socket){0};
    probe->is_waiting = true;
    if (error_is(io_socket_connect(&probe->socket, control->io, &address, NULL, on_probe_event))) {
        probe->is_waiting = false; /* no route, where the family is missing */
        probe->is_passed = false;
    } else {
        probe->is_open = true;
    }
}

/* Nobody answers a probe that is not redirected: at the next tick it has failed. */
static void on_self_test(struct io_timer *timer)
{
    struct control *control = LIST_OWNER(timer, struct control, probe_timer);
    bool is_any_open = false;
    for (size_t i = 0; i < INTERCEPTION_FAMILIES; i++) {
        struct interception_probe *probe = &control->probes[i];
        is_any_open = is_any_open || probe->is_open;
        if (probe->is_open && !probe->socket.is_closing) {
            io_close(&probe->socket);
            set_result(probe, false);
        }
    }
    for (size_t i = 0; i < INTERCEPTION_FAMILIES && !is_any_open; i++) {
        start_probe(control, i);
    }
    judge(control);
    uint64_t pause_ms = is_any_open ? SELF_TEST_MS - SELF_TEST_TIMEOUT_MS : SELF_TEST_TIMEOUT_MS;
    io_timer_start(control->io, timer, clock_add(io_now(control->io), pause_ms * CLOCK_NS_PER_MS),
                   on_self_test);
}

void interception_start(struct control *control)
{
    on_self_test(&control->probe_timer);
}

void interception_stop(struct control *control)
{
    for (size_t i = 0; i < INTERCEPTION_FAMILIES; i++) {
        if (control->probes[i].is_open && !control->probes[i].socket.is_closing) {
            io_close(&control->probes[i].socket);
        }
    }
}

bool interception_is_bypassed(const struct control *control)
{
    return stats_destination_sum(control->stats, control->workers_count,
                                 STATS_DESTINATION_CLUSTER_IP) == 0 &&
           stats_destination_sum(control->stats, control->workers_count,
                                 STATS_DESTINATION_ENDPOINT) >= BYPASS_CONNECTIONS;
}

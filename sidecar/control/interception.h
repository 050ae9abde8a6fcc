/*
 * Is the pod's traffic redirected to us? Outbound: a self-test that runs all the time. Inbound can
 * only be seen from what comes; what a socket-level load balancer leaves of outbound connections is
 * noticed from where they go. Control thread.
 */
#pragma once

#include <stdbool.h>

struct control;

/* Run the self-test from now on: its first result within a few seconds, in control->interception;
 * a change of it is logged. */
void interception_start(struct control *control);

/* Let go of the probe's connection; the I/O is idle some turns later. Harmless when none is open.
 */
void interception_stop(struct control *control);

/* "IPv4" or "IPv6": the pod has addresses of it, and the self-test passes for the other one only.
 * NULL: none. */
const char *interception_gap(const struct control *control);

/*
 * Endpoints are dialled, never a ClusterIP: what a socket-level load balancer such as Cilium's
 * leaves of a connection when it rewrites addresses before the redirection sees them. Routes then
 * never apply (design 6).
 */
bool interception_is_bypassed(const struct control *control);

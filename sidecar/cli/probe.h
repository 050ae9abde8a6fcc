/*
 * The self-test of the redirection for a namespace where the proxy does not run yet; the running
 * proxy has its own (control/interception.h), which dials the same address.
 */
#pragma once

#include <stdint.h>

#include "cli/redirection.h"

enum probe_result {
    PROBE_PASSED,
    PROBE_FAILED,  /* the connection did not arrive */
    PROBE_SKIPPED, /* nothing can be dialled, or the proxy holds the port */
};

/*
 * Listen on loopback at `port`, dial the self-test's address of one family, and see whether the
 * connection arrives with that address as its original destination. Blocks for at most a second.
 */
enum probe_result probe_dial(enum redirection_family family, uint16_t port);

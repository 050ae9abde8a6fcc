/*
 * The self-test of the redirection for a namespace where the proxy does not run yet; the running
 * proxy has its own (control.c), which dials the same address.
 */
#pragma once

#include <stdint.h>

#include "cli/redirection.h"

enum self_test {
    SELF_TEST_PASSED,
    SELF_TEST_FAILED,  /* the connection did not arrive */
    SELF_TEST_SKIPPED, /* nothing can be dialled, or the proxy holds the port */
};

/*
 * Listen on loopback at `port`, dial the self-test's address of one family, and see whether the
 * connection arrives with that address as its original destination. Blocks for at most a second.
 */
enum self_test self_test_dial(enum redirection_family family, uint16_t port);

/*
 * The command line of `outrigger intercept`. Private to intercept*.c.
 */
#pragma once

#include <stdbool.h>

#include "cli/redirection.h"

/* Exit statuses. */
enum {
    INTERCEPT_EXIT_OK = 0,
    INTERCEPT_EXIT_ENVIRONMENT = 1, /* missing rules, privilege or tool */
    INTERCEPT_EXIT_USAGE = 2,
};

enum intercept_action {
    INTERCEPT_ACTION_NONE,
    INTERCEPT_ACTION_INSTALL,
    INTERCEPT_ACTION_CHECK,
    INTERCEPT_ACTION_PRINT,
    INTERCEPT_ACTION_REMOVE,
};

enum intercept_backend {
    INTERCEPT_BACKEND_AUTO,
    INTERCEPT_BACKEND_NFT,
    INTERCEPT_BACKEND_IPTABLES,
};

struct intercept {
    enum intercept_action action;
    enum intercept_backend backend;
    bool has_proxy_uid;
    const char *iptables_variant; /* "", "-nft" or "-legacy", once chosen */
    struct redirection redirection;
};

/*
 * Read the command line into `intercept`, which holds the defaults. Returns
 * INTERCEPT_EXIT_OK when it is complete, else the status for a line that was said on standard
 * error; `*ret_is_done` is set when the help was wanted and printed.
 */
int intercept_options_parse(int argc, char **argv, struct intercept *intercept, bool *ret_is_done);

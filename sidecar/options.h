/*
 * The options of `outrigger proxy`: one table of flags, each with its environment variable
 * (contract section 1). Nothing else reads the environment.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "control/access_log.h"
#include "iouring/address.h"
#include "iouring/io.h"

enum {
    OPTIONS_LISTENS_MAX = 64,
    OPTIONS_POD_IPS_MAX = 16,
    OPTIONS_PROBES_MAX = 32,
    OPTIONS_WORKERS_MAX = 64,
};

/* --listen [ADDR:]PORT=SERVICE.NS:PORT */
struct options_listen {
    struct address address;
    struct bytes service_name;
    struct bytes service_namespace;
    uint16_t service_port;
};

struct options {
    const char *config; /* required */
    struct bytes own_namespace;
    struct address pod_ips[OPTIONS_POD_IPS_MAX];
    uint32_t pod_ips_count; /* 0: every non-loopback address of the network namespace */
    const char *service_account;
    const char *pod_labels;
    const char *certs;
    const char *credential_bundle;
    const char *trust_bundle;
    uint16_t outbound_port; /* 0: no such listener */
    uint16_t inbound_port;
    uint16_t health_port;
    struct options_listen listens[OPTIONS_LISTENS_MAX];
    uint32_t listens_count;
    const char *admin_socket;
    const char *admin_group; /* the socket's group; NULL: mode 0600 */
    uint32_t workers;        /* 0: by CPU quota */
    enum io_backend io;
    bool is_registry_only;
    bool require_reference_grants;
    bool require_interception;
    bool skip_invalid_objects;
    const char *via;                        /* NULL: no Via field */
    const char *probes[OPTIONS_PROBES_MAX]; /* --allow-probe, checked for their form */
    uint32_t probes_count;
    uint64_t connect_timeout_ns;
    uint64_t detect_timeout_ns;
    uint64_t pool_idle_timeout_ns;
    uint32_t drain_seconds;
    enum log_level log_level;
    enum access_log_format access_log;
};

enum options_outcome {
    OPTIONS_RUN,
    OPTIONS_HELP,    /* --help: print it, exit 0 */
    OPTIONS_INVALID, /* `message` says what; exit 2 */
};

/*
 * Parse argv[1..] and then, for flags that were not given, the environment. Texts borrow from argv
 * and `environment` (as `environ`), or live in `arena`. `message` (size bytes) gets one line on
 * OPTIONS_INVALID.
 */
enum options_outcome options_parse(int argc, char **argv, char **environment, struct arena *arena,
                                   struct options *ret_options, char *message, size_t size);

/* The help text, from the same table. */
void options_print_help(FILE *out);

/* A Gateway API duration, as route_duration_parse (routes/text.h), in nanoseconds. Errors:
 * ERROR_SYNTAX. */
FALLIBLE options_parse_duration(struct bytes text, uint64_t *ret_ns);

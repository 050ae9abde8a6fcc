/*
 * A worker: one thread, one ring, everything that hangs on it. Started and told by the control
 * thread; shares nothing mutable with anybody (design 4.1).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "control/access_log.h"
#include "control/snapshot.h"
#include "control/stats.h"
#include "iouring/io.h"

struct worker;

enum listener_kind {
    LISTENER_OUTBOUND, /* redirected: original destination decides */
    LISTENER_INBOUND,
    LISTENER_NAMED, /* --listen: counts as dialled to the Service that is named */
};

struct worker_listener {
    enum listener_kind kind;
    int fd;                    /* listening; the worker's own copy (dup), which it closes */
    struct address address;    /* that it is bound to */
    struct bytes service_name; /* LISTENER_NAMED; borrowed from the options for ever */
    struct bytes service_namespace;
    uint16_t service_port;
};

/* What every worker needs and none changes; borrowed for ever. */
struct worker_settings {
    struct bytes own_namespace;
    uint64_t connect_timeout_ns; /* of one attempt: 1 s */
    uint64_t detect_timeout_ns;
    uint64_t pool_idle_timeout_ns;
    bool is_registry_only;
    struct bytes via; /* empty: no Via field */
    enum access_log_format access_log;
    uint16_t own_ports[8]; /* a destination on one of our addresses with one of these is a loop */
    uint32_t own_ports_count;
    const struct address *own_addresses; /* of this network namespace and --pod-ip */
    uint32_t own_addresses_count;
    const struct worker_listener *listeners; /* borrowed: all of them, whoever accepts */
    uint32_t listeners_count;
    uint32_t connections_max; /* downstream connections of one worker */
};

struct worker_options {
    uint32_t index;
    uint32_t count;
    enum io_backend backend;
    struct io_options io;
    const struct worker_settings *settings;  /* borrowed */
    const struct worker_listener *listeners; /* borrowed for ever; worker 0 accepts and hands over
                                                by count, others get none */
    uint32_t listeners_count;
    struct worker *const
        *workers; /* borrowed: all of them, filled before the first turn; for handing over */
    struct snapshot *snapshot;   /* one reference is taken over */
    struct stats *stats;         /* borrowed */
    struct log_ring *log;        /* borrowed: to standard error */
    struct log_ring *access_log; /* borrowed: to standard output */
};

/* Create the worker on the calling thread, without a thread of its own: tests, on the fake I/O.
 * Errors: as io_create. */
FALLIBLE worker_create(const struct worker_options *options, struct io *io,
                       struct worker **ret_worker);

/* Of a worker without a thread: close everything, turn until it is closed, and free. The I/O stays
 * the caller's. */
void worker_destroy(struct worker *worker);

/* Start a thread that creates its I/O and runs until worker_stop; returns when it is ready or has
 * failed. Worker 0 is started last, so that it finds the others, and joined first. Errors: as
 * io_create; ERROR_OS. */
FALLIBLE worker_start(const struct worker_options *options, struct worker **ret_worker);

/* One turn; tests call it, the thread does nothing else. */
FALLIBLE worker_turn(struct worker *worker, uint64_t until_ns);

/* ---- from the control thread; each is a message ---- */

/* Use `snapshot` (one reference is taken over) from the next turn on. */
void worker_publish(struct worker *worker, struct snapshot *snapshot);

/* Begin to drain: finish what is open, close what idles, go on accepting outbound connections. */
void worker_drain(struct worker *worker);

/* Close everything at once and end the thread. worker_join waits for it, and worker_free frees the
 * worker when all are joined: those that still run may post to it. */
void worker_stop(struct worker *worker);

/* The same without mercy for what is open: the drain's deadline, or a second signal. */
void worker_cut_off(struct worker *worker);
void worker_join(struct worker *worker);
void worker_free(struct worker *worker);

/* Exchanges and opaque connections that are open: 0 ends a drain. Any thread, relaxed. */
uint64_t worker_open_exchanges(const struct worker *worker);

/* Time of its last turn (monotonic ns), for liveness. Any thread, relaxed. */
uint64_t worker_last_turn_ns(const struct worker *worker);

/* What control may ask of a worker: rows by cursor, a bounded number a turn (design 4.1). */
enum worker_query_kind {
    WORKER_QUERY_CONNECTIONS, /* of GET /connections */
    WORKER_QUERY_ENDPOINTS,   /* of GET /endpoints */
    WORKER_QUERY_DUMP,        /* streams by state and age, ops in the kernel by name and age */
    WORKER_QUERY_ALIVE,       /* no rows: the answer says that the worker turns */
};

struct worker_connection_row {
    uint64_t number;
    enum stats_direction direction;
    enum stats_protocol protocol;
    struct address downstream;
    struct address destination;
    struct address endpoint;
    char parent[128]; /* "namespace/service:port"; cut when longer */
    const char *state;
    uint64_t age_ns;
    uint64_t received_bytes;
    uint64_t sent_bytes;
};

struct worker_endpoint_row {
    char service[128]; /* "namespace/name" */
    uint16_t port;
    struct address address;
    bool is_cluster_ip;
    bool is_ejected;
    uint32_t active;
    uint32_t connections;
};

enum {
    WORKER_QUERY_ROWS_MAX = 64
};

/*
 * A question that travels: embedded in a struct of the asker, who may not touch it until
 * `on_answer` runs on the asker's thread. `cursor` is 0 at first; while it is not WORKER_QUERY_END
 * after an answer, post it again for more rows.
 */
struct worker_query {
    struct io_message message;
    enum worker_query_kind kind;
    uint64_t cursor;
    struct worker *worker; /* set by worker_ask */
    struct io *asker;      /* where on_answer runs */
    void (*on_answer)(struct worker_query *query);
    void *argument;
    uint32_t rows_count;

    union {
        struct worker_connection_row connections[WORKER_QUERY_ROWS_MAX];
        struct worker_endpoint_row endpoints[WORKER_QUERY_ROWS_MAX];
        char lines[WORKER_QUERY_ROWS_MAX][160];
    };
};

#define WORKER_QUERY_END UINT64_MAX

/* Hand `query` to the worker, which answers it rows at a time. Any thread. */
void worker_ask(struct worker *worker, struct worker_query *query);

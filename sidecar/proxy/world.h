/*
 * Test support: a worker on the fake I/O with a small configuration, upstreams and clients that are
 * played. The look-ups of the configuration are real; only where it comes from is played here.
 *
 * Service `web` in namespace `shop`: ClusterIP 10.96.0.1, port 80; pods 10.0.0.1 and up, port 8080.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/snapshot.h"
#include "iouring/io_fake.h"
#include "proxy/worker.h"

enum {
    WORLD_PODS_MAX = 8,
};

struct world_config {
    const char *port_name; /* "tcp", "http", ...: declares the protocol; "x" does not */
    uint32_t pods;         /* 0 with has_slices false: the ClusterIP is the endpoint */
    bool has_slices;
    const struct route_rule *rules; /* of one HTTPRoute or TCPRoute on port 80; NULL: none */
    uint32_t rules_count;
    bool is_tcp_route;
};

struct world {
    struct io *io;
    struct worker *worker;
    struct stats *stats;
    struct log_ring *log;
    struct log_ring *access_log;
    struct worker_settings settings;
    struct worker_listener listeners[3];
    struct worker *workers[1];
    struct address own_addresses[2];
    uint64_t generation;
    uint64_t seed;
};

/* Make it all; fails the test when it cannot. `block_count` of the I/O: 0 is the default. */
void world_begin(struct world *world, uint64_t seed, const struct world_config *config,
                 uint32_t block_count);

/* Before world_begin's worker exists, settings may be changed by `change`. */
void world_begin_with(struct world *world, uint64_t seed, const struct world_config *config,
                      uint32_t block_count, void (*change)(struct world *world));

/* The budget for outgoing bytes of the worlds that begin from now on; UINT64_MAX: the default. */
void world_limit_heap(uint64_t bytes);

/* Publish another configuration. */
void world_publish(struct world *world, const struct world_config *config);

/* Stop the worker, check that nothing is left, free. */
void world_end(struct world *world);

/* Run until `is_done(argument)`; fails the test when nothing more happens before that. */
void world_run_until(struct world *world, bool (*is_done)(void *argument), void *argument);

/* A client dials a listener; `original` is what it dialled before the redirection, NULL: the
 * listener itself. */
struct io_fake_peer *world_dial(struct world *world, enum listener_kind kind, const char *original,
                                const struct io_fake_script *script, void *owner);

/* Go on with the hash of a stream of bytes, which begins with 0. */
uint64_t world_hash(uint64_t hash, struct bytes data);

/* Addresses of the played network. */
struct address world_pod(uint32_t index); /* 10.0.0.(index+1):8080 */
struct address world_cluster_ip(void);    /* 10.96.0.1:80 */
struct address world_listener(enum listener_kind kind);
struct address world_address(const char *text);

/* Snapshots that are alive: all but one are gone when nothing uses them. */
uint32_t world_snapshots(void);

/* Take the access log's lines, NUL-terminated. Static storage. */
const char *world_log(struct world *world);

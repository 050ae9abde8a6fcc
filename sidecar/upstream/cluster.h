/*
 * Where requests can go: the endpoints of one Service port in one worker, found by name across
 * snapshots, so that a reload loses no state (design 4.5, 4.6).
 *
 * Three facts shape it. Files are always a little stale, so a failure ejects an endpoint at once
 * and for longer each time, and the ClusterIP is the last resort. Choice is by power of two: of two
 * random endpoints the one with fewer exchanges. What is gone from the configuration stays in
 * memory, out of choice, until the last exchange and connection that use it have ended.
 *
 * Thread: the worker's. Nothing here allocates in steady state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/list.h"
#include "iouring/address.h"
#include "routes/service.h"

struct clusters;
struct cluster;

enum {
    ENDPOINT_POOLS = 3, /* one for each codec_protocol */
    CLUSTER_REFERENCE_MAX = 160,
    CLUSTER_TRIED_MAX = 4,
};

/* One pod, or the ClusterIP. Callers read it; counts are changed by the functions below. */
struct endpoint {
    struct cluster *cluster;     /* borrowed: lives at least as long */
    struct address addresses[2]; /* at most one of each family */
    uint8_t addresses_count;
    bool is_cluster_ip;
    bool is_gone;         /* no longer in the configuration: never chosen again */
    uint32_t failures;    /* in a row */
    uint32_t active;      /* exchanges under way */
    uint32_t connections; /* open or opening */
    uint32_t holds;       /* active and connections */
    uint64_t ejected_until_ns;
    uint64_t generation;
    struct list idle[ENDPOINT_POOLS]; /* conn_pool.c's: idle connections, the newest first */
    struct list shared; /* likewise: connections that several exchanges may use at once */
    struct endpoint *next_same_hash; /* borrowed */
};

/* The endpoints of one Service port, or one bare address (inbound; pods that are dialled directly).
 */
struct cluster {
    struct clusters *clusters;   /* borrowed */
    uint64_t generation;         /* of the configuration that it was last compared with */
    struct endpoint **endpoints; /* an array in the arena; the endpoints are the slab's */
    uint32_t endpoints_count;
    struct endpoint *cluster_ip; /* NULL: headless, or a bare address */
    enum route_protocol protocol;
    uint64_t fallback_silent_until_ns; /* the log has been told that the ClusterIP is dialled */
    uint32_t connections;
    uint32_t holds; /* streams, and endpoints that are not freed */
    bool is_gone;
    bool is_address;
    uint16_t port;
    uint64_t hash;
    struct cluster *next_same_hash; /* borrowed */
    struct list all;
    struct bytes reference; /* "name.namespace:port", empty for a bare address; within `text` */
    struct bytes name;
    struct bytes namespace;
    struct bytes label; /* "namespace/name:port", as a parent is called; empty likewise */
    char text[CLUSTER_REFERENCE_MAX];
    char label_text[CLUSTER_REFERENCE_MAX];
    struct arena arenas[2]; /* of `endpoints`: the one in use and the next */
    uint8_t arena_index;
};

struct clusters_options {
    uint32_t clusters_max;
    uint32_t endpoints_max;
    uint32_t connections_max; /* of one cluster */
    /* `endpoint` left the configuration: close its idle connections. May be NULL. */
    void (*on_endpoint_gone)(struct endpoint *endpoint);
};

/* Errors: ERROR_NO_MEMORY. */
FALLIBLE clusters_create(const struct clusters_options *options, struct clusters **ret_clusters);

/* No stream and no connection may be left. Accepts NULL. */
void clusters_destroy(struct clusters *clusters);

/* The Service port that a caller wants, in the configuration that it looks at. */
struct cluster_source {
    uint64_t generation;
    const struct route_services *services;
    struct bytes namespace;
    struct bytes name;
    uint16_t port;
    const struct route_port *found; /* NULL: look it up in `services` */
};

/*
 * The cluster of `source`, made or brought up to date when its configuration is newer than what the
 * cluster knows. NULL: no such Service or port, or a bound is reached. Borrowed: valid until the
 * next clusters_sweep, or while cluster_hold.
 */
struct cluster *clusters_find(struct clusters *clusters, const struct cluster_source *source);

/* The cluster of one bare address, with that one endpoint. NULL: a bound is reached. */
struct cluster *clusters_find_address(struct clusters *clusters, const struct address *address,
                                      uint64_t generation);

/*
 * After a new snapshot: bring up to date or drop clusters that have not been asked for since, at
 * most `max` of them; false when there are more. Bare addresses that nobody uses are dropped.
 */
bool clusters_sweep(struct clusters *clusters, const struct route_services *services,
                    uint64_t generation, uint32_t max);

/* Keep `cluster` in memory, and let it go. */
void cluster_hold(struct cluster *cluster);
void cluster_release(struct cluster *cluster);

struct cluster_choice {
    uint64_t now_ns;
    uint64_t random;                                 /* 64 uniform bits */
    const struct endpoint *tried[CLUSTER_TRIED_MAX]; /* not again */
    uint32_t tried_count;
};

/*
 * Choose an endpoint: of those that are not ejected by power of two; else the ClusterIP; else one
 * that is ejected, as trying costs less than refusing. NULL: none is left.
 */
struct endpoint *cluster_pick(const struct cluster *cluster, const struct cluster_choice *choice);

/* May one more connection be opened? */
bool cluster_has_room(const struct cluster *cluster);

/* An exchange begins or ends at `endpoint`; the choice looks at their number. */
void endpoint_begin(struct endpoint *endpoint);
void endpoint_end(struct endpoint *endpoint);

/* A connection to `endpoint` is opened, or is gone. */
void endpoint_connect(struct endpoint *endpoint);
void endpoint_disconnect(struct endpoint *endpoint);

/* A connection could not be made: eject for 5 s, then twice as long each time, at most 5 min. */
void endpoint_on_failed(struct endpoint *endpoint, uint64_t now_ns);

/* A connection was made: forget failures. */
void endpoint_on_connected(struct endpoint *endpoint);

static inline bool endpoint_is_ejected(const struct endpoint *endpoint, uint64_t now_ns)
{
    return endpoint->ejected_until_ns > now_ns;
}

/* The address to dial: of the family given (enum address_family) where there is one. */
const struct address *endpoint_address(const struct endpoint *endpoint, uint8_t family);

/*
 * Endpoints one after the other, for the admin socket: `*cursor` is 0 at first and is advanced;
 * NULL at the end. What comes and goes meanwhile may be missed.
 */
const struct endpoint *clusters_next(const struct clusters *clusters, uint64_t *cursor);

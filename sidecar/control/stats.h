/*
 * Counters, gauges and histograms: one writer each (a worker), read by the control thread with
 * relaxed loads, printed as Prometheus text. Label values are names from the configuration, enums
 * and status codes, never a peer's words.
 *
 * Series are append-only and never move; STATS_SERIES_MAX a worker, beyond that everything goes to
 * one series whose labels are "other", and is counted (design 4.7).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "proxy/cause.h"

enum stats_direction {
    STATS_OUTBOUND,
    STATS_INBOUND,
    STATS_DIRECTION_COUNT
};

enum stats_protocol {
    STATS_PROTOCOL_TCP,
    STATS_PROTOCOL_HTTP1,
    STATS_PROTOCOL_HTTP2,
    STATS_PROTOCOL_COUNT
};

/* One number with one writer. */
struct stats_cell {
    _Atomic uint64_t value;
};

static inline void stats_add(struct stats_cell *cell, uint64_t amount)
{
    atomic_store_explicit(&cell->value,
                          atomic_load_explicit(&cell->value, memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

static inline void stats_set(struct stats_cell *cell, uint64_t value)
{
    atomic_store_explicit(&cell->value, value, memory_order_relaxed);
}

static inline uint64_t stats_read(const struct stats_cell *cell)
{
    return atomic_load_explicit(&cell->value, memory_order_relaxed);
}

/* The labels of outrigger_requests_total; empty views print as "". Borrowed for the call. */
struct stats_request_key {
    enum stats_direction direction;
    struct bytes parent;  /* "namespace/service:port"; empty for passed-through traffic */
    struct bytes route;   /* "namespace/name" */
    struct bytes rule;    /* name or index */
    struct bytes backend; /* "service.namespace:port" */
    uint16_t code;        /* HTTP status; 0 for opaque */
    uint8_t grpc_status;  /* STATS_NO_GRPC when it is no gRPC */
};

/* What outbound connections are dialled to. */
enum stats_destination {
    STATS_DESTINATION_CLUSTER_IP,
    STATS_DESTINATION_ENDPOINT, /* an endpoint of a Service that has a ClusterIP */
    STATS_DESTINATION_OTHER,
    STATS_DESTINATION_COUNT
};

enum {
    STATS_NO_GRPC = 255
};

struct stats; /* one worker's */

/* Errors: ERROR_NO_MEMORY. */
FALLIBLE stats_create(uint32_t worker, struct stats **ret_stats);
void stats_destroy(struct stats *stats);

/*
 * Count one finished request (or opaque connection) with its duration in the series of `key` and in
 * the histogram of its direction, parent and route. Worker thread; one hash lookup, no allocation
 * but for a new series.
 */
void stats_count_request(struct stats *stats, const struct stats_request_key *key,
                         uint64_t duration_ns);

/* An accepted connection. `tls`: mesh TLS was spoken. */
void stats_count_connection(struct stats *stats, enum stats_direction direction,
                            enum stats_protocol protocol, bool tls);

/* Connections that are open now. */
void stats_set_active(struct stats *stats, enum stats_direction direction, uint64_t connections);

/* What an outbound connection was dialled to. */
void stats_count_destination(struct stats *stats, enum stats_destination destination);

/* An attempt at `backend` failed; and a connection or request that we refused. */
void stats_count_endpoint_failure(struct stats *stats, struct bytes backend, enum cause cause);
void stats_count_refused(struct stats *stats, enum cause cause);

/* The ClusterIP was dialled because no endpoint could be reached (design 4.6 (3)). */
void stats_count_fallback(struct stats *stats, struct bytes backend);

/* Hits of a rule for `/routes`: a cell that lives as long as the stats; the caller may keep it
 * beside the rule. */
struct stats_cell *stats_rule_hits(struct stats *stats, struct bytes parent, struct bytes route,
                                   struct bytes rule);

/* Payload bytes that passed, by direction: received from and sent to the downstream. */
void stats_count_bytes(struct stats *stats, enum stats_direction direction, uint64_t received,
                       uint64_t sent);

/* ---- reading: control thread ---- */

/* A growing text, malloc'd; `is_failed` once memory ran out. */
struct stats_text {
    char *data;
    size_t length;
    size_t capacity;
    bool is_failed;
};

/* Append formatted text. */
void stats_print(struct stats_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Free what is left of it. */
void stats_text_finish(struct stats_text *text);

/* One number that control knows by itself, printed beside the workers' series. */
struct stats_gauge {
    const char *name; /* with labels where it has any:
                         "outrigger_config_reloads_total{result=\"applied\"}" */
    const char *help; /* NULL: the same family as the row before */
    bool is_counter;
    double value;
};

/*
 * All series of all workers, summed by equal labels, then `gauges`, in the Prometheus text format
 * (version 0.0.4).
 */
void stats_write_prometheus(struct stats *const *workers, uint32_t workers_count,
                            const struct stats_gauge *gauges, uint32_t gauges_count,
                            struct stats_text *text);

/* The sum of one rule's hits over all workers. */
uint64_t stats_rule_hits_sum(struct stats *const *workers, uint32_t workers_count,
                             struct bytes parent, struct bytes route, struct bytes rule);

/* Connections open now, over all workers. */
uint64_t stats_active_sum(struct stats *const *workers, uint32_t workers_count);

/* Outbound connections dialled to `destination`, over all workers. */
uint64_t stats_destination_sum(struct stats *const *workers, uint32_t workers_count,
                               enum stats_destination destination);

/* Series that were folded into "other", over all workers. */
uint64_t stats_folded_sum(struct stats *const *workers, uint32_t workers_count);

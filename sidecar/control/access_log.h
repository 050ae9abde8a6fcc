/*
 * One line for each finished request or opaque connection, as text or JSON (contract section 1).
 * Written by the worker into its bounded log ring; drained by the control thread; a full ring drops
 * the line and counts it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "control/stats.h"
#include "iouring/address.h"
#include "proxy/cause.h"

enum access_log_format {
    ACCESS_LOG_OFF,
    ACCESS_LOG_TEXT,
    ACCESS_LOG_JSON,
};

/* Everything is borrowed for the call. Peer-given text is escaped here (reliability D9). */
struct access_log_entry {
    enum stats_direction direction;
    enum stats_protocol protocol;
    uint64_t generation;
    uint64_t connection; /* number of the downstream connection within its worker */
    struct address downstream;
    struct address destination; /* original destination */
    struct address endpoint;    /* family 0: none was reached */
    struct bytes parent;
    struct bytes route;
    struct bytes rule;
    struct bytes file; /* of the rule's match; with line */
    uint32_t line;
    struct bytes backend;
    struct bytes method; /* empty for opaque */
    struct bytes authority;
    struct bytes path;
    struct bytes request_id;
    uint16_t status;
    uint8_t grpc_status; /* STATS_NO_GRPC */
    enum cause cause;
    uint32_t attempts;
    bool is_cluster_ip_fallback;
    uint64_t received_bytes; /* payload, from the downstream */
    uint64_t sent_bytes;     /* to the downstream */
    uint64_t routing_ns;     /* accept or head until the endpoint was picked */
    uint64_t connect_ns;     /* picked until connected; 0 for a pooled connection */
    uint64_t first_byte_ns;  /* connected until the response's first byte */
    uint64_t total_ns;
};

struct log_ring; /* base/log.h */

/* Worker thread. Does nothing when the format is OFF. */
void access_log_write(struct log_ring *ring, enum access_log_format format,
                      const struct access_log_entry *entry);

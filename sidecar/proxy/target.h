/*
 * Where a connection was meant to go: from its original destination, or the Service that its
 * listener is named for, to a Service port or a bare address in one configuration.
 *
 * Thread: the worker's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "iouring/address.h"
#include "proxy/cause.h"
#include "routes/service.h"

struct cluster;
struct worker;
struct worker_listener;

/* What a destination is in one configuration. */
struct target {
    uint64_t generation; /* 0: never looked up */
    const struct route_port
        *port;               /* whose routes apply; NULL: none. Good in this generation only */
    struct cluster *parent;  /* the Service port, for labels; NULL: unknown. Likewise */
    struct cluster *cluster; /* where it goes without routes; NULL: a bare address */
    enum route_protocol protocol;
    enum cause refusal; /* CAUSE_NONE: it may go on */
};

/* A destination, smaller than struct address. */
struct destination {
    uint8_t family;
    uint16_t port;
    uint8_t ip[16];
};

/* The same as an address. */
struct address destination_address(const struct destination *destination);

/* Is it the address that the self-test of the redirection dials? */
bool destination_is_self_test(const struct destination *destination);

/*
 * Find out what the destination of a connection that came by `source` is in the worker's present
 * configuration. `target` is zero but for its generation. What it names is borrowed from the
 * configuration and the worker's clusters.
 */
void target_aim(struct worker *worker, const struct worker_listener *source,
                const struct destination *destination, struct target *target);

/*
 * What the process finds around it when it starts: processors, descriptors, addresses, ports.
 * Whatever cannot be used is said in one line on standard error, with the flag that asked for it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "options.h"
#include "proxy/worker.h"

struct startup_listeners {
    struct worker_listener items[OPTIONS_LISTENS_MAX + 4];
    uint32_t count;
};

/* --workers; else the CPU quota of our cgroup rounded up; else min(2, cores). */
uint32_t startup_workers_count(const struct options *options);

/* What workers need of the options and of the machine; own addresses go to `addresses`, which the
 * settings borrow. */
void startup_settings(const struct options *options, uint32_t workers, struct address *addresses,
                      uint32_t addresses_max, struct worker_settings *ret_settings);

/* Open every listener of the data path. False: one cannot be opened, and a line says which and why.
 */
bool startup_open_listeners(const struct options *options, struct startup_listeners *ret_listeners);

/* The listener of the health port, for both families where there is IPv6. False as above. */
bool startup_health_listener(uint16_t port, int *ret_fd);

/* Test support: a directory of configuration files that goes away again, and what loading it gives.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "routes/load.h"

struct scratch {
    char directory[64];
    const char *paths[1];
    struct route_load_options options;
    struct route_diagnostics diagnostics;
    struct error error;          /* of the last load */
    struct route_config *config; /* of the last load that was taken */
};

/* A new, empty directory. */
void scratch_init(struct scratch *scratch);
void scratch_finish(struct scratch *scratch);

/* Write a file of the directory. */
void scratch_write(struct scratch *scratch, const char *name, const char *text);
void scratch_write_bytes(struct scratch *scratch, const char *name, struct bytes content);

/* Load the directory; the configuration that is taken replaces the previous one. */
void scratch_load(struct scratch *scratch);

/* The first diagnostic with that code, or NULL. */
const struct route_diagnostic *scratch_find(const struct scratch *scratch, const char *code);

/* The condition of that type for the object of that name and the parent (NULL: any), or NULL. */
const struct route_condition *scratch_condition(const struct scratch *scratch, const char *object,
                                                const char *parent, const char *type);

/* The port of a Service; the test fails when there is none. */
const struct route_port *scratch_port(const struct scratch *scratch, const char *namespace,
                                      const char *name, uint16_t port);

/* How many routes are in force on a port, and the name of the one at `index`. */
uint32_t scratch_rules_count(const struct route_port *port);
const char *scratch_rule_route(const struct route_port *port, uint32_t index);

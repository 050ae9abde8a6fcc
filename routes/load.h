/*
 * From a directory to an immutable configuration: the entry point of routes/.
 *
 * A load takes the previous configuration and makes only what is different, by three rules, each of
 * which is right by itself:
 *
 *  - text: the same bytes on the same lines of a file of the same name give the same objects and
 *    the same messages, so they are not parsed again (source.h);
 *  - names: what was made of other objects (the conditions of a route, a Service with its ports)
 *    keeps while none of the names that it asked about means another object than before
 *    (changes.h);
 *  - content: a table whose routes are the same objects, and whose references lead to the same
 *    answers, is the same table (signature.h).
 *
 * Objects that are the same have the same address, as the previous configuration is alive while the
 * next is made. Over all objects there remain copies of pointers and of Services, counts of
 * references, one look-up for each name, and the hash of the files behind the first that is new.
 * Nothing that is shared holds the configuration that it came from. That the result is what a load
 * from nothing gives, reload_test.c shows on random edits.
 *
 * Thread: loading blocks on files and belongs on the builder thread. A configuration is immutable
 * and may be read by any thread; it is freed by whoever unrefs it last, which takes milliseconds
 * for large ones: let that be the builder too.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "routes/attach.h"
#include "routes/diagnostic.h"
#include "routes/resource.h"
#include "routes/service.h"
#include "routes/table.h"

#define ROUTE_CONFIG_BYTES_MAX (64u << 20) /* of all files */
#define ROUTE_CONFIG_NODES_MAX 8000000u
#define ROUTE_CONFIG_HASH_BYTES 13 /* twelve hexadecimal digits and a NUL */

struct route_load_options {
    const char *const *paths; /* a directory (its *.yaml, *.yml, *.json, no dot-files, no recursion)
                                 or a file; one or more */
    uint32_t paths_count;
    struct bytes namespace; /* of the workload; data NULL: none, as for `check` */
    bool require_reference_grants;
    bool skip_invalid_objects; /* leave single invalid objects out instead of refusing all */
    bool can_udp;
    char *ret_hash; /* ROUTE_CONFIG_HASH_BYTES: the hash, also of what is refused; "" when it cannot
                       be read. May be NULL */
};

struct route_config;

/*
 * Load. `previous` may be NULL; it is only read. Everything found is added to `diagnostics`,
 * whether or not the load succeeds, sorted by place. The new configuration begins with one
 * reference. Errors: ERROR_CONFIG when a diagnostic of severity error refuses it; ERROR_OS when a
 * path cannot be read at all; ERROR_NO_MEMORY.
 */
FALLIBLE route_config_load(const struct route_load_options *options,
                           const struct route_config *previous,
                           struct route_diagnostics *diagnostics, struct route_config **ret_config);

/*
 * Are the files those that `config` was made of, byte for byte? Costs their reading and hashing,
 * which is a small part of a load. False also when something cannot be read: then a load says what.
 */
bool route_config_is_unchanged(const struct route_load_options *options,
                               const struct route_config *config);

/* Any thread. */
const struct route_config *route_config_ref(const struct route_config *config);
void route_config_unref(const struct route_config *config);

/* The generation's hash: 12 hexadecimal digits of SHA-256 over the files in order of their names
 * (name, NUL, content). */
const char *route_config_hash(const struct route_config *config);

/* What connections are looked up in; borrowed from `config`. */
const struct route_services *route_config_services(const struct route_config *config);

/* Every object, in order of files and places; filter by kind. Includes the own kinds, for whoever
 * compiles policies. */
const struct route_object *const *route_config_objects(const struct route_config *config,
                                                       uint32_t *ret_count);

/* The object of that kind and name, or NULL. */
const struct route_object *route_config_find(const struct route_config *config,
                                             enum route_kind kind, struct bytes namespace,
                                             struct bytes name);

/* The conditions of the object at `place` of route_config_objects, in order of its references;
 * borrowed from `config`. */
const struct route_condition *route_config_conditions(const struct route_config *config,
                                                      uint32_t place, uint32_t *ret_count);

/* How much of the work of this load was shared with the previous one: for tests and `status`. */
struct route_load_stats {
    uint32_t files;
    uint32_t files_parsed;
    uint32_t objects;
    uint32_t objects_decoded;
    uint32_t tables;
    uint32_t tables_compiled;
    uint64_t bytes;
};

/* The figures of the load that made `config`. */
struct route_load_stats route_config_stats(const struct route_config *config);

/*
 * The compiled routes of one Service: immutable, read by every worker without a lock, shared by
 * content between snapshots.
 *
 * A route has rules, a rule has matches. Precedence is between matches (HTTPRoute: "continuing on
 * ties"), so what is compiled is one `route_candidate` for each match of each rule of each route,
 * sorted once: its place in that order is its rank, and the lowest rank that holds wins. Everything
 * that happens to a request is a rule's: filters, backends, timeouts.
 *
 * A table borrows from the objects that it was compiled from and holds a reference on each of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "routes/regex.h"
#include "routes/resource.h"

/* ---- What the data path reads ---- */

/* Why a backend reference takes its share of the requests but cannot serve them (500, gRPC 14). */
enum route_backend_fault {
    ROUTE_BACKEND_VALID,
    ROUTE_BACKEND_KIND_UNSUPPORTED,
    ROUTE_BACKEND_NOT_FOUND,
    ROUTE_BACKEND_PORT_NOT_FOUND,
    ROUTE_BACKEND_NOT_PERMITTED,
    ROUTE_BACKEND_PROTOCOL_UNSUPPORTED,
    ROUTE_BACKEND_FILTER_UNSUPPORTED, /* one of its own filters cannot be honoured */
};

/* A compiled filter. ExtensionRefs to BodyMatch are predicates and not here; a filter that cannot
 * be honoured makes its rule fail (`route_table_rule.fault`). */
struct route_table_filter {
    enum route_filter_type type;
    const struct route_filter *source;         /* the member that belongs to `type` is set */
    const struct route_table_backend *backend; /* of a mirror or an external authorisation */
};

struct route_table_backend {
    struct bytes reference; /* "echo-v1.mesh:80": cluster name and metric label */
    uint64_t hash;          /* of `reference` */
    struct bytes namespace;
    struct bytes name;
    uint16_t port;
    uint32_t weight;
    enum route_backend_fault fault;
    const struct route_backend_ref
        *source; /* NULL: the parent Service, as no backendRefs were given */
    const struct route_table_filter *filters;
    uint32_t filters_count;
    const struct route_filter *redirect; /* in `filters` too; NULL: none */
};

/* Something that makes every request of a rule fail: 500, gRPC 14. */
enum route_rule_fault {
    ROUTE_RULE_SOUND,
    ROUTE_RULE_FILTER_UNSUPPORTED, /* a filter that may guard something and that we cannot honour */
    ROUTE_RULE_EXTENSION_NOT_FOUND,
};

struct route_table_rule {
    const struct route *route;
    const struct route_rule *source; /* timeouts, retry, session persistence, position */
    struct bytes route_name;         /* "namespace/name": metric label */
    uint32_t source_index;           /* within the route, from 0 */
    struct bytes rule_name;          /* its name, or its index from 0: metric label */
    uint32_t index;                  /* within the port's rules: the place of its hit counter */
    enum route_rule_fault fault;
    const struct route_table_filter *filters;
    uint32_t filters_count;
    const struct route_filter *redirect; /* in `filters` too; NULL: none */
    const struct route_filter *cors;     /* likewise */
    const struct route_table_backend *backends;
    uint32_t backends_count; /* 0: a redirect answers, or else no backend (500) */
    uint64_t weights_sum;
};

/* All that is attached to one port of the Service; ports with the same attachments share it. */
struct route_rules;

enum route_set {
    ROUTE_SET_PRODUCER,
    ROUTE_SET_CONSUMER,
};

struct route_table;

/* The rules of a port, NULL when no route is attached to it (traffic flows as if there were no
 * mesh). A Service may have a TCP and a UDP port of one number. */
const struct route_rules *route_table_find(const struct route_table *table, uint16_t port,
                                           enum route_transport transport);

/* Whose routes they are: the Service's namespace and name. */
struct bytes route_table_namespace(const struct route_table *table);
struct bytes route_table_name(const struct route_table *table);

/* The kind in force on the port, and which set of routes (design 5: consumer routes replace
 * producer routes). */
enum route_kind route_rules_kind(const struct route_rules *rules);
enum route_set route_rules_set(const struct route_rules *rules);

/* How many rules there are, and the one at `index`, counted in the order of routes and their rules.
 */
uint32_t route_rules_count(const struct route_rules *rules);
const struct route_table_rule *route_rules_at(const struct route_rules *rules, uint32_t index);

/* ---- Compilation: builder thread ---- */

/* A route that is attached to a port, with the kind that is in force there. */
struct route_table_port {
    uint16_t port;
    enum route_kind kind;
    enum route_set set;
    bool is_declared_http; /* named by an HTTPRoute or GRPCRoute: it counts as declared HTTP */
    const struct route *const *routes; /* accepted ones; any order */
    uint32_t routes_count;
};

/* What the compiler asks of the one who knows the other objects. */
struct route_table_resolver {
    void *argument;
    /* Can `reference`, which stands in `route`, be served? */
    enum route_backend_fault (*backend)(void *argument, const struct route *route,
                                        const struct route_backend_ref *reference);
    /* The BodyMatch of that name, or NULL. */
    const struct route_body_match *(*body_match)(void *argument, struct bytes namespace,
                                                 struct bytes name);
};

struct route_table_source {
    struct bytes namespace; /* of the Service */
    struct bytes name;
    const struct route_table_port *ports;
    uint32_t ports_count;
    const struct route_table_resolver *resolver;
    const struct route_table *previous; /* of the Service; NULL: none */
    uint32_t fail_after;                /* test hook: see arena_fail_after; 0 otherwise */
};

/*
 * Can this rule be served as written: does this version know its values, do its regular expressions
 * compile? One that cannot is left out by route_table_compile. `fault` may be NULL; it says why
 * not, `ret_position` where.
 */
bool route_rule_is_usable(const struct route_rule *rule, struct route_regex_fault *fault,
                          const struct route_position **ret_position);

/*
 * Compile what is attached to a Service; when that is the same as what `source->previous` was made
 * of, it is that table, with one more reference. The caller gets one reference.
 * Errors: ERROR_NO_MEMORY; ERROR_LIMIT above ROUTE_TABLE_BYTES_MAX.
 */
FALLIBLE route_table_compile(const struct route_table_source *source,
                             const struct route_table **ret_table);

/* What it was compiled from. */
const struct route_table_port *route_table_ports(const struct route_table *table,
                                                 uint32_t *ret_count);

/* Any thread. The last unref frees the table and lets its objects go. */
const struct route_table *route_table_ref(const struct route_table *table);
void route_table_unref(const struct route_table *table);

#define ROUTE_TABLE_BYTES_MAX (256u << 20)

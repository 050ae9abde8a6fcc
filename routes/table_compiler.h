/*
 * What the files of the compiler share. Private to table*.c.
 *
 * All that is made lies in the table's arena; what lies elsewhere (expressions, objects) the table
 * remembers by route_compiler_regex and route_compiler_hold, and lets go of in its end. After an
 * error the table is destroyed with what it has so far. Errors of all: ERROR_NO_MEMORY.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "routes/candidate.h"
#include "routes/table.h"

/* What is being compiled: a table's port, and whom to ask. */
struct route_compiler {
    struct route_table *table;
    struct arena *arena;
    const struct route_table_resolver *resolver;
    const struct route_table_port *port;
    struct route_rules *rules;
    bool has_parent_backend; /* a rule goes to the port that was dialled, so ports cannot share */
};

/* ---- table.c ---- */

/* Hold a reference on an object that the table borrows from. */
FALLIBLE route_compiler_hold(struct route_compiler *compiler, const struct route_object *object);

/* Compile an expression; it lives as long as the table. */
FALLIBLE route_compiler_regex(struct route_compiler *compiler, struct bytes pattern,
                              const struct route_regex **ret_regex);

/* What arena_format gave, or that it refused. */
FALLIBLE route_compiler_text(char *text, struct bytes *ret_text);

/* ---- table_rule.c ---- */

/* Is it an ExtensionRef to a BodyMatch, which is a predicate and no filter? */
bool route_filter_is_body_match(const struct route_filter *filter);

/* Fill in `rule` from `source`, a usable rule of `route`: names, filters, backends, faults. */
FALLIBLE route_compiler_rule(struct route_compiler *compiler, const struct route *route,
                             const struct route_rule *source, struct route_table_rule *rule);

/* ---- table_candidate.c ---- */

/* How many candidates a rule becomes. */
uint32_t route_compiler_count_matches(const struct route *route, const struct route_rule *rule);

/* Fill in the candidate of a rule's match. */
FALLIBLE route_compiler_candidate(struct route_compiler *compiler,
                                  const struct route_table_rule *rule, uint32_t match,
                                  struct route_candidate *candidate);

/* Fill in the body predicates of a rule, which are one more condition of each of its matches; one
 * that is not there is the rule's fault. */
FALLIBLE route_compiler_body_matches(struct route_compiler *compiler, struct route_table_rule *rule,
                                     struct route_candidate *candidate);

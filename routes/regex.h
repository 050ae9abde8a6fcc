/*
 * Regular expressions of routes: PCRE2's DFA matcher, anchored at both ends, with limits.
 *
 * The DFA matcher never backtracks, so its time is bounded by subject times states. Whatever it
 * cannot do (back-references, conditions, recursion, verbs) is refused when the expression is
 * compiled, not met at a request. A limit reached is an answer of its own: a request that reaches
 * one is answered 500, never taken for one that does not match.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define ROUTE_REGEX_PATTERN_BYTES_MAX 1024
#define ROUTE_REGEX_PROGRAM_BYTES_MAX 65536
#define ROUTE_REGEX_OPEN_REPEATS_MAX 20
#define ROUTE_REGEX_SUBJECT_BYTES_MAX 8192

struct route_regex;

/* What one thread needs to match; each worker has one, and explain makes its own. */
struct route_scratch;

enum route_answer {
    ROUTE_NO,
    ROUTE_YES,
    ROUTE_OVER_LIMIT,
};

/* Why an expression was refused, for people. */
struct route_regex_fault {
    size_t offset; /* into the pattern */
    char text[160];
};

/*
 * Compile `pattern`; `fault` may be NULL.
 * Errors: ERROR_SYNTAX with `fault` filled in; ERROR_LIMIT (pattern or program too long), likewise;
 * ERROR_NO_MEMORY.
 */
FALLIBLE route_regex_create(struct bytes pattern, struct route_regex_fault *fault,
                            struct route_regex **ret_regex);

/* What everything that matches begins with, as far as that can be told; lives as long as `regex`.
 */
struct bytes route_regex_literal(const struct route_regex *regex);

/* Accepts NULL. */
void route_regex_destroy(struct route_regex *regex);

/* Does the whole of `subject` match? Reads nothing that another thread writes but `scratch`, which
 * is the caller's. */
enum route_answer route_regex_match(const struct route_regex *regex, struct bytes subject,
                                    struct route_scratch *scratch);

/* Room for one subject, for the caller to assemble it in; route_regex_match reads it, nothing
 * writes it. */
uint8_t *route_scratch_subject(struct route_scratch *scratch);

/* Make a scratch; ERROR_NO_MEMORY. */
FALLIBLE route_scratch_create(struct route_scratch **ret_scratch);

/* Accepts NULL. */
void route_scratch_destroy(struct route_scratch *scratch);

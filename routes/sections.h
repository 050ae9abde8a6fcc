/*
 * A file of YAML in sections that can be parsed each by itself: a section begins with a line that
 * begins with "---", or with the file, and ends where the next one begins. Internal to routes/.
 *
 * YAML makes documents independent of each other but for a few things, and a file that has one of
 * them is not divided: directives, "..." (after which a document needs no "---"), line breaks other
 * than "\n", and JSON, which is rewritten as a whole. A line that begins with "---" and a blank
 * begins a document wherever it stands: no scalar at column 0 goes on behind it, and an open
 * collection or quotation is an error there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

struct route_section {
    struct bytes text; /* whole lines; borrowed from the content */
    uint32_t line;     /* of the file, from 1 */
    uint32_t lines_count;
};

struct route_sections {
    struct route_section *items; /* owned */
    uint32_t count;
    uint32_t capacity;
};

/* Divide `content`; none when it cannot be divided. To be finished also then. Errors:
 * ERROR_NO_MEMORY. */
FALLIBLE route_sections_divide(struct bytes content, struct route_sections *ret_sections);

/* Release all. */
void route_sections_finish(struct route_sections *sections);

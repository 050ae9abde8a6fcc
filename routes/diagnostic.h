/*
 * What is wrong with a configuration, as data: place, stable code, text, suggestion. A mistake in a
 * file is never an error of the program; whoever found it adds a diagnostic here and, when it
 * refuses something, returns ERROR_CONFIG.
 *
 * Bounded: the first ROUTE_DIAGNOSTICS_MAX are kept, the rest are counted, so that a hostile file
 * cannot fill memory or logs.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "routes/resource.h"

enum {
    ROUTE_DIAGNOSTICS_MAX = 1000
};

enum route_severity {
    ROUTE_SEVERITY_ERROR,   /* refuses the file's generation */
    ROUTE_SEVERITY_WARNING, /* does not */
};

struct route_diagnostic {
    enum route_severity severity;
    struct route_position position; /* line 0: the file as a whole */
    const char *code;               /* stable, lower-case words joined by '-'; static */
    const char *message;
    const char *suggestion; /* what to write instead, or NULL */
};

struct route_diagnostics {
    struct route_diagnostic *items; /* owned */
    uint32_t count;
    uint32_t capacity;
    uint32_t errors_count; /* of all found, also of those not kept */
    uint32_t warnings_count;
    struct arena arena; /* the texts */
};

/* Begin with none. */
void route_diagnostics_init(struct route_diagnostics *diagnostics);

/* Release all. The diagnostics may be used again after another init. */
void route_diagnostics_finish(struct route_diagnostics *diagnostics);

/*
 * Add one. `code` is static; `suggestion` may be NULL; both texts and the file's name are copied.
 * Without memory the diagnostic is only counted.
 */
void route_diagnostics_add(struct route_diagnostics *diagnostics, enum route_severity severity,
                           struct route_position position, const char *code, const char *suggestion,
                           const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Add copies of all of `from`. */
void route_diagnostics_append(struct route_diagnostics *diagnostics,
                              const struct route_diagnostics *from);

/* Sort by file, line, column; equal places keep their order. */
void route_diagnostics_sort(struct route_diagnostics *diagnostics);

/*
 * Runs a program of the system with text on its standard input and collects what it says. No shell,
 * no search along the environment's PATH: this may run with privileges.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Listings are cut here; a table of ours with every exclusion is under 64 KiB. */
#define TOOL_OUTPUT_BYTES_MAX ((size_t)256 * 1024)

struct tool_result {
    int status;   /* exit status, or 128 + the signal that ended it */
    char *output; /* standard output and error together, NUL-terminated; tool_result_finish */
};

/* Is there an executable of this name in the system's directories? */
bool tool_exists(const char *name);

/*
 * Run argv[0] (a bare name) with `input` (may be NULL) and wait for its end. A status other than 0
 * is not an error. Errors: ERROR_NOT_FOUND without such a program; ERROR_OS; ERROR_NO_MEMORY.
 */
FALLIBLE tool_run(const char *const argv[], const char *input, struct tool_result *ret_result);

void tool_result_finish(struct tool_result *result);

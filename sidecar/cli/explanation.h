/*
 * The whole decision for one request, offline or on the running proxy: what `outrigger explain
 * --json` prints and GET /explain answers (contract section 3), and the same as text for people.
 * One implementation for both.
 *
 * Thread: any; works on an immutable configuration.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "routes/load.h"
#include "routes/match.h"

struct explanation_request {
    struct bytes to;     /* "SERVICE.NS:PORT", or "ADDRESS:PORT" as an application dials it */
    struct bytes method; /* empty: GET */
    struct bytes target; /* "/path?query", as a client would send it; empty: "/" */
    struct bytes sni;    /* server name of a TLS connection, for TLSRoute; empty: none */
    const struct route_field *fields;
    uint32_t fields_count;
    bool is_udp; /* where a Service has TCP and UDP on one port: UDP */
};

/*
 * Explain. On ERROR_USAGE (the destination is not written as SERVICE.NS:PORT or ADDRESS:PORT)
 * and ERROR_NOT_FOUND (no such Service or port) `message` (size bytes) says what is wrong. Errors:
 * also ERROR_NO_MEMORY.
 */
FALLIBLE explanation_json(const struct route_config *config, uint64_t generation,
                          const struct explanation_request *request, struct json **ret_json,
                          char *message, size_t size);

/* The same for people: NUL-terminated, to be freed by the caller. Errors: as explanation_json. */
FALLIBLE explanation_text(const struct route_config *config, uint64_t generation,
                          const struct explanation_request *request, char **ret_text, char *message,
                          size_t size);

/*
 * HTTP/1.1, both roles (RFC 9110, RFC 9112). Strict: what two parsers could read in two ways is
 * refused, and nothing of a peer's framing is passed on, only our own (reliability.md A, D, E, F).
 *
 * Server role: a malformed request is answered here (400, 408, 414, 417, 426, 431, 501, 505; 405
 * for CONNECT and TRACE), then is_close_wanted; no exchange is asked for before a head is whole and
 * valid. Pipelined requests wait in the input until the exchange before them is over. Client role:
 * a malformed response is on_reset with EXCHANGE_RESET_PROTOCOL, and the connection is not
 * reusable.
 *
 * Heads are delivered with hop-by-hop fields dropped already and, for requests, with the target in
 * origin-form. What they were is in the head's flags.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "http/codec.h"

enum {
    HTTP1_DATE_BYTES = 29 /* of an IMF-fixdate (RFC 9110 5.6.7) */
};

struct http1_options {
    /* Server role: the present time as IMF-fixdate, HTTP1_DATE_BYTES long, kept up to date by its
     * owner; added to responses without Date. Borrowed; NULL: none is added. */
    const char *date;
    /* Server role: refusals have a body, {"code","message"}, as the admin socket's errors do. */
    bool has_json_errors;
};

/*
 * Make a codec for one connection. Server role: codec_receive delivers requests. Client role:
 * is_reusable is true from the start, and one exchange can be open at a time.
 * Errors: ERROR_NO_MEMORY.
 */
FALLIBLE http1_create(enum codec_role role, const struct codec_events *events, void *owner,
                      struct block_source *blocks, const struct http1_options *options,
                      struct codec **ret_codec);

/* What the detail of a codec's ERROR_PROTOCOL means, in a few words for the log; static storage. */
const char *http1_error_text(int32_t detail);

/* Write `seconds` since the epoch as IMF-fixdate: HTTP1_DATE_BYTES bytes and a NUL. */
void http1_print_date(uint64_t seconds, char ret_date[HTTP1_DATE_BYTES + 1]);

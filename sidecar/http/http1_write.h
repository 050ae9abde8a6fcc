/*
 * Heads and trailers of HTTP/1.1 to bytes: into one reservation of the buffer, whole runs of
 * unchanged lines at a time. Everything is looked at once more before it is written (reliability
 * B1, F9): a head of ours, of a filter's or of HTTP/2's must not become two.
 */
#pragma once

#include <stdbool.h>

#include "base/buffer.h"
#include "base/error.h"
#include "http/message.h"

/* Which framing field the head gets. */
enum http1_framing {
    HTTP1_FRAMING_NONE,
    HTTP1_FRAMING_AS_FIELD, /* Content-Length as the head has it: HEAD and 304 */
    HTTP1_FRAMING_LENGTH,   /* Content-Length: head->content_length */
    HTTP1_FRAMING_CHUNKED,
};

/* Add the head of a request. Errors: ERROR_PROTOCOL: a value that may not be sent, nothing was
 * added; ERROR_NO_MEMORY. */
FALLIBLE http1_write_request(struct buffer *out, struct block_source *blocks,
                             const struct message_head *head, enum http1_framing framing);

/* Add the head of a response, with `Connection: close` when `is_close`, with `date` (29 bytes;
 * NULL: none) when it has no Date. Errors: as above. */
FALLIBLE http1_write_response(struct buffer *out, struct block_source *blocks,
                              const struct message_head *head, enum http1_framing framing,
                              bool is_close, const char *date);

/* Add the last chunk and the trailers that may be sent. Errors: as above. */
FALLIBLE http1_write_trailers(struct buffer *out, struct block_source *blocks,
                              const struct message_head *trailers);

/*
 * Heads of HTTP/1.1 from bytes: one pass, no allocation, no copy; the result's views are into the
 * input. What is wrong is a fault, which has its status and its text (reliability.md A, D, E, F).
 *
 * A line is judged when it is whole, so that the answer does not depend on how the bytes were cut:
 * more than an unfinished line is never needed to say "more".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "http/message.h"
#include "limits.h"

enum http1_fault {
    HTTP1_FAULT_NONE,
    HTTP1_FAULT_REQUEST_LINE,
    HTTP1_FAULT_METHOD_BYTES,
    HTTP1_FAULT_TARGET,
    HTTP1_FAULT_TARGET_BYTES,
    HTTP1_FAULT_VERSION,
    HTTP1_FAULT_METHOD,
    HTTP1_FAULT_STATUS_LINE,
    HTTP1_FAULT_FIELD_NAME,
    HTTP1_FAULT_FIELD_VALUE,
    HTTP1_FAULT_FIELD_COUNT,
    HTTP1_FAULT_HEAD_BYTES,
    HTTP1_FAULT_HEAD_TIME,
    HTTP1_FAULT_ALIAS,
    HTTP1_FAULT_HOST,
    HTTP1_FAULT_CONTENT_LENGTH,
    HTTP1_FAULT_TRANSFER_ENCODING,
    HTTP1_FAULT_CODING_UNKNOWN,
    HTTP1_FAULT_TWO_FRAMINGS,
    HTTP1_FAULT_CONNECTION,
    HTTP1_FAULT_EXPECT,
    HTTP1_FAULT_UPGRADE,
    HTTP1_FAULT_UPGRADE_VERSION,
    HTTP1_FAULT_UPGRADE_BODY,
    HTTP1_FAULT_SWITCH,
    HTTP1_FAULT_INTERIM_COUNT,
    HTTP1_FAULT_CHUNK,
    HTTP1_FAULT_TRAILERS,
    HTTP1_FAULT_TRUNCATED,
    HTTP1_FAULT_UNSOLICITED,
    HTTP1_FAULT_REFUSED,
    HTTP1_FAULT_COUNT
};

enum http1_parse {
    HTTP1_PARSE_MORE,
    HTTP1_PARSE_DONE,
    HTTP1_PARSE_BAD, /* `fault` says why */
};

/* Large: on the stack of one call only. */
struct http1_parsed {
    struct message_head head; /* `fields` is the array below */
    struct message_field fields[LIMIT_FIELDS];
    size_t size;         /* of the head, with its empty line */
    uint32_t duplicates; /* a bit for each known name that came more than once */
    enum http1_fault fault;
    bool is_line_done;  /* the first line is whole, also when more is wanted */
    bool is_path_empty; /* absolute-form without a path: "/" stands before the target */
};

/*
 * What a request's head says, after all that RFC 9112 wants checked: target in origin-form,
 * authority, framing, upgrade, with hop-by-hop fields dropped.
 */
enum http1_parse http1_parse_request(struct bytes data, struct http1_parsed *ret_parsed);

/* The same of a response to a request that `is_head_request` and `is_upgrade` describe. An
 * upgrade's Sec-WebSocket-Accept is the caller's to compare. */
enum http1_parse http1_parse_response(struct bytes data, bool is_head_request, bool is_upgrade,
                                      struct http1_parsed *ret_parsed);

/* A trailer section, up to its empty line. Fields that may not stand there are dropped; `named` are
 * the values of the head's Connection fields. */
enum http1_parse http1_parse_trailers(struct bytes data, const struct bytes *named,
                                      uint32_t named_count, struct http1_parsed *ret_parsed);

/* May this field stand in trailers (reliability A18)? */
bool http1_is_trailer(struct bytes name);

/*
 * A chunk's line, without its CRLF: hexadecimal size and extensions, which are checked and dropped.
 * Returns false for a malformed one.
 */
bool http1_parse_chunk_line(struct bytes line, uint64_t *ret_size, size_t *ret_extension_bytes);

/* The status that answers a request with this fault. */
uint16_t http1_fault_status(enum http1_fault fault);

/* A few words for the log; static storage. */
const char *http1_fault_text(enum http1_fault fault);

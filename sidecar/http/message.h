/*
 * The head of an HTTP message, for every version: what codecs make of bytes and bytes of. RFC 9110.
 *
 * A head and everything that its views point at live in the arena of the exchange's owner (the
 * stream). Fields keep their order, their case and their repetitions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"

/* Fields that the proxy itself looks at; found once, while parsing, so that nobody searches by
 * name. */
enum message_field_name {
    MESSAGE_FIELD_OTHER,
    MESSAGE_FIELD_ACCESS_CONTROL_REQUEST_METHOD,
    MESSAGE_FIELD_AUTHORIZATION,
    MESSAGE_FIELD_CONNECTION,
    MESSAGE_FIELD_CONTENT_LENGTH,
    MESSAGE_FIELD_CONTENT_TYPE,
    MESSAGE_FIELD_COOKIE,
    MESSAGE_FIELD_DATE,
    MESSAGE_FIELD_EXPECT,
    MESSAGE_FIELD_HOST,
    MESSAGE_FIELD_KEEP_ALIVE,
    MESSAGE_FIELD_MAX_FORWARDS,
    MESSAGE_FIELD_ORIGIN,
    MESSAGE_FIELD_PROXY_CONNECTION,
    MESSAGE_FIELD_TE,
    MESSAGE_FIELD_TRAILER,
    MESSAGE_FIELD_TRANSFER_ENCODING,
    MESSAGE_FIELD_UPGRADE,
    MESSAGE_FIELD_VIA,
    MESSAGE_FIELD_X_FORWARDED_CLIENT_CERT,
    MESSAGE_FIELD_X_REQUEST_ID,
    MESSAGE_FIELD_NAME_COUNT
};

/* Begins like struct route_field (name, value), so that routes/match.h reads it in place by stride.
 */
struct message_field {
    struct bytes name;
    struct bytes value; /* without surrounding whitespace */
    uint8_t known;      /* enum message_field_name */
    bool is_dropped;    /* not sent on; set by hop-by-hop removal and by header modifiers */
};

enum message_version {
    MESSAGE_HTTP_1_0,
    MESSAGE_HTTP_1_1,
    MESSAGE_HTTP_2,
};

/* How the body is delimited on the wire it came by (RFC 9112 6.3); what is sent is decided by the
 * sending codec. */
enum message_body {
    MESSAGE_BODY_NONE,    /* no content follows */
    MESSAGE_BODY_LENGTH,  /* content_length bytes */
    MESSAGE_BODY_CHUNKED, /* length unknown, its end is marked (chunked, or HTTP/2 END_STREAM) */
    MESSAGE_BODY_UNTIL_CLOSE, /* responses only: to the end of the connection */
    MESSAGE_BODY_TUNNEL,      /* after 101 or 2xx to CONNECT: open-ended both ways */
};

struct message_head {
    enum message_version version;
    bool is_request;
    uint16_t status; /* responses: 100..599 */
    struct bytes reason;
    struct bytes method; /* requests, case-sensitive */
    struct bytes
        target; /* origin-form or "*", as received or as rewritten; never empty for a request */
    struct bytes scheme;    /* "http" unless the client said otherwise */
    struct bytes authority; /* Host, or the authority of an absolute-form target, or :authority */
    struct message_field *fields; /* an array in the arena, fields_capacity long */
    uint32_t fields_count;
    uint32_t fields_capacity;
    enum message_body body;
    uint64_t content_length; /* MESSAGE_BODY_LENGTH */
    /* An index into `fields` plus one for the first of each known name; 0: absent. */
    uint16_t known[MESSAGE_FIELD_NAME_COUNT];
    bool
        is_head_request; /* of a request: its method is HEAD. Decides the framing of the response */
    bool is_keep_alive;  /* the sender would go on using the connection */
    bool is_expect_continue;
    bool is_upgrade;         /* a valid WebSocket upgrade request, or a 101 */
    bool is_trailers_wanted; /* TE: trailers was sent */
    bool is_grpc;            /* content-type application/grpc... */
    /* The head as HTTP/1.1 received it and found it valid, where unchanged fields lie side by side;
     * {NULL, 0} for others. */
    struct bytes wire;
};

/* The first field of a known name that is not dropped; NULL when absent. */
const struct message_field *message_find(const struct message_head *head,
                                         enum message_field_name name);

/* The first field of any name, compared without case; NULL when absent. Dropped ones are not found.
 */
struct message_field *message_find_name(struct message_head *head, struct bytes name);

/* Append a field (views are borrowed and must live as long as the head). Errors: ERROR_NO_MEMORY,
 * ERROR_LIMIT. */
FALLIBLE message_add(struct message_head *head, struct arena *arena, struct bytes name,
                     struct bytes value);

/* Replace every field of that name by one (added at the end when absent). Errors: as message_add.
 */
FALLIBLE message_set(struct message_head *head, struct arena *arena, struct bytes name,
                     struct bytes value);

/* Drop every field of that name, compared without case. */
void message_remove(struct message_head *head, struct bytes name);

/* Is it a field of one hop only, which is not passed on (RFC 9110 7.6.1)? */
static inline bool message_field_is_of_hop(enum message_field_name name)
{
    return name == MESSAGE_FIELD_CONNECTION || name == MESSAGE_FIELD_KEEP_ALIVE ||
           name == MESSAGE_FIELD_PROXY_CONNECTION || name == MESSAGE_FIELD_TE ||
           name == MESSAGE_FIELD_TRANSFER_ENCODING || name == MESSAGE_FIELD_UPGRADE;
}

/* Which known name this is. */
enum message_field_name message_field_known(struct bytes name);

/*
 * Make the head fit to be sent on (RFC 9110 7.6.1, RFC 9112 9.6): fields named by Connection are
 * dropped first, then Connection itself, Keep-Alive, Proxy-Connection, TE, Transfer-Encoding and
 * Upgrade. What the next hop needs of them the sending codec writes by itself, from the head's
 * flags. Errors: ERROR_PROTOCOL when Connection names a field that may not be dropped (reliability
 * D2) or too many.
 */
FALLIBLE message_remove_hop_by_hop(struct message_head *head);

/* token of RFC 9110 5.6.2, at least one byte. */
bool message_is_token(struct bytes text);

/* A field value without NUL, CR, LF and other controls (RFC 9110 5.5, stricter), no surrounding
 * whitespace. */
bool message_is_field_value(struct bytes text);

/* The standard reason phrase of a status; "" when there is none. Static storage. */
struct bytes message_reason(uint16_t status);

/*
 * The forms that texts in the API have: names, hosts, header fields, durations, times; and the
 * nearest known word to a misspelt one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

enum route_text_form {
    ROUTE_TEXT_ANY,
    ROUTE_TEXT_SUBDOMAIN, /* RFC 1123: "a.b-c" */
    ROUTE_TEXT_LABEL,     /* one label of it */
    ROUTE_TEXT_LABEL_OR_EMPTY,
    ROUTE_TEXT_GROUP,            /* "" or a subdomain */
    ROUTE_TEXT_KIND,             /* letter, then letters, digits, '-' */
    ROUTE_TEXT_HOSTNAME,         /* subdomain, the first label may be "*" */
    ROUTE_TEXT_PRECISE_HOSTNAME, /* without "*" */
    ROUTE_TEXT_TOKEN,            /* RFC 9110 5.6.2: header, cookie and query parameter names */
    ROUTE_TEXT_FIELD_VALUE,      /* no control characters */
    ROUTE_TEXT_CORS_ORIGIN,
    ROUTE_TEXT_PATH, /* characters of a URI path, escapes well-formed */
    ROUTE_TEXT_URI,  /* with a scheme */
    ROUTE_TEXT_SPIFFE,
    ROUTE_TEXT_WELL_KNOWN_CA, /* "System" or domain/path */
    ROUTE_TEXT_JSON_POINTER,  /* RFC 6901 */
    ROUTE_TEXT_LABEL_VALUE,   /* "" or up to 63 letters, digits, '-', '_' and '.' */
    ROUTE_TEXT_QUALIFIED,     /* what labels are called: "example.com/name" or "name" */
    ROUTE_TEXT_PORT_NAME,     /* of a container: RFC 6335, 15 characters */
};

/* Is `text` of that form? Lengths are the schema's business. */
bool route_text_has_form(struct bytes text, enum route_text_form form);

/* What the form is, for people: "must be …". */
const char *route_text_form_name(enum route_text_form form);

/* GEP-2257: one to four times up to five digits and h, m, s or ms. Errors: ERROR_SYNTAX. */
FALLIBLE route_duration_parse(struct bytes text, int64_t *ret_ms);

/* RFC 3339 to seconds since 1970. Errors: ERROR_SYNTAX. */
FALLIBLE route_time_parse(struct bytes text, int64_t *ret_seconds);

/* Is it an IPv4 or IPv6 address? Hostnames must not be. */
bool route_text_is_ip(struct bytes text);

/*
 * How many insertions, deletions, changes and swaps of neighbours make `a` of `b`, case ignored;
 * `max` + 1 when it is more than `max`, or a text is longer than 64 bytes.
 */
uint32_t route_text_distance(struct bytes a, struct bytes b, uint32_t max);

/* Is `candidate` so near to `word` that it may have been meant? `*best` is the distance to beat,
 * and is lowered. */
bool route_text_is_nearer(struct bytes word, struct bytes candidate, uint32_t *best);

/* Are the letters of `word` those of `candidate` with some left out, as in Prefix for PathPrefix or
 * regex for RegularExpression? Case ignored; three letters at least. */
bool route_text_is_short_for(struct bytes word, struct bytes candidate);

/* The distance that nothing has reached yet, for route_text_is_nearer. */
#define ROUTE_TEXT_FAR UINT32_MAX

/*
 * From the first bytes of a connection to its protocol: a TLS ClientHello (RFC 8446 4.1.2), the
 * HTTP/2 preface (RFC 9113 3.4), an HTTP/1 request line, or none of them.
 *
 * Looks only, consumes nothing, keeps no state: give it all bytes so far each time. The answer does
 * not depend on how they were cut. How long to wait for more is the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/bytes.h"

enum detect_protocol {
    DETECT_NEEDS_MORE, /* what is there could still become one of the others */
    DETECT_TLS,
    DETECT_HTTP2,
    DETECT_HTTP1,
    DETECT_OPAQUE,
};

enum {
    DETECT_NAME_BYTES_MAX = 255, /* RFC 6066: a DNS name */
    DETECT_ALPN_BYTES_MAX = 255, /* of the list on the wire; protocols beyond are not seen */
};

/* What a ClientHello says in the clear. */
struct detect_hello {
    uint8_t sni_size; /* 0: none was sent */
    uint8_t alpn_size;
    uint8_t sni[DETECT_NAME_BYTES_MAX];  /* lower case */
    uint8_t alpn[DETECT_ALPN_BYTES_MAX]; /* length-prefixed protocol names, whole ones only */
};

/* What `input` begins with. `ret_hello` is written for DETECT_TLS only; it may be NULL. A record
 * that claims to be a ClientHello and is none is DETECT_OPAQUE. */
enum detect_protocol detect(const struct buffer *input, struct detect_hello *ret_hello);

/* The server name; empty: none. Borrowed from `hello`. */
struct bytes detect_hello_sni(const struct detect_hello *hello);

/* Does the ClientHello offer `protocol` by ALPN? */
bool detect_hello_offers(const struct detect_hello *hello, struct bytes protocol);

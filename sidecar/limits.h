/*
 * Every bound of the program, its unit and its reason. What is not bounded here is bounded by
 * something that is.
 */
#pragma once

#include "base/clock.h"

/* ---- HTTP messages: each is what the most widely used peers take, or less ---- */

enum {
    /* Bytes of a request target; RFC 9112 3 wants 8000 at least. Over: 414. */
    LIMIT_TARGET_BYTES = 8192,
    /* Bytes of a method; the longest registered one has 17. Over: 501. */
    LIMIT_METHOD_BYTES = 32,
    /* Bytes of a head on the wire, and of its fields with 32 for each (as HTTP/2 counts). Less than
     * the 64 KiB that a transport holds of unconsumed input, so that a head can always become
     * whole. Over: 431, or 502 for a response. */
    LIMIT_HEAD_BYTES = 60 * 1024,
    /* Fields of a received head. Over: 431, or 502. */
    LIMIT_FIELDS = 100,
    /* Fields of any head of ours: received ones, cookie crumbs, what filters and we add. */
    LIMIT_FIELDS_SENT = 512,
    /* Trailer fields and their bytes. Over: 400, or a reset. */
    LIMIT_TRAILER_FIELDS = 32,
    LIMIT_TRAILER_BYTES = 16 * 1024,
    /* Names in Connection: nobody needs more than three. Over: 400. */
    LIMIT_CONNECTION_TOKENS = 16,
    /* Interim (1xx) responses for one request. Over: 502. */
    LIMIT_INTERIM_RESPONSES = 16,
};

/* ---- HTTP/1.1 chunked coding ---- */

enum {
    /* Bytes of a chunk's line, of its extensions, and of all extensions of a message, which are
     * parsed and dropped (CVE-2023-39326). Over: 400, or a reset. */
    LIMIT_CHUNK_LINE_BYTES = 512,
    LIMIT_CHUNK_EXTENSION_BYTES = 256,
    LIMIT_CHUNK_EXTENSIONS_BYTES = 4096,
    /* Hexadecimal digits of a chunk's size: 2^52 - 1, exact in every language's numbers. */
    LIMIT_CHUNK_SIZE_DIGITS = 13,
    /* Received chunks up to here are copied together, so that a dribble of one-byte chunks does not
     * hold one block for each byte. */
    LIMIT_CHUNK_COPY_BYTES = 256,
    /* Data up to here are copied behind the head or the chunk's size: a copy of that size costs
     * less than one more element of the send's vector. */
    LIMIT_SEND_COPY_BYTES = 512,
};

/* ---- Detection ---- */

enum {
    /* Bytes of a ClientHello over all of its records; with post-quantum key shares 2 KiB are usual.
     * Over: opaque. */
    LIMIT_HELLO_BYTES = 16 * 1024,
};

/* ---- Connections, streams and what one worker holds of them ---- */

enum {
    /* Received and not yet consumed, for one connection; sent and not yet with the kernel. */
    RECEIVE_WINDOW_BYTES = 64 * 1024,
    SEND_HIGH_BYTES = 64 * 1024,
    /* Of one message's body, granted at a time. */
    EXCHANGE_WINDOW_BYTES = 64 * 1024,

    /* Heads of a request and its response, filters, labels. Most streams need one chunk. */
    STREAM_ARENA_CHUNK_BYTES = 4 * 1024,
    STREAM_ARENA_BYTES_MAX = 256 * 1024,

    /* Of one worker. */
    STREAMS_PER_CONNECTION = 2,
    UPSTREAMS_PER_CONNECTION = 2,
    SHARED_EXCHANGES_MAX = 100, /* at once on one upstream connection */
    CLUSTERS_MAX = 8 * 1024,
    ENDPOINTS_MAX = 64 * 1024,
    CLUSTER_CONNECTIONS_MAX = 16 * 1024,
    SNAPSHOTS_MAX = 4 * 1024, /* generations that some stream still looks into */
    ACCEPT_SLACK = 512,       /* accepted by the kernel when the last one was counted */
    RULE_HITS_CACHE = 256,

    /* Design 4.6: the first endpoint and up to two more; the ClusterIP after them. */
    ENDPOINT_ATTEMPTS_MAX = 3,

    REQUEST_ID_BYTES_MAX = 128,
};

/* Copies of bytes that wait for slow peers, and what we write ourselves: a window each way for a
 * few thousand connections that do not read. Reserved, touched as needed. */
#define HEAP_BYTES_MAX (UINT64_C(512) << 20)

/* ---- Times ---- */

/* From the first attempt on: after that only the ClusterIP is still tried (each attempt has
 * --connect-timeout). */
#define CONNECT_TOTAL_NS (3 * CLOCK_NS_PER_S)
/* From the first byte of a head to its last: who dribbles one gets 408. */
#define HEAD_TIMEOUT_NS (10 * CLOCK_NS_PER_S)
/* A keep-alive connection without a request. */
#define DOWNSTREAM_IDLE_NS (60 * CLOCK_NS_PER_S)
/* A stream over HTTP, or its tunnel, in which nothing happens; the timeouts of its route are apart.
 */
#define STREAM_IDLE_NS (300 * CLOCK_NS_PER_S)
/* Opaque connections in which no byte moves: protocols over TCP are silent for long (databases,
 * queues), and break when cut. */
#define OPAQUE_IDLE_NS (3600 * CLOCK_NS_PER_S)
/* The same once one side has ended: mostly the other one is gone without a word. */
#define HALF_CLOSED_IDLE_NS (300 * CLOCK_NS_PER_S)
/* Between two log lines of one cluster that its ClusterIP is dialled for want of endpoints. */
#define FALLBACK_SILENCE_NS (10 * CLOCK_NS_PER_S)
/* How long it is remembered that a server spoke first, so that its next clients need not wait. */
#define SERVER_FIRST_MEMORY_NS (600 * CLOCK_NS_PER_S)

_Static_assert((int)LIMIT_HEAD_BYTES < (int)RECEIVE_WINDOW_BYTES,
               "a transport holds a whole head, so that it can be parsed");
_Static_assert(LIMIT_TARGET_BYTES + LIMIT_METHOD_BYTES < LIMIT_HEAD_BYTES,
               "what is wrong with a line that is too long is the line");
_Static_assert(LIMIT_CHUNK_EXTENSION_BYTES < LIMIT_CHUNK_LINE_BYTES,
               "a chunk's size fits beside the longest extension");
_Static_assert((int)LIMIT_FIELDS < (int)LIMIT_FIELDS_SENT,
               "filters can add to every head that is received");
_Static_assert(2 * (int)LIMIT_HEAD_BYTES < (int)STREAM_ARENA_BYTES_MAX,
               "a stream's arena holds the heads of request and response");

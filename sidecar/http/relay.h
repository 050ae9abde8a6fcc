/*
 * Test support: the smallest proxy. A server codec and a client codec joined in memory, which keeps
 * all that either peer would have got. Bodies are passed on whole, so that what is kept does not
 * depend on how the input was cut.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "http/codec.h"

struct relay_record {
    uint8_t *data; /* owned */
    size_t size;
    size_t capacity;
};

struct relay {
    struct exchange downstream; /* first */
    struct exchange upstream;
    struct codec *server;
    struct codec *client; /* NULL: none yet */
    struct arena arena;
    struct buffer server_input;
    struct buffer client_input;
    struct buffer request_body;
    struct buffer response_body;
    struct relay_record to_client; /* what the downstream peer got */
    struct relay_record to_server; /* what the upstream peers got */
    const char *auto_answer; /* what an upstream says to a whole request; NULL: the test says */
    unsigned requests_whole;
    unsigned responses_whole;
    unsigned malformed;
    unsigned interims;
    bool is_request_whole;
    bool is_answered; /* a response's head went downstream */
    bool is_input_wanted;
    bool is_tunnel;
    bool is_streaming; /* data are passed on as they come, and granted `grant_bytes` at a time */
    uint64_t grant_bytes;
    bool has_reset; /* the upstream exchange was reset, with this: */
    bool has_begun; /* some byte of the response had come */
    enum exchange_reset reset_reason;
    int32_t reset_detail;
};

/* Make a server codec; `auto_answer` is what every whole request is answered with, or NULL. */
void relay_init(struct relay *relay, const char *auto_answer);
void relay_finish(struct relay *relay);

/* The downstream connection is gone: what was kept of an unfinished body is passed on. */
void relay_cut(struct relay *relay);

/* Bytes from the downstream peer, as one read gives them. */
void relay_receive(struct relay *relay, const uint8_t *data, size_t size);
void relay_receive_end(struct relay *relay, enum codec_end end);

/* Bytes from the upstream peer. */
void relay_respond(struct relay *relay, const uint8_t *data, size_t size);
void relay_respond_end(struct relay *relay, enum codec_end end);

/* With a field more than it came with, may a head of this input be over the next one's bound? */
bool relay_is_near_bound(const uint8_t *data, size_t size);

/* CHECK that two peers got the same. */
void relay_expect_same(const struct relay_record *a, const struct relay_record *b);

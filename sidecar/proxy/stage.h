/*
 * Test support: a world (proxy/world.h) with a client and the pods of `web`, each a party that
 * keeps what it got. A test of a path is what happens between them:
 *
 *     TEST_EACH_SEED(http_path, answers)
 *     {
 *         struct stage *stage = stage_begin(seed, &config, &party_answers, "HTTP/1.1 ...");
 *         struct io_fake_peer *peer = stage_dial(stage, &stage->client);
 *         stage_say(stage, peer, "GET / HTTP/1.1\r\n...");
 *         EXPECT_TEXT(&stage->client, "200 OK");
 *         stage_end(stage);
 *     }
 */
#pragma once

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "proxy/world.h"

enum {
    STAGE_SEEDS = 12,
    STAGE_SERVERS = 4,
    PARTY_TEXT_MAX = 1 << 16,
};

/* A test on the calm network (seed 0) and on a few seeds of trouble. */
#define TEST_EACH_SEED(suite, name)                                                                \
    static void name(uint64_t seed);                                                               \
    Test(suite, name)                                                                              \
    {                                                                                              \
        for (uint64_t seed = 0; seed < STAGE_SEEDS; seed++) {                                      \
            name(seed);                                                                            \
        }                                                                                          \
    }                                                                                              \
    static void name(uint64_t seed)

/* A played peer that keeps what it got. Zeroed to begin with. */
struct party {
    struct io_fake_peer *peer; /* of the last connection */
    char text[PARTY_TEXT_MAX]; /* the first bytes, NUL-terminated */
    size_t size;               /* of the text */
    size_t answered;           /* party_answers: up to here requests were answered */
    uint64_t received_bytes;   /* all, also what is not kept */
    uint64_t hash;             /* of all, by world_hash from 0 */
    uint32_t connected;        /* connections */
    uint32_t requests;         /* party_answers: that were answered */
    bool has_ended;
    bool was_reset;
    bool was_refused;
    uint64_t seed;      /* of its stage, for messages */
    const char *answer; /* party_answers: to every request; party_greets: said at once */
};

/* Keeps, says nothing. */
extern const struct io_fake_script party_keeps;

/* Gives back what it gets, its end too. */
extern const struct io_fake_script party_echoes;

/* Speaks first, ends when it is told the end. */
extern const struct io_fake_script party_greets;

/* Answers each head (of requests without bodies), and closes at the end. One connection at a time.
 */
extern const struct io_fake_script party_answers;

/* What party_answers and the scripts of tests are made of. */
void party_on_connected(struct io_fake_peer *peer);
void party_on_data(struct io_fake_peer *peer, struct bytes data);
void party_on_end_close(struct io_fake_peer *peer);
void party_on_reset(struct io_fake_peer *peer);

/* Send text. */
void party_say(struct io_fake_peer *peer, const char *text);

/* Is the text, or how often is it, in what the party kept? */
bool party_has(const struct party *party, const char *text);
uint32_t party_count(const struct party *party, const char *text);

/* Start the text anew. */
void party_forget(struct party *party);

/* Has its connection ended in any way? */
bool party_is_over(const struct party *party);

/* The party has got `text_`; what it got is shown when not. */
#define EXPECT_TEXT(party_, text_)                                                                 \
    cr_assert(party_has(party_, text_), "seed %lu: no \"%s\" in: %s",                              \
              (unsigned long)(party_)->seed, text_, (party_)->text)

struct stage {
    struct world world;
    struct party client;
    struct party servers[STAGE_SERVERS]; /* of the pods with that index; also spare clients */
};

/* A world in which pod 0 plays `script` and answers with `answer`; NULL: nobody is there. */
struct stage *stage_begin(uint64_t seed, const struct world_config *config,
                          const struct io_fake_script *script, const char *answer);

/* The same; before the worker exists `change` may change the world's settings. */
struct stage *stage_begin_with(uint64_t seed, const struct world_config *config,
                               void (*change)(struct world *world),
                               const struct io_fake_script *script, const char *answer);

/* Stop the worker, check that nothing is left, free. */
void stage_end(struct stage *stage);

/* Let `party` play `script` at an address; another call for the address replaces it. */
void stage_serve_at(struct stage *stage, struct address address,
                    const struct io_fake_script *script, struct party *party);

/* Let servers[pod] play `script` at that pod. */
void stage_serve(struct stage *stage, uint32_t pod, const struct io_fake_script *script,
                 const char *answer);

/* Connections to a pod come to this. */
void stage_fail(struct stage *stage, uint32_t pod, enum io_fake_outcome outcome);

/* Dial Service `web` by the listener named for it. */
struct io_fake_peer *stage_dial(struct stage *stage, struct party *client);

/* Dial `original` through a listener that redirection leads to. */
struct io_fake_peer *stage_dial_original(struct stage *stage, enum listener_kind kind,
                                         const char *original, struct party *client);

/* Let happen what can within a second. */
void stage_settle(struct stage *stage);

/* Send text and let happen what it causes. */
void stage_say(struct stage *stage, struct io_fake_peer *peer, const char *text);

/* Run until that party's connection is over; fails the test when it never is. */
void stage_run_until_over(struct stage *stage, struct party *party);

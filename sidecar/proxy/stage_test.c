/* Test support: see stage.h. */
#include "proxy/stage.h"

#include <stdlib.h>
#include <string.h>

/* ---- parties ---- */

void party_on_connected(struct io_fake_peer *peer)
{
    struct party *party = io_fake_owner(peer);
    party->connected++;
    party->peer = peer;
    party->answered = party->size;
}

void party_on_data(struct io_fake_peer *peer, struct bytes data)
{
    struct party *party = io_fake_owner(peer);
    party->hash = world_hash(party->hash, data);
    party->received_bytes += data.size;
    size_t room = sizeof(party->text) - 1 - party->size;
    size_t size = data.size < room ? data.size : room;
    memcpy(party->text + party->size, data.data, size);
    party->size += size;
    party->text[party->size] = '\0';
}

static void on_end(struct io_fake_peer *peer)
{
    ((struct party *)io_fake_owner(peer))->has_ended = true;
}

void party_on_reset(struct io_fake_peer *peer)
{
    ((struct party *)io_fake_owner(peer))->was_reset = true;
}

static void on_refused(struct io_fake_peer *peer)
{
    ((struct party *)io_fake_owner(peer))->was_refused = true;
}

void party_on_end_close(struct io_fake_peer *peer)
{
    on_end(peer);
    io_fake_close(peer);
}

static void echo_data(struct io_fake_peer *peer, struct bytes data)
{
    party_on_data(peer, data);
    io_fake_send(peer, data);
}

static void end_too(struct io_fake_peer *peer)
{
    on_end(peer);
    io_fake_send_end(peer);
}

static void greet(struct io_fake_peer *peer)
{
    party_on_connected(peer);
    party_say(peer, ((struct party *)io_fake_owner(peer))->answer);
}

static void answer_data(struct io_fake_peer *peer, struct bytes data)
{
    struct party *party = io_fake_owner(peer);
    party_on_data(peer, data);
    const char *end = NULL;
    while ((end = strstr(party->text + party->answered, "\r\n\r\n")) != NULL) {
        party->answered = (size_t)(end + 4 - party->text);
        party->requests++;
        party_say(peer, party->answer);
    }
}

const struct io_fake_script party_keeps = {.on_connected = party_on_connected,
                                           .on_data = party_on_data,
                                           .on_end = on_end,
                                           .on_reset = party_on_reset,
                                           .on_refused = on_refused};
const struct io_fake_script party_echoes = {.on_connected = party_on_connected,
                                            .on_data = echo_data,
                                            .on_end = end_too,
                                            .on_reset = party_on_reset};
const struct io_fake_script party_greets = {
    .on_connected = greet, .on_data = party_on_data, .on_end = end_too, .on_reset = party_on_reset};
const struct io_fake_script party_answers = {.on_connected = party_on_connected,
                                             .on_data = answer_data,
                                             .on_end = party_on_end_close,
                                             .on_reset = party_on_reset};

void party_say(struct io_fake_peer *peer, const char *text)
{
    io_fake_send(peer, bytes_from_string(text));
}

bool party_has(const struct party *party, const char *text)
{
    return strstr(party->text, text) != NULL;
}

uint32_t party_count(const struct party *party, const char *text)
{
    uint32_t found = 0;
    for (const char *at = party->text; (at = strstr(at, text)) != NULL; at += strlen(text)) {
        found++;
    }
    return found;
}

void party_forget(struct party *party)
{
    party->size = 0;
    party->answered = 0;
    party->text[0] = '\0';
}

bool party_is_over(const struct party *party)
{
    return party->has_ended || party->was_reset || party->was_refused;
}

/* ---- the stage ---- */

struct stage *stage_begin_with(uint64_t seed, const struct world_config *config,
                               void (*change)(struct world *world),
                               const struct io_fake_script *script, const char *answer)
{
    struct stage *stage = calloc(1, sizeof(*stage)); /* the texts are large */
    cr_assert_not_null(stage);
    stage->client.seed = seed;
    for (uint32_t i = 0; i < STAGE_SERVERS; i++) {
        stage->servers[i].seed = seed;
    }
    world_begin_with(&stage->world, seed, config, 0, change);
    if (script != NULL) {
        stage_serve(stage, 0, script, answer);
    }
    return stage;
}

struct stage *stage_begin(uint64_t seed, const struct world_config *config,
                          const struct io_fake_script *script, const char *answer)
{
    return stage_begin_with(seed, config, NULL, script, answer);
}

void stage_end(struct stage *stage)
{
    world_end(&stage->world);
    free(stage);
}

void stage_serve_at(struct stage *stage, struct address address,
                    const struct io_fake_script *script, struct party *party)
{
    io_fake_serve(stage->world.io,
                  &(struct io_fake_service){.address = address, .script = script, .owner = party});
}

void stage_serve(struct stage *stage, uint32_t pod, const struct io_fake_script *script,
                 const char *answer)
{
    stage->servers[pod].answer = answer;
    stage_serve_at(stage, world_pod(pod), script, &stage->servers[pod]);
}

void stage_fail(struct stage *stage, uint32_t pod, enum io_fake_outcome outcome)
{
    io_fake_serve(stage->world.io,
                  &(struct io_fake_service){.address = world_pod(pod), .outcome = outcome});
}

struct io_fake_peer *stage_dial_original(struct stage *stage, enum listener_kind kind,
                                         const char *original, struct party *client)
{
    client->peer = world_dial(&stage->world, kind, original, &party_keeps, client);
    return client->peer;
}

struct io_fake_peer *stage_dial(struct stage *stage, struct party *client)
{
    return stage_dial_original(stage, LISTENER_NAMED, NULL, client);
}

void stage_settle(struct stage *stage)
{
    io_fake_run_for(stage->world.io, CLOCK_NS_PER_S);
}

void stage_say(struct stage *stage, struct io_fake_peer *peer, const char *text)
{
    party_say(peer, text);
    stage_settle(stage);
}

static bool is_over(void *argument)
{
    return party_is_over(argument);
}

void stage_run_until_over(struct stage *stage, struct party *party)
{
    world_run_until(&stage->world, is_over, party);
}

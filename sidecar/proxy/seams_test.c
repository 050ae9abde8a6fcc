/*
 * The seams of transports and codecs, proven by a codec that interleaves exchanges (weave.h) and a
 * filter that re-frames, has a handshake and can be truncated, through the same worker. Each
 * exchange has exactly one outcome and its own bytes, on thousands of seeds.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "proxy/weave.h"
#include "proxy/worker_state.h"
#include "proxy/world.h"

enum {
    RECORD_MAX = 100, /* plain bytes of one record */
};

/* ---- the filter: "HI..." is answered by "YO!"; records of a size and bytes xor 0x5a; 0 ends ----
 */

struct veil {
    struct transport_filter filter; /* first */
    enum codec_role role;
    uint8_t record[256]; /* what is not a whole handshake or record yet */
    size_t held;
};

static const char hello[] = "HI...";
static const char answer[] = "YO!";

static struct error append(struct buffer *to, const void *data, size_t size)
{
    return buffer_append(to, block_source_heap(), bytes_make(data, size));
}

static struct error wrap(struct bytes plain, struct buffer *wire)
{
    while (plain.size > 0) {
        uint8_t record[1 + RECORD_MAX];
        size_t size = plain.size < RECORD_MAX ? plain.size : RECORD_MAX;
        record[0] = (uint8_t)size;
        for (size_t i = 0; i < size; i++) {
            record[i + 1] = plain.data[i] ^ 0x5a;
        }
        TRY(append(wire, record, size + 1));
        plain = bytes_skip(plain, size);
    }
    return OK;
}

/* One more wire byte. Errors: ERROR_PROTOCOL. */
static struct error take_byte(struct veil *veil, uint8_t byte, struct buffer *plain,
                              struct buffer *reply)
{
    if (veil->filter.state == TRANSPORT_FILTER_ENDED) {
        return error_make(ERROR_PROTOCOL, 0);
    }
    veil->record[veil->held++] = byte;
    if (veil->filter.state == TRANSPORT_FILTER_HANDSHAKE) {
        bool is_server = veil->role == CODEC_ROLE_SERVER;
        const char *expected = is_server ? hello : answer;
        if (byte != (uint8_t)expected[veil->held - 1]) {
            return error_make(ERROR_PROTOCOL, 0);
        }
        if (expected[veil->held] == '\0') {
            veil->held = 0;
            veil->filter.state = TRANSPORT_FILTER_OPEN;
            return is_server ? append(reply, answer, strlen(answer)) : OK;
        }
        return OK;
    }
    if (veil->record[0] == 0) {
        veil->filter.state = TRANSPORT_FILTER_ENDED;
        return OK;
    }
    if (veil->held < (size_t)veil->record[0] + 1) {
        return OK;
    }
    for (size_t i = 1; i < veil->held; i++) {
        veil->record[i] ^= 0x5a;
    }
    size_t size = veil->held - 1;
    veil->held = 0;
    return append(plain, veil->record + 1, size);
}

static struct error veil_receive(struct transport_filter *filter, struct buffer *wire,
                                 struct buffer *plain, struct buffer *reply)
{
    struct veil *veil = (struct veil *)(void *)filter;
    while (wire->size > 0) {
        struct bytes front = buffer_front(wire);
        uint8_t copy[512];
        size_t size = front.size < sizeof(copy) ? front.size : sizeof(copy);
        memcpy(copy, front.data, size);
        buffer_consume(wire, size);
        for (size_t i = 0; i < size; i++) {
            TRY(take_byte(veil, copy[i], plain, reply));
        }
    }
    return OK;
}

static struct error veil_send(struct transport_filter *filter, struct buffer *plain,
                              struct buffer *wire)
{
    cr_assert_eq(filter->state == TRANSPORT_FILTER_HANDSHAKE, false);
    while (plain->size > 0) {
        struct bytes front = buffer_front(plain);
        TRY(wrap(front, wire));
        buffer_consume(plain, front.size);
    }
    return OK;
}

static struct error veil_begin(struct transport_filter *filter, struct buffer *wire)
{
    const struct veil *veil = (const struct veil *)(const void *)filter;
    return veil->role == CODEC_ROLE_CLIENT ? append(wire, hello, strlen(hello)) : OK;
}

static struct error veil_end(struct transport_filter *filter, struct buffer *wire)
{
    (void)filter;
    return append(wire, "", 1);
}

static void veil_destroy(struct transport_filter *filter)
{
    free(filter);
}

static struct transport_filter *make_veil(struct worker *worker, enum codec_role role)
{
    (void)worker;
    static const struct transport_filter_ops ops = {.receive = veil_receive,
                                                    .send = veil_send,
                                                    .begin = veil_begin,
                                                    .end = veil_end,
                                                    .destroy = veil_destroy};
    struct veil *veil = calloc(1, sizeof(*veil));
    cr_assert_not_null(veil);
    veil->filter.ops = &ops;
    veil->role = role;
    return &veil->filter;
}

static struct error make_weave(struct worker *worker, enum codec_role role,
                               const struct codec_events *events, struct connection *connection,
                               struct codec **ret_codec)
{
    return weave_create(role, events, connection, io_blocks(worker->io), ret_codec);
}

/* ---- peers ---- */

enum {
    EXCHANGES_MAX = 12,
    BODY_MAX = 20000,
    PLAIN_MAX = 1 << 20,
};

/* What the other side of one exchange got, on the client's side. */
struct outcome {
    uint64_t sent_hash;
    uint64_t sent_bytes;
    uint64_t hash;
    uint64_t bytes;
    uint32_t heads;
    uint32_t ends;
    uint32_t resets;
    uint32_t sent_at; /* bytes of the body that are on their way */
    bool wants_reset; /* its server resets it */
    bool gives_up;    /* the client resets it */
};

/* A played connection: the plain bytes of a veil or of the wire, cut to frames. */
struct talker {
    struct io_fake_peer *peer;
    struct veil *veil; /* NULL: plain */
    uint8_t frame[WEAVE_FRAME_BYTES + WEAVE_DATA_MAX];
    size_t held;
    uint64_t hash; /* opaque: of everything */
    uint64_t bytes;
    bool is_server;
    bool is_veiled;
    bool is_weaving;
    bool has_ended;
    bool was_reset;
    bool truncates;
    struct outcome *outcomes; /* clients; borrowed */
};

static void say(struct talker *talker, struct bytes plain)
{
    if (!talker->is_veiled) {
        io_fake_send(talker->peer, plain);
        return;
    }
    struct buffer wire = {0};
    cr_assert(!error_is(wrap(plain, &wire)));
    while (wire.size > 0) {
        struct bytes front = buffer_front(&wire);
        io_fake_send(talker->peer, front);
        buffer_consume(&wire, front.size);
    }
    buffer_clear(&wire);
}

static void say_end(struct talker *talker)
{
    if (talker->is_veiled && !talker->truncates) {
        io_fake_send(talker->peer, bytes_make("", 1));
    }
    io_fake_send_end(talker->peer);
}

static void say_frame(struct talker *talker, uint8_t id, char type, struct bytes payload)
{
    static uint8_t frame[WEAVE_FRAME_BYTES + WEAVE_DATA_MAX];
    frame[0] = id;
    frame[1] = (uint8_t)type;
    frame[2] = (uint8_t)(payload.size >> 8);
    frame[3] = (uint8_t)payload.size;
    if (payload.size > 0) {
        memcpy(frame + WEAVE_FRAME_BYTES, payload.data, payload.size);
    }
    say(talker, bytes_make(frame, WEAVE_FRAME_BYTES + payload.size));
}

/* A server gives back what it gets; "POST /reset" is reset. */
static void serve_frame(struct talker *talker, uint8_t id, uint8_t type, struct bytes payload)
{
    if (type == 'H' && bytes_find_bytes(payload, BYTES("/reset")) < payload.size) {
        say_frame(talker, id, 'R', (struct bytes){0});
    } else if (type == 'H') {
        say_frame(talker, id, 'H', BYTES("200"));
    } else if (type != 'R') {
        say_frame(talker, id, (char)type, payload);
    }
}

static void note_frame(struct talker *talker, uint8_t id, uint8_t type, struct bytes payload)
{
    cr_assert_lt(id, EXCHANGES_MAX);
    struct outcome *outcome = &talker->outcomes[id];
    switch (type) {
    case 'H':
        outcome->heads++;
        break;
    case 'D':
        outcome->hash = world_hash(outcome->hash, payload);
        outcome->bytes += payload.size;
        break;
    case 'E':
        outcome->ends++;
        break;
    default:
        outcome->resets++;
        break;
    }
}

static void take_plain(struct talker *talker, struct bytes data)
{
    talker->hash = world_hash(talker->hash, data);
    talker->bytes += data.size;
    if (!talker->is_weaving) {
        if (talker->is_server) {
            say(talker, data);
        }
        return;
    }
    for (size_t i = 0; i < data.size; i++) {
        talker->frame[talker->held++] = data.data[i];
        if (talker->held < WEAVE_FRAME_BYTES) {
            continue;
        }
        size_t size = (size_t)talker->frame[2] << 8 | talker->frame[3];
        cr_assert_leq(size, WEAVE_DATA_MAX);
        if (talker->held < WEAVE_FRAME_BYTES + size) {
            continue;
        }
        struct bytes payload = bytes_make(talker->frame + WEAVE_FRAME_BYTES, size);
        talker->held = 0;
        (talker->is_server ? serve_frame : note_frame)(talker, talker->frame[0], talker->frame[1],
                                                       payload);
    }
}

static void on_data(struct io_fake_peer *peer, struct bytes data)
{
    struct talker *talker = io_fake_owner(peer);
    if (talker->veil == NULL) {
        take_plain(talker, data);
        return;
    }
    struct buffer plain = {0};
    struct buffer reply = {0};
    for (size_t i = 0; i < data.size; i++) {
        cr_assert(!error_is(take_byte(talker->veil, data.data[i], &plain, &reply)));
    }
    if (reply.size > 0) {
        io_fake_send(peer, buffer_front(&reply));
    }
    while (plain.size > 0) {
        struct bytes front = buffer_front(&plain);
        take_plain(talker, front);
        buffer_consume(&plain, front.size);
    }
    buffer_clear(&plain);
    buffer_clear(&reply);
}

static void on_end(struct io_fake_peer *peer)
{
    struct talker *talker = io_fake_owner(peer);
    talker->has_ended = true;
    if (talker->is_server) {
        say_end(talker);
    }
}

static void on_reset(struct io_fake_peer *peer)
{
    ((struct talker *)io_fake_owner(peer))->was_reset = true;
}

/* Every connection to a pod has a talker of its own. */
struct party {
    struct talker *servers[64]; /* owned */
    uint32_t servers_count;
    bool is_veiled;
    bool is_weaving;
    bool truncates;
};

static struct talker *make_talker(bool is_server, bool is_veiled, bool is_weaving)
{
    struct talker *talker = calloc(1, sizeof(*talker));
    cr_assert_not_null(talker);
    talker->is_server = is_server;
    talker->is_veiled = is_veiled;
    talker->is_weaving = is_weaving;
    if (is_veiled) {
        talker->veil = (struct veil *)(void *)make_veil(NULL, is_server ? CODEC_ROLE_SERVER
                                                                        : CODEC_ROLE_CLIENT);
    }
    return talker;
}

static void free_talker(struct talker *talker)
{
    free(talker->veil);
    free(talker);
}

static const struct io_fake_script talks = {
    .on_data = on_data, .on_end = on_end, .on_reset = on_reset};

static void on_server_connected(struct io_fake_peer *peer)
{
    struct party *party = io_fake_owner(peer);
    cr_assert_lt(party->servers_count, 64);
    struct talker *talker = make_talker(true, party->is_veiled, party->is_weaving);
    talker->truncates = party->truncates;
    talker->peer = peer;
    party->servers[party->servers_count++] = talker;
    io_fake_set_owner(peer, talker);
    io_fake_set_script(peer, &talks);
}

static const struct io_fake_script accepts = {.on_connected = on_server_connected};

static struct talker *dial(struct world *world, bool is_veiled, bool is_weaving)
{
    struct talker *talker = make_talker(false, is_veiled, is_weaving);
    talker->peer = world_dial(world, LISTENER_NAMED, NULL, &talks, talker);
    if (is_veiled) {
        io_fake_send(talker->peer, bytes_make(hello, strlen(hello)));
    }
    return talker;
}

static void begin(struct world *world, uint64_t seed, struct party *party, const char *port_name)
{
    const struct world_config config = {.port_name = port_name, .pods = 2, .has_slices = true};
    world_begin(world, seed, &config, seed % 4 == 3 ? 16 : 0);
    world->worker->codecs[CODEC_HTTP2] = make_weave;
    world->worker->make_filter = party->is_veiled ? make_veil : NULL;
    for (uint32_t i = 0; i < 2; i++) {
        io_fake_serve(world->io, &(struct io_fake_service){
                                     .address = world_pod(i), .script = &accepts, .owner = party});
    }
}

static void end(struct world *world, struct party *party)
{
    world_end(world);
    for (uint32_t i = 0; i < party->servers_count; i++) {
        free_talker(party->servers[i]);
    }
}

/* ---- exchanges ---- */

static void ask(struct talker *client, uint8_t id, const struct outcome *outcome)
{
    say_frame(client, id, 'H', outcome->wants_reset ? BYTES("POST /reset") : BYTES("POST /echo"));
}

/* The next piece of body `id`, of which every byte follows from its place; true at its end. */
static bool send_piece(struct world *world, struct talker *client, uint8_t id,
                       struct outcome *outcome)
{
    static uint8_t piece[WEAVE_DATA_MAX];
    uint64_t left = outcome->sent_bytes - outcome->sent_at;
    uint64_t size = 1 + io_fake_random(world->io) % WEAVE_DATA_MAX;
    size = size < left ? size : left;
    for (uint64_t i = 0; i < size; i++) {
        piece[i] = (uint8_t)(id * 31 + (outcome->sent_at + i) * 7);
    }
    outcome->sent_hash = world_hash(outcome->sent_hash, bytes_make(piece, size));
    outcome->sent_at += (uint32_t)size;
    if (size > 0) {
        say_frame(client, id, 'D', bytes_make(piece, size));
    }
    return outcome->sent_at == outcome->sent_bytes;
}

static void send_all(struct world *world, struct talker *client, struct outcome *outcomes,
                     uint32_t count)
{
    bool is_done[EXCHANGES_MAX] = {false};
    uint32_t left = count;
    for (uint8_t id = 0; id < count; id++) {
        outcomes[id].sent_bytes = io_fake_random(world->io) % BODY_MAX;
        outcomes[id].wants_reset = io_fake_random(world->io) % 8 == 0;
        outcomes[id].gives_up = io_fake_random(world->io) % 8 == 0;
        ask(client, id, &outcomes[id]);
    }
    while (left > 0) {
        uint8_t id = (uint8_t)(io_fake_random(world->io) % count);
        if (is_done[id]) {
            continue;
        }
        bool is_whole = send_piece(world, client, id, &outcomes[id]);
        if (outcomes[id].gives_up) {
            say_frame(client, id, 'R', (struct bytes){0});
        } else if (is_whole) {
            say_frame(client, id, 'E', (struct bytes){0});
        }
        is_done[id] = is_whole || outcomes[id].gives_up;
        left -= is_done[id];
    }
}

struct wait {
    const struct outcome *outcomes;
    uint32_t count;
    const struct world *world;
};

static bool is_every_exchange_over(void *argument)
{
    const struct wait *wait = argument;
    for (uint32_t i = 0; i < wait->count; i++) {
        const struct outcome *outcome = &wait->outcomes[i];
        if (outcome->ends + outcome->resets == 0 && !outcome->gives_up) {
            return false;
        }
    }
    return worker_open_exchanges(wait->world->worker) == 0;
}

static void interleave(uint64_t seed, bool is_veiled)
{
    struct world world;
    struct party party = {.is_veiled = is_veiled, .is_weaving = true};
    struct outcome outcomes[EXCHANGES_MAX];
    memset(outcomes, 0, sizeof(outcomes));
    begin(&world, seed, &party, "grpc");
    struct talker *client = dial(&world, is_veiled, true);
    client->outcomes = outcomes;
    uint32_t count = 1 + (uint32_t)(io_fake_random(world.io) % EXCHANGES_MAX);
    send_all(&world, client, outcomes, count);
    struct wait wait = {outcomes, count, &world};
    world_run_until(&world, is_every_exchange_over, &wait);
    for (uint32_t id = 0; id < count; id++) {
        const struct outcome *outcome = &outcomes[id];
        unsigned long where = (unsigned long)seed;
        cr_assert_leq(outcome->ends + outcome->resets, 1, "seed %lu id %u", where, id);
        if (outcome->gives_up) {
            continue;
        }
        if (outcome->wants_reset) {
            cr_assert(outcome->resets == 1 || outcome->heads == 1, "seed %lu id %u", where, id);
            continue;
        }
        cr_assert_eq(outcome->ends, 1, "seed %lu id %u", where, id);
        cr_assert_eq(outcome->heads, 1, "seed %lu id %u", where, id);
        cr_assert_eq(outcome->bytes, outcome->sent_bytes, "seed %lu id %u", where, id);
        cr_assert_eq(outcome->hash, outcome->sent_hash, "seed %lu id %u", where, id);
    }
    /* Exchanges share connections: eight on one, so at most two for each pod. */
    cr_assert_leq(party.servers_count, 4, "seed %lu", (unsigned long)seed);
    end(&world, &party);
    free_talker(client);
}

Test(seams, carry_interleaved_exchanges, .timeout = 120)
{
    for (uint64_t seed = 0; seed < 500 / OUTRIGGER_TEST_DIVISOR; seed++) {
        interleave(seed, false);
    }
}

Test(seams, carry_them_through_a_filter_with_a_handshake, .timeout = 120)
{
    for (uint64_t seed = 0; seed < 300 / OUTRIGGER_TEST_DIVISOR; seed++) {
        interleave(seed, true);
    }
}

/* ---- bytes through a filter ---- */

static bool is_client_over(void *argument)
{
    const struct talker *client = argument;
    return client->has_ended || client->was_reset;
}

static void pass_veiled(uint64_t seed, bool truncates)
{
    struct world world;
    struct party party = {.is_veiled = true, .truncates = truncates};
    begin(&world, seed, &party, "tcp");
    struct talker *client = dial(&world, true, false);
    uint8_t data[3000];
    uint64_t size = io_fake_random(world.io) % sizeof(data);
    for (uint64_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 7);
    }
    say(client, bytes_make(data, size));
    say_end(client);
    world_run_until(&world, is_client_over, client);
    if (truncates) {
        /* What ended without its proper end must not look whole. */
        cr_assert(client->was_reset, "seed %lu", (unsigned long)seed);
    } else {
        cr_assert(client->has_ended && client->veil->filter.state == TRANSPORT_FILTER_ENDED,
                  "seed %lu", (unsigned long)seed);
        cr_assert_eq(client->bytes, size, "seed %lu", (unsigned long)seed);
        cr_assert_eq(client->hash, world_hash(0, bytes_make(data, size)));
    }
    end(&world, &party);
    free_talker(client);
}

Test(seams, carry_bytes_through_a_filter_to_their_proper_end, .timeout = 120)
{
    for (uint64_t seed = 0; seed < 300 / OUTRIGGER_TEST_DIVISOR; seed++) {
        pass_veiled(seed, false);
    }
}

Test(seams, tell_a_truncated_end_from_a_proper_one, .timeout = 120)
{
    for (uint64_t seed = 0; seed < 100 / OUTRIGGER_TEST_DIVISOR; seed++) {
        pass_veiled(seed, true);
    }
}

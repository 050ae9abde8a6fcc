/*
 * HTTP/1.1 through a whole worker on the fake I/O: what a client gets and what upstreams see, byte
 * for byte where it matters.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "proxy/stream.h"
#include "proxy/worker_state.h"
#include "proxy/world.h"

static const uint64_t seeds[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

enum {
    SEEDS_COUNT = sizeof(seeds) / sizeof(seeds[0]),
    TURNS_MAX = 400000,
    TEXT_MAX = 1 << 16,
};

static void each_seed(void (*test)(uint64_t seed))
{
    for (size_t i = 0; i < SEEDS_COUNT; i++) {
        test(seeds[i]);
    }
}

/* ---- played peers ---- */

/* Everything that came, as text. */
struct side {
    struct io_fake_peer *peer;
    char text[TEXT_MAX];
    size_t size;
    size_t answered; /* servers: up to here requests were answered */
    uint64_t bytes;  /* all, also what is not kept */
    uint32_t connected;
    uint32_t requests;
    bool has_ended;
    bool was_reset;
    const char *answer; /* servers: to every request */
};

static void on_connected(struct io_fake_peer *peer)
{
    struct side *side = io_fake_owner(peer);
    side->connected++;
    side->peer = peer;
    side->answered = side->size;
}

static void on_data(struct io_fake_peer *peer, struct bytes data)
{
    struct side *side = io_fake_owner(peer);
    side->bytes += data.size;
    size_t room = sizeof(side->text) - 1 - side->size;
    size_t size = data.size < room ? data.size : room;
    memcpy(side->text + side->size, data.data, size);
    side->size += size;
    side->text[side->size] = '\0';
}

static void on_end(struct io_fake_peer *peer)
{
    ((struct side *)io_fake_owner(peer))->has_ended = true;
}

static void on_reset(struct io_fake_peer *peer)
{
    ((struct side *)io_fake_owner(peer))->was_reset = true;
}

static const struct io_fake_script keeps = {
    .on_connected = on_connected, .on_data = on_data, .on_end = on_end, .on_reset = on_reset};

/* Answers each head (requests without bodies) with side->answer; one connection at a time. */
static void answer_data(struct io_fake_peer *peer, struct bytes data)
{
    struct side *side = io_fake_owner(peer);
    on_data(peer, data);
    const char *end = NULL;
    while ((end = strstr(side->text + side->answered, "\r\n\r\n")) != NULL) {
        side->answered = (size_t)(end + 4 - side->text);
        side->requests++;
        io_fake_send(peer, bytes_from_string(side->answer));
    }
}

static void close_at_end(struct io_fake_peer *peer)
{
    on_end(peer);
    io_fake_close(peer);
}

static const struct io_fake_script answers = {.on_connected = on_connected,
                                              .on_data = answer_data,
                                              .on_end = close_at_end,
                                              .on_reset = on_reset};

struct stage {
    struct world world;
    struct side client;
    struct side servers[2];
};

static const struct world_config plain = {.port_name = "http", .pods = 1, .has_slices = true};

#define HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static void serve(struct stage *stage, uint32_t pod, const struct io_fake_script *script,
                  const char *answer)
{
    stage->servers[pod].answer = answer;
    io_fake_serve(stage->world.io, &(struct io_fake_service){.address = world_pod(pod),
                                                             .script = script,
                                                             .owner = &stage->servers[pod]});
}

/* One pod that says `answer`. From malloc: its texts are large. */
static struct stage *begin(uint64_t seed, const struct world_config *config, const char *answer)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    cr_assert_not_null(stage);
    world_begin(&stage->world, seed, config, 0);
    serve(stage, 0, &answers, answer);
    return stage;
}

static void end(struct stage *stage)
{
    world_end(&stage->world);
    free(stage);
}

static struct io_fake_peer *dial(struct stage *stage, struct side *client)
{
    client->peer = io_fake_connect(
        stage->world.io, &(struct io_fake_client){.listener = world_listener(LISTENER_NAMED),
                                                  .client = world_address("10.0.9.9:40000"),
                                                  .script = &keeps,
                                                  .owner = client});
    return client->peer;
}

static void send_text(struct io_fake_peer *peer, const char *text)
{
    io_fake_send(peer, bytes_from_string(text));
}

/* Let everything that can happen at once happen. */
static void settle(struct stage *stage)
{
    io_fake_run_for(stage->world.io, CLOCK_NS_PER_S);
}

static bool has(const struct side *side, const char *text)
{
    return strstr(side->text, text) != NULL;
}

static uint32_t count(const struct side *side, const char *text)
{
    uint32_t found = 0;
    for (const char *at = side->text; (at = strstr(at, text)) != NULL; at += strlen(text)) {
        found++;
    }
    return found;
}

static void forget(struct side *side)
{
    side->size = 0;
    side->answered = 0;
    side->text[0] = '\0';
}

#define GET "GET /a HTTP/1.1\r\nHost: web.shop\r\n\r\n"

/* ---- keep-alive and the pool ---- */

static void asks_three_times(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    for (int i = 0; i < 3; i++) {
        send_text(peer, GET);
        settle(stage);
        cr_assert(has(&stage->client, "HTTP/1.1 200 OK\r\n"), "seed %lu: %s", (unsigned long)seed,
                  stage->client.text);
        cr_assert(has(&stage->client, "\r\n\r\nhello"));
        cr_assert_eq(count(&stage->client, "HTTP/1.1"), 1);
        forget(&stage->client);
    }
    cr_assert_eq(stage->servers[0].requests, 3);
    cr_assert_eq(stage->servers[0].connected, 1);
    cr_assert_eq(count(&stage->servers[0], "x-request-id: "), 3);
    const char *log = world_log(&stage->world);
    cr_assert_not_null(strstr(log, "status=200"), "%s", log);
    /* The pooled connection is closed after its idle time, before the server would do it. */
    io_fake_run_for(stage->world.io, 4 * CLOCK_NS_PER_S);
    cr_assert(stage->servers[0].has_ended);
    end(stage);
}

Test(http_path, answers_on_one_connection_over_one_pooled_connection)
{
    each_seed(asks_three_times);
}

static void pipelines(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    for (int i = 0; i < 10; i++) {
        send_text(peer, GET);
    }
    io_fake_send_end(peer);
    io_fake_run_for(stage->world.io, 10 * CLOCK_NS_PER_S);
    cr_assert_eq(count(&stage->client, "HTTP/1.1 200 OK"), 10, "seed %lu: %s", (unsigned long)seed,
                 stage->client.text);
    cr_assert(stage->client.has_ended && !stage->client.was_reset);
    cr_assert_eq(stage->servers[0].requests, 10);
    end(stage);
}

Test(http_path, answers_pipelined_requests_in_order_and_ends)
{
    each_seed(pipelines);
}

static void detects(uint64_t seed)
{
    static const struct world_config undeclared = {.port_name = "x", .pods = 1, .has_slices = true};
    struct stage *stage = begin(seed, &undeclared, HELLO);
    send_text(dial(stage, &stage->client), GET);
    settle(stage);
    cr_assert(has(&stage->client, "hello"));
    cr_assert(has(&stage->servers[0], "x-request-id"));
    end(stage);
}

Test(http_path, is_found_by_detection)
{
    each_seed(detects);
}

/* ---- bodies ---- */

static void posts(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain,
                                "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked"
                                "\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    settle(stage);
    cr_assert(has(&stage->servers[0], "Content-Length: 10\r\n") ||
              has(&stage->servers[0], "content-length: 10\r\n"));
    cr_assert(has(&stage->servers[0], "\r\n\r\n0123456789"), "%s", stage->servers[0].text);
    cr_assert(has(&stage->client, "201 Created"));
    cr_assert(has(&stage->client, "0\r\n\r\n"));
    forget(&stage->client);
    send_text(peer, "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n"
                    "0\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->servers[0], "4\r\nwxyz\r\n0\r\n\r\n"), "%s", stage->servers[0].text);
    cr_assert(has(&stage->client, "201 Created"));
    end(stage);
}

Test(http_path, passes_bodies_of_both_framings)
{
    each_seed(posts);
}

enum {
    LARGE_BYTES = 3 << 20
};

static void send_large(struct io_fake_peer *peer, const char *head)
{
    static uint8_t data[1 << 16];
    send_text(peer, head);
    for (int i = 0; i < LARGE_BYTES / (int)sizeof(data); i++) {
        io_fake_send(peer, bytes_make(data, sizeof(data)));
    }
}

static void large_answer(struct io_fake_peer *peer, struct bytes data)
{
    struct side *side = io_fake_owner(peer);
    on_data(peer, data);
    if (side->requests == 0 && has(side, "\r\n\r\n")) {
        side->requests++;
        send_large(peer, "HTTP/1.1 200 OK\r\nContent-Length: 3145728\r\n\r\n");
    }
}

static const struct io_fake_script answers_large = {
    .on_connected = on_connected, .on_data = large_answer, .on_end = close_at_end};

static void downloads_slowly(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    io_fake_faults_of(stage->world.io)->is_without_credit = false;
    serve(stage, 0, &answers_large, NULL);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, GET);
    io_fake_stop_reading(peer);
    settle(stage);
    /* A reader that does not read is worth its windows, no more. */
    cr_assert_gt(io_fake_unsent_bytes(stage->servers[0].peer), LARGE_BYTES - (1 << 20),
                 "seed %lu: %lu", (unsigned long)seed,
                 (unsigned long)io_fake_unsent_bytes(stage->servers[0].peer));
    io_fake_start_reading(peer);
    io_fake_run_for(stage->world.io, 300 * CLOCK_NS_PER_S);
    cr_assert_geq(stage->client.bytes, LARGE_BYTES, "seed %lu: %lu bytes", (unsigned long)seed,
                  (unsigned long)stage->client.bytes);
    end(stage);
}

Test(http_path, holds_back_an_upstream_for_a_client_that_does_not_read)
{
    each_seed(downloads_slowly);
}

static void uploads_slowly(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    io_fake_faults_of(stage->world.io)->is_without_credit = false;
    serve(stage, 0, &keeps, NULL);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_large(peer, "PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: 3145728\r\n\r\n");
    while (stage->servers[0].peer == NULL) {
        cr_assert(!error_is(worker_turn(stage->world.worker, CLOCK_NEVER)));
    }
    io_fake_stop_reading(stage->servers[0].peer);
    settle(stage);
    cr_assert_gt(io_fake_unsent_bytes(peer), LARGE_BYTES - (1 << 20));
    io_fake_start_reading(stage->servers[0].peer);
    io_fake_run_for(stage->world.io, 250 * CLOCK_NS_PER_S);
    cr_assert_geq(stage->servers[0].bytes, LARGE_BYTES);
    send_text(stage->servers[0].peer, HELLO);
    settle(stage);
    cr_assert(has(&stage->client, "hello"));
    end(stage);
}

Test(http_path, holds_back_a_client_for_an_upstream_that_does_not_read)
{
    each_seed(uploads_slowly);
}

static void answers_early(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    serve(stage, 0, &keeps, NULL);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, "PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome");
    settle(stage);
    send_text(stage->servers[0].peer, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    settle(stage);
    cr_assert(has(&stage->client, "413 Too Large"));
    cr_assert(has(&stage->client, "onnection: close"), "%s", stage->client.text);
    cr_assert(has(&stage->client, "\r\n\r\nno"));
    cr_assert(stage->client.has_ended && !stage->client.was_reset);
    /* The half-sent request's connection is of no more use. */
    cr_assert(stage->servers[0].has_ended || stage->servers[0].was_reset);
    end(stage);
}

Test(http_path, passes_an_early_answer_and_closes)
{
    each_seed(answers_early);
}

static void continues(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    serve(stage, 0, &keeps, NULL);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer,
              "PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->servers[0], "100-continue"));
    cr_assert_eq(stage->client.size, 0);
    send_text(stage->servers[0].peer,
              "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 100"));
    cr_assert(has(&stage->client, "HTTP/1.1 103"));
    send_text(peer, "body");
    settle(stage);
    cr_assert(has(&stage->servers[0], "body"));
    send_text(stage->servers[0].peer, HELLO);
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 200"));
    end(stage);
}

Test(http_path, passes_interim_responses)
{
    each_seed(continues);
}

/* ---- upgrade ---- */

#define UPGRADE                                                                                    \
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                 \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
#define SWITCHING                                                                                  \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

static void tunnels(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, SWITCHING);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, UPGRADE);
    settle(stage);
    cr_assert(has(&stage->client, "101 Switching"), "%s", stage->client.text);
    send_text(peer, "client bytes");
    send_text(stage->servers[0].peer, "server bytes");
    settle(stage);
    cr_assert(has(&stage->client, "\r\n\r\nserver bytes"));
    cr_assert(has(&stage->servers[0], "\r\n\r\nclient bytes"));
    /* An open tunnel does not pin the configuration. */
    world_publish(&stage->world, &plain);
    settle(stage);
    cr_assert_eq(world_snapshots(), 1);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 1);
    io_fake_send_end(peer);
    settle(stage);
    cr_assert(stage->servers[0].has_ended);
    settle(stage);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    cr_assert_not_null(strstr(world_log(&stage->world), "status=101"));
    end(stage);
}

Test(http_path, opens_a_tunnel_that_outlives_its_configuration)
{
    each_seed(tunnels);
}

/* ---- failures ---- */

static void nobody_listens(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    io_fake_serve(stage->world.io,
                  &(struct io_fake_service){.address = world_pod(0), .outcome = IO_FAKE_REFUSE});
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, GET);
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 503 "), "%s", stage->client.text);
    cr_assert(has(&stage->client, "proxy-status: outrigger; error=connection_refused; "
                                  "details=\"connect_refused\""));
    forget(&stage->client);
    /* The connection of the client goes on, and the pod when it is back. */
    serve(stage, 0, &answers, HELLO);
    io_fake_run_for(stage->world.io, 6 * CLOCK_NS_PER_S);
    send_text(peer, GET);
    settle(stage);
    cr_assert(has(&stage->client, "hello"), "%s", stage->client.text);
    end(stage);
}

Test(http_path, answers_503_when_nobody_accepts_and_goes_on)
{
    each_seed(nobody_listens);
}

static void resets_early(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    io_fake_serve(stage->world.io, &(struct io_fake_service){.address = world_pod(0),
                                                             .outcome = IO_FAKE_RESET,
                                                             .reset_after_bytes = 20});
    send_text(dial(stage, &stage->client), GET);
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 502 "), "%s", stage->client.text);
    cr_assert(has(&stage->client, "upstream_reset"));
    end(stage);
}

Test(http_path, answers_502_when_the_upstream_resets_before_it_answers)
{
    each_seed(resets_early);
}

static void resets_late(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhel");
    send_text(dial(stage, &stage->client), GET);
    settle(stage);
    cr_assert(has(&stage->client, "\r\n\r\nhel"));
    io_fake_reset(stage->servers[0].peer);
    settle(stage);
    cr_assert(stage->client.has_ended || stage->client.was_reset);
    cr_assert_eq(count(&stage->client, "HTTP/1.1"), 1);
    cr_assert_not_null(strstr(world_log(&stage->world), "upstream_reset"));
    end(stage);
}

Test(http_path, cuts_the_client_off_when_the_upstream_resets_within_its_answer)
{
    each_seed(resets_late);
}

static void speaks_garbage(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, "SSH-2.0-OpenSSH_9.2\r\n");
    send_text(dial(stage, &stage->client), GET);
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 502 "), "%s", stage->client.text);
    cr_assert(has(&stage->client, "upstream_malformed"));
    end(stage);
}

Test(http_path, answers_502_when_the_upstream_speaks_something_else)
{
    each_seed(speaks_garbage);
}

static void client_speaks_garbage(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    send_text(dial(stage, &stage->client), "GET /a b HTTP/1.1\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 400 "), "%s", stage->client.text);
    cr_assert(stage->client.has_ended);
    cr_assert_eq(stage->servers[0].connected, 0);
    cr_assert_not_null(strstr(world_log(&stage->world), "request_malformed"));
    end(stage);
}

Test(http_path, answers_400_to_a_client_that_breaks_the_protocol)
{
    each_seed(client_speaks_garbage);
}

static void client_goes(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    serve(stage, 0, &keeps, NULL);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, GET);
    settle(stage);
    cr_assert_eq(stage->servers[0].connected, 1);
    io_fake_reset(peer);
    settle(stage);
    cr_assert(stage->servers[0].was_reset || stage->servers[0].has_ended);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    cr_assert_not_null(strstr(world_log(&stage->world), "downstream_reset"));
    end(stage);
}

Test(http_path, tells_the_upstream_when_the_client_goes)
{
    each_seed(client_goes);
}

/* ---- pooled connections that die (reliability F1, F10) ---- */

static void pool_dies(uint64_t seed, const char *request, bool is_retried)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    io_fake_faults_of(stage->world.io)->latency_ns_max = 0;
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, GET);
    settle(stage);
    cr_assert(has(&stage->client, "hello"));
    forget(&stage->client);
    /* The next request on it is answered by a close, as from a server that has just given up. */
    serve(stage, 0, &answers, HELLO);
    io_fake_set_script(stage->servers[0].peer, &(const struct io_fake_script){0});
    struct io_fake_peer *old = stage->servers[0].peer;
    send_text(peer, request);
    for (int i = 0; i < 1000 && io_fake_received_bytes(old) < 100; i++) {
        cr_assert(!error_is(worker_turn(stage->world.worker, io_now(stage->world.io))));
    }
    io_fake_close(old);
    settle(stage);
    cr_assert(has(&stage->client, is_retried ? "200 OK" : "502 "), "seed %lu: %s",
              (unsigned long)seed, stage->client.text);
    cr_assert_eq(stage->servers[0].connected, is_retried ? 2 : 1);
    end(stage);
}

static void pool_dies_under_get(uint64_t seed)
{
    pool_dies(seed, GET, true);
}

static void pool_dies_under_post(uint64_t seed)
{
    pool_dies(seed, "POST /a HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 0\r\n\r\n", false);
}

Test(http_path, sends_an_idempotent_request_again_when_its_pooled_connection_had_died)
{
    each_seed(pool_dies_under_get);
}

Test(http_path, never_sends_a_post_again)
{
    each_seed(pool_dies_under_post);
}

static void idle_speaks(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, GET);
    settle(stage);
    send_text(stage->servers[0].peer, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    settle(stage);
    forget(&stage->client);
    send_text(peer, GET);
    settle(stage);
    cr_assert(has(&stage->client, "hello"));
    cr_assert(!has(&stage->client, "evil"));
    cr_assert_eq(stage->servers[0].connected, 2);
    end(stage);
}

Test(http_path, attributes_no_unasked_bytes_to_a_request)
{
    each_seed(idle_speaks);
}

/* ---- routes ---- */

static const struct route_backend_ref to_web = {
    .kind = BYTES_LITERAL("Service"),
    .namespace = BYTES_LITERAL("shop"),
    .name = BYTES_LITERAL("web"),
    .port = 80,
    .weight = 1,
};
static const struct route_backend_ref to_nothing = {
    .kind = BYTES_LITERAL("Service"),
    .namespace = BYTES_LITERAL("shop"),
    .name = BYTES_LITERAL("gone"),
    .port = 80,
    .weight = 1,
};
static const struct route_header set_headers[] = {
    {.name = BYTES_LITERAL("x-set"), .value = BYTES_LITERAL("by-route")}};
static const struct route_header add_headers[] = {
    {.name = BYTES_LITERAL("X-Add"), .value = BYTES_LITERAL("more")}};
static const struct bytes remove_headers[] = {BYTES_LITERAL("x-secret")};
static const struct route_header_modifier modifier = {.set = set_headers,
                                                      .set_count = 1,
                                                      .add = add_headers,
                                                      .add_count = 1,
                                                      .remove = remove_headers,
                                                      .remove_count = 1};
static const struct route_path_modifier new_prefix = {
    .type = ROUTE_PATH_REPLACE_PREFIX, .replace_prefix_match = BYTES_LITERAL("/new")};
static const struct route_rewrite rewrite = {.hostname = BYTES_LITERAL("other.example"),
                                             .path = &new_prefix};
static const struct route_redirect redirect = {.hostname = BYTES_LITERAL("example.org"),
                                               .status_code = 302};
static const struct route_filter rule_filters[] = {
    {.type = ROUTE_FILTER_REQUEST_HEADER_MODIFIER, .header_modifier = &modifier},
    {.type = ROUTE_FILTER_RESPONSE_HEADER_MODIFIER, .header_modifier = &modifier},
    {.type = ROUTE_FILTER_URL_REWRITE, .rewrite = &rewrite},
};
static const struct route_filter redirect_filters[] = {
    {.type = ROUTE_FILTER_REQUEST_REDIRECT, .redirect = &redirect}};

#define PREFIX(text)                                                                               \
    {                                                                                              \
        .path = {.type = ROUTE_MATCH_PREFIX, .value = BYTES_LITERAL(text) }                        \
    }

static const struct route_http_match filtered_match[] = {PREFIX("/filtered")};
static const struct route_http_match redirected_match[] = {PREFIX("/redirected")};
static const struct route_http_match invalid_match[] = {PREFIX("/invalid")};
static const struct route_http_match timed_match[] = {PREFIX("/timed")};
static const struct route_http_match slow_match[] = {PREFIX("/slow")};
static const struct route_rule rules[] = {
    {.http_matches = filtered_match,
     .http_matches_count = 1,
     .filters = rule_filters,
     .filters_count = 3,
     .backend_refs = &to_web,
     .backend_refs_count = 1,
     .timeout_request_ms = ROUTE_DURATION_ABSENT,
     .timeout_backend_request_ms = ROUTE_DURATION_ABSENT},
    {.http_matches = redirected_match,
     .http_matches_count = 1,
     .filters = redirect_filters,
     .filters_count = 1,
     .timeout_request_ms = ROUTE_DURATION_ABSENT,
     .timeout_backend_request_ms = ROUTE_DURATION_ABSENT},
    {.http_matches = invalid_match,
     .http_matches_count = 1,
     .backend_refs = &to_nothing,
     .backend_refs_count = 1,
     .timeout_request_ms = ROUTE_DURATION_ABSENT,
     .timeout_backend_request_ms = ROUTE_DURATION_ABSENT},
    {.http_matches = timed_match,
     .http_matches_count = 1,
     .backend_refs = &to_web,
     .backend_refs_count = 1,
     .timeout_request_ms = 500,
     .timeout_backend_request_ms = ROUTE_DURATION_ABSENT},
    {.http_matches = slow_match,
     .http_matches_count = 1,
     .backend_refs = &to_web,
     .backend_refs_count = 1,
     .timeout_request_ms = ROUTE_DURATION_ABSENT,
     .timeout_backend_request_ms = 300},
};
static const struct world_config routed = {
    .port_name = "http", .pods = 1, .has_slices = true, .rules = rules, .rules_count = 5};

static void routes(uint64_t seed)
{
    struct stage *stage =
        begin(seed, &routed, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-secret: y\r\n\r\nhello");
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 404 "), "%s", stage->client.text);
    cr_assert(has(&stage->client, "details=\"no_route\""));
    forget(&stage->client);
    send_text(peer, "GET /redirected/x?q=1 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 302 "), "%s", stage->client.text);
    cr_assert(has(&stage->client, "location: http://example.org/redirected/x?q=1\r\n"), "%s",
              stage->client.text);
    forget(&stage->client);
    send_text(peer, "GET /invalid HTTP/1.1\r\nHost: a\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 500 "));
    cr_assert(has(&stage->client, "invalid_backend"));
    cr_assert_eq(stage->servers[0].connected, 0);
    forget(&stage->client);
    send_text(peer, "GET /filtered/x?q=1 HTTP/1.1\r\nHost: a\r\nX-Set: old\r\nX-Secret: 1\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "200 OK"));
    cr_assert(has(&stage->client, "X-Add: more") && !has(&stage->client, "x-secret"));
    const struct side *server = &stage->servers[0];
    cr_assert(has(server, "GET /new/x?q=1 HTTP/1.1\r\n"), "%s", server->text);
    cr_assert(has(server, "Host: other.example\r\n"));
    cr_assert(has(server, "X-Add: more\r\n") && has(server, "by-route"));
    cr_assert(!has(server, "old") && !has(server, "X-Secret"));
    const char *log = world_log(&stage->world);
    cr_assert_not_null(strstr(log, "shop/route"), "%s", log);
    cr_assert_not_null(strstr(log, "no_route"), "%s", log);
    end(stage);
}

Test(http_path, routes_filters_redirects_and_refuses)
{
    each_seed(routes);
}

static struct io_fake_peer *dial_pod(struct stage *stage, enum listener_kind kind)
{
    stage->client.peer = io_fake_connect(
        stage->world.io, &(struct io_fake_client){.listener = world_listener(kind),
                                                  .client = world_address("10.0.9.9:40000"),
                                                  .original = world_pod(0),
                                                  .script = &keeps,
                                                  .owner = &stage->client});
    return stage->client.peer;
}

static void dials_pods(uint64_t seed)
{
    static const char request[] = "GET /nothing HTTP/1.1\r\nHost: a\r\n"
                                  "X-Forwarded-Client-Cert: By=me\r\n\r\n";
    for (int i = 0; i < 2; i++) {
        enum listener_kind kind = i == 0 ? LISTENER_INBOUND : LISTENER_OUTBOUND;
        struct stage *stage = begin(seed, &routed, HELLO);
        send_text(dial_pod(stage, kind), request);
        settle(stage);
        /* No routes apply, but it is known what is spoken there. */
        cr_assert(has(&stage->client, "hello"), "%s", stage->client.text);
        bool is_inbound = kind == LISTENER_INBOUND;
        cr_assert_eq(has(&stage->servers[0], "Client-Cert"), !is_inbound);
        cr_assert_eq(has(&stage->servers[0], "x-request-id"), !is_inbound);
        const char *log = world_log(&stage->world);
        cr_assert_not_null(strstr(log, is_inbound ? "direction=inbound" : "direction=outbound"));
        cr_assert_not_null(strstr(log, "shop/web:80"), "%s", log);
        end(stage);
    }
}

Test(http_path, speaks_to_single_pods_and_to_its_own_application)
{
    each_seed(dials_pods);
}

/* ---- questions ---- */

static void on_answer(struct worker_query *query)
{
    (*(int *)query->argument)++;
}

static struct worker_query *ask(struct stage *stage, enum worker_query_kind kind)
{
    static struct worker_query query;
    static int answers_count;
    answers_count = 0;
    query = (struct worker_query){
        .kind = kind, .asker = stage->world.io, .on_answer = on_answer, .argument = &answers_count};
    worker_ask(stage->world.worker, &query);
    io_fake_run_for(stage->world.io, 10 * CLOCK_NS_PER_MS);
    cr_assert_eq(answers_count, 1);
    cr_assert_eq(query.cursor, WORKER_QUERY_END);
    return &query;
}

static void tells(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    serve(stage, 0, &keeps, NULL);
    send_text(dial(stage, &stage->client), GET);
    settle(stage);
    const struct worker_query *query = ask(stage, WORKER_QUERY_CONNECTIONS);
    cr_assert_eq(query->rows_count, 1);
    cr_assert_str_eq(query->connections[0].state, "exchange");
    cr_assert_str_eq(query->connections[0].parent, "shop/web:80");
    struct address pod = world_pod(0);
    cr_assert(address_equal(&query->connections[0].endpoint, &pod));
    query = ask(stage, WORKER_QUERY_ENDPOINTS);
    cr_assert_eq(query->rows_count, 2); /* the pod and the ClusterIP */
    cr_assert_eq(query->endpoints[0].active + query->endpoints[1].active, 1);
    cr_assert_str_eq(query->endpoints[0].service, "shop/web");
    query = ask(stage, WORKER_QUERY_DUMP);
    cr_assert_geq(query->rows_count, 2);
    cr_assert_not_null(strstr(query->lines[0], "state=exchange"), "%s", query->lines[0]);
    cr_assert_eq(ask(stage, WORKER_QUERY_ALIVE)->rows_count, 0);
    end(stage);
}

Test(http_path, tells_about_connections_endpoints_and_streams)
{
    each_seed(tells);
}

static void times_out(uint64_t seed)
{
    struct stage *stage = begin(seed, &routed, HELLO);
    serve(stage, 0, &keeps, NULL);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, "GET /timed HTTP/1.1\r\nHost: a\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 504 "), "%s", stage->client.text);
    cr_assert(has(&stage->client, "request_timeout"));
    forget(&stage->client);
    send_text(peer, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    settle(stage);
    cr_assert(has(&stage->client, "HTTP/1.1 504 "), "%s", stage->client.text);
    cr_assert(has(&stage->client, "backend_timeout"));
    end(stage);
}

Test(http_path, answers_504_when_the_routes_time_is_up)
{
    each_seed(times_out);
}

/* ---- time limits of the downstream ---- */

static void limits_time(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    send_text(dial(stage, &stage->client), "GET /a HTTP/1.1\r\nHost");
    io_fake_run_for(stage->world.io, 9 * CLOCK_NS_PER_S);
    cr_assert_eq(stage->client.size, 0);
    io_fake_run_for(stage->world.io, 3 * CLOCK_NS_PER_S);
    cr_assert(has(&stage->client, "HTTP/1.1 408 "), "seed %lu: %s", (unsigned long)seed,
              stage->client.text);
    cr_assert(stage->client.has_ended);
    struct side *idle = &stage->servers[1];
    dial(stage, idle);
    io_fake_run_for(stage->world.io, 55 * CLOCK_NS_PER_S);
    cr_assert(!idle->has_ended);
    io_fake_run_for(stage->world.io, 10 * CLOCK_NS_PER_S);
    cr_assert(idle->has_ended && idle->size == 0);
    end(stage);
}

Test(http_path, answers_408_to_half_a_head_and_closes_what_idles)
{
    each_seed(limits_time);
}

static void expires(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    serve(stage, 0, &keeps, NULL);
    send_text(dial(stage, &stage->client), GET);
    io_fake_run_for(stage->world.io, 290 * CLOCK_NS_PER_S);
    cr_assert_eq(stage->client.size, 0);
    io_fake_run_for(stage->world.io, 90 * CLOCK_NS_PER_S);
    cr_assert(has(&stage->client, "HTTP/1.1 504 "), "%s", stage->client.text);
    end(stage);
}

Test(http_path, gives_a_silent_upstream_up_after_five_minutes)
{
    each_seed(expires);
}

/* ---- drain and new configurations ---- */

static void drains(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    serve(stage, 0, &keeps, NULL);
    struct side *idle = &stage->servers[1];
    send_text(dial(stage, &stage->client), GET);
    dial(stage, idle);
    settle(stage);
    worker_drain(stage->world.worker);
    settle(stage);
    cr_assert(idle->has_ended);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 1);
    send_text(stage->servers[0].peer, HELLO);
    settle(stage);
    cr_assert(has(&stage->client, "200 OK") && has(&stage->client, "onnection: close"));
    cr_assert(stage->client.has_ended);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    end(stage);
}

Test(http_path, finishes_what_is_open_when_it_drains)
{
    each_seed(drains);
}

static void stops(uint64_t seed)
{
    /* A request that came just before the end of a drain is answered, one that hangs is not. */
    struct stage *stage = begin(seed, &plain, HELLO);
    serve(stage, 0, &keeps, NULL);
    struct side *hanging = &stage->servers[1];
    send_text(dial(stage, hanging), GET);
    io_fake_run_for(stage->world.io, 5 * CLOCK_NS_PER_S);
    worker_drain(stage->world.worker);
    settle(stage);
    serve(stage, 0, &answers, HELLO);
    send_text(dial(stage, &stage->client), GET);
    for (int i = 0; i < 1000 && worker_open_exchanges(stage->world.worker) < 2; i++) {
        cr_assert(!error_is(worker_turn(stage->world.worker, CLOCK_NEVER)));
    }
    worker_stop(stage->world.worker);
    settle(stage);
    cr_assert(has(&stage->client, "hello"), "seed %lu: %s", (unsigned long)seed,
              stage->client.text);
    cr_assert(hanging->was_reset && hanging->size == 0);
    end(stage);
}

Test(http_path, answers_what_came_just_before_it_stops)
{
    each_seed(stops);
}

static void reloads(uint64_t seed)
{
    struct stage *stage = begin(seed, &plain, HELLO);
    struct io_fake_peer *peer = dial(stage, &stage->client);
    send_text(peer, GET);
    settle(stage);
    cr_assert(has(&stage->client, "200 OK"));
    for (int i = 0; i < 20; i++) {
        world_publish(&stage->world, i % 2 == 0 ? &routed : &plain);
        settle(stage);
        forget(&stage->client);
        send_text(peer, GET);
        settle(stage);
        cr_assert(has(&stage->client, i % 2 == 0 ? "404" : "200 OK"), "%s", stage->client.text);
        cr_assert_eq(world_snapshots(), 1);
    }
    /* Its pods go: the pooled connection goes with them, requests under way do not. */
    serve(stage, 0, &keeps, NULL);
    io_fake_run_for(stage->world.io, 4 * CLOCK_NS_PER_S);
    forget(&stage->client);
    send_text(peer, GET);
    settle(stage);
    static const struct world_config none = {.port_name = "http", .pods = 0, .has_slices = true};
    world_publish(&stage->world, &none);
    settle(stage);
    cr_assert_eq(world_snapshots(), 2);
    send_text(stage->servers[0].peer, HELLO);
    settle(stage);
    cr_assert(has(&stage->client, "200 OK"));
    cr_assert_eq(world_snapshots(), 1);
    forget(&stage->client);
    send_text(peer, GET);
    settle(stage);
    cr_assert(has(&stage->client, "503"), "%s", stage->client.text);
    end(stage);
}

Test(http_path, follows_the_configuration_request_by_request)
{
    each_seed(reloads);
}

static void wants_memory(uint64_t seed)
{
    /* The nth allocation of each stream's arena fails: an honest answer, or none, but no harm. */
    for (uint32_t n = 1; n < 40; n++) {
        struct stage *stage = begin(seed, &routed, HELLO);
        struct io_fake_peer *peer = dial(stage, &stage->client);
        send_text(peer, "GET /filtered/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        settle(stage);
        cr_assert(has(&stage->client, "200 OK"));
        forget(&stage->client);
        struct slab *slab = &stage->world.worker->stream_slab;
        cr_assert_eq(slab->touched, 1);
        struct stream *stream = slab_at(slab, 0);
        arena_fail_after(&stream->arena, n);
        send_text(peer, "GET /filtered/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        settle(stage);
        cr_assert(has(&stage->client, "HTTP/1.1 ") || stage->client.has_ended ||
                      stage->client.was_reset,
                  "seed %lu n %u", (unsigned long)seed, n);
        cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
        end(stage);
    }
}

Test(http_path, survives_want_of_memory_at_every_allocation)
{
    each_seed(wants_memory);
}

static void wants_objects(uint64_t seed)
{
    for (int which = 0; which < 2; which++) {
        struct stage *stage = begin(seed, &plain, HELLO);
        struct worker *worker = stage->world.worker;
        struct slab *slabs[] = {&worker->upstream_slab, &worker->stream_slab};
        slabs[which]->fail_after = 1;
        struct io_fake_peer *peer = dial(stage, &stage->client);
        send_text(peer, GET);
        settle(stage);
        cr_assert(has(&stage->client, "503"), "%d: %s", which, stage->client.text);
        forget(&stage->client);
        send_text(peer, GET);
        settle(stage);
        cr_assert(has(&stage->client, "hello"), "%d: %s", which, stage->client.text);
        end(stage);
    }
}

Test(http_path, refuses_new_work_at_its_bounds_and_goes_on)
{
    each_seed(wants_objects);
}

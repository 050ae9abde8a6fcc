/*
 * HTTP/1.1 through a whole worker on the fake I/O: what a client gets and what upstreams see, byte
 * for byte where it matters.
 */
#include <criterion/criterion.h>

#include "proxy/stage.h"
#include "proxy/stream.h"
#include "proxy/worker_state.h"

static const struct world_config plain = {.port_name = "http", .pods = 1, .has_slices = true};

#define HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

#define GET "GET /a HTTP/1.1\r\nHost: web.shop\r\n\r\n"

/* ---- keep-alive and the pool ---- */

TEST_EACH_SEED(http_path, answers_on_one_connection_over_one_pooled_connection)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    for (int i = 0; i < 3; i++) {
        stage_say(stage, peer, GET);
        EXPECT_TEXT(&stage->client, "HTTP/1.1 200 OK\r\n");
        EXPECT_TEXT(&stage->client, "\r\n\r\nhello");
        cr_assert_eq(party_count(&stage->client, "HTTP/1.1"), 1);
        party_forget(&stage->client);
    }
    cr_assert_eq(stage->servers[0].requests, 3);
    cr_assert_eq(stage->servers[0].connected, 1);
    cr_assert_eq(party_count(&stage->servers[0], "x-request-id: "), 3);
    const char *log = world_log(&stage->world);
    cr_assert_not_null(strstr(log, "status=200"), "%s", log);
    /* The pooled connection is closed after its idle time, before the server would do it. */
    io_fake_run_for(stage->world.io, 4 * CLOCK_NS_PER_S);
    cr_assert(stage->servers[0].has_ended);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, answers_pipelined_requests_in_order_and_ends)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    for (int i = 0; i < 10; i++) {
        party_say(peer, GET);
    }
    io_fake_send_end(peer);
    io_fake_run_for(stage->world.io, 10 * CLOCK_NS_PER_S);
    cr_assert_eq(party_count(&stage->client, "HTTP/1.1 200 OK"), 10, "seed %lu: %s",
                 (unsigned long)seed, stage->client.text);
    cr_assert(stage->client.has_ended && !stage->client.was_reset);
    cr_assert_eq(stage->servers[0].requests, 10);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, is_found_by_detection)
{
    static const struct world_config undeclared = {.port_name = "x", .pods = 1, .has_slices = true};
    struct stage *stage = stage_begin(seed, &undeclared, &party_answers, HELLO);
    stage_say(stage, stage_dial(stage, &stage->client), GET);
    EXPECT_TEXT(&stage->client, "hello");
    EXPECT_TEXT(&stage->servers[0], "x-request-id");
    stage_end(stage);
}

/* ---- bodies ---- */

TEST_EACH_SEED(http_path, passes_bodies_of_both_framings)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers,
                                      "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked"
                                      "\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    cr_assert(party_has(&stage->servers[0], "Content-Length: 10\r\n") ||
              party_has(&stage->servers[0], "content-length: 10\r\n"));
    EXPECT_TEXT(&stage->servers[0], "\r\n\r\n0123456789");
    EXPECT_TEXT(&stage->client, "201 Created");
    EXPECT_TEXT(&stage->client, "0\r\n\r\n");
    party_forget(&stage->client);
    stage_say(stage, peer,
              "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n"
              "0\r\n\r\n");
    EXPECT_TEXT(&stage->servers[0], "4\r\nwxyz\r\n0\r\n\r\n");
    EXPECT_TEXT(&stage->client, "201 Created");
    stage_end(stage);
}

enum {
    LARGE_BYTES = 3 << 20
};

static void send_large(struct io_fake_peer *peer, const char *head)
{
    static uint8_t data[1 << 16];
    party_say(peer, head);
    for (int i = 0; i < LARGE_BYTES / (int)sizeof(data); i++) {
        io_fake_send(peer, bytes_make(data, sizeof(data)));
    }
}

static void large_answer(struct io_fake_peer *peer, struct bytes data)
{
    struct party *party = io_fake_owner(peer);
    party_on_data(peer, data);
    if (party->requests == 0 && party_has(party, "\r\n\r\n")) {
        party->requests++;
        send_large(peer, "HTTP/1.1 200 OK\r\nContent-Length: 3145728\r\n\r\n");
    }
}

static const struct io_fake_script answers_large = {
    .on_connected = party_on_connected, .on_data = large_answer, .on_end = party_on_end_close};

TEST_EACH_SEED(http_path, holds_back_an_upstream_for_a_client_that_does_not_read)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    io_fake_faults_of(stage->world.io)->is_without_credit = false;
    stage_serve(stage, 0, &answers_large, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    party_say(peer, GET);
    io_fake_stop_reading(peer);
    stage_settle(stage);
    /* A reader that does not read is worth its windows, no more. */
    cr_assert_gt(io_fake_unsent_bytes(stage->servers[0].peer), LARGE_BYTES - (1 << 20),
                 "seed %lu: %lu", (unsigned long)seed,
                 (unsigned long)io_fake_unsent_bytes(stage->servers[0].peer));
    io_fake_start_reading(peer);
    io_fake_run_for(stage->world.io, 300 * CLOCK_NS_PER_S);
    cr_assert_geq(stage->client.received_bytes, LARGE_BYTES, "seed %lu: %lu bytes",
                  (unsigned long)seed, (unsigned long)stage->client.received_bytes);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, holds_back_a_client_for_an_upstream_that_does_not_read)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    io_fake_faults_of(stage->world.io)->is_without_credit = false;
    stage_serve(stage, 0, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    send_large(peer, "PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: 3145728\r\n\r\n");
    while (stage->servers[0].peer == NULL) {
        cr_assert(!error_is(worker_turn(stage->world.worker, CLOCK_NEVER)));
    }
    io_fake_stop_reading(stage->servers[0].peer);
    stage_settle(stage);
    cr_assert_gt(io_fake_unsent_bytes(peer), LARGE_BYTES - (1 << 20));
    io_fake_start_reading(stage->servers[0].peer);
    io_fake_run_for(stage->world.io, 250 * CLOCK_NS_PER_S);
    cr_assert_geq(stage->servers[0].received_bytes, LARGE_BYTES);
    stage_say(stage, stage->servers[0].peer, HELLO);
    EXPECT_TEXT(&stage->client, "hello");
    stage_end(stage);
}

TEST_EACH_SEED(http_path, passes_an_early_answer_and_closes)
{
    struct stage *stage = stage_begin(seed, &plain, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, "PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome");
    stage_say(stage, stage->servers[0].peer,
              "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    EXPECT_TEXT(&stage->client, "413 Too Large");
    EXPECT_TEXT(&stage->client, "onnection: close");
    EXPECT_TEXT(&stage->client, "\r\n\r\nno");
    cr_assert(stage->client.has_ended && !stage->client.was_reset);
    /* The half-sent request's connection is of no more use. */
    cr_assert(stage->servers[0].has_ended || stage->servers[0].was_reset);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, passes_interim_responses)
{
    struct stage *stage = stage_begin(seed, &plain, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer,
              "PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_TEXT(&stage->servers[0], "100-continue");
    cr_assert_eq(stage->client.size, 0);
    stage_say(stage, stage->servers[0].peer,
              "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 100");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 103");
    stage_say(stage, peer, "body");
    EXPECT_TEXT(&stage->servers[0], "body");
    stage_say(stage, stage->servers[0].peer, HELLO);
    EXPECT_TEXT(&stage->client, "HTTP/1.1 200");
    stage_end(stage);
}

/* ---- upgrade ---- */

#define UPGRADE                                                                                    \
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                 \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
#define SWITCHING                                                                                  \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

TEST_EACH_SEED(http_path, opens_a_tunnel_that_outlives_its_configuration)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, SWITCHING);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, UPGRADE);
    EXPECT_TEXT(&stage->client, "101 Switching");
    party_say(peer, "client bytes");
    stage_say(stage, stage->servers[0].peer, "server bytes");
    EXPECT_TEXT(&stage->client, "\r\n\r\nserver bytes");
    EXPECT_TEXT(&stage->servers[0], "\r\n\r\nclient bytes");
    /* An open tunnel does not pin the configuration. */
    world_publish(&stage->world, &plain);
    stage_settle(stage);
    cr_assert_eq(world_snapshots(), 1);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 1);
    io_fake_send_end(peer);
    stage_settle(stage);
    cr_assert(stage->servers[0].has_ended);
    stage_settle(stage);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    cr_assert_not_null(strstr(world_log(&stage->world), "status=101"));
    stage_end(stage);
}

/* ---- failures ---- */

TEST_EACH_SEED(http_path, answers_503_when_nobody_accepts_and_goes_on)
{
    struct stage *stage = stage_begin(seed, &plain, NULL, NULL);
    stage_fail(stage, 0, IO_FAKE_REFUSE);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "HTTP/1.1 503 ");
    EXPECT_TEXT(&stage->client, "proxy-status: outrigger; error=connection_refused; "
                                "details=\"connect_refused\"");
    party_forget(&stage->client);
    /* The connection of the client goes on, and the pod when it is back. */
    stage_serve(stage, 0, &party_answers, HELLO);
    io_fake_run_for(stage->world.io, 6 * CLOCK_NS_PER_S);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "hello");
    stage_end(stage);
}

TEST_EACH_SEED(http_path, answers_502_when_the_upstream_resets_before_it_answers)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    io_fake_serve(stage->world.io, &(struct io_fake_service){.address = world_pod(0),
                                                             .outcome = IO_FAKE_RESET,
                                                             .reset_after_bytes = 20});
    stage_say(stage, stage_dial(stage, &stage->client), GET);
    EXPECT_TEXT(&stage->client, "HTTP/1.1 502 ");
    EXPECT_TEXT(&stage->client, "upstream_reset");
    stage_end(stage);
}

TEST_EACH_SEED(http_path, cuts_the_client_off_when_the_upstream_resets_within_its_answer)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers,
                                      "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhel");
    stage_say(stage, stage_dial(stage, &stage->client), GET);
    EXPECT_TEXT(&stage->client, "\r\n\r\nhel");
    io_fake_reset(stage->servers[0].peer);
    stage_settle(stage);
    cr_assert(stage->client.has_ended || stage->client.was_reset);
    cr_assert_eq(party_count(&stage->client, "HTTP/1.1"), 1);
    cr_assert_not_null(strstr(world_log(&stage->world), "upstream_reset"));
    stage_end(stage);
}

TEST_EACH_SEED(http_path, answers_502_when_the_upstream_speaks_something_else)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, "SSH-2.0-OpenSSH_9.2\r\n");
    stage_say(stage, stage_dial(stage, &stage->client), GET);
    EXPECT_TEXT(&stage->client, "HTTP/1.1 502 ");
    EXPECT_TEXT(&stage->client, "upstream_malformed");
    stage_end(stage);
}

TEST_EACH_SEED(http_path, answers_400_to_a_client_that_breaks_the_protocol)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    stage_say(stage, stage_dial(stage, &stage->client), "GET /a b HTTP/1.1\r\n\r\n");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 400 ");
    cr_assert(stage->client.has_ended);
    cr_assert_eq(stage->servers[0].connected, 0);
    cr_assert_not_null(strstr(world_log(&stage->world), "request_malformed"));
    stage_end(stage);
}

TEST_EACH_SEED(http_path, tells_the_upstream_when_the_client_goes)
{
    struct stage *stage = stage_begin(seed, &plain, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, GET);
    cr_assert_eq(stage->servers[0].connected, 1);
    io_fake_reset(peer);
    stage_settle(stage);
    cr_assert(stage->servers[0].was_reset || stage->servers[0].has_ended);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    cr_assert_not_null(strstr(world_log(&stage->world), "downstream_reset"));
    stage_end(stage);
}

/* ---- pooled connections that die (reliability F1, F10) ---- */

static void pool_dies(uint64_t seed, const char *request, bool is_retried)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    io_fake_faults_of(stage->world.io)->latency_ns_max = 0;
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "hello");
    party_forget(&stage->client);
    /* The next request on it is answered by a close, as from a server that has just given up. */
    stage_serve(stage, 0, &party_answers, HELLO);
    io_fake_set_script(stage->servers[0].peer, &(const struct io_fake_script){0});
    struct io_fake_peer *old = stage->servers[0].peer;
    party_say(peer, request);
    for (int i = 0; i < 1000 && io_fake_received_bytes(old) < 100; i++) {
        cr_assert(!error_is(worker_turn(stage->world.worker, io_now(stage->world.io))));
    }
    io_fake_close(old);
    stage_settle(stage);
    cr_assert(party_has(&stage->client, is_retried ? "200 OK" : "502 "), "seed %lu: %s",
              (unsigned long)seed, stage->client.text);
    cr_assert_eq(stage->servers[0].connected, is_retried ? 2 : 1);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, sends_an_idempotent_request_again_when_its_pooled_connection_had_died)
{
    pool_dies(seed, GET, true);
}

TEST_EACH_SEED(http_path, never_sends_a_post_again)
{
    pool_dies(seed, "POST /a HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 0\r\n\r\n", false);
}

TEST_EACH_SEED(http_path, attributes_no_unasked_bytes_to_a_request)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, GET);
    stage_say(stage, stage->servers[0].peer, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    party_forget(&stage->client);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "hello");
    cr_assert(!party_has(&stage->client, "evil"));
    cr_assert_eq(stage->servers[0].connected, 2);
    stage_end(stage);
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

#define NO_TIMEOUTS                                                                                \
    .timeout_request_ms = ROUTE_DURATION_ABSENT, .timeout_backend_request_ms = ROUTE_DURATION_ABSENT

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
     NO_TIMEOUTS},
    {.http_matches = redirected_match,
     .http_matches_count = 1,
     .filters = redirect_filters,
     .filters_count = 1,
     NO_TIMEOUTS},
    {.http_matches = invalid_match,
     .http_matches_count = 1,
     .backend_refs = &to_nothing,
     .backend_refs_count = 1,
     NO_TIMEOUTS},
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

TEST_EACH_SEED(http_path, routes_filters_redirects_and_refuses)
{
    struct stage *stage =
        stage_begin(seed, &routed, &party_answers,
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-secret: y\r\n\r\nhello");
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 404 ");
    EXPECT_TEXT(&stage->client, "details=\"no_route\"");
    party_forget(&stage->client);
    stage_say(stage, peer, "GET /redirected/x?q=1 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 302 ");
    EXPECT_TEXT(&stage->client, "location: http://example.org/redirected/x?q=1\r\n");
    party_forget(&stage->client);
    stage_say(stage, peer, "GET /invalid HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 500 ");
    EXPECT_TEXT(&stage->client, "invalid_backend");
    cr_assert_eq(stage->servers[0].connected, 0);
    party_forget(&stage->client);
    stage_say(stage, peer,
              "GET /filtered/x?q=1 HTTP/1.1\r\nHost: a\r\nX-Set: old\r\nX-Secret: 1\r\n\r\n");
    EXPECT_TEXT(&stage->client, "200 OK");
    cr_assert(party_has(&stage->client, "X-Add: more") && !party_has(&stage->client, "x-secret"));
    const struct party *server = &stage->servers[0];
    EXPECT_TEXT(server, "GET /new/x?q=1 HTTP/1.1\r\n");
    EXPECT_TEXT(server, "Host: other.example\r\n");
    cr_assert(party_has(server, "X-Add: more\r\n") && party_has(server, "by-route"));
    cr_assert(!party_has(server, "old") && !party_has(server, "X-Secret"));
    const char *log = world_log(&stage->world);
    cr_assert_not_null(strstr(log, "shop/route"), "%s", log);
    cr_assert_not_null(strstr(log, "no_route"), "%s", log);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, speaks_to_single_pods_and_to_its_own_application)
{
    static const char request[] = "GET /nothing HTTP/1.1\r\nHost: a\r\n"
                                  "X-Forwarded-Client-Cert: By=me\r\n\r\n";
    for (int i = 0; i < 2; i++) {
        enum listener_kind kind = i == 0 ? LISTENER_INBOUND : LISTENER_OUTBOUND;
        struct stage *stage = stage_begin(seed, &routed, &party_answers, HELLO);
        stage_say(stage, stage_dial_original(stage, kind, "10.0.0.1:8080", &stage->client),
                  request);
        /* No routes apply, but it is known what is spoken there. */
        EXPECT_TEXT(&stage->client, "hello");
        bool is_inbound = kind == LISTENER_INBOUND;
        cr_assert_eq(party_has(&stage->servers[0], "Client-Cert"), !is_inbound);
        cr_assert_eq(party_has(&stage->servers[0], "x-request-id"), !is_inbound);
        const char *log = world_log(&stage->world);
        cr_assert_not_null(strstr(log, is_inbound ? "direction=inbound" : "direction=outbound"));
        cr_assert_not_null(strstr(log, "shop/web:80"), "%s", log);
        stage_end(stage);
    }
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

TEST_EACH_SEED(http_path, tells_about_connections_endpoints_and_streams)
{
    struct stage *stage = stage_begin(seed, &plain, &party_keeps, NULL);
    stage_say(stage, stage_dial(stage, &stage->client), GET);
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
    stage_end(stage);
}

TEST_EACH_SEED(http_path, answers_504_when_the_routes_time_is_up)
{
    struct stage *stage = stage_begin(seed, &routed, &party_keeps, NULL);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, "GET /timed HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 504 ");
    EXPECT_TEXT(&stage->client, "request_timeout");
    party_forget(&stage->client);
    stage_say(stage, peer, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_TEXT(&stage->client, "HTTP/1.1 504 ");
    EXPECT_TEXT(&stage->client, "backend_timeout");
    stage_end(stage);
}

/* ---- time limits of the downstream ---- */

TEST_EACH_SEED(http_path, answers_408_to_half_a_head_and_closes_what_idles)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    party_say(stage_dial(stage, &stage->client), "GET /a HTTP/1.1\r\nHost");
    io_fake_run_for(stage->world.io, 9 * CLOCK_NS_PER_S);
    cr_assert_eq(stage->client.size, 0);
    io_fake_run_for(stage->world.io, 3 * CLOCK_NS_PER_S);
    EXPECT_TEXT(&stage->client, "HTTP/1.1 408 ");
    cr_assert(stage->client.has_ended);
    struct party *idle = &stage->servers[1];
    stage_dial(stage, idle);
    io_fake_run_for(stage->world.io, 55 * CLOCK_NS_PER_S);
    cr_assert(!idle->has_ended);
    io_fake_run_for(stage->world.io, 10 * CLOCK_NS_PER_S);
    cr_assert(idle->has_ended && idle->size == 0);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, gives_a_silent_upstream_up_after_five_minutes)
{
    struct stage *stage = stage_begin(seed, &plain, &party_keeps, NULL);
    party_say(stage_dial(stage, &stage->client), GET);
    io_fake_run_for(stage->world.io, 290 * CLOCK_NS_PER_S);
    cr_assert_eq(stage->client.size, 0);
    io_fake_run_for(stage->world.io, 90 * CLOCK_NS_PER_S);
    EXPECT_TEXT(&stage->client, "HTTP/1.1 504 ");
    stage_end(stage);
}

/* ---- drain and new configurations ---- */

TEST_EACH_SEED(http_path, finishes_what_is_open_when_it_drains)
{
    struct stage *stage = stage_begin(seed, &plain, &party_keeps, NULL);
    struct party *idle = &stage->servers[1];
    party_say(stage_dial(stage, &stage->client), GET);
    stage_dial(stage, idle);
    stage_settle(stage);
    worker_drain(stage->world.worker);
    stage_settle(stage);
    cr_assert(idle->has_ended);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 1);
    stage_say(stage, stage->servers[0].peer, HELLO);
    cr_assert(party_has(&stage->client, "200 OK") && party_has(&stage->client, "onnection: close"));
    cr_assert(stage->client.has_ended);
    cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, answers_what_came_just_before_it_stops)
{
    /* A request that came just before the end of a drain is answered, one that hangs is not. */
    struct stage *stage = stage_begin(seed, &plain, &party_keeps, NULL);
    struct party *hanging = &stage->servers[1];
    party_say(stage_dial(stage, hanging), GET);
    io_fake_run_for(stage->world.io, 5 * CLOCK_NS_PER_S);
    worker_drain(stage->world.worker);
    stage_settle(stage);
    stage_serve(stage, 0, &party_answers, HELLO);
    party_say(stage_dial(stage, &stage->client), GET);
    for (int i = 0; i < 1000 && worker_open_exchanges(stage->world.worker) < 2; i++) {
        cr_assert(!error_is(worker_turn(stage->world.worker, CLOCK_NEVER)));
    }
    worker_stop(stage->world.worker);
    stage_settle(stage);
    EXPECT_TEXT(&stage->client, "hello");
    cr_assert(hanging->was_reset && hanging->size == 0);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, follows_the_configuration_request_by_request)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "200 OK");
    for (int i = 0; i < 20; i++) {
        world_publish(&stage->world, i % 2 == 0 ? &routed : &plain);
        stage_settle(stage);
        party_forget(&stage->client);
        stage_say(stage, peer, GET);
        cr_assert(party_has(&stage->client, i % 2 == 0 ? "404" : "200 OK"), "%s",
                  stage->client.text);
        cr_assert_eq(world_snapshots(), 1);
    }
    /* Its pods go: the pooled connection goes with them, requests under way do not. */
    stage_serve(stage, 0, &party_keeps, NULL);
    io_fake_run_for(stage->world.io, 4 * CLOCK_NS_PER_S);
    party_forget(&stage->client);
    stage_say(stage, peer, GET);
    static const struct world_config none = {.port_name = "http", .pods = 0, .has_slices = true};
    world_publish(&stage->world, &none);
    stage_settle(stage);
    cr_assert_eq(world_snapshots(), 2);
    stage_say(stage, stage->servers[0].peer, HELLO);
    EXPECT_TEXT(&stage->client, "200 OK");
    cr_assert_eq(world_snapshots(), 1);
    party_forget(&stage->client);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "503");
    stage_end(stage);
}

TEST_EACH_SEED(http_path, survives_want_of_memory_at_every_allocation)
{
    /* The nth allocation of each stream's arena fails: an honest answer, or none, but no harm. */
    for (uint32_t n = 1; n < 40; n++) {
        struct stage *stage = stage_begin(seed, &routed, &party_answers, HELLO);
        struct io_fake_peer *peer = stage_dial(stage, &stage->client);
        stage_say(stage, peer, "GET /filtered/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        EXPECT_TEXT(&stage->client, "200 OK");
        party_forget(&stage->client);
        struct slab *slab = &stage->world.worker->stream_slab;
        cr_assert_eq(slab->touched, 1);
        struct stream *stream = slab_at(slab, 0);
        arena_fail_after(&stream->arena, n);
        stage_say(stage, peer, "GET /filtered/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        cr_assert(party_has(&stage->client, "HTTP/1.1 ") || stage->client.has_ended ||
                      stage->client.was_reset,
                  "seed %lu n %u", (unsigned long)seed, n);
        cr_assert_eq(worker_open_exchanges(stage->world.worker), 0);
        stage_end(stage);
    }
}

/* Another client dials a pod itself and asks it at once. */
static void ask_pod(struct stage *stage, struct party *client, const char *pod)
{
    party_forget(client);
    party_say(stage_dial_original(stage, LISTENER_OUTBOUND, pod, client), GET);
}

TEST_EACH_SEED(http_path, gives_idle_connections_up_when_descriptors_ran_out)
{
    static const struct world_config two = {.port_name = "http", .pods = 2, .has_slices = true};
    struct stage *stage = stage_begin(seed, &two, &party_answers, HELLO);
    struct party *clients[] = {&stage->client, &stage->servers[2], &stage->servers[3]};
    stage_serve(stage, 1, &party_answers, HELLO);
    io_fake_faults_of(stage->world.io)->descriptors_max = 4;
    /* Two clients and their two pooled connections are all that there may be. */
    ask_pod(stage, clients[0], "10.0.0.1:8080");
    stage_settle(stage);
    ask_pod(stage, clients[1], "10.0.0.2:8080");
    stage_settle(stage);
    EXPECT_TEXT(clients[0], "hello");
    EXPECT_TEXT(clients[1], "hello");
    cr_assert_eq(stage->world.worker->pool.count, 2);
    /* The third one takes a descriptor to be accepted, and another one to be answered. */
    ask_pod(stage, clients[2], "10.0.0.1:8080");
    stage_settle(stage);
    EXPECT_TEXT(clients[2], "hello");
    cr_assert_eq(stage->servers[0].connected, 2, "the oldest goes first");
    cr_assert(stage->servers[1].has_ended);
    cr_assert_null(strstr(world_log(&stage->world), "limit_connections"));
    stage_end(stage);
}

TEST_EACH_SEED(http_path, answers_503_when_no_descriptor_can_be_spared)
{
    struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
    io_fake_faults_of(stage->world.io)->descriptors_max = 1;
    struct io_fake_peer *peer = stage_dial(stage, &stage->client);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "503");
    io_fake_faults_of(stage->world.io)->descriptors_max = 0;
    party_forget(&stage->client);
    stage_say(stage, peer, GET);
    EXPECT_TEXT(&stage->client, "hello");
    stage_end(stage);
}

TEST_EACH_SEED(http_path, forgets_a_client_that_leaves_while_descriptors_are_short)
{
    static const struct world_config two = {.port_name = "http", .pods = 2, .has_slices = true};
    struct stage *stage = stage_begin(seed, &two, &party_answers, HELLO);
    struct shortage *shortage = &stage->world.worker->shortage;
    stage_serve(stage, 1, &party_answers, HELLO);
    io_fake_faults_of(stage->world.io)->descriptors_max = 3;
    ask_pod(stage, &stage->client, "10.0.0.1:8080");
    stage_settle(stage);
    ask_pod(stage, &stage->servers[2], "10.0.0.2:8080");
    for (int i = 0; i < 10000 && shortage->waiting_count == 0; i++) {
        cr_assert_not(error_is(io_turn(stage->world.io, CLOCK_NEVER)));
    }
    cr_assert_eq(shortage->waiting_count, 1, "seed %lu", (unsigned long)seed);
    io_fake_reset(stage->servers[2].peer);
    stage_settle(stage);
    cr_assert_eq(shortage->waiting_count, 0);
    cr_assert_eq(shortage->leaving_count, 0);
    stage_end(stage);
}

TEST_EACH_SEED(http_path, refuses_new_work_at_its_bounds_and_goes_on)
{
    for (int which = 0; which < 2; which++) {
        struct stage *stage = stage_begin(seed, &plain, &party_answers, HELLO);
        struct worker *worker = stage->world.worker;
        struct slab *slabs[] = {&worker->upstream_slab, &worker->stream_slab};
        slabs[which]->fail_after = 1;
        struct io_fake_peer *peer = stage_dial(stage, &stage->client);
        stage_say(stage, peer, GET);
        cr_assert(party_has(&stage->client, "503"), "%d: %s", which, stage->client.text);
        party_forget(&stage->client);
        stage_say(stage, peer, GET);
        cr_assert(party_has(&stage->client, "hello"), "%d: %s", which, stage->client.text);
        stage_end(stage);
    }
}

/*
 * Many clients with many requests against hostile upstreams, through a whole worker on the fake
 * I/O, on thousands of seeds: every request has one honest outcome, and no answer ever belongs to
 * another request (reliability.md 4.2).
 *
 * What an upstream does to a request follows from the request's number, so both sides know it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "proxy/worker_state.h"
#include "proxy/world.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 300
#else
#define SEEDS 3000
#endif

enum {
    CLIENTS = 5,
    REQUESTS = 6, /* of each client */
    TEXT_MAX = 1 << 15,
    SERVERS_MAX = 512,
};

enum behaviour {
    ANSWERS,
    ANSWERS_CHUNKED,
    ANSWERS_AND_CLOSES,
    CLOSES_QUIETLY, /* after its answer, without a word in it */
    SAYS_TOO_MUCH,
    CLOSES_UNASKED, /* instead of an answer */
    RESETS,
    CUTS, /* half an answer, then the end */
    BEHAVIOURS
};

static enum behaviour behaviour_of(unsigned number)
{
    unsigned mixed = number * 2654435761u >> 16;
    return mixed % 3 != 0 ? ANSWERS : (enum behaviour)(mixed / 3 % BEHAVIOURS);
}

static bool is_post(unsigned number)
{
    return number % 4 == 1;
}

struct crowd;

/* One connection to a pod. */
struct server {
    struct io_fake_peer *peer;
    struct crowd *crowd;
    char text[TEXT_MAX];
    size_t size;
    bool is_closed;
};

struct client {
    struct io_fake_peer *peer;
    struct crowd *crowd;
    char text[TEXT_MAX];
    size_t size;
    unsigned next; /* the request whose answer is waited for */
    unsigned last; /* one behind its last */
    unsigned answered;
    unsigned refused;
    bool is_over;
    bool was_cut;
    bool was_told; /* that the connection closes behind this answer */
};

struct crowd {
    struct world world;
    struct client clients[CLIENTS];
    struct server *servers[SERVERS_MAX]; /* owned */
    uint32_t servers_count;
    uint16_t seen[CLIENTS * REQUESTS];
    unsigned refusals_max; /* honest refusals beyond those that a behaviour explains */
};

/* ---- servers ---- */

static void say(struct io_fake_peer *peer, const char *format, unsigned number)
{
    char text[512];
    snprintf(text, sizeof(text), format, number);
    io_fake_send(peer, bytes_from_string(text));
}

#define LENGTH_HEAD "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n"

static void serve_request(struct server *server, unsigned number)
{
    struct io_fake_peer *peer = server->peer;
    cr_assert_lt(number, CLIENTS * REQUESTS);
    server->crowd->seen[number]++;
    switch (behaviour_of(number)) {
    case ANSWERS:
    case CLOSES_QUIETLY:
        say(peer, LENGTH_HEAD "\r\nid%06u", number);
        break;
    case ANSWERS_CHUNKED:
        say(peer,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
            "chunked\r\n\r\n2\r\nid\r\n6\r\n%06u\r\n0\r\n\r\n",
            number);
        break;
    case ANSWERS_AND_CLOSES:
        say(peer, LENGTH_HEAD "Connection: close\r\n\r\nid%06u", number);
        break;
    case SAYS_TOO_MUCH:
        say(peer, LENGTH_HEAD "\r\nid%06uHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", number);
        break;
    case CUTS:
        say(peer, LENGTH_HEAD "\r\nid", number);
        break;
    case CLOSES_UNASKED:
    case RESETS:
    case BEHAVIOURS:
        break;
    }
    enum behaviour behaviour = behaviour_of(number);
    if (behaviour == RESETS) {
        server->is_closed = true;
        io_fake_reset(peer);
    } else if (behaviour == CUTS || behaviour == CLOSES_UNASKED || behaviour == CLOSES_QUIETLY ||
               behaviour == ANSWERS_AND_CLOSES) {
        server->is_closed = true;
        io_fake_close(peer);
    }
}

static void on_request_bytes(struct io_fake_peer *peer, struct bytes data)
{
    struct server *server = io_fake_owner(peer);
    if (server->is_closed) {
        return;
    }
    cr_assert_lt(server->size + data.size, sizeof(server->text));
    memcpy(server->text + server->size, data.data, data.size);
    server->size += data.size;
    server->text[server->size] = '\0';
    const char *end = NULL;
    while (!server->is_closed && (end = strstr(server->text, "\r\n\r\n")) != NULL) {
        size_t used = (size_t)(end + 4 - server->text);
        bool has_body = strncmp(server->text, "POST ", 5) == 0;
        if (server->size < used + (has_body ? 4 : 0)) {
            return;
        }
        unsigned number = 0;
        cr_assert_eq(sscanf(strchr(server->text, '/'), "/%u", &number), 1);
        if (has_body) {
            cr_assert(memcmp(server->text + used, "body", 4) == 0);
            used += 4;
        }
        memmove(server->text, server->text + used, server->size - used + 1);
        server->size -= used;
        serve_request(server, number);
    }
}

static void on_server_end(struct io_fake_peer *peer)
{
    struct server *server = io_fake_owner(peer);
    server->is_closed = true;
    io_fake_close(peer);
}

static const struct io_fake_script serves = {.on_data = on_request_bytes, .on_end = on_server_end};

static void on_server_connected(struct io_fake_peer *peer)
{
    struct crowd *crowd = io_fake_owner(peer);
    struct server *server = calloc(1, sizeof(*server));
    cr_assert(server != NULL && crowd->servers_count < SERVERS_MAX);
    crowd->servers[crowd->servers_count++] = server;
    server->peer = peer;
    server->crowd = crowd;
    io_fake_set_owner(peer, server);
    io_fake_set_script(peer, &serves);
}

static const struct io_fake_script accepts = {.on_connected = on_server_connected};

/* ---- clients ---- */

static void send_next(struct client *client)
{
    if (client->next == client->last) {
        client->is_over = true;
        io_fake_close(client->peer);
        return;
    }
    say(client->peer,
        is_post(client->next) ? "POST /%u HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody"
                              : "GET /%u HTTP/1.1\r\nHost: web\r\n\r\n",
        client->next);
}

/* Size of the whole answer at the front of the text; 0: it is not whole. `ret_body` is freed of
 * chunks. */
static size_t take_answer(const struct client *client, char *ret_body, size_t body_size)
{
    const char *end = strstr(client->text, "\r\n\r\n");
    if (end == NULL) {
        return 0;
    }
    size_t head = (size_t)(end + 4 - client->text);
    const char *length = strcasestr(client->text, "content-length:");
    ret_body[0] = '\0';
    if (length != NULL && length < end) {
        unsigned long size =
            strtoul(length + 15, NULL, 10); /* tidy: allow banned-call: a test's own text */
        if (client->size < head + size || size >= body_size) {
            return 0;
        }
        memcpy(ret_body, client->text + head, size);
        ret_body[size] = '\0';
        return head + size;
    }
    const char *last = strstr(client->text + head, "0\r\n\r\n");
    if (last == NULL) {
        return 0;
    }
    for (const char *at = client->text + head; at < last;) {
        unsigned size = 0;
        cr_assert_eq(sscanf(at, "%x", &size), 1);
        at = strstr(at, "\r\n") + 2;
        strncat(ret_body, at, size);
        at += size + 2;
    }
    return (size_t)(last + 5 - client->text);
}

static void judge(struct client *client, const char *body)
{
    unsigned long seed = (unsigned long)client->crowd->world.seed;
    enum behaviour behaviour = behaviour_of(client->next);
    if (strncmp(client->text, "HTTP/1.1 200 ", 13) == 0) {
        char expected[16];
        snprintf(expected, sizeof(expected), "id%06u", client->next);
        cr_assert_str_eq(body, expected, "seed %lu: wrong answer to %u", seed, client->next);
        client->answered++;
        return;
    }
    cr_assert(strcasestr(client->text, "proxy-status: outrigger") != NULL, "seed %lu: %s", seed,
              client->text);
    client->refused++;
    bool is_explained = behaviour == CLOSES_UNASKED || behaviour == RESETS || behaviour == CUTS;
    /* A POST whose pooled connection had just died is not sent again. */
    is_explained = is_explained || is_post(client->next);
    if (!is_explained) {
        client->crowd->refusals_max--;
    }
}

static void on_answer_bytes(struct io_fake_peer *peer, struct bytes data)
{
    struct client *client = io_fake_owner(peer);
    cr_assert_lt(client->size + data.size, sizeof(client->text));
    memcpy(client->text + client->size, data.data, data.size);
    client->size += data.size;
    client->text[client->size] = '\0';
    char body[256];
    size_t used = 0;
    while (!client->is_over && (used = take_answer(client, body, sizeof(body))) > 0) {
        judge(client, body);
        const char *close = strcasestr(client->text, "connection: close");
        client->was_told = close != NULL && close < client->text + used;
        memmove(client->text, client->text + used, client->size - used + 1);
        client->size -= used;
        client->next++;
        if (client->was_told) {
            client->is_over = true;
            io_fake_close(peer);
        } else {
            send_next(client);
        }
    }
}

/* The proxy closes only behind an answer that was cut short. */
static void on_client_end(struct io_fake_peer *peer)
{
    struct client *client = io_fake_owner(peer);
    if (!client->is_over) {
        client->is_over = true;
        client->was_cut = true;
        io_fake_close(peer);
    }
}

static const struct io_fake_script asks = {
    .on_data = on_answer_bytes, .on_end = on_client_end, .on_reset = on_client_end};

static bool is_crowd_over(void *argument)
{
    const struct crowd *crowd = argument;
    for (int i = 0; i < CLIENTS; i++) {
        if (!crowd->clients[i].is_over) {
            return false;
        }
    }
    return worker_open_exchanges(crowd->world.worker) == 0;
}

static void check_books(const struct crowd *crowd, bool may_be_cut)
{
    unsigned long seed = (unsigned long)crowd->world.seed;
    for (int i = 0; i < CLIENTS; i++) {
        const struct client *client = &crowd->clients[i];
        if (client->was_cut) {
            enum behaviour behaviour = behaviour_of(client->next);
            cr_assert(may_be_cut || behaviour == CUTS || behaviour == RESETS,
                      "seed %lu: request %u was cut", seed, client->next);
        } else if (!client->was_told) {
            cr_assert_eq(client->answered + client->refused, REQUESTS, "seed %lu", seed);
        }
    }
    for (unsigned number = 0; number < CLIENTS * REQUESTS; number++) {
        if (is_post(number)) {
            cr_assert_leq(crowd->seen[number], 1, "seed %lu: POST %u was sent twice", seed, number);
        }
    }
    cr_assert_leq(crowd->refusals_max, CLIENTS * REQUESTS, "seed %lu: too many refusals", seed);
}

static struct crowd *begin(uint64_t seed, const struct world_config *config)
{
    struct crowd *crowd = calloc(1, sizeof(*crowd));
    cr_assert_not_null(crowd);
    world_begin(&crowd->world, seed, config, seed % 5 == 4 ? 16 : 0);
    for (uint32_t i = 0; i < config->pods; i++) {
        io_fake_serve(crowd->world.io,
                      &(struct io_fake_service){.address = world_pod(i),
                                                .outcome = i == 2 ? IO_FAKE_REFUSE : IO_FAKE_ACCEPT,
                                                .script = &accepts,
                                                .owner = crowd});
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *client = &crowd->clients[i];
        client->crowd = crowd;
        client->next = i * REQUESTS;
        client->last = client->next + REQUESTS;
        client->peer = world_dial(&crowd->world, LISTENER_NAMED, NULL, &asks, client);
        send_next(client);
    }
    return crowd;
}

static void run(struct crowd *crowd)
{
    world_run_until(&crowd->world, is_crowd_over, crowd);
}

static void end(struct crowd *crowd)
{
    world_end(&crowd->world);
    for (uint32_t i = 0; i < crowd->servers_count; i++) {
        free(crowd->servers[i]);
    }
    free(crowd);
}

static const struct world_config three_pods = {.port_name = "http", .pods = 3, .has_slices = true};

Test(http_crowd, has_one_honest_outcome_for_each_request, .timeout = 180)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct crowd *crowd = begin(seed, &three_pods);
        run(crowd);
        check_books(crowd, false);
        cr_assert_eq(crowd->refusals_max, 0, "seed %lu: a refusal that nothing explains",
                     (unsigned long)seed);
        end(crowd);
    }
}

/* Configurations come while requests are under way: nobody notices. */
Test(http_crowd, does_not_notice_new_configurations, .timeout = 180)
{
    for (uint64_t seed = 0; seed < SEEDS / 5; seed++) {
        struct crowd *crowd = begin(seed, &three_pods);
        for (int i = 0; i < 5; i++) {
            io_fake_run_for(crowd->world.io, io_fake_random(crowd->world.io) % 20000000);
            world_publish(&crowd->world, &three_pods);
        }
        run(crowd);
        check_books(crowd, false);
        cr_assert_eq(crowd->refusals_max, 0, "seed %lu", (unsigned long)seed);
        cr_assert_eq(world_snapshots(), 1);
        end(crowd);
    }
}

/* No descriptor for an upstream now and then: honest refusals, nothing worse. */
Test(http_crowd, refuses_honestly_for_want_of_descriptors, .timeout = 180)
{
    for (uint64_t seed = 0; seed < SEEDS / 5; seed++) {
        struct crowd *crowd = begin(seed, &three_pods);
        crowd->refusals_max = CLIENTS * REQUESTS;
        struct io_fake_faults *faults = io_fake_faults_of(crowd->world.io);
        faults->connect_limit_percent = 30;
        /* Who waits takes a connection in the moment of its release: bytes that nobody asked for
         * are told from an answer only when they came with the one before. */
        faults->delivery_short_percent = 0;
        faults->receive_short_percent = 0;
        run(crowd);
        check_books(crowd, false);
        end(crowd);
    }
}

/* Memory for outgoing bytes ends at every amount: requests are refused or cut off, no answer is
 * wrong, and all of it comes back. */
Test(http_crowd, survives_want_of_memory_for_what_it_sends, .timeout = 180)
{
    for (uint64_t bytes = 0; bytes < 64 * 1024; bytes += 512) {
        world_limit_heap(bytes);
        struct crowd *crowd = begin(bytes / 512, &three_pods);
        crowd->refusals_max = CLIENTS * REQUESTS;
        run(crowd);
        check_books(crowd, true);
        end(crowd);
    }
}

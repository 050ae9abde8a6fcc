/*
 * The HTTP/1.1 codec in both roles, joined to the smallest proxy: vectors of requests and
 * responses, each whole, cut at every byte and byte by byte; then what vectors cannot say.
 */
#include "http/http1.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/message.h"
#include "http/relay.h"
#include "http/vector.h"

static const char empty_answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/* ---- vectors ---- */

enum {
    /* Longer vectors are cut at this many places at either end, and at a few between. */
    CUTS_AT_ENDS = 120,
    CUT_STRIDE = 1777,
    VECTOR_WHOLE = -1,
    VECTOR_BYTEWISE = -2,
};

static bool is_cut(size_t at, size_t size)
{
    return at < CUTS_AT_ENDS || size - at < CUTS_AT_ENDS || at % CUT_STRIDE == 0;
}

/* Feed bytes whole, cut in two at `cut`, or byte by byte. */
static void feed(struct relay *relay, void (*give)(struct relay *, const uint8_t *, size_t),
                 const struct vector_bytes *bytes, long cut)
{
    if (cut == VECTOR_BYTEWISE) {
        for (size_t i = 0; i < bytes->size; i++) {
            give(relay, bytes->data + i, 1);
        }
        return;
    }
    size_t first = cut == VECTOR_WHOLE ? bytes->size : (size_t)cut;
    give(relay, bytes->data, first);
    if (first < bytes->size) {
        give(relay, bytes->data + first, bytes->size - first);
    }
}

static const enum codec_end ends[] = {
    [VECTOR_END_CLEAN] = CODEC_END_CLEAN,
    [VECTOR_END_RESET] = CODEC_END_RESET,
    [VECTOR_END_TRUNCATED] = CODEC_END_TRUNCATED,
};

/* "200,400c" from the bytes that the downstream peer got. Every answer is empty. */
static void describe_answers(const struct relay *relay, char *out, size_t out_size)
{
    struct bytes rest = bytes_make(relay->to_client.data, relay->to_client.size);
    size_t used = 0;
    out[0] = '\0';
    while (rest.size > 0 && used + 8 < out_size) {
        size_t end = bytes_find_bytes(rest, BYTES("\r\n\r\n"));
        if (end == rest.size || !bytes_starts_with(rest, BYTES("HTTP/1.1 "))) {
            used += (size_t)snprintf(out + used, out_size - used, "(garbage)");
            break;
        }
        struct bytes head = bytes_first(rest, end + 2);
        bool is_own = bytes_find_bytes(head, BYTES("\r\nproxy-status: outrigger; ")) < head.size;
        bool is_close = bytes_find_bytes(head, BYTES("\r\nConnection: close\r\n")) < head.size;
        used += (size_t)snprintf(out + used, out_size - used, "%s%.3s", used > 0 ? "," : "",
                                 (const char *)rest.data + 9);
        if ((rest.data[9] == '4' || rest.data[9] == '5') && (!is_own || !is_close)) {
            used += (size_t)snprintf(out + used, out_size - used, "(lacks fields)");
        }
        rest = bytes_skip(rest, end + 4);
    }
    bool is_closed = relay->server->is_close_wanted || relay->server->is_abort_wanted;
    if (is_closed || used == 0) {
        snprintf(out + used, out_size - used, "%s", is_closed ? "c" : "-");
    }
}

static bool check_request_row(const struct vector_row *row, const struct vector_bytes *sent,
                              const struct vector_bytes *passed, long cut)
{
    struct relay relay;
    relay_init(&relay, empty_answer);
    feed(&relay, relay_receive, sent, cut);
    if (sent->end != VECTOR_END_NONE) {
        relay_receive_end(&relay, ends[sent->end]);
    }
    char answers[256];
    describe_answers(&relay, answers, sizeof(answers));
    relay_cut(&relay);
    bool is_same =
        relay.to_server.size == passed->size &&
        (passed->size == 0 || memcmp(relay.to_server.data, passed->data, passed->size) == 0);
    bool is_right = strcmp(answers, row->columns[1]) == 0 && is_same;
    if (!is_right) {
        int shown = relay.to_server.size > 400 ? 400 : (int)relay.to_server.size;
        cr_log_error("%s (cut %ld): answers %s, wanted %s; passed on%s: %.*s", row->columns[0], cut,
                     answers, row->columns[1], is_same ? "" : " WRONGLY", shown,
                     (const char *)relay.to_server.data);
    }
    relay_finish(&relay);
    return is_right;
}

/* Whole, byte by byte, and cut everywhere; the first failure ends the row. */
static bool check_in_every_cut(const struct vector_row *row, const struct vector_bytes *fed,
                               const struct vector_bytes *wanted,
                               bool (*check)(const struct vector_row *, const struct vector_bytes *,
                                             const struct vector_bytes *, long))
{
    if (!check(row, fed, wanted, VECTOR_WHOLE) || !check(row, fed, wanted, VECTOR_BYTEWISE)) {
        return false;
    }
    for (size_t at = 1; at < fed->size; at += OUTRIGGER_TEST_DIVISOR) {
        if (is_cut(at, fed->size) && !check(row, fed, wanted, (long)at)) {
            return false;
        }
    }
    return true;
}

Test(http1, takes_or_refuses_every_request_vector_as_stated, .timeout = 100)
{
    struct vector_table table;
    vector_load("integration/e2e/http1_requests.txt", 4, &table);
    cr_assert_geq(table.count, 700);
    size_t failed = 0;
    for (size_t i = 0; i < table.count; i++) {
        const struct vector_row *row = &table.rows[i];
        struct vector_bytes sent = vector_decode(row->columns[2]);
        const char *wanted = row->columns[3];
        struct vector_bytes passed = vector_decode(strcmp(wanted, "=") == 0   ? row->columns[2]
                                                   : strcmp(wanted, "-") == 0 ? ""
                                                                              : wanted);
        failed += check_in_every_cut(row, &sent, &passed, check_request_row) ? 0 : 1;
        vector_free(&sent);
        vector_free(&passed);
    }
    vector_unload(&table);
    cr_assert_eq(failed, 0, "%zu rows of request vectors failed", failed);
}

struct sample {
    const char *name;
    const char *bytes;
};

static const struct sample samples[] = {
    {"GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {"POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"},
    {"GET10", "GET / HTTP/1.0\r\nHost: a\r\n\r\n"},
    {"WS", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"},
};

static void send_sample(struct relay *relay, const char *name)
{
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        if (strcmp(samples[i].name, name) == 0) {
            relay_receive(relay, (const uint8_t *)samples[i].bytes, strlen(samples[i].bytes));
        }
    }
}

/* The outcome in the words of the table. */
static const char *describe_outcome(const struct relay *relay)
{
    if (relay->has_reset) {
        switch (relay->reset_reason) {
        case EXCHANGE_RESET_PROTOCOL:
            return "bad";
        case EXCHANGE_RESET_TRUNCATED:
            return "cut";
        case EXCHANGE_RESET_CONNECTION:
            return relay->has_begun ? "reset" : "gone";
        case EXCHANGE_RESET_CANCEL:
        case EXCHANGE_RESET_REFUSED:
        case EXCHANGE_RESET_INTERNAL:
            break;
        }
        return "?";
    }
    if (relay->is_tunnel) {
        return "tunnel";
    }
    if (relay->responses_whole == 0) {
        return "wait";
    }
    return relay->client->is_reusable && !relay->client->is_close_wanted ? "keep" : "drop";
}

static bool check_response_row(const struct vector_row *row, const struct vector_bytes *sent,
                               const struct vector_bytes *relayed, long cut)
{
    struct relay relay;
    relay_init(&relay, NULL);
    send_sample(&relay, row->columns[1]);
    cr_assert_eq(relay.requests_whole, 1);
    feed(&relay, relay_respond, sent, cut);
    if (sent->end != VECTOR_END_NONE) {
        relay_respond_end(&relay, ends[sent->end]);
    }
    const char *outcome = describe_outcome(&relay);
    enum vector_end end = relay.server->is_abort_wanted   ? VECTOR_END_RESET
                          : relay.server->is_close_wanted ? VECTOR_END_CLEAN
                                                          : VECTOR_END_NONE;
    bool is_same =
        relay.to_client.size == relayed->size && end == relayed->end &&
        (relayed->size == 0 || memcmp(relay.to_client.data, relayed->data, relayed->size) == 0);
    bool is_right = is_same && strcmp(outcome, row->columns[2]) == 0;
    if (!is_right) {
        int shown = relay.to_client.size > 400 ? 400 : (int)relay.to_client.size;
        cr_log_error("%s (cut %ld): %s, wanted %s; relayed%s (end %d, wanted %d): %.*s",
                     row->columns[0], cut, outcome, row->columns[2], is_same ? "" : " WRONGLY",
                     (int)end, (int)relayed->end, shown, (const char *)relay.to_client.data);
    }
    relay_finish(&relay);
    return is_right;
}

Test(http1, takes_or_refuses_every_response_vector_as_stated, .timeout = 100)
{
    struct vector_table table;
    vector_load("integration/e2e/http1_responses.txt", 5, &table);
    cr_assert_geq(table.count, 120);
    size_t failed = 0;
    for (size_t i = 0; i < table.count; i++) {
        const struct vector_row *row = &table.rows[i];
        const char *wanted = row->columns[4];
        struct vector_bytes sent = vector_decode(row->columns[3]);
        struct vector_bytes relayed = vector_decode(
            strcmp(wanted, "=") == 0     ? row->columns[3]
            : strcmp(wanted, "502") == 0 ? "HTTP/1.1 502 Bad Gateway⏎Content-Length: 0⏎⏎"
                                         : wanted);
        failed += check_in_every_cut(row, &sent, &relayed, check_response_row) ? 0 : 1;
        vector_free(&sent);
        vector_free(&relayed);
    }
    vector_unload(&table);
    cr_assert_eq(failed, 0, "%zu rows of response vectors failed", failed);
}

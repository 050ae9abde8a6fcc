/*
 * The server role: whatever comes, however it is cut, the same is passed on and answered; and what
 * is passed on is passed on again unchanged by a second proxy, so nobody behind us reads it
 * otherwise.
 *
 * Input: one byte that says how to cut, then what the client sends.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "http/relay.h"

/* Implemented here; libFuzzer declares it nowhere. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

static void feed(struct relay *relay, const uint8_t *data, size_t size, size_t step)
{
    relay_init(relay, answer);
    for (size_t at = 0; at < size; at += step) {
        relay_receive(relay, data + at, size - at < step ? size - at : step);
    }
    bool is_closed = relay->server->is_close_wanted;
    relay_receive_end(relay, CODEC_END_CLEAN);
    CHECK(relay->server->is_close_wanted || relay->downstream.codec != NULL);
    CHECK(!is_closed || relay->server->is_close_wanted);
    relay_cut(relay);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 100000) {
        return 0;
    }
    static struct relay whole;
    static struct relay cut;
    static struct relay second;
    feed(&whole, data + 1, size - 1, size);
    feed(&cut, data + 1, size - 1, 1u + data[0] % 64);
    relay_expect_same(&whole.to_server, &cut.to_server);
    relay_expect_same(&whole.to_client, &cut.to_client);
    /* A second proxy refuses a request of HTTP/1.0 that had no Host, and counts Max-Forwards of
     * OPTIONS once more. */
    const struct relay_record *passed = &whole.to_server;
    if (passed->size > 0 && !relay_is_near_bound(data, size) &&
        memmem(passed->data, passed->size, "\r\nHost: \r\n", 10) == NULL &&
        memmem(passed->data, passed->size, "OPTIONS", 7) == NULL) {
        feed(&second, passed->data, passed->size, passed->size);
        relay_expect_same(passed, &second.to_server);
        relay_finish(&second);
    }
    relay_finish(&whole);
    relay_finish(&cut);
    return 0;
}

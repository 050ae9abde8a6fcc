/*
 * The client role: whatever an upstream answers, however it is cut, the client gets the same; and
 * what it gets is relayed again unchanged by a second proxy.
 *
 * Input: one byte that says which request and how to cut, then what the upstream sends.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "http/relay.h"

/* Implemented here; libFuzzer declares it nowhere. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const requests[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"),
};

static void feed(struct relay *relay, const char *request, const uint8_t *data, size_t size,
                 size_t step)
{
    relay_init(relay, NULL);
    relay_receive(relay, (const uint8_t *)request, strlen(request));
    CHECK(relay->requests_whole == 1);
    for (size_t at = 0; at < size; at += step) {
        relay_respond(relay, data + at, size - at < step ? size - at : step);
    }
    relay_respond_end(relay, CODEC_END_CLEAN);
    CHECK(relay->upstream.codec == NULL || relay->is_tunnel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 100000) {
        return 0;
    }
    static struct relay whole;
    static struct relay cut;
    static struct relay second;
    const char *request = requests[data[0] & 3];
    feed(&whole, request, data + 1, size - 1, size);
    feed(&cut, request, data + 1, size - 1, 1u + data[0] / 4);
    relay_expect_same(&whole.to_client, &cut.to_client);
    if (!whole.has_reset && !relay_is_near_bound(data, size)) {
        feed(&second, request, whole.to_client.data, whole.to_client.size,
             whole.to_client.size + 1);
        CHECK(!second.has_reset); /* what was relayed as complete is not malformed to the next */
        relay_expect_same(&whole.to_client, &second.to_client);
        relay_finish(&second);
    }
    relay_finish(&whole);
    relay_finish(&cut);
    return 0;
}

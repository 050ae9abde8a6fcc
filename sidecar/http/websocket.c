/*
 * Key and accept of the WebSocket handshake. SHA-1 (RFC 3174) is written out here because it is
 * wanted for this one message of 60 bytes and proves nothing: OpenSSL's home is elsewhere.
 */
#include "http/websocket.h"

#include "base/check.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static bool is_base64(uint8_t byte)
{
    return byte != 0 && strchr(alphabet, byte) != NULL;
}

bool websocket_is_key(struct bytes text)
{
    if (text.size != WEBSOCKET_KEY_BYTES || text.data[22] != '=' || text.data[23] != '=') {
        return false;
    }
    for (size_t i = 0; i < 22; i++) {
        if (!is_base64(text.data[i])) {
            return false;
        }
    }
    return strchr("AQgw", text.data[21]) != NULL; /* the last digit carries two bits only */
}

static uint32_t rotate(uint32_t word, unsigned bits)
{
    return word << bits | word >> (32 - bits);
}

/* Mix one block of 64 bytes into `state`. */
static void mix(uint32_t state[5], const uint8_t block[64])
{
    uint32_t words[80];
    for (size_t i = 0; i < 16; i++) {
        const uint8_t *at = block + 4 * i;
        words[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }
    for (size_t i = 16; i < 80; i++) {
        words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    }
    uint32_t a = state[0];
    uint32_t b = state[1];
    uint32_t c = state[2];
    uint32_t d = state[3];
    uint32_t e = state[4];
    for (size_t i = 0; i < 80; i++) {
        uint32_t f = b ^ c ^ d;
        uint32_t k = i < 40 ? 0x6ed9eba1 : 0xca62c1d6;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i >= 40 && i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        }
        uint32_t next = rotate(a, 5) + f + e + k + words[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void websocket_accept(struct bytes key, uint8_t ret_accept[WEBSOCKET_ACCEPT_BYTES])
{
    CHECK(key.size == WEBSOCKET_KEY_BYTES);
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

    enum {
        MESSAGE_BYTES = WEBSOCKET_KEY_BYTES + sizeof(guid) - 1
    };

    uint8_t blocks[128] = {0};
    memcpy(blocks, key.data, key.size);
    memcpy(blocks + key.size, guid, sizeof(guid) - 1);
    blocks[MESSAGE_BYTES] = 0x80;
    blocks[126] = (MESSAGE_BYTES * 8) >> 8;
    blocks[127] = (MESSAGE_BYTES * 8) & 0xff;
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    mix(state, blocks);
    mix(state, blocks + 64);

    uint8_t digest[21] = {0};
    for (size_t i = 0; i < 20; i++) {
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
    }
    for (size_t i = 0; i < 7; i++) {
        uint32_t group =
            (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (size_t j = 0; j < 4; j++) {
            ret_accept[4 * i + j] = (uint8_t)alphabet[(group >> (18 - 6 * j)) & 63];
        }
    }
    ret_accept[27] = '=';
}

/*
 * The two facts of the WebSocket handshake that a proxy checks (RFC 6455 4.2): is this a key, and
 * which answer proves that the key was read.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum {
    WEBSOCKET_KEY_BYTES = 24,   /* 16 random bytes in base64 */
    WEBSOCKET_ACCEPT_BYTES = 28 /* a SHA-1 in base64 */
};

/* Is this a Sec-WebSocket-Key? */
bool websocket_is_key(struct bytes text);

/* The Sec-WebSocket-Accept that belongs to `key`, which is one. */
void websocket_accept(struct bytes key, uint8_t ret_accept[WEBSOCKET_ACCEPT_BYTES]);

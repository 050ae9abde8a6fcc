/*
 * The opaque codec: bytes both ways. One exchange without heads, a tunnel from the start, so that
 * TCP shares routing, balancing, retry, limits and logs with HTTP.
 *
 * Half-close passes as half-close, reset as reset. A truncated TLS stream is a reset, not an end.
 */
#pragma once

#include "base/buffer.h"
#include "base/error.h"
#include "http/codec.h"

/*
 * Make a codec for one connection. Server role: on_exchange is called by the first codec_receive,
 * which needs no byte. Client role: exchange_open takes the one exchange at once.
 * Errors: ERROR_NO_MEMORY.
 */
FALLIBLE opaque_create(enum codec_role role, const struct codec_events *events, void *owner,
                       struct block_source *blocks, struct codec **ret_codec);

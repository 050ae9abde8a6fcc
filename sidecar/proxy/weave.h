/*
 * Test support: the smallest codec that interleaves exchanges on one connection, to prove that the
 * seam carries them before HTTP/2 does. Frames: stream number, type, size (16 bits), payload.
 *
 *     'H' head   "METHOD target" or a status      'D' data
 *     'E' end                                     'R' reset
 */
#pragma once

#include "base/buffer.h"
#include "base/error.h"
#include "http/codec.h"

enum {
    WEAVE_FRAME_BYTES = 4,
    WEAVE_EXCHANGES_MAX = 8, /* that a client opens at once: the ninth is ERROR_LIMIT */
    WEAVE_DATA_MAX = 4096,
};

/* Errors: ERROR_NO_MEMORY. */
FALLIBLE weave_create(enum codec_role role, const struct codec_events *events, void *owner,
                      struct block_source *blocks, struct codec **ret_codec);

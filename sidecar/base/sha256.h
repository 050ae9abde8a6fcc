/*
 * SHA-256 (FIPS 180-4), for naming configurations by their content; nothing secret passes through
 * it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum {
    SHA256_BYTES = 32
};

struct sha256 {
    uint32_t state[8];
    uint64_t size; /* bytes so far */
    uint8_t block[64];
    bool is_fast; /* with the processor's own instructions */
};

/* Begin. */
void sha256_init(struct sha256 *sha256);

/* Add bytes. */
void sha256_update(struct sha256 *sha256, struct bytes bytes);

/* The digest of all that was added; begin again before further use. */
void sha256_finish(struct sha256 *sha256, uint8_t ret_digest[SHA256_BYTES]);

/* The first `count` bytes of a digest as 2 * count lower-case hexadecimal digits and a NUL. */
void sha256_print(const uint8_t digest[SHA256_BYTES], uint32_t count, char *out);

/*
 * The block function of SHA-256, as the standard has it and with the processor's own instructions
 * where it has some (six times as fast: configurations are hashed on every reload). Internal to
 * sha256.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SHA256_BLOCK_BYTES = 64
};

/* Add `count` blocks to the state. Both functions give the same. */
void sha256_blocks_portable(uint32_t state[8], const uint8_t *data, size_t count);

/* Only where sha256_blocks_is_fast(). */
void sha256_blocks_fast(uint32_t state[8], const uint8_t *data, size_t count);

/* Has this processor the instructions? */
bool sha256_blocks_is_fast(void);

/* SHA-256 as FIPS 180-4 section 6.2 describes it. */
#include "base/sha256.h"

#include <string.h>

#include "base/check.h"
#include "base/sha256_blocks.h"

void sha256_init(struct sha256 *sha256)
{
    *sha256 = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                        0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
                              .is_fast = sha256_blocks_is_fast()};
}

static void add_blocks(struct sha256 *sha256, const uint8_t *data, size_t count)
{
    if (sha256->is_fast) {
        sha256_blocks_fast(sha256->state, data, count);
    } else {
        sha256_blocks_portable(sha256->state, data, count);
    }
}

void sha256_update(struct sha256 *sha256, struct bytes bytes)
{
    while (bytes.size > 0) {
        size_t used = sha256->size % SHA256_BLOCK_BYTES;
        size_t part = SHA256_BLOCK_BYTES - used;
        if (used == 0 && bytes.size >= SHA256_BLOCK_BYTES) {
            part = bytes.size - bytes.size % SHA256_BLOCK_BYTES;
            add_blocks(sha256, bytes.data, part / SHA256_BLOCK_BYTES);
        } else {
            part = bytes.size < part ? bytes.size : part;
            memcpy(sha256->block + used, bytes.data, part);
            if (used + part == SHA256_BLOCK_BYTES) {
                add_blocks(sha256, sha256->block, 1);
            }
        }
        sha256->size += part;
        bytes = bytes_skip(bytes, part);
    }
}

void sha256_finish(struct sha256 *sha256, uint8_t ret_digest[SHA256_BYTES])
{
    static const uint8_t padding[SHA256_BLOCK_BYTES] = {0x80};
    uint8_t size[8];
    for (unsigned i = 0; i < 8; i++) {
        size[i] = (uint8_t)(sha256->size * 8 >> (56 - 8 * i));
    }
    size_t used = sha256->size % 64;
    sha256_update(sha256, bytes_make(padding, used < 56 ? 56 - used : 120 - used));
    sha256_update(sha256, bytes_make(size, sizeof(size)));
    CHECK(sha256->size % 64 == 0);
    for (unsigned i = 0; i < SHA256_BYTES; i++) {
        ret_digest[i] = (uint8_t)(sha256->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void sha256_print(const uint8_t digest[SHA256_BYTES], uint32_t count, char *out)
{
    static const char digits[] = "0123456789abcdef";
    CHECK(count <= SHA256_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        *out++ = digits[digest[i] >> 4];
        *out++ = digits[digest[i] & 15];
    }
    *out = '\0';
}

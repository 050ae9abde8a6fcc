/* SHA-256 against the examples of FIPS 180-4, in every split of the input. */
#include "base/sha256.h"

#include <criterion/criterion.h>

#include <string.h>

#include "base/sha256_blocks.h"

static void expect(struct bytes text, size_t split, const char *want)
{
    struct sha256 sha256;
    uint8_t digest[SHA256_BYTES];
    char print[2 * SHA256_BYTES + 1];
    sha256_init(&sha256);
    sha256_update(&sha256, bytes_first(text, split));
    sha256_update(&sha256, bytes_skip(text, split));
    sha256_finish(&sha256, digest);
    sha256_print(digest, SHA256_BYTES, print);
    cr_expect_str_eq(print, want);
}

Test(sha256, gives_the_digests_of_the_standard)
{
    static const struct {
        struct bytes text;
        const char *want;
    } cases[] = {
        {BYTES_LITERAL(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {BYTES_LITERAL("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {BYTES_LITERAL("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {BYTES_LITERAL("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjkl"
                       "mnopqklmnopqrlmnopqrs"
                       "mnopqrstnopqrstu"),
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t split = 0; split <= cases[i].text.size; split++) {
            expect(cases[i].text, split, cases[i].want);
        }
    }
}

Test(sha256, computes_the_same_with_and_without_the_instructions_of_the_processor)
{
    if (!sha256_blocks_is_fast()) {
        return; /* the examples above were computed in plain C then */
    }
    static uint8_t data[20 * SHA256_BLOCK_BYTES];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * i >> 3);
    }
    for (size_t count = 0; count <= 20; count++) {
        uint32_t plain[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        uint32_t fast[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        sha256_blocks_portable(plain, data, count);
        sha256_blocks_fast(fast, data, count);
        cr_assert_eq(memcmp(plain, fast, sizeof(plain)), 0, "%zu blocks", count);
    }
}

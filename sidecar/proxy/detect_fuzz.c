/* Detection: the answer does not depend on the slices, and more bytes never change one that was
 * given. */
#include "proxy/detect.h"

#include "base/check.h"

/* Implemented here; libFuzzer declares it nowhere. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum detect_protocol ask(const uint8_t *data, size_t size, size_t step,
                                struct detect_hello *hello)
{
    struct buffer input = {0};
    for (size_t at = 0; at < size; at += step) {
        struct buffer part = {0};
        size_t part_size = size - at < step ? size - at : step;
        struct error error =
            buffer_append(&part, block_source_heap(), bytes_make(data + at, part_size));
        CHECK(!error_is(error));
        error = buffer_move(&part, &input, part_size);
        CHECK(!error_is(error));
        buffer_clear(&part);
    }
    enum detect_protocol protocol = detect(&input, hello);
    buffer_clear(&input);
    return protocol;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 40000) {
        return 0;
    }
    struct detect_hello hello;
    struct detect_hello other;
    enum detect_protocol whole = ask(data, size, size + 1, &hello);
    CHECK(ask(data, size, 1 + size / 7, &other) == whole);
    if (whole == DETECT_TLS) {
        CHECK(bytes_equal(detect_hello_sni(&hello), detect_hello_sni(&other)));
        CHECK(!detect_hello_offers(&hello, BYTES("")));
        CHECK(detect_hello_offers(&hello, BYTES("h2")) == detect_hello_offers(&other, BYTES("h2")));
    }
    enum detect_protocol half = ask(data, size / 2, 64, NULL);
    CHECK(half == DETECT_NEEDS_MORE || half == whole);
    return 0;
}

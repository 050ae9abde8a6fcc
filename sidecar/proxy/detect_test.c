/*
 * Detection: every case is also asked after each of its bytes, which must give "more" up to some
 * byte and the final answer from there on, and in slices of one byte.
 */
#include "proxy/detect.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "limits.h"

struct hello_options {
    const char *sni;
    const char *alpn;    /* comma-separated */
    size_t padding;      /* bytes of an extension that nobody knows */
    size_t record_bytes; /* of each record; 0: one record */
};

struct text {
    uint8_t data[40000];
    size_t size;
};

static void put(struct text *text, size_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        size_t place = size - 1 - i;
        text->data[text->size++] = (uint8_t)(place < 8 ? value >> (8 * place) : 0);
    }
}

static void put_string(struct text *text, const char *string, size_t size)
{
    memcpy(text->data + text->size, string, size);
    text->size += size;
}

static void put_alpn(struct text *text, const char *list)
{
    static struct text names;
    names.size = 0;
    struct bytes rest = bytes_from_string(list);
    while (rest.data != NULL) {
        struct bytes name = bytes_split(&rest, ',');
        put(&names, name.size, 1);
        put_string(&names, (const char *)name.data, name.size);
    }
    put(text, 16, 2);
    put(text, names.size + 2, 2);
    put(text, names.size, 2);
    put_string(text, (const char *)names.data, names.size);
}

/* The handshake message, then cut into records. */
static void make_hello(const struct hello_options *options, struct text *out)
{
    static struct text extensions;
    static struct text body;
    extensions.size = 0;
    body.size = 0;
    if (options->padding > 0) {
        put(&extensions, 21, 2);
        put(&extensions, options->padding, 2);
        extensions.size += options->padding;
    }
    if (options->sni != NULL) {
        size_t size = strlen(options->sni);
        put(&extensions, 0, 2);
        put(&extensions, size + 5, 2);
        put(&extensions, size + 3, 2);
        put(&extensions, 0, 1);
        put(&extensions, size, 2);
        put_string(&extensions, options->sni, size);
    }
    if (options->alpn != NULL) {
        put_alpn(&extensions, options->alpn);
    }
    size_t fixed = 2 + 32 + 1 + 32 + 2 + 4 + 2 + 2;
    put(&body, 1, 1);
    put(&body, fixed + extensions.size, 3);
    put(&body, 0x0303, 2);
    put(&body, 0, 32);
    put(&body, 32, 1);
    put(&body, 7, 32);
    put(&body, 4, 2);
    put(&body, 0x13011302, 4);
    put(&body, 0x0100, 2);
    put(&body, extensions.size, 2);
    put_string(&body, (const char *)extensions.data, extensions.size);
    out->size = 0;
    size_t record = options->record_bytes == 0 ? body.size : options->record_bytes;
    for (size_t at = 0; at < body.size; at += record) {
        size_t size = body.size - at < record ? body.size - at : record;
        put(out, 0x160301, 3);
        put(out, size, 2);
        put_string(out, (const char *)body.data + at, size);
    }
}

static enum detect_protocol ask(const uint8_t *data, size_t size, bool is_in_bytes,
                                struct detect_hello *hello)
{
    struct buffer input = {0};
    struct block_source *heap = block_source_heap();
    size_t step = is_in_bytes ? 1 : size;
    for (size_t at = 0; at < size; at += step) {
        struct buffer part = {0};
        cr_assert(!error_is(buffer_append(&part, heap, bytes_make(data + at, step))));
        cr_assert(!error_is(buffer_move(&part, &input, step)));
        buffer_clear(&part);
    }
    enum detect_protocol answer = detect(&input, hello);
    cr_assert_eq(input.size, size, "nothing is consumed");
    buffer_clear(&input);
    return answer;
}

/* The answer to all of it; and no other one before. */
static void expect(const char *what, const uint8_t *data, size_t size, enum detect_protocol wanted,
                   struct detect_hello *hello)
{
    bool is_known = false;
    for (size_t cut = 0; cut <= size; cut++) {
        enum detect_protocol answer = ask(data, cut, false, hello);
        cr_assert(answer == wanted || (answer == DETECT_NEEDS_MORE && !is_known),
                  "%s: %d after %zu of %zu bytes", what, (int)answer, cut, size);
        is_known = answer != DETECT_NEEDS_MORE;
    }
    cr_assert_eq(ask(data, size, false, hello), wanted, "%s", what);
    cr_assert_eq(ask(data, size, true, hello), wanted, "%s, in slices of one byte", what);
}

static void expect_text(const char *text, enum detect_protocol wanted)
{
    expect(text, (const uint8_t *)text, strlen(text), wanted, NULL);
}

Test(detect, knows_http1_by_its_request_line)
{
    static const char *const lines[] = {
        "GET / HTTP/1.1\r\n",       "POST /a?b HTTP/1.0\r\n",       "OPTIONS * HTTP/1.1\r\n",
        "CONNECT a:1 HTTP/1.1\r\n", "GET http://a/ HTTP/1.1\r\n",   "purge /x HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",         "GET /\xc3\xa9#a HTTP/1.1\r\n", "M-SEARCH /x HTTP/1.9",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect_text(lines[i], DETECT_HTTP1);
    }
}

Test(detect, leaves_other_protocols_alone)
{
    static const char *const lines[] = {
        "EHLO example.org\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "get key\r\n",
        "\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET /\r\n",
        "GET / HTTP/2.0\r\n",
        "GET / http/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "\x03\x01",
        "SSH-2.0-x\r\n",
        "G@T / HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX",
        "PRI * HTTP/1",
        "\x16\x02\x01",
        "\x17\x03\x01\x01",
        "GET /\x7f HTTP/1.1\r\n",
        "CONNECT {\"a\":1}\r\n",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        bool is_http = strcmp(lines[i], "PRI * HTTP/1") == 0;
        expect_text(lines[i], is_http ? DETECT_NEEDS_MORE : DETECT_OPAQUE);
    }
}

Test(detect, knows_the_http2_preface_only_when_it_is_whole)
{
    expect_text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", DETECT_HTTP2);
    expect_text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r", DETECT_NEEDS_MORE);
    expect_text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04", DETECT_HTTP2);
    expect_text("", DETECT_NEEDS_MORE);
}

Test(detect, a_target_that_is_too_long_is_still_http1)
{
    static char line[LIMIT_TARGET_BYTES + 100];
    memset(line, 'a', sizeof(line) - 1);
    memcpy(line, "GET /", 5);
    cr_assert_eq(ask((const uint8_t *)line, strlen(line), false, NULL), DETECT_HTTP1);
    memcpy(line, "GET x", 5);
    cr_assert_eq(ask((const uint8_t *)line, strlen(line), false, NULL), DETECT_OPAQUE);
}

Test(detect, reads_name_and_protocols_of_a_client_hello)
{
    static const struct hello_options cases[] = {
        {"Example.ORG", "h2,http/1.1", 0, 0},
        {NULL, NULL, 0, 0},
        {"a", NULL, 0, 0},
        {NULL, "outrigger-h2", 0, 0},
        {"web.shop.svc.cluster.local", "outrigger-tcp,outrigger-h1", 1500, 0},
        {"split.example", "h2", 0, 7},
        {"split.example", "h2", 300, 1},
    };
    static struct text text;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct detect_hello hello;
        make_hello(&cases[i], &text);
        expect("hello", text.data, text.size, DETECT_TLS, &hello);
        struct bytes wanted = bytes_from_string(cases[i].sni);
        cr_assert(bytes_equal_nocase(detect_hello_sni(&hello), wanted));
        struct bytes rest = bytes_from_string(cases[i].alpn);
        while (rest.size > 0) {
            cr_assert(detect_hello_offers(&hello, bytes_split(&rest, ',')));
        }
        cr_assert(!detect_hello_offers(&hello, BYTES("h3")));
        cr_assert(!detect_hello_offers(&hello, BYTES("h")));
    }
    struct detect_hello hello;
    make_hello(&cases[0], &text);
    expect("hello", text.data, text.size, DETECT_TLS, &hello);
    cr_assert(bytes_equal(detect_hello_sni(&hello), BYTES("example.org")), "in lower case");
}

Test(detect, a_broken_client_hello_is_opaque)
{
    static struct text text;
    struct hello_options options = {"example.org", "h2", 0, 0};
    make_hello(&options, &text);

    struct {
        size_t at;
        uint8_t byte;
    } breaks[] = {{1, 2}, {2, 9}, {3, 0xff}, {5, 2}, {6, 1}, {9, 2}, {43, 33}, {77, 3}};

    for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        uint8_t kept = text.data[breaks[i].at];
        text.data[breaks[i].at] = breaks[i].byte;
        cr_assert_eq(ask(text.data, text.size, false, NULL), DETECT_OPAQUE, "byte %zu",
                     breaks[i].at);
        text.data[breaks[i].at] = kept;
    }
    uint8_t *name = memmem(text.data, text.size, "example.org", 11);
    cr_assert_not_null(name);
    name[3] = '\0';
    cr_assert_eq(ask(text.data, text.size, false, NULL), DETECT_OPAQUE, "NUL in the name");
}

Test(detect, a_client_hello_beyond_the_bound_is_opaque)
{
    static struct text text;
    struct hello_options options = {"example.org", NULL, LIMIT_HELLO_BYTES, 4096};
    make_hello(&options, &text);
    cr_assert_eq(ask(text.data, text.size, false, NULL), DETECT_OPAQUE);
}

Test(detect, keeps_as_many_protocols_as_fit)
{
    static char list[600];
    for (size_t i = 0; i < 50; i++) {
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%sproto%04zu",
                 i == 0 ? "" : ",", i);
    }
    static struct text text;
    struct hello_options options = {NULL, list, 0, 0};
    struct detect_hello hello;
    make_hello(&options, &text);
    cr_assert_eq(ask(text.data, text.size, false, &hello), DETECT_TLS);
    cr_assert(detect_hello_offers(&hello, BYTES("proto0000")));
    cr_assert(detect_hello_offers(&hello, BYTES("proto0024")));
    cr_assert(!detect_hello_offers(&hello, BYTES("proto0049")));
}

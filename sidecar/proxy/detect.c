/* First bytes to protocol, read once from the front; nothing is remembered between calls. */
#include "proxy/detect.h"

#include <string.h>

#include "http/scan.h"
#include "limits.h"

enum {
    WINDOW_BYTES = 512,
    RECORD_HANDSHAKE = 22,
    RECORD_BYTES_MAX = 1 << 14,
    HANDSHAKE_CLIENT_HELLO = 1,
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_ALPN = 16,
    RANDOM_BYTES = 32,
};

/* Reads forward; once `answer` is something, every read gives zeros and changes nothing. */
struct reader {
    const struct buffer *input;
    struct bytes window;         /* contiguous bytes of the input: its first slice, later `copy` */
    size_t window_from;          /* where in the input the window begins */
    size_t at;                   /* within the window */
    enum detect_protocol answer; /* DETECT_NEEDS_MORE with is_answered false: go on */
    bool is_answered;
    size_t record_left; /* TLS: of the present record */
    size_t hello_left;  /* TLS: of the ClientHello's body */
    uint8_t copy[WINDOW_BYTES];
};

static void answer(struct reader *reader, enum detect_protocol protocol)
{
    if (!reader->is_answered) {
        reader->is_answered = true;
        reader->answer = protocol;
    }
}

static uint8_t take(struct reader *reader)
{
    if (reader->is_answered) {
        return 0;
    }
    if (reader->at == reader->window.size) {
        reader->window_from += reader->window.size;
        size_t left = reader->input->size - reader->window_from;
        size_t size = left < WINDOW_BYTES ? left : WINDOW_BYTES;
        if (size == 0) {
            answer(reader, DETECT_NEEDS_MORE);
            return 0;
        }
        buffer_copy_range(reader->input, reader->window_from, size, reader->copy);
        reader->window = bytes_make(reader->copy, size);
        reader->at = 0;
    }
    return reader->window.data[reader->at++];
}

static void begin(struct reader *reader, const struct buffer *input)
{
    reader->input = input;
    reader->window = buffer_front(input);
    reader->window_from = 0;
    reader->at = 0;
    reader->answer = DETECT_NEEDS_MORE;
    reader->is_answered = false;
    reader->record_left = 0;
    reader->hello_left = 0;
}

/* ---- TLS ---- */

/* A byte of the handshake, over the borders of records (RFC 8446 5.1). */
static uint8_t take_handshake(struct reader *reader)
{
    if (reader->record_left == 0) {
        /* Each is judged as it comes; an answer given already stands. */
        if (take(reader) != RECORD_HANDSHAKE) {
            answer(reader, DETECT_OPAQUE);
        }
        if (take(reader) != 3) {
            answer(reader, DETECT_OPAQUE);
        }
        if (take(reader) > 4) {
            answer(reader, DETECT_OPAQUE);
        }
        size_t size = (size_t)take(reader) << 8;
        size |= take(reader);
        if (size == 0 || size > RECORD_BYTES_MAX) {
            answer(reader, DETECT_OPAQUE);
            return 0;
        }
        reader->record_left = size;
    }
    reader->record_left--;
    return take(reader);
}

/* A number of `size` bytes of the ClientHello's body; *left is what its enclosing part has. */
static size_t take_number(struct reader *reader, size_t size, size_t *left)
{
    if (*left < size) {
        answer(reader, DETECT_OPAQUE);
        return 0;
    }
    *left -= size;
    size_t number = 0;
    for (size_t i = 0; i < size; i++) {
        number = number << 8 | take_handshake(reader);
    }
    return reader->is_answered ? 0 : number;
}

static void skip(struct reader *reader, size_t size, size_t *left)
{
    if (*left < size) {
        answer(reader, DETECT_OPAQUE);
        return;
    }
    *left -= size;
    for (size_t i = 0; i < size && !reader->is_answered; i++) {
        take_handshake(reader);
    }
}

/* RFC 6066 3: one name, of type host_name. */
static void take_server_name(struct reader *reader, size_t left, struct detect_hello *hello)
{
    size_t list = take_number(reader, 2, &left);
    size_t type = take_number(reader, 1, &left);
    size_t size = take_number(reader, 2, &left);
    if (reader->is_answered) {
        return;
    }
    if (list != size + 3 || left != size || type != 0 || size == 0 ||
        size > DETECT_NAME_BYTES_MAX || hello->sni_size != 0) {
        answer(reader, DETECT_OPAQUE);
        return;
    }
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = byte_lower(take_handshake(reader));
        if (!reader->is_answered && !scan_is_target(byte)) {
            answer(reader, DETECT_OPAQUE);
        }
        hello->sni[i] = byte;
    }
    hello->sni_size = (uint8_t)size;
}

/* RFC 7301 3.1. */
static void take_alpn(struct reader *reader, size_t left, struct detect_hello *hello)
{
    if (take_number(reader, 2, &left) != left || hello->alpn_size != 0) {
        answer(reader, DETECT_OPAQUE);
    }
    while (left > 0 && !reader->is_answered) {
        size_t size = take_number(reader, 1, &left);
        if (size == 0 || size > left) {
            answer(reader, DETECT_OPAQUE);
        }
        bool is_kept = hello->alpn_size + 1 + size <= DETECT_ALPN_BYTES_MAX;
        uint8_t *to = hello->alpn + hello->alpn_size;
        if (is_kept) {
            to[0] = (uint8_t)size;
            hello->alpn_size = (uint8_t)(hello->alpn_size + 1 + size);
        }
        for (size_t i = 0; i < size && !reader->is_answered; i++) {
            uint8_t byte = (uint8_t)take_number(reader, 1, &left);
            if (is_kept) {
                to[1 + i] = byte;
            }
        }
    }
}

static void take_extensions(struct reader *reader, struct detect_hello *hello)
{
    size_t *left = &reader->hello_left;
    if (take_number(reader, 2, left) != *left) {
        answer(reader, DETECT_OPAQUE);
    }
    while (*left > 0 && !reader->is_answered) {
        size_t type = take_number(reader, 2, left);
        size_t size = take_number(reader, 2, left);
        if (size > *left) {
            answer(reader, DETECT_OPAQUE);
        }
        if (reader->is_answered) {
            return;
        }
        if (type == EXTENSION_SERVER_NAME) {
            *left -= size;
            take_server_name(reader, size, hello);
        } else if (type == EXTENSION_ALPN) {
            *left -= size;
            take_alpn(reader, size, hello);
        } else {
            skip(reader, size, left);
        }
    }
}

/* RFC 8446 4.1.2; TLS 1.2 and before look the same. */
static void read_client_hello(struct reader *reader, struct detect_hello *hello)
{
    size_t *left = &reader->hello_left;
    if (take_handshake(reader) != HANDSHAKE_CLIENT_HELLO) {
        answer(reader, DETECT_OPAQUE);
    }
    *left = 3;
    *left = take_number(reader, 3, left);
    if (*left > LIMIT_HELLO_BYTES) {
        answer(reader, DETECT_OPAQUE);
    }
    if (take_number(reader, 2, left) >> 8 != 3) {
        answer(reader, DETECT_OPAQUE);
    }
    skip(reader, RANDOM_BYTES, left);
    size_t size = take_number(reader, 1, left); /* session */
    if (size > 32) {
        answer(reader, DETECT_OPAQUE);
    }
    skip(reader, size, left);
    size = take_number(reader, 2, left); /* cipher suites */
    if (size < 2 || size % 2 != 0) {
        answer(reader, DETECT_OPAQUE);
    }
    skip(reader, size, left);
    size = take_number(reader, 1, left); /* compression */
    if (size == 0) {
        answer(reader, DETECT_OPAQUE);
    }
    skip(reader, size, left);
    if (*left > 0) {
        take_extensions(reader, hello);
    }
    answer(reader, DETECT_TLS);
}

/* ---- HTTP ---- */

static void expect(struct reader *reader, const char *text)
{
    for (; *text != '\0' && !reader->is_answered; text++) {
        if (take(reader) != (uint8_t)*text) {
            answer(reader, DETECT_OPAQUE); /* or more is needed, which was said before */
        }
    }
}

/*
 * method SP target SP "HTTP/1.": enough to know who speaks, and no more, so that what is wrong
 * elsewhere in the line is answered with 400 and not passed through.
 */
static void read_request_line(struct reader *reader)
{
    size_t size = 0;
    uint8_t byte = take(reader);
    while (scan_token_table[byte] != 0 && size <= LIMIT_METHOD_BYTES) {
        size++;
        byte = take(reader);
    }
    if (size == 0 || size > LIMIT_METHOD_BYTES || byte != ' ') {
        answer(reader, DETECT_OPAQUE);
    }
    size = 0;
    bool is_path = false;
    byte = take(reader);
    while (byte > ' ' && byte != 0x7f && size <= LIMIT_TARGET_BYTES) {
        is_path = size == 0 ? byte == '/' : is_path;
        size++;
        byte = take(reader);
    }
    if (!reader->is_answered && size > LIMIT_TARGET_BYTES) {
        answer(reader, is_path ? DETECT_HTTP1 : DETECT_OPAQUE); /* which answers 414 */
    }
    if (size == 0 || byte != ' ') {
        answer(reader, DETECT_OPAQUE);
    }
    expect(reader, "HTTP/1.");
    answer(reader, DETECT_HTTP1);
}

enum detect_protocol detect(const struct buffer *input, struct detect_hello *ret_hello)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    uint8_t first[sizeof(preface) - 1];
    size_t size = input->size < sizeof(first) ? input->size : sizeof(first);
    buffer_copy_range(input, 0, size, first);
    if (size == 0) {
        return DETECT_NEEDS_MORE;
    }
    if (memcmp(first, preface, size) == 0) {
        return size == sizeof(first) ? DETECT_HTTP2 : DETECT_NEEDS_MORE;
    }
    struct reader reader;
    begin(&reader, input);
    if (first[0] != RECORD_HANDSHAKE) {
        read_request_line(&reader);
        return reader.answer;
    }
    struct detect_hello hello;
    hello.sni_size = 0;
    hello.alpn_size = 0;
    read_client_hello(&reader, &hello);
    if (reader.answer == DETECT_TLS && ret_hello != NULL) {
        *ret_hello = hello;
    }
    return reader.answer;
}

struct bytes detect_hello_sni(const struct detect_hello *hello)
{
    return bytes_make(hello->sni, hello->sni_size);
}

bool detect_hello_offers(const struct detect_hello *hello, struct bytes protocol)
{
    for (size_t i = 0; i < hello->alpn_size; i += 1u + hello->alpn[i]) {
        if (bytes_equal(bytes_make(hello->alpn + i + 1, hello->alpn[i]), protocol)) {
            return true;
        }
    }
    return false;
}

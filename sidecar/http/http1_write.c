/* One reservation, one pass. Runs of lines that lie unchanged in `wire` are copied as they are. */
#include "http/http1_write.h"

#include "base/check.h"
#include "http/http1.h"
#include "http/http1_parse.h"
#include "http/scan.h"

enum {
    /* What a head has besides its fields: versions, status, Host, Connection, Upgrade, TE, Date,
     * framing, line ends. */
    OWN_BYTES_MAX = 320
};

struct writer {
    const struct message_head *head;
    uint8_t *next;
    const uint8_t *run; /* unchanged lines that are not copied yet; NULL: none */
    const uint8_t *run_end;
    enum http1_framing framing;
    bool is_host_written;
    bool is_length_written;
    bool is_trailers; /* only those of http1_is_trailer */
};

static void put(struct writer *writer, struct bytes bytes)
{
    if (bytes.size > 0) {
        memcpy(writer->next, bytes.data, bytes.size);
        writer->next += bytes.size;
    }
}

static void put_line(struct writer *writer, struct bytes name, struct bytes value)
{
    put(writer, name);
    put(writer, BYTES(": "));
    put(writer, value);
    put(writer, BYTES("\r\n"));
}

static void put_length(struct writer *writer, struct bytes name)
{
    uint8_t digits[20];
    size_t size = bytes_print_decimal(writer->head->content_length, digits);
    put_line(writer, name, bytes_make(digits, size));
}

static void flush_run(struct writer *writer)
{
    if (writer->run != NULL) {
        put(writer, bytes_make(writer->run, (size_t)(writer->run_end - writer->run)));
        writer->run = NULL;
    }
}

/*
 * Is the field a line of `wire`, as it was received: "\nname: value\r\n"? Then its name was found
 * to be a token and need not be looked at again.
 */
static bool is_wire_line(struct bytes wire, const struct message_field *field)
{
    uintptr_t begin = (uintptr_t)wire.data;
    uintptr_t name = (uintptr_t)field->name.data;
    uintptr_t value = (uintptr_t)field->value.data;
    if (wire.data == NULL || name <= begin || value != name + field->name.size + 2 ||
        value + field->value.size + 2 > begin + wire.size) {
        return false;
    }
    const uint8_t *after = field->value.data + field->value.size;
    return field->name.data[-1] == '\n' && field->value.data[-2] == ':' &&
           field->value.data[-1] == ' ' && after[0] == '\r' && after[1] == '\n';
}

static bool put_field(struct writer *writer, const struct message_field *field)
{
    if (!message_is_field_value(field->value)) {
        return false;
    }
    if (is_wire_line(writer->head->wire, field)) {
        if (writer->run == NULL || writer->run_end != field->name.data) {
            flush_run(writer);
            writer->run = field->name.data;
        }
        writer->run_end = field->value.data + field->value.size + 2;
        return true;
    }
    if (!message_is_token(field->name)) {
        return false;
    }
    flush_run(writer);
    put_line(writer, field->name, field->value);
    return true;
}

static bool put_host(struct writer *writer, const struct message_field *field)
{
    if (writer->is_host_written) {
        return true;
    }
    writer->is_host_written = true;
    if (bytes_equal(field->value, writer->head->authority)) {
        return put_field(writer, field);
    }
    flush_run(writer);
    put_line(writer, BYTES("Host"), writer->head->authority);
    return true;
}

/* Content-Length where the sender had it, with what is true now. */
static bool put_length_field(struct writer *writer, const struct message_field *field)
{
    if (writer->is_length_written) {
        return true;
    }
    if (writer->framing == HTTP1_FRAMING_AS_FIELD) {
        writer->is_length_written = true;
        return put_field(writer, field);
    }
    if (writer->framing != HTTP1_FRAMING_LENGTH) {
        return true;
    }
    writer->is_length_written = true;
    uint8_t digits[20];
    size_t size = bytes_print_decimal(writer->head->content_length, digits);
    if (bytes_equal(field->value, bytes_make(digits, size))) {
        return put_field(writer, field);
    }
    flush_run(writer);
    put_length(writer, BYTES("Content-Length"));
    return true;
}

static bool put_any(struct writer *writer, const struct message_field *field)
{
    if (field->is_dropped) {
        return true;
    }
    if (writer->is_trailers) {
        return !http1_is_trailer(field->name) || put_field(writer, field);
    }
    switch ((int)field->known) {
    case MESSAGE_FIELD_OTHER: /* most of them */
        return put_field(writer, field);
    case MESSAGE_FIELD_HOST:
        return writer->head->is_request ? put_host(writer, field) : put_field(writer, field);
    case MESSAGE_FIELD_CONTENT_LENGTH:
        return put_length_field(writer, field);
    default: /* of those of this hop only the flags say what is written instead */
        return message_field_is_of_hop((enum message_field_name)field->known) ||
               put_field(writer, field);
    }
}

/* All fields, then the framing that none of them said. */
static bool put_fields(struct writer *writer)
{
    const struct message_head *head = writer->head;
    for (uint32_t i = 0; i < head->fields_count; i++) {
        if (!put_any(writer, &head->fields[i])) {
            return false;
        }
    }
    flush_run(writer);
    if (writer->framing == HTTP1_FRAMING_CHUNKED) {
        put(writer, BYTES("Transfer-Encoding: chunked\r\n"));
    } else if (writer->framing == HTTP1_FRAMING_LENGTH && !writer->is_length_written) {
        put_length(writer, BYTES("Content-Length"));
    }
    return true;
}

static struct error start(struct writer *writer, struct buffer *out, struct block_source *blocks,
                          const struct message_head *head, size_t *ret_bound)
{
    size_t bound = OWN_BYTES_MAX + head->method.size + head->target.size + head->reason.size +
                   head->authority.size;
    for (uint32_t i = 0; i < head->fields_count; i++) {
        bound += head->fields[i].name.size + head->fields[i].value.size + 4;
    }
    *ret_bound = bound;
    *writer = (struct writer){.head = head};
    return buffer_reserve(out, blocks, bound, &writer->next);
}

/* Count what was written, or nothing when something may not be sent. */
static struct error finish(struct writer *writer, struct buffer *out, const uint8_t *begin,
                           size_t bound, bool is_sound)
{
    if (!is_sound) {
        buffer_commit(out, 0);
        return error_make(ERROR_PROTOCOL, 0);
    }
    size_t size = (size_t)(writer->next - begin);
    CHECK(size <= bound);
    buffer_commit(out, size);
    return OK;
}

static bool is_target(struct bytes text)
{
    return text.size == 0 || scan_target(text.data, text.size) == text.size;
}

static bool put_request(struct writer *writer)
{
    const struct message_head *head = writer->head;
    if (!message_is_token(head->method) || head->target.size == 0 || !is_target(head->target) ||
        !is_target(head->authority)) {
        return false;
    }
    put(writer, head->method);
    put(writer, BYTES(" "));
    put(writer, head->target);
    put(writer, BYTES(" HTTP/1.1\r\n"));
    if (message_find(head, MESSAGE_FIELD_HOST) == NULL) {
        writer->is_host_written = true;
        put_line(writer, BYTES("Host"), head->authority);
    }
    if (!put_fields(writer)) {
        return false;
    }
    if (head->is_upgrade) {
        put(writer, BYTES("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    } else if (head->is_trailers_wanted) {
        put(writer, BYTES("TE: trailers\r\nConnection: TE\r\n")); /* RFC 9110 10.1.4 */
    }
    put(writer, BYTES("\r\n"));
    return true;
}

struct error http1_write_request(struct buffer *out, struct block_source *blocks,
                                 const struct message_head *head, enum http1_framing framing)
{
    struct writer writer;
    size_t bound = 0;
    TRY(start(&writer, out, blocks, head, &bound));
    const uint8_t *begin = writer.next;
    writer.framing = framing;
    bool is_sound = put_request(&writer);
    return finish(&writer, out, begin, bound, is_sound);
}

static bool put_response(struct writer *writer, bool is_close, const char *date)
{
    const struct message_head *head = writer->head;
    struct bytes reason = head->reason.size > 0 ? head->reason : message_reason(head->status);
    if (head->status < 100 || head->status > 599 ||
        scan_value(reason.data, reason.size) != reason.size) {
        return false;
    }
    uint8_t line[] = "HTTP/1.1 000 ";
    line[9] = (uint8_t)('0' + head->status / 100);
    line[10] = (uint8_t)('0' + head->status / 10 % 10);
    line[11] = (uint8_t)('0' + head->status % 10);
    put(writer, bytes_make(line, sizeof(line) - 1));
    put(writer, reason);
    put(writer, BYTES("\r\n"));
    if (!put_fields(writer)) {
        return false;
    }
    if (date != NULL && message_find(head, MESSAGE_FIELD_DATE) == NULL) {
        put_line(writer, BYTES("Date"), bytes_make(date, HTTP1_DATE_BYTES)); /* RFC 9110 6.6.1 */
    }
    if (head->status == 101) {
        put(writer, BYTES("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    } else if (is_close) {
        put(writer, BYTES("Connection: close\r\n"));
    }
    put(writer, BYTES("\r\n"));
    return true;
}

struct error http1_write_response(struct buffer *out, struct block_source *blocks,
                                  const struct message_head *head, enum http1_framing framing,
                                  bool is_close, const char *date)
{
    struct writer writer;
    size_t bound = 0;
    TRY(start(&writer, out, blocks, head, &bound));
    const uint8_t *begin = writer.next;
    writer.framing = framing;
    bool is_sound = put_response(&writer, is_close, date);
    return finish(&writer, out, begin, bound, is_sound);
}

struct error http1_write_trailers(struct buffer *out, struct block_source *blocks,
                                  const struct message_head *trailers)
{
    struct writer writer;
    size_t bound = 0;
    TRY(start(&writer, out, blocks, trailers, &bound));
    const uint8_t *begin = writer.next;
    writer.is_trailers = true;
    put(&writer, BYTES("0\r\n"));
    bool is_sound = put_fields(&writer);
    put(&writer, BYTES("\r\n"));
    return finish(&writer, out, begin, bound, is_sound);
}

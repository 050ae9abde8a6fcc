/*
 * Lines to fields, and chunks' lines: the grammar of RFC 9112 2 to 5 and 7, the strict branch of
 * every choice. What the fields of a head mean together is http1_check.c's.
 */
#include "http/http1_parse.h"

#include "base/check.h"
#include "http/http1_check.h"
#include "http/scan.h"

static const struct {
    uint16_t status;
    const char *text;
} faults[HTTP1_FAULT_COUNT] = {
    [HTTP1_FAULT_NONE] = {0, "none"},
    [HTTP1_FAULT_REQUEST_LINE] = {400, "request line"},
    [HTTP1_FAULT_METHOD_BYTES] = {501, "method too long"},
    [HTTP1_FAULT_TARGET] = {400, "request target"},
    [HTTP1_FAULT_TARGET_BYTES] = {414, "request target too long"},
    [HTTP1_FAULT_VERSION] = {505, "HTTP version"},
    [HTTP1_FAULT_METHOD] = {405, "CONNECT or TRACE"},
    [HTTP1_FAULT_STATUS_LINE] = {502, "status line"},
    [HTTP1_FAULT_FIELD_NAME] = {400, "field name"},
    [HTTP1_FAULT_FIELD_VALUE] = {400, "field value"},
    [HTTP1_FAULT_FIELD_COUNT] = {431, "too many fields"},
    [HTTP1_FAULT_HEAD_BYTES] = {431, "head too long"},
    [HTTP1_FAULT_HEAD_TIME] = {408, "head not complete in time"},
    [HTTP1_FAULT_ALIAS] = {400, "field name with an underscore that stands for another"},
    [HTTP1_FAULT_HOST] = {400, "Host"},
    [HTTP1_FAULT_CONTENT_LENGTH] = {400, "Content-Length"},
    [HTTP1_FAULT_TRANSFER_ENCODING] = {400, "Transfer-Encoding"},
    [HTTP1_FAULT_CODING_UNKNOWN] = {501, "transfer coding"},
    [HTTP1_FAULT_TWO_FRAMINGS] = {400, "Content-Length and Transfer-Encoding"},
    [HTTP1_FAULT_CONNECTION] = {400, "Connection"},
    [HTTP1_FAULT_EXPECT] = {417, "Expect"},
    [HTTP1_FAULT_UPGRADE] = {400, "WebSocket handshake"},
    [HTTP1_FAULT_UPGRADE_VERSION] = {426, "WebSocket version"},
    [HTTP1_FAULT_UPGRADE_BODY] = {400, "Upgrade with content"},
    [HTTP1_FAULT_SWITCH] = {502, "switch of protocols"},
    [HTTP1_FAULT_INTERIM_COUNT] = {502, "too many interim responses"},
    [HTTP1_FAULT_CHUNK] = {400, "chunked coding"},
    [HTTP1_FAULT_TRAILERS] = {400, "trailers"},
    [HTTP1_FAULT_TRUNCATED] = {400, "ended before its end"},
    [HTTP1_FAULT_UNSOLICITED] = {502, "bytes that nobody asked for"},
    [HTTP1_FAULT_REFUSED] = {503, "no exchange to be had"},
};

uint16_t http1_fault_status(enum http1_fault fault)
{
    return faults[fault].status;
}

const char *http1_fault_text(enum http1_fault fault)
{
    return faults[fault].text;
}

/* Where the scan stands. */
struct cursor {
    const uint8_t *next;
    const uint8_t *end;
    struct http1_parsed *parsed;
};

static size_t left(const struct cursor *cursor)
{
    return (size_t)(cursor->end - cursor->next);
}

/* The line that `next` stands in is wrong; which is said once the line is whole. */
static __attribute__((cold, noinline)) enum http1_parse refuse(const struct cursor *cursor,
                                                               enum http1_fault fault)
{
    if (bytes_find(bytes_make(cursor->next, left(cursor)), '\n') == left(cursor)) {
        return HTTP1_PARSE_MORE;
    }
    cursor->parsed->fault = fault;
    return HTTP1_PARSE_BAD;
}

/* CRLF must be next. */
static inline enum http1_parse take_line_end(struct cursor *cursor, enum http1_fault fault)
{
    if (left(cursor) >= 2 && cursor->next[0] == '\r' && cursor->next[1] == '\n') {
        cursor->next += 2;
        return HTTP1_PARSE_DONE;
    }
    return refuse(cursor, fault);
}

/* "HTTP/" DIGIT "." DIGIT; what is not even that gives `fault`. */
static enum http1_parse take_version(struct cursor *cursor, enum http1_fault fault)
{
    const uint8_t *at = cursor->next;
    if (left(cursor) < 8) {
        return refuse(cursor, fault);
    }
    if (memcmp(at, "HTTP/", 5) != 0 || (uint8_t)(at[5] - '0') > 9 || at[6] != '.' ||
        (uint8_t)(at[7] - '0') > 9) {
        return refuse(cursor, fault);
    }
    if (at[5] != '1') {
        return refuse(cursor, fault == HTTP1_FAULT_REQUEST_LINE ? HTTP1_FAULT_VERSION : fault);
    }
    cursor->parsed->head.version = at[7] == '0' ? MESSAGE_HTTP_1_0 : MESSAGE_HTTP_1_1;
    cursor->next += 8;
    return HTTP1_PARSE_DONE;
}

static enum http1_parse take_request_line(struct cursor *cursor)
{
    struct message_head *head = &cursor->parsed->head;
    size_t size = scan_token(cursor->next, left(cursor));
    if (size == left(cursor)) {
        return HTTP1_PARSE_MORE;
    }
    if (size == 0 || cursor->next[size] != ' ') {
        return refuse(cursor, HTTP1_FAULT_REQUEST_LINE);
    }
    if (size > LIMIT_METHOD_BYTES) {
        return refuse(cursor, HTTP1_FAULT_METHOD_BYTES);
    }
    head->method = bytes_make(cursor->next, size);
    cursor->next += size + 1;

    size = scan_target(cursor->next, left(cursor));
    if (size == left(cursor)) {
        return HTTP1_PARSE_MORE;
    }
    if (size == 0 || cursor->next[size] != ' ') {
        return refuse(cursor, HTTP1_FAULT_REQUEST_LINE);
    }
    if (size > LIMIT_TARGET_BYTES) {
        return refuse(cursor, HTTP1_FAULT_TARGET_BYTES);
    }
    head->target = bytes_make(cursor->next, size);
    cursor->next += size + 1;

    enum http1_parse parse = take_version(cursor, HTTP1_FAULT_REQUEST_LINE);
    return parse == HTTP1_PARSE_DONE ? take_line_end(cursor, HTTP1_FAULT_REQUEST_LINE) : parse;
}

/* The space before an empty reason is missing so often that it is not asked for. */
static enum http1_parse take_status_line(struct cursor *cursor)
{
    struct message_head *head = &cursor->parsed->head;
    enum http1_parse parse = take_version(cursor, HTTP1_FAULT_STATUS_LINE);
    if (parse != HTTP1_PARSE_DONE) {
        return parse;
    }
    if (left(cursor) < 5) {
        return refuse(cursor, HTTP1_FAULT_STATUS_LINE);
    }
    uint64_t status = 0;
    struct error error = bytes_parse_decimal(bytes_make(cursor->next + 1, 3), 599, &status);
    if (cursor->next[0] != ' ' || error_is(error) || status < 100 ||
        (cursor->next[4] != ' ' && cursor->next[4] != '\r')) {
        return refuse(cursor, HTTP1_FAULT_STATUS_LINE);
    }
    head->status = (uint16_t)status;
    cursor->next += 4;
    if (cursor->next[0] == ' ') {
        cursor->next++;
    }
    size_t size = scan_value(cursor->next, left(cursor));
    head->reason = bytes_make(cursor->next, size);
    cursor->next += size;
    return take_line_end(cursor, HTTP1_FAULT_STATUS_LINE);
}

/*
 * Would a peer that maps "-" to "_" read this name as one of those that frame the message or that
 * we set (reliability D3)? No such name begins with anything but c, t or x.
 */
static bool is_alias(struct bytes name)
{
    uint8_t first = (uint8_t)(name.data[0] | 0x20);
    if ((first != 'c' && first != 't' && first != 'x') || name.size < 11 || name.size > 64 ||
        bytes_find(name, '_') == name.size) {
        return false;
    }
    uint8_t dashed[64];
    for (size_t i = 0; i < name.size; i++) {
        dashed[i] = name.data[i] == '_' ? '-' : byte_lower(name.data[i]);
    }
    struct bytes meant = bytes_make(dashed, name.size);
    return bytes_equal(meant, BYTES("content-length")) ||
           bytes_equal(meant, BYTES("transfer-encoding")) ||
           bytes_equal(meant, BYTES("x-request-id")) ||
           bytes_starts_with(meant, BYTES("x-forwarded-"));
}

/* One field line into `field`, whose name and value are set. */
static enum http1_parse take_field_line(struct cursor *cursor, struct message_field *field)
{
    size_t size = scan_token(cursor->next, left(cursor));
    if (size == left(cursor)) {
        return HTTP1_PARSE_MORE;
    }
    if (size == 0 || cursor->next[size] != ':') {
        return refuse(cursor, HTTP1_FAULT_FIELD_NAME); /* obs-fold and space before colon too */
    }
    field->name = bytes_make(cursor->next, size);
    cursor->next += size + 1;
    while (left(cursor) > 0 && (*cursor->next == ' ' || *cursor->next == '\t')) {
        cursor->next++;
    }
    size = scan_value(cursor->next, left(cursor));
    const uint8_t *value = cursor->next;
    cursor->next += size;
    enum http1_parse parse = take_line_end(cursor, HTTP1_FAULT_FIELD_VALUE);
    while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t')) {
        size--;
    }
    field->value = bytes_make(value, size);
    return parse;
}

/* Field lines up to the empty line, at most `count_max` with `bytes_max` bytes and 32 for each. */
static enum http1_parse take_fields(struct cursor *cursor, uint32_t count_max, size_t bytes_max)
{
    struct http1_parsed *parsed = cursor->parsed;
    struct message_head *head = &parsed->head;
    size_t total = 0;
    while (true) {
        if (left(cursor) > 0 && *cursor->next == '\r') {
            return take_line_end(cursor, HTTP1_FAULT_FIELD_NAME);
        }
        struct message_field line;
        enum http1_parse parse = take_field_line(cursor, &line);
        if (parse != HTTP1_PARSE_DONE) {
            return parse;
        }
        total += line.name.size + line.value.size + 32;
        if (head->fields_count == count_max || total > bytes_max) {
            parsed->fault = total > bytes_max ? HTTP1_FAULT_HEAD_BYTES : HTTP1_FAULT_FIELD_COUNT;
            return HTTP1_PARSE_BAD;
        }
        enum message_field_name known = message_field_known(line.name);
        line.known = (uint8_t)known;
        line.is_dropped = false;
        head->fields[head->fields_count++] = line;
        if (known != MESSAGE_FIELD_OTHER) {
            if (head->known[known] != 0) {
                parsed->duplicates |= 1u << known;
            } else {
                head->known[known] = (uint16_t)head->fields_count;
            }
        } else if (is_alias(line.name)) {
            parsed->fault = HTTP1_FAULT_ALIAS;
            return HTTP1_PARSE_BAD;
        }
    }
}

static void begin(struct cursor *cursor, struct bytes data, struct http1_parsed *parsed)
{
    parsed->head = (struct message_head){
        .fields = parsed->fields, .fields_capacity = LIMIT_FIELDS, .scheme = BYTES("http")};
    parsed->size = 0;
    parsed->duplicates = 0;
    parsed->fault = HTTP1_FAULT_NONE;
    parsed->is_line_done = false;
    parsed->is_path_empty = false;
    *cursor = (struct cursor){data.data, data.data + data.size, parsed};
}

/* The end of a head that was read whole. */
static enum http1_parse conclude(struct cursor *cursor, struct bytes data, enum http1_fault fault)
{
    struct http1_parsed *parsed = cursor->parsed;
    parsed->size = (size_t)(cursor->next - data.data);
    if (fault == HTTP1_FAULT_NONE && parsed->size > LIMIT_HEAD_BYTES) {
        fault = HTTP1_FAULT_HEAD_BYTES;
    }
    parsed->fault = fault;
    return fault == HTTP1_FAULT_NONE ? HTTP1_PARSE_DONE : HTTP1_PARSE_BAD;
}

enum http1_parse http1_parse_request(struct bytes data, struct http1_parsed *ret_parsed)
{
    struct cursor cursor;
    begin(&cursor, data, ret_parsed);
    enum http1_parse parse = take_request_line(&cursor);
    if (parse != HTTP1_PARSE_DONE) {
        return parse;
    }
    ret_parsed->is_line_done = true;
    parse = take_fields(&cursor, LIMIT_FIELDS, LIMIT_HEAD_BYTES);
    return parse == HTTP1_PARSE_DONE ? conclude(&cursor, data, http1_check_request(ret_parsed))
                                     : parse;
}

enum http1_parse http1_parse_response(struct bytes data, bool is_head_request, bool is_upgrade,
                                      struct http1_parsed *ret_parsed)
{
    struct cursor cursor;
    begin(&cursor, data, ret_parsed);
    enum http1_parse parse = take_status_line(&cursor);
    if (parse != HTTP1_PARSE_DONE) {
        return parse;
    }
    ret_parsed->is_line_done = true;
    parse = take_fields(&cursor, LIMIT_FIELDS, LIMIT_HEAD_BYTES);
    if (parse != HTTP1_PARSE_DONE) {
        return parse;
    }
    return conclude(&cursor, data, http1_check_response(ret_parsed, is_head_request, is_upgrade));
}

/* ---- Trailers and chunked coding ---- */

bool http1_is_trailer(struct bytes name)
{
    switch (message_field_known(name)) {
    case MESSAGE_FIELD_AUTHORIZATION:
    case MESSAGE_FIELD_CONNECTION:
    case MESSAGE_FIELD_CONTENT_LENGTH:
    case MESSAGE_FIELD_CONTENT_TYPE:
    case MESSAGE_FIELD_COOKIE:
    case MESSAGE_FIELD_EXPECT:
    case MESSAGE_FIELD_HOST:
    case MESSAGE_FIELD_KEEP_ALIVE:
    case MESSAGE_FIELD_MAX_FORWARDS:
    case MESSAGE_FIELD_PROXY_CONNECTION:
    case MESSAGE_FIELD_TE:
    case MESSAGE_FIELD_TRAILER:
    case MESSAGE_FIELD_TRANSFER_ENCODING:
    case MESSAGE_FIELD_UPGRADE:
    case MESSAGE_FIELD_X_FORWARDED_CLIENT_CERT:
    case MESSAGE_FIELD_X_REQUEST_ID:
        return false;
    case MESSAGE_FIELD_OTHER:
    case MESSAGE_FIELD_ACCESS_CONTROL_REQUEST_METHOD:
    case MESSAGE_FIELD_DATE:
    case MESSAGE_FIELD_ORIGIN:
    case MESSAGE_FIELD_VIA:
    case MESSAGE_FIELD_NAME_COUNT:
        break;
    }
    return !bytes_equal_nocase(bytes_first(name, 12), BYTES("x-forwarded-")) &&
           !bytes_equal_nocase(name, BYTES("proxy-authorization")) &&
           !bytes_equal_nocase(name, BYTES("set-cookie"));
}

static bool is_named_by(const struct bytes *named, uint32_t named_count, struct bytes name)
{
    for (uint32_t i = 0; i < named_count; i++) {
        struct bytes list = named[i];
        while (list.data != NULL) {
            if (bytes_equal_nocase(bytes_trim(bytes_split(&list, ',')), name)) {
                return true;
            }
        }
    }
    return false;
}

enum http1_parse http1_parse_trailers(struct bytes data, const struct bytes *named,
                                      uint32_t named_count, struct http1_parsed *ret_parsed)
{
    struct cursor cursor;
    begin(&cursor, data, ret_parsed);
    enum http1_parse parse = take_fields(&cursor, LIMIT_TRAILER_FIELDS, LIMIT_TRAILER_BYTES);
    if (parse == HTTP1_PARSE_BAD) {
        ret_parsed->fault = HTTP1_FAULT_TRAILERS;
    }
    if (parse != HTTP1_PARSE_DONE) {
        return parse;
    }
    for (uint32_t i = 0; i < ret_parsed->head.fields_count; i++) {
        struct message_field *field = &ret_parsed->fields[i];
        field->is_dropped =
            !http1_is_trailer(field->name) || is_named_by(named, named_count, field->name);
    }
    return conclude(&cursor, data, HTTP1_FAULT_NONE);
}

static int hex_value(uint8_t byte)
{
    if ((uint8_t)(byte - '0') < 10) {
        return byte - '0';
    }
    uint8_t letter = (uint8_t)(byte_lower(byte) - 'a');
    return letter < 6 ? letter + 10 : -1;
}

static size_t skip_space(struct bytes line, size_t i)
{
    while (i < line.size && (line.data[i] == ' ' || line.data[i] == '\t')) {
        i++;
    }
    return i;
}

/* Index behind a quoted string that begins at `i`, or 0 when it does not end. */
static size_t skip_quoted(struct bytes line, size_t i)
{
    for (i++; i < line.size; i++) {
        if (line.data[i] == '"') {
            return i + 1;
        }
        if (line.data[i] == '\\') {
            i++;
        }
    }
    return 0;
}

/* *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] ), RFC 9112 7.1.1. */
static bool is_extensions(struct bytes line)
{
    size_t i = 0;
    while (i < line.size) {
        i = skip_space(line, i);
        if (i == line.size || line.data[i] != ';') {
            return false;
        }
        i = skip_space(line, i + 1);
        size_t size = scan_token(line.data + i, line.size - i);
        if (size == 0) {
            return false;
        }
        i += size;
        size_t after = skip_space(line, i);
        if (after == line.size || line.data[after] != '=') {
            continue;
        }
        i = skip_space(line, after + 1);
        if (i < line.size && line.data[i] == '"') {
            i = skip_quoted(line, i);
            size = i;
        } else {
            size = scan_token(line.data + i, line.size - i);
            i += size;
        }
        if (size == 0) {
            return false;
        }
    }
    return true;
}

bool http1_parse_chunk_line(struct bytes line, uint64_t *ret_size, size_t *ret_extension_bytes)
{
    if (line.data == NULL) {
        return false;
    }
    uint64_t size = 0;
    size_t digits = 0;
    while (digits < line.size && hex_value(line.data[digits]) >= 0) {
        if (digits == LIMIT_CHUNK_SIZE_DIGITS) {
            return false;
        }
        size = size << 4 | (uint64_t)hex_value(line.data[digits]);
        digits++;
    }
    struct bytes extensions = bytes_make(line.data + digits, line.size - digits);
    if (digits == 0) {
        return false;
    }
    if (extensions.size > 0 && (extensions.size > LIMIT_CHUNK_EXTENSION_BYTES ||
                                scan_value(extensions.data, extensions.size) != extensions.size ||
                                !is_extensions(extensions))) {
        return false;
    }
    *ret_size = size;
    *ret_extension_bytes = extensions.size;
    return true;
}

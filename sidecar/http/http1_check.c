/*
 * What the fields of a head mean together: target and authority, framing, Expect, Upgrade,
 * Connection (RFC 9112 3, 6 and 9; RFC 9110 7 and 10). The strict branch of every choice, because
 * what two parsers could read in two ways is how requests are smuggled.
 */
#include "http/http1_check.h"

#include "http/scan.h"
#include "http/websocket.h"

static bool is_twice(const struct http1_parsed *parsed, enum message_field_name name)
{
    return (parsed->duplicates & (1u << name)) != 0;
}

/* Is `token` an element of any line of that name? */
static bool has_token(const struct message_head *head, enum message_field_name name,
                      struct bytes token)
{
    if (head->known[name] == 0) {
        return false;
    }
    for (uint32_t i = head->known[name] - 1u; i < head->fields_count; i++) {
        struct bytes list = head->fields[i].value;
        while (head->fields[i].known == name && list.data != NULL) {
            if (bytes_equal_nocase(bytes_trim(bytes_split(&list, ',')), token)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- Host and target ---- */

static bool is_host_byte(uint8_t byte)
{
    /* reg-name of RFC 3986 3.2.2 without the comma, which joins lists. */
    return scan_token_table[byte] != 0 ? byte != '#' && byte != '^' && byte != '`' && byte != '|'
                                       : byte == '(' || byte == ')' || byte == ';' || byte == '=';
}

static bool is_ipv6_byte(uint8_t byte)
{
    return (uint8_t)(byte - '0') < 10 || (uint8_t)(byte_lower(byte) - 'a') < 6 || byte == ':' ||
           byte == '.';
}

/* host [":" port], not empty. */
static bool is_authority(struct bytes text)
{
    size_t i = 0;
    if (text.size > 0 && text.data[0] == '[') {
        i = 1;
        while (i < text.size && is_ipv6_byte(text.data[i])) {
            i++;
        }
        if (i < 3 || i == text.size || text.data[i] != ']') {
            return false;
        }
        i++;
    } else {
        while (i < text.size && is_host_byte(text.data[i])) {
            i++;
        }
    }
    if (i == 0 || i == text.size) {
        return i > 0;
    }
    struct bytes port = bytes_skip(text, i);
    uint64_t number = 0;
    return port.data[0] == ':' &&
           (port.size == 1 || !error_is(bytes_parse_decimal(bytes_skip(port, 1), 65535, &number)));
}

/* The authority without the port that its scheme implies. */
static struct bytes without_default_port(struct bytes authority, struct bytes scheme)
{
    struct bytes suffix = scheme.size == 5 ? BYTES(":443") : BYTES(":80");
    if (authority.size > suffix.size &&
        bytes_equal(bytes_skip(authority, authority.size - suffix.size), suffix)) {
        return bytes_first(authority, authority.size - suffix.size);
    }
    if (authority.size > 1 && authority.data[authority.size - 1] == ':') {
        return bytes_first(authority, authority.size - 1);
    }
    return authority;
}

/* http://authority[/path][?query] to its parts (RFC 9112 3.2.2). */
static enum http1_fault split_absolute(struct http1_parsed *parsed, struct bytes host)
{
    struct message_head *head = &parsed->head;
    struct bytes rest = head->target;
    if (bytes_equal_nocase(bytes_first(rest, 7), BYTES("http://"))) {
        rest = bytes_skip(rest, 7);
    } else if (bytes_equal_nocase(bytes_first(rest, 8), BYTES("https://"))) {
        rest = bytes_skip(rest, 8);
        head->scheme = BYTES("https");
    } else {
        return HTTP1_FAULT_TARGET;
    }
    size_t size = 0;
    while (size < rest.size && rest.data[size] != '/' && rest.data[size] != '?') {
        size++;
    }
    head->authority = bytes_first(rest, size);
    head->target = bytes_skip(rest, size);
    if (!is_authority(head->authority)) {
        return HTTP1_FAULT_TARGET;
    }
    if (host.size > 0 && !bytes_equal_nocase(without_default_port(host, head->scheme),
                                             without_default_port(head->authority, head->scheme))) {
        return HTTP1_FAULT_HOST; /* A15: two readers would route it to two places */
    }
    if (head->target.size == 0) {
        /* RFC 9112 3.2.4 */
        head->target = bytes_equal(head->method, BYTES("OPTIONS")) ? BYTES("*") : BYTES("/");
    } else if (head->target.data[0] == '?') {
        parsed->is_path_empty = true;
    }
    return HTTP1_FAULT_NONE;
}

static enum http1_fault check_target(struct http1_parsed *parsed)
{
    struct message_head *head = &parsed->head;
    const struct message_field *field = message_find(head, MESSAGE_FIELD_HOST);
    if (field == NULL && head->version != MESSAGE_HTTP_1_0) {
        return HTTP1_FAULT_HOST;
    }
    if (is_twice(parsed, MESSAGE_FIELD_HOST) || (field != NULL && !is_authority(field->value))) {
        return HTTP1_FAULT_HOST;
    }
    struct bytes host = field == NULL ? (struct bytes){0} : field->value;
    if (head->target.data[0] == '/') {
        head->authority = host;
        return HTTP1_FAULT_NONE;
    }
    if (bytes_equal(head->target, BYTES("*"))) {
        head->authority = host;
        return bytes_equal(head->method, BYTES("OPTIONS")) ? HTTP1_FAULT_NONE : HTTP1_FAULT_TARGET;
    }
    return split_absolute(parsed, host);
}

/* ---- Framing ---- */

/* Transfer-Encoding other than one "chunked": which fault it is (A2). */
static enum http1_fault refuse_coding(struct bytes list)
{
    bool is_last_chunked = false;
    uint32_t others = 0;
    while (list.data != NULL) {
        struct bytes coding = bytes_trim(bytes_split(&list, ','));
        if (is_last_chunked || !message_is_token(coding)) {
            return HTTP1_FAULT_TRANSFER_ENCODING;
        }
        is_last_chunked = bytes_equal_nocase(coding, BYTES("chunked"));
        others += is_last_chunked ? 0 : 1;
    }
    return is_last_chunked && others > 0 ? HTTP1_FAULT_CODING_UNKNOWN
                                         : HTTP1_FAULT_TRANSFER_ENCODING;
}

static bool parse_content_length(struct bytes value, uint64_t *ret_length)
{
    if (value.size > 1 && value.data[0] == '0') {
        return false;
    }
    return !error_is(bytes_parse_decimal(value, INT64_MAX, ret_length));
}

/* RFC 9112 6.3, as far as requests and responses share it; neither field leaves `body` alone. */
static enum http1_fault check_framing(struct http1_parsed *parsed)
{
    struct message_head *head = &parsed->head;
    const struct message_field *length = message_find(head, MESSAGE_FIELD_CONTENT_LENGTH);
    const struct message_field *encoding = message_find(head, MESSAGE_FIELD_TRANSFER_ENCODING);
    if (length != NULL) {
        if (is_twice(parsed, MESSAGE_FIELD_CONTENT_LENGTH) ||
            !parse_content_length(length->value, &head->content_length)) {
            return HTTP1_FAULT_CONTENT_LENGTH;
        }
        head->body = MESSAGE_BODY_LENGTH;
    }
    if (encoding != NULL) {
        if (length != NULL) {
            return HTTP1_FAULT_TWO_FRAMINGS;
        }
        if (head->version == MESSAGE_HTTP_1_0 ||
            is_twice(parsed, MESSAGE_FIELD_TRANSFER_ENCODING)) {
            return HTTP1_FAULT_TRANSFER_ENCODING;
        }
        if (!bytes_equal_nocase(encoding->value, BYTES("chunked"))) {
            return refuse_coding(encoding->value);
        }
        head->body = MESSAGE_BODY_CHUNKED;
    }
    return HTTP1_FAULT_NONE;
}

/* ---- Connection, Expect, Upgrade ---- */

static enum http1_fault check_expect(struct message_head *head, const struct http1_parsed *parsed)
{
    if (head->known[MESSAGE_FIELD_EXPECT] == 0) {
        return HTTP1_FAULT_NONE;
    }
    if (head->version == MESSAGE_HTTP_1_0) {
        message_remove(head, BYTES("expect")); /* RFC 9110 10.1.1: ignored, so not passed on */
        return HTTP1_FAULT_NONE;
    }
    const struct message_field *field = message_find(head, MESSAGE_FIELD_EXPECT);
    if (is_twice(parsed, MESSAGE_FIELD_EXPECT) || field == NULL ||
        !bytes_equal_nocase(field->value, BYTES("100-continue"))) {
        return HTTP1_FAULT_EXPECT;
    }
    head->is_expect_continue = head->body == MESSAGE_BODY_CHUNKED ||
                               (head->body == MESSAGE_BODY_LENGTH && head->content_length > 0);
    return HTTP1_FAULT_NONE;
}

/* What the Upgrade fields ask for. */
struct upgrade {
    bool is_websocket;
    bool is_h2c;
    bool is_other;
};

static struct upgrade read_upgrade(const struct message_head *head)
{
    struct upgrade upgrade = {0};
    for (uint32_t i = head->known[MESSAGE_FIELD_UPGRADE] - 1u; i < head->fields_count; i++) {
        struct bytes list = head->fields[i].value;
        while (head->fields[i].known == MESSAGE_FIELD_UPGRADE && list.data != NULL) {
            struct bytes token = bytes_trim(bytes_split(&list, ','));
            if (bytes_equal_nocase(token, BYTES("websocket"))) {
                upgrade.is_websocket = true;
            } else if (bytes_equal_nocase(token, BYTES("h2c")) ||
                       bytes_equal_nocase(token, BYTES("h2"))) {
                upgrade.is_h2c = true;
            } else if (token.size > 0) {
                upgrade.is_other = true;
            }
        }
    }
    return upgrade;
}

/*
 * E1 to E5. Only WebSocket is passed on. Whoever offers HTTP/2 beside it is answered in HTTP/1.1:
 * no WebSocket client does that, and a smuggler does.
 */
static enum http1_fault check_upgrade(struct message_head *head)
{
    if (head->known[MESSAGE_FIELD_UPGRADE] == 0 || head->version == MESSAGE_HTTP_1_0) {
        return HTTP1_FAULT_NONE;
    }
    struct upgrade upgrade = read_upgrade(head);
    if (upgrade.is_h2c) {
        message_remove(head, BYTES("http2-settings"));
    }
    bool has_body = head->body == MESSAGE_BODY_CHUNKED || head->content_length > 0;
    if ((upgrade.is_websocket || upgrade.is_other) && has_body) {
        return HTTP1_FAULT_UPGRADE_BODY;
    }
    if (!upgrade.is_websocket || upgrade.is_h2c) {
        return HTTP1_FAULT_NONE;
    }
    const struct message_field *version = message_find_name(head, BYTES("sec-websocket-version"));
    const struct message_field *key = message_find_name(head, BYTES("sec-websocket-key"));
    if (!bytes_equal(head->method, BYTES("GET")) ||
        !has_token(head, MESSAGE_FIELD_CONNECTION, BYTES("upgrade")) || key == NULL ||
        !websocket_is_key(key->value) || version == NULL) {
        return HTTP1_FAULT_UPGRADE;
    }
    if (!bytes_equal(version->value, BYTES("13"))) {
        return HTTP1_FAULT_UPGRADE_VERSION;
    }
    head->is_upgrade = true;
    return HTTP1_FAULT_NONE;
}

/* The rest of the flags, while the fields that they come from are not dropped yet. */
static enum http1_fault check_connection(struct message_head *head)
{
    bool is_named = head->known[MESSAGE_FIELD_CONNECTION] != 0;
    head->is_keep_alive = head->version == MESSAGE_HTTP_1_1;
    if (is_named) {
        if (has_token(head, MESSAGE_FIELD_CONNECTION, BYTES("close"))) {
            head->is_keep_alive = false;
        } else if (has_token(head, MESSAGE_FIELD_CONNECTION, BYTES("keep-alive"))) {
            head->is_keep_alive = true;
        }
    }
    const struct message_field *type = message_find(head, MESSAGE_FIELD_CONTENT_TYPE);
    struct bytes grpc = BYTES("application/grpc");
    head->is_grpc = type != NULL && bytes_equal_nocase(bytes_first(type->value, grpc.size), grpc);
    head->is_trailers_wanted = has_token(head, MESSAGE_FIELD_TE, BYTES("trailers"));
    if (is_named || head->known[MESSAGE_FIELD_TE] != 0 || head->known[MESSAGE_FIELD_UPGRADE] != 0 ||
        head->known[MESSAGE_FIELD_TRANSFER_ENCODING] != 0 ||
        head->known[MESSAGE_FIELD_KEEP_ALIVE] != 0 ||
        head->known[MESSAGE_FIELD_PROXY_CONNECTION] != 0) {
        return error_is(message_remove_hop_by_hop(head)) ? HTTP1_FAULT_CONNECTION
                                                         : HTTP1_FAULT_NONE;
    }
    return HTTP1_FAULT_NONE;
}

/* ---- Requests ---- */

enum http1_fault http1_check_request(struct http1_parsed *parsed)
{
    struct message_head *head = &parsed->head;
    head->is_request = true;
    if (bytes_equal(head->method, BYTES("CONNECT")) || bytes_equal(head->method, BYTES("TRACE"))) {
        return HTTP1_FAULT_METHOD; /* E6, D6 */
    }
    head->is_head_request = bytes_equal(head->method, BYTES("HEAD"));
    enum http1_fault fault = check_target(parsed);
    if (fault == HTTP1_FAULT_NONE) {
        fault = check_framing(parsed);
    }
    if (fault == HTTP1_FAULT_NONE) {
        fault = check_expect(head, parsed);
    }
    if (fault == HTTP1_FAULT_NONE) {
        fault = check_upgrade(head);
    }
    return fault == HTTP1_FAULT_NONE ? check_connection(head) : fault;
}

/* ---- Responses ---- */

/* F3: a 101 that was asked for names what was asked for. */
static enum http1_fault check_switch(struct message_head *head, bool is_upgrade)
{
    if (!is_upgrade || head->version == MESSAGE_HTTP_1_0 ||
        head->known[MESSAGE_FIELD_UPGRADE] == 0 ||
        !has_token(head, MESSAGE_FIELD_CONNECTION, BYTES("upgrade"))) {
        return HTTP1_FAULT_SWITCH;
    }
    struct upgrade upgrade = read_upgrade(head);
    if (!upgrade.is_websocket || upgrade.is_h2c || upgrade.is_other) {
        return HTTP1_FAULT_SWITCH;
    }
    head->is_upgrade = true;
    head->body = MESSAGE_BODY_TUNNEL;
    head->content_length = 0;
    return HTTP1_FAULT_NONE;
}

enum http1_fault http1_check_response(struct http1_parsed *parsed, bool is_head_request,
                                      bool is_upgrade)
{
    struct message_head *head = &parsed->head;
    head->body = MESSAGE_BODY_UNTIL_CLOSE;
    enum http1_fault fault = check_framing(parsed);
    if (fault != HTTP1_FAULT_NONE) {
        return fault;
    }
    if (head->status == 101) {
        fault = check_switch(head, is_upgrade);
        if (fault != HTTP1_FAULT_NONE) {
            return fault;
        }
    } else if (is_head_request || head->status < 200 || head->status == 204 ||
               head->status == 304) {
        head->body = MESSAGE_BODY_NONE;
        head->content_length = 0;
    }
    if (head->status < 200 || head->status == 204) {
        message_remove(head, BYTES("content-length")); /* RFC 9110 8.6 */
    }
    fault = check_connection(head);
    head->is_keep_alive = head->is_keep_alive && head->body != MESSAGE_BODY_UNTIL_CLOSE;
    return fault;
}

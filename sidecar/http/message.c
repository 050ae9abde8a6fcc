/* Fields of a head: known names, changes, hop-by-hop rules. */
#include "http/message.h"

#include "base/check.h"
#include "http/scan.h"
#include "limits.h"

/* clang-format off */
const uint8_t scan_token_table[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 0x00 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 0x10 */
    0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0, /* 0x20 */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, /* 0x30 */
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* 0x40 */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, /* 0x50 */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* 0x60 */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0, /* 0x70 */
};

/* clang-format on */

struct known_name {
    const char *name; /* lower case, letters and "-" only */
    enum message_field_name known;
};

/* Sorted by length; of one length at most three. */
static const struct known_name known_names[] = {
    {"te", MESSAGE_FIELD_TE},
    {"via", MESSAGE_FIELD_VIA},
    {"host", MESSAGE_FIELD_HOST},
    {"date", MESSAGE_FIELD_DATE},
    {"cookie", MESSAGE_FIELD_COOKIE},
    {"expect", MESSAGE_FIELD_EXPECT},
    {"origin", MESSAGE_FIELD_ORIGIN},
    {"trailer", MESSAGE_FIELD_TRAILER},
    {"upgrade", MESSAGE_FIELD_UPGRADE},
    {"connection", MESSAGE_FIELD_CONNECTION},
    {"keep-alive", MESSAGE_FIELD_KEEP_ALIVE},
    {"content-type", MESSAGE_FIELD_CONTENT_TYPE},
    {"max-forwards", MESSAGE_FIELD_MAX_FORWARDS},
    {"x-request-id", MESSAGE_FIELD_X_REQUEST_ID},
    {"authorization", MESSAGE_FIELD_AUTHORIZATION},
    {"content-length", MESSAGE_FIELD_CONTENT_LENGTH},
    {"proxy-connection", MESSAGE_FIELD_PROXY_CONNECTION},
    {"transfer-encoding", MESSAGE_FIELD_TRANSFER_ENCODING},
    {"x-forwarded-client-cert", MESSAGE_FIELD_X_FORWARDED_CLIENT_CERT},
    {"access-control-request-method", MESSAGE_FIELD_ACCESS_CONTROL_REQUEST_METHOD},
};

enum {
    KNOWN_BYTES_MAX = 29
};

/* By length: the index of the first known name plus one, and how many there are. */
static const struct {
    uint8_t first;
    uint8_t count;
} known_by_size[KNOWN_BYTES_MAX + 1] = {
    [2] = {1, 1},   [3] = {2, 1},   [4] = {3, 2},   [6] = {5, 3},   [7] = {8, 2},
    [10] = {10, 2}, [12] = {12, 3}, [13] = {15, 1}, [14] = {16, 1}, [16] = {17, 1},
    [17] = {18, 1}, [23] = {19, 1}, [29] = {20, 1},
};

/*
 * `lower` consists of letters and "-", both of which have bit 5 set; a byte of a token that differs
 * from one of them in bit 5 only is the capital letter.
 */
static bool is_name(const uint8_t *data, const char *lower, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((data[i] | 0x20) != (uint8_t)lower[i]) {
            return false;
        }
    }
    return true;
}

enum message_field_name message_field_known(struct bytes name)
{
    if (name.size > KNOWN_BYTES_MAX || known_by_size[name.size].count == 0) {
        return MESSAGE_FIELD_OTHER;
    }
    size_t first = known_by_size[name.size].first - 1u;
    for (size_t i = first; i < first + known_by_size[name.size].count; i++) {
        if ((name.data[0] | 0x20) == (uint8_t)known_names[i].name[0] &&
            is_name(name.data, known_names[i].name, name.size)) {
            return known_names[i].known;
        }
    }
    return MESSAGE_FIELD_OTHER;
}

const struct message_field *message_find(const struct message_head *head,
                                         enum message_field_name name)
{
    CHECK(name > MESSAGE_FIELD_OTHER && name < MESSAGE_FIELD_NAME_COUNT);
    if (head->known[name] == 0) {
        return NULL;
    }
    for (uint32_t i = head->known[name] - 1u; i < head->fields_count; i++) {
        if (head->fields[i].known == name && !head->fields[i].is_dropped) {
            return &head->fields[i];
        }
    }
    return NULL;
}

struct message_field *message_find_name(struct message_head *head, struct bytes name)
{
    for (uint32_t i = 0; i < head->fields_count; i++) {
        struct message_field *field = &head->fields[i];
        if (!field->is_dropped && bytes_equal_nocase(field->name, name)) {
            return field;
        }
    }
    return NULL;
}

static struct error reserve_field(struct message_head *head, struct arena *arena)
{
    if (head->fields_count < head->fields_capacity) {
        return OK;
    }
    if (head->fields_count >= LIMIT_FIELDS_SENT) {
        return error_make(ERROR_LIMIT, 0);
    }
    uint32_t capacity = head->fields_capacity < 4 ? 8 : head->fields_capacity * 2;
    struct message_field *fields = arena_alloc(arena, capacity * sizeof(*fields));
    if (fields == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    if (head->fields_count > 0) {
        memcpy(fields, head->fields, head->fields_count * sizeof(*fields));
    }
    head->fields = fields;
    head->fields_capacity = capacity;
    return OK;
}

struct error message_add(struct message_head *head, struct arena *arena, struct bytes name,
                         struct bytes value)
{
    TRY(reserve_field(head, arena));
    enum message_field_name known = message_field_known(name);
    head->fields[head->fields_count] =
        (struct message_field){.name = name, .value = value, .known = (uint8_t)known};
    head->fields_count++;
    if (known != MESSAGE_FIELD_OTHER && head->known[known] == 0) {
        head->known[known] = (uint16_t)head->fields_count;
    }
    return OK;
}

struct error message_set(struct message_head *head, struct arena *arena, struct bytes name,
                         struct bytes value)
{
    struct message_field *first = message_find_name(head, name);
    if (first == NULL) {
        return message_add(head, arena, name, value);
    }
    for (struct message_field *field = first + 1; field < head->fields + head->fields_count;
         field++) {
        field->is_dropped = field->is_dropped || bytes_equal_nocase(field->name, name);
    }
    first->name = name;
    first->value = value;
    return OK;
}

void message_remove(struct message_head *head, struct bytes name)
{
    for (uint32_t i = 0; i < head->fields_count; i++) {
        if (bytes_equal_nocase(head->fields[i].name, name)) {
            head->fields[i].is_dropped = true;
        }
    }
}

/* Fields that a peer may not have us drop by naming them in Connection (reliability D2). */
static bool is_protected(struct bytes token)
{
    switch ((int)message_field_known(token)) {
    case MESSAGE_FIELD_HOST:
    case MESSAGE_FIELD_CONTENT_LENGTH:
    case MESSAGE_FIELD_TRANSFER_ENCODING:
    case MESSAGE_FIELD_COOKIE:
    case MESSAGE_FIELD_AUTHORIZATION:
    case MESSAGE_FIELD_X_REQUEST_ID:
        return true;
    default:
        return bytes_equal_nocase(bytes_first(token, 12), BYTES("x-forwarded-"));
    }
}

/* Connection options that are no names of other fields. */
static bool is_option(struct bytes token)
{
    return bytes_equal_nocase(token, BYTES("close")) ||
           bytes_equal_nocase(token, BYTES("keep-alive")) ||
           bytes_equal_nocase(token, BYTES("upgrade")) || bytes_equal_nocase(token, BYTES("te"));
}

static struct error drop_named(struct message_head *head, struct bytes list, unsigned *tokens)
{
    while (list.data != NULL) {
        struct bytes token = bytes_trim(bytes_split(&list, ','));
        if (token.size == 0) {
            continue; /* RFC 9110 5.6.1: empty elements of a list are nothing */
        }
        (*tokens)++;
        if (*tokens > LIMIT_CONNECTION_TOKENS || !message_is_token(token) || is_protected(token)) {
            return error_make(ERROR_PROTOCOL, 0);
        }
        if (!is_option(token)) {
            message_remove(head, token);
        }
    }
    return OK;
}

struct error message_remove_hop_by_hop(struct message_head *head)
{
    unsigned tokens = 0;
    for (uint32_t i = 0; i < head->fields_count; i++) {
        const struct message_field *field = &head->fields[i];
        if (field->known == MESSAGE_FIELD_CONNECTION && !field->is_dropped) {
            TRY(drop_named(head, field->value, &tokens));
        }
    }
    for (uint32_t i = 0; i < head->fields_count; i++) {
        if (message_field_is_of_hop((enum message_field_name)head->fields[i].known)) {
            head->fields[i].is_dropped = true;
        }
    }
    return OK;
}

bool message_is_token(struct bytes text)
{
    return text.size > 0 && scan_token(text.data, text.size) == text.size;
}

bool message_is_field_value(struct bytes text)
{
    if (text.size == 0) {
        return true;
    }
    uint8_t first = text.data[0];
    uint8_t last = text.data[text.size - 1];
    return first != ' ' && first != '\t' && last != ' ' && last != '\t' &&
           scan_value(text.data, text.size) == text.size;
}

static const struct {
    uint16_t status;
    struct bytes reason;
} reasons[] = {
    {100, BYTES_LITERAL("Continue")},
    {101, BYTES_LITERAL("Switching Protocols")},
    {102, BYTES_LITERAL("Processing")},
    {103, BYTES_LITERAL("Early Hints")},
    {200, BYTES_LITERAL("OK")},
    {201, BYTES_LITERAL("Created")},
    {202, BYTES_LITERAL("Accepted")},
    {203, BYTES_LITERAL("Non-Authoritative Information")},
    {204, BYTES_LITERAL("No Content")},
    {205, BYTES_LITERAL("Reset Content")},
    {206, BYTES_LITERAL("Partial Content")},
    {207, BYTES_LITERAL("Multi-Status")},
    {208, BYTES_LITERAL("Already Reported")},
    {226, BYTES_LITERAL("IM Used")},
    {300, BYTES_LITERAL("Multiple Choices")},
    {301, BYTES_LITERAL("Moved Permanently")},
    {302, BYTES_LITERAL("Found")},
    {303, BYTES_LITERAL("See Other")},
    {304, BYTES_LITERAL("Not Modified")},
    {305, BYTES_LITERAL("Use Proxy")},
    {307, BYTES_LITERAL("Temporary Redirect")},
    {308, BYTES_LITERAL("Permanent Redirect")},
    {400, BYTES_LITERAL("Bad Request")},
    {401, BYTES_LITERAL("Unauthorized")},
    {402, BYTES_LITERAL("Payment Required")},
    {403, BYTES_LITERAL("Forbidden")},
    {404, BYTES_LITERAL("Not Found")},
    {405, BYTES_LITERAL("Method Not Allowed")},
    {406, BYTES_LITERAL("Not Acceptable")},
    {407, BYTES_LITERAL("Proxy Authentication Required")},
    {408, BYTES_LITERAL("Request Timeout")},
    {409, BYTES_LITERAL("Conflict")},
    {410, BYTES_LITERAL("Gone")},
    {411, BYTES_LITERAL("Length Required")},
    {412, BYTES_LITERAL("Precondition Failed")},
    {413, BYTES_LITERAL("Content Too Large")},
    {414, BYTES_LITERAL("URI Too Long")},
    {415, BYTES_LITERAL("Unsupported Media Type")},
    {416, BYTES_LITERAL("Range Not Satisfiable")},
    {417, BYTES_LITERAL("Expectation Failed")},
    {421, BYTES_LITERAL("Misdirected Request")},
    {422, BYTES_LITERAL("Unprocessable Content")},
    {423, BYTES_LITERAL("Locked")},
    {424, BYTES_LITERAL("Failed Dependency")},
    {425, BYTES_LITERAL("Too Early")},
    {426, BYTES_LITERAL("Upgrade Required")},
    {428, BYTES_LITERAL("Precondition Required")},
    {429, BYTES_LITERAL("Too Many Requests")},
    {431, BYTES_LITERAL("Request Header Fields Too Large")},
    {451, BYTES_LITERAL("Unavailable For Legal Reasons")},
    {500, BYTES_LITERAL("Internal Server Error")},
    {501, BYTES_LITERAL("Not Implemented")},
    {502, BYTES_LITERAL("Bad Gateway")},
    {503, BYTES_LITERAL("Service Unavailable")},
    {504, BYTES_LITERAL("Gateway Timeout")},
    {505, BYTES_LITERAL("HTTP Version Not Supported")},
    {506, BYTES_LITERAL("Variant Also Negotiates")},
    {507, BYTES_LITERAL("Insufficient Storage")},
    {508, BYTES_LITERAL("Loop Detected")},
    {511, BYTES_LITERAL("Network Authentication Required")},
};

struct bytes message_reason(uint16_t status)
{
    size_t low = 0;
    size_t high = sizeof(reasons) / sizeof(reasons[0]);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (reasons[middle].status == status) {
            return reasons[middle].reason;
        }
        if (reasons[middle].status < status) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return BYTES("");
}

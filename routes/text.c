/* Forms of texts, each as a small function over bytes; no regular expressions, no locale. */
#include "routes/text.h"

#include <string.h>

static bool is_lower_or_digit(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9');
}

static bool is_letter(uint8_t byte)
{
    uint8_t lower = byte_lower(byte);
    return lower >= 'a' && lower <= 'z';
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static bool is_hex(uint8_t byte)
{
    uint8_t lower = byte_lower(byte);
    return is_digit(byte) || (lower >= 'a' && lower <= 'f');
}

static bool is_label(struct bytes text)
{
    if (text.size == 0 || !is_lower_or_digit(text.data[0]) ||
        !is_lower_or_digit(text.data[text.size - 1])) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (!is_lower_or_digit(text.data[i]) && text.data[i] != '-') {
            return false;
        }
    }
    return true;
}

static bool is_subdomain(struct bytes text)
{
    for (;;) {
        size_t dot = bytes_find(text, '.');
        if (!is_label(bytes_first(text, dot))) {
            return false;
        }
        if (dot == text.size) {
            return true;
        }
        text = bytes_skip(text, dot + 1);
    }
}

static bool is_hostname(struct bytes text)
{
    if (bytes_starts_with(text, BYTES("*."))) {
        text = bytes_skip(text, 2);
    }
    return is_subdomain(text);
}

static bool is_kind(struct bytes text)
{
    if (text.size == 0 || !is_letter(text.data[0])) {
        return false;
    }
    for (size_t i = 1; i < text.size; i++) {
        if (!is_letter(text.data[i]) && !is_digit(text.data[i]) && text.data[i] != '-') {
            return false;
        }
    }
    return text.data[text.size - 1] != '-';
}

static bool is_one_of(uint8_t byte, const char *set)
{
    return byte != 0 && strchr(set, byte) != NULL;
}

static bool is_token(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if (!is_letter(byte) && !is_digit(byte) && !is_one_of(byte, "!#$%&'*+-.^_`|~")) {
            return false;
        }
    }
    return text.size > 0;
}

/* The standard channel has no pattern for values; what could end a header line is refused all the
 * same. */
static bool is_field_value(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if ((text.data[i] < ' ' && text.data[i] != '\t') || text.data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool is_path(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if (byte == '%') {
            if (i + 2 >= text.size || !is_hex(text.data[i + 1]) || !is_hex(text.data[i + 2])) {
                return false;
            }
            i += 2;
        } else if (!is_letter(byte) && !is_digit(byte) && !is_one_of(byte, "-/._~!$&'()*+,;=:@")) {
            return false;
        }
    }
    return text.size > 0;
}

/* Labels of letters of both cases, digits and '-', the first of which may be "*". */
static bool is_origin_host(struct bytes host)
{
    if (bytes_equal(host, BYTES("*"))) {
        return true;
    }
    if (bytes_starts_with(host, BYTES("*."))) {
        host = bytes_skip(host, 2);
    }
    bool was_dot = true;
    for (size_t i = 0; i < host.size; i++) {
        uint8_t byte = host.data[i];
        bool is_dot = byte == '.';
        if ((is_dot && was_dot) ||
            (!is_dot && !is_letter(byte) && !is_digit(byte) && byte != '-')) {
            return false;
        }
        was_dot = is_dot;
    }
    return !was_dot;
}

static bool is_cors_origin(struct bytes text)
{
    if (bytes_equal(text, BYTES("*"))) {
        return true;
    }
    if (bytes_starts_with(text, BYTES("https://"))) {
        text = bytes_skip(text, 8);
    } else if (bytes_starts_with(text, BYTES("http://"))) {
        text = bytes_skip(text, 7);
    } else {
        return false;
    }
    size_t colon = bytes_find(text, ':');
    if (colon != text.size) {
        struct bytes port = bytes_skip(text, colon + 1);
        uint64_t number = 0;
        if (port.size > 5 || error_is(bytes_parse_decimal(port, 99999, &number))) {
            return false;
        }
    }
    return is_origin_host(bytes_first(text, colon));
}

static bool is_uri(struct bytes text)
{
    size_t colon = bytes_find(text, ':');
    if (colon == 0 || colon == text.size) {
        return false;
    }
    for (size_t i = 0; i < colon; i++) {
        if (is_one_of(text.data[i], "/?#")) {
            return false;
        }
    }
    return true;
}

/* The characters only; base/identity.h knows the rest. */
static bool is_spiffe(struct bytes text)
{
    if (!bytes_starts_with(text, BYTES("spiffe://"))) {
        return false;
    }
    text = bytes_skip(text, 9);
    size_t slash = bytes_find(text, '/');
    if (slash == 0) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        bool is_name = is_lower_or_digit(text.data[i]) || is_one_of(text.data[i], "-._");
        if (!is_name && (i < slash || (!is_letter(text.data[i]) && text.data[i] != '/'))) {
            return false;
        }
        if (text.data[i] == '/' && (i + 1 == text.size || text.data[i + 1] == '/')) {
            return false;
        }
    }
    return true;
}

static bool is_well_known_ca(struct bytes text)
{
    if (bytes_equal(text, BYTES("System"))) {
        return true;
    }
    size_t slash = bytes_find(text, '/');
    return slash + 1 < text.size && is_subdomain(bytes_first(text, slash)) &&
           is_path(bytes_skip(text, slash + 1));
}

static bool is_json_pointer(struct bytes text)
{
    if (text.size > 0 && text.data[0] != '/') {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '~' &&
            (i + 1 == text.size || (text.data[i + 1] != '0' && text.data[i + 1] != '1'))) {
            return false;
        }
    }
    return true;
}

static bool is_letter_or_digit(uint8_t byte)
{
    return is_letter(byte) || is_digit(byte);
}

/* Begins and ends with a letter or digit; '-', '_' and '.' between them. */
static bool is_label_value(struct bytes text)
{
    if (text.size == 0) {
        return true;
    }
    if (text.size > 63 || !is_letter_or_digit(text.data[0]) ||
        !is_letter_or_digit(text.data[text.size - 1])) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (!is_letter_or_digit(text.data[i]) && !is_one_of(text.data[i], "-_.")) {
            return false;
        }
    }
    return true;
}

static bool is_qualified(struct bytes text)
{
    size_t slash = bytes_find(text, '/');
    if (slash < text.size) {
        if (slash > 253 || !is_subdomain(bytes_first(text, slash))) {
            return false;
        }
        text = bytes_skip(text, slash + 1);
    }
    return text.size > 0 && is_label_value(text);
}

static bool is_port_name(struct bytes text)
{
    bool has_letter = false;
    for (size_t i = 0; i < text.size; i++) {
        has_letter = has_letter || is_letter(text.data[i]);
    }
    return text.size <= 15 && has_letter && is_label(text) &&
           bytes_find_bytes(text, BYTES("--")) == text.size;
}

bool route_text_has_form(struct bytes text, enum route_text_form form)
{
    switch (form) {
    case ROUTE_TEXT_ANY:
        return true;
    case ROUTE_TEXT_SUBDOMAIN:
        return is_subdomain(text);
    case ROUTE_TEXT_LABEL:
        return is_label(text);
    case ROUTE_TEXT_LABEL_OR_EMPTY:
        return text.size == 0 || is_label(text);
    case ROUTE_TEXT_GROUP:
        return text.size == 0 || is_subdomain(text);
    case ROUTE_TEXT_KIND:
        return is_kind(text);
    case ROUTE_TEXT_HOSTNAME:
        return is_hostname(text) && !route_text_is_ip(text);
    case ROUTE_TEXT_PRECISE_HOSTNAME:
        return is_subdomain(text) && !route_text_is_ip(text);
    case ROUTE_TEXT_TOKEN:
        return is_token(text);
    case ROUTE_TEXT_FIELD_VALUE:
        return is_field_value(text);
    case ROUTE_TEXT_CORS_ORIGIN:
        return is_cors_origin(text);
    case ROUTE_TEXT_PATH:
        return is_path(text);
    case ROUTE_TEXT_URI:
        return is_uri(text);
    case ROUTE_TEXT_SPIFFE:
        return is_spiffe(text);
    case ROUTE_TEXT_WELL_KNOWN_CA:
        return is_well_known_ca(text);
    case ROUTE_TEXT_JSON_POINTER:
        return is_json_pointer(text);
    case ROUTE_TEXT_LABEL_VALUE:
        return is_label_value(text);
    case ROUTE_TEXT_QUALIFIED:
        return is_qualified(text);
    case ROUTE_TEXT_PORT_NAME:
        return is_port_name(text);
    }
    return false;
}

const char *route_text_form_name(enum route_text_form form)
{
    switch (form) {
    case ROUTE_TEXT_ANY:
        return "text";
    case ROUTE_TEXT_SUBDOMAIN:
        return "a name of lower-case letters, digits, '-' and '.'";
    case ROUTE_TEXT_LABEL:
    case ROUTE_TEXT_LABEL_OR_EMPTY:
        return "a name of lower-case letters, digits and '-'";
    case ROUTE_TEXT_GROUP:
        return "an API group such as \"gateway.networking.k8s.io\", or \"\" for core";
    case ROUTE_TEXT_KIND:
        return "a kind such as \"Service\"";
    case ROUTE_TEXT_HOSTNAME:
        return "a host name in lower case, not an address; \"*\" only as the whole first label";
    case ROUTE_TEXT_PRECISE_HOSTNAME:
        return "a host name in lower case, not an address, without \"*\"";
    case ROUTE_TEXT_TOKEN:
        return "a name of letters, digits and !#$%&'*+-.^_`|~";
    case ROUTE_TEXT_FIELD_VALUE:
        return "one line without control characters";
    case ROUTE_TEXT_CORS_ORIGIN:
        return "\"*\", or an origin such as \"https://*.example.com:8443\"";
    case ROUTE_TEXT_PATH:
        return "characters of a URI path, others as %XX";
    case ROUTE_TEXT_URI:
        return "a URI with a scheme";
    case ROUTE_TEXT_SPIFFE:
        return "a SPIFFE ID such as \"spiffe://cluster.local/ns/shop/sa/web\"";
    case ROUTE_TEXT_WELL_KNOWN_CA:
        return "\"System\", or a domain and a path";
    case ROUTE_TEXT_JSON_POINTER:
        return "a JSON pointer such as \"/customer/tier\"";
    case ROUTE_TEXT_LABEL_VALUE:
        return "a label value: at most 63 letters, digits, '-', '_' and '.'";
    case ROUTE_TEXT_QUALIFIED:
        return "a name such as \"example.com/name\" or \"name\"";
    case ROUTE_TEXT_PORT_NAME:
        return "the name of a container port: at most 15 lower-case letters, digits and '-'";
    }
    return "text";
}

/* ---- Numbers ---- */

/* The unit at the front of `text`, in milliseconds; 0 when there is none. */
static int64_t take_unit(struct bytes *text)
{
    static const struct {
        struct bytes name;
        int64_t ms;
    } units[] = {
        {BYTES_LITERAL("ms"), 1},
        {BYTES_LITERAL("h"), 3600000},
        {BYTES_LITERAL("m"), 60000},
        {BYTES_LITERAL("s"), 1000},
    };

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (bytes_starts_with(*text, units[i].name)) {
            *text = bytes_skip(*text, units[i].name.size);
            return units[i].ms;
        }
    }
    return 0;
}

FALLIBLE route_duration_parse(struct bytes text, int64_t *ret_ms)
{
    int64_t sum_ms = 0; /* at most 4 x 99,999 h: fits */
    size_t components = 0;
    while (text.size > 0) {
        size_t digits = 0;
        while (digits < text.size && is_digit(text.data[digits])) {
            digits++;
        }
        if (digits == 0 || digits > 5 || ++components > 4) {
            return error_make(ERROR_SYNTAX, 0);
        }
        uint64_t number = 0;
        TRY(bytes_parse_decimal(bytes_first(text, digits), 99999, &number));
        text = bytes_skip(text, digits);
        int64_t unit_ms = take_unit(&text);
        if (unit_ms == 0) {
            return error_make(ERROR_SYNTAX, 0);
        }
        sum_ms += (int64_t)number * unit_ms;
    }
    if (components == 0) {
        return error_make(ERROR_SYNTAX, 0);
    }
    *ret_ms = sum_ms;
    return OK;
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar, counted in years that begin in March.
 */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    if (month <= 2) {
        year--;
        month += 12;
    }
    int64_t days_of_months = (153 * (month - 3) + 2) / 5 + day - 1;
    return 365 * year + year / 4 - year / 100 + year / 400 + days_of_months - 719468;
}

/* `count` digits and the byte after them (0: nothing follows yet); false when it is not that. */
static bool take_number(struct bytes *text, size_t count, const char *after, int64_t max,
                        int64_t *ret_number)
{
    uint64_t number = 0;
    if (text->data == NULL || text->size < count ||
        error_is(bytes_parse_decimal(bytes_first(*text, count), (uint64_t)max, &number))) {
        return false;
    }
    *text = bytes_skip(*text, count);
    if (after[0] != 0) {
        if (text->size == 0 || !is_one_of(text->data[0], after)) {
            return false;
        }
        *text = bytes_skip(*text, 1);
    }
    *ret_number = (int64_t)number;
    return true;
}

/* "Z", "+hh:mm" or "-hh:mm", and nothing after it. */
static bool take_offset(struct bytes text, int64_t *ret_seconds)
{
    if (text.size == 1 && byte_lower(text.data[0]) == 'z') {
        *ret_seconds = 0;
        return true;
    }
    if (text.size != 6 || (text.data[0] != '+' && text.data[0] != '-')) {
        return false;
    }
    bool is_behind = text.data[0] == '-';
    text = bytes_skip(text, 1);
    int64_t hours = 0;
    int64_t minutes = 0;
    if (!take_number(&text, 2, ":", 23, &hours) || !take_number(&text, 2, "", 59, &minutes)) {
        return false;
    }
    int64_t seconds = hours * 3600 + minutes * 60;
    *ret_seconds = is_behind ? -seconds : seconds;
    return true;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && is_leap);
}

FALLIBLE route_time_parse(struct bytes text, int64_t *ret_seconds)
{
    int64_t year = 0;
    int64_t month = 0;
    int64_t day = 0;
    int64_t hour = 0;
    int64_t minute = 0;
    int64_t second = 0;
    if (!take_number(&text, 4, "-", 9999, &year) || !take_number(&text, 2, "-", 12, &month) ||
        !take_number(&text, 2, "Tt ", 31, &day) || !take_number(&text, 2, ":", 23, &hour) ||
        !take_number(&text, 2, ":", 59, &minute) || !take_number(&text, 2, "", 60, &second) ||
        month == 0 || day == 0 || day > days_in_month(year, month)) {
        return error_make(ERROR_SYNTAX, 0);
    }
    if (text.size > 0 && text.data[0] == '.') {
        size_t digits = 1;
        while (digits < text.size && is_digit(text.data[digits])) {
            digits++;
        }
        text = bytes_skip(text, digits);
    }
    int64_t offset = 0;
    if (!take_offset(text, &offset)) {
        return error_make(ERROR_SYNTAX, 0);
    }
    *ret_seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return OK;
}

bool route_text_is_ip(struct bytes text)
{
    if (bytes_find(text, ':') != text.size) {
        return true; /* nothing but IPv6 has colons among what is asked here */
    }
    size_t parts = 0;
    while (text.data != NULL) {
        struct bytes part = bytes_split(&text, '.');
        uint64_t number = 0;
        if (part.size > 3 || error_is(bytes_parse_decimal(part, 255, &number))) {
            return false;
        }
        parts++;
    }
    return parts == 4;
}

/* ---- Suggestions ---- */

enum {
    DISTANCE_BYTES_MAX = 64
};

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

uint32_t route_text_distance(struct bytes a, struct bytes b, uint32_t max)
{
    size_t difference = a.size > b.size ? a.size - b.size : b.size - a.size;
    if (a.size > DISTANCE_BYTES_MAX || b.size > DISTANCE_BYTES_MAX || difference > max) {
        return max + 1;
    }
    /* Three rows of the matrix: swapping neighbours looks two rows back. */
    uint32_t rows[3][DISTANCE_BYTES_MAX + 1];
    for (size_t j = 0; j <= b.size; j++) {
        rows[0][j] = (uint32_t)j;
    }
    for (size_t i = 1; i <= a.size; i++) {
        uint32_t *row = rows[i % 3];
        const uint32_t *above = rows[(i + 2) % 3];
        const uint32_t *above2 = rows[(i + 1) % 3];
        row[0] = (uint32_t)i;
        for (size_t j = 1; j <= b.size; j++) {
            uint8_t left = byte_lower(a.data[i - 1]);
            uint8_t right = byte_lower(b.data[j - 1]);
            uint32_t cost = left == right ? 0 : 1;
            uint32_t best = least(least(above[j] + 1, row[j - 1] + 1), above[j - 1] + cost);
            if (i > 1 && j > 1 && left == byte_lower(b.data[j - 2]) &&
                byte_lower(a.data[i - 2]) == right) {
                best = least(best, above2[j - 2] + 1);
            }
            row[j] = best;
        }
    }
    uint32_t distance = rows[a.size % 3][b.size];
    return distance > max ? max + 1 : distance;
}

bool route_text_is_nearer(struct bytes word, struct bytes candidate, uint32_t *best)
{
    /* A third of the letters may be wrong, at most three: more is another word. */
    uint32_t max = least(3, (uint32_t)(word.size + 2) / 3);
    uint32_t distance = route_text_distance(word, candidate, max);
    if (distance > max || distance >= *best) {
        return false;
    }
    *best = distance;
    return true;
}

bool route_text_is_short_for(struct bytes word, struct bytes candidate)
{
    size_t found = 0;
    for (size_t i = 0; i < candidate.size && found < word.size; i++) {
        found += byte_lower(candidate.data[i]) == byte_lower(word.data[found]);
    }
    return word.size >= 3 && found == word.size;
}

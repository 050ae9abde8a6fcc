/*
 * One pass, line by line in block style and character by character within quotes and brackets. Each
 * key, each dash, each comma between brackets and each document is one node; what stands in quoted,
 * block and continued plain text is none. Wherever the text leaves what is understood here, the
 * count so far is the answer: it is certain.
 */
#include "routes/census.h"

#include <stdbool.h>
#include <string.h>

/* Between brackets: what the last character belongs to. */
enum flow {
    FLOW_START, /* nothing: a scalar may begin */
    FLOW_PLAIN, /* a scalar without quotes, in which quotes are text */
    FLOW_AFTER, /* a scalar in quotes, or a collection, that has ended */
};

struct census {
    struct bytes text;
    uint32_t enough;
    size_t at;
    size_t line_begin;
    uint32_t line;
    uint32_t count;
    uint32_t flow_depth;
    enum flow flow;
    uint8_t quote;       /* open, or 0 */
    bool is_block_text;  /* `|` or `>`: lines indented by `text_indent` are text */
    bool is_plain_text;  /* such lines continue a plain scalar */
    int32_t text_indent; /* the least indentation that goes on with the text */
    int32_t parent;      /* column of the key or dash whose value comes next, from 0; -1: none */
    bool is_lost;        /* nothing more is certain */
};

static uint8_t peek(const struct census *census, size_t offset)
{
    size_t at = census->at + offset;
    return at < census->text.size ? census->text.data[at] : '\n';
}

static bool can_go_on(const struct census *census)
{
    return !census->is_lost && census->count <= census->enough;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* What begins anchors, aliases, tags, directives, complex keys, and what YAML keeps for later. */
static bool is_odd(uint8_t byte)
{
    switch (byte) {
    case '&':
    case '*':
    case '!':
    case '%':
    case '@':
    case '`':
    case '?':
        return true;
    default:
        return false;
    }
}

static void skip_blanks(struct census *census)
{
    while (peek(census, 0) == ' ' || peek(census, 0) == '\t' || peek(census, 0) == '\r') {
        census->at++;
    }
}

static void end_line(struct census *census)
{
    census->at += bytes_find(bytes_skip(census->text, census->at), '\n');
    if (census->at < census->text.size) {
        census->at++;
    }
    census->line++;
    census->line_begin = census->at;
}

/* Go on within quotes; true when they end. */
static bool read_quoted(struct census *census)
{
    while (census->at < census->text.size) {
        uint8_t byte = census->text.data[census->at++];
        if (byte == '\n') {
            census->line++;
            census->line_begin = census->at;
        } else if (byte == '\\' && census->quote == '"') {
            census->at += peek(census, 0) != '\n' && census->at < census->text.size;
        } else if (byte == census->quote && byte == '\'' && peek(census, 0) == '\'') {
            census->at++;
        } else if (byte == census->quote) {
            census->quote = 0;
            return true;
        }
    }
    return false;
}

/* Take one character between brackets that is neither quoted nor in a comment. */
static void take_flow(struct census *census, uint8_t byte)
{
    census->at++;
    switch (byte) {
    case '\n':
        census->line++;
        census->line_begin = census->at;
        break;
    case ' ':
    case '\t':
    case '\r':
        break;
    case '[':
    case '{':
        census->flow_depth++;
        census->flow = FLOW_START;
        break;
    case ']':
    case '}':
        census->flow_depth--;
        census->flow = FLOW_AFTER;
        break;
    case ',':
        census->count++;
        census->flow = FLOW_START;
        break;
    case ':':
        if (census->flow != FLOW_PLAIN || is_blank(peek(census, 0))) {
            census->flow = FLOW_START;
        }
        break;
    default:
        census->is_lost =
            census->flow == FLOW_START && (is_odd(byte) || byte == '|' || byte == '>');
        census->flow = FLOW_PLAIN;
        break;
    }
}

/* Go on between brackets until they are closed or the text ends. */
static void read_flow(struct census *census)
{
    while (census->at < census->text.size && census->flow_depth > 0 && can_go_on(census)) {
        uint8_t byte = peek(census, 0);
        if ((byte == '"' || byte == '\'') && census->flow != FLOW_PLAIN) {
            census->is_lost = census->flow == FLOW_AFTER;
            census->quote = byte;
            census->at++;
            (void)read_quoted(census);
            census->flow = FLOW_AFTER;
        } else if (byte == '#' &&
                   (census->flow != FLOW_PLAIN || is_blank(census->text.data[census->at - 1]))) {
            end_line(census);
        } else {
            take_flow(census, byte);
        }
    }
}

/* Where the key that begins here ends: at its colon; 0 when the rest of the line has none. */
static size_t find_colon(const struct census *census)
{
    for (size_t i = 0;; i++) {
        uint8_t byte = peek(census, i);
        if (byte == '\n' || (byte == '#' && i > 0 && is_blank(peek(census, i - 1)))) {
            return 0;
        }
        if (byte == ':' && i > 0 && is_blank(peek(census, i + 1))) {
            return i;
        }
    }
}

static int32_t column(const struct census *census)
{
    return (int32_t)(census->at - census->line_begin);
}

/* Take a key and its colon, when there is one. Quoted text without a colon behind it is passed
 * over: it was a value. */
static bool take_key(struct census *census)
{
    int32_t begin = column(census);
    uint8_t first = peek(census, 0);
    if (first == '"' || first == '\'') {
        uint32_t line = census->line;
        census->quote = first;
        census->at++;
        if (!read_quoted(census)) {
            return false;
        }
        skip_blanks(census);
        if (peek(census, 0) != ':' || !is_blank(peek(census, 1)) || line != census->line) {
            return false;
        }
        census->at++;
    } else {
        size_t colon = find_colon(census);
        if (colon == 0) {
            return false;
        }
        census->at += colon + 1;
    }
    census->count++;
    census->parent = begin;
    return true;
}

static void begin_text(struct census *census, bool is_block)
{
    census->is_block_text = is_block;
    census->is_plain_text = !is_block;
    census->text_indent = census->parent + 1;
    if (is_block && census->text_indent < 1) {
        census->text_indent = 1; /* a document's own text is indented, too */
    }
}

/* One thing of a line in block style; false when the rest of the line says nothing more. */
static bool read_token(struct census *census)
{
    skip_blanks(census);
    uint8_t byte = peek(census, 0);
    if (byte == '\n' || byte == '#') {
        return false;
    }
    if (byte == '-' && is_blank(peek(census, 1))) {
        census->count++;
        census->parent = column(census);
        census->at++;
        return true;
    }
    if (is_odd(byte) || byte == ':') {
        census->is_lost = true;
        return false;
    }
    if (byte == '[' || byte == '{') {
        census->flow_depth = 1;
        census->flow = FLOW_START;
        census->at++;
        return false;
    }
    if (byte == '|' || byte == '>') {
        begin_text(census, true);
        return false;
    }
    bool is_quoted = byte == '"' || byte == '\'';
    if (take_key(census)) {
        return true;
    }
    if (!is_quoted) {
        begin_text(census, false);
    }
    return false;
}

/* `---` and `...` at the beginning of a line. */
static bool take_marker(struct census *census)
{
    uint8_t byte = peek(census, 0);
    if ((byte != '-' && byte != '.') || peek(census, 1) != byte || peek(census, 2) != byte ||
        !is_blank(peek(census, 3))) {
        return false;
    }
    census->count += byte == '-';
    census->at += 3;
    census->parent = -1;
    census->is_block_text = census->is_plain_text = false;
    return true;
}

static void read_line(struct census *census)
{
    bool is_marker = take_marker(census);
    size_t indent = 0;
    while (!is_marker && peek(census, indent) == ' ') {
        indent++;
    }
    bool is_text = census->is_block_text || census->is_plain_text;
    uint8_t first = peek(census, indent);
    bool is_empty = first == '\n' || (first == '\r' && peek(census, indent + 1) == '\n');
    if (!is_marker && (is_empty || (is_text && (int32_t)indent >= census->text_indent))) {
        end_line(census);
        return;
    }
    census->is_block_text = census->is_plain_text = false;
    census->at += is_marker ? 0 : indent;
    census->is_lost = first == '\t' && !is_marker;
    while (can_go_on(census) && read_token(census)) {
    }
    if (census->flow_depth == 0 && can_go_on(census)) {
        end_line(census);
    }
}

/* Does any `lead` begin one of the two characters? */
static bool has_any(struct bytes text, uint8_t lead, const char *one, const char *other)
{
    while (text.size > 0) {
        text = bytes_skip(text, bytes_find(text, lead));
        if (bytes_starts_with(text, bytes_from_string(one)) ||
            bytes_starts_with(text, bytes_from_string(other))) {
            return true;
        }
        text = bytes_skip(text, text.size > 0);
    }
    return false;
}

/* Line ends that only a YAML parser takes for such: then nothing is certain. */
static bool has_odd_breaks(struct bytes text)
{
    if (has_any(text, 0xc2, "\xc2\x85", "\xc2\x85") ||
        has_any(text, 0xe2, "\xe2\x80\xa8", "\xe2\x80\xa9")) {
        return true;
    }
    for (size_t at = bytes_find(text, '\r'); at < text.size;) {
        if (at + 1 == text.size || text.data[at + 1] != '\n') {
            return true;
        }
        at += 1 + bytes_find(bytes_skip(text, at + 1), '\r');
    }
    return false;
}

uint32_t route_census(struct bytes content, uint32_t enough, struct route_spot *ret_spot)
{
    struct census census = {.text = content, .enough = enough, .line = 1, .parent = -1};
    if (content.size == 0 || has_odd_breaks(content)) {
        return 0;
    }
    while (census.at < content.size && can_go_on(&census)) {
        if (census.flow_depth > 0) {
            read_flow(&census);
            if (census.flow_depth == 0 && can_go_on(&census)) {
                end_line(&census);
            }
        } else {
            read_line(&census);
        }
    }
    if (census.count > enough) {
        size_t begin = census.line_begin <= census.at ? census.line_begin : census.at;
        uint32_t characters = 0;
        for (size_t i = begin; i < census.at; i++) {
            characters += (content.data[i] & 0xc0) != 0x80;
        }
        *ret_spot = (struct route_spot){census.line, characters + 1};
    }
    return census.count;
}

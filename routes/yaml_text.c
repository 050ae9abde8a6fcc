/* Texts before libyaml: see yaml_text.h. */
#include "routes/yaml_text.h"

#include <stdlib.h>

#include "base/check.h"
#include "routes/yaml.h"

enum {
    DIRECTIVES_MAX = 64,
};

/* ---- Encoding ---- */

/* What YAML does not take unescaped; said here, as libyaml would not say where. */
static bool is_control(uint32_t code_point)
{
    bool is_c1 = code_point >= 0x7f && code_point < 0xa0 && code_point != 0x85;
    bool is_c0 = code_point < 0x20 && code_point != '\t' && code_point != '\r';
    return is_c0 || is_c1 || code_point == 0xfffe || code_point == 0xffff;
}

/* Begins it as an editor of Windows would save it: a byte order mark, or an ASCII character in two
 * bytes? */
static bool is_utf16(struct bytes content)
{
    return bytes_starts_with(content, BYTES("\xff\xfe")) ||
           bytes_starts_with(content, BYTES("\xfe\xff")) ||
           (content.size >= 2 && (content.data[0] == 0) != (content.data[1] == 0));
}

/* ASCII of words: not blank, not control, and not the '"', ',' and '%' that are looked at. */
static bool is_ordinary(uint8_t byte)
{
    static const uint64_t ordinary[4] = {0xffffefda00000000, 0x7fffffffffffffff, 0, 0};
    return (ordinary[byte >> 6] >> (byte & 63) & 1) != 0;
}

/* How many bytes from here on are of a word and in no way special. */
static size_t ordinary_run(struct bytes text)
{
    size_t run = 0;
    while (run < text.size && is_ordinary(text.data[run])) {
        run++;
    }
    return run;
}

/* What is wrong with a character that is not ASCII text; NULL: nothing. */
static const char *judge_character(struct bytes text, size_t *ret_size, const char **ret_code)
{
    uint32_t code_point = 0;
    *ret_size = bytes_first_character(text, &code_point);
    if (text.data[0] == 0) {
        *ret_code = "nul-byte";
        return "the file holds a NUL byte";
    }
    if (*ret_size == 0) {
        *ret_code = "not-utf8";
        return "the file is not valid UTF-8";
    }
    *ret_code = "control-character";
    return is_control(code_point) ? "the file holds a control character" : NULL;
}

static bool fail(struct route_encoding_fault *fault, struct route_spot at, const char *code,
                 const char *text)
{
    *fault = (struct route_encoding_fault){at, code, text};
    return false;
}

bool route_encoding_is_sound(struct bytes content, struct route_encoding_fault *ret_fault)
{
    struct route_spot at = {1, 1};
    uint32_t directives = 0;
    size_t word_bytes = 0;
    for (size_t i = 0; i < content.size;) {
        uint8_t byte = content.data[i];
        bool ends_word = byte == '\n' || byte == ' ' || byte == '"' || byte == ',';
        size_t size = ordinary_run(bytes_skip(content, i));
        uint32_t columns = size == 0 ? 1 : (uint32_t)size;
        if (size == 0 && (ends_word || byte == '%')) {
            size = 1;
            directives += byte == '%' && at.column == 1;
        } else if (size == 0) {
            const char *code = NULL;
            const char *problem = judge_character(bytes_skip(content, i), &size, &code);
            if (problem != NULL) {
                return byte != 0x7f && is_utf16(content)
                           ? fail(ret_fault, (struct route_spot){1, 1}, "not-utf8",
                                  "the file is UTF-16, not UTF-8: save it as UTF-8")
                           : fail(ret_fault, at, code, problem);
            }
        }
        if (directives > DIRECTIVES_MAX) {
            return fail(ret_fault, at, "not-yaml", "too many YAML directives");
        }
        word_bytes = ends_word ? 0 : word_bytes + size;
        at.column += columns;
        i += size;
        if (word_bytes > ROUTE_SCALAR_BYTES_MAX) {
            at.column -= (uint32_t)(word_bytes - ROUTE_SCALAR_BYTES_MAX);
            return fail(ret_fault, at, "too-long", "a text is longer than 1 MiB");
        }
        if (byte == '\n') {
            at = (struct route_spot){at.line + 1, 1};
        }
    }
    return true;
}

/* ---- JSON's surrogate pairs ---- */

/* Four hexadecimal digits, or -1. */
static int32_t parse_hex4(const uint8_t *data)
{
    int32_t value = 0;
    for (size_t i = 0; i < 4; i++) {
        uint8_t digit = byte_lower(data[i]);
        if (digit >= '0' && digit <= '9') {
            value = value * 16 + (digit - '0');
        } else if (digit >= 'a' && digit <= 'f') {
            value = value * 16 + (digit - 'a' + 10);
        } else {
            return -1;
        }
    }
    return value;
}

/* The code point of a pair such as \ud83d\ude00 at `data`, or 0. */
static uint32_t surrogate_pair(const uint8_t *data, size_t size)
{
    if (size < 12 || data[0] != '\\' || data[1] != 'u' || data[6] != '\\' || data[7] != 'u') {
        return 0;
    }
    int32_t high = parse_hex4(data + 2);
    int32_t low = parse_hex4(data + 8);
    if (high < 0xd800 || high > 0xdbff || low < 0xdc00 || low > 0xdfff) {
        return 0;
    }
    return 0x10000 + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
}

/* YAML's escape for one code point, ten bytes: \U and eight digits. */
static size_t write_escape(uint8_t *out, uint32_t code_point)
{
    static const char digits[] = "0123456789abcdef";
    out[0] = '\\';
    out[1] = 'U';
    for (size_t i = 0; i < 8; i++) {
        out[2 + i] = (uint8_t)digits[code_point >> (28 - 4 * i) & 15];
    }
    return 10;
}

static bool looks_like_json(struct bytes content)
{
    size_t i = 0;
    while (i < content.size && (content.data[i] == ' ' || content.data[i] == '\t' ||
                                content.data[i] == '\r' || content.data[i] == '\n')) {
        i++;
    }
    return i < content.size && (content.data[i] == '{' || content.data[i] == '[');
}

enum {
    PAIR_BYTES = 12, /* of the pair in JSON; YAML's escape is shorter */
    ESCAPE_BYTES = 10,
};

/* Note that a pair was joined just before `at`. */
static void add_join(struct route_joins *joins, struct route_spot at)
{
    CHECK(joins->items != NULL);
    const struct route_join *last = joins->count == 0 ? NULL : &joins->items[joins->count - 1];
    uint32_t before = last != NULL && last->line == at.line ? last->shift : 0;
    joins->items[joins->count++] =
        (struct route_join){at.line, at.column, before + PAIR_BYTES - ESCAPE_BYTES};
}

/* Copy JSON, each pair as one escape. */
static size_t rewrite(struct route_joins *joins, struct bytes content)
{
    struct route_spot at = {1, 1};
    size_t size = 0;
    for (size_t i = 0; i < content.size;) {
        uint8_t byte = content.data[i];
        uint32_t pair = byte == '\\' ? surrogate_pair(content.data + i, content.size - i) : 0;
        if (pair != 0) {
            size += write_escape(joins->text + size, pair);
            i += PAIR_BYTES;
            at.column += ESCAPE_BYTES;
            add_join(joins, at);
            continue;
        }
        if (byte == '\\' && i + 1 < content.size) { /* "\\\\ud83d" is no pair */
            joins->text[size++] = byte;
            i++;
            at.column++;
        }
        byte = content.data[i];
        joins->text[size++] = byte;
        i++;
        at.column += (byte & 0xc0) != 0x80;
        at = byte == '\n' ? (struct route_spot){at.line + 1, 1} : at;
    }
    return size;
}

struct error route_joins_make(struct route_joins *joins, struct bytes *content)
{
    if (!looks_like_json(*content) || bytes_find_bytes(*content, BYTES("\\u")) == content->size) {
        return OK;
    }
    joins->text = malloc(content->size);
    joins->items = calloc(content->size / PAIR_BYTES + 1, sizeof(*joins->items));
    if (joins->text == NULL || joins->items == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *content = bytes_make(joins->text, rewrite(joins, *content));
    return OK;
}

uint32_t route_joins_shift(const struct route_joins *joins, struct route_spot at)
{
    if (joins->count == 0) {
        return 0; /* nearly always */
    }
    uint32_t begin = 0;
    uint32_t end = joins->count;
    while (begin < end) {
        uint32_t middle = begin + (end - begin) / 2;
        const struct route_join *join = &joins->items[middle];
        if (join->line < at.line || (join->line == at.line && join->column <= at.column)) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin > 0 && joins->items[begin - 1].line == at.line ? joins->items[begin - 1].shift : 0;
}

void route_joins_finish(struct route_joins *joins)
{
    free(joins->text);
    free(joins->items);
    *joins = (struct route_joins){0};
}

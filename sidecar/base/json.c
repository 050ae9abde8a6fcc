/* JSON through Jansson. A value that lost a member on the way carries a mark, so that it never
 * prints as if whole. */
#include "base/json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* struct json is Jansson's json_t under our name: never defined, only pointed at. */
static json_t *theirs(struct json *value)
{
    return (json_t *)(void *)value;
}

static struct json *ours(json_t *value)
{
    return (struct json *)(void *)value;
}

/* A member that no caller can have put: an object with it is incomplete. */
static const char lost_key[] = "\x01lost";

struct json *json_new_object(void)
{
    return ours(json_object());
}

struct json *json_new_array(void)
{
    return ours(json_array());
}

/* Length of the valid UTF-8 sequence at the start of `text`, 0 when there is none (RFC 3629). */
static size_t sequence(struct bytes text)
{
    uint8_t first = text.data[0];
    size_t size = first < 0x80                    ? 1
                  : first >= 0xc2 && first < 0xe0 ? 2
                  : first >= 0xe0 && first < 0xf0 ? 3
                  : first >= 0xf0 && first < 0xf5 ? 4
                                                  : 0;
    if (size == 0 || size > text.size) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if ((text.data[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool is_overlong =
        (first == 0xe0 && text.data[1] < 0xa0) || (first == 0xf0 && text.data[1] < 0x90);
    bool is_surrogate = first == 0xed && text.data[1] >= 0xa0;
    bool is_above = first == 0xf4 && text.data[1] >= 0x90;
    return is_overlong || is_surrogate || is_above ? 0 : size;
}

/* A string with U+FFFD for every byte that begins no sequence. */
static json_t *repaired(struct bytes text)
{
    char *copy = malloc(text.size * 3 + 1);
    if (copy == NULL) {
        return NULL;
    }
    size_t length = 0;
    while (text.size > 0) {
        size_t size = sequence(text);
        if (size == 0) {
            /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): in the middle of a text */
            memcpy(copy + length, "\xef\xbf\xbd", 3);
            length += 3;
            text = bytes_skip(text, 1);
        } else {
            memcpy(copy + length, text.data, size);
            length += size;
            text = bytes_skip(text, size);
        }
    }
    json_t *value = json_stringn_nocheck(copy, length);
    free(copy);
    return value;
}

struct json *json_new_string(struct bytes text)
{
    if (text.size == 0) {
        return ours(json_stringn("", 0));
    }
    json_t *value = json_stringn((const char *)text.data, text.size);
    return ours(value != NULL ? value : repaired(text));
}

struct json *json_new_text(const char *text)
{
    return text == NULL ? json_new_null() : json_new_string(bytes_from_string(text));
}

struct json *json_new_number(int64_t number)
{
    return ours(json_integer(number));
}

struct json *json_new_real(double number)
{
    return ours(json_real(number));
}

struct json *json_new_boolean(bool value)
{
    return ours(json_boolean(value));
}

struct json *json_new_null(void)
{
    return ours(json_null());
}

void json_put(struct json *object, const char *key, struct json *value)
{
    if (value == NULL || json_object_set_new_nocheck(theirs(object), key, theirs(value)) != 0) {
        json_object_set_new_nocheck(theirs(object), lost_key, json_true());
    }
}

void json_push(struct json *array, struct json *value)
{
    if (value == NULL || json_array_append_new(theirs(array), theirs(value)) != 0) {
        json_t *mark = json_object();
        json_object_set_new_nocheck(mark, lost_key, json_true());
        json_array_append_new(theirs(array), mark);
    }
}

void json_release(struct json *value)
{
    json_decref(theirs(value));
}

char *json_print(struct json *value, unsigned indent)
{
    size_t flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(15) |
                   (indent > 0 ? JSON_INDENT(indent) : JSON_COMPACT);
    char *text = value == NULL ? NULL : json_dumps(theirs(value), flags);
    json_release(value);
    if (text != NULL && strstr(text, "\\u0001lost") != NULL) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- text for people ---- */

enum {
    TEXT_COLUMNS_MAX = 32
};

/* A value in one cell; to be freed. */
static char *cell_of(const json_t *value)
{
    if (value == NULL || json_is_null(value)) {
        return strdup("-");
    }
    if (json_is_string(value)) {
        return strdup(json_string_length(value) == 0 ? "-" : json_string_value(value));
    }
    return json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
}

static void print_cell(FILE *out, char *cell, size_t width)
{
    fprintf(out, "%-*s", (int)width, cell == NULL ? "?" : cell);
    free(cell);
}

static bool is_table(const json_t *value)
{
    return json_is_array(value) && json_array_size(value) > 0 &&
           json_is_object(json_array_get(value, 0));
}

/* Does any row have a table there? Those stand below their rows. */
static bool is_nested(const json_t *rows, const char *name)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        if (is_table(json_object_get(json_array_get(rows, i), name))) {
            return true;
        }
    }
    return false;
}

/* The widest cell of a column, its name included. */
static size_t width_of(const json_t *rows, const char *name)
{
    size_t width = strlen(name);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        char *cell = cell_of(json_object_get(json_array_get(rows, i), name));
        size_t size = cell == NULL ? 0 : strlen(cell);
        width = size > width ? size : width;
        free(cell);
    }
    return width;
}

static void print_table(FILE *out, const json_t *rows, const char *indent)
{
    const char *names[TEXT_COLUMNS_MAX];
    size_t widths[TEXT_COLUMNS_MAX];
    size_t count = 0;
    const char *name;
    json_t *ignored;
    json_t *first = json_array_get(rows, 0);
    json_object_foreach(first, name, ignored)
    {
        if (count < TEXT_COLUMNS_MAX && !is_nested(rows, name)) {
            widths[count] = width_of(rows, name);
            names[count++] = name;
        }
    }
    fputs(indent, out);
    for (size_t i = 0; i < count; i++) {
        bool is_last = i + 1 == count;
        fprintf(out, "%-*s%s", is_last ? 0 : (int)widths[i], names[i], is_last ? "\n" : "  ");
    }
    for (size_t row = 0; row < json_array_size(rows); row++) {
        json_t *object = json_array_get(rows, row);
        fputs(indent, out);
        for (size_t i = 0; i < count; i++) {
            bool is_last = i + 1 == count;
            print_cell(out, cell_of(json_object_get(object, names[i])), is_last ? 0 : widths[i]);
            fputs(is_last ? "\n" : "  ", out);
        }
        json_object_foreach(object, name, ignored)
        {
            if (is_table(ignored)) {
                char deeper[32];
                snprintf(deeper, sizeof(deeper), "%s    ", indent);
                if (strlen(deeper) < 12) { /* two levels are enough for people */
                    print_table(out, ignored, deeper);
                }
            }
        }
    }
}

static void print_members(FILE *out, json_t *object)
{
    size_t width = 0;
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        width = strlen(name) > width ? strlen(name) : width;
    }
    json_object_foreach(object, name, value)
    {
        if (is_table(value)) {
            fprintf(out, "%s\n", name);
            print_table(out, value, "    ");
            continue;
        }
        fprintf(out, "%-*s  ", (int)width, name);
        print_cell(out, cell_of(value), 0);
        fputc('\n', out);
    }
}

static void print_lines(FILE *out, const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        print_cell(out, cell_of(json_array_get(array, i)), 0);
        fputc('\n', out);
    }
}

char *json_print_text(struct json *value)
{
    char *text = NULL;
    size_t size = 0;
    char *whole = value == NULL ? NULL : json_dumps(theirs(value), JSON_ENCODE_ANY);
    bool is_lost = whole == NULL || strstr(whole, "\\u0001lost") != NULL;
    free(whole);
    FILE *out = is_lost ? NULL : open_memstream(&text, &size);
    if (out != NULL) {
        json_t *root = theirs(value);
        if (is_table(root)) {
            print_table(out, root, "");
        } else if (json_is_object(root)) {
            print_members(out, root);
        } else if (json_array_size(root) > 0) {
            print_lines(out, root);
        } else {
            print_cell(out, json_is_array(root) ? strdup("none") : cell_of(root), 0);
            fputc('\n', out);
        }
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    json_release(value);
    return text;
}

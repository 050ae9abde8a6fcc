/* Test support: rows of text to bytes. */
#include "http/vector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, const char *where)
{
    fprintf(stderr, "%s: %s\n", what, where);
    exit(1);
}

static void *must(void *memory)
{
    if (memory == NULL) {
        die("memory", "none left");
    }
    return memory;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        die("cannot open", path);
    }
    size_t capacity = 1 << 20;
    char *text = must(malloc(capacity));
    size_t size = fread(text, 1, capacity - 1, file);
    fclose(file);
    text[size] = '\0';
    return text;
}

static struct vector_row split_row(char *line, size_t columns)
{
    struct vector_row row = {0};
    for (size_t i = 0; i < columns; i++) {
        row.columns[i] = line;
        char *tab = strchr(line, '\t');
        if ((tab == NULL) != (i + 1 == columns)) {
            die("wrong number of columns", row.columns[0]);
        }
        if (tab != NULL) {
            *tab = '\0';
            line = tab + 1;
        }
    }
    return row;
}

void vector_load(const char *path, size_t columns, struct vector_table *ret_table)
{
    *ret_table = (struct vector_table){.text = read_file(path)};
    size_t capacity = 2048;
    ret_table->rows = must(calloc(capacity, sizeof(*ret_table->rows)));
    char *line = ret_table->text;
    while (*line != '\0') {
        char *end = strchr(line, '\n');
        if (end == NULL || ret_table->count == capacity) {
            die("too long, or no last line end", path);
        }
        *end = '\0';
        if (*line != '#' && *line != '\0') {
            ret_table->rows[ret_table->count++] = split_row(line, columns);
        }
        line = end + 1;
    }
}

void vector_unload(struct vector_table *table)
{
    free(table->rows);
    free(table->text);
}

static void add(struct vector_bytes *bytes, const void *data, size_t size)
{
    bytes->data = must(realloc(bytes->data, bytes->size + size + 1));
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static uint8_t escaped(const char **text)
{
    const char *at = *text;
    *text += 1;
    switch (*at) {
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case '\\':
        return '\\';
    case 'x': {
        char digits[3] = {at[1], at[1] == '\0' ? '\0' : at[2], '\0'};
        unsigned value = 0;
        if (sscanf(digits, "%2x", &value) != 1) {
            die("escape", at);
        }
        *text += 2;
        return (uint8_t)value;
    }
    default:
        die("escape", at);
        return 0;
    }
}

static int starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

struct vector_bytes vector_decode(const char *text)
{
    struct vector_bytes bytes = {0};
    size_t repeat_from = 0;
    add(&bytes, "", 0);
    while (*text != '\0') {
        if (starts(text, "⏎")) {
            add(&bytes, "\r\n", 2);
            text += strlen("⏎");
        } else if (starts(text, "␄") || starts(text, "␡") || starts(text, "✂")) {
            bytes.end = starts(text, "␄")   ? VECTOR_END_CLEAN
                        : starts(text, "␡") ? VECTOR_END_RESET
                                            : VECTOR_END_TRUNCATED;
            text += strlen("␄");
        } else if (starts(text, "«")) {
            repeat_from = bytes.size;
            text += strlen("«");
        } else if (*text == '*' && strstr(text, "»") != NULL &&
                   strspn(text + 1, "0123456789") > 0 &&
                   starts(text + 1 + strspn(text + 1, "0123456789"), "»")) {
            unsigned count = 0;
            size_t size = bytes.size - repeat_from;
            if (sscanf(text + 1, "%u", &count) != 1) {
                die("repetition", text);
            }
            for (unsigned i = 1; i < count; i++) {
                bytes.data = must(realloc(bytes.data, bytes.size + size + 1));
                memcpy(bytes.data + bytes.size, bytes.data + repeat_from, size);
                bytes.size += size;
            }
            text = strstr(text, "»") + strlen("»");
        } else if (*text == '\\') {
            text++;
            uint8_t byte = escaped(&text);
            add(&bytes, &byte, 1);
        } else {
            add(&bytes, text, 1);
            text++;
        }
    }
    return bytes;
}

void vector_free(struct vector_bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct vector_bytes){0};
}

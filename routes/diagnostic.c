/* A bounded list of diagnostics that owns its texts. */
#include "routes/diagnostic.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_CHUNK_BYTES = 4096,
    TEXT_CAP_BYTES = 4 << 20,
    MESSAGE_BYTES_MAX = 1024, /* a message quotes configuration, which may be long */
};

void route_diagnostics_init(struct route_diagnostics *diagnostics)
{
    *diagnostics = (struct route_diagnostics){0};
    arena_init(&diagnostics->arena, TEXT_CHUNK_BYTES, TEXT_CAP_BYTES);
}

void route_diagnostics_finish(struct route_diagnostics *diagnostics)
{
    free(diagnostics->items);
    arena_finish(&diagnostics->arena);
    *diagnostics = (struct route_diagnostics){0};
}

/* Room for one more item, or NULL when the list is full or memory is short. */
static struct route_diagnostic *make_room(struct route_diagnostics *diagnostics)
{
    if (diagnostics->count >= ROUTE_DIAGNOSTICS_MAX) {
        return NULL;
    }
    if (diagnostics->count == diagnostics->capacity) {
        uint32_t capacity = diagnostics->capacity == 0 ? 16 : diagnostics->capacity * 2;
        struct route_diagnostic *items =
            realloc(diagnostics->items, capacity * sizeof(*diagnostics->items));
        if (items == NULL) {
            return NULL;
        }
        diagnostics->items = items;
        diagnostics->capacity = capacity;
    }
    return &diagnostics->items[diagnostics->count];
}

/* The file's name, shared with the previous diagnostic when it is the same. */
static const char *copy_file(struct route_diagnostics *diagnostics, const char *file)
{
    if (file == NULL) {
        return "";
    }
    if (diagnostics->count > 0) {
        const char *previous = diagnostics->items[diagnostics->count - 1].position.file;
        if (strcmp(previous, file) == 0) {
            return previous;
        }
    }
    return arena_copy_string(&diagnostics->arena, bytes_from_string(file));
}

static void add_text(struct route_diagnostics *diagnostics, enum route_severity severity,
                     struct route_position position, const char *code, const char *suggestion,
                     const char *message)
{
    if (severity == ROUTE_SEVERITY_ERROR) {
        diagnostics->errors_count++;
    } else {
        diagnostics->warnings_count++;
    }
    struct route_diagnostic *item = make_room(diagnostics);
    if (item == NULL) {
        return;
    }
    const char *file = copy_file(diagnostics, position.file);
    const char *message_copy = arena_copy_string(&diagnostics->arena, bytes_from_string(message));
    const char *suggestion_copy = NULL;
    if (suggestion != NULL) {
        suggestion_copy = arena_copy_string(&diagnostics->arena, bytes_from_string(suggestion));
    }
    if (file == NULL || message_copy == NULL) {
        return;
    }
    *item = (struct route_diagnostic){
        .severity = severity,
        .position = {file, position.line, position.column},
        .code = code,
        .message = message_copy,
        .suggestion = suggestion_copy,
    };
    diagnostics->count++;
}

/* Configuration is quoted in messages: control characters in it must not reach a terminal or a log,
 * and a character that was cut in two would be no JSON. */
static void make_printable(char *text)
{
    struct bytes rest = bytes_from_string(text);
    for (char *at = text; rest.size > 0;) {
        uint32_t code_point = 0;
        size_t size = bytes_first_character(rest, &code_point);
        bool is_control = code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
        size = size == 0 ? 1 : size;
        if (is_control) {
            memset(at, '?', size);
        }
        at += size;
        rest = bytes_skip(rest, size);
    }
}

void route_diagnostics_add(struct route_diagnostics *diagnostics, enum route_severity severity,
                           struct route_position position, const char *code, const char *suggestion,
                           const char *format, ...)
{
    char message[MESSAGE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    make_printable(message);
    add_text(diagnostics, severity, position, code, suggestion, message);
}

void route_diagnostics_append(struct route_diagnostics *diagnostics,
                              const struct route_diagnostics *from)
{
    uint32_t errors = diagnostics->errors_count + from->errors_count;
    uint32_t warnings = diagnostics->warnings_count + from->warnings_count;
    for (uint32_t i = 0; i < from->count; i++) {
        const struct route_diagnostic *item = &from->items[i];
        add_text(diagnostics, item->severity, item->position, item->code, item->suggestion,
                 item->message);
    }
    diagnostics->errors_count = errors;
    diagnostics->warnings_count = warnings;
}

static int compare_places(const struct route_diagnostic *a, const struct route_diagnostic *b)
{
    int order = strcmp(a->position.file, b->position.file);
    if (order != 0) {
        return order;
    }
    if (a->position.line != b->position.line) {
        return a->position.line < b->position.line ? -1 : 1;
    }
    if (a->position.column != b->position.column) {
        return a->position.column < b->position.column ? -1 : 1;
    }
    return 0;
}

void route_diagnostics_sort(struct route_diagnostics *diagnostics)
{
    /* Insertion sort: at most ROUTE_DIAGNOSTICS_MAX items, nearly sorted already, and stable. */
    for (uint32_t i = 1; i < diagnostics->count; i++) {
        struct route_diagnostic item = diagnostics->items[i];
        uint32_t at = i;
        while (at > 0 && compare_places(&diagnostics->items[at - 1], &item) > 0) {
            diagnostics->items[at] = diagnostics->items[at - 1];
            at--;
        }
        diagnostics->items[at] = item;
    }
}

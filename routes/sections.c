/* Line by line, looking at how each begins. */
#include "routes/sections.h"

#include <stdlib.h>
#include <string.h>

/* Does one of `texts`, which all begin with one byte, stand in the content? */
static bool has_any(struct bytes content, const struct bytes *texts, size_t count)
{
    for (struct bytes rest = content;;) {
        size_t at = bytes_find(rest, texts[0].data[0]);
        if (at == rest.size) {
            return false;
        }
        rest = bytes_skip(rest, at);
        for (size_t i = 0; i < count; i++) {
            if (bytes_starts_with(rest, texts[i])) {
                return true;
            }
        }
        rest = bytes_skip(rest, 1);
    }
}

/* Line breaks of YAML 1.1 other than "\n" (CR, NEL, LS, PS), and the byte order mark. */
static bool has_other_breaks(struct bytes content)
{
    static const struct bytes carriage_return[] = {BYTES_LITERAL("\r")};
    static const struct bytes next_line[] = {BYTES_LITERAL("\xc2\x85")};
    static const struct bytes separators[] = {BYTES_LITERAL("\xe2\x80\xa8"),
                                              BYTES_LITERAL("\xe2\x80\xa9")};
    static const struct bytes byte_order_mark[] = {BYTES_LITERAL("\xef\xbb\xbf")};
    return has_any(content, carriage_return, 1) || has_any(content, next_line, 1) ||
           has_any(content, separators, 2) || has_any(content, byte_order_mark, 1);
}

static bool begins_document(struct bytes line)
{
    return bytes_starts_with(line, BYTES("---")) &&
           (line.size == 3 || line.data[3] == ' ' || line.data[3] == '\t' || line.data[3] == '\n');
}

/* A line with which a document may end or begin in another way; or JSON at the file's begin. */
static bool is_odd(struct bytes line, bool is_first)
{
    struct bytes word = is_first ? bytes_trim(line) : line;
    return bytes_starts_with(line, BYTES("%")) || bytes_starts_with(line, BYTES("...")) ||
           (is_first &&
            (bytes_starts_with(word, BYTES("{")) || bytes_starts_with(word, BYTES("["))));
}

static struct error add_section(struct route_sections *sections, struct bytes rest, uint32_t line)
{
    if (sections->count == sections->capacity) {
        uint32_t capacity = sections->capacity * 2 + 64;
        struct route_section *items = realloc(sections->items, capacity * sizeof(*items));
        if (items == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        sections->items = items;
        sections->capacity = capacity;
    }
    sections->items[sections->count++] = (struct route_section){.text = rest, .line = line};
    return OK;
}

/* The last section ends where `rest` begins, before `line`. */
static void end_section(struct route_sections *sections, struct bytes rest, uint32_t line)
{
    if (sections->count > 0) {
        struct route_section *last = &sections->items[sections->count - 1];
        last->text.size -= rest.size;
        last->lines_count = line - last->line;
    }
}

FALLIBLE route_sections_divide(struct bytes content, struct route_sections *ret_sections)
{
    *ret_sections = (struct route_sections){0};
    if (has_other_breaks(content)) {
        return OK;
    }
    uint32_t line = 1;
    bool is_before_text = true; /* only blank lines so far */
    for (struct bytes rest = content; rest.size > 0; line++) {
        if (is_odd(rest, is_before_text)) {
            route_sections_finish(ret_sections);
            return OK;
        }
        if (line == 1 || begins_document(rest)) {
            end_section(ret_sections, rest, line);
            TRY(add_section(ret_sections, rest, line));
        }
        size_t end = bytes_find(rest, '\n');
        is_before_text = is_before_text && bytes_trim(bytes_first(rest, end)).size == 0;
        rest = bytes_skip(rest, end < rest.size ? end + 1 : end);
    }
    end_section(ret_sections, bytes_skip(content, content.size), line);
    return OK;
}

void route_sections_finish(struct route_sections *sections)
{
    free(sections->items);
    *sections = (struct route_sections){0};
}

/* Characters by the C library's table of widths: the caret stands where a terminal puts the
 * character.
 */
#include "cli/excerpt.h"

#include <locale.h>
#include <stdbool.h>
#include <wchar.h>

enum {
    WINDOW_CHARACTERS = 100, /* of a longer line as much is shown, around the place */
};

/* One character as it is printed. */
struct glyph {
    size_t bytes;
    int columns;
    bool is_masked; /* shown as '?' */
};

/* Marks that reorder or hide what stands beside them: a line must look like what it is. */
static bool is_deceptive(uint32_t code_point)
{
    return code_point == 0x061c || code_point == 0xfeff ||
           (code_point >= 0x200b && code_point <= 0x200f) ||
           (code_point >= 0x2028 && code_point <= 0x202e) ||
           (code_point >= 0x2060 && code_point <= 0x206f);
}

static struct glyph read_glyph(struct bytes text)
{
    uint32_t code_point = 0;
    size_t size = bytes_first_character(text, &code_point);
    int columns = size == 0 || is_deceptive(code_point) ? -1 : wcwidth((wchar_t)code_point);
    if (columns < 0) {
        return (struct glyph){.bytes = size == 0 ? 1 : size, .columns = 1, .is_masked = true};
    }
    return (struct glyph){.bytes = size, .columns = columns};
}

static struct bytes skip_glyphs(struct bytes text, uint32_t count)
{
    for (; text.size > 0 && count > 0; count--) {
        size_t size = text.data[0] < 0x80 ? 1 : bytes_first_character(text, NULL);
        text = bytes_skip(text, size == 0 ? 1 : size);
    }
    return text;
}

/* Print up to `count` characters; returns the columns of the first `before` of them. */
static int print_glyphs(FILE *out, struct bytes text, uint32_t count, uint32_t before)
{
    int columns = 0;
    for (uint32_t i = 0; i < count && text.size > 0; i++) {
        struct glyph glyph = read_glyph(text);
        uint8_t byte = text.data[0];
        if (byte == '\t' || (byte == '\r' && text.size == 1)) {
            (void)putc(' ', out);
        } else if (glyph.is_masked) {
            (void)putc('?', out);
        } else {
            (void)fwrite(text.data, 1, glyph.bytes, out);
        }
        columns += i < before ? glyph.columns : 0;
        text = bytes_skip(text, glyph.bytes);
    }
    return columns;
}

void excerpt_print(FILE *out, struct bytes line, uint32_t number, uint32_t column)
{
    /* The widths are those of UTF-8, whatever the locale of who calls; without it all are masked
     * but ASCII. */
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 == (locale_t)0 ? (locale_t)0 : uselocale(utf8);
    if (number == 1 && bytes_starts_with(line, BYTES("\xef\xbb\xbf"))) {
        line = bytes_skip(line, 3);
    }
    bool is_near = column <= WINDOW_CHARACTERS - 10;
    uint32_t first = is_near ? 1 : column - WINDOW_CHARACTERS / 2;
    uint32_t indent = column > first ? column - first : 0;
    (void)fprintf(out, "%6u | ", number);
    int columns = print_glyphs(out, skip_glyphs(line, first - 1), WINDOW_CHARACTERS, indent);
    (void)fprintf(out, "\n       | %*s^\n", columns, "");
    if (utf8 != (locale_t)0) {
        (void)uselocale(before);
        freelocale(utf8);
    }
}

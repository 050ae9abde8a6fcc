/* Carets: under which column they stand, and what is never printed. */
#include "cli/excerpt.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static char *print(const char *line, uint32_t number, uint32_t column)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    cr_assert_not_null(out);
    excerpt_print(out, bytes_from_string(line), number, column);
    cr_assert_eq(fclose(out), 0);
    return text;
}

Test(excerpt, the_caret_stands_where_a_terminal_shows_the_character)
{
    static const struct {
        const char *line;
        uint32_t column;
        const char *shown;
    } cases[] = {
        {"port: 80", 7, "     2 | port: 80\n       |       ^\n"},
        {"\tport: 80\r", 8, "     2 |  port: 80 \n       |        ^\n"},
        {"\u00e9\u00e9: x", 5, "     2 | \u00e9\u00e9: x\n       |     ^\n"},
        /* Two columns each. */
        {"\u65e5\u672c: x", 5, "     2 | \u65e5\u672c: x\n       |       ^\n"},
        {"\U0001f600: x", 4, "     2 | \U0001f600: x\n       |     ^\n"},
        /* None: an accent of its own. */
        {"e\u0301: x", 5, "     2 | e\u0301: x\n       |    ^\n"},
        /* Past the end, and no column at all. */
        {"ab", 3, "     2 | ab\n       |   ^\n"},
        {"ab", 0, "     2 | ab\n       | ^\n"},
        {"", 1, "     2 | \n       | ^\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = print(cases[i].line, 2, cases[i].column);
        cr_expect_str_eq(text, cases[i].shown, "case %zu: %s", i, text);
        free(text);
    }
}

Test(excerpt, nothing_in_a_line_steers_the_terminal)
{
    static const struct {
        const char *line;
        const char *shown;
    } cases[] = {
        {"a\x1b[31mb", "     2 | a?[31mb\n       |  ^\n"},
        {"a\x7f\x01", "     2 | a??\n       |  ^\n"},
        {"a\xc2\x9b"
         "31mb",
         "     2 | a?31mb\n       |  ^\n"}, /* CSI in one character */
        {"a\u202eb\u2066c", "     2 | a?b?c\n       |  ^\n"},
        {"a\u2028b", "     2 | a?b\n       |  ^\n"},
        {"a\xed\xa0\x80", "     2 | a???\n       |  ^\n"},
        {"a\xc0\x80\xff", "     2 | a???\n       |  ^\n"},
        {"a\xf4\x90\x80\x80", "     2 | a????\n       |  ^\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = print(cases[i].line, 2, 2);
        cr_expect_str_eq(text, cases[i].shown, "case %zu: %s", i, text);
        free(text);
    }
}

Test(excerpt, a_byte_order_mark_is_no_character_of_the_first_line)
{
    char *text = print("\xef\xbb\xbf"
                       "a: b",
                       1, 4);
    cr_expect_str_eq(text, "     1 | a: b\n       |    ^\n");
    free(text);
}

Test(excerpt, of_a_long_line_a_window_is_shown)
{
    char line[2001];
    memset(line, 'x', 2000);
    line[2000] = '\0';
    line[1233] = '!';
    char *text = print(line, 2, 1234);
    const char *second = strchr(text, '\n') + 1;
    cr_expect_lt(second - text, 120);
    cr_expect_eq(text[strchr(second, '^') - second], '!', "%s", text);
    free(text);
}

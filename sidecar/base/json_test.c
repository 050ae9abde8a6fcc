/* JSON output: order, escapes, repair of bytes that are not UTF-8, and values that lost a part. */
#include "base/json.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void expect(struct json *value, const char *want)
{
    char *text = json_print(value, 0);
    cr_assert_not_null(text);
    cr_expect_str_eq(text, want);
    free(text);
}

Test(json, prints_members_in_order)
{
    struct json *object = json_new_object();
    json_put(object, "b", json_new_number(-7));
    json_put(object, "a", json_new_boolean(true));
    struct json *array = json_new_array();
    json_push(array, json_new_null());
    json_push(array, json_new_text("x\"\n"));
    json_push(array, json_new_text(NULL));
    json_put(object, "list", array);
    expect(object, "{\"b\":-7,\"a\":true,\"list\":[null,\"x\\\"\\n\",null]}");
}

Test(json, repairs_what_is_not_utf8)
{
    static const struct {
        struct bytes text;
        const char *want;
    } cases[] = {
        {BYTES_LITERAL(""), "\"\""},
        {BYTES_LITERAL("a\xff"), "\"a\xef\xbf\xbd\""},
        {BYTES_LITERAL("\xc3\xa9"), "\"\xc3\xa9\""},
        {BYTES_LITERAL("\xc3"), "\"\xef\xbf\xbd\""},
        {BYTES_LITERAL("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {BYTES_LITERAL("a\0b\x80"), "\"a\\u0000b\xef\xbf\xbd\""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        expect(json_new_string(cases[i].text), cases[i].want);
    }
}

Test(json, never_prints_a_value_that_lost_a_part)
{
    struct json *object = json_new_object();
    json_put(object, "a", NULL);
    cr_assert_null(json_print(object, 0));
    struct json *array = json_new_array();
    json_push(array, NULL);
    cr_assert_null(json_print(array, 2));
    cr_assert_null(json_print(NULL, 0));
}

Test(json, prints_text_for_people)
{
    struct json *rows = json_new_array();
    for (int i = 0; i < 2; i++) {
        struct json *row = json_new_object();
        json_put(row, "name", json_new_text(i == 0 ? "web" : "a-longer-one"));
        json_put(row, "port", json_new_number(80 + i));
        json_push(rows, row);
    }
    struct json *object = json_new_object();
    json_put(object, "ready", json_new_boolean(true));
    json_put(object, "why", json_new_null());
    json_put(object, "services", rows);
    char *text = json_print_text(object);
    cr_assert_not_null(text);
    cr_assert_str_eq(text, "ready     true\n"
                           "why       -\n"
                           "services\n"
                           "    name          port\n"
                           "    web           80\n"
                           "    a-longer-one  81\n");
    free(text);
    rows = json_new_array();
    for (int i = 0; i < 2; i++) { /* only the second has anything below it */
        struct json *inner = json_new_array();
        if (i == 1) {
            struct json *row = json_new_object();
            json_put(row, "type", json_new_text("Accepted"));
            json_push(inner, row);
        }
        struct json *row = json_new_object();
        json_put(row, "name", json_new_text("r"));
        json_put(row, "conditions", inner);
        json_push(rows, row);
    }
    text = json_print_text(rows);
    cr_assert_str_eq(text, "name\nr\nr\n    type\n    Accepted\n");
    free(text);
    struct json *lines = json_new_array();
    json_push(lines, json_new_text("stream 1"));
    json_push(lines, json_new_text("op 2"));
    text = json_print_text(lines);
    cr_assert_str_eq(text, "stream 1\nop 2\n");
    free(text);
    text = json_print_text(json_new_array());
    cr_assert_str_eq(text, "none\n");
    free(text);
}

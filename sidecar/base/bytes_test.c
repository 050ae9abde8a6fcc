/* Views of bytes. */
#include "base/bytes.h"

#include <criterion/criterion.h>

Test(bytes, parses_decimals_strictly)
{
    static const struct {
        const char *text;
        enum error_code code;
        uint64_t value;
    } cases[] = {
        {"0", ERROR_NONE, 0},
        {"007", ERROR_NONE, 7},
        {"65535", ERROR_NONE, 65535},
        {"65536", ERROR_LIMIT, 0},
        {"", ERROR_SYNTAX, 0},
        {"+5", ERROR_SYNTAX, 0},
        {"-1", ERROR_SYNTAX, 0},
        {"5 ", ERROR_SYNTAX, 0},
        {"0x5", ERROR_SYNTAX, 0},
        {"18446744073709551616", ERROR_LIMIT, 0},
        {"18446744073709551616x", ERROR_SYNTAX, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t value = 0;
        struct error error = bytes_parse_decimal(bytes_from_string(cases[i].text), 65535, &value);
        cr_expect_eq(error.code, cases[i].code, "%s", cases[i].text);
        cr_expect_eq(value, cases[i].value, "%s", cases[i].text);
    }
    uint64_t most = 0;
    cr_assert_not(error_is(bytes_parse_decimal(BYTES("18446744073709551615"), UINT64_MAX, &most)));
    cr_assert_eq(most, UINT64_MAX);
}

Test(bytes, prints_what_it_parses)
{
    static const uint64_t values[] = {0, 9, 10, 4096, UINT64_MAX};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        uint8_t text[20];
        uint64_t value = 1;
        size_t size = bytes_print_decimal(values[i], text);
        cr_assert_not(error_is(bytes_parse_decimal(bytes_make(text, size), UINT64_MAX, &value)));
        cr_assert_eq(value, values[i]);
    }
}

Test(bytes, finds_trims_splits_and_compares)
{
    cr_assert_eq(bytes_find(BYTES("abc"), 'c'), 2);
    cr_assert_eq(bytes_find(BYTES("abc"), 'x'), 3);
    cr_assert_eq(bytes_find_bytes(BYTES("abcabd"), BYTES("abd")), 3);
    cr_assert_eq(bytes_find_bytes(BYTES("ab"), BYTES("abc")), 2);
    cr_assert(bytes_equal(bytes_trim(BYTES(" \ta b\t ")), BYTES("a b")));
    cr_assert_eq(bytes_trim(BYTES("  ")).size, 0);
    struct bytes rest = BYTES("a,,b");
    cr_assert(bytes_equal(bytes_split(&rest, ','), BYTES("a")));
    cr_assert(bytes_equal(bytes_split(&rest, ','), BYTES("")));
    cr_assert(bytes_equal(bytes_split(&rest, ','), BYTES("b")));
    cr_assert_eq(rest.size, 0);
    cr_assert(bytes_equal_nocase(BYTES("Content-Length"), BYTES("content-lengtH")));
    cr_assert_not(bytes_equal_nocase(BYTES("a@"), BYTES("a`")));
    cr_assert_lt(bytes_compare(BYTES("ab"), BYTES("abc")), 0);
    cr_assert_gt(bytes_compare(BYTES("b"), BYTES("abc")), 0);
    cr_assert_eq(bytes_compare(BYTES(""), BYTES("")), 0);
}

Test(bytes, knows_characters_by_rfc_3629)
{
    static const struct {
        const char *text;
        size_t size;
        uint32_t code_point;
    } cases[] = {
        {"a", 1, 'a'},
        {"\xc2\x80", 2, 0x80},
        {"\xc3\xa9x", 2, 0xe9},
        {"\xe0\xa0\x80", 3, 0x800},
        {"\xef\xbb\xbf", 3, 0xfeff},
        {"\xf0\x9f\x98\x80", 4, 0x1f600},
        {"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
        {"\x80", 0, 0},
        {"\xc0\x80", 0, 0},
        {"\xc3", 0, 0},
        {"\xc3(", 0, 0},
        {"\xe0\x9f\xbf", 0, 0},
        {"\xed\xa0\x80", 0, 0},
        {"\xf0\x8f\xbf\xbf", 0, 0},
        {"\xf4\x90\x80\x80", 0, 0},
        {"\xf0\x9f\x98", 0, 0},
        {"\xff", 0, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t code_point = 0;
        size_t size = bytes_first_character(bytes_from_string(cases[i].text), &code_point);
        cr_expect_eq(size, cases[i].size, "case %zu: %zu", i, size);
        cr_expect_eq(code_point, cases[i].code_point, "case %zu: %x", i, code_point);
    }
}

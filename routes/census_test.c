/* The count is never more than a parser finds, exact where people write, and fast. */
#include "routes/census.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "routes/yaml.h"

/* Nodes by libyaml's events; -1 when it refuses the text. */
static int64_t parse(struct bytes text)
{
    struct route_diagnostics diagnostics;
    struct arena arena;
    struct route_yaml *yaml = NULL;
    const struct route_node *document = NULL;
    route_diagnostics_init(&diagnostics);
    arena_init(&arena, 4096, 64 << 20);
    struct error error = route_yaml_create("f", text, &diagnostics, &yaml);
    do {
        error = error_is(error) ? error : route_yaml_next(yaml, &arena, &document);
    } while (!error_is(error) && document != NULL);
    int64_t count = error_is(error) ? -1 : (int64_t)route_yaml_nodes_count(yaml);
    route_yaml_destroy(yaml);
    arena_finish(&arena);
    route_diagnostics_finish(&diagnostics);
    return count;
}

static uint32_t count(const char *text)
{
    struct route_spot spot;
    return route_census(bytes_from_string(text), UINT32_MAX, &spot);
}

Test(census, counts_what_is_plain_to_see)
{
    static const struct {
        const char *text;
        uint32_t count;
    } cases[] = {
        {"a: 1\nb: 2\n", 2},
        {"a:\n- 1\n- b: 2\n  c: 3\n- - 4\n", 7},
        {"{\"a\":[1,2,{\"b\":\"x,y\"}],\"c\":\"d\"}", 3},
        {"--- a\n---\n--- {b: c, d: e}\n", 4},
        /* Text is no structure. */
        {"a: |\n  b: 1\n  - 2\nc: 3\n", 2},
        {"- |\n a: 1\n\n b: 2\n- x\n", 2},
        {"a: >-\n   b: 1\n  # c: 1\nd: x\n", 2},
        {"a: b\n  - c\n  - d\ne: f\n", 2},
        {"a:\n  b\n  c\nd: e\n", 2},
        {"a: \"b: 1\n\n  - c, d: \\\" e: 2\"\nf: 3\n", 2},
        {"a: 'it''s\n  b: 1'\nc: 2\n", 2},
        {"a: [it's, b:\"c, 'd, e', \"f, g\"] # h, i: j\nk: 2\n", 5},
        {"# a: 1\n\n  # b\nc: 1 # d: 2\n", 1},
        {"a: [1,#2,3\n 4]\n", 2},
        {"a#b: 1\nc: d#e\n", 2},
        {"\"a: b\": 1\n'c': \"d\"\n\"e\"\n", 2},
        {"a: http://b/c\n\"d\":e\n", 1},
        /* Not understood: what is certain by then. */
        {"a: 1\n? b\n: c\nd: 2\n", 1},
        {"a: 1\nb: !!str c\nd: 2\n", 2},
        {"a: 1\rb: 2\n", 0},
        {"a: \"x\xe2\x80\xa8\"\nb: 2\n", 0},
        {"a: 1\r\nb:\r\n- 2\r\n- 3\r\n", 4},
        {"", 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(count(cases[i].text), cases[i].count, "%s: %u", cases[i].text,
                     count(cases[i].text));
        int64_t nodes = parse(bytes_from_string(cases[i].text));
        cr_expect(nodes < 0 || nodes >= cases[i].count, "%s: %lld nodes", cases[i].text,
                  (long long)nodes);
    }
}

Test(census, is_never_more_than_a_parser_finds)
{
    static const char *const pieces[] = {
        "a",     "b c",     ": ",      ":",    "- ",     "-",         "\n", "\n ", "\n  ",
        "\n   ", "\n\n",    "[",       "]",    "{",      "}",         ",",  "\"",  "'",
        "''",    "\\\"",    "|",       ">",    "|2",     "#",         " #", "? ",  "!!str ",
        "---",   "\n---\n", "\t",      "\r\n", "...",    "%",         "&",  "1",   "null",
        " ",     "key: ",   "\nkey: ", "\n- ", "\n  - ", "\n  key: ",
    };
    uint32_t seed = 12345;
    uint32_t accepted = 0;
    for (uint32_t round = 0; round < 200000 / OUTRIGGER_TEST_DIVISOR; round++) {
        char text[160];
        size_t size = 0;
        seed = seed * 1103515245u + 12345u;
        for (uint32_t i = 0; i < 2 + (seed >> 16) % 14; i++) {
            seed = seed * 1103515245u + 12345u;
            const char *piece = pieces[(seed >> 16) % (sizeof(pieces) / sizeof(pieces[0]))];
            memcpy(text + size, piece, strlen(piece));
            size += strlen(piece);
        }
        text[size] = '\0';
        int64_t nodes = parse(bytes_make(text, size));
        accepted += nodes > 0;
        cr_assert(nodes < 0 || count(text) <= nodes, "round %u: %u, parsed %lld:\n%s", round,
                  count(text), (long long)nodes, text);
    }
    cr_assert_gt(accepted, 5000 / OUTRIGGER_TEST_DIVISOR, "only %u texts were YAML", accepted);
}

Test(census, tells_where_there_are_too_many)
{
    struct route_spot spot = {0};
    cr_expect_gt(route_census(BYTES("a: 1\nb: [\xc3\xa9, 2, 3, 4]\n"), 4, &spot), 4);
    cr_expect_eq(spot.line, 2);
    cr_expect_eq(spot.column, 13);
    cr_expect_gt(route_census(BYTES("a: 1\nb: 2\n c: d\ne: 3\n"), 2, &spot), 2);
    cr_expect_eq(spot.line, 4);
}

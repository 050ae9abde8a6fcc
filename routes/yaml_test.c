/* YAML and JSON in: the tree, its places, and everything that is refused. */
#include "routes/yaml.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct reading {
    struct route_diagnostics diagnostics;
    struct arena arena;
    struct route_yaml *yaml;
    struct error error;
    const struct route_node *document; /* the first */
    uint32_t documents;
};

/* Read all documents of `content`. */
static void read_all(struct reading *reading, struct bytes content)
{
    *reading = (struct reading){0};
    route_diagnostics_init(&reading->diagnostics);
    arena_init(&reading->arena, 4096, 64 << 20);
    reading->error = route_yaml_create("f.yaml", content, &reading->diagnostics, &reading->yaml);
    while (!error_is(reading->error)) {
        const struct route_node *document = NULL;
        reading->error = route_yaml_next(reading->yaml, &reading->arena, &document);
        if (error_is(reading->error) || document == NULL) {
            break;
        }
        if (reading->documents++ == 0) {
            reading->document = document;
        }
    }
}

static void finish(struct reading *reading)
{
    route_yaml_destroy(reading->yaml);
    arena_finish(&reading->arena);
    route_diagnostics_finish(&reading->diagnostics);
}

Test(yaml, keeps_the_place_of_every_key_and_value)
{
    struct reading reading;
    read_all(&reading, BYTES("kind: HTTPRoute\nspec:\n  rules:\n  - name: \"a\"\n    port: 80\n"));
    cr_assert(!error_is(reading.error));
    cr_assert_eq(reading.documents, 1);
    const struct route_node *rules =
        route_node_find(route_node_find(reading.document, "spec"), "rules");
    cr_assert_not_null(rules);
    cr_assert_eq(rules->type, ROUTE_NODE_SEQUENCE);
    cr_assert_eq(rules->key_line, 3);
    cr_assert_eq(rules->key_column, 3);
    const struct route_node *name = route_node_find(rules->first, "name");
    cr_assert(bytes_equal(route_node_text(name), BYTES("a")));
    cr_assert_not(name->is_plain);
    cr_assert_eq(name->line, 4);
    cr_assert_eq(name->column, 11);
    const struct route_node *port = route_node_find(rules->first, "port");
    cr_assert(port->is_plain);
    cr_assert_eq(port->line, 5);
    cr_assert_eq(port->column, 11);
    cr_assert_null(route_node_find(rules->first, "nam"));
    finish(&reading);
}

Test(yaml, reads_many_documents_and_empty_ones_as_null)
{
    struct reading reading;
    read_all(&reading, BYTES("\xef\xbb\xbf---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n"));
    cr_assert(!error_is(reading.error));
    cr_assert_eq(reading.documents, 4);
    finish(&reading);
    read_all(&reading, BYTES(""));
    cr_assert(!error_is(reading.error));
    cr_assert_eq(reading.documents, 0);
    finish(&reading);
}

Test(yaml, reads_json_with_surrogate_pairs_and_escapes)
{
    struct reading reading;
    read_all(&reading,
             BYTES("{\n\t\"a\": \"x\\ud83d\\ude00y\", \"b\": \"\\\\ud83d\", \"c\":[1,true,null],"
                   "\"d\":\"\\/\\u00e9\"}\n"));
    cr_assert(!error_is(reading.error));
    const struct route_node *document = reading.document;
    cr_assert(
        bytes_equal(route_node_text(route_node_find(document, "a")), BYTES("x\xf0\x9f\x98\x80y")));
    cr_assert(bytes_equal(route_node_text(route_node_find(document, "b")), BYTES("\\ud83d")));
    cr_assert(bytes_equal(route_node_text(route_node_find(document, "d")), BYTES("/\xc3\xa9")));
    cr_assert_eq(route_node_find(document, "c")->count, 3);
    finish(&reading);
}

Test(yaml, keeps_places_behind_surrogate_pairs)
{
    struct reading reading;
    read_all(
        &reading,
        BYTES(
            "{\"\\ud83d\\ude00\": 1, \"\u00e9\\\\\": \"\\ud83d\\ude00 \\uD83D\\uDE00\",\"c\": 3,\n"
            " \"d\": 4, \"e\": \"\\ud83d\\ude00\", \"f\": 5}"));
    cr_assert(!error_is(reading.error));

    static const struct {
        const char *key;
        uint32_t line;
        uint32_t column;
    } cases[] = {
        {"\xf0\x9f\x98\x80", 1, 18},
        {"\u00e9\\", 1, 28},
        {"c", 1, 61},
        {"d", 2, 7},
        {"e", 2, 15},
        {"f", 2, 36},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct route_node *node = route_node_find(reading.document, cases[i].key);
        cr_assert_not_null(node, "%s", cases[i].key);
        cr_expect_eq(node->line, cases[i].line, "%s: line %u", cases[i].key, node->line);
        cr_expect_eq(node->column, cases[i].column, "%s: column %u", cases[i].key, node->column);
    }
    finish(&reading);
}

Test(yaml, says_what_a_tab_and_utf_16_are)
{
    static const struct {
        struct bytes content;
        const char *words;
    } cases[] = {
        {BYTES_LITERAL("metadata:\n\tname: x\n"), "a tab cannot indent"},
        {BYTES_LITERAL("\xff\xfe"
                       "a\0:\0"),
         "save it as UTF-8"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reading reading;
        read_all(&reading, cases[i].content);
        cr_assert_eq(reading.diagnostics.count, 1);
        cr_expect_not_null(strstr(reading.diagnostics.items[0].message, cases[i].words), "%s",
                           reading.diagnostics.items[0].message);
        finish(&reading);
    }
}

Test(yaml, leaves_text_that_looks_like_a_surrogate_pair_alone_in_yaml)
{
    struct reading reading;
    read_all(&reading, BYTES("a: '\\ud83d\\ude00'\n"));
    cr_assert(!error_is(reading.error));
    cr_assert(bytes_equal(route_node_text(route_node_find(reading.document, "a")),
                          BYTES("\\ud83d\\ude00")));
    finish(&reading);
}

Test(yaml, refuses_what_kubernetes_never_writes_with_place_and_code)
{
    static const struct {
        struct bytes content;
        const char *code;
        uint32_t line;
        uint32_t column;
    } cases[] = {
        {BYTES_LITERAL("a: &x 1\n"), "alias", 1, 4},
        {BYTES_LITERAL("a: *x\n"), "alias", 1, 4},
        {BYTES_LITERAL("a: !secret x\n"), "tag", 1, 4},
        {BYTES_LITERAL("a: !!python/object x\n"), "tag", 1, 4},
        {BYTES_LITERAL("a: !!binary aGk=\n"), "tag", 1, 4},
        {BYTES_LITERAL("b: 1\n<<: {a: 1}\n"), "merge-key", 2, 1},
        {BYTES_LITERAL("port: 1\nport: 2\n"), "duplicate-key", 2, 1},
        {BYTES_LITERAL("{\"a\": {\"b\": 1, \"b\": 2}}"), "duplicate-key", 1, 16},
        {BYTES_LITERAL("? [a]\n: 1\n"), "key-not-text", 1, 3},
        {BYTES_LITERAL("host: \"a\\0b\"\n"), "nul-byte", 1, 7},
        {BYTES_LITERAL("\"a\\0b\": 1\n"), "nul-byte", 1, 1},
        {BYTES_LITERAL("a: b\0c\n"), "nul-byte", 1, 5},
        {BYTES_LITERAL("a: 1\nb: \xff\n"), "not-utf8", 2, 4},
        {BYTES_LITERAL("a: \xc0\xaf\n"), "not-utf8", 1, 4},
        {BYTES_LITERAL("a: \xed\xa0\x80\n"), "not-utf8", 1, 4},
        {BYTES_LITERAL("a: \xc3"), "not-utf8", 1, 4},
        {BYTES_LITERAL("a: \x1b[31m\n"), "control-character", 1, 4},
        {BYTES_LITERAL("a: 1\n\u00e9: \xc2\x9b"
                       "31m\n"),
         "control-character", 2, 4},
        {BYTES_LITERAL("a: \xef\xbf\xbe\n"), "control-character", 1, 4},
        {BYTES_LITERAL("\xff\xfe"
                       "a\0"),
         "not-utf8", 1, 1},
        {BYTES_LITERAL("a\0:\0"), "not-utf8", 1, 1},
        {BYTES_LITERAL("\xfe\xff\0a\0:"), "not-utf8", 1, 1},
        {BYTES_LITERAL("{\"a\": \"\\ud83d\"}"), "not-yaml", 1, 0},
        {BYTES_LITERAL("a: [1\n"), "not-yaml", 2, 0},
        {BYTES_LITERAL("a: b: c\n"), "not-yaml", 1, 0},
        {BYTES_LITERAL("\ta: 1\n"), "not-yaml", 1, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reading reading;
        read_all(&reading, cases[i].content);
        cr_assert_eq(reading.error.code, ERROR_CONFIG, "case %zu was taken", i);
        cr_assert_eq(reading.diagnostics.count, 1, "case %zu", i);
        const struct route_diagnostic *item = &reading.diagnostics.items[0];
        cr_assert_str_eq(item->code, cases[i].code, "case %zu: %s", i, item->code);
        cr_assert_eq(item->position.line, cases[i].line, "case %zu: line %u", i,
                     item->position.line);
        if (cases[i].column != 0) {
            cr_assert_eq(item->position.column, cases[i].column, "case %zu: column %u", i,
                         item->position.column);
        }
        finish(&reading);
    }
}

/* `text` as often as fits into `size` bytes; the caller frees it. */
static struct bytes repeat(const char *text, size_t size)
{
    size_t length = strlen(text);
    uint8_t *data = malloc(size);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)text[i % length];
    }
    return bytes_make(data, size);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

Test(yaml, refuses_bombs_at_once)
{
    static const struct {
        const char *text;
        size_t size;
        const char *code;
    } cases[] = {
        {"[", 100000, "too-deep"},
        {"[", 1000000, "too-deep"},
        {"{a: ", 256000, "too-deep"},
        {"- ", 200000, "too-deep"},
        {"? ", 200000, "key-not-text"},
        {"x", 2000000, "too-long"},
        {"%TAG !a! b\n", 1000000, "not-yaml"},
        {"a", 9 << 20, "too-large"},
        {"&a [*a,", 100000, "alias"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bytes content = repeat(cases[i].text, cases[i].size);
        double begin = now_ms();
        struct reading reading;
        read_all(&reading, content);
        double spent = now_ms() - begin;
        cr_assert_eq(reading.error.code, ERROR_CONFIG, "case %zu was taken", i);
        cr_assert_eq(reading.diagnostics.count, 1, "case %zu", i);
        cr_assert_str_eq(reading.diagnostics.items[0].code, cases[i].code, "case %zu: %s", i,
                         reading.diagnostics.items[0].code);
        /* Sanitizers are slow and the machine is shared; quadratic work would take minutes. */
        cr_assert_lt(spent, 1000.0, "case %zu took %.1f ms", i, spent);
        finish(&reading);

        union {
            const uint8_t *borrowed;
            void *owned;
        } data = {.borrowed = content.data};

        free(data.owned);
    }
}

Test(yaml, finds_a_duplicate_among_many_keys)
{
    static char text[200000];
    size_t size = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        size += (size_t)snprintf(text + size, sizeof(text) - size, "key%u: 1\n", i);
    }
    size += (size_t)snprintf(text + size, sizeof(text) - size, "key77: 1\n");
    struct reading reading;
    read_all(&reading, bytes_make(text, size));
    cr_assert_eq(reading.error.code, ERROR_CONFIG);
    cr_assert_str_eq(reading.diagnostics.items[0].code, "duplicate-key");
    cr_assert_eq(reading.diagnostics.items[0].position.line, 10001);
    finish(&reading);
}

Test(yaml, bounds_the_number_of_nodes)
{
    struct bytes content = repeat("- 1\n", 4 * (ROUTE_FILE_NODES_MAX + 10));
    struct reading reading;
    read_all(&reading, content);
    cr_assert_eq(reading.error.code, ERROR_CONFIG);
    cr_assert_str_eq(reading.diagnostics.items[0].code, "too-many-nodes");
    finish(&reading);

    union {
        const uint8_t *borrowed;
        void *owned;
    } data = {.borrowed = content.data};

    free(data.owned);
}

Test(yaml, survives_every_failed_allocation)
{
    for (uint32_t n = 1; n < 30; n++) {
        struct route_diagnostics diagnostics;
        route_diagnostics_init(&diagnostics);
        struct arena arena;
        arena_init(&arena, 256, 1 << 20);
        struct route_yaml *yaml = NULL;
        const struct route_node *document = NULL;
        struct error error =
            route_yaml_create("f", BYTES("a: {b: [1, 2, {c: d}]}\ne: f\n"), &diagnostics, &yaml);
        cr_assert(!error_is(error));
        arena_fail_after(&arena, n);
        error = route_yaml_next(yaml, &arena, &document);
        if (!error_is(error)) {
            cr_assert_gt(n, 5);
        } else {
            cr_assert_eq(error.code, ERROR_NO_MEMORY);
        }
        route_yaml_destroy(yaml);
        arena_finish(&arena);
        route_diagnostics_finish(&diagnostics);
    }
}

Test(yaml, knows_the_spellings_of_null)
{
    struct reading reading;
    read_all(&reading, BYTES("{a: , b: null, c: ~, d: 'null', e: \"\", f: no}"));

    static const struct {
        const char *key;
        bool is_null;
    } cases[] = {{"a", true},  {"b", true},  {"c", true},      {"d", false},
                 {"e", false}, {"f", false}, {"missing", true}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(route_node_is_null(route_node_find(reading.document, cases[i].key)),
                     cases[i].is_null, "%s", cases[i].key);
    }
    finish(&reading);
}

/* Where a file is divided, and where not; and that what is read of a section is what is read of it
 * in the whole file. */
#include "routes/sections.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "routes/diagnostic.h"
#include "routes/yaml.h"

Test(sections, begin_where_documents_do)
{
    static const struct {
        const char *text;
        uint32_t lines[5]; /* where sections begin, 0 behind the last */
    } cases[] = {
        {"a: 1\n", {1}},
        {"---\na: 1\n---\nb: 2\n", {1, 3}},
        {"# first\na: 1\n--- {b: 2}\n---\tc\n---", {1, 3, 4, 5}},
        {"a: |\n  ---\n  x\n----\n---x\n", {1}},
        {"a: caf\303\251 \342\202\254\n---\nb: 1\n", {1, 2}},
        {"# {\n---\na: 1\n", {1, 2}},
        /* Not divided: other line breaks, directives, ends, JSON. */
        {"a: 1\r\n---\r\nb: 2\r\n", {0}},
        {"a: 1\302\205---\nb: 2\n", {0}},
        {"a: 1\342\200\250---\nb: 2\n", {0}},
        {"\357\273\277a: 1\n---\nb: 2\n", {0}},
        {"%YAML 1.1\n---\na: 1\n", {0}},
        {"a: 1\n...\nb: 2\n", {0}},
        {"{}\n---\na: 1\n", {0}},
        {"\n \n\t[]\n---\na: 1\n", {0}},
        {"", {0}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct route_sections sections;
        struct bytes content = bytes_from_string(cases[i].text);
        cr_assert_not(error_is(route_sections_divide(content, &sections)));
        uint32_t count = 0;
        size_t size = 0;
        for (; cases[i].lines[count] != 0; count++) {
            cr_assert_lt(count, sections.count, "%s", cases[i].text);
            cr_assert_eq(sections.items[count].line, cases[i].lines[count], "%s", cases[i].text);
            cr_assert_eq(sections.items[count].text.data, content.data + size);
            size += sections.items[count].text.size;
        }
        cr_assert_eq(sections.count, count, "%s", cases[i].text);
        cr_assert(count == 0 || size == content.size, "%s", cases[i].text);
        route_sections_finish(&sections);
    }
}

/* Lines and texts of all nodes, to be compared. */
static void describe(const struct route_node *node, FILE *out)
{
    (void)fprintf(out, "%u:%u %u:%u %s=%s\n", node->line, node->column, node->key_line,
                  node->key_column, node->key == NULL ? "" : node->key,
                  node->type == ROUTE_NODE_SCALAR ? node->text : "");
    for (const struct route_node *child = node->type == ROUTE_NODE_SCALAR ? NULL : node->first;
         child != NULL; child = child->next) {
        describe(child, out);
    }
}

/* All documents that begin on one of `lines`; to be freed. */
static char *read_all(struct route_yaml *yaml, const struct route_sections *wanted, uint32_t parity)
{
    struct arena arena;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    arena_init(&arena, 4096, 16 << 20);
    for (;;) {
        const struct route_node *document = NULL;
        cr_assert_not(error_is(route_yaml_next(yaml, &arena, &document)));
        if (document == NULL) {
            break;
        }
        uint32_t line = route_yaml_document_line(yaml);
        uint32_t section = 0;
        while (section + 1 < wanted->count && wanted->items[section + 1].line <= line) {
            section++;
        }
        if (section % 2 == parity) {
            (void)fprintf(out, "document %u\n", line);
            describe(document, out);
        }
    }
    arena_finish(&arena);
    (void)fclose(out);
    return text;
}

Test(sections, are_read_as_in_the_whole_file)
{
    static const char text[] =
        "# a comment\n\nfirst: {a: 1}\n--- # second\nb:\n  - 1\n  -\n---\n? c\n"
        "--- >\n folded\n text\n\n---\n\"quoted\n  text\"\n---\n---\n# nothing\n"
        "---\nlast:\n  block: |+\n    x\n\n  end:\n---\nplain\n  text\n"
        "---\nzzz: [1,\n 2]\n---\n? [\n--";
    struct route_diagnostics diagnostics;
    struct route_sections sections;
    struct bytes content = bytes_make(text, sizeof(text) - 1 - strlen("? [\n--"));
    route_diagnostics_init(&diagnostics);
    cr_assert_not(error_is(route_sections_divide(content, &sections)));
    cr_assert_eq(sections.count, 11);
    for (uint32_t parity = 0; parity < 2; parity++) {
        struct route_section some[16];
        struct route_yaml *whole = NULL;
        struct route_yaml *part = NULL;
        uint32_t count = 0;
        for (uint32_t i = parity; i < sections.count; i += 2) {
            some[count++] = sections.items[i];
        }
        cr_assert_not(error_is(route_yaml_create("f", content, &diagnostics, &whole)));
        cr_assert_not(error_is(route_yaml_create_sections("f", some, count, &diagnostics, &part)));
        char *of_whole = read_all(whole, &sections, parity);
        char *of_part = read_all(part, &sections, parity);
        cr_assert_str_eq(of_part, of_whole);
        free(of_whole);
        free(of_part);
        route_yaml_destroy(whole);
        route_yaml_destroy(part);
    }
    route_sections_finish(&sections);
    route_diagnostics_finish(&diagnostics);
}

/*
 * Normalisation by table: what is resolved, what stays byte for byte, what is refused (reliability
 * D1).
 */
#include "routes/path.h"

#include <criterion/criterion.h>

struct target_case {
    const char *target;
    const char *path; /* NULL: refused */
    const char *query;
};

static const struct target_case cases[] = {
    {"/", "/", NULL},
    {"*", "*", NULL},
    {"/a/b?c=d", "/a/b", "c=d"},
    {"/a?", "/a", ""},
    {"/a?b?c", "/a", "b?c"},
    {"/a?/../%zz\\", "/a", "/../%zz\\"},
    /* unchanged, whatever they may mean elsewhere */
    {"//a//b", "//a//b", NULL},
    {"/a%2Fb%5Cc", "/a%2Fb%5Cc", NULL},
    {"/%61dmin;x=1", "/%61dmin;x=1", NULL},
    {"/a/...", "/a/...", NULL},
    {"/a/.b/..c/d..", "/a/.b/..c/d..", NULL},
    {"/x%2f..%2fadmin", "/x%2f..%2fadmin", NULL},
    {"/a/%2e%2e%2e", "/a/%2e%2e%2e", NULL},
    {"/a/%252e%252e", "/a/%252e%252e", NULL},
    {"/caf\xc3\xa9", "/caf\xc3\xa9", NULL},
    /* dot segments */
    {"/.", "/", NULL},
    {"/./", "/", NULL},
    {"/a/.", "/a/", NULL},
    {"/a/./b", "/a/b", NULL},
    {"/a/..", "/", NULL},
    {"/a/../", "/", NULL},
    {"/a/../admin", "/admin", NULL},
    {"/a/b/../../c", "/c", NULL},
    {"/a/%2e%2E/admin", "/admin", NULL},
    {"/a/.%2e/b?x=..", "/b", "x=.."},
    {"/a/%2E/b", "/a/b", NULL},
    {"/a//../b", "/a/b", NULL},
    {"//..", "/", NULL},
    {"/a/..?", "/", ""},
    /* refused */
    {"", NULL, NULL},
    {"a", NULL, NULL},
    {"**", NULL, NULL},
    {"?a", NULL, NULL},
    {"/..", NULL, NULL},
    {"/../a", NULL, NULL},
    {"/a/../../b", NULL, NULL},
    {"/%2e%2e/a", NULL, NULL},
    {"/a/%2e%2e/../b", NULL, NULL},
    {"/admin%00", NULL, NULL},
    {"/a%", NULL, NULL},
    {"/a%4", NULL, NULL},
    {"/a%4g", NULL, NULL},
    {"/a\\b", NULL, NULL},
    {"/a#b", NULL, NULL},
    {"/a?b#c", NULL, NULL},
    {"/a b", NULL, NULL},
    {"/a?b c", NULL, NULL},
    {"/a\tb", NULL, NULL},
    {"/a\x7f", NULL, NULL},
    {"/a?\r\nx", NULL, NULL},
};

Test(path, resolves_keeps_and_refuses)
{
    struct arena arena;
    arena_init(&arena, 4096, 65536);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct target_case *row = &cases[i];
        struct route_target target = {0};
        struct error error = route_target_parse(bytes_from_string(row->target), &arena, &target);
        if (row->path == NULL) {
            cr_expect(error.code == ERROR_SYNTAX, "\"%s\" must be refused", row->target);
            continue;
        }
        cr_assert(!error_is(error), "\"%s\" was refused", row->target);
        cr_expect(bytes_equal(target.path, bytes_from_string(row->path)), "\"%s\" gave \"%.*s\"",
                  row->target, (int)target.path.size, (const char *)target.path.data);
        cr_expect(target.has_query == (row->query != NULL), "query of \"%s\"", row->target);
        cr_expect(bytes_equal(target.query, bytes_from_string(row->query)), "query of \"%s\"",
                  row->target);
        cr_expect(target.is_changed || target.path.data == (const uint8_t *)row->target,
                  "\"%s\" was copied for nothing", row->target);
    }
    arena_finish(&arena);
}

Test(path, refuses_a_nul_byte)
{
    struct arena arena;
    struct route_target target;
    arena_init(&arena, 4096, 65536);
    cr_expect(error_is(route_target_parse(bytes_make("/a\0b", 4), &arena, &target)));
    arena_finish(&arena);
}

Test(path, is_its_own_normal_form)
{
    struct arena arena;
    arena_init(&arena, 4096, 65536);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (cases[i].path == NULL) {
            continue;
        }
        struct route_target target = {0};
        cr_assert(!error_is(route_target_parse(bytes_from_string(cases[i].path), &arena, &target)));
        cr_expect(!target.is_changed, "\"%s\" changed when parsed again", cases[i].path);
    }
    arena_finish(&arena);
}

Test(path, says_so_when_memory_is_refused)
{
    struct arena arena;
    struct route_target target;
    arena_init(&arena, 4096, 65536);
    arena_fail_after(&arena, 1);
    cr_expect(route_target_parse(BYTES("/a/../b"), &arena, &target).code == ERROR_NO_MEMORY);
    arena_finish(&arena);
}

struct prefix_case {
    const char *value;
    const char *path;
    bool matches;
};

Test(path, has_prefixes_by_whole_segments)
{
    static const struct prefix_case rows[] = {
        {"/", "/", true},         {"/", "/any/thing", true},  {"/abc", "/abc", true},
        {"/abc", "/abc/", true},  {"/abc", "/abc/def", true}, {"/abc/", "/abc", true},
        {"/abc/", "/abc/", true}, {"/abc", "/abcd", false},   {"/abc", "/Abc", false},
        {"/abc", "/", false},     {"/abc", "/ab", false},     {"/a/b", "/a/b/c", true},
        {"/a/b", "/a/bc", false}, {"/", "*", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bytes prefix = route_path_prefix(bytes_from_string(rows[i].value));
        cr_expect(route_path_has_prefix(bytes_from_string(rows[i].path), prefix) == rows[i].matches,
                  "%s under %s", rows[i].path, rows[i].value);
    }
}

/*
 * The tables of HTTPPathModifier and of redirects (reference 2.12 and 2.13), row by row.
 */
#include "routes/rewrite.h"

#include <criterion/criterion.h>

#include "routes/path.h"

struct prefix_case {
    const char *path;
    const char *match;
    const char *replacement;
    const char *result;
};

Test(rewrite, replaces_prefixes_by_the_table_of_the_specification)
{
    static const struct prefix_case rows[] = {
        {"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
        {"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
        {"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
        {"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
        {"/foo", "/foo", "/xyz", "/xyz"},
        {"/foo/", "/foo", "/xyz", "/xyz/"},
        {"/foo/bar", "/foo", "", "/bar"},
        {"/foo/", "/foo", "", "/"},
        {"/foo", "/foo", "", "/"},
        {"/foo/", "/foo", "/", "/"},
        {"/foo", "/foo", "/", "/"},
        {"/foo", "/", "/xyz", "/xyz/foo"},
        {"/", "/", "/xyz", "/xyz/"},
        {"/a//b", "/a", "/c", "/c//b"},
        {"/foo/bar", "/foo", "xyz", "/xyz/bar"},
    };
    struct arena arena;
    arena_init(&arena, 4096, 65536);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_path_modifier modifier = {
            .type = ROUTE_PATH_REPLACE_PREFIX,
            .replace_prefix_match = bytes_from_string(rows[i].replacement),
        };
        size_t prefix = route_path_prefix(bytes_from_string(rows[i].match)).size;
        struct bytes path;
        cr_assert(!error_is(
            route_rewrite_path(&modifier, bytes_from_string(rows[i].path), prefix, &arena, &path)));
        cr_expect(bytes_equal(path, bytes_from_string(rows[i].result)),
                  "%s, match %s, replace %s: %.*s", rows[i].path, rows[i].match,
                  rows[i].replacement, (int)path.size, (const char *)path.data);
    }
    struct route_path_modifier full = {.type = ROUTE_PATH_REPLACE_FULL};
    struct bytes path;
    cr_assert(!error_is(route_rewrite_path(&full, BYTES("/a"), 0, &arena, &path)));
    cr_expect(bytes_equal(path, BYTES("/")), "an empty ReplaceFullPath is /");
    arena_finish(&arena);
}

struct redirect_case {
    const char *from_scheme;
    uint16_t from_port;
    const char *scheme;
    uint16_t port;
    const char *location;
};

Test(rewrite, makes_locations_by_the_truth_table_of_port_and_scheme)
{
    static const struct redirect_case rows[] = {
        {"http", 80, NULL, 0, "http://example.org/p?q=1"},
        {"http", 80, NULL, 80, "http://example.org/p?q=1"},
        {"http", 80, NULL, 8080, "http://example.org:8080/p?q=1"},
        {"http", 80, "https", 0, "https://example.org/p?q=1"},
        {"http", 80, "https", 443, "https://example.org/p?q=1"},
        {"http", 80, "https", 8443, "https://example.org:8443/p?q=1"},
        {"http", 8080, NULL, 0, "http://example.org:8080/p?q=1"},
        {"http", 8080, NULL, 80, "http://example.org/p?q=1"},
        {"http", 8080, "https", 0, "https://example.org/p?q=1"},
        {"https", 443, NULL, 0, "https://example.org/p?q=1"},
        {"https", 443, NULL, 443, "https://example.org/p?q=1"},
        {"https", 443, NULL, 8443, "https://example.org:8443/p?q=1"},
        {"https", 443, "http", 0, "http://example.org/p?q=1"},
        {"https", 443, "http", 80, "http://example.org/p?q=1"},
        {"https", 443, "http", 8080, "http://example.org:8080/p?q=1"},
    };
    struct arena arena;
    arena_init(&arena, 4096, 65536);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_redirect redirect = {
            .scheme = bytes_from_string(rows[i].scheme),
            .hostname = BYTES("example.org"),
            .port = rows[i].port,
            .status_code = 302,
        };
        struct route_redirect_from from = {
            .scheme = bytes_from_string(rows[i].from_scheme),
            .authority = BYTES("echo:1234"),
            .port = rows[i].from_port,
            .path = BYTES("/p"),
            .query = BYTES("q=1"),
            .has_query = true,
        };
        struct bytes location;
        cr_assert(!error_is(route_redirect_location(&redirect, &from, &arena, &location)));
        cr_expect(bytes_equal(location, bytes_from_string(rows[i].location)), "row %zu: %s", i,
                  (const char *)location.data);
    }
    arena_finish(&arena);
}

Test(rewrite, keeps_host_path_and_query_that_the_filter_does_not_name)
{
    struct arena arena;
    arena_init(&arena, 4096, 65536);
    struct route_path_modifier modifier = {.type = ROUTE_PATH_REPLACE_PREFIX,
                                           .replace_prefix_match = BYTES("/new")};
    struct route_redirect redirect = {.path = &modifier, .status_code = 302};
    struct route_redirect_from from = {
        .scheme = BYTES("http"),
        .authority = BYTES("[fd00::1]:8080"),
        .port = 80,
        .path = BYTES("/old/x"),
        .prefix_bytes = 4,
    };
    struct bytes location;
    cr_assert(!error_is(route_redirect_location(&redirect, &from, &arena, &location)));
    cr_expect(bytes_equal(location, BYTES("http://[fd00::1]/new/x")), "%s",
              (const char *)location.data);
    arena_finish(&arena);
}

Test(rewrite, finds_the_host_of_an_authority)
{
    static const char *const rows[][2] = {
        {"a", "a"},           {"a:80", "a"},  {"[::1]", "[::1]"},
        {"[::1]:8", "[::1]"}, {"::1", "::1"}, {"1.2.3.4:5", "1.2.3.4"},
        {"a:", "a"},          {"", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bytes host = route_authority_host(bytes_from_string(rows[i][0]));
        cr_expect(bytes_equal(host, bytes_from_string(rows[i][1])), "%s: %.*s", rows[i][0],
                  (int)host.size, (const char *)host.data);
    }
}

Test(rewrite, says_so_when_memory_is_refused)
{
    for (uint32_t n = 1; n <= 3; n++) {
        struct arena arena;
        arena_init(&arena, 4096, 65536);
        arena_fail_after(&arena, n);
        struct route_path_modifier modifier = {.type = ROUTE_PATH_REPLACE_PREFIX,
                                               .replace_prefix_match = BYTES("/new")};
        struct route_redirect redirect = {.path = &modifier, .port = 81};
        struct route_redirect_from from = {.scheme = BYTES("http"),
                                           .authority = BYTES("a"),
                                           .port = 80,
                                           .path = BYTES("/old/x"),
                                           .prefix_bytes = 4};
        struct bytes location;
        cr_expect(route_redirect_location(&redirect, &from, &arena, &location).code ==
                  ERROR_NO_MEMORY);
        arena_finish(&arena);
    }
}

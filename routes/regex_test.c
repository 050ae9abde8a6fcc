/*
 * Dialect, anchoring, limits; hostile expressions of reliability D8 with their time.
 */
#include "routes/regex.h"

#include <criterion/criterion.h>
#include <time.h>

static struct route_scratch *new_scratch(void)
{
    struct route_scratch *scratch = NULL;
    cr_assert(!error_is(route_scratch_create(&scratch)));
    return scratch;
}

static enum route_answer match(const char *pattern, struct bytes subject)
{
    struct route_scratch *scratch = new_scratch();
    struct route_regex *regex = NULL;
    struct route_regex_fault fault = {0};
    struct error error = route_regex_create(bytes_from_string(pattern), &fault, &regex);
    cr_assert(!error_is(error), "%s: %s", pattern, fault.text);
    enum route_answer answer = route_regex_match(regex, subject, scratch);
    route_regex_destroy(regex);
    route_scratch_destroy(scratch);
    return answer;
}

struct match_case {
    const char *pattern;
    const char *subject;
    enum route_answer answer;
};

Test(regex, matches_the_whole_subject)
{
    static const struct match_case rows[] = {
        {"/a", "/a", ROUTE_YES},
        {"/a", "/ab", ROUTE_NO},
        {"/a", "x/a", ROUTE_NO},
        {"/a|/ab", "/ab", ROUTE_YES},
        {"^/a$", "/a", ROUTE_YES},
        {"/a$", "/a\n", ROUTE_NO},
        {"/a.b", "/a\nb", ROUTE_YES},
        {"/api/v[0-9]+(/.*)?", "/api/v1", ROUTE_YES},
        {"/api/v[0-9]+(/.*)?", "/api/v12/x/y", ROUTE_YES},
        {"/api/v[0-9]+(/.*)?", "/api/vx", ROUTE_NO},
        {"/ab*", "/a", ROUTE_YES}, /* the b must not have become a literal */
        {"/ab?c", "/ac", ROUTE_YES},
        {"/ab{0,2}c", "/ac", ROUTE_YES},
        {"/a\\.b", "/a.b", ROUTE_YES},
        {"/a\\.b", "/axb", ROUTE_NO},
        {"\\d+", "/0", ROUTE_NO},
        {"\\d+\\w\\s", "12a ", ROUTE_YES},
        {"(?i)/ABC", "/abc", ROUTE_YES},
        {"/a|b", "b", ROUTE_YES}, /* an alternative without the literal of the first */
        {"", "", ROUTE_YES},
        {"", "a", ROUTE_NO},
        {".*", "", ROUTE_YES},
        {"[[:alpha:]]+", "abc", ROUTE_YES},
        {"[]a]+", "]a", ROUTE_YES},
        {"\xc3\xa9", "\xc3\xa9", ROUTE_YES},
        {"(?=.*b)a.*", "aab", ROUTE_YES},
        {"(?!/admin).*", "/admin/x", ROUTE_NO},
        {"(?!/admin).*", "/adm", ROUTE_YES},
        {"(?>a*)b", "aab", ROUTE_YES},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect(match(rows[i].pattern, bytes_from_string(rows[i].subject)) == rows[i].answer,
                  "%s on %s", rows[i].pattern, rows[i].subject);
    }
    cr_expect(match("a?", (struct bytes){0}) == ROUTE_YES);
}

Test(regex, refuses_what_the_dfa_cannot_do_when_compiling)
{
    static const char *const patterns[] = {
        "(",        "[a",     "a**b{2,1}", "(a)\\1",     "(?<n>a)\\k<n>",   "(?(1)a|b)", "(?R)",
        "(?1)",     "(?P>n)", "(?&n)",     "(*ACCEPT)a", "(*UTF)a",         "\\Ka",      "\\C",
        "(?C1)a",   "\\X",    "\\g{1}",    "(?P=n)",     "(a{9999}){9999}",

        "a{70000}",
    };
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        struct route_regex *regex = NULL;
        struct route_regex_fault fault = {0};
        struct error error = route_regex_create(bytes_from_string(patterns[i]), &fault, &regex);
        cr_expect(error_is(error), "%s must be refused", patterns[i]);
        cr_expect(!error_is(error) || fault.text[0] != '\0', "%s: no text", patterns[i]);
        route_regex_destroy(regex);
    }
    struct route_regex *regex = NULL;
    cr_expect(error_is(route_regex_create(bytes_make("a\0b", 3), NULL, &regex)));
}

Test(regex, bounds_patterns_programs_and_open_repeats)
{
    struct route_regex *regex = NULL;
    struct route_regex_fault fault = {0};
    char longest[ROUTE_REGEX_PATTERN_BYTES_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    cr_expect(route_regex_create(bytes_make(longest, sizeof(longest)), &fault, &regex).code ==
              ERROR_LIMIT);
    cr_expect(
        !error_is(route_regex_create(bytes_make(longest, sizeof(longest) - 1), &fault, &regex)));
    route_regex_destroy(regex);
    static const char *const refused[] = {"(.*a){25}", "((a*b*c*){3}){3}", "(.*){7}(.*){7}(.*){7}",
                                          "(.+){21,}", "((.*a)*){11}"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        cr_expect(route_regex_create(bytes_from_string(refused[i]), &fault, &regex).code ==
                      ERROR_LIMIT,
                  "%s", refused[i]);
    }
    static const char *const taken[] = {"(.*a){10}", "[*+]{30}", "\\*{40}", "(a*b*){9}"};
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        cr_expect(!error_is(route_regex_create(bytes_from_string(taken[i]), &fault, &regex)),
                  "%s: %s", taken[i], fault.text);
        route_regex_destroy(regex);
    }
}

Test(regex, answers_over_limit_and_not_no)
{
    static uint8_t subject[ROUTE_REGEX_SUBJECT_BYTES_MAX + 1];
    memset(subject, 'a', sizeof(subject));
    cr_expect(match("[a-z]*", bytes_make(subject, sizeof(subject))) == ROUTE_OVER_LIMIT);
    cr_expect(match("[a-z]*", bytes_make(subject, sizeof(subject) - 1)) == ROUTE_YES);
    /* What the literal already refuses needs no limit. */
    cr_expect(match("/b[a-z]*", bytes_make(subject, sizeof(subject))) == ROUTE_NO);
    cr_expect(match("(a(?=a*))*", bytes_make(subject, 500)) == ROUTE_OVER_LIMIT);
}

static double milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* D8. The bound is 1 ms in a release build; sanitizers are about twenty times slower. */
Test(regex, takes_linear_time_on_hostile_expressions)
{
    static uint8_t subject[8192];
    memset(subject, 'a', sizeof(subject));
    static const char *const patterns[] = {"(a*)*b", "(a?){30}a{30}", "(a|aa)+b", "(a|a?)+b"};
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        struct route_scratch *scratch = new_scratch();
        struct route_regex *regex = NULL;
        cr_assert(!error_is(route_regex_create(bytes_from_string(patterns[i]), NULL, &regex)));
        double begin = milliseconds();
        (void)route_regex_match(regex, bytes_make(subject, sizeof(subject)), scratch);
        double took = milliseconds() - begin;
        cr_expect(took < 20, "%s took %.3f ms", patterns[i], took);
        route_regex_destroy(regex);
        route_scratch_destroy(scratch);
    }
}

/*
 * The part of Criterion that our tests use, for the ThreadSanitizer build: Criterion itself does
 * not start there.
 *
 * One header and no library: everything is weak, so that a test of several files still has one
 * registry and one main. Each test runs in a child of its own, one after the other (--in-process
 * NAME runs one in this process, for a debugger). A test passes when its child ends as its options
 * say; ThreadSanitizer makes the child exit with 66, which no option asks for. Registration by
 * constructor, which our code never does, is what Test() means in Criterion too.
 *
 *   x_test [--list] [--in-process] [PATTERN]      PATTERN is a shell pattern over suite/name
 */
#pragma once

#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STANDIN_SHARED __attribute__((weak))

struct criterion_test_options {
    void (*init)(void);
    void (*fini)(void);
    int signal;
    int exit_code;
    bool disabled;
    const char *description;
    double timeout; /* seconds */
    const void *data;
};

struct standin_test {
    const char *suite;
    const char *name;
    void (*run)(void);
    struct criterion_test_options options;
    struct standin_test *next;
};

struct standin_suite {
    const char *name;
    struct criterion_test_options options;
    struct standin_suite *next;
};

STANDIN_SHARED struct standin_test *standin_first_test;
STANDIN_SHARED struct standin_suite *standin_first_suite;
STANDIN_SHARED int standin_expectations_failed;

enum {
    STANDIN_EXIT_FAILED = 101,
    STANDIN_EXIT_SKIPPED = 102,
    STANDIN_TIMEOUT_SECONDS = 60
};

/* Sources arrive in link order, tests within one in order of their text; keep it. */
static inline void standin_add_test(struct standin_test *test)
{
    struct standin_test **link = &standin_first_test;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = test;
}

static inline void standin_add_suite(struct standin_suite *suite)
{
    suite->next = standin_first_suite;
    standin_first_suite = suite;
}

#define Test(Suite, Name, ...)                                                                     \
    static void Suite##_##Name##_run(void);                                                        \
    static struct standin_test Suite##_##Name##_test = {                                           \
        .suite = #Suite, .name = #Name, .run = Suite##_##Name##_run, .options = {__VA_ARGS__}};    \
    __attribute__((constructor)) static void Suite##_##Name##_register(void)                       \
    {                                                                                              \
        standin_add_test(&Suite##_##Name##_test);                                                  \
    }                                                                                              \
    static void Suite##_##Name##_run(void)

#define TestSuite(Name, ...)                                                                       \
    static struct standin_suite Name##_suite = {.name = #Name, .options = {__VA_ARGS__}};          \
    __attribute__((constructor)) static void Name##_suite_register(void)                           \
    {                                                                                              \
        standin_add_suite(&Name##_suite);                                                          \
    }                                                                                              \
    extern int standin_semicolon_##Name

/* The format is not checked here; the builds with the real Criterion do that. */
STANDIN_SHARED void standin_failed(bool fatal, const char *file, int line, const char *text,
                                   const char *format, ...);

STANDIN_SHARED void standin_failed(bool fatal, const char *file, int line, const char *text,
                                   const char *format, ...)
{
    fprintf(stderr, "%s:%d: failed: %s", file, line, text);
    if (format != NULL && format[0] != '\0') {
        va_list arguments;
        va_start(arguments, format);
        fputs(": ", stderr);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
    }
    fputc('\n', stderr);
    if (fatal) {
        exit(STANDIN_EXIT_FAILED);
    }
    __atomic_add_fetch(&standin_expectations_failed, 1, __ATOMIC_RELAXED);
}

/* Every public macro appends "", so that a message is optional and there is always a format to
 * pass. */
#define STANDIN_CHECK(Fatal, Text, Condition, ...)                                                 \
    do {                                                                                           \
        if (!(Condition)) {                                                                        \
            standin_failed(Fatal, __FILE__, __LINE__, Text, __VA_ARGS__);                          \
        }                                                                                          \
    } while (0)
#define STANDIN_ONE(Fatal, A, ...) STANDIN_CHECK(Fatal, #A, A, __VA_ARGS__)
#define STANDIN_NOT(Fatal, A, ...) STANDIN_CHECK(Fatal, "not " #A, !(A), __VA_ARGS__)
#define STANDIN_TWO(Fatal, Op, A, B, ...)                                                          \
    STANDIN_CHECK(Fatal, #A " " #Op " " #B, (A)Op(B), __VA_ARGS__)
#define STANDIN_STR(Fatal, Op, A, B, ...)                                                          \
    STANDIN_CHECK(Fatal, #A " " #Op " " #B " (text)", strcmp((A), (B)) Op 0, __VA_ARGS__)
#define STANDIN_EMPTY(Fatal, Op, A, ...)                                                           \
    STANDIN_CHECK(Fatal, #A " " #Op " \"\"", (A)[0] Op '\0', __VA_ARGS__)
#define STANDIN_MEM(Fatal, Op, A, B, Size, ...)                                                    \
    STANDIN_CHECK(Fatal, #A " " #Op " " #B " (bytes)", memcmp((A), (B), (Size)) Op 0, __VA_ARGS__)
#define STANDIN_FLOAT(Fatal, Op, A, B, Epsilon, ...)                                               \
    STANDIN_CHECK(Fatal, "|" #A " - " #B "| " #Op " " #Epsilon,                                    \
                  __builtin_fabs((double)(A) - (double)(B)) Op(double)(Epsilon), __VA_ARGS__)

#define cr_assert(...) STANDIN_ONE(true, __VA_ARGS__, "")
#define cr_assert_not(...) STANDIN_NOT(true, __VA_ARGS__, "")
#define cr_assert_null(...) STANDIN_NOT(true, __VA_ARGS__, "")
#define cr_assert_not_null(...) STANDIN_ONE(true, __VA_ARGS__, "")
#define cr_assert_eq(...) STANDIN_TWO(true, ==, __VA_ARGS__, "")
#define cr_assert_neq(...) STANDIN_TWO(true, !=, __VA_ARGS__, "")
#define cr_assert_lt(...) STANDIN_TWO(true, <, __VA_ARGS__, "")
#define cr_assert_leq(...) STANDIN_TWO(true, <=, __VA_ARGS__, "")
#define cr_assert_gt(...) STANDIN_TWO(true, >, __VA_ARGS__, "")
#define cr_assert_geq(...) STANDIN_TWO(true, >=, __VA_ARGS__, "")
#define cr_assert_str_eq(...) STANDIN_STR(true, ==, __VA_ARGS__, "")
#define cr_assert_str_neq(...) STANDIN_STR(true, !=, __VA_ARGS__, "")
#define cr_assert_str_empty(...) STANDIN_EMPTY(true, ==, __VA_ARGS__, "")
#define cr_assert_str_not_empty(...) STANDIN_EMPTY(true, !=, __VA_ARGS__, "")
#define cr_assert_arr_eq(...) STANDIN_MEM(true, ==, __VA_ARGS__, "")
#define cr_assert_arr_neq(...) STANDIN_MEM(true, !=, __VA_ARGS__, "")
#define cr_assert_float_eq(...) STANDIN_FLOAT(true, <=, __VA_ARGS__, "")
#define cr_assert_float_neq(...) STANDIN_FLOAT(true, >, __VA_ARGS__, "")
#define cr_assert_fail(...) standin_failed(true, __FILE__, __LINE__, "fail", "" __VA_ARGS__)

#define cr_expect(...) STANDIN_ONE(false, __VA_ARGS__, "")
#define cr_expect_not(...) STANDIN_NOT(false, __VA_ARGS__, "")
#define cr_expect_null(...) STANDIN_NOT(false, __VA_ARGS__, "")
#define cr_expect_not_null(...) STANDIN_ONE(false, __VA_ARGS__, "")
#define cr_expect_eq(...) STANDIN_TWO(false, ==, __VA_ARGS__, "")
#define cr_expect_neq(...) STANDIN_TWO(false, !=, __VA_ARGS__, "")
#define cr_expect_lt(...) STANDIN_TWO(false, <, __VA_ARGS__, "")
#define cr_expect_leq(...) STANDIN_TWO(false, <=, __VA_ARGS__, "")
#define cr_expect_gt(...) STANDIN_TWO(false, >, __VA_ARGS__, "")
#define cr_expect_geq(...) STANDIN_TWO(false, >=, __VA_ARGS__, "")
#define cr_expect_str_eq(...) STANDIN_STR(false, ==, __VA_ARGS__, "")
#define cr_expect_str_neq(...) STANDIN_STR(false, !=, __VA_ARGS__, "")
#define cr_expect_str_empty(...) STANDIN_EMPTY(false, ==, __VA_ARGS__, "")
#define cr_expect_str_not_empty(...) STANDIN_EMPTY(false, !=, __VA_ARGS__, "")
#define cr_expect_arr_eq(...) STANDIN_MEM(false, ==, __VA_ARGS__, "")
#define cr_expect_arr_neq(...) STANDIN_MEM(false, !=, __VA_ARGS__, "")
#define cr_expect_float_eq(...) STANDIN_FLOAT(false, <=, __VA_ARGS__, "")
#define cr_expect_float_neq(...) STANDIN_FLOAT(false, >, __VA_ARGS__, "")
#define cr_expect_fail(...) standin_failed(false, __FILE__, __LINE__, "fail", "" __VA_ARGS__)

#define cr_fail(...) standin_failed(true, __FILE__, __LINE__, "fail", "" __VA_ARGS__)
#define cr_skip_test(...) (fprintf(stderr, "skipped: " __VA_ARGS__), exit(STANDIN_EXIT_SKIPPED))
#define cr_skip(...) cr_skip_test(__VA_ARGS__)
#define cr_log_info(...) (fprintf(stderr, __VA_ARGS__), (void)fputc('\n', stderr))
#define cr_log_warn(...) cr_log_info(__VA_ARGS__)
#define cr_log_error(...) cr_log_info(__VA_ARGS__)

/* What a test leaves out, its suite says. */
static inline struct criterion_test_options standin_options(const struct standin_test *test)
{
    struct criterion_test_options options = test->options;
    for (const struct standin_suite *suite = standin_first_suite; suite; suite = suite->next) {
        if (strcmp(suite->name, test->suite) != 0) {
            continue;
        }
        options.init = options.init != NULL ? options.init : suite->options.init;
        options.fini = options.fini != NULL ? options.fini : suite->options.fini;
        options.signal = options.signal != 0 ? options.signal : suite->options.signal;
        options.exit_code = options.exit_code != 0 ? options.exit_code : suite->options.exit_code;
        options.timeout = options.timeout > 0 ? options.timeout : suite->options.timeout;
        options.disabled = options.disabled || suite->options.disabled;
    }
    return options;
}

static inline void standin_run_here(const struct standin_test *test)
{
    struct criterion_test_options options = standin_options(test);
    if (options.init != NULL) {
        options.init();
    }
    test->run();
    if (options.fini != NULL) {
        options.fini();
    }
    exit(standin_expectations_failed > 0 ? STANDIN_EXIT_FAILED : 0);
}

/* The deadline is the child's own alarm: the parent only waits. */
static inline int standin_run_in_child(const struct standin_test *test)
{
    struct criterion_test_options options = standin_options(test);
    double seconds = options.timeout > 0 ? options.timeout : STANDIN_TIMEOUT_SECONDS;
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        fprintf(stderr, "fork: %s\n", strerror(errno));
        return -1;
    }
    if (child == 0) {
        alarm((unsigned)(seconds + 0.999));
        standin_run_here(test);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        if (options.signal != 0 && WTERMSIG(status) == options.signal) {
            return 1;
        }
        bool late = WTERMSIG(status) == SIGALRM;
        fprintf(stderr, "%s/%s: %s\n", test->suite, test->name,
                late ? "timed out" : strsignal(WTERMSIG(status)));
        return -1;
    }
    if (options.signal == 0 && WEXITSTATUS(status) == options.exit_code) {
        return 1;
    }
    if (WEXITSTATUS(status) == STANDIN_EXIT_SKIPPED) {
        return 0;
    }
    fprintf(stderr, "%s/%s: exit status %d\n", test->suite, test->name, WEXITSTATUS(status));
    return -1;
}

STANDIN_SHARED int main(int argc, char **argv);

STANDIN_SHARED int main(int argc, char **argv)
{
    const char *pattern = "*";
    bool list = false;
    bool in_process = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            list = true;
        } else if (strcmp(argv[i], "--in-process") == 0) {
            in_process = true;
        } else {
            pattern = strncmp(argv[i], "--filter=", 9) == 0 ? argv[i] + 9 : argv[i];
        }
    }
    int passed = 0;
    int failed = 0;
    int skipped = 0;
    for (const struct standin_test *test = standin_first_test; test; test = test->next) {
        char name[512];
        snprintf(name, sizeof(name), "%s/%s", test->suite, test->name);
        if (fnmatch(pattern, name, 0) != 0) {
            continue;
        }
        if (list) {
            puts(name);
        } else if (standin_options(test).disabled) {
            skipped++;
        } else if (in_process) {
            standin_run_here(test);
        } else {
            int outcome = standin_run_in_child(test);
            passed += outcome > 0;
            skipped += outcome == 0;
            failed += outcome < 0;
        }
    }
    if (!list) {
        printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    }
    return failed > 0 || (!list && passed + skipped == 0) ? 1 : 0;
}

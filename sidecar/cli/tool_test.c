/* Children: input and output in one go, statuses, and programs that do not exist or do not listen.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tool.h"

Test(tool, long_input_and_long_output_pass_each_other)
{
    size_t size = TOOL_OUTPUT_BYTES_MAX - 1;
    char *input = malloc(size + 1);
    cr_assert_not_null(input);
    memset(input, 'a', size);
    input[size] = '\0';
    const char *const argv[] = {"cat", NULL};
    struct tool_result result = {0};
    cr_assert_not(error_is(tool_run(argv, input, &result)));
    cr_expect_eq(result.status, 0);
    cr_expect_str_eq(result.output, input);
    tool_result_finish(&result);
    free(input);
}

Test(tool, what_does_not_fit_is_dropped_and_the_child_still_ends)
{
    const char *const argv[] = {"seq", "200000", NULL};
    struct tool_result result = {0};
    cr_assert_not(error_is(tool_run(argv, NULL, &result)));
    cr_expect_eq(result.status, 0);
    cr_expect_eq(strlen(result.output), TOOL_OUTPUT_BYTES_MAX);
    tool_result_finish(&result);
}

Test(tool, a_child_that_does_not_read_its_input_tells_by_its_status)
{
    static char input[200000];
    memset(input, 'x', sizeof(input) - 1);
    input[sizeof(input) - 1] = '\0';
    const char *const argv[] = {"false", NULL};
    struct tool_result result = {0};
    cr_assert_not(error_is(tool_run(argv, input, &result)));
    cr_expect_eq(result.status, 1);
    tool_result_finish(&result);
}

Test(tool, both_outputs_of_the_child_are_kept)
{
    const char *const argv[] = {"sh", "-c", "echo out; echo err >&2; exit 3", NULL};
    struct tool_result result = {0};
    cr_assert_not(error_is(tool_run(argv, NULL, &result)));
    cr_expect_eq(result.status, 3);
    cr_expect_str_eq(result.output, "out\nerr\n");
    tool_result_finish(&result);
}

Test(tool, a_program_that_is_not_there_is_not_found)
{
    const char *const argv[] = {"outrigger-has-no-such-program", NULL};
    struct tool_result result = {0};
    cr_expect_eq(tool_run(argv, NULL, &result).code, ERROR_NOT_FOUND);
    cr_expect_not(tool_exists(argv[0]));
    cr_expect(tool_exists("sh"));
}

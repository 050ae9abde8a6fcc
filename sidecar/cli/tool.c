/*
 * One child at a time, two pipes, one poll loop: input and output move together, so that neither a
 * long input nor a long answer can block the pair.
 */
#include "cli/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

#define PATH_BYTES_MAX 128

static const char *const directories[] = {"/usr/local/sbin", "/usr/sbin", "/sbin",
                                          "/usr/local/bin",  "/usr/bin",  "/bin"};

static bool find(const char *name, char path[PATH_BYTES_MAX])
{
    for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
        int size = snprintf(path, PATH_BYTES_MAX, "%s/%s", directories[i], name);
        if (size > 0 && size < PATH_BYTES_MAX && access(path, X_OK) == 0) {
            return true;
        }
    }
    return false;
}

bool tool_exists(const char *name)
{
    char path[PATH_BYTES_MAX];
    return find(name, path);
}

static void become_tool(const char *path, const char *const argv[], int input, int output)
{
    static const char *const environment[] = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL=C",
                                              NULL};
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);

    /* execve takes pointers to char and changes nothing through them (POSIX, rationale of exec). */
    union {
        const char *const *in;
        char *const *out;
    } arguments = {.in = argv}, variables = {.in = environment};

    execve(path, arguments.out, variables.out);
    _exit(127);
}

struct exchange {
    int input; /* -1 once everything is written */
    int output;
    const char *text;
    size_t text_size;
    char *answer; /* TOOL_OUTPUT_BYTES_MAX + 1 */
    size_t answer_size;
};

static void write_some(struct exchange *exchange)
{
    ssize_t count = write(exchange->input, exchange->text, exchange->text_size);
    if (count > 0) {
        exchange->text += count;
        exchange->text_size -= (size_t)count;
    }
    /* A child that does not read its input tells the reason by its status. */
    if ((count < 0 && errno != EAGAIN && errno != EINTR) || exchange->text_size == 0) {
        close(exchange->input);
        exchange->input = -1;
    }
}

/* False at the end of the child's output. What does not fit is read and dropped, so that the child
 * can end. */
static bool read_some(struct exchange *exchange)
{
    char rest[4096];
    size_t room = TOOL_OUTPUT_BYTES_MAX - exchange->answer_size;
    ssize_t count = room > 0
                        ? read(exchange->output, exchange->answer + exchange->answer_size, room)
                        : read(exchange->output, rest, sizeof(rest));
    if (count > 0 && room > 0) {
        exchange->answer_size += (size_t)count;
    }
    return count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR));
}

static void talk(struct exchange *exchange)
{
    bool is_open = true;
    if (exchange->text_size == 0) {
        close(exchange->input);
        exchange->input = -1;
    }
    while (is_open) {
        struct pollfd fds[] = {{.fd = exchange->output, .events = POLLIN},
                               {.fd = exchange->input, .events = POLLOUT}};
        if (poll(fds, 2, -1) < 0) {
            continue;
        }
        if (exchange->input >= 0 && fds[1].revents != 0) {
            write_some(exchange);
        }
        if (fds[0].revents != 0) {
            is_open = read_some(exchange);
        }
    }
    if (exchange->input >= 0) {
        close(exchange->input);
    }
    exchange->answer[exchange->answer_size] = '\0';
}

static int wait_for(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct error run(const char *path, const char *const argv[], struct exchange *exchange,
                        int *ret_status)
{
    int in[2];
    int out[2];
    if (pipe2(in, O_CLOEXEC) < 0) {
        return error_from_errno(errno);
    }
    if (pipe2(out, O_CLOEXEC) < 0) {
        struct error error = error_from_errno(errno);
        close(in[0]);
        close(in[1]);
        return error;
    }
    pid_t child = fork();
    if (child == 0) {
        become_tool(path, argv, in[0], out[1]);
    }
    int number = errno;
    close(in[0]);
    close(out[1]);
    if (child < 0) {
        close(in[1]);
        close(out[0]);
        return error_from_errno(number);
    }
    fcntl(in[1], F_SETFL, O_NONBLOCK);
    exchange->input = in[1];
    exchange->output = out[0];
    talk(exchange);
    close(out[0]);
    *ret_status = wait_for(child);
    return OK;
}

FALLIBLE tool_run(const char *const argv[], const char *input, struct tool_result *ret_result)
{
    CHECK(argv[0] != NULL);
    char path[PATH_BYTES_MAX];
    if (!find(argv[0], path)) {
        return error_make(ERROR_NOT_FOUND, 0);
    }
    struct exchange exchange = {.text = input, .text_size = input == NULL ? 0 : strlen(input)};
    exchange.answer = malloc(TOOL_OUTPUT_BYTES_MAX + 1);
    if (exchange.answer == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    /* A child that closes its input early must not end us. */
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    int status = 0;
    struct error error = run(path, argv, &exchange, &status);
    signal(SIGPIPE, before);
    if (error_is(error)) {
        free(exchange.answer);
        return error;
    }
    *ret_result = (struct tool_result){.status = status, .output = exchange.answer};
    return OK;
}

void tool_result_finish(struct tool_result *result)
{
    free(result->output);
    result->output = NULL;
}

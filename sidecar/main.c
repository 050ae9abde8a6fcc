/* The front door: which subcommand, and what the whole program says about itself. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "cli/admin.h"
#include "cli/check.h"
#include "cli/explain.h"
#include "cli/intercept.h"
#include "control/control.h"
#include "options.h"

static int proxy_main(int argc, char **argv)
{
    static struct options options;
    struct arena arena;
    char message[512];
    arena_init(&arena, 4096, 1 << 20);
    enum exit_status status = EXIT_STATUS_OK;
    switch (options_parse(argc, argv, environ, &arena, &options, message, sizeof(message))) {
    case OPTIONS_RUN:
        status = control_run(&options);
        break;
    case OPTIONS_HELP:
        options_print_help(stdout);
        break;
    case OPTIONS_INVALID:
        fprintf(stderr, "outrigger proxy: %s\n", message);
        status = EXIT_STATUS_USAGE;
        break;
    }
    arena_finish(&arena);
    return (int)status;
}

struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is "outrigger NAME" */
    const char *help;
};

static const struct command commands[] = {
    {"proxy", proxy_main, "run the sidecar"},
    {"intercept", intercept_main, "install, check, print or remove the packet redirection"},
    {"check", check_main, "say what is wrong with configuration files"},
    {"explain", explain_main, "say where a request would go, and why every other rule was refused"},
    {"admin", admin_main, "ask a running proxy"},
};

enum {
    COMMAND_COUNT = sizeof(commands) / sizeof(commands[0])
};

static void print_help(FILE *out)
{
    fputs("outrigger: a service-mesh sidecar that needs no control plane\n\nUsage:\n", out);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        fprintf(out, "  outrigger %-10s %s\n", commands[i].name, commands[i].help);
    }
    fputs("  outrigger --version\n  outrigger COMMAND --help\n", out);
}

/* Standard streams that the caller has closed: what we open must not take their numbers, or log
 * lines would go there. */
static bool fill_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) {
            return false;
        }
    }
    return true;
}

static int run(const struct command *command, int argc, char **argv)
{
    static char name[32]; /* what getopt calls us in its messages */
    static char help[] = "--help";
    snprintf(name, sizeof(name), "outrigger %s", command->name);
    argv[0] = name;
    if (argc > 1 && strcmp(argv[1], "-h") == 0) {
        argv[1] = help;
    }
    return command->run(argc, argv);
}

int main(int argc, char **argv)
{
    if (!fill_standard_streams()) {
        perror("outrigger: /dev/null");
        return EXIT_STATUS_ENVIRONMENT;
    }
    if (argc < 2) {
        print_help(stderr);
        return EXIT_STATUS_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("outrigger " OUTRIGGER_VERSION);
        return EXIT_STATUS_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return EXIT_STATUS_OK;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return run(&commands[i], argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "outrigger: unknown command '%s'; see outrigger --help\n", argv[1]);
    return EXIT_STATUS_USAGE;
}

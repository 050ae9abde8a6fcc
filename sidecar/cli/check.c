/*
 * The linter: one load, the lints, and each finding with the line that it is about. The load is the
 * proxy's own, so what is accepted here is what a pod runs.
 */
#include "cli/check.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/json.h"
#include "cli/excerpt.h"
#include "routes/diagnostic.h"
#include "routes/lint.h"
#include "routes/load.h"
#include "routes/yaml.h"

#define EXIT_CLEAN 0
#define EXIT_ERRORS 1
#define EXIT_USAGE 2

enum {
    PATH_BYTES_MAX = 4096,
};

static const char help[] =
    "usage: outrigger check [OPTION].. PATH..\n"
    "\n"
    "Checks files and directories of Kubernetes objects as the proxy would load them, and warns "
    "of\n"
    "what is valid but probably not meant. Exit status 0: no errors; 1: errors; 2: usage.\n"
    "\n"
    "  --namespace NS        of a workload; decides which consumer routes are in force\n"
    "  --require-reference-grants\n"
    "  --json                for programs\n"
    "  --help\n";

enum option_code {
    OPTION_NAMESPACE = 256,
    OPTION_GRANTS,
    OPTION_JSON,
    OPTION_HELP,
};

static const struct option option_table[] = {
    {"namespace", required_argument, NULL, OPTION_NAMESPACE},
    {"require-reference-grants", no_argument, NULL, OPTION_GRANTS},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

struct check {
    struct route_load_options load;
    bool has_json;
    bool has_help;
    /* The file whose lines are shown, read when the first finding in it is. */
    char path[PATH_BYTES_MAX];
    uint8_t *content;
    size_t content_bytes;
    uint32_t line_number; /* found last: findings are sorted, so the next one is not far */
    size_t line_offset;
};

/* ---- Showing lines ---- */

/* Of a single directory files have their name there: find the path that a shell can use. */
static void find_path(const struct check *check, const char *file, char *out, size_t size)
{
    const char *path = check->load.paths[0];
    size_t length = strlen(path);
    struct stat status;
    if (check->load.paths_count == 1 && file[0] != '\0' && stat(path, &status) == 0 &&
        S_ISDIR(status.st_mode)) {
        (void)snprintf(out, size, "%s%s%s", path, path[length - 1] == '/' ? "" : "/", file);
    } else {
        (void)snprintf(out, size, "%s", file);
    }
}

/* Only what the loader itself would read: regular files of bounded size. */
static void read_content(struct check *check, const char *path)
{
    if (strcmp(check->path, path) == 0) {
        return;
    }
    free(check->content);
    check->content = NULL;
    check->content_bytes = 0;
    check->line_number = 0;
    (void)snprintf(check->path, sizeof(check->path), "%s", path);
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode) ||
        status.st_size > (off_t)ROUTE_FILE_BYTES_MAX) {
        return;
    }
    FILE *file = fopen(path, "re");
    check->content = file == NULL ? NULL : malloc((size_t)status.st_size + 1);
    if (check->content != NULL) {
        check->content_bytes = fread(check->content, 1, (size_t)status.st_size, file);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

/* The line of that number, {NULL, 0} when there is none. */
static struct bytes find_line(struct check *check, uint32_t number)
{
    if (check->line_number == 0 || check->line_number > number) {
        check->line_number = 1;
        check->line_offset = 0;
    }
    struct bytes rest =
        bytes_skip(bytes_make(check->content, check->content_bytes), check->line_offset);
    while (rest.data != NULL && check->line_number < number) {
        size_t end = bytes_find(rest, '\n');
        if (end == rest.size) {
            return (struct bytes){0};
        }
        rest = bytes_skip(rest, end + 1);
        check->line_number++;
        check->line_offset += end + 1;
    }
    return bytes_first(rest, bytes_find(rest, '\n'));
}

/* ---- Findings ---- */

static const char *severity_name(enum route_severity severity)
{
    return severity == ROUTE_SEVERITY_ERROR ? "error" : "warning";
}

static void show_finding(struct check *check, const struct route_diagnostic *item)
{
    char path[PATH_BYTES_MAX];
    find_path(check, item->position.file, path, sizeof(path));
    if (item->position.line == 0) {
        printf("%s: %s: %s [%s]\n", path, severity_name(item->severity), item->message, item->code);
        return;
    }
    printf("%s:%u:%u: %s: %s [%s]\n", path, item->position.line, item->position.column,
           severity_name(item->severity), item->message, item->code);
    read_content(check, path);
    struct bytes line = find_line(check, item->position.line);
    if (line.data != NULL) {
        excerpt_print(stdout, line, item->position.line, item->position.column);
    }
    if (item->suggestion != NULL) {
        printf("       = did you mean `%s`?\n", item->suggestion);
    }
}

static const char *plural(uint32_t count)
{
    return count == 1 ? "" : "s";
}

static void show_all(struct check *check, const struct route_diagnostics *diagnostics,
                     const struct route_config *config)
{
    for (uint32_t i = 0; i < diagnostics->count; i++) {
        show_finding(check, &diagnostics->items[i]);
    }
    uint32_t found = diagnostics->errors_count + diagnostics->warnings_count;
    if (found > diagnostics->count) {
        printf("and %u more\n", found - diagnostics->count);
    }
    if (config != NULL) {
        struct route_load_stats stats = route_config_stats(config);
        printf("%u object%s in %u file%s: ", stats.objects, plural(stats.objects), stats.files,
               plural(stats.files));
    }
    printf("%u error%s, %u warning%s\n", diagnostics->errors_count,
           plural(diagnostics->errors_count), diagnostics->warnings_count,
           plural(diagnostics->warnings_count));
}

static struct json *describe(const struct check *check, const struct route_diagnostic *item)
{
    char path[PATH_BYTES_MAX];
    find_path(check, item->position.file, path, sizeof(path));
    struct json *json = json_new_object();
    json_put(json, "file", json_new_text(path));
    json_put(json, "line", json_new_number(item->position.line));
    json_put(json, "column", json_new_number(item->position.column));
    json_put(json, "severity", json_new_text(severity_name(item->severity)));
    json_put(json, "code", json_new_text(item->code));
    json_put(json, "message", json_new_text(item->message));
    json_put(json, "suggestion", json_new_text(item->suggestion));
    return json;
}

static bool print_json(const struct check *check, const struct route_diagnostics *diagnostics)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < diagnostics->count; i++) {
        json_push(list, describe(check, &diagnostics->items[i]));
    }
    struct json *json = json_new_object();
    json_put(json, "errors", json_new_number(diagnostics->errors_count));
    json_put(json, "warnings", json_new_number(diagnostics->warnings_count));
    json_put(json, "diagnostics", list);
    char *text = json_print(json, 2);
    if (text == NULL) {
        return false;
    }
    (void)puts(text);
    free(text);
    return true;
}

/* ---- The command ---- */

/* A path that cannot be read at all is told before anything is loaded; programs find it in the JSON
 * too. */
static uint32_t find_unreadable(const struct check *check, struct route_diagnostics *diagnostics)
{
    for (uint32_t i = 0; i < check->load.paths_count; i++) {
        const char *path = check->load.paths[i];
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) {
            struct route_position position = {.file = path};
            const char *why = strerrordesc_np(errno);
            (void)fprintf(stderr, "outrigger check: %s: %s\n", path, why);
            route_diagnostics_add(diagnostics, ROUTE_SEVERITY_ERROR, position, "path-unreadable",
                                  NULL, "cannot be read: %s", why);
            continue;
        }
        (void)close(fd);
    }
    return diagnostics->errors_count;
}

static bool tell(struct check *check, const struct route_diagnostics *diagnostics,
                 const struct route_config *config)
{
    if (check->has_json) {
        return print_json(check, diagnostics);
    }
    show_all(check, diagnostics, config);
    return true;
}

static int run(struct check *check)
{
    struct route_diagnostics diagnostics;
    struct route_config *config = NULL;
    struct error error = error_make(ERROR_CONFIG, 0);
    route_diagnostics_init(&diagnostics);
    bool is_readable = find_unreadable(check, &diagnostics) == 0;
    if (is_readable) {
        error = route_config_load(&check->load, NULL, &diagnostics, &config);
    }
    int status = error_is(error) ? EXIT_ERRORS : EXIT_CLEAN;
    if (!error_is(error)) {
        route_lint(config, &diagnostics);
    }
    bool is_told = (!is_readable && !check->has_json) || tell(check, &diagnostics, config);
    if (error_is(error) && error.code != ERROR_CONFIG) {
        (void)fprintf(stderr, "outrigger check: %s\n",
                      error.code == ERROR_OS ? strerrordesc_np(error.detail)
                                             : error_text(error.code));
    } else if (!is_told) {
        (void)fputs("outrigger check: out of memory\n", stderr);
        status = EXIT_ERRORS;
    }
    route_config_unref(config);
    route_diagnostics_finish(&diagnostics);
    free(check->content);
    return status;
}

static int parse(int argc, char **argv, struct check *check)
{
    int code = 0;
    optind = 1;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this subcommand has one thread */
    while ((code = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
        switch (code) {
        case OPTION_NAMESPACE:
            check->load.namespace = bytes_from_string(optarg);
            break;
        case OPTION_GRANTS:
            check->load.require_reference_grants = true;
            break;
        case OPTION_JSON:
            check->has_json = true;
            break;
        case OPTION_HELP:
            check->has_help = true;
            break;
        default:
            (void)fputs("Try 'outrigger check --help'.\n", stderr);
            return EXIT_USAGE;
        }
    }
    if (check->has_help) {
        return EXIT_CLEAN;
    }
    if (optind == argc) {
        (void)fputs("outrigger check: a file or directory is needed\n"
                    "Try 'outrigger check --help'.\n",
                    stderr);
        return EXIT_USAGE;
    }
    check->load.paths = (const char *const *)&argv[optind];
    check->load.paths_count = (uint32_t)(argc - optind);
    return EXIT_CLEAN;
}

int check_main(int argc, char **argv)
{
    static char name[] = "outrigger check"; /* what getopt calls us */
    argv[0] = name;
    static struct check check; /* a path is too large for the stack frame that we allow */
    check = (struct check){.load = {.can_udp = true}};
    int status = parse(argc, argv, &check);
    if (status != EXIT_CLEAN) {
        return status;
    }
    if (check.has_help) {
        (void)fputs(help, stdout);
        return EXIT_CLEAN;
    }
    return run(&check);
}

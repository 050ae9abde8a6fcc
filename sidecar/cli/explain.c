/*
 * Flags, one load, one explanation. What it says is explanation.c's, the same as on the admin
 * socket.
 */
#include "cli/explain.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/explanation.h"
#include "routes/load.h"

#define EXIT_OK 0
#define EXIT_ENVIRONMENT 1
#define EXIT_USAGE 2

enum {
    FIELDS_MAX = 128,
};

static const char help[] =
    "usage: outrigger explain --config DIR --namespace NS --to SERVICE.NS:PORT [OPTION].. [PATH]\n"
    "\n"
    "Says which rule takes a request, what is forwarded where, and why no other rule does.\n"
    "\n"
    "  --config DIR          the objects, as for `outrigger proxy`\n"
    "  --namespace NS        of the workload that sends; decides about consumer routes\n"
    "  --to DESTINATION      SERVICE.NS:PORT, or ADDRESS:PORT as the workload dials it\n"
    "  -X, --method METHOD   default GET\n"
    "  -H, --header 'N: V'   a header; repeatable. `host` is SERVICE.NS:PORT unless given\n"
    "  --sni NAME            server name of a TLS connection, for TLSRoute\n"
    "  --udp                 where a Service has TCP and UDP on one port: UDP\n"
    "  --require-reference-grants\n"
    "  --json                for programs\n"
    "  --help\n";

enum option_code {
    OPTION_CONFIG = 256,
    OPTION_NAMESPACE,
    OPTION_TO,
    OPTION_SNI,
    OPTION_UDP,
    OPTION_GRANTS,
    OPTION_JSON,
    OPTION_HELP,
};

static const struct option option_table[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"namespace", required_argument, NULL, OPTION_NAMESPACE},
    {"to", required_argument, NULL, OPTION_TO},
    {"method", required_argument, NULL, 'X'},
    {"header", required_argument, NULL, 'H'},
    {"sni", required_argument, NULL, OPTION_SNI},
    {"udp", no_argument, NULL, OPTION_UDP},
    {"require-reference-grants", no_argument, NULL, OPTION_GRANTS},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

struct explain {
    const char *config;
    const char *namespace;
    bool require_reference_grants;
    bool has_json;
    bool has_help;
    struct explanation_request request;
    struct route_field fields[FIELDS_MAX];
};

static int usage(const char *text, const char *what)
{
    (void)fprintf(stderr, "outrigger explain: %s%s\nTry 'outrigger explain --help'.\n", text, what);
    return EXIT_USAGE;
}

static bool take_header(struct explain *explain, const char *text)
{
    struct bytes value = bytes_from_string(text);
    struct bytes name = bytes_split(&value, ':');
    if (value.data == NULL || name.size == 0 || explain->request.fields_count == FIELDS_MAX) {
        return false;
    }
    explain->fields[explain->request.fields_count++] =
        (struct route_field){bytes_trim(name), bytes_trim(value)};
    return true;
}

static bool take_option(struct explain *explain, int code, const char *value)
{
    switch (code) {
    case OPTION_CONFIG:
        explain->config = value;
        return true;
    case OPTION_NAMESPACE:
        explain->namespace = value;
        return true;
    case OPTION_TO:
        explain->request.to = bytes_from_string(value);
        return true;
    case OPTION_SNI:
        explain->request.sni = bytes_from_string(value);
        return true;
    case OPTION_UDP:
        explain->request.is_udp = true;
        return true;
    case OPTION_GRANTS:
        explain->require_reference_grants = true;
        return true;
    case OPTION_JSON:
        explain->has_json = true;
        return true;
    case OPTION_HELP:
        explain->has_help = true;
        return true;
    case 'X':
        explain->request.method = bytes_from_string(value);
        return true;
    case 'H':
        return take_header(explain, value);
    default:
        return false;
    }
}

static int parse(int argc, char **argv, struct explain *explain)
{
    int code = 0;
    optind = 1;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this subcommand has one thread */
    while ((code = getopt_long(argc, argv, "X:H:", option_table, NULL)) != -1) {
        if (code == '?') {
            (void)fputs("Try 'outrigger explain --help'.\n", stderr);
            return EXIT_USAGE;
        }
        if (!take_option(explain, code, optarg)) {
            return usage("not a header of the form 'name: value': ", optarg);
        }
    }
    if (explain->has_help) {
        return EXIT_OK;
    }
    if (explain->config == NULL || explain->namespace == NULL || explain->request.to.data == NULL) {
        return usage("--config, --namespace and --to are needed", "");
    }
    if (optind < argc) {
        explain->request.target = bytes_from_string(argv[optind++]);
    }
    if (optind < argc) {
        return usage("unexpected argument: ", argv[optind]);
    }
    explain->request.fields = explain->fields;
    return EXIT_OK;
}

/* What is wrong with the files; warnings are for `check`. */
static void print_errors(const struct route_diagnostics *diagnostics)
{
    for (uint32_t i = 0; i < diagnostics->count; i++) {
        const struct route_diagnostic *item = &diagnostics->items[i];
        if (item->severity == ROUTE_SEVERITY_ERROR) {
            (void)fprintf(stderr, "%s:%u:%u: %s [%s]\n",
                          item->position.file == NULL ? "" : item->position.file,
                          item->position.line, item->position.column, item->message, item->code);
        }
    }
}

static struct error print_explanation(const struct explain *explain,
                                      const struct route_config *config, char *message, size_t size)
{
    char *text = NULL;
    if (explain->has_json) {
        struct json *json = NULL;
        TRY(explanation_json(config, 1, &explain->request, &json, message, size));
        text = json_print(json, 2);
    } else {
        TRY(explanation_text(config, 1, &explain->request, &text, message, size));
    }
    if (text == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    (void)fputs(text, stdout);
    if (explain->has_json) {
        (void)fputs("\n", stdout);
    }
    free(text);
    return OK;
}

static int run(const struct explain *explain)
{
    char message[400] = "";
    struct route_diagnostics diagnostics;
    struct route_config *config = NULL;
    struct route_load_options options = {
        .paths = &explain->config,
        .paths_count = 1,
        .namespace = bytes_from_string(explain->namespace),
        .require_reference_grants = explain->require_reference_grants,
        .can_udp = true,
    };
    route_diagnostics_init(&diagnostics);
    struct error error = route_config_load(&options, NULL, &diagnostics, &config);
    if (error_is(error)) {
        print_errors(&diagnostics);
        (void)fprintf(stderr, "outrigger explain: %s: %s%s%s\n", explain->config,
                      error_text(error.code), error.code == ERROR_OS ? ": " : "",
                      error.code == ERROR_OS ? strerrordesc_np(error.detail) : "");
        route_diagnostics_finish(&diagnostics);
        return EXIT_ENVIRONMENT;
    }
    route_diagnostics_finish(&diagnostics);
    error = print_explanation(explain, config, message, sizeof(message));
    route_config_unref(config);
    if (error_is(error)) {
        (void)fprintf(stderr, "outrigger explain: %s\n",
                      message[0] != '\0' ? message : error_text(error.code));
        return error.code == ERROR_USAGE ? EXIT_USAGE : EXIT_ENVIRONMENT;
    }
    return EXIT_OK;
}

int explain_main(int argc, char **argv)
{
    static char name[] = "outrigger explain"; /* what getopt calls us */
    argv[0] = name;
    struct explain explain = {0};
    int status = parse(argc, argv, &explain);
    if (status != EXIT_OK) {
        return status;
    }
    if (explain.has_help) {
        (void)fputs(help, stdout);
        return EXIT_OK;
    }
    return run(&explain);
}

/*
 * What comes of a load. A new generation goes to every worker and into control->current; a refusal
 * stays in control->refused, for /status and the metrics, until the files are sound again.
 */
#include "control/reload.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/admin.h"
#include "control/control.h"

static void log_diagnostics(const struct route_diagnostics *diagnostics)
{
    for (uint32_t i = 0; i < diagnostics->count; i++) {
        const struct route_diagnostic *item = &diagnostics->items[i];
        enum log_level level = item->severity == ROUTE_SEVERITY_ERROR ? LOG_ERROR : LOG_WARNING;
        char text[1024];
        text[log_escape(text, 0, sizeof(text) - 1, bytes_from_string(item->message))] = '\0';
        log_line(NULL, level, "msg=\"%s\" code=%s at=%s:%u:%u", text, item->code,
                 item->position.file == NULL ? "-" : item->position.file, item->position.line,
                 item->position.column);
    }
}

static void log_refusal(const struct control *control, const struct builder_result *result)
{
    log_diagnostics(&result->diagnostics);
    if (result->error.code == ERROR_CONFIG) {
        log_line(NULL, LOG_ERROR, "msg=\"configuration refused\" config=%s errors=%u",
                 control->options->config, result->diagnostics.errors_count);
    } else {
        log_line(NULL, LOG_ERROR,
                 "msg=\"configuration cannot be read\" config=%s reason=\"%s\" errno=\"%s\"",
                 control->options->config, error_text(result->error.code),
                 strerror(result->error.detail));
    }
}

/* Put a new generation in force. */
static void apply(struct control *control, struct builder_result *result)
{
    struct snapshot *snapshot = result->snapshot;
    result->snapshot = NULL;
    for (uint32_t i = 0; i < control->workers_count; i++) {
        worker_publish(control->workers[i], snapshot_ref(snapshot));
    }
    snapshot_unref(control->current);
    control->current = snapshot;
    builder_result_free(control->refused);
    control->refused = NULL;
    control->reloads_applied++;
    struct route_load_stats stats = route_config_stats(snapshot->config);
    log_line(NULL, LOG_INFO,
             "msg=\"configuration applied\" generation=%llu hash=%s files=%u parsed=%u tables=%u "
             "compiled=%u ms=%llu",
             (unsigned long long)snapshot->generation, snapshot->hash, stats.files,
             stats.files_parsed, stats.tables, stats.tables_compiled,
             (unsigned long long)(result->duration_ns / CLOCK_NS_PER_MS));
}

/* The same refusal again and again (a look every 10 s) is told once. */
static bool is_same_refusal(const struct builder_result *a, const struct builder_result *b)
{
    if (a == NULL || a->error.code != b->error.code || a->error.detail != b->error.detail ||
        strcmp(a->hash, b->hash) != 0 || a->diagnostics.count != b->diagnostics.count) {
        return false;
    }
    for (uint32_t i = 0; i < a->diagnostics.count; i++) {
        if (strcmp(a->diagnostics.items[i].message, b->diagnostics.items[i].message) != 0) {
            return false;
        }
    }
    return true;
}

static void on_result(struct builder_result *result, void *owner)
{
    struct control *control = owner;
    void *argument = result->argument;
    switch (result->outcome) {
    case BUILDER_APPLIED:
        log_diagnostics(&result->diagnostics);
        apply(control, result);
        break;
    case BUILDER_UNCHANGED:
        control->reloads_unchanged++;
        builder_result_free(control->refused); /* the files are those in force again */
        control->refused = NULL;
        break;
    case BUILDER_REFUSED:
        if (argument != NULL || !is_same_refusal(control->refused, result)) {
            control->reloads_refused++;
            log_refusal(control, result);
        }
        builder_result_free(control->refused);
        control->refused = result;
        break;
    }
    if (argument != NULL) {
        admin_reload_done(control, argument, result);
    }
    if (result != control->refused) {
        builder_result_free(result);
    }
}

bool reload_first(struct control *control)
{
    const struct options *options = control->options;
    static const char *paths[1];
    paths[0] = options->config;
    struct builder_options builder = {
        .load = {.paths = paths,
                 .paths_count = 1,
                 .namespace = options->own_namespace,
                 .require_reference_grants = options->require_reference_grants,
                 .skip_invalid_objects = options->skip_invalid_objects},
        .directory = options->config,
        .control = control->io,
        .on_result = on_result,
        .owner = control,
    };
    struct builder_result *result = NULL;
    struct error error = builder_create(&builder, &control->builder, &result);
    if (error_is(error)) {
        log_line(NULL, LOG_ERROR, "msg=\"out of memory\"");
        control->exit_status = EXIT_STATUS_ENVIRONMENT;
        return false;
    }
    bool is_applied = result->outcome == BUILDER_APPLIED;
    if (is_applied) {
        log_diagnostics(&result->diagnostics);
        apply(control, result);
    } else {
        log_refusal(control, result);
        control->exit_status =
            result->error.code == ERROR_CONFIG ? EXIT_STATUS_CONFIG : EXIT_STATUS_ENVIRONMENT;
    }
    builder_result_free(result);
    return is_applied;
}

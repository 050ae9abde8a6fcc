/* The admin socket's commands. Answers are built as JSON and printed as JSON or as text, so that
 * both say the same. */
#include "control/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/explanation.h"
#include "control/admin_workers.h"
#include "control/gauges.h"
#include "control/interception.h"
#include "routes/explain.h"

enum {
    QUERY_FIELDS_MAX = 64,
    EXPLAIN_ARENA_BYTES_MAX = 1 << 20,
    RELOAD_SECONDS =
        120, /* of the largest configuration, on a machine that does other things too */
};

static const char json_type[] = "application/json";
static const char text_type[] = "text/plain; charset=utf-8";

void admin_reply(const struct admin_call *admin, uint16_t status, struct json *json)
{
    char *text = admin->is_text ? json_print_text(json) : json_print(json, 2);
    size_t size = text == NULL ? 0 : strlen(text);
    if (text != NULL && !admin->is_text) {
        char *line = realloc(text, size + 2);
        if (line != NULL) {
            text = line;
            text[size++] = '\n';
        }
    }
    server_reply(admin->call, status, admin->is_text ? text_type : json_type, text, size);
}

void admin_reply_error(const struct admin_call *admin, uint16_t status, const char *code,
                       const char *message)
{
    struct json *json = json_new_object();
    json_put(json, "code", json_new_text(code));
    json_put(json, "message", json_new_text(message));
    admin_reply(admin, status, json);
}

/* "2026-11-24T13:00:00.123Z" */
static struct json *json_time(uint64_t at_ms)
{
    char text[64];
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t length = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + length, sizeof(text) - length, ".%03uZ", (unsigned)(at_ms % 1000));
    return json_new_text(text);
}

static struct json *json_diagnostics(const struct control *control,
                                     const struct builder_result *result)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < result->diagnostics.count; i++) {
        const struct route_diagnostic *item = &result->diagnostics.items[i];
        if (item->severity != ROUTE_SEVERITY_ERROR) {
            continue;
        }
        struct json *row = json_new_object();
        json_put(row, "file", json_new_text(item->position.file));
        json_put(row, "line", json_new_number(item->position.line));
        json_put(row, "column", json_new_number(item->position.column));
        json_put(row, "code", json_new_text(item->code));
        json_put(row, "message", json_new_text(item->message));
        if (item->suggestion != NULL) {
            json_put(row, "suggestion", json_new_text(item->suggestion));
        }
        json_push(list, row);
    }
    if (result->diagnostics.errors_count == 0) { /* the directory itself */
        char message[256];
        snprintf(message, sizeof(message), "%s: %s", error_text(result->error.code),
                 strerror(result->error.detail));
        struct json *row = json_new_object();
        json_put(row, "file", json_new_text(control->options->config));
        json_put(row, "line", json_new_number(0));
        json_put(row, "column", json_new_number(0));
        json_put(row, "code", json_new_text("config-unreadable"));
        json_put(row, "message", json_new_text(message));
        json_push(list, row);
    }
    return list;
}

/* ---- /status ---- */

static struct json *json_not_ready(const struct control *control)
{
    char text[1024];
    control_not_ready(control, text, sizeof(text));
    struct json *list = json_new_array();
    struct bytes rest = bytes_from_string(text);
    while (rest.size > 0) {
        json_push(list, json_new_string(bytes_split(&rest, '\n')));
    }
    return list;
}

static struct json *json_refused(const struct control *control)
{
    const struct builder_result *refused = control->refused;
    if (refused == NULL) {
        return json_new_null();
    }
    struct json *json = json_new_object();
    json_put(json, "hash", json_new_text(refused->hash));
    json_put(json, "at", json_time(refused->at_ms));
    json_put(json, "diagnostics", json_diagnostics(control, refused));
    return json;
}

static const char *interception_name(enum control_interception interception)
{
    switch (interception) {
    case CONTROL_INTERCEPTION_UNKNOWN:
        return "unknown";
    case CONTROL_INTERCEPTION_PASSED:
        return "passed";
    case CONTROL_INTERCEPTION_FAILED:
        return "failed";
    }
    return "unknown";
}

static struct json *json_notices(const struct control *control)
{
    struct json *list = json_new_array();
    if (interception_is_bypassed(control)) {
        json_push(
            list,
            json_new_text(
                "endpoints are dialled, never a ClusterIP, so routes never apply; where Cilium "
                "is the reason, set socketLB.hostNamespaceOnly=true"));
    }
    if (interception_gap(control) != NULL) {
        char text[160];
        snprintf(
            text, sizeof(text),
            "connections over %s are not redirected, so nothing applies to them; run outrigger "
            "intercept --install without --family",
            interception_gap(control));
        json_push(list, json_new_text(text));
    }
    return list;
}

static void get_status(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    const struct control *control = admin->control;
    char reasons[1024];
    struct json *json = json_new_object();
    json_put(json, "version", json_new_text(OUTRIGGER_VERSION));
    json_put(json, "ready",
             json_new_boolean(control_not_ready(control, reasons, sizeof(reasons)) == 0));
    json_put(json, "notReady", json_not_ready(control));
    json_put(json, "generation", json_new_number((int64_t)control->current->generation));
    json_put(json, "hash", json_new_text(control->current->hash));
    json_put(json, "loadedAt", json_time(control->current->loaded_at_ms));
    json_put(json, "workers", json_new_number(control->workers_count));
    json_put(json, "io", json_new_text(io_backend_name(control->probe.backend)));
    json_put(
        json, "ioReason",
        json_new_text(control->probe.refusal == IO_REFUSAL_NONE ? NULL : control->probe.reason));
    json_put(
        json, "ioRemedy",
        json_new_text(control->probe.refusal == IO_REFUSAL_NONE ? NULL : control->probe.remedy));
    json_put(json, "interception", json_new_text(interception_name(control->interception)));
    json_put(json, "notices", json_notices(control));
    json_put(json, "draining", json_new_boolean(control->state != CONTROL_RUNNING));
    json_put(
        json, "uptimeSeconds",
        json_new_number((int64_t)((io_now(control->io) - control->started_ns) / CLOCK_NS_PER_S)));
    json_put(json, "connections",
             json_new_number((int64_t)stats_active_sum(control->stats, control->workers_count)));
    json_put(json, "logLevel", json_new_text(log_level_name(log_level())));
    json_put(json, "lastRefused", json_refused(control));
    admin_reply(admin, 200, json);
}

/* ---- /config, /routes ---- */

static struct json *json_conditions(const struct route_config *config, uint32_t place)
{
    struct json *list = json_new_array();
    uint32_t count = 0;
    const struct route_condition *conditions = route_config_conditions(config, place, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct json *row = json_new_object();
        json_put(row, "parent", json_new_string(conditions[i].parent));
        json_put(row, "type", json_new_text(conditions[i].type));
        json_put(row, "status", json_new_text(conditions[i].status ? "True" : "False"));
        json_put(row, "reason", json_new_text(conditions[i].reason));
        json_put(row, "message", json_new_text(conditions[i].message));
        json_push(list, row);
    }
    return list;
}

static void get_config(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    const struct route_config *config = admin->control->current->config;
    uint32_t count = 0;
    const struct route_object *const *objects = route_config_objects(config, &count);
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < count; i++) {
        struct json *row = json_new_object();
        json_put(row, "kind", json_new_text(route_kind_name(objects[i]->kind)));
        json_put(row, "namespace", json_new_string(objects[i]->namespace));
        json_put(row, "name", json_new_string(objects[i]->name));
        json_put(row, "file", json_new_text(objects[i]->position.file));
        json_put(row, "line", json_new_number(objects[i]->position.line));
        json_put(row, "conditions", json_conditions(config, i));
        json_push(list, row);
    }
    admin_reply(admin, 200, list);
}

static struct json *json_rules(const struct control *control, const struct route_service *service,
                               uint16_t port, const struct route_rules *rules)
{
    char parent[512];
    snprintf(parent, sizeof(parent), "%.*s:%u", (int)service->reference.size,
             (const char *)service->reference.data, port);
    struct json *list = json_new_array();
    struct arena arena;
    arena_init(&arena, 4096, EXPLAIN_ARENA_BYTES_MAX);
    for (uint32_t i = 0; i < route_rules_matches_count(rules); i++) {
        struct route_listing listing;
        route_rules_match_at(rules, i, &arena, &listing);
        uint64_t hits =
            stats_rule_hits_sum(control->stats, control->workers_count, bytes_from_string(parent),
                                listing.rule->route_name, listing.rule->rule_name);
        struct json *row = json_new_object();
        json_put(row, "route", json_new_string(listing.rule->route_name));
        json_put(row, "rule", json_new_string(listing.rule->rule_name));
        json_put(row, "match", json_new_number(listing.match_index));
        json_put(row, "when", json_new_text(listing.when));
        json_put(row, "file", json_new_text(listing.position->file));
        json_put(row, "line", json_new_number(listing.position->line));
        json_put(row, "hits", json_new_number((int64_t)hits));
        json_push(list, row);
        arena_reset(&arena);
    }
    arena_finish(&arena);
    return list;
}

static void get_routes(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    const struct route_services *services = route_config_services(admin->control->current->config);
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < route_services_count(services); i++) {
        const struct route_service *service = route_services_at(services, i);
        for (uint32_t p = 0; p < service->ports_count; p++) {
            const struct route_port *port = &service->ports[p];
            if (port->rules == NULL) {
                continue;
            }
            struct json *row = json_new_object();
            json_put(row, "service", json_new_string(service->reference));
            json_put(row, "port", json_new_number(port->source->port));
            json_put(row, "kind", json_new_text(route_kind_name(route_rules_kind(port->rules))));
            json_put(row, "set",
                     json_new_text(route_rules_set(port->rules) == ROUTE_SET_CONSUMER
                                       ? "consumer"
                                       : "producer"));
            json_put(row, "rules",
                     json_rules(admin->control, service, port->source->port, port->rules));
            json_push(list, row);
        }
    }
    admin_reply(admin, 200, list);
}

/* ---- /stats, /certificates ---- */

static void get_stats(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    const struct control *control = admin->control;
    struct stats_gauge gauges[64];
    uint32_t count = gauges_collect(control, gauges, sizeof(gauges) / sizeof(gauges[0]));
    struct stats_text text = {0};
    stats_write_prometheus(control->stats, control->workers_count, gauges, count, &text);
    if (admin->is_text || text.is_failed) {
        server_reply(admin->call, 200, text_type, text.is_failed ? NULL : text.data, text.length);
        if (text.is_failed) {
            stats_text_finish(&text);
        }
        return;
    }
    struct json *json = json_new_object();
    struct bytes rest = bytes_make(text.data, text.length);
    while (rest.size > 0) {
        struct bytes line = bytes_split(&rest, '\n');
        size_t space = line.size;
        while (space > 0 && line.data[space - 1] != ' ') {
            space--;
        }
        if (space < 2 || line.data[0] == '#') {
            continue;
        }
        char name[1024];
        snprintf(name, sizeof(name), "%.*s", (int)(space - 1), (const char *)line.data);
        json_put(json, name, json_new_real(strtod((const char *)line.data + space, NULL)));
    }
    stats_text_finish(&text);
    admin_reply(admin, 200, json);
}

static void get_certificates(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    admin_reply(admin, 200,
                json_new_array()); /* none are loaded: this version speaks no TLS of its own */
}

/* ---- /explain ---- */

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    uint8_t lower = byte_lower(byte);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The value of a query parameter: percent-decoded, '+' is a space (it is a form's query). */
static struct bytes decode(struct bytes text, struct arena *arena)
{
    uint8_t *out = arena_alloc(arena, text.size + 1);
    if (out == NULL) {
        return (struct bytes){0};
    }
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '%' && i + 2 < text.size && hex_digit(text.data[i + 1]) >= 0 &&
            hex_digit(text.data[i + 2]) >= 0) {
            out[size++] = (uint8_t)(hex_digit(text.data[i + 1]) << 4 | hex_digit(text.data[i + 2]));
            i += 2;
        } else {
            out[size++] = text.data[i] == '+' ? ' ' : text.data[i];
        }
    }
    return bytes_make(out, size);
}

static struct bytes query_of(const struct message_head *head)
{
    struct bytes rest = head->target;
    bytes_split(&rest, '?');
    return rest;
}

/* The first value of `name`; data NULL when it is not there. */
static struct bytes parameter(const struct message_head *head, const char *name,
                              struct arena *arena)
{
    struct bytes rest = query_of(head);
    while (rest.size > 0) {
        struct bytes value = bytes_split(&rest, '&');
        struct bytes key = bytes_split(&value, '=');
        if (bytes_is(key, name)) {
            return decode(value, arena);
        }
    }
    return (struct bytes){0};
}

/* header=x-a:1, as often as wanted; false: one of them has no colon, or there are too many. */
static bool read_fields(const struct message_head *head, struct arena *arena,
                        struct route_field *fields, uint32_t *ret_count)
{
    struct bytes rest = query_of(head);
    uint32_t count = 0;
    while (rest.size > 0) {
        struct bytes value = bytes_split(&rest, '&');
        struct bytes key = bytes_split(&value, '=');
        if (!bytes_equal(key, BYTES("header"))) {
            continue;
        }
        struct bytes field = decode(value, arena);
        size_t colon = bytes_find(field, ':');
        if (colon == field.size || count == QUERY_FIELDS_MAX) {
            return false;
        }
        fields[count].name = bytes_trim(bytes_first(field, colon));
        fields[count++].value = bytes_trim(bytes_skip(field, colon + 1));
    }
    *ret_count = count;
    return true;
}

static void explain(const struct admin_call *admin, const struct message_head *head,
                    struct arena *arena)
{
    struct route_field fields[QUERY_FIELDS_MAX];
    struct explanation_request request = {.to = parameter(head, "to", arena),
                                          .method = parameter(head, "method", arena),
                                          .target = parameter(head, "path", arena),
                                          .sni = parameter(head, "sni", arena),
                                          .fields = fields};
    if (request.to.size == 0) {
        admin_reply_error(
            admin, 400, "usage",
            "want /explain?to=SERVICE.NS:PORT&path=/...[&method=M][&header=name:value]...");
        return;
    }
    if (!read_fields(head, arena, fields, &request.fields_count)) {
        admin_reply_error(admin, 400, "usage",
                          "a header is written name:value, at most 64 of them");
        return;
    }
    if (request.target.size == 0) {
        request.target = BYTES("/");
    }
    const struct snapshot *snapshot = admin->control->current;
    char message[512] = "";
    struct json *json = NULL;
    char *text = NULL;
    struct error error = admin->is_text
                             ? explanation_text(snapshot->config, snapshot->generation, &request,
                                                &text, message, sizeof(message))
                             : explanation_json(snapshot->config, snapshot->generation, &request,
                                                &json, message, sizeof(message));
    if (error.code == ERROR_USAGE || error.code == ERROR_NOT_FOUND) {
        admin_reply_error(admin, error.code == ERROR_USAGE ? 400 : 404,
                          error.code == ERROR_USAGE ? "usage" : "not_found", message);
    } else if (error_is(error)) {
        admin_reply_error(admin, 503, "out_of_memory", error_text(error.code));
    } else if (admin->is_text) {
        server_reply(admin->call, 200, text_type, text, strlen(text));
    } else {
        admin_reply(admin, 200, json);
    }
}

static void get_explain(const struct admin_call *admin, const struct message_head *head)
{
    struct arena arena;
    arena_init(&arena, 4096, EXPLAIN_ARENA_BYTES_MAX);
    explain(admin, head, &arena);
    arena_finish(&arena);
}

/* ---- POST ---- */

static void post_reload(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    struct admin_call *waiting = malloc(sizeof(*waiting));
    if (waiting == NULL) {
        admin_reply_error(admin, 503, "out_of_memory", "out of memory");
        return;
    }
    *waiting = *admin;
    server_wait_longer(admin->call, RELOAD_SECONDS);
    builder_ask(admin->control->builder, waiting);
}

void admin_reload_done(struct control *control, void *argument, const struct builder_result *result)
{
    struct admin_call *waiting = argument;
    struct json *json = json_new_object();
    uint16_t status = 200;
    if (result->outcome == BUILDER_REFUSED) {
        status = 409;
        json_put(json, "diagnostics", json_diagnostics(control, result));
    } else {
        json_put(json, "generation", json_new_number((int64_t)control->current->generation));
        json_put(json, "hash", json_new_text(control->current->hash));
    }
    admin_reply(waiting, status, json);
    free(waiting);
}

static void post_drain(const struct admin_call *admin, const struct message_head *head)
{
    (void)head;
    control_drain(admin->control);
    struct json *json = json_new_object();
    json_put(json, "draining", json_new_boolean(true));
    json_put(json, "seconds", json_new_number(admin->control->options->drain_seconds));
    admin_reply(admin, 200, json);
}

static bool parse_level(struct bytes word, enum log_level *ret_level)
{
    for (enum log_level level = LOG_ERROR; level <= LOG_DEBUG; level++) {
        if (bytes_is(word, log_level_name(level))) {
            *ret_level = level;
            return true;
        }
    }
    return false;
}

static void post_log(const struct admin_call *admin, const struct message_head *head)
{
    struct control *control = admin->control;
    struct arena arena;
    arena_init(&arena, 1024, EXPLAIN_ARENA_BYTES_MAX);
    struct bytes span = parameter(head, "for", &arena);
    enum log_level level = LOG_INFO;
    uint64_t span_ns = 0;
    bool is_level = parse_level(parameter(head, "level", &arena), &level);
    bool is_span =
        span.data == NULL || (!error_is(options_parse_duration(span, &span_ns)) && span_ns > 0);
    bool has_span = span.data != NULL;
    arena_finish(&arena);
    if (!is_level || !is_span) {
        admin_reply_error(admin, 400, "usage", "want /log?level=error|warning|info|debug[&for=5m]");
        return;
    }
    log_set_level(level);
    control_restore_level_at(control,
                             has_span ? clock_add(io_now(control->io), span_ns) : CLOCK_NEVER);
    struct json *json = json_new_object();
    json_put(json, "level", json_new_text(log_level_name(level)));
    json_put(json, "seconds",
             has_span ? json_new_number((int64_t)(span_ns / CLOCK_NS_PER_S)) : json_new_null());
    admin_reply(admin, 200, json);
}

/* ---- the table of commands ---- */

struct command {
    const char *path;
    bool is_post;
    void (*run)(const struct admin_call *admin, const struct message_head *head);
};

static const struct command commands[] = {
    {"/status", false, get_status},
    {"/config", false, get_config},
    {"/routes", false, get_routes},
    {"/endpoints", false, admin_get_endpoints},
    {"/connections", false, admin_get_connections},
    {"/stats", false, get_stats},
    {"/certificates", false, get_certificates},
    {"/explain", false, get_explain},
    {"/dump", false, admin_get_dump},
    {"/reload", true, post_reload},
    {"/drain", true, post_drain},
    {"/log", true, post_log},
};

static bool wants_text(const struct message_head *head)
{
    for (uint32_t i = 0; i < head->fields_count; i++) {
        if (bytes_equal_nocase(head->fields[i].name, BYTES("accept"))) {
            return bytes_equal_nocase(bytes_first(head->fields[i].value, strlen("text/plain")),
                                      BYTES("text/plain"));
        }
    }
    return false;
}

void admin_handle(struct server_call *call, const struct message_head *head, void *owner)
{
    struct admin_call admin = {.control = owner, .call = call, .is_text = wants_text(head)};
    struct bytes path = bytes_first(head->target, bytes_find(head->target, '?'));
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (!bytes_is(path, commands[i].path)) {
            continue;
        }
        bool is_post = bytes_equal(head->method, BYTES("POST"));
        bool is_get = bytes_equal(head->method, BYTES("GET")) || head->is_head_request;
        if (commands[i].is_post ? is_post : is_get) {
            commands[i].run(&admin, head);
        } else {
            server_reply_not_allowed(call, commands[i].is_post ? "POST" : "GET, HEAD");
        }
        return;
    }
    admin_reply_error(
        &admin, 404, "not_found",
        "no such command: status config routes endpoints connections stats certificates "
        "explain dump reload drain log");
}

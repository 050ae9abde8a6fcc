/*
 * An explanation as JSON (contract section 3, with more members than it lists) and as text.
 */
#include "cli/explanation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/check.h"
#include "cli/explained.h"

enum {
    ARENA_BYTES_MAX = 256 << 20, /* ten thousand rules, each with its reason */
    REJECTIONS_SHOWN_MAX = 40,   /* of text; JSON has all */
};

/* ---- JSON ---- */

static const char *fault_text(enum route_backend_fault fault)
{
    switch (fault) {
    case ROUTE_BACKEND_VALID:
        break;
    case ROUTE_BACKEND_KIND_UNSUPPORTED:
        return "unsupported kind";
    case ROUTE_BACKEND_NOT_FOUND:
        return "no such Service";
    case ROUTE_BACKEND_PORT_NOT_FOUND:
        return "the Service has no such port";
    case ROUTE_BACKEND_NOT_PERMITTED:
        return "no ReferenceGrant permits it";
    case ROUTE_BACKEND_PROTOCOL_UNSUPPORTED:
        return "the route cannot speak the port's protocol";
    case ROUTE_BACKEND_FILTER_UNSUPPORTED:
        return "a filter of this backend cannot be honoured";
    }
    return NULL;
}

static struct json *header_list(const struct route_header *headers, uint32_t count)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < count; i++) {
        struct json *header = json_new_object();
        json_put(header, "name", json_new_string(headers[i].name));
        json_put(header, "value", json_new_string(headers[i].value));
        json_push(list, header);
    }
    return list;
}

static struct json *string_list(const struct bytes *strings, uint32_t count)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < count; i++) {
        json_push(list, json_new_string(strings[i]));
    }
    return list;
}

static void put_optional(struct json *object, const char *key, struct bytes value)
{
    if (value.data != NULL) {
        json_put(object, key, json_new_string(value));
    }
}

static void put_path(struct json *object, const struct route_path_modifier *path)
{
    if (path == NULL) {
        return;
    }
    bool is_full = path->type == ROUTE_PATH_REPLACE_FULL;
    struct json *value = json_new_object();
    json_put(value, "type", json_new_text(is_full ? "ReplaceFullPath" : "ReplacePrefixMatch"));
    json_put(value, "value",
             json_new_string(is_full ? path->replace_full_path : path->replace_prefix_match));
    json_put(object, "path", value);
}

static void put_cors(struct json *object, const struct route_cors *cors)
{
    json_put(object, "allowOrigins", string_list(cors->allow_origins, cors->allow_origins_count));
    json_put(object, "allowMethods", string_list(cors->allow_methods, cors->allow_methods_count));
    json_put(object, "allowHeaders", string_list(cors->allow_headers, cors->allow_headers_count));
    json_put(object, "exposeHeaders",
             string_list(cors->expose_headers, cors->expose_headers_count));
    json_put(object, "allowCredentials", json_new_boolean(cors->allow_credentials));
    json_put(object, "maxAge", json_new_number(cors->max_age_s));
}

static void put_modifier(struct json *object, const char *type,
                         const struct route_header_modifier *modifier)
{
    json_put(object, "type", json_new_text(type));
    json_put(object, "set", header_list(modifier->set, modifier->set_count));
    json_put(object, "add", header_list(modifier->add, modifier->add_count));
    json_put(object, "remove", string_list(modifier->remove, modifier->remove_count));
}

static void put_redirect(struct json *object, const struct route_redirect *redirect)
{
    json_put(object, "type", json_new_text("RequestRedirect"));
    json_put(object, "statusCode", json_new_number(redirect->status_code));
    put_optional(object, "scheme", redirect->scheme);
    put_optional(object, "hostname", redirect->hostname);
    if (redirect->port != 0) {
        json_put(object, "port", json_new_number(redirect->port));
    }
    put_path(object, redirect->path);
}

static struct json *filter_json(const struct route_table_filter *filter)
{
    struct json *object = json_new_object();
    const struct route_filter *source = filter->source;
    switch (filter->type) {
    case ROUTE_FILTER_REQUEST_HEADER_MODIFIER:
        put_modifier(object, "RequestHeaderModifier", source->header_modifier);
        break;
    case ROUTE_FILTER_RESPONSE_HEADER_MODIFIER:
        put_modifier(object, "ResponseHeaderModifier", source->header_modifier);
        break;
    case ROUTE_FILTER_REQUEST_REDIRECT:
        put_redirect(object, source->redirect);
        break;
    case ROUTE_FILTER_URL_REWRITE:
        json_put(object, "type", json_new_text("URLRewrite"));
        put_optional(object, "hostname", source->rewrite->hostname);
        put_path(object, source->rewrite->path);
        break;
    case ROUTE_FILTER_REQUEST_MIRROR:
        json_put(object, "type", json_new_text("RequestMirror"));
        json_put(object, "ref", json_new_string(filter->backend->reference));
        json_put(
            object, "percent",
            json_new_real(source->mirror->denominator == 0
                              ? 100
                              : 100.0 * source->mirror->numerator / source->mirror->denominator));
        break;
    case ROUTE_FILTER_CORS:
        json_put(object, "type", json_new_text("CORS"));
        put_cors(object, source->cors);
        break;
    case ROUTE_FILTER_EXTERNAL_AUTH:
        json_put(object, "type", json_new_text("ExternalAuth"));
        json_put(object, "ref", json_new_string(filter->backend->reference));
        break;
    case ROUTE_FILTER_EXTENSION_REF:
    case ROUTE_FILTER_UNSUPPORTED:
        json_put(object, "type", json_new_text("ExtensionRef"));
        break;
    }
    return object;
}

static struct json *filters_json(const struct route_table_filter *filters, uint32_t count)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < count; i++) {
        json_push(list, filter_json(&filters[i]));
    }
    return list;
}

static struct json *answer_json(const struct explained_answer *answer)
{
    if (!answer->is_given) {
        return json_new_null();
    }
    struct json *object = json_new_object();
    json_put(object, "status",
             answer->is_reset ? json_new_null() : json_new_number(answer->status));
    json_put(object, "cause",
             answer->cause == CAUSE_NONE ? json_new_null()
                                         : json_new_string(cause_info(answer->cause)->name));
    if (answer->is_reset) {
        json_put(object, "reset", json_new_boolean(true));
    }
    if (answer->has_grpc_status) {
        json_put(object, "grpcStatus", json_new_number(answer->grpc_status));
    }
    put_optional(object, "location", answer->location);
    return object;
}

static void put_place(struct json *object, const struct route_table_rule *rule,
                      uint32_t match_index, const struct route_position *position)
{
    json_put(object, "route", json_new_string(rule->route_name));
    json_put(object, "rule", json_new_string(rule->rule_name));
    json_put(object, "match", json_new_number(match_index));
    json_put(object, "file", json_new_text(position->file));
    json_put(object, "line", json_new_number(position->line));
}

/* A match that the file does not write out (a default) stands where its rule does. */
static const struct route_position *place_of(const struct route_table_rule *rule,
                                             const struct route_position *position)
{
    return position != NULL && position->line != 0 ? position : &rule->source->position;
}

static struct json *limits_json(const struct route_rule *rule)
{
    struct json *object = json_new_object();
    if (rule->timeout_request_ms != ROUTE_DURATION_ABSENT) {
        json_put(object, "requestMs", json_new_number(rule->timeout_request_ms));
    }
    if (rule->timeout_backend_request_ms != ROUTE_DURATION_ABSENT) {
        json_put(object, "backendRequestMs", json_new_number(rule->timeout_backend_request_ms));
    }
    return object;
}

static struct json *retry_json(const struct route_retry *retry)
{
    if (retry == NULL) {
        return json_new_null();
    }
    struct json *object = json_new_object();
    struct json *codes = json_new_array();
    for (uint32_t i = 0; i < retry->codes_count; i++) {
        json_push(codes, json_new_number(retry->codes[i]));
    }
    json_put(object, "codes", codes);
    json_put(object, "attempts", json_new_number(retry->attempts));
    if (retry->backoff_ms != ROUTE_DURATION_ABSENT) {
        json_put(object, "backoffMs", json_new_number(retry->backoff_ms));
    }
    return object;
}

static struct json *chosen_json(const struct explained *explained, struct arena *arena)
{
    const struct route_decision *decision = &explained->why.decision;
    if (decision->rule == NULL) {
        return json_new_null();
    }
    struct json *object = json_new_object();
    put_place(object, decision->rule, decision->match_index,
              place_of(decision->rule, decision->position));
    json_put(object, "matched", json_new_text(route_explain_match(decision->candidate, arena)));
    json_put(object, "asPreflight", json_new_boolean(decision->is_preflight));
    return object;
}

static struct json *backends_json(const struct explained *explained)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < explained->backends_count; i++) {
        const struct explained_backend *row = &explained->backends[i];
        struct json *object = json_new_object();
        json_put(object, "ref", json_new_string(row->backend->reference));
        json_put(object, "weight", json_new_number(row->backend->weight));
        json_put(object, "share", json_new_real(row->share));
        json_put(object, "valid", json_new_boolean(row->backend->fault == ROUTE_BACKEND_VALID));
        if (row->backend->fault != ROUTE_BACKEND_VALID) {
            json_put(object, "fault", json_new_text(fault_text(row->backend->fault)));
        }
        json_put(object, "endpoints", json_new_number(row->endpoints));
        json_put(object, "filters",
                 filters_json(row->backend->filters, row->backend->filters_count));
        struct json *forwarded = json_new_object();
        json_put(forwarded, "host", json_new_string(row->host));
        json_put(forwarded, "target", json_new_string(row->target));
        json_put(object, "forwarded", forwarded);
        json_put(object, "response", answer_json(&row->answer));
        json_push(list, object);
    }
    return list;
}

static struct json *rejected_json(const struct route_explanation *why)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < why->rejections_count; i++) {
        const struct route_rejection *rejection = &why->rejections[i];
        struct json *object = json_new_object();
        struct json *failed = json_new_object();
        put_place(object, rejection->rule, rejection->match_index,
                  place_of(rejection->rule, rejection->position));
        json_put(failed, "predicate", json_new_text(rejection->predicate));
        json_put(failed, "wanted", json_new_text(rejection->wanted));
        json_put(failed, "got", json_new_text(rejection->got));
        json_put(object, "failed", failed);
        json_push(list, object);
    }
    return list;
}

static struct json *notes_json(const struct explained *explained)
{
    struct json *list = json_new_array();
    for (uint32_t i = 0; i < explained->notes_count; i++) {
        const struct route_condition *note = explained->notes[i];
        struct json *object = json_new_object();
        json_put(object, "kind", json_new_string(note->object->kind_name));
        json_put(object, "namespace", json_new_string(note->object->namespace));
        json_put(object, "name", json_new_string(note->object->name));
        json_put(object, "file", json_new_text(note->position.file));
        json_put(object, "line", json_new_number(note->position.line));
        json_put(object, "type", json_new_text(note->type));
        json_put(object, "status", json_new_boolean(note->status));
        json_put(object, "reason", json_new_text(note->reason));
        json_put(object, "message", json_new_text(note->message));
        json_push(list, object);
    }
    return list;
}

static struct json *to_json(const struct explained *explained, uint64_t generation,
                            struct arena *arena)
{
    const struct route_table_rule *rule = explained->why.decision.rule;
    const struct route_rules *rules = explained->rules;
    struct json *object = json_new_object();
    json_put(object, "generation", json_new_number((int64_t)generation));
    json_put(object, "service",
             explained->service.data == NULL ? json_new_null()
                                             : json_new_string(explained->service));
    json_put(object, "port", json_new_number(explained->port));
    json_put(object, "direct", json_new_boolean(explained->is_direct));
    json_put(object, "routeKind",
             json_new_text(rules == NULL ? NULL : route_kind_name(route_rules_kind(rules))));
    json_put(object, "set",
             json_new_text(rules == NULL                                  ? NULL
                           : route_rules_set(rules) == ROUTE_SET_CONSUMER ? "consumer"
                                                                          : "producer"));
    json_put(object, "assumedGRPC", json_new_boolean(explained->is_assumed_grpc));
    json_put(object, "chosen", chosen_json(explained, arena));
    json_put(object, "filters",
             rule == NULL ? json_new_array() : filters_json(rule->filters, rule->filters_count));
    json_put(object, "timeouts", rule == NULL ? json_new_object() : limits_json(rule->source));
    json_put(object, "retry", rule == NULL ? json_new_null() : retry_json(rule->source->retry));
    json_put(object, "backends", backends_json(explained));
    json_put(object, "response", answer_json(&explained->answer));
    json_put(object, "rejected", rejected_json(&explained->why));
    json_put(object, "notes", notes_json(explained));
    return object;
}

struct error explanation_json(const struct route_config *config, uint64_t generation,
                              const struct explanation_request *request, struct json **ret_json,
                              char *message, size_t size)
{
    CHECK(ret_json != NULL);
    struct arena arena;
    struct explained explained;
    arena_init(&arena, 16384, ARENA_BYTES_MAX);
    struct error error = explained_find(config, request, &arena, &explained, message, size);
    if (!error_is(error)) {
        *ret_json = to_json(&explained, generation, &arena);
    }
    arena_finish(&arena);
    return error;
}

/* ---- Text ---- */

#define TEXT(bytes) (int)(bytes).size, (bytes).data == NULL ? "" : (const char *)(bytes).data

static void write_answer(FILE *out, const struct explained_answer *answer)
{
    if (answer->is_reset) {
        (void)fprintf(out, "refused: %.*s (%.*s)", TEXT(cause_info(answer->cause)->text),
                      TEXT(cause_info(answer->cause)->name));
        return;
    }
    (void)fprintf(out, "%u", answer->status);
    if (answer->has_grpc_status) {
        (void)fprintf(out, " with grpc-status %u", answer->grpc_status);
    }
    if (answer->location.data != NULL) {
        (void)fprintf(out, " to %.*s", TEXT(answer->location));
    }
    if (answer->cause != CAUSE_NONE) {
        (void)fprintf(out, ": %.*s (%.*s)", TEXT(cause_info(answer->cause)->text),
                      TEXT(cause_info(answer->cause)->name));
    }
}

static void write_modifier(FILE *out, const char *what, const struct route_header_modifier *edit)
{
    for (uint32_t i = 0; i < edit->set_count; i++) {
        (void)fprintf(out, "    set %s header %.*s: %.*s\n", what, TEXT(edit->set[i].name),
                      TEXT(edit->set[i].value));
    }
    for (uint32_t i = 0; i < edit->add_count; i++) {
        (void)fprintf(out, "    add %s header %.*s: %.*s\n", what, TEXT(edit->add[i].name),
                      TEXT(edit->add[i].value));
    }
    for (uint32_t i = 0; i < edit->remove_count; i++) {
        (void)fprintf(out, "    remove %s header %.*s\n", what, TEXT(edit->remove[i]));
    }
}

static void write_filters(FILE *out, const struct route_table_filter *filters, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_filter *source = filters[i].source;
        switch (filters[i].type) {
        case ROUTE_FILTER_REQUEST_HEADER_MODIFIER:
            write_modifier(out, "request", source->header_modifier);
            break;
        case ROUTE_FILTER_RESPONSE_HEADER_MODIFIER:
            write_modifier(out, "response", source->header_modifier);
            break;
        case ROUTE_FILTER_REQUEST_MIRROR:
            (void)fprintf(out, "    copy %u of %u to %.*s\n", source->mirror->numerator,
                          source->mirror->denominator, TEXT(filters[i].backend->reference));
            break;
        case ROUTE_FILTER_CORS:
            (void)fprintf(out, "    apply CORS\n");
            break;
        case ROUTE_FILTER_EXTERNAL_AUTH:
            (void)fprintf(out, "    ask %.*s first\n", TEXT(filters[i].backend->reference));
            break;
        case ROUTE_FILTER_REQUEST_REDIRECT: /* seen in the answer */
        case ROUTE_FILTER_URL_REWRITE:      /* seen in what is forwarded */
        case ROUTE_FILTER_EXTENSION_REF:
        case ROUTE_FILTER_UNSUPPORTED:
            break;
        }
    }
}

static void write_backend(FILE *out, const struct explained *explained,
                          const struct explained_backend *row)
{
    (void)fprintf(out, "  %5.1f%%  %.*s", row->share * 100, TEXT(row->backend->reference));
    if (row->backend->fault != ROUTE_BACKEND_VALID) {
        (void)fprintf(out, "   %s", fault_text(row->backend->fault));
    } else {
        (void)fprintf(out, "   %u endpoint%s", row->endpoints, row->endpoints == 1 ? "" : "s");
    }
    if (row->answer.is_given && row->share > 0) {
        (void)fprintf(out, "   answered ");
        write_answer(out, &row->answer);
    }
    (void)fprintf(out, "\n");
    bool is_rewritten = !bytes_equal(row->host, explained->request.authority) ||
                        !bytes_starts_with(row->target, explained->target.path) ||
                        explained->target.is_changed;
    if (is_rewritten) {
        (void)fprintf(out, "    forwarded as %.*s, host %.*s\n", TEXT(row->target),
                      TEXT(row->host));
    }
    write_filters(out, row->backend->filters, row->backend->filters_count);
}

static void write_head(FILE *out, const struct explained *explained, uint64_t generation)
{
    const struct route_rules *rules = explained->rules;
    bool is_http = rules == NULL || route_rules_kind(rules) == ROUTE_KIND_HTTP_ROUTE ||
                   route_rules_kind(rules) == ROUTE_KIND_GRPC_ROUTE;
    if (is_http) {
        (void)fprintf(out, "%.*s %.*s%s%.*s", TEXT(explained->request.method),
                      TEXT(explained->target.path), explained->target.has_query ? "?" : "",
                      TEXT(explained->target.query));
    } else {
        (void)fprintf(out, "a connection%s%.*s", explained->request.sni.size > 0 ? " for " : "",
                      TEXT(explained->request.sni));
    }
    (void)fprintf(out, " to %.*s", TEXT(explained->destination));
    (void)fprintf(out, "   (generation %llu)\n", (unsigned long long)generation);
    if (explained->is_assumed_grpc) {
        (void)fprintf(out, "  taken for a gRPC call, because the port has a GRPCRoute\n");
    }
    if (explained->service.data == NULL) {
        (void)fprintf(out, "  the address belongs to no Service, so it passes through\n");
    } else if (explained->is_direct) {
        (void)fprintf(out, "  an endpoint of %.*s, dialled directly: routes do not apply\n",
                      TEXT(explained->service));
    } else if (rules == NULL) {
        (void)fprintf(out,
                      "  no route is attached to this port: traffic flows as without a mesh\n");
    } else {
        (void)fprintf(out, "  %s routes of kind %s apply\n",
                      route_rules_set(rules) == ROUTE_SET_CONSUMER ? "consumer" : "producer",
                      route_kind_name(route_rules_kind(rules)));
    }
}

static void write_chosen(FILE *out, const struct explained *explained, struct arena *arena)
{
    const struct route_decision *decision = &explained->why.decision;
    if (decision->rule == NULL) {
        return;
    }
    const struct route_position *place = place_of(decision->rule, decision->position);
    const char *words = route_explain_match(decision->candidate, arena);
    (void)fprintf(out, "\nchosen: %.*s, rule %.*s, match %u   %s:%u\n",
                  TEXT(decision->rule->route_name), TEXT(decision->rule->rule_name),
                  decision->match_index, place->file, place->line);
    (void)fprintf(out, "    because of %s\n", words == NULL ? "" : words);
    if (decision->is_preflight) {
        (void)fprintf(out, "    as the preflight of %.*s\n", TEXT(explained->request.method));
    }
    if (decision->rule->fault == ROUTE_RULE_EXTENSION_NOT_FOUND) {
        (void)fprintf(out, "    an extensionRef of the rule cannot be resolved\n");
    } else if (decision->rule->fault == ROUTE_RULE_FILTER_UNSUPPORTED) {
        (void)fprintf(out, "    a filter of the rule cannot be honoured\n");
    }
    write_filters(out, decision->rule->filters, decision->rule->filters_count);
}

/* How far a match got before it failed, by the predicate that did: the path is the first thing that
 * anybody looks at. */
static unsigned progress(const struct route_rejection *rejection)
{
    static const char *const order[] = {"method", "header", "queryParam", "body"};
    for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (strcmp(rejection->predicate, order[i]) == 0) {
            return i + 1;
        }
    }
    return 0;
}

/* When nothing matches, what came closest is what people look for. */
static void write_closest(FILE *out, const struct explained *explained)
{
    const struct route_rejection *closest = NULL;
    for (uint32_t i = 0; i < explained->why.rejections_count; i++) {
        const struct route_rejection *rejection = &explained->why.rejections[i];
        if (progress(rejection) > (closest == NULL ? 0 : progress(closest))) {
            closest = rejection;
        }
    }
    if (closest != NULL && explained->why.decision.outcome == ROUTE_OUTCOME_NONE) {
        (void)fprintf(out, "  closest: %.*s, rule %.*s wanted %s, got %s\n",
                      TEXT(closest->rule->route_name), TEXT(closest->rule->rule_name),
                      closest->wanted, closest->got);
    }
}

static void write_rejection(FILE *out, const struct route_rejection *rejection)
{
    const struct route_position *place = place_of(rejection->rule, rejection->position);
    (void)fprintf(out, "  %.*s, rule %.*s, match %u   %s:%u\n", TEXT(rejection->rule->route_name),
                  TEXT(rejection->rule->rule_name), rejection->match_index, place->file,
                  place->line);
    (void)fprintf(out, "    %s: wanted %s, got %s\n", rejection->predicate, rejection->wanted,
                  rejection->got);
}

/* Those that got beyond the path come first: of a thousand rules they are the few that somebody
 * asks about. */
static void write_rejected(FILE *out, const struct route_explanation *why)
{
    uint32_t shown = 0;
    if (why->rejections_count > 0) {
        (void)fprintf(out, "\nnot chosen, the closest first:\n");
    }
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < why->rejections_count && shown < REJECTIONS_SHOWN_MAX; i++) {
            const struct route_rejection *rejection = &why->rejections[i];
            bool is_close =
                progress(rejection) > 0 || strcmp(rejection->predicate, "precedence") == 0;
            if (is_close == (pass == 0)) {
                write_rejection(out, rejection);
                shown++;
            }
        }
    }
    if (shown < why->rejections_count) {
        (void)fprintf(out, "  and %u more (--json has all)\n", why->rejections_count - shown);
    }
}

/* Routes that name the Service and are not in force, or not all of them: what nobody sees among the
 * rules. */
static void write_notes(FILE *out, const struct explained *explained)
{
    if (explained->notes_count > 0) {
        (void)fprintf(out, "\nnot in force here:\n");
    }
    for (uint32_t i = 0; i < explained->notes_count && i < REJECTIONS_SHOWN_MAX; i++) {
        const struct route_condition *note = explained->notes[i];
        (void)fprintf(out, "  %.*s %.*s/%.*s   %s:%u\n    %s=%s (%s): %s\n",
                      TEXT(note->object->kind_name), TEXT(note->object->namespace),
                      TEXT(note->object->name), note->position.file, note->position.line,
                      note->type, note->status ? "True" : "False", note->reason, note->message);
    }
}

static void write_text(FILE *out, const struct explained *explained, uint64_t generation,
                       struct arena *arena)
{
    write_head(out, explained, generation);
    write_chosen(out, explained, arena);
    if (explained->answer.is_given) {
        (void)fprintf(out, "\nanswered by the proxy: ");
        write_answer(out, &explained->answer);
        (void)fprintf(out, "\n");
        write_closest(out, explained);
    }
    if (explained->backends_count > 0) {
        (void)fprintf(out, "\n");
    }
    for (uint32_t i = 0; i < explained->backends_count; i++) {
        write_backend(out, explained, &explained->backends[i]);
    }
    write_rejected(out, &explained->why);
    write_notes(out, explained);
}

struct error explanation_text(const struct route_config *config, uint64_t generation,
                              const struct explanation_request *request, char **ret_text,
                              char *message, size_t size)
{
    CHECK(ret_text != NULL);
    struct arena arena;
    struct explained explained;
    char *text = NULL;
    size_t text_size = 0;
    arena_init(&arena, 16384, ARENA_BYTES_MAX);
    struct error error = explained_find(config, request, &arena, &explained, message, size);
    FILE *out = error_is(error) ? NULL : open_memstream(&text, &text_size);
    if (out != NULL) {
        write_text(out, &explained, generation, &arena);
    }
    arena_finish(&arena);
    if (error_is(error)) {
        return error;
    }
    if (out == NULL || fclose(out) != 0 || text == NULL) {
        free(text);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *ret_text = text;
    return OK;
}

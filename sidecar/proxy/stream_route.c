/*
 * From a request to its backend: AUTHORIZE, ROUTE (which rule, which backend of it), FILTER (what
 * the rule and we ourselves change of the head). Everything that is chosen is remembered in the
 * stream; nothing is sent here.
 */
#include <string.h>

#include "base/check.h"
#include "limits.h"
#include "proxy/filter.h"
#include "proxy/stream_steps.h"
#include "proxy/worker_state.h"
#include "routes/load.h"

/* ---- AUTHORIZE ---- */

enum step stream_authorize(struct stream *stream)
{
    stream->state = STREAM_STATE_ROUTE;
    return STEP_NEXT;
}

/* ---- ROUTE ---- */

/* Do the routes of this kind look at what this stream carries? The rest passes through. */
static bool is_kind_for(const struct stream *stream, enum route_kind kind)
{
    switch (kind) {
    case ROUTE_KIND_HTTP_ROUTE:
    case ROUTE_KIND_GRPC_ROUTE:
        return !stream->is_opaque;
    case ROUTE_KIND_TLS_ROUTE:
    case ROUTE_KIND_TCP_ROUTE:
        return stream->is_opaque;
    case ROUTE_KIND_UNKNOWN:
    case ROUTE_KIND_UDP_ROUTE:
    case ROUTE_KIND_REFERENCE_GRANT:
    case ROUTE_KIND_BACKEND_TLS_POLICY:
    case ROUTE_KIND_BACKEND_TRAFFIC_POLICY:
    case ROUTE_KIND_SERVICE:
    case ROUTE_KIND_ENDPOINT_SLICE:
    case ROUTE_KIND_CONFIG_MAP:
    case ROUTE_KIND_SECRET:
    case ROUTE_KIND_MESH_PARAMETERS:
    case ROUTE_KIND_MESH_TLS_POLICY:
    case ROUTE_KIND_AUTHORIZATION_POLICY:
    case ROUTE_KIND_BODY_MATCH:
    case ROUTE_KIND_COUNT:
        break;
    }
    return false;
}

static void match(struct stream *stream, const struct route_rules *rules)
{
    struct route_request request = {.sni = stream->sni};
    const struct message_head *head = stream->request;
    if (head != NULL) {
        _Static_assert(offsetof(struct message_field, name) == offsetof(struct route_field, name) &&
                           offsetof(struct message_field, value) ==
                               offsetof(struct route_field, value),
                       "routes/match.h reads message fields in place");
        request =
            (struct route_request){.method = head->method,
                                   .path = stream->target.path,
                                   .query = stream->target.query,
                                   .authority = head->authority,
                                   .fields = (const struct route_field *)(const void *)head->fields,
                                   .fields_count = head->fields_count,
                                   .fields_stride = sizeof(struct message_field)};
    }
    /* A body that cannot be looked into makes its predicate undecided, which is no match. */
    do {
        route_match(rules, &request, stream->worker->scratch, &stream->decision);
        request.resume = stream->decision.resume;
    } while (stream->decision.outcome == ROUTE_OUTCOME_NEEDS_BODY);
}

/* The hit counter of the rule in force, found by address first. */
static void count_hit(struct stream *stream)
{
    struct worker *worker = stream->worker;
    const struct route_table_rule *rule = stream->rule;
    struct rule_hits *hits =
        &worker->rule_hits[((uintptr_t)rule / sizeof(*rule)) % RULE_HITS_CACHE];
    if (hits->rule != rule || hits->generation != stream->generation) {
        *hits =
            (struct rule_hits){.rule = rule,
                               .generation = stream->generation,
                               .hits = stats_rule_hits(worker->options.stats, stream->parent->label,
                                                       rule->route_name, rule->rule_name)};
    }
    stats_add(hits->hits, 1);
}

static void note_rule(struct stream *stream)
{
    const struct route_table_rule *rule = stream->decision.rule;
    stream->rule = rule;
    stream->route_name = rule->route_name;
    stream->rule_name = rule->rule_name;
    const struct route_position *position = stream->decision.position;
    if (position != NULL && position->file != NULL) {
        stream->file = bytes_from_string(position->file);
        stream->line = position->line;
    }
    count_hit(stream);
}

static void set_cluster(struct stream *stream, struct cluster *cluster)
{
    stream->cluster = cluster;
    if (cluster != NULL) {
        cluster_hold(cluster);
    }
}

/* The rule's backend for this request, by weight. */
static enum step choose_backend(struct stream *stream)
{
    const struct route_table_rule *rule = stream->rule;
    if (rule->fault != ROUTE_RULE_SOUND) {
        return stream_fail_step(stream, CAUSE_INVALID_BACKEND);
    }
    if (rule->source->timeout_request_ms > 0) {
        stream->request_deadline_ns = clock_add(
            stream->began_ns, (uint64_t)rule->source->timeout_request_ms * CLOCK_NS_PER_MS);
        stream_start_timer(stream);
    }
    if (rule->redirect != NULL) {
        stream->redirect = rule->redirect->redirect;
        stream->state = STREAM_STATE_REPLY;
        return STEP_NEXT;
    }
    const struct route_table_backend *backend = route_pick(rule, io_random(stream->worker->io));
    if (backend == NULL) {
        return stream_fail_step(stream, CAUSE_NO_BACKEND);
    }
    if (backend->fault != ROUTE_BACKEND_VALID) {
        return stream_fail_step(stream, CAUSE_INVALID_BACKEND);
    }
    if (backend->redirect != NULL) {
        stream->redirect = backend->redirect->redirect;
        stream->state = STREAM_STATE_REPLY;
        return STEP_NEXT;
    }
    stream->backend = backend;
    const struct snapshot *snapshot = stream->hold->snapshot;
    const struct cluster_source source = {
        .generation = snapshot->generation,
        .services = route_config_services(snapshot->config),
        .namespace = backend->namespace,
        .name = backend->name,
        .port = backend->port,
    };
    struct cluster *cluster = clusters_find(stream->worker->clusters, &source);
    if (cluster == NULL) {
        return stream_fail_step(stream, CAUSE_INVALID_BACKEND);
    }
    set_cluster(stream, cluster);
    stream->state = STREAM_STATE_FILTER;
    return STEP_NEXT;
}

enum step stream_route(struct stream *stream)
{
    const struct target *target = downstream_target(stream->downstream);
    CHECK(target->generation == stream->generation);
    if (target->parent != NULL) {
        stream->parent = target->parent;
        cluster_hold(stream->parent);
    }
    if (target->refusal != CAUSE_NONE) {
        return stream_fail_step(stream, target->refusal);
    }
    const struct route_rules *rules = target->port == NULL ? NULL : target->port->rules;
    if (rules == NULL || !is_kind_for(stream, route_rules_kind(rules))) {
        set_cluster(stream, target->cluster);
        stream->state = STREAM_STATE_FILTER;
        return STEP_NEXT;
    }
    if (stream->request != NULL) {
        struct error error =
            route_target_parse(stream->request->target, &stream->arena, &stream->target);
        if (error_is(error)) {
            return stream_fail_step(stream, error.code == ERROR_NO_MEMORY
                                                ? CAUSE_LIMIT_BUFFER
                                                : CAUSE_REQUEST_MALFORMED);
        }
    }
    match(stream, rules);
    switch (stream->decision.outcome) {
    case ROUTE_OUTCOME_RULE:
        note_rule(stream);
        return choose_backend(stream);
    case ROUTE_OUTCOME_OVER_LIMIT:
        return stream_fail_step(stream, CAUSE_LIMIT_REGEX);
    case ROUTE_OUTCOME_NONE:
    case ROUTE_OUTCOME_NEEDS_BODY:
        break;
    }
    return stream_fail_step(stream, CAUSE_NO_ROUTE);
}

/* ---- FILTER ---- */

static bool is_request_id(struct bytes value)
{
    return value.size <= REQUEST_ID_BYTES_MAX && message_is_token(value);
}

/* A random UUID (RFC 9562, version 4). */
static struct bytes make_request_id(struct stream *stream)
{
    enum {
        UUID_BYTES = 36
    };

    static const char digits[] = "0123456789abcdef";
    uint8_t *text = arena_alloc(&stream->arena, UUID_BYTES);
    if (text == NULL) {
        return (struct bytes){0};
    }
    uint64_t random[2] = {io_random(stream->worker->io), io_random(stream->worker->io)};
    random[0] = (random[0] & ~UINT64_C(0xf000)) | UINT64_C(0x4000);
    random[1] = (random[1] & (UINT64_MAX >> 2)) | (UINT64_C(1) << 63);
    size_t at = 0;
    for (int i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            text[at++] = '-';
        }
        text[at++] = (uint8_t)digits[random[i / 16] >> (60 - 4 * (i % 16)) & 15];
    }
    return bytes_make(text, at);
}

static struct error add_own_fields(struct stream *stream)
{
    struct message_head *head = stream->request;
    if (stream->downstream->direction == STATS_INBOUND) {
        /* Only a verified peer may be named, and by us: without mesh TLS there is none. */
        if (message_find(head, MESSAGE_FIELD_X_FORWARDED_CLIENT_CERT) != NULL) {
            message_remove(head, BYTES("x-forwarded-client-cert"));
        }
    } else {
        const struct message_field *id = message_find(head, MESSAGE_FIELD_X_REQUEST_ID);
        if (id == NULL || !is_request_id(id->value)) {
            struct bytes value = make_request_id(stream);
            if (value.data == NULL) {
                return error_make(ERROR_NO_MEMORY, 0);
            }
            TRY(message_set(head, &stream->arena, BYTES("x-request-id"), value));
        }
    }
    struct bytes via = stream->worker->settings->via;
    if (via.size > 0) {
        const char *version = head->version == MESSAGE_HTTP_1_0   ? "1.0"
                              : head->version == MESSAGE_HTTP_1_1 ? "1.1"
                                                                  : "2";
        char *text =
            arena_format(&stream->arena, "%s %.*s", version, (int)via.size, (const char *)via.data);
        if (text == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        TRY(message_add(head, &stream->arena, BYTES("Via"), bytes_from_string(text)));
    }
    return OK;
}

enum step stream_filter(struct stream *stream)
{
    stream->state = STREAM_STATE_PICK;
    if (stream->request == NULL) {
        return STEP_NEXT;
    }
    struct error error = OK;
    if (stream->rule != NULL) {
        const struct filter_request request = {.arena = &stream->arena,
                                               .decision = &stream->decision,
                                               .target = &stream->target,
                                               .service_port = stream->parent->port};
        error = filter_request_apply(&request, stream->rule, stream->backend, stream->request);
    }
    if (!error_is(error)) {
        error = add_own_fields(stream);
    }
    return error_is(error) ? stream_fail_step(stream, CAUSE_LIMIT_BUFFER) : STEP_NEXT;
}

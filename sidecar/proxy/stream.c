/*
 * Streams: life, steps, attempts, and what is left at the end. The order of the steps is the life
 * of a request in the README.
 */
#include "proxy/stream.h"

#include <errno.h>
#include <stdio.h>

#include "base/check.h"
#include "limits.h"
#include "proxy/filter.h"
#include "proxy/reply.h"
#include "proxy/worker_state.h"
#include "upstream/upstream.h"

enum step {
    STEP_NEXT, /* the state has changed: go on */
    STEP_WAIT, /* an event goes on */
    STEP_DONE,
};

static void on_timer(struct io_timer *timer);

/* ---- life ---- */

static struct stream *take_stream(struct downstream *downstream)
{
    struct worker *worker = downstream->worker;
    struct stream *stream = slab_take(&worker->stream_slab);
    if (stream == NULL) {
        return NULL;
    }
    struct arena arena = stream->arena;
    uint64_t now_ns = io_now(worker->io);
    *stream = (struct stream){.arena = arena,
                              .worker = worker,
                              .downstream = downstream,
                              .hold = worker_hold(worker),
                              .number = downstream->number,
                              .began_ns = now_ns,
                              .active_ns = now_ns,
                              .request_deadline_ns = CLOCK_NEVER,
                              .backend_deadline_ns = CLOCK_NEVER,
                              .grpc_status = STATS_NO_GRPC};
    if (arena.chunk_bytes == 0) {
        arena_init(&stream->arena, STREAM_ARENA_CHUNK_BYTES, STREAM_ARENA_BYTES_MAX);
    }
    stream->generation = stream->hold->snapshot->generation;
    stream->attempt.stream = stream;
    list_init(&stream->attempt.of_upstream);
    list_init(&stream->open);
    list_init(&stream->of_downstream);
    list_append(&worker->streams, &stream->open);
    list_append(&downstream->streams, &stream->of_downstream);
    worker_count_exchange(worker, 1);
    return stream;
}

struct exchange *stream_begin(struct downstream *downstream)
{
    struct stream *stream = take_stream(downstream);
    if (stream == NULL) {
        return NULL;
    }
    stream->down.events = stream_down_events();
    stream->down.arena = &stream->arena;
    return &stream->down;
}

bool stream_begin_opaque(struct downstream *downstream, struct bytes sni)
{
    struct stream *stream = take_stream(downstream);
    if (stream == NULL) {
        return false;
    }
    stream->is_opaque = true;
    if (sni.size > 0) { /* without memory as if none was sent: no match */
        stream->sni = arena_copy(&stream->arena, sni);
    }
    stream->began_ns = downstream->accepted_ns;
    stream->is_server_watched = downstream->is_quiet;
    stream->is_down_ended = downstream->is_ended;
    stream_run(stream);
    return true;
}

static void drop_hold(struct stream *stream)
{
    if (stream->hold != NULL) {
        struct snapshot_hold *hold = stream->hold;
        stream->hold = NULL;
        stream->rule = NULL;
        stream->backend = NULL;
        worker_release(stream->worker, hold);
    }
}

void stream_detach(struct stream *stream)
{
    if (stream->hold == NULL || !stream->is_response_begun) {
        return;
    }
    /* Without memory the log line lacks them. */
    stream->route_name = arena_copy(&stream->arena, stream->route_name);
    stream->rule_name = arena_copy(&stream->arena, stream->rule_name);
    stream->file = arena_copy(&stream->arena, stream->file);
    drop_hold(stream);
}

static void release(struct io_task *task)
{
    struct stream *stream = LIST_OWNER(task, struct stream, release);
    struct worker *worker = stream->worker;
    CHECK(stream->down.codec == NULL && stream->attempt.upstream == NULL);
    list_remove(&stream->open);
    buffer_clear(&stream->request_data);
    drop_hold(stream);
    if (stream->cluster != NULL) {
        cluster_release(stream->cluster);
    }
    if (stream->parent != NULL) {
        cluster_release(stream->parent);
    }
    arena_reset(&stream->arena);
    slab_put(&worker->stream_slab, stream);
}

/* ---- AUTHORIZE ---- */

static enum step authorize(struct stream *stream)
{
    stream->state = STREAM_STATE_ROUTE;
    return STEP_NEXT;
}

/* ---- ROUTE ---- */

static enum step fail(struct stream *stream, enum cause cause)
{
    stream_fail(stream, cause);
    return STEP_NEXT;
}

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

static void start_timer(struct stream *stream)
{
    uint64_t deadline_ns = stream->request_deadline_ns < stream->backend_deadline_ns
                               ? stream->request_deadline_ns
                               : stream->backend_deadline_ns;
    if (deadline_ns != CLOCK_NEVER) {
        io_timer_start(stream->worker->io, &stream->timer, deadline_ns, on_timer);
    }
}

/* The rule's backend for this request, by weight. */
static enum step choose_backend(struct stream *stream)
{
    const struct route_table_rule *rule = stream->rule;
    if (rule->fault != ROUTE_RULE_SOUND) {
        return fail(stream, CAUSE_INVALID_BACKEND);
    }
    if (rule->source->timeout_request_ms > 0) {
        stream->request_deadline_ns = clock_add(
            stream->began_ns, (uint64_t)rule->source->timeout_request_ms * CLOCK_NS_PER_MS);
        start_timer(stream);
    }
    if (rule->redirect != NULL) {
        stream->redirect = rule->redirect->redirect;
        stream->state = STREAM_STATE_REPLY;
        return STEP_NEXT;
    }
    const struct route_table_backend *backend = route_pick(rule, io_random(stream->worker->io));
    if (backend == NULL) {
        return fail(stream, CAUSE_NO_BACKEND);
    }
    if (backend->fault != ROUTE_BACKEND_VALID) {
        return fail(stream, CAUSE_INVALID_BACKEND);
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
        return fail(stream, CAUSE_INVALID_BACKEND);
    }
    set_cluster(stream, cluster);
    stream->state = STREAM_STATE_FILTER;
    return STEP_NEXT;
}

static enum step route(struct stream *stream)
{
    const struct target *target = downstream_target(stream->downstream);
    CHECK(target->generation == stream->generation);
    if (target->parent != NULL) {
        stream->parent = target->parent;
        cluster_hold(stream->parent);
    }
    if (target->refusal != CAUSE_NONE) {
        return fail(stream, target->refusal);
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
            return fail(stream, error.code == ERROR_NO_MEMORY ? CAUSE_LIMIT_BUFFER
                                                              : CAUSE_REQUEST_MALFORMED);
        }
    }
    match(stream, rules);
    switch (stream->decision.outcome) {
    case ROUTE_OUTCOME_RULE:
        note_rule(stream);
        return choose_backend(stream);
    case ROUTE_OUTCOME_OVER_LIMIT:
        return fail(stream, CAUSE_LIMIT_REGEX);
    case ROUTE_OUTCOME_NONE:
    case ROUTE_OUTCOME_NEEDS_BODY:
        break;
    }
    return fail(stream, CAUSE_NO_ROUTE);
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

static enum step filter(struct stream *stream)
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
    return error_is(error) ? fail(stream, CAUSE_LIMIT_BUFFER) : STEP_NEXT;
}

/* ---- PICK ---- */

static enum cause cause_of_connect(struct error error)
{
    switch ((int)error.code) {
    case ERROR_TIMED_OUT:
        return CAUSE_CONNECT_TIMEOUT;
    case ERROR_LIMIT:
    case ERROR_NO_MEMORY:
        return CAUSE_LIMIT_CONNECTIONS;
    case ERROR_OS:
        /* Our own ports are used up, which no endpoint can help. */
        return error.detail == EADDRNOTAVAIL ? CAUSE_LIMIT_CONNECTIONS : CAUSE_CONNECT_REFUSED;
    default:
        return CAUSE_CONNECT_REFUSED;
    }
}

/* The next endpoint to try; NULL: enough was tried (design 4.6). */
static struct endpoint *next_endpoint(struct stream *stream)
{
    const struct cluster *cluster = stream->cluster;
    struct cluster_choice choice = {.now_ns = io_now(stream->worker->io),
                                    .random = io_random(stream->worker->io),
                                    .tried_count = stream->tried_count};
    memcpy(choice.tried, stream->tried, sizeof(choice.tried));
    if (stream->tried_count == 0) {
        return cluster_pick(cluster, &choice);
    }
    struct endpoint *last_resort = cluster->cluster_ip;
    for (uint32_t i = 0; i < stream->tried_count; i++) {
        if (stream->tried[i] == last_resort) {
            last_resort = NULL;
        }
    }
    if (stream->tried_count >= CLUSTER_TRIED_MAX) {
        return NULL;
    }
    if (stream->tried_count >= ENDPOINT_ATTEMPTS_MAX ||
        choice.now_ns - stream->picked_ns >= CONNECT_TOTAL_NS) {
        return last_resort;
    }
    return cluster_pick(cluster, &choice);
}

static enum step pick(struct stream *stream)
{
    uint64_t now_ns = io_now(stream->worker->io);
    if (stream->picked_ns == 0) {
        stream->picked_ns = now_ns;
    }
    stream->state = STREAM_STATE_CONNECT;
    stream->attempts++;
    if (stream->cluster == NULL) {
        if (stream->attempts > 1) {
            return fail(stream,
                        stream->cause == CAUSE_NONE ? CAUSE_CONNECT_REFUSED : stream->cause);
        }
        stream->dialled = downstream_destination(stream->downstream);
        return STEP_NEXT;
    }
    struct endpoint *endpoint = next_endpoint(stream);
    if (endpoint == NULL) {
        stream->attempts--;
        return fail(stream, stream->cause == CAUSE_NONE ? CAUSE_NO_ENDPOINTS : stream->cause);
    }
    stream->cause = CAUSE_NONE;
    stream->attempt.endpoint = endpoint;
    endpoint_begin(endpoint);
    stream->dialled = *endpoint_address(endpoint, stream->downstream->destination.family);
    if (endpoint->is_cluster_ip && endpoint->cluster->endpoints_count > 0 &&
        endpoint->cluster->endpoints[0] != endpoint && !stream->is_fallback) {
        stream->is_fallback = true;
        stats_count_fallback(stream->worker->options.stats, stream->cluster->reference);
    }
    return STEP_NEXT;
}

/* ---- CONNECT ---- */

/* The endpoint did not take the connection: it is left out for a while, another is tried. */
static enum step try_next(struct stream *stream, struct error error)
{
    struct worker *worker = stream->worker;
    struct endpoint *endpoint = stream->attempt.endpoint;
    enum cause cause = cause_of_connect(error);
    stream->cause = cause;
    if (cause == CAUSE_LIMIT_CONNECTIONS) {
        return fail(stream, cause); /* ours, not the endpoint's: another would not help */
    }
    if (endpoint != NULL) {
        stream->tried[stream->tried_count++] = endpoint;
        endpoint_on_failed(endpoint, io_now(worker->io));
        stats_count_endpoint_failure(worker->options.stats, stream->cluster->reference, cause);
        stream->attempt.endpoint = NULL;
        endpoint_end(endpoint);
    }
    stream->state = STREAM_STATE_PICK;
    return STEP_NEXT;
}

/* What the backend's port declares, else HTTP/2 under a GRPCRoute, else what the client speaks. */
static enum codec_protocol choose_protocol(const struct stream *stream)
{
    if (stream->is_opaque) {
        return CODEC_OPAQUE;
    }
    enum codec_protocol protocol =
        stream->request->version == MESSAGE_HTTP_2 ? CODEC_HTTP2 : CODEC_HTTP1;
    if (stream->rule != NULL && stream->rule->route->object.kind == ROUTE_KIND_GRPC_ROUTE) {
        protocol = CODEC_HTTP2;
    }
    if (stream->cluster != NULL && stream->cluster->protocol == ROUTE_PROTOCOL_HTTP) {
        protocol = CODEC_HTTP1;
    } else if (stream->cluster != NULL && (stream->cluster->protocol == ROUTE_PROTOCOL_HTTP2 ||
                                           stream->cluster->protocol == ROUTE_PROTOCOL_GRPC)) {
        protocol = CODEC_HTTP2;
    }
    return stream->worker->codecs[protocol] == NULL ? CODEC_HTTP1 : protocol;
}

static enum step connect_upstream(struct stream *stream)
{
    struct worker *worker = stream->worker;
    struct attempt *attempt = &stream->attempt;
    enum codec_protocol protocol = choose_protocol(stream);
    /* A tunnel owns its connection, from its first byte on (reliability E3). */
    bool may_share = !stream->is_opaque && !stream->request->is_upgrade && !stream->is_pool_tried;
    if (attempt->endpoint != NULL && may_share) {
        struct upstream *pooled = conn_pool_take(&worker->pool, attempt->endpoint, protocol);
        if (pooled != NULL) {
            upstream_attach(pooled, attempt);
            attempt->upstream = pooled;
            if (pooled->state == UPSTREAM_STATE_CONNECTING) {
                return STEP_WAIT;
            }
            stream->connected_ns = io_now(worker->io);
            stream->state = STREAM_STATE_EXCHANGE;
            return STEP_NEXT;
        }
    }
    if (worker_is_own(worker, &stream->dialled)) {
        return fail(stream, CAUSE_LOOP);
    }
    const struct upstream_options options = {.worker = worker,
                                             .endpoint = attempt->endpoint,
                                             .address = &stream->dialled,
                                             .protocol = protocol,
                                             .timeout_ns = worker->settings->connect_timeout_ns,
                                             .attempt = attempt};
    struct error error = upstream_connect(&options, &attempt->upstream);
    return error_is(error) ? try_next(stream, error) : STEP_WAIT;
}

void attempt_on_connected(struct attempt *attempt)
{
    struct stream *stream = attempt->stream;
    CHECK(stream->state == STREAM_STATE_CONNECT);
    stream->connected_ns = io_now(stream->worker->io);
    stream->active_ns = stream->connected_ns;
    stream->state = STREAM_STATE_EXCHANGE;
    stream_run(stream);
}

void attempt_on_connect_failed(struct attempt *attempt, struct error error)
{
    struct stream *stream = attempt->stream;
    CHECK(stream->state == STREAM_STATE_CONNECT);
    attempt->upstream = NULL;
    (void)try_next(stream, error); /* the run below goes on from the state that it set */
    stream_run(stream);
}

/* ---- EXCHANGE ---- */

static enum step exchange(struct stream *stream)
{
    if (stream->attempt.upstream == NULL || stream->is_request_sent || stream->is_pumped) {
        return STEP_WAIT;
    }
    if (stream->is_opaque) {
        stream_relay_bytes(stream);
    } else {
        const struct route_rule *rule = stream->rule == NULL ? NULL : stream->rule->source;
        if (rule != NULL && rule->timeout_backend_request_ms > 0) {
            stream->backend_deadline_ns =
                clock_add(io_now(stream->worker->io),
                          (uint64_t)rule->timeout_backend_request_ms * CLOCK_NS_PER_MS);
            start_timer(stream);
        }
        stream_relay_start(stream);
    }
    return stream->state == STREAM_STATE_EXCHANGE ? STEP_WAIT : STEP_NEXT;
}

/* ---- REPLY ---- */

/* An opaque client is told by a reset. */
static enum step reply_opaque(struct stream *stream)
{
    struct downstream *downstream = stream->downstream;
    stream->state = STREAM_STATE_FINISH;
    stream->is_down_over = true;
    stats_count_refused(stream->worker->options.stats, stream->cause);
    exchange_reset(&stream->down, EXCHANGE_RESET_INTERNAL);
    downstream_on_opaque_over(downstream);
    connection_close(&downstream->connection, CONNECTION_CLOSE_ABORT);
    return STEP_NEXT;
}

static struct error make_reply(struct stream *stream, struct reply *ret_reply)
{
    if (stream->redirect == NULL) {
        return reply_make(&stream->arena, stream->request, stream->cause, ret_reply);
    }
    const struct filter_request request = {.arena = &stream->arena,
                                           .decision = &stream->decision,
                                           .target = &stream->target,
                                           .service_port = stream->parent->port};
    struct bytes location = {0};
    const struct route_redirect *redirect = stream->redirect;
    TRY(filter_redirect_location(&request, redirect, stream->request, &location));
    return reply_make_redirect(&stream->arena, stream->request, redirect->status_code, location,
                               ret_reply);
}

static struct error send_reply(struct stream *stream)
{
    struct reply reply = {0};
    struct exchange *down = &stream->down;
    TRY(make_reply(stream, &reply));
    bool is_end = reply.body.size == 0 || stream->request->is_head_request;
    stream->status = reply.head->status;
    TRY(exchange_send_head(down, reply.head, is_end));
    stream->is_response_begun = true;
    if (is_end) {
        return OK;
    }
    struct buffer body = {0};
    struct error error = buffer_append(&body, io_blocks(stream->worker->io), reply.body);
    if (!error_is(error)) {
        error = exchange_send_data(down, &body);
    }
    buffer_clear(&body);
    return error_is(error) ? error : exchange_send_end(down);
}

static enum step reply(struct stream *stream)
{
    stream_cancel_attempt(stream);
    if (stream->is_opaque) {
        return reply_opaque(stream);
    }
    stream->state = STREAM_STATE_FINISH;
    if (stream->is_down_over) {
        return STEP_NEXT;
    }
    if (stream->is_grpc && stream->cause != CAUSE_NONE) {
        stream->grpc_status = cause_info(stream->cause)->grpc_status;
    }
    struct error error = send_reply(stream);
    if (error_is(error)) {
        exchange_reset(&stream->down, EXCHANGE_RESET_INTERNAL);
        stream->is_down_over = true;
    }
    return STEP_NEXT;
}

/* ---- FINISH ---- */

static void log_stream(const struct stream *stream, uint64_t now_ns)
{
    const struct worker *worker = stream->worker;
    const struct downstream *downstream = stream->downstream;
    const struct message_head *head = stream->request;
    struct access_log_entry entry = {
        .direction = downstream->direction,
        .protocol = downstream->protocol,
        .generation = stream->generation,
        .connection = stream->number,
        .destination = downstream_destination(downstream),
        .parent = stream->parent == NULL ? (struct bytes){0} : stream->parent->label,
        .route = stream->route_name,
        .rule = stream->rule_name,
        .file = stream->file,
        .line = stream->line,
        .backend = stream->cluster == NULL ? (struct bytes){0} : stream->cluster->reference,
        .status = stream->status,
        .grpc_status = stream->grpc_status,
        .cause = stream->cause,
        .attempts = stream->attempts,
        .is_cluster_ip_fallback = stream->is_fallback,
        .received_bytes = stream->received_bytes,
        .sent_bytes = stream->sent_bytes,
        .total_ns = now_ns - stream->began_ns,
    };
    /* A peer that is gone has no address any more. */
    error_ignore(io_socket_address(&downstream->connection.transport.socket, IO_ADDRESS_PEER,
                                   &entry.downstream));
    if (stream->picked_ns != 0) {
        entry.routing_ns = stream->picked_ns - stream->began_ns;
    }
    if (stream->connected_ns != 0) {
        entry.endpoint = stream->dialled;
        entry.connect_ns = stream->connected_ns - stream->picked_ns;
        if (stream->first_byte_ns != 0) {
            entry.first_byte_ns = stream->first_byte_ns - stream->connected_ns;
        }
    }
    if (head != NULL) {
        entry.method = head->method;
        entry.authority = head->authority;
        entry.path = stream->asked_target;
        const struct message_field *id = message_find(head, MESSAGE_FIELD_X_REQUEST_ID);
        if (id != NULL) {
            entry.request_id = id->value;
        }
    }
    access_log_write(worker->options.access_log, worker->settings->access_log, &entry);
}

static enum step finish(struct stream *stream)
{
    if (!stream->is_down_over || stream->attempt.upstream != NULL) {
        return STEP_WAIT;
    }
    struct worker *worker = stream->worker;
    struct downstream *downstream = stream->downstream;
    uint64_t now_ns = io_now(worker->io);
    if (!stream->is_opaque) {
        stream->received_bytes = stream->down.received_bytes;
        stream->sent_bytes = stream->down.sent_bytes;
    }
    const struct stats_request_key key = {
        .direction = downstream->direction,
        .parent = stream->parent == NULL ? (struct bytes){0} : stream->parent->label,
        .route = stream->route_name,
        .rule = stream->rule_name,
        .backend = stream->cluster == NULL ? (struct bytes){0} : stream->cluster->reference,
        .code = stream->status,
        .grpc_status = stream->grpc_status};
    stats_count_request(worker->options.stats, &key, now_ns - stream->began_ns);
    stats_count_bytes(worker->options.stats, downstream->direction, stream->received_bytes,
                      stream->sent_bytes);
    if (worker->settings->access_log != ACCESS_LOG_OFF) {
        log_stream(stream, now_ns);
    }
    io_timer_stop(worker->io, &stream->timer);
    downstream->active_ns = now_ns;
    list_remove(&stream->of_downstream);
    stream->downstream = NULL;
    stream->state = STREAM_STATE_DONE;
    worker_count_exchange(worker, -1);
    io_task_schedule(worker->io, &stream->release, release);
    return STEP_DONE;
}

static enum step done(struct stream *stream)
{
    (void)stream;
    return STEP_DONE;
}

void stream_run(struct stream *stream)
{
    static enum step (*const steps[STREAM_STATE_COUNT])(struct stream *) = {
        [STREAM_STATE_AUTHORIZE] = authorize,
        [STREAM_STATE_ROUTE] = route,
        [STREAM_STATE_FILTER] = filter,
        [STREAM_STATE_PICK] = pick,
        [STREAM_STATE_CONNECT] = connect_upstream,
        [STREAM_STATE_EXCHANGE] = exchange,
        [STREAM_STATE_REPLY] = reply,
        [STREAM_STATE_FINISH] = finish,
        [STREAM_STATE_DONE] = done,
    };

    while (steps[stream->state](stream) == STEP_NEXT) {
    }
}

/* ---- ends of attempts and of streams ---- */

static void leave_endpoint(struct stream *stream)
{
    struct endpoint *endpoint = stream->attempt.endpoint;
    if (endpoint != NULL) {
        stream->attempt.endpoint = NULL;
        endpoint_end(endpoint);
    }
}

void stream_finish_attempt(struct stream *stream)
{
    struct upstream *upstream = stream->attempt.upstream;
    stream->attempt.upstream = NULL;
    upstream_release(upstream, &stream->attempt);
    stream->backend_deadline_ns = CLOCK_NEVER;
    leave_endpoint(stream);
}

void stream_cancel_attempt(struct stream *stream)
{
    struct upstream *upstream = stream->attempt.upstream;
    if (upstream != NULL) {
        stream->attempt.upstream = NULL;
        exchange_reset(&stream->attempt.exchange, EXCHANGE_RESET_CANCEL);
        upstream_cancel(upstream, &stream->attempt);
    }
    leave_endpoint(stream);
    stream->is_request_sent = false;
    stream->backend_deadline_ns = CLOCK_NEVER;
}

bool stream_can_retry(const struct stream *stream, enum exchange_reset reason)
{
    const struct upstream *upstream = stream->attempt.upstream;
    const struct exchange *up = &stream->attempt.exchange;
    if (stream->is_opaque || stream->is_down_over || stream->is_pool_tried ||
        stream->is_body_lost || up->is_receive_begun || up->is_tunnel ||
        stream->is_response_begun) {
        return false;
    }
    if (reason == EXCHANGE_RESET_REFUSED) {
        return true;
    }
    if (!upstream->is_reused ||
        (reason != EXCHANGE_RESET_CONNECTION && reason != EXCHANGE_RESET_TRUNCATED)) {
        return false;
    }
    static const struct bytes idempotent[] = {
        BYTES_LITERAL("GET"), BYTES_LITERAL("HEAD"),   BYTES_LITERAL("OPTIONS"),
        BYTES_LITERAL("PUT"), BYTES_LITERAL("DELETE"), BYTES_LITERAL("TRACE"),
    };
    for (size_t i = 0; i < sizeof(idempotent) / sizeof(idempotent[0]); i++) {
        if (bytes_equal(stream->request->method, idempotent[i])) {
            return true;
        }
    }
    return false;
}

void stream_fail(struct stream *stream, enum cause cause)
{
    if (stream->state >= STREAM_STATE_REPLY) {
        return; /* it is being answered or over already */
    }
    stream->cause = cause;
    if (!stream->is_down_over && !stream->is_response_begun) {
        stream->state = STREAM_STATE_REPLY;
        return;
    }
    stream_cancel_attempt(stream);
    if (!stream->is_down_over) {
        exchange_reset(&stream->down, cause == CAUSE_UPSTREAM_RESET ? EXCHANGE_RESET_CONNECTION
                                                                    : EXCHANGE_RESET_INTERNAL);
        stream->is_down_over = true;
        if (stream->is_opaque) {
            downstream_on_opaque_over(stream->downstream);
            connection_close(&stream->downstream->connection, CONNECTION_CLOSE_ABORT);
        }
    }
    stream->state = STREAM_STATE_FINISH;
}

void stream_check_over(struct stream *stream)
{
    if (stream->is_down_over && stream->attempt.upstream == NULL &&
        stream->state != STREAM_STATE_DONE) {
        stream->state = STREAM_STATE_FINISH;
        stream_run(stream);
    }
}

static void on_timer(struct io_timer *timer)
{
    struct stream *stream = LIST_OWNER(timer, struct stream, timer);
    uint64_t now_ns = io_now(stream->worker->io);
    if (stream->request_deadline_ns <= now_ns) {
        stream_fail(stream, CAUSE_REQUEST_TIMEOUT);
    } else if (stream->backend_deadline_ns <= now_ns) {
        stream_fail(stream, CAUSE_BACKEND_TIMEOUT);
    } else {
        start_timer(stream);
        return;
    }
    stream_run(stream);
}

void stream_on_downstream_closed(struct stream *stream)
{
    exchange_reset(&stream->down, EXCHANGE_RESET_CONNECTION);
    stream->is_down_over = true;
    stream_cancel_attempt(stream);
    stream_check_over(stream);
    CHECK(stream->state == STREAM_STATE_DONE);
}

void stream_expire_idle(struct downstream *downstream)
{
    uint64_t now_ns = io_now(downstream->worker->io);
    struct list *node = downstream->streams.next;
    while (node != &downstream->streams) {
        struct stream *stream = LIST_OWNER(node, struct stream, of_downstream);
        node = node->next;
        bool is_idle = stream->is_pumped || now_ns - stream->active_ns >= STREAM_IDLE_NS;
        if (!is_idle) {
            continue;
        }
        if (stream->state == STREAM_STATE_FINISH) {
            /* Its client has not taken the answer. */
            stream_cancel_attempt(stream);
            exchange_reset(&stream->down, EXCHANGE_RESET_INTERNAL);
            stream->is_down_over = true;
        } else {
            bool is_silent = !stream->is_opaque && !stream->is_response_begun;
            stream_fail(stream, is_silent ? CAUSE_BACKEND_TIMEOUT : CAUSE_IDLE);
        }
        stream_run(stream);
    }
}

const char *stream_state_name(enum stream_state state)
{
    static const char *const names[STREAM_STATE_COUNT] = {
        "authorize", "route", "filter", "pick", "connect", "exchange", "reply", "finish", "done"};
    return (unsigned)state < STREAM_STATE_COUNT ? names[state] : "unknown";
}

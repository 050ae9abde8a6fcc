/*
 * Attempts: PICK an endpoint, CONNECT to it or take a pooled connection; how an attempt ends, and
 * whether another may follow (design 4.6).
 */
#include <errno.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "limits.h"
#include "proxy/stream_steps.h"
#include "proxy/worker_state.h"
#include "upstream/upstream.h"

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

/* Count, and log now and then: every connection of the Service goes this way until its files or its
 * endpoints change. */
static void tell_fallback(struct stream *stream)
{
    struct worker *worker = stream->worker;
    struct cluster *cluster = stream->cluster;
    uint64_t now_ns = io_now(worker->io);
    stats_count_fallback(worker->options.stats, cluster->reference);
    if (cluster->fallback_silent_until_ns > now_ns) {
        return;
    }
    cluster->fallback_silent_until_ns = now_ns + FALLBACK_SILENCE_NS;
    char text[ADDRESS_TEXT_MAX];
    address_print(&stream->dialled, text);
    log_line(worker->options.log, LOG_WARNING,
             "msg=\"no endpoint can be reached: the ClusterIP is dialled\" worker=%u backend=%.*s "
             "address=%s endpoints=%u",
             worker->options.index, (int)cluster->reference.size,
             (const char *)cluster->reference.data, text, cluster->endpoints_count);
}

enum step stream_pick(struct stream *stream)
{
    uint64_t now_ns = io_now(stream->worker->io);
    if (stream->picked_ns == 0) {
        stream->picked_ns = now_ns;
    }
    stream->state = STREAM_STATE_CONNECT;
    stream->attempts++;
    if (stream->cluster == NULL) {
        if (stream->attempts > 1) { /* there is nowhere else to go */
            stream->attempts--;
            return stream_fail_step(stream, stream->cause == CAUSE_NONE ? CAUSE_CONNECT_REFUSED
                                                                        : stream->cause);
        }
        stream->dialled = downstream_destination(stream->downstream);
        return STEP_NEXT;
    }
    struct endpoint *endpoint = next_endpoint(stream);
    if (endpoint == NULL) {
        stream->attempts--;
        return stream_fail_step(stream,
                                stream->cause == CAUSE_NONE ? CAUSE_NO_ENDPOINTS : stream->cause);
    }
    stream->cause = CAUSE_NONE;
    stream->attempt.endpoint = endpoint;
    endpoint_begin(endpoint);
    stream->dialled = *endpoint_address(endpoint, stream->downstream->destination.family);
    /* Without slices the ClusterIP is the one endpoint; with slices it stands in for those of them.
     */
    const struct cluster *cluster = stream->cluster;
    bool is_only = cluster->endpoints_count > 0 && cluster->endpoints[0] == endpoint;
    if (endpoint->is_cluster_ip && !is_only && !stream->is_fallback) {
        stream->is_fallback = true;
        tell_fallback(stream);
    }
    return STEP_NEXT;
}

/* ---- CONNECT ---- */

/* Leave `endpoint` out for a while; told once for each while. */
static void eject(const struct stream *stream, struct endpoint *endpoint, enum cause cause)
{
    const struct worker *worker = stream->worker;
    uint64_t now_ns = io_now(worker->io);
    if (endpoint_is_ejected(endpoint, now_ns)) {
        return;
    }
    endpoint_on_failed(endpoint, now_ns);
    char text[ADDRESS_TEXT_MAX];
    address_print(&stream->dialled, text);
    log_line(worker->options.log, LOG_INFO,
             "msg=\"endpoint ejected\" worker=%u backend=%.*s endpoint=%s cause=%s seconds=%lu",
             worker->options.index, (int)stream->cluster->reference.size,
             (const char *)stream->cluster->reference.data, text,
             (const char *)cause_info(cause)->name.data,
             (unsigned long)((endpoint->ejected_until_ns - now_ns) / CLOCK_NS_PER_S));
}

/* The endpoint did not take the connection: it is left out for a while, another is tried. */
static enum step try_next(struct stream *stream, struct error error)
{
    struct worker *worker = stream->worker;
    struct endpoint *endpoint = stream->attempt.endpoint;
    enum cause cause = cause_of_connect(error);
    stream->cause = cause;
    if (cause == CAUSE_LIMIT_CONNECTIONS) {
        return stream_fail_step(stream,
                                cause); /* ours, not the endpoint's: another would not help */
    }
    if (endpoint != NULL) {
        stream->tried[stream->tried_count++] = endpoint;
        eject(stream, endpoint, cause);
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

/*
 * A lost SYN is sent again after a second (RFC 6298 2.1). Where others can be tried, they are
 * instead; what is the only address there is may take as long as several would.
 */
static uint64_t connect_timeout(const struct stream *stream)
{
    const struct cluster *cluster = stream->cluster;
    uint64_t timeout_ns = stream->worker->settings->connect_timeout_ns;
    bool is_only = cluster == NULL ||
                   (cluster->endpoints_count == 1 &&
                    (cluster->cluster_ip == NULL || cluster->cluster_ip == cluster->endpoints[0]));
    return is_only ? timeout_ns * ENDPOINT_ATTEMPTS_MAX : timeout_ns;
}

enum step stream_connect(struct stream *stream)
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
    bool is_named = stream->downstream->source->kind == LISTENER_NAMED;
    if (worker_is_own(worker, &stream->dialled) ||
        (is_named && worker_is_listen(worker, &stream->dialled))) {
        return stream_fail_step(stream, CAUSE_LOOP);
    }
    const struct upstream_options options = {.worker = worker,
                                             .endpoint = attempt->endpoint,
                                             .address = &stream->dialled,
                                             .protocol = protocol,
                                             .timeout_ns = connect_timeout(stream),
                                             .attempt = attempt};
    struct error error = upstream_connect(&options, &attempt->upstream);
    bool is_waiting = shortage_is(error) && shortage_wait(&worker->shortage, stream);
    return error_is(error) && !is_waiting ? try_next(stream, error) : STEP_WAIT;
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

void attempt_on_descriptor(struct attempt *attempt)
{
    struct stream *stream = attempt->stream;
    CHECK(stream->state == STREAM_STATE_CONNECT && attempt->upstream == NULL);
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

/* ---- ends of attempts ---- */

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
    shortage_leave(&stream->worker->shortage, stream);
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

/* Readiness is what control knows; liveness asks every worker and waits for its answer, bounded. */
#include "control/health.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "control/gauges.h"

enum {
    LIVE_SECONDS = 4, /* a worker that has not turned for this long is stuck; server.c waits 5 */
};

static const char text_type[] = "text/plain; charset=utf-8";

static void reply_text(struct server_call *call, uint16_t status, const char *text)
{
    char *copy = strdup(text);
    server_reply(call, status, text_type, copy, strlen(text));
}

static void handle_ready(struct server_call *call, struct control *control)
{
    char reasons[1024];
    if (control_not_ready(control, reasons, sizeof(reasons)) > 0) {
        reply_text(call, 503, reasons);
    } else {
        reply_text(call, 200, "ready\n");
    }
}

/* ---- liveness ---- */

struct live_check;

struct live_question {
    struct worker_query query;
    struct live_check *check;
};

/* One probe. Freed when it is answered and every worker has answered: a stuck worker keeps its
 * question for ever. While there is one that nobody can answer in time, others are not asked. */
struct live_check {
    struct control *control;
    struct server_call *call; /* NULL once answered */
    struct io_timer timer;
    uint32_t waiting;
    bool is_late;
    struct live_question questions[];
};

static void finish_check(struct live_check *check, bool is_live)
{
    if (check->call != NULL) {
        reply_text(check->call, is_live ? 200 : 503, is_live ? "live\n" : "worker: stuck\n");
        check->call = NULL;
    }
    if (check->waiting == 0) {
        io_timer_stop(check->control->io, &check->timer);
        check->control->live_late_count -= check->is_late;
        free(check);
    }
}

static void on_answer(struct worker_query *query)
{
    struct live_question *question = LIST_OWNER(query, struct live_question, query);
    struct live_check *check = question->check;
    if (--check->waiting == 0) {
        finish_check(check, true);
    }
}

static void on_late(struct io_timer *timer)
{
    struct live_check *check = LIST_OWNER(timer, struct live_check, timer);
    check->is_late = true;
    check->control->live_late_count++;
    finish_check(check, false);
}

static void handle_live(struct server_call *call, struct control *control)
{
    uint32_t count = control->workers_count;
    if (control->live_late_count > 0) {
        reply_text(call, 503, "worker: stuck\n");
        return;
    }
    struct live_check *check = calloc(1, sizeof(*check) + count * sizeof(check->questions[0]));
    if (check == NULL) {
        reply_text(call, 503, "memory: out\n");
        return;
    }
    check->control = control;
    check->call = call;
    check->waiting = count;
    io_timer_start(control->io, &check->timer,
                   clock_add(io_now(control->io), LIVE_SECONDS * CLOCK_NS_PER_S), on_late);
    for (uint32_t i = 0; i < count; i++) {
        struct live_question *question = &check->questions[i];
        question->check = check;
        question->query.kind = WORKER_QUERY_ALIVE;
        question->query.asker = control->io;
        question->query.on_answer = on_answer;
        worker_ask(control->workers[i], &question->query);
    }
}

/* ---- metrics ---- */

static void handle_metrics(struct server_call *call, struct control *control)
{
    struct stats_gauge gauges[64];
    uint32_t count = gauges_collect(control, gauges, sizeof(gauges) / sizeof(gauges[0]));
    struct stats_text text = {0};
    stats_write_prometheus(control->stats, control->workers_count, gauges, count, &text);
    if (text.is_failed) {
        stats_text_finish(&text);
        reply_text(call, 500, "memory: out\n");
        return;
    }
    server_reply(call, 200, "text/plain; version=0.0.4; charset=utf-8", text.data, text.length);
}

void health_handle(struct server_call *call, const struct message_head *head, void *owner)
{
    static const struct {
        struct bytes path;
        void (*handle)(struct server_call *call, struct control *control);
    } paths[] = {
        {BYTES_LITERAL("/healthz/ready"), handle_ready},
        {BYTES_LITERAL("/healthz/live"), handle_live},
        {BYTES_LITERAL("/metrics"), handle_metrics},
    };
    struct bytes path = bytes_first(head->target, bytes_find(head->target, '?'));
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (!bytes_equal(path, paths[i].path)) {
            continue;
        }
        if (bytes_equal(head->method, BYTES("GET")) || head->is_head_request) {
            paths[i].handle(call, owner);
        } else {
            server_reply_not_allowed(call, "GET, HEAD");
        }
        return;
    }
    reply_text(call, 404, "not found\n");
}

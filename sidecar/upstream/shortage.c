/* Giving idle connections up, and who waits for that. */
#include "upstream/shortage.h"

#include <errno.h>

#include "base/check.h"
#include "proxy/stream.h"
#include "proxy/worker_state.h"
#include "upstream/upstream.h"

enum {
    GIVEN_UP_A_TURN = 16,
    RETRY_MS = 10,  /* a descriptor may also come from elsewhere in the process */
    OTHERS_MS = 50, /* what the other workers get to give some up, when we have none ourselves */
};

static bool has_others(const struct worker *worker)
{
    return worker->options.count > 1;
}

/* Give up until as many are leaving as are wanted. */
static void give_up(struct shortage *shortage, uint32_t wanted)
{
    struct worker *worker = shortage->worker;
    uint64_t turn = io_counters_of(worker->io)->turns;
    if (turn != shortage->turn) {
        shortage->turn = turn;
        shortage->given_up_count = 0;
    }
    while (shortage->leaving_count < wanted && shortage->given_up_count < GIVEN_UP_A_TURN) {
        struct upstream *oldest = conn_pool_oldest(&worker->pool);
        if (oldest == NULL) {
            return;
        }
        oldest->is_given_up = true;
        shortage->given_up_count++;
        shortage->leaving_count++;
        upstream_close(oldest);
    }
}

static void on_plea_back(struct io_message *message)
{
    LIST_OWNER(message, struct plea, message)->is_on_the_way = false;
}

static void on_plea(struct io_message *message)
{
    struct plea *plea = LIST_OWNER(message, struct plea, message);
    give_up(plea->to, plea->to->waiting_count + 1);
    message->run = on_plea_back;
    io_post(plea->from->worker->io, message);
}

/* The next one; who still lacks a descriptor after RETRY_MS asks again. */
static void ask_another(struct shortage *shortage)
{
    const struct worker *worker = shortage->worker;
    struct plea *plea = &shortage->plea;
    /* Draining: others may have ended, and all close what idles by themselves. */
    if (plea->is_on_the_way || !has_others(worker) || worker->is_draining) {
        return;
    }
    shortage->other = (shortage->other + 1) % worker->options.count;
    if (shortage->other == worker->options.index) {
        shortage->other = (shortage->other + 1) % worker->options.count;
    }
    /* Worker 0 is not in `workers` yet when its first connections are handed over. */
    struct worker *other =
        shortage->other == 0 ? worker->acceptor : worker->options.workers[shortage->other];
    if (other == NULL) {
        return;
    }
    plea->is_on_the_way = true;
    plea->from = shortage;
    plea->to = &other->shortage;
    plea->message.run = on_plea;
    io_post(other->io, &plea->message);
}

/* Make room for what waits and for one more. True when a descriptor is going to be free. */
static bool make_room(struct shortage *shortage)
{
    give_up(shortage, shortage->waiting_count + 1);
    bool has_idle = conn_pool_oldest(&shortage->worker->pool) != NULL;
    if (shortage->leaving_count > shortage->waiting_count || has_idle) {
        return true;
    }
    ask_another(shortage);
    return false;
}

/* ---- waiting ---- */

/* Run those that wait, in order; who still finds none waits again. */
static void retry(struct io_task *task)
{
    struct shortage *shortage = LIST_OWNER(task, struct shortage, retry);
    for (uint32_t count = shortage->waiting_count; count > 0; count--) {
        if (list_is_empty(&shortage->waiting)) {
            return;
        }
        struct stream *stream = LIST_OWNER(shortage->waiting.next, struct stream, short_of);
        shortage_leave(shortage, stream);
        attempt_on_descriptor(&stream->attempt);
    }
}

static void on_timer(struct io_timer *timer)
{
    struct shortage *shortage = LIST_OWNER(timer, struct shortage, timer);
    io_task_schedule(shortage->worker->io, &shortage->retry, retry);
}

bool shortage_is(struct error error)
{
    return error.code == ERROR_LIMIT && (error.detail == EMFILE || error.detail == ENFILE);
}

bool shortage_wait(struct shortage *shortage, struct stream *stream)
{
    struct worker *worker = shortage->worker;
    uint64_t now_ns = io_now(worker->io);
    CHECK(stream->state == STREAM_STATE_CONNECT && list_is_empty(&stream->short_of));
    if (stream->short_since_ns == 0) {
        stream->short_since_ns = now_ns;
    }
    uint64_t waited_ns = now_ns - stream->short_since_ns;
    bool is_room_made = make_room(shortage);
    bool may_others_help = has_others(worker) && waited_ns < OTHERS_MS * CLOCK_NS_PER_MS;
    if (waited_ns >= worker->settings->connect_timeout_ns || (!is_room_made && !may_others_help)) {
        return false;
    }
    list_append(&shortage->waiting, &stream->short_of);
    shortage->waiting_count++;
    if (!io_timer_is_running(&shortage->timer)) {
        io_timer_start(worker->io, &shortage->timer, now_ns + RETRY_MS * CLOCK_NS_PER_MS, on_timer);
    }
    return true;
}

void shortage_leave(struct shortage *shortage, struct stream *stream)
{
    if (!list_is_empty(&stream->short_of)) {
        CHECK(shortage->waiting_count > 0);
        list_remove(&stream->short_of);
        shortage->waiting_count--;
    }
}

void shortage_on_accept_starved(struct shortage *shortage)
{
    (void)make_room(shortage); /* else the client waits until somebody leaves */
}

void shortage_on_closed(struct shortage *shortage)
{
    CHECK(shortage->leaving_count > 0);
    shortage->leaving_count--;
    if (shortage->waiting_count > 0) {
        io_task_schedule(shortage->worker->io, &shortage->retry, retry);
    }
}

/* ---- life ---- */

void shortage_init(struct shortage *shortage, struct worker *worker)
{
    *shortage = (struct shortage){.worker = worker};
    list_init(&shortage->waiting);
}

void shortage_finish(struct shortage *shortage)
{
    CHECK(shortage->waiting_count == 0 && shortage->leaving_count == 0);
    io_task_cancel(shortage->worker->io, &shortage->retry);
    io_timer_stop(shortage->worker->io, &shortage->timer);
}

/* Accepting, and handing over by count. */
#include "proxy/listener.h"

#include <stdlib.h>

#include "base/check.h"
#include "proxy/downstream.h"
#include "proxy/worker_state.h"

#define RESUME_NS (50 * CLOCK_NS_PER_MS)

/* A socket on its way to another worker. From malloc: a slab is one thread's. */
struct handover {
    struct io_message message;
    struct worker *from;                  /* borrowed */
    struct worker *to;                    /* borrowed */
    const struct worker_listener *source; /* borrowed, for ever */
    int fd;
};

/* The acceptor itself is not in `workers` yet when its first connection comes. */
static struct worker *worker_at(struct worker *acceptor, uint32_t index)
{
    return index == acceptor->options.index ? acceptor : acceptor->options.workers[index];
}

static uint64_t open_at(struct worker *acceptor, uint32_t index)
{
    return acceptor->handed[index] - stats_read(&worker_at(acceptor, index)->taken_back);
}

/* The worker with the fewest connections; the present one when they are equal. */
static uint32_t find_least_loaded(struct worker *acceptor, uint64_t *ret_open)
{
    uint32_t best = acceptor->options.index;
    uint64_t best_open = open_at(acceptor, best);
    for (uint32_t i = 0; i < acceptor->options.count; i++) {
        uint64_t open = open_at(acceptor, i);
        if (open < best_open) {
            best = i;
            best_open = open;
        }
    }
    *ret_open = best_open;
    return best;
}

static void on_handover(struct io_message *message)
{
    struct handover *handover = LIST_OWNER(message, struct handover, message);
    struct worker *worker = handover->to;
    const struct worker_listener *source = handover->source;
    int fd = handover->fd;
    worker->acceptor = handover->from;
    free(handover);
    downstream_accept(worker, source, fd);
}

static void resume_all(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->listeners_count; i++) {
        if (worker->listeners[i].is_open) {
            io_listener_resume(&worker->listeners[i].accepting);
        }
    }
}

static void on_resume(struct io_timer *timer)
{
    struct worker *worker = LIST_OWNER(timer, struct worker, resume_timer);
    uint64_t open = 0;
    (void)find_least_loaded(worker, &open);
    if (open < worker->settings->connections_max) {
        resume_all(worker);
    } else {
        io_timer_start(worker->io, timer, io_now(worker->io) + RESUME_NS, on_resume);
    }
}

/* Every worker is full: connections wait in the kernel's backlog. */
static void pause_all(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->listeners_count; i++) {
        if (worker->listeners[i].is_open) {
            io_listener_pause(&worker->listeners[i].accepting);
        }
    }
    io_timer_start(worker->io, &worker->resume_timer, io_now(worker->io) + RESUME_NS, on_resume);
}

static void on_accept(struct io_listener *accepting, int fd)
{
    struct listener *listener = LIST_OWNER(accepting, struct listener, accepting);
    struct worker *acceptor = listener->worker;
    uint64_t open = 0;
    uint32_t index = find_least_loaded(acceptor, &open);
    acceptor->handed[index]++;
    if (open + 1 >= acceptor->settings->connections_max) {
        pause_all(acceptor);
    }
    if (index == acceptor->options.index) {
        downstream_accept(acceptor, listener->source, fd);
        return;
    }
    struct handover *handover = malloc(sizeof(*handover));
    if (handover == NULL) {
        acceptor->handed[index]--;
        acceptor->handed[acceptor->options.index]++;
        downstream_accept(acceptor, listener->source, fd);
        return;
    }
    *handover = (struct handover){.message = {.run = on_handover},
                                  .from = acceptor,
                                  .to = worker_at(acceptor, index),
                                  .source = listener->source,
                                  .fd = fd};
    io_post(handover->to->io, &handover->message);
}

static void on_starved(struct io_listener *accepting)
{
    const struct listener *listener = LIST_OWNER(accepting, struct listener, accepting);
    shortage_on_accept_starved(&listener->worker->shortage);
}

static void on_closed(struct io_listener *accepting)
{
    LIST_OWNER(accepting, struct listener, accepting)->is_open = false;
}

FALLIBLE listeners_open(struct worker *worker)
{
    const struct worker_options *options = &worker->options;
    if (options->listeners_count == 0) {
        return OK;
    }
    worker->listeners = calloc(options->listeners_count, sizeof(struct listener));
    worker->handed = calloc(options->count, sizeof(uint64_t));
    if (worker->listeners == NULL || worker->handed == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    worker->listeners_count = options->listeners_count;
    for (uint32_t i = 0; i < options->listeners_count; i++) {
        struct listener *listener = &worker->listeners[i];
        listener->worker = worker;
        listener->source = &options->listeners[i];
        listener->is_open = true;
        io_listener_open(&listener->accepting, worker->io, listener->source->fd, on_accept,
                         on_closed);
        listener->accepting.on_starved = on_starved;
    }
    return OK;
}

void listeners_close(struct worker *worker)
{
    io_timer_stop(worker->io, &worker->resume_timer);
    for (uint32_t i = 0; i < worker->listeners_count; i++) {
        struct listener *listener = &worker->listeners[i];
        if (listener->is_open && !listener->accepting.is_closing) {
            io_listener_close(&listener->accepting);
        }
    }
}

void listeners_finish(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->listeners_count; i++) {
        CHECK(!worker->listeners[i].is_open);
    }
    free(worker->listeners);
    free(worker->handed);
    worker->listeners = NULL;
    worker->handed = NULL;
    worker->listeners_count = 0;
}

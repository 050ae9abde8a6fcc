/* Idle connections: two list memberships each, one timer for all. */
#include "upstream/conn_pool.h"

#include "base/check.h"
#include "upstream/upstream.h"

static void on_timer(struct io_timer *timer)
{
    struct conn_pool *pool = LIST_OWNER(timer, struct conn_pool, timer);
    uint64_t now_ns = io_now(pool->io);
    while (!list_is_empty(&pool->oldest_first)) {
        struct upstream *oldest = LIST_OWNER(pool->oldest_first.next, struct upstream, idle_order);
        uint64_t deadline_ns = clock_add(oldest->idle_since_ns, pool->idle_timeout_ns);
        if (deadline_ns > now_ns) {
            io_timer_start(pool->io, &pool->timer, deadline_ns, on_timer);
            return;
        }
        upstream_close(oldest);
    }
}

void conn_pool_init(struct conn_pool *pool, struct io *io, uint64_t idle_timeout_ns)
{
    *pool = (struct conn_pool){.io = io, .idle_timeout_ns = idle_timeout_ns};
    list_init(&pool->oldest_first);
}

/* The first connection that has room for one more exchange, also one that is being made. */
static struct upstream *take_shared(struct conn_pool *pool, struct endpoint *endpoint)
{
    for (struct list *node = endpoint->shared.next; node != &endpoint->shared; node = node->next) {
        struct upstream *upstream = LIST_OWNER(node, struct upstream, shared);
        if (upstream_has_room(upstream)) {
            if (upstream->state == UPSTREAM_STATE_IDLE) {
                conn_pool_remove(pool, upstream);
            }
            return upstream;
        }
    }
    return NULL;
}

struct upstream *conn_pool_take(struct conn_pool *pool, struct endpoint *endpoint,
                                enum codec_protocol protocol)
{
    struct list *idle = &endpoint->idle[protocol];
    if (protocol == CODEC_HTTP2) {
        return take_shared(pool, endpoint);
    }
    if (list_is_empty(idle)) {
        return NULL;
    }
    struct upstream *upstream = LIST_OWNER(idle->next, struct upstream, idle);
    conn_pool_remove(pool, upstream);
    return upstream;
}

void conn_pool_put(struct conn_pool *pool, struct upstream *upstream)
{
    CHECK(upstream->state == UPSTREAM_STATE_IDLE && upstream->endpoint != NULL);
    upstream->idle_since_ns = io_now(pool->io);
    list_prepend(&upstream->endpoint->idle[upstream->protocol], &upstream->idle);
    list_append(&pool->oldest_first, &upstream->idle_order);
    pool->count++;
    /* Left running when the pool is empty: it fires at most once for each idle time. */
    if (!io_timer_is_running(&pool->timer)) {
        io_timer_start(pool->io, &pool->timer,
                       clock_add(upstream->idle_since_ns, pool->idle_timeout_ns), on_timer);
    }
}

struct upstream *conn_pool_oldest(const struct conn_pool *pool)
{
    const struct list *oldest = pool->oldest_first.next;
    return pool->count == 0 ? NULL : LIST_OWNER(oldest, struct upstream, idle_order);
}

void conn_pool_remove(struct conn_pool *pool, struct upstream *upstream)
{
    CHECK(pool->count > 0 && !list_is_empty(&upstream->idle_order));
    list_remove(&upstream->idle);
    list_remove(&upstream->idle_order);
    pool->count--;
}

void conn_pool_close_endpoint(struct endpoint *endpoint)
{
    for (int i = 0; i < ENDPOINT_POOLS; i++) {
        while (!list_is_empty(&endpoint->idle[i])) {
            upstream_close(LIST_OWNER(endpoint->idle[i].next, struct upstream, idle));
        }
    }
}

void conn_pool_close_all(struct conn_pool *pool)
{
    while (!list_is_empty(&pool->oldest_first)) {
        upstream_close(LIST_OWNER(pool->oldest_first.next, struct upstream, idle_order));
    }
    io_timer_stop(pool->io, &pool->timer);
}

/*
 * What the modules of one worker share: its memory, its look at the configuration, its counts.
 * Private to proxy/ and upstream/; the control thread sees proxy/worker.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/slab.h"
#include "http/http1.h"
#include "limits.h"
#include "proxy/connection.h"
#include "proxy/listener.h"
#include "proxy/worker.h"
#include "upstream/cluster.h"
#include "upstream/conn_pool.h"
#include "upstream/shortage.h"

/* The hit counter of a rule, remembered by the rule's address in one generation. */
struct rule_hits {
    const struct route_table_rule *rule; /* borrowed; compared only */
    uint64_t generation;
    struct stats_cell *hits;
};

/* "The server of this Service port spoke first": detection is not tried there for a while. */
struct server_first {
    uint64_t cluster_hash;
    uint64_t until_ns;
};

enum {
    SERVER_FIRST_MAX = 64,
    WORKER_LISTENERS_MAX = 64,
};

/* Make a codec; NULL in the table: this protocol is not spoken. */
/* tidy: allow typedef: a function's type */
typedef struct error (*worker_codec_fn)(struct worker *worker, enum codec_role role,
                                        const struct codec_events *events,
                                        struct connection *connection, struct codec **ret_codec);

/* A filter for a new connection: NULL, when it stays plain. */
/* tidy: allow typedef: a function's type */
typedef struct transport_filter *(*worker_filter_fn)(struct worker *worker, enum codec_role role);

struct worker {
    worker_codec_fn codecs[3];    /* by enum codec_protocol */
    worker_filter_fn make_filter; /* NULL: all connections are plain */
    struct worker_options options;
    const struct worker_settings *settings; /* borrowed */
    struct io *io;                          /* owned when the worker has a thread */
    struct flusher flusher;

    struct snapshot_hold
        *current;              /* of the newest snapshot; owned, with the older ones behind it */
    struct clusters *clusters; /* owned */
    struct conn_pool pool;
    struct shortage shortage;
    struct route_scratch *scratch; /* owned */

    struct slab downstream_slab;
    struct slab upstream_slab;
    struct slab stream_slab;
    struct slab hold_slab;
    struct worker *acceptor; /* borrowed: who hands connections over to this one; NULL before */
    struct list downstreams;
    struct list upstreams;
    struct list streams;
    uint64_t connections_counter; /* gives each downstream its number */
    uint32_t active[STATS_DIRECTION_COUNT];

    struct listener *listeners; /* owned, in one block */
    uint32_t listeners_count;
    uint64_t *handed; /* connections given to each worker so far; owned */
    struct io_timer resume_timer;
    struct stats_cell taken_back; /* connections of this worker that are closed: read by the
                                     acceptor */
    struct stats_cell open_exchanges;
    struct stats_cell
        unsent; /* draining: connections whose last bytes are not with the kernel yet */
    struct io_timer drain_timer;
    struct io_timer stop_timer;
    struct stats_cell last_turn_ns;

    struct rule_hits rule_hits[RULE_HITS_CACHE];
    struct server_first server_first[SERVER_FIRST_MAX];
    uint32_t server_first_next;

    uint64_t date_second;
    char date[HTTP1_DATE_BYTES + 1]; /* now, for the codecs */
    struct io_task sweep_task;
    bool is_draining;
    bool is_cut_off;        /* stopping at once: nothing that is open gets a moment */
    uint64_t drain_idle_ns; /* when idle connections are closed; 0: they were */
    bool is_stopping;
    struct worker_thread *thread; /* owned; NULL: turned by a test */
};

/* The configuration in force. */
static inline const struct snapshot *worker_snapshot(const struct worker *worker)
{
    return worker->current->snapshot;
}

/* A stream begins to look into the newest configuration, or stops looking. */
struct snapshot_hold *worker_hold(struct worker *worker);
void worker_release(struct worker *worker, struct snapshot_hold *hold);

/* One more, or one less, exchange or opaque connection is open. */
void worker_count_exchange(struct worker *worker, int change);

/* Bring `date` up to this second; nearly always nothing. */
void worker_refresh_date(struct worker *worker);

/* Close an accepted descriptor that nobody takes. */
void worker_close_descriptor(struct worker *worker, int fd);

/* Is this an address and port of ours: a destination that would come back to us (design 6)? */
bool worker_is_own(const struct worker *worker, const struct address *address);

/* Is this where --listen accepts? What came by such a port would come again and again. */
bool worker_is_listen(const struct worker *worker, const struct address *address);

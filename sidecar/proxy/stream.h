/*
 * One downstream exchange and its attempts at answering it upstream (design 4.3). A state from one
 * enum, a table of steps that answer next, wait or done, an arena for everything that the exchange
 * leaves behind. Opaque TCP is the same machine without heads; where both transports are plain its
 * bytes do not pass through here at all (transport_pump).
 *
 * A stream looks into one snapshot until its response head is sent; when a newer one is published
 * after that, it copies the few names that it still needs and lets go.
 *
 * Thread: the worker's. From the worker's slab; its arena's first chunk is kept between lives.
 * Released from a task, never from within an event.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "control/snapshot.h"
#include "http/codec.h"
#include "http/message.h"
#include "proxy/cause.h"
#include "proxy/downstream.h"
#include "routes/match.h"
#include "routes/path.h"
#include "upstream/cluster.h"

struct stream;
struct upstream;
struct worker;

enum stream_state {
    STREAM_STATE_AUTHORIZE,
    STREAM_STATE_ROUTE,
    STREAM_STATE_FILTER,
    STREAM_STATE_PICK,
    STREAM_STATE_CONNECT,
    STREAM_STATE_EXCHANGE,
    STREAM_STATE_REPLY,
    STREAM_STATE_FINISH,
    STREAM_STATE_DONE,
    STREAM_STATE_COUNT
};

/* One try at one endpoint. */
struct attempt {
    struct exchange exchange;
    struct stream *stream;     /* borrowed: embeds this */
    struct upstream *upstream; /* borrowed: its slab's; NULL: none now */
    struct endpoint *endpoint; /* held by endpoint_begin; NULL: none, or a bare address */
    struct list of_upstream;
};

struct stream {
    struct arena arena;            /* first: kept between lives */
    struct worker *worker;         /* borrowed */
    struct downstream *downstream; /* borrowed; NULL once it is gone */
    struct list open;              /* of the worker */
    struct list of_downstream;
    struct exchange down;
    struct attempt attempt;
    struct io_task release;
    struct io_timer timer; /* the route's timeouts, where it has some */
    struct list short_of;  /* waits for a descriptor (upstream/shortage.h) */

    enum stream_state state;
    enum cause cause;
    bool is_opaque;
    bool is_pumped;         /* bytes pass without us */
    bool is_server_watched; /* opaque: who speaks first? */
    bool is_down_over;      /* nothing more comes from or goes to the downstream */
    bool is_down_ended;     /* the downstream's end has come */
    bool is_up_ended;
    bool is_request_sent;  /* its head, to the present attempt */
    bool is_request_whole; /* head, data and trailers have come */
    bool is_body_lost;     /* some data was sent on: the request cannot be sent again */
    bool is_response_begun;
    bool is_pool_tried; /* a pooled connection had died: the next one is fresh */
    bool is_fallback;   /* the ClusterIP was dialled for want of endpoints */

    const struct route_redirect *redirect; /* REPLY answers with it; NULL: with the cause */
    struct message_head *request;          /* in the arena, as all below */
    struct message_head *request_trailers;
    struct buffer request_data; /* came before there was room for it upstream */
    struct route_target target; /* as matched; only where routes are attached */
    struct bytes asked_target;  /* as it came, for the log */
    struct bytes sni;           /* opaque: of the ClientHello, where a TLSRoute wants it */

    struct snapshot_hold *hold; /* NULL once nothing of the snapshot is needed */
    uint64_t generation;
    const struct route_table_rule *rule;       /* good while `hold` is */
    const struct route_table_backend *backend; /* likewise */
    struct route_decision decision;            /* likewise */
    struct cluster *parent;                    /* held; NULL: unknown destination */
    struct cluster *cluster;                   /* held; NULL: a bare address */
    struct bytes route_name;                   /* in the snapshot, and after it in the arena */
    struct bytes rule_name;
    struct bytes file;
    uint32_t line;

    const struct endpoint *tried[CLUSTER_TRIED_MAX]; /* compared only */
    uint32_t tried_count;
    uint32_t attempts;
    struct address dialled; /* the last one */

    uint64_t number; /* of the downstream connection */
    uint64_t began_ns;
    uint64_t active_ns;
    uint64_t picked_ns;
    uint64_t short_since_ns; /* 0: there was a descriptor */
    uint64_t connected_ns;
    uint64_t first_byte_ns;
    uint64_t request_deadline_ns; /* of the route; CLOCK_NEVER: none */
    uint64_t backend_deadline_ns; /* of this attempt */
    uint64_t received_bytes;      /* opaque: counted when it ends */
    uint64_t sent_bytes;
    uint16_t status;
    uint8_t grpc_status;
    bool is_grpc;
};

/* ---- for the downstream ---- */

/* A message begins: the exchange that stands for it; NULL when a bound is reached. */
struct exchange *stream_begin(struct downstream *downstream);

/* The one stream of an opaque connection begins. False when a bound is reached. */
bool stream_begin_opaque(struct downstream *downstream, struct bytes sni);

/* Opaque and without a codec: bytes came; the peer ended or (CODEC_END_RESET) is gone. */
void stream_on_bytes(struct stream *stream);
void stream_on_bytes_end(struct stream *stream, enum codec_end end);

/* The downstream's memory goes: finish now, whatever is under way. */
void stream_on_downstream_closed(struct stream *stream);

/* Has one of the two directions of an opaque stream ended? */
bool stream_is_half_closed(const struct stream *stream);

/* End those streams of `downstream` on which nothing has happened for too long. */
void stream_expire_idle(struct downstream *downstream);

/* ---- for the upstream ---- */

/* The connection stands, or could not be made. */
void attempt_on_connected(struct attempt *attempt);
void attempt_on_connect_failed(struct attempt *attempt, struct error error);

/* It waited for a descriptor (upstream/shortage.h), and there may be one. */
void attempt_on_descriptor(struct attempt *attempt);

/* Without a codec: bytes came; the upstream ended or (CODEC_END_RESET) is gone. */
void attempt_on_bytes(struct attempt *attempt);
void attempt_on_bytes_end(struct attempt *attempt, enum codec_end end);

/* ---- for the worker ---- */

/* Let go of a snapshot that is not the newest, if the response head is sent. */
void stream_detach(struct stream *stream);

/* A word for a state: for the admin socket. */
const char *stream_state_name(enum stream_state state);

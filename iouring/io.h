/*
 * The only way to the kernel on the data path: sockets, listeners, timers, tasks and messages of
 * one thread.
 *
 * One `struct io` belongs to one thread, which creates it, turns it and destroys it. Three drivers
 * stand behind it (io_uring, epoll, fake); no caller can tell which one, and none sees a submission
 * entry, a buffer id or a ring errno.
 *
 * The one idea: a completion only *records* what happened in the socket that it belongs to and puts
 * that socket on the ready list. When all completions of a turn are recorded, the ready sockets are
 * called, once each, with the set of what happened. So no callback runs inside another, events of
 * one turn arrive together, and several received blocks are handled as one piece of input. Order of
 * a turn:
 *
 *     submit and wait -> record completions -> messages -> ready sockets -> due timers -> tasks ->
 * send what was queued
 *
 * Callbacks may call everything in this header, also on their own socket. Memory of a socket,
 * listener or watch may be freed from its last event (IO_EVENT_CLOSED, on_closed) on, not before:
 * the kernel may still own it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/list.h"
#include "iouring/address.h"

struct io;
struct io_socket;
struct io_listener;
struct io_timer;
struct io_task;
struct io_message;
struct io_watch;
struct io_splice;

/* ---- one thread's I/O
 * ------------------------------------------------------------------------------------------ */

enum io_backend {
    IO_BACKEND_AUTO, /* io_uring where the kernel lets us, else epoll */
    IO_BACKEND_URING,
    IO_BACKEND_EPOLL,
    IO_BACKEND_FAKE, /* made by io_fake_create only */
};

struct io_options {
    uint32_t block_bytes;        /* size of one block lent to the kernel; 16 KiB */
    uint32_t block_count;        /* blocks in the receive pool, a power of two; 256 */
    uint32_t submission_entries; /* 128: locked memory counts for a user over the whole node */
    uint32_t completion_entries; /* 1024 */
    uint64_t
        heap_bytes_max; /* budget of io_blocks() and of copies made when lent blocks are scarce */
    uint32_t ready_max; /* sockets, tasks and messages handled in one turn; 256 */
    uint64_t spin_ns;   /* how long a turn may poll before it sleeps; 0 = never */
    const struct address *own_addresses; /* borrowed: connections to them, as those to loopback,
                                            stay inside this host and are not paced; may be NULL */
    uint32_t own_addresses_count;
    uint64_t seed;                  /* of io_random; 0 = from the kernel */
    void (*on_scarce)(void *owner); /* lent blocks are scarce: unlend what you keep outside sockets;
                                       may be NULL */
    void *owner;                    /* borrowed, given to on_scarce */
};

/* Why io_uring is not in use, for the one log line, /status and the metric. */
enum io_refusal {
    IO_REFUSAL_NONE,
    IO_REFUSAL_SECCOMP, /* EPERM, or ENOSYS of a kernel that has it, while the sysctl allows it */
    IO_REFUSAL_SYSCTL,  /* kernel.io_uring_disabled */
    IO_REFUSAL_KERNEL,  /* ENOSYS, or a needed feature is missing */
    IO_REFUSAL_MEMLOCK, /* ENOMEM even with the smallest ring, or with one ring for each thread */
    IO_REFUSAL_ASKED,   /* --io epoll */
};

struct io_probe {
    enum io_backend backend; /* what AUTO stands for here */
    enum io_refusal refusal;
    int error_number;
    const char *reason; /* a sentence; static storage */
    const char *remedy; /* a sentence; static storage */
};

/* Find out, by setting up a small ring and receiving through it, which back end AUTO is. Any
 * thread; takes < 5 ms. */
void io_probe(struct io_probe *ret_probe);

/* The same verdict from an error of io_create(IO_BACKEND_URING): a probe sets up one ring, a
 * process needs several. */
void io_probe_from_error(struct error error, struct io_probe *ret_probe);

/* The defaults above, so that callers set only what differs. */
struct io_options io_options_default(void);

/*
 * Create the I/O of the calling thread. `backend` URING fails where AUTO would fall back.
 * Errors: ERROR_UNSUPPORTED, ERROR_NO_MEMORY, ERROR_OS.
 */
FALLIBLE io_create(enum io_backend backend, const struct io_options *options, struct io **ret_io);

/* Everything opened on it must have reported its end (io_is_idle). Accepts NULL. */
void io_destroy(struct io *io);

/* True when no socket, listener or watch is open and no op is in the kernel. */
bool io_is_idle(const struct io *io);

/*
 * One turn. Waits for something to happen, at most until `until_ns` (CLOCK_NEVER: as long as it
 * takes; a time that has passed: not at all), the nearest timer or a posted message. Errors: only
 * what leaves the ring unusable; the thread must then end the process.
 */
FALLIBLE io_turn(struct io *io, uint64_t until_ns);

/* Monotonic time, read once a turn. */
uint64_t io_now(const struct io *io);

/* Monotonic time, read now: for measuring parts of a turn. */
uint64_t io_now_exact(const struct io *io);

/* 64 random bits; not for secrets. */
uint64_t io_random(struct io *io);

/* The back end in use: URING, EPOLL or FAKE. */
enum io_backend io_backend_of(const struct io *io);
const char *io_backend_name(enum io_backend backend);

/* Blocks to write outgoing bytes into, from this thread's budgeted slab. */
struct block_source *io_blocks(struct io *io);

/* Heap block bytes in use, of options.heap_bytes_max. */
uint64_t io_heap_bytes(const struct io *io);

/* Counters of one thread; read by that thread. */
struct io_counters {
    uint64_t turns;
    uint64_t waits; /* turns that slept */
    uint64_t completions;
    uint64_t received_bytes;
    uint64_t sent_bytes;
    uint64_t spliced_bytes;   /* of sent_bytes: those that pumps moved inside the kernel */
    uint64_t receive_starved; /* receives that ended for want of a block (ENOBUFS) */
    uint64_t receive_rearmed;
    uint64_t accept_paused; /* accepts that ended for want of a descriptor (EMFILE, ENFILE) */
    uint64_t completion_overflows;
    uint64_t unlent_bytes;   /* copied out of lent blocks under scarcity */
    uint64_t unknown_errors; /* errno values that no op names */
    uint32_t blocks_lent;    /* now: received and not returned */
    uint32_t blocks_lent_max;
    uint32_t ops_in_kernel; /* now */
};

/* The counters of this thread, in place. */
const struct io_counters *io_counters_of(const struct io *io);

/* One line for each op in the kernel: name, age. For the admin dump and for a failed CHECK. */
typedef void (*io_op_line_fn)(const char *name, uint64_t age_ns, int fd, void *argument);
void io_for_each_op(const struct io *io, io_op_line_fn line, void *argument);

/* ---- sockets
 * ----------------------------------------------------------------------------------------------------
 */

enum io_event {
    IO_EVENT_CONNECTED = 1 << 0,     /* the connect succeeded; only after io_socket_connect */
    IO_EVENT_RECEIVED = 1 << 1,      /* socket->received has grown */
    IO_EVENT_RECEIVE_ENDED = 1 << 2, /* the peer's FIN, after its last byte; sending goes on */
    IO_EVENT_SENT = 1 << 3, /* some queued bytes are with the kernel now; see io_socket_unsent. On
                               the target of a pump only after the end of the source */
    IO_EVENT_FAILED =
        1 << 4, /* connect failed, reset or broken: see socket->error. Call io_close or io_abort */
    IO_EVENT_CLOSED =
        1 << 5, /* the last event ever, after io_close or io_abort: memory may be reused */
};

/* What happened since the last call. Runs in the turn, never inside another callback. */
typedef void (*io_socket_fn)(struct io_socket *socket, uint32_t events);

/* One op that can be in the kernel; its address is the user_data (house style 5, ring rules). */
struct io_op {
    void *owner;          /* borrowed: the socket, listener or watch that embeds it */
    uint32_t since_ticks; /* of 2^20 ns */
    uint8_t kind;         /* the driver's */
    bool is_in_kernel;
};

_Static_assert(sizeof(struct io_op) == 16, "a connection has sixteen of these");

enum {
    IO_UNREAD_TICK_MS = 100
};

enum io_direction_state {
    IO_DIRECTION_OPEN,
    IO_DIRECTION_ENDED, /* FIN received, or sent */
    IO_DIRECTION_FAILED,
};

/*
 * A stream socket, embedded in its owner. Callers read `received`, `error`, `fd`, the byte
 * counters; all else is the I/O layer's. All zero before io_socket_adopt or io_socket_connect.
 */
struct io_socket {
    struct io *io; /* borrowed */
    io_socket_fn on_event;
    struct list ready;
    struct list open;    /* all sockets of the thread */
    struct list dirty;   /* has something to submit at the end of the turn */
    struct list holding; /* may hold lent blocks */
    struct list unread;  /* nothing is received from it lately */
    int fd;
    uint32_t events;    /* recorded, not yet delivered */
    struct error error; /* of IO_EVENT_FAILED */
    struct buffer
        received; /* take from it with buffer_move or buffer_consume; what is left stays */
    uint64_t received_bytes;
    uint64_t sent_bytes;
    uint64_t pumped_bytes; /* that left for the other socket of a pump, without passing the owner */

    /* The I/O layer's own. */
    struct buffer send_queue;
    uint64_t credit_bytes;     /* granted and not yet received */
    struct io_socket *pump_to; /* borrowed; set while a pump runs from here */
    struct io_socket *pump_from;
    uint32_t send_in_flight;
    enum io_direction_state receive_state;
    enum io_direction_state send_state;
    bool is_send_end_wanted;
    bool is_connecting;
    bool is_receive_armed;
    bool is_receive_disarming;
    bool is_starved;
    bool is_closing;
    bool is_close_started;
    bool is_reset_wanted;
    bool is_closed;
    bool is_failure_pending; /* a send failed; reported when the receive is over */
    bool is_unlend_wanted;   /* copy what is queued as soon as the kernel lets go of it */
    bool is_cancel_sent;     /* the driver's: one cancel for all ops of a closing socket */
    bool is_unread;          /* nothing was received for so long that an error is a failure */
    bool is_error_seen;      /* the connection is broken; a receive may still find bytes */
    bool is_tail_wanted;     /* io_want_tail */
    uint16_t ops_in_kernel;
    struct io_op receive_op;
    struct io_op send_op;
    struct io_op connect_op;
    struct io_op cancel_op;
    struct io_op close_op;
    struct io_op poll_in_op;
    struct io_op poll_out_op;
    struct io_op error_op;
    struct io_splice *splice; /* owned: of a pump from here that moves bulk inside the kernel */
    uint64_t bulk_bytes;      /* pumped in large pieces without a break */
    bool is_splice_refused;
    struct list starved;
    struct list driver_link;
    uint32_t driver_bits;
    void *driver_data; /* the driver's: peer of a fake socket */
};

_Static_assert(sizeof(struct io_socket) <= 768, "an idle connection has two of these");

/*
 * Take a connected stream socket over (accepted, or inherited). The descriptor is ours from here
 * on, also on failure. Nothing is received before io_receive_grant. TCP_NODELAY is set where it
 * applies. Errors: ERROR_OS (a descriptor that is no stream socket).
 */
FALLIBLE io_socket_adopt(struct io_socket *socket, struct io *io, int fd, io_socket_fn on_event);

/*
 * Connect to `remote`, from `local` when it is not NULL (a bound source address). Bytes may be
 * queued and credit granted at once; they take effect when connected. No timeout of its own: the
 * owner has a timer and calls io_close. After:  IO_EVENT_CONNECTED or IO_EVENT_FAILED. Errors:
 * ERROR_LIMIT (no descriptor left; detail EMFILE or ENFILE), ERROR_OS; the socket is then unused.
 */
FALLIBLE io_socket_connect(struct io_socket *socket, struct io *io, const struct address *remote,
                           const struct address *local, io_socket_fn on_event);

/*
 * Allow `bytes` more to be received. The credit is used up by what arrives; without credit nothing
 * is read and the peer's window closes. The peer's end is seen only while some credit is left or a
 * read was armed; keep at least one byte of credit where that matters. A reset, or any other error
 * of the connection, is seen behind the last byte while there is credit; when nothing was received
 * for IO_UNREAD_TICK_MS to twice that, for whatever reason, it is IO_EVENT_FAILED at once, and the
 * bytes before it are lost (but see io_want_tail). A mere end (FIN) is none. May be overrun by what
 * the kernel had on the way (bounded by the pool).
 */
void io_receive_grant(struct io_socket *socket, uint64_t bytes);

/*
 * Bytes that came before a reset are worth more than early news of it: while the kernel has any,
 * the reset is seen behind the last one only, however long nobody receives. For peers whose bytes
 * are complete in themselves, as an HTTP response is.
 */
void io_want_tail(struct io_socket *socket);

/* Credit that is left. */
static inline uint64_t io_receive_credit(const struct io_socket *socket)
{
    return socket->credit_bytes;
}

/*
 * Queue all of `bytes` (empty afterwards) behind what is queued. One send is in flight for a
 * socket; the rest of the turn's bytes leave with it, many slices at once. The owner bounds the
 * queue: io_socket_unsent and IO_EVENT_SENT. After io_send_end, failure or close the bytes are
 * dropped without a word: the event that says so is on its way. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE io_send(struct io_socket *socket, struct buffer *bytes);

/* FIN behind everything queued. Receiving goes on. */
void io_send_end(struct io_socket *socket);

/* Bytes queued and not yet taken by the kernel. */
static inline uint64_t io_socket_unsent(const struct io_socket *socket)
{
    return socket->send_queue.size;
}

/* Close at once: what is queued is dropped. Once; IO_EVENT_CLOSED follows in a later turn, and
 * nothing else. */
void io_close(struct io_socket *socket);

/* The same with RST to the peer (on a unix socket: as io_close). */
void io_abort(struct io_socket *socket);

/*
 * From now on bytes received by `from` go to `to` by themselves, with back-pressure, in the
 * cheapest way the back end has (moving blocks; splice for bulk); `from` reports only its end and
 * failures, and counts pumped_bytes. The owner grants nothing on `from` any more and sends nothing
 * to `to` but io_send_end. Bytes in from->received go first. Both sockets are of this thread. The
 * other direction is a pump of its own. Ends with io_close of either. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE io_pump_start(struct io_socket *from, struct io_socket *to);

enum io_address_kind {
    IO_ADDRESS_LOCAL,
    IO_ADDRESS_PEER,
    IO_ADDRESS_ORIGINAL, /* SO_ORIGINAL_DST; ERROR_NOT_FOUND where the connection was not redirected
                          */
};

/* One of the addresses of an open socket. Errors: ERROR_NOT_FOUND, ERROR_OS. */
FALLIBLE io_socket_address(const struct io_socket *socket, enum io_address_kind kind,
                           struct address *ret_address);

/* ---- listeners
 * --------------------------------------------------------------------------------------------------
 */

/*
 * Accepts until it is closed: a multishot that ended (EMFILE, ENFILE, ENOBUFS, overflow) is armed
 * again, after a descriptor became free or 100 ms, and counted. A descriptor that a socket leaves
 * is for whoever takes it in IO_EVENT_CLOSED first. Embedded in its owner; all zero before
 * io_listener_open.
 */
struct io_listener {
    struct io *io; /* borrowed */
    /* A new connection; the descriptor is the callee's (io_socket_adopt or io_discard). */
    void (*on_accept)(struct io_listener *listener, int fd);
    void (*on_closed)(struct io_listener *listener);
    /* No descriptor was left for a connection: give one up that you can spare. Again for each try.
     * NULL, or set it after io_listener_open. */
    void (*on_starved)(struct io_listener *listener);
    struct list open;
    struct list ready;
    struct list dirty;
    struct list starved; /* no descriptor was left: waits for one */
    int fd;
    bool is_armed;
    bool is_paused;
    bool is_starving; /* on_starved is due */
    bool is_closing;
    bool is_close_started;
    bool is_closed;
    bool is_disarming;
    struct io_op accept_op;
    struct io_op cancel_op;
    struct list driver_link;
    uint32_t driver_bits;
    void *driver_data;
};

struct io_listen_options {
    struct address address; /* port 0: any */
    int backlog;            /* 0: 4096 */
    bool is_v6_only;        /* for IPv6 addresses */
    bool is_transparent;    /* IP_TRANSPARENT, for TPROXY */
    bool is_reuse_port;
};

/* Refuse a connection that on_accept gave and that nobody adopts: RST. Works on every back end,
 * where close(2) works on real descriptors only. */
void io_discard(struct io *io, int fd);

/* Make a bound and listening descriptor. Any thread. Errors: ERROR_OS (address in use, not
 * permitted, ...). */
FALLIBLE io_listen_socket(const struct io_listen_options *options, int *ret_fd);

/* Start accepting on `fd`, which becomes the listener's. */
void io_listener_open(struct io_listener *listener, struct io *io, int fd,
                      void (*on_accept)(struct io_listener *listener, int fd),
                      void (*on_closed)(struct io_listener *listener));

/* Stop and go on: connections wait in the backlog meanwhile. May be called again and again. */
void io_listener_pause(struct io_listener *listener);
void io_listener_resume(struct io_listener *listener);

/*
 * Stop for good; on_closed follows when the kernel is done with it. Connections that the kernel had
 * accepted already still come to on_accept before that.
 */
void io_listener_close(struct io_listener *listener);

/* ---- readiness of other descriptors (signals, inotify)
 * ---------------------------------------------------------- */

struct io_watch {
    struct io *io; /* borrowed */
    void (*on_readable)(struct io_watch *watch);
    void (*on_closed)(struct io_watch *watch);
    struct list open;
    struct list ready;
    struct list dirty;
    int fd; /* borrowed: the owner closes it after on_closed */
    bool is_armed;
    bool is_readable;
    bool is_closing;
    bool is_close_started;
    bool is_closed;
    struct io_op poll_op;
    struct io_op cancel_op;
};

/* Call on_readable whenever `fd` is readable (level-triggered: once a turn while it stays so). */
void io_watch_open(struct io_watch *watch, struct io *io, int fd,
                   void (*on_readable)(struct io_watch *watch),
                   void (*on_closed)(struct io_watch *watch));
void io_watch_close(struct io_watch *watch);

/* ---- timers, tasks, messages
 * ------------------------------------------------------------------------------------ */

typedef void (*io_timer_fn)(struct io_timer *timer);

/* Embedded; all zero is a stopped timer. Starting, restarting and stopping cost a few list
 * operations. */
struct io_timer {
    struct list link;
    uint64_t deadline_ns; /* 0 when stopped */
    io_timer_fn on_timer;
};

/* Call `on_timer` once, in the first turn at or after `deadline_ns` (resolution 1 ms). Restarts a
 * running one. */
void io_timer_start(struct io *io, struct io_timer *timer, uint64_t deadline_ns,
                    io_timer_fn on_timer);
void io_timer_stop(struct io *io, struct io_timer *timer);

static inline bool io_timer_is_running(const struct io_timer *timer)
{
    return timer->deadline_ns != 0;
}

typedef void (*io_task_fn)(struct io_task *task);

/* Something to do later in this turn, or in the next one when the turn is full; not waited for. All
 * zero: not scheduled. */
struct io_task {
    struct list link;
    io_task_fn run;
};

/* Schedule `task`; nothing happens when it is scheduled already. */
void io_task_schedule(struct io *io, struct io_task *task, io_task_fn run);
void io_task_cancel(struct io *io, struct io_task *task);

static inline bool io_task_is_scheduled(const struct io_task *task)
{
    return task->run != NULL;
}

typedef void (*io_message_fn)(struct io_message *message);

/* A message to another thread; the sender's memory, which the receiver owns from the call of `run`
 * on. */
struct io_message {
    struct io_message *next;
    io_message_fn run; /* on the target's thread, in its turn */
};

/* Hand `message` to the thread of `target`, which must outlive the call. Any thread; never blocks,
 * never fails. */
void io_post(struct io *target, struct io_message *message);

/*
 * Between io.c, which holds what all back ends promise, and a back end, which holds only how.
 *
 * io.c decides: when to receive (credit), what to send, what closing waits for, what is ready. A
 * driver starts ops and says what became of them through the io_note_... calls, from its `wait`
 * only. A driver never calls an owner.
 */
#pragma once

#include "iouring/block_pool.h"
#include "iouring/io.h"

struct io_driver {
    enum io_backend backend;
    FALLIBLE (*open)(struct io *io, const struct io_options *options);
    void (*close)(struct io *io);

    /* Submit everything started since the last call, wait at most `wait_ns` (0: not at all), note
     * all completions. */
    FALLIBLE (*wait)(struct io *io, uint64_t wait_ns);
    uint64_t (*now)(const struct io *io);

    /* A connecting non-blocking socket: fd of the right family. Errors as io_socket_connect. */
    FALLIBLE(*socket)
    (struct io *io, const struct address *remote, const struct address *local, int *ret_fd);
    FALLIBLE(*connect)
    (struct io_socket *socket, const struct address *remote); /* -> io_note_connected */
    FALLIBLE(*address)
    (const struct io_socket *socket, enum io_address_kind kind, struct address *ret_address);
    FALLIBLE (*adopt)(struct io_socket *socket);

    /* socket->credit_bytes > 0, not armed, not starved -> io_note_received.., until
     * io_note_receive_stopped. */
    void (*receive_arm)(struct io_socket *socket);
    /* Armed; ask for the end of it. io_note_receive_stopped follows; bytes on the way are noted
     * before it. */
    void (*receive_disarm)(struct io_socket *socket);
    /* send_queue is not empty, nothing in flight: send from its front -> io_note_sent or
     * io_note_failed. */
    void (*send)(struct io_socket *socket);
    /* The queue is empty and FIN is wanted (shutdown(2); cannot fail in a way that matters). */
    void (*send_end)(struct io_socket *socket);
    /*
     * End everything: shut down or reset, cancel, wait for each op in the kernel, then close the
     * descriptor
     * -> io_note_closed, exactly once, when ops_in_kernel is 0.
     */
    void (*socket_close)(struct io_socket *socket, bool is_reset);

    /* A pump from `from` may be taken over (splice); false: io.c moves blocks. May be NULL. */
    bool (*pump)(struct io_socket *from, struct io_socket *to);

    void (*listener_arm)(
        struct io_listener *listener); /* -> io_note_accepted.., io_note_accept_stopped */
    void (*listener_disarm)(struct io_listener *listener); /* -> io_note_accept_stopped */
    void (*listener_close)(struct io_listener *listener);  /* -> io_note_listener_closed */
    void (*watch_arm)(struct io_watch *watch);             /* one shot -> io_note_readable */
    void (*watch_close)(struct io_watch *watch);           /* -> io_note_watch_closed */
    /* Make `wait` of another thread return; called by io_post when the doorbell is not rung yet.
     * Any thread. */
    void (*ring_doorbell)(struct io *io);
};

/* What became of ops; recorded, never acted on at once. */
void io_note_connected(struct io_socket *socket, int error_number);
/* Takes over one reference of `block`. */
void io_note_received(struct io_socket *socket, struct block *block, const uint8_t *data,
                      uint32_t size);
void io_note_receive_ended(struct io_socket *socket);
/* The armed receive is over: 0 (disarmed, credit used up), ENOBUFS (starved: io.c arms again when
 * blocks return). */
void io_note_receive_stopped(struct io_socket *socket, int error_number);
void io_note_sent(struct io_socket *socket, uint32_t size);
void io_note_failed(struct io_socket *socket, int error_number);
void io_note_closed(struct io_socket *socket);
void io_note_accepted(struct io_listener *listener, int fd);
/* The armed accept is over: 0 (disarmed), EMFILE/ENFILE (paused until a descriptor is free or 100
 * ms), else re-armed. */
void io_note_accept_stopped(struct io_listener *listener, int error_number);
void io_note_listener_closed(struct io_listener *listener);
void io_note_readable(struct io_watch *watch);
void io_note_watch_closed(struct io_watch *watch);

/* An op went to the kernel, or its final completion came. Keeps the counts and the list of ring
 * rule 6. */
void io_op_begin(struct io *io, struct io_op *op, const char *name);
void io_op_finish(struct io *io, struct io_op *op);

/* The common part of every back end's state. A driver's own state hangs on `driver_state`. */
struct io_timers;
struct io_mailbox;

struct io {
    const struct io_driver *driver;
    void *driver_state; /* owned by the driver */
    struct io_options options;
    uint64_t now_ns;
    struct io_counters counters;
    struct block_pool *pool; /* owned: blocks lent to the kernel, and the heap slab */
    struct list ready_sockets;
    struct list ready_listeners;
    struct list ready_watches;
    struct list open_sockets;
    struct list open_listeners;
    struct list open_watches;
    struct list dirty;
    struct list starved_sockets;
    struct list starved_listeners;
    struct list tasks;
    struct list ops_in_kernel;
    struct io_timers *timers;   /* owned */
    struct io_mailbox *mailbox; /* owned */
    uint64_t random[2];
};

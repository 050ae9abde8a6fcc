/*
 * Between io.c, which holds what all back ends promise, and a back end, which holds only how.
 *
 * io.c decides: when to receive (credit), what to send, what closing waits for, what is ready. A
 * driver starts ops and says what became of them through the io_note_... calls. Those only record,
 * so a driver may make them from any of its functions, not only from `wait` (an epoll send that
 * succeeds at once is noted at once). A driver never calls an owner. io.c calls receive_arm, send,
 * send_end, socket_close, the listener and the watch functions only between callbacks, when it
 * flushes what a turn changed.
 */
#pragma once

#include "iouring/block_pool.h"
#include "iouring/io.h"

struct io_datagram;
struct io_packet;
struct io_packet_memory;

struct io_driver {
    enum io_backend backend;
    FALLIBLE (*open)(struct io *io, const struct io_options *options);
    void (*close)(struct io *io);

    /* Submit everything started since the last call, wait at most `wait_ns` (0: not at all;
     * CLOCK_NEVER: as long as it takes), note all completions. */
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
    /* Close an accepted descriptor that nobody adopted, with RST. */
    void (*discard)(struct io *io, int fd);

    /* socket->credit_bytes > 0; io.c has set is_receive_armed -> io_note_received.., until
     * io_note_receive_stopped or io_note_receive_ended, which clear it. */
    void (*receive_arm)(struct io_socket *socket);
    /* Armed; ask for the end of it. io_note_receive_stopped follows; bytes on the way are noted
     * before it. */
    void (*receive_disarm)(struct io_socket *socket);
    /*
     * send_queue is not empty, send_in_flight is 0: send from its front -> io_note_sent or
     * io_note_failed. send_in_flight is the driver's: not 0 while io.c must not call again.
     */
    void (*send)(struct io_socket *socket);
    /*
     * The kernel must let go of the blocks of the send in flight, because they are to be copied:
     * end it -> io_note_sent (of what went out, may be 0). NULL when the kernel holds no blocks.
     */
    void (*send_cancel)(struct io_socket *socket);
    /* The queue is empty and FIN is wanted (shutdown(2); cannot fail in a way that matters). */
    void (*send_end)(struct io_socket *socket);
    /*
     * End everything: shut down or reset, cancel, wait for each op in the kernel, then close the
     * descriptor
     * -> io_note_closed, exactly once, when ops_in_kernel is 0.
     */
    void (*socket_close)(struct io_socket *socket, bool is_reset);
    /* The driver marked a closing socket dirty and wants to go on. NULL where it never does. */
    void (*socket_close_more)(struct io_socket *socket);

    /*
     * Tell once, by io_note_pollable, when the socket becomes readable, or writable; the last
     * attempt found it not so. Only for open sockets with a real descriptor; NULL: no splicing.
     */
    void (*poll)(struct io_socket *socket, bool is_out);

    /*
     * From now on until it is closed tell, by io_note_error_seen, when the connection of an open
     * socket breaks, or that it did; not that the peer ended. io_note_error_watch_stopped when that
     * ends early. NULL where that is always told.
     */
    void (*error_watch)(struct io_socket *socket);
    /* The errno that the connection broke with, which nobody else will see then; 0 if none. */
    int (*take_error)(struct io_socket *socket);
    /* Bytes have come that were not received. */
    bool (*has_unread)(const struct io_socket *socket);

    void (*listener_arm)(
        struct io_listener *listener); /* -> io_note_accepted.., io_note_accept_stopped */
    void (*listener_disarm)(struct io_listener *listener); /* -> io_note_accept_stopped */
    void (*listener_close)(struct io_listener *listener);  /* -> io_note_listener_closed */
    void (*watch_arm)(struct io_watch *watch);             /* one shot -> io_note_readable */
    void (*watch_close)(struct io_watch *watch);           /* -> io_note_watch_closed */
    /* Up to IO_PACKETS_A_TURN packets, valid until the next call; how many there were. */
    uint32_t (*datagram_receive)(struct io_datagram *datagram, struct io_packet *packets);
    FALLIBLE(*datagram_send)
    (struct io_datagram *datagram, const struct address *peer, const struct address *local,
     struct bytes payload);
    void (*datagram_close)(struct io_datagram *datagram); /* its watch is closed */
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
/*
 * The armed receive is over: 0 (disarmed, credit used up; io.c arms again while there is credit),
 * ENOBUFS (starved: io.c arms again when blocks return), else the errno that it failed with.
 */
void io_note_receive_stopped(struct io_socket *socket, int error_number);
/* `size` bytes of the front of send_queue are with the kernel's socket now; releases them. */
void io_note_sent(struct io_socket *socket, uint32_t size);
/*
 * A send failed, or there was no memory. A broken connection (EPIPE, ECONNRESET) is reported after
 * what can still be received, so an armed receive must then come to its end by itself.
 */
void io_note_failed(struct io_socket *socket, int error_number);
void io_note_closed(struct io_socket *socket);
/* The connection is broken. A receive may find bytes, and will find the error after them. */
void io_note_error_seen(struct io_socket *socket);
/* What driver->error_watch started is over, by itself. */
void io_note_error_watch_stopped(struct io_socket *socket);
/* What driver->poll was asked for; also when it is not known which of the two. */
void io_note_pollable(struct io_socket *socket, bool is_out);
void io_note_accepted(struct io_listener *listener, int fd);
/* The armed accept is over: 0 (disarmed), EMFILE/ENFILE (paused until a descriptor is free or 100
 * ms), else re-armed. */
void io_note_accept_stopped(struct io_listener *listener, int error_number);
void io_note_listener_closed(struct io_listener *listener);
void io_note_readable(struct io_watch *watch);
void io_note_watch_closed(struct io_watch *watch);

/*
 * Create the common part and open `driver` on it. For io_create and io_fake_create. Errors: as
 * io_create.
 */
FALLIBLE io_create_with(const struct io_driver *driver, const struct io_options *options,
                        struct io **ret_io);

/* Look at `socket` again in the next flush: a driver has something to start that must wait. */
void io_mark_dirty(struct io_socket *socket);

/* An op went to the kernel, or its final completion came. Keeps the counts and the list of ring
 * rule 6. */
void io_op_begin(struct io *io, struct io_op *op);
void io_op_finish(struct io *io, struct io_op *op);

/* A connection that was accepted and not yet given to the listener's owner. */
struct io_accepted {
    struct io_listener *listener; /* borrowed */
    int fd;
};

struct io_timers;
struct io_mailbox;

enum {
    IO_PIPES_KEPT = 4
};

/* The common part of every back end's state. A driver's own state hangs on `driver_state`. */
struct io {
    const struct io_driver *driver;
    void *driver_state; /* owned by the driver */
    struct io_options options;
    uint64_t now_ns;
    struct io_counters counters;
    struct block_pool *pool; /* owned: blocks lent to the kernel, and the heap slab */
    /* The driver's receive ends by itself after the credit it was armed with; else io.c disarms. */
    bool has_kernel_credit;
    bool is_relieving; /* blocks are scarce and there are more sockets to copy from */
    struct list ready_sockets;
    struct list ready_listeners;
    struct list ready_watches;
    struct list open_sockets;
    struct list open_listeners;
    struct list open_watches;
    struct list dirty;
    struct list dirty_listeners;
    struct list dirty_watches;
    struct list holding; /* sockets that may hold lent blocks from one turn to the next */
    struct list starved_sockets;
    struct list starved_listeners;
    struct list ready_splices;
    struct list unread_new; /* sockets: nothing is received since the last tick of unread_timer */
    struct list unread_old; /* since the one before */
    struct list tasks;
    struct io_accepted *accepted; /* owned: a queue from accepted_first to accepted_count */
    uint32_t accepted_first;
    uint32_t accepted_count;
    uint32_t accepted_capacity;
    struct io_timer accept_timer; /* tries exhausted listeners again */
    struct io_timer unread_timer;
    struct io_timers *timers;               /* owned */
    struct io_mailbox *mailbox;             /* owned */
    struct io_message *messages;            /* taken from the mailbox, not yet run */
    struct io_packet_memory *packet_memory; /* owned; NULL until a datagram socket is opened */
    uint64_t random[2];
    int pipes[IO_PIPES_KEPT][2]; /* owned: empty, for splicing */
    uint32_t pipe_count;
    uint32_t pipes_open; /* these and those in use */
};

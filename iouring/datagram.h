/*
 * Datagrams (UDP) with both addresses: whom each one came from, and which address it was sent to,
 * which under TPROXY is not ours. Nothing is queued here: what the kernel does not take at once is
 * lost, as datagrams are.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "iouring/address.h"
#include "iouring/io.h"

enum {
    IO_PACKETS_A_TURN = 16,
    IO_PACKET_BYTES_MAX = 65535,
};

struct io_packet {
    struct address peer;  /* who sent it */
    struct address local; /* the address and port that it was sent to */
    struct bytes payload; /* valid during the call */
};

/* A datagram socket, embedded in its owner. */
struct io_datagram {
    struct io *io; /* borrowed */
    void (*on_packet)(struct io_datagram *datagram, const struct io_packet *packet);
    void (*on_closed)(struct io_datagram *datagram);
    struct io_watch watch;
    int fd;
    bool is_closing;
};

struct io_datagram_options {
    struct address local; /* port 0: any. IPv6 is IPv6 only */
    bool is_transparent;  /* IP_TRANSPARENT: receive for, and send from, addresses that are not ours
                           */
    bool is_reuse_address;
};

/* Make a bound descriptor that tells where each datagram was sent to. Any thread. Errors: ERROR_OS.
 */
FALLIBLE io_datagram_socket(const struct io_datagram_options *options, int *ret_fd);

/*
 * Start receiving on `fd`, which becomes the datagram's on success. At most IO_PACKETS_A_TURN
 * packets come in one turn. Errors: ERROR_NO_MEMORY.
 */
FALLIBLE io_datagram_open(struct io_datagram *datagram, struct io *io, int fd,
                          void (*on_packet)(struct io_datagram *datagram,
                                            const struct io_packet *packet),
                          void (*on_closed)(struct io_datagram *datagram));

/*
 * Send one datagram now, from the address `local` (its port is the socket's own; NULL: the kernel
 * chooses). Errors: ERROR_LIMIT when the socket is full: it is lost; ERROR_UNREACHABLE; ERROR_OS.
 */
FALLIBLE io_datagram_send(struct io_datagram *datagram, const struct address *peer,
                          const struct address *local, struct bytes payload);

/* No packet comes any more; on_closed follows in a later turn. */
void io_datagram_close(struct io_datagram *datagram);

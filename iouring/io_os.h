/*
 * What both back ends on real sockets do with plain system calls.
 */
#pragma once

#include "iouring/datagram.h"
#include "iouring/io.h"

/* A non-blocking stream socket for connecting to `remote`, bound to `local` unless that is NULL.
 * Errors: ERROR_LIMIT, ERROR_OS. */
FALLIBLE io_os_socket(struct io *io, const struct address *remote, const struct address *local,
                      int *ret_fd);

/* Check that socket->fd is a stream socket; set TCP_NODELAY. Errors: ERROR_OS. */
FALLIBLE io_os_adopt(struct io_socket *socket);

/* One of the addresses of a socket. Errors: ERROR_NOT_FOUND, ERROR_OS. */
FALLIBLE io_os_address(const struct io_socket *socket, enum io_address_kind kind,
                       struct address *ret_address);

/* Before close(2): FIN now (which also ends ops in the kernel), or RST at the close. */
void io_os_shut_down(int fd, bool is_reset);

/* Receive, send and close of a datagram socket, as the driver's (io_driver.h). */
uint32_t io_os_datagram_receive(struct io_datagram *datagram, struct io_packet *packets);
FALLIBLE io_os_datagram_send(struct io_datagram *datagram, const struct address *peer,
                             const struct address *local, struct bytes payload);
void io_os_datagram_close(struct io_datagram *datagram);

/* Close an accepted descriptor with RST. */
void io_os_discard(struct io *io, int fd);

/*
 * A send just found no room. True when no event will say that there is room again: nothing is on
 * its way to the peer, so nothing can be acknowledged; what lacks is memory of the whole system
 * (net.ipv4.tcp_mem). The send must be tried again after a while.
 */
bool io_os_is_send_unannounced(int fd);

enum {
    IO_OS_SEND_RETRY_MS = 5
};

/*
 * The end of `socket` was read. True when it is none: the peer reset the connection, and a send
 * that had gone in part took the error with it (and succeeded). A connection whose own direction is
 * open and that the peer ended waits for us to end it; a reset one is closed.
 */
bool io_os_is_end_a_reset(const struct io_socket *socket);

/* The error of the connection, and none afterwards: 0. */
int io_os_take_error(struct io_socket *socket);

/* The kernel has bytes of the peer that were not received. */
bool io_os_has_unread(const struct io_socket *socket);

/* CLOCK_MONOTONIC. */
uint64_t io_os_now(const struct io *io);

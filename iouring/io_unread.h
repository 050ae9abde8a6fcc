/*
 * Sockets that nothing is received from, for want of credit, of blocks, or because the peer has
 * ended: no receive tells that such a connection broke, so after a while something else has to.
 */
#pragma once

#include "iouring/io_driver.h"

/* Look whether `socket`, which is open and whole, is being received from. Cheap: once a flush. */
void io_unread_update(struct io_socket *socket);

/* Something was received, or the socket closes: the time begins anew, if it does. */
void io_unread_stop(struct io_socket *socket);

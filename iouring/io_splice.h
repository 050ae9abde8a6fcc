/*
 * Pumps of bulk: once a direction has moved 256 KiB in large pieces its bytes go through a pipe
 * and never come to user space. The driver only says when a socket is readable or writable.
 */
#pragma once

#include "iouring/io_driver.h"

/*
 * Take the pump from `from` over; nothing of it is received, queued or in the kernel. False when
 * there is no memory: blocks go on being moved. */
bool io_splice_start(struct io_socket *from);

/* The pump ends: what is in the pipe is dropped. Nothing happens when it does not splice. */
void io_splice_stop(struct io_socket *from);

/* Bytes wait in the pipe: the target's end must wait for them. */
bool io_splice_holds(const struct io_socket *from);

/* The errno that the source broke with, while what came before still waits for the target; else 0.
 */
int io_splice_read_error(const struct io_socket *from);

/* Something can be moved again: in this turn or the next one. */
void io_splice_ready(struct io_socket *from);

/* Move what can be moved, a bounded amount for each pump. */
void io_splice_run(struct io *io);

/* Close the pipes that are kept for reuse. */
void io_splice_close_pipes(struct io *io);

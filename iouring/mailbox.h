/*
 * Messages to one thread from any thread: a lock-free stack that its owner takes whole and turns
 * round. The release of the push and the acquire of the take are the synchronisation; the doorbell
 * (the back end's) only wakes.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "iouring/io.h"

struct io_mailbox;

/* An empty mailbox. Errors: ERROR_NO_MEMORY. */
FALLIBLE io_mailbox_create(struct io_mailbox **ret_mailbox);

/* Nobody may post any more; messages that were not taken are forgotten. Accepts NULL. */
void io_mailbox_destroy(struct io_mailbox *mailbox);

/*
 * Add `message`, whose memory is the receiver's from here on. True when the mailbox was empty: the
 * caller must then ring the doorbell, and nobody else will. Any thread.
 */
bool io_mailbox_push(struct io_mailbox *mailbox, struct io_message *message);

/* Everything posted so far, linked by `next` in the order of posting; NULL when empty. The owner's
 * thread. */
struct io_message *io_mailbox_take_all(struct io_mailbox *mailbox);

/*
 * No ABA: the only pop takes everything. No lost wake-up: whoever finds the stack empty rings, and
 * the owner takes all after it heard the bell.
 */
#include "iouring/mailbox.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"

struct io_mailbox {
    _Atomic(struct io_message *) newest;
};

struct error io_mailbox_create(struct io_mailbox **ret_mailbox)
{
    struct io_mailbox *mailbox = malloc(sizeof(*mailbox));
    if (mailbox == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    atomic_init(&mailbox->newest, NULL);
    *ret_mailbox = mailbox;
    return OK;
}

void io_mailbox_destroy(struct io_mailbox *mailbox)
{
    free(mailbox);
}

bool io_mailbox_push(struct io_mailbox *mailbox, struct io_message *message)
{
    CHECK(message->run != NULL);
    struct io_message *newest = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    do {
        message->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &newest, message,
                                                    memory_order_release, memory_order_relaxed));
    return newest == NULL;
}

struct io_message *io_mailbox_take_all(struct io_mailbox *mailbox)
{
    if (atomic_load_explicit(&mailbox->newest, memory_order_relaxed) == NULL) {
        return NULL; /* the usual case of a turn: no write to a shared line */
    }
    struct io_message *newest =
        atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire);
    struct io_message *oldest = NULL;
    while (newest != NULL) {
        struct io_message *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

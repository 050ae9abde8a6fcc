/* The mailbox, alone and under several posters. */
#include "iouring/mailbox.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum {
    POSTERS = 3,
    POSTS = 20000,
};

struct note {
    struct io_message message;
    uint32_t poster;
    uint32_t number;
};

static struct io_mailbox *mailbox;
static struct note notes[POSTERS][POSTS];
static _Atomic uint32_t rings;

static void unused(struct io_message *message)
{
    (void)message;
}

Test(mailbox, gives_messages_back_in_order_and_asks_for_one_ring)
{
    cr_assert_not(error_is(io_mailbox_create(&mailbox)));
    cr_assert_null(io_mailbox_take_all(mailbox));
    struct io_message messages[3] = {{.run = unused}, {.run = unused}, {.run = unused}};
    cr_assert(io_mailbox_push(mailbox, &messages[0]));
    cr_assert_not(io_mailbox_push(mailbox, &messages[1]));
    cr_assert_not(io_mailbox_push(mailbox, &messages[2]));
    struct io_message *message = io_mailbox_take_all(mailbox);
    for (uint32_t i = 0; i < 3; i++, message = message->next) {
        cr_assert_eq(message, &messages[i]);
    }
    cr_assert_null(message);
    cr_assert_null(io_mailbox_take_all(mailbox));
    cr_assert(io_mailbox_push(mailbox, &messages[0]), "empty again: the bell again");
    io_mailbox_destroy(mailbox);
    io_mailbox_destroy(NULL);
}

static void *post_all(void *argument)
{
    struct note *mine = argument;
    for (uint32_t i = 0; i < POSTS; i++) {
        mine[i].number = i;
        mine[i].message.run = unused;
        if (io_mailbox_push(mailbox, &mine[i].message)) {
            atomic_fetch_add(&rings, 1);
        }
    }
    return NULL;
}

/* The owner takes only after it heard the bell, so a lost ring would hang it: the test's timeout.
 */
Test(mailbox, loses_nothing_and_keeps_each_posters_order, .timeout = 30)
{
    cr_assert_not(error_is(io_mailbox_create(&mailbox)));
    pthread_t threads[POSTERS];
    for (uint32_t i = 0; i < POSTERS; i++) {
        for (uint32_t n = 0; n < POSTS; n++) {
            notes[i][n].poster = i;
        }
        cr_assert_eq(pthread_create(&threads[i], NULL, post_all, notes[i]), 0);
    }
    uint32_t next[POSTERS] = {0};
    uint32_t total = 0;
    uint32_t heard = 0;
    while (total < POSTERS * POSTS) {
        uint32_t rung = atomic_load(&rings);
        if (rung == heard) {
            sched_yield();
            continue;
        }
        heard = rung;
        for (struct io_message *message = io_mailbox_take_all(mailbox); message != NULL;
             message = message->next) {
            const struct note *note = LIST_OWNER(message, struct note, message);
            cr_assert_eq(note->number, next[note->poster]++);
            total++;
        }
    }
    for (uint32_t i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_null(io_mailbox_take_all(mailbox));
    io_mailbox_destroy(mailbox);
}

/* Log rings: whole lines in order, drops counted, the wake that is never lost; escapes; a pipe that
 * nobody reads. */
#include "base/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LINES = 20000
};

struct consumer {
    struct log_ring *ring;
    int wake[2];
};

static void wake(void *argument)
{
    const struct consumer *consumer = argument;
    cr_assert_eq(write(consumer->wake[1], "w", 1), 1);
}

static void *produce(void *argument)
{
    struct consumer *consumer = argument;
    for (int i = 0; i < LINES; i++) {
        char line[32];
        int size = snprintf(line, sizeof(line), "line %d", i);
        while (!log_ring_write(consumer->ring, bytes_make(line, (size_t)size))) {
            sched_yield(); /* full: the test wants all of them */
        }
    }
    return NULL;
}

Test(log, carries_whole_lines_in_order_between_threads, .timeout = 30)
{
    struct consumer consumer = {0};
    cr_assert_not(error_is(log_ring_create(1000, &consumer.ring)));
    cr_assert_eq(pipe(consumer.wake), 0);
    log_ring_set_wake(consumer.ring, wake, &consumer);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, produce, &consumer), 0);
    int next = 0;
    while (next < LINES) {
        char text[257];
        size_t size = log_ring_read(consumer.ring, (uint8_t *)text, sizeof(text) - 1);
        text[size] = '\0';
        for (char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
            char want[32];
            int length = snprintf(want, sizeof(want), "line %d\n", next++);
            cr_assert_eq(strncmp(line, want, (size_t)length), 0, "%s", line);
        }
        if (size == 0 && next < LINES && log_ring_sleep(consumer.ring)) {
            char byte;
            cr_assert_eq(read(consumer.wake[0], &byte, 1),
                         1); /* hangs, and times out, when a wake is lost */
        }
    }
    pthread_join(thread, NULL);
    log_ring_destroy(consumer.ring);
    close(consumer.wake[0]);
    close(consumer.wake[1]);
}

Test(log, drops_and_counts_when_full)
{
    struct log_ring *ring = NULL;
    cr_assert_not(error_is(log_ring_create(32, &ring)));
    cr_assert(log_ring_write(ring, BYTES("0123456789")));
    cr_assert(log_ring_write(ring, BYTES("0123456789")));
    cr_assert_not(log_ring_write(ring, BYTES("0123456789")));
    cr_assert_eq(log_ring_dropped(ring), 1);
    uint8_t out[64];
    cr_assert_eq(log_ring_read(ring, out, sizeof(out)), 22);
    log_ring_destroy(ring);
}

Test(log, escapes_what_a_peer_could_forge)
{
    char out[64];
    size_t length = log_escape(out, 0, sizeof(out), BYTES("a\"b\\\x1b]\n\xff"));
    out[length] = '\0';
    cr_assert_str_eq(out, "a\\\"b\\\\\\x1b]\\x0a\\xff");
    cr_assert_lt(log_escape(out, 0, 8, BYTES("\n\n\n\n\n")), 8);
}

/* What a pipe takes are whole lines, and the rest is counted. */
Test(log, gives_up_on_a_pipe_that_nobody_reads)
{
    enum {
        MUCH_LINES = 20000,
        MUCH_LINE_BYTES = 100
    };

    static uint8_t much[MUCH_LINES * MUCH_LINE_BYTES];
    static uint8_t got[MUCH_LINES * MUCH_LINE_BYTES];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    memset(much, 'x', sizeof(much));
    for (size_t i = 1; i <= MUCH_LINES; i++) {
        much[i * MUCH_LINE_BYTES - 1] = '\n';
    }
    uint64_t lost = log_write(ends[1], bytes_make(much, sizeof(much)));
    cr_assert(lost > 0 && lost < MUCH_LINES, "%llu", (unsigned long long)lost);
    close(ends[1]);
    size_t size = 0;
    ssize_t part = 0;
    while ((part = read(ends[0], got + size, sizeof(got) - size)) > 0) {
        size += (size_t)part;
    }
    cr_assert_eq(size, (MUCH_LINES - lost) * MUCH_LINE_BYTES);
    close(ends[0]);
}

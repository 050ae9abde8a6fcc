/*
 * Log lines: `time level key=value ...`. A thread formats into its own bounded ring; the control
 * thread writes what the rings hold to standard error and never blocks on it. A full ring drops the
 * line and counts it.
 *
 * Before the rings exist (start-up, command line tools) log_line with a NULL ring writes at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

enum log_level {
    LOG_ERROR,
    LOG_WARNING,
    LOG_INFO,
    LOG_DEBUG,
};

enum {
    LOG_LINE_MAX = 4096
};

struct log_ring; /* single producer, single consumer */

/* `bytes` is rounded up to a power of two. Errors: ERROR_NO_MEMORY. */
FALLIBLE log_ring_create(size_t bytes, struct log_ring **ret_ring);
void log_ring_destroy(struct log_ring *ring);

/* Producer. Adds one line as it is (no newline needed); false when it was dropped. */
bool log_ring_write(struct log_ring *ring, struct bytes line);

/* Consumer. Takes whole lines, newline-terminated, at most `size` bytes; 0 when there are none. */
size_t log_ring_read(struct log_ring *ring, uint8_t *out, size_t size);

/*
 * Consumer. Ask to be woken by the next line: true when the ring is empty and `wake` (below) will
 * be called, once, on the producer's thread; false when there is something to read already.
 */
bool log_ring_sleep(struct log_ring *ring);

/* What wakes the consumer; set before the producer starts. */
void log_ring_set_wake(struct log_ring *ring, void (*wake)(void *argument), void *argument);

/* Lines dropped so far. Any thread. */
uint64_t log_ring_dropped(const struct log_ring *ring);

/* The level in force for the whole process; raised and lowered at run time (POST /log). Any thread.
 */
enum log_level log_level(void);
void log_set_level(enum log_level level);

/* Say once: should a line of this level be made at all? */
static inline bool log_is_on(enum log_level level)
{
    return level <= log_level();
}

/* Make a line of level and a printf-formatted `msg="..." key=value` text, and write it to the ring
 * (NULL: stderr). */
void log_line(struct log_ring *ring, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Write the lines of `text` to `fd` as far as that does not block; returns how many were left out.
 */
uint64_t log_write(int fd, struct bytes text);

/* "2026-11-24T13:00:00.123Z" into `out` (at least 32 bytes); returns the length. */
size_t log_timestamp(char *out, size_t size);

/* "error", "warning", "info" or "debug"; static storage. */
const char *log_level_name(enum log_level level);

/* Append `text` to `out`, with controls, quotes, backslashes and bytes above 0x7e escaped; returns
 * the new length. */
size_t log_escape(char *out, size_t length, size_t size, struct bytes text);

/* Log lines in single-producer, single-consumer byte rings: a line is its length and its bytes. */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"

struct log_ring {
    size_t size;         /* a power of two */
    _Atomic size_t head; /* written by the producer: bytes ever put */
    _Atomic size_t tail; /* written by the consumer: bytes ever taken */
    _Atomic uint64_t dropped;
    _Atomic bool is_asleep; /* the consumer wants to be woken by the next line */
    void (*wake)(void *argument);
    void *wake_argument;
    uint8_t data[];
};

static _Atomic int level_in_force = LOG_INFO;

struct error log_ring_create(size_t bytes, struct log_ring **ret_ring)
{
    size_t size = 1;
    while (size < bytes) {
        size *= 2;
    }
    struct log_ring *ring = calloc(1, sizeof(*ring) + size);
    if (ring == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    ring->size = size;
    *ret_ring = ring;
    return OK;
}

void log_ring_destroy(struct log_ring *ring)
{
    free(ring);
}

void log_ring_set_wake(struct log_ring *ring, void (*wake)(void *argument), void *argument)
{
    ring->wake = wake;
    ring->wake_argument = argument;
}

static void copy_in(struct log_ring *ring, size_t at, const void *from, size_t size)
{
    size_t offset = at & (ring->size - 1);
    size_t part = size < ring->size - offset ? size : ring->size - offset;
    memcpy(ring->data + offset, from, part);
    memcpy(ring->data, (const uint8_t *)from + part, size - part);
}

static void copy_out(const struct log_ring *ring, size_t at, void *to, size_t size)
{
    size_t offset = at & (ring->size - 1);
    size_t part = size < ring->size - offset ? size : ring->size - offset;
    memcpy(to, ring->data + offset, part);
    memcpy((uint8_t *)to + part, ring->data, size - part);
}

bool log_ring_write(struct log_ring *ring, struct bytes line)
{
    uint16_t length = (uint16_t)(line.size < LOG_LINE_MAX ? line.size : LOG_LINE_MAX);
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (ring->size - (head - tail) < length + sizeof(length)) {
        atomic_fetch_add_explicit(&ring->dropped, 1, memory_order_relaxed);
        return false;
    }
    copy_in(ring, head, &length, sizeof(length));
    copy_in(ring, head + sizeof(length), line.data, length);
    /* Sequentially consistent, as is the consumer's going to sleep: one of the two sees the other.
     */
    atomic_store(&ring->head, head + sizeof(length) + length);
    if (atomic_load(&ring->is_asleep) && atomic_exchange(&ring->is_asleep, false) &&
        ring->wake != NULL) {
        ring->wake(ring->wake_argument);
    }
    return true;
}

size_t log_ring_read(struct log_ring *ring, uint8_t *out, size_t size)
{
    size_t written = 0;
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    size_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    while (tail != head) {
        uint16_t length = 0;
        copy_out(ring, tail, &length, sizeof(length));
        if (size - written < (size_t)length + 1) {
            break;
        }
        copy_out(ring, tail + sizeof(length), out + written, length);
        written += length;
        out[written++] = '\n';
        tail += sizeof(length) + length;
    }
    atomic_store_explicit(&ring->tail, tail, memory_order_release);
    return written;
}

bool log_ring_sleep(struct log_ring *ring)
{
    atomic_store(&ring->is_asleep, true);
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (atomic_load(&ring->head) == tail) {
        return true;
    }
    atomic_store(&ring->is_asleep, false);
    return false;
}

uint64_t log_ring_dropped(const struct log_ring *ring)
{
    return atomic_load_explicit(&ring->dropped, memory_order_relaxed);
}

enum log_level log_level(void)
{
    return (enum log_level)atomic_load_explicit(&level_in_force, memory_order_relaxed);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_in_force, (int)level, memory_order_relaxed);
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    return names[level];
}

size_t log_timestamp(char *out, size_t size)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm parts;
    gmtime_r(&now.tv_sec, &parts);
    size_t length = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &parts);
    int more = snprintf(out + length, size - length, ".%03ldZ", now.tv_nsec / 1000000);
    return more < 0 ? length : length + (size_t)more;
}

void log_line(struct log_ring *ring, enum log_level level, const char *format, ...)
{
    if (!log_is_on(level)) {
        return;
    }
    char line[LOG_LINE_MAX];
    size_t length = log_timestamp(line, sizeof(line));
    int more = snprintf(line + length, sizeof(line) - length, " level=%s ", log_level_name(level));
    length += more < 0 ? 0 : (size_t)more;
    va_list arguments;
    va_start(arguments, format);
    more = vsnprintf(line + length, sizeof(line) - length, format, arguments);
    va_end(arguments);
    length += more < 0 ? 0 : (size_t)more;
    if (length > sizeof(line) - 1) {
        length = sizeof(line) - 1;
    }
    if (ring != NULL) {
        (void)log_ring_write(ring, bytes_make(line, length)); /* dropped lines are counted there */
        return;
    }
    line[length] = '\n';
    log_write(STDERR_FILENO, bytes_make(line, length + 1));
}

/* Whole lines, as many as POSIX promises room for where POLLOUT is set: a pipe then takes all of
 * them or none, and what is left out is never half a line. */
static struct bytes next_part(struct bytes text)
{
    struct bytes part = bytes_first(text, LOG_LINE_MAX);
    for (size_t size = part.size; size > 0; size--) {
        if (part.data[size - 1] == '\n') {
            return bytes_first(part, size);
        }
    }
    return part;
}

static uint64_t count_lines(struct bytes text)
{
    uint64_t lines = 0;
    while (text.size > 0) {
        bytes_split(&text, '\n');
        lines++;
    }
    return lines;
}

uint64_t log_write(int fd, struct bytes text)
{
    while (text.size > 0) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        if (poll(&wait, 1, 0) <= 0 || (wait.revents & POLLOUT) == 0) {
            return count_lines(text); /* a pipe that nobody reads */
        }
        struct bytes part = next_part(text);
        ssize_t written = write(fd, part.data, part.size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return count_lines(text);
        }
        text = bytes_skip(text, (size_t)written);
    }
    return 0;
}

size_t log_escape(char *out, size_t length, size_t size, struct bytes text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < text.size && length + 4 < size; i++) {
        uint8_t byte = text.data[i];
        if (byte == '"' || byte == '\\') {
            out[length++] = '\\';
            out[length++] = (char)byte;
        } else if (byte < 0x20 || byte > 0x7e) {
            out[length++] = '\\';
            out[length++] = 'x';
            out[length++] = digits[byte >> 4];
            out[length++] = digits[byte & 15];
        } else {
            out[length++] = (char)byte;
        }
    }
    return length;
}

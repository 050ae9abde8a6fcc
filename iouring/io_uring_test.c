/* What only the io_uring back end has: a completion queue that overflows, and reasons to be
 * refused. */
#include "iouring/io_uring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    PAIRS = 200,
    ROUNDS = 20,
    MESSAGE_BYTES = 100,
};

struct pair {
    struct io_socket near;
    struct io_socket far;
    uint64_t received;
    int closed;
};

static void on_far(struct io_socket *socket, uint32_t events)
{
    struct pair *pair = LIST_OWNER(socket, struct pair, far);
    if ((events & IO_EVENT_CLOSED) != 0) {
        pair->closed++;
        return;
    }
    pair->received += socket->received.size;
    buffer_clear(&socket->received);
}

static void on_near(struct io_socket *socket, uint32_t events)
{
    struct pair *pair = LIST_OWNER(socket, struct pair, near);
    pair->closed += (events & IO_EVENT_CLOSED) != 0;
}

static void say_to_all(struct io *io, struct pair pairs[])
{
    static const uint8_t message[MESSAGE_BYTES] = {1};
    for (int i = 0; i < PAIRS; i++) {
        struct buffer buffer = {0};
        cr_assert(
            !error_is(buffer_append(&buffer, io_blocks(io), bytes_make(message, sizeof(message)))));
        cr_assert(!error_is(io_send(&pairs[i].near, &buffer)));
    }
}

static void turn_until_received(struct io *io, const struct pair pairs[], uint64_t bytes)
{
    uint64_t end_ns = io_now_exact(io) + 10 * CLOCK_NS_PER_S;
    for (int i = 0; i < PAIRS; i++) {
        while (pairs[i].received != bytes) {
            cr_assert(!error_is(io_turn(io, end_ns)));
            cr_assert(io_now_exact(io) < end_ns, "pair %d has %lu of %lu bytes", i,
                      (unsigned long)pairs[i].received, (unsigned long)bytes);
        }
    }
}

/* trap: completion queue overflow. */
Test(io_uring, loses_nothing_when_completions_overflow)
{
    struct io_options options = io_options_default();
    options.submission_entries = 128;
    options.completion_entries = 128;
    struct io *io = NULL;
    cr_assert(!error_is(io_create(IO_BACKEND_URING, &options, &io)));
    struct pair *pairs = calloc(PAIRS, sizeof(*pairs));
    cr_assert_not_null(pairs);
    for (int i = 0; i < PAIRS; i++) {
        int fds[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        cr_assert(!error_is(io_socket_adopt(&pairs[i].near, io, fds[0], on_near)));
        cr_assert(!error_is(io_socket_adopt(&pairs[i].far, io, fds[1], on_far)));
        io_receive_grant(&pairs[i].near, 1);
        io_receive_grant(&pairs[i].far, UINT64_C(1) << 20);
    }
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        say_to_all(io, pairs);
        turn_until_received(io, pairs, round * MESSAGE_BYTES);
    }
    cr_expect_gt(io_counters_of(io)->completion_overflows, 0, "the queue was large enough");
    for (int i = 0; i < PAIRS; i++) {
        io_close(&pairs[i].near);
        io_close(&pairs[i].far);
    }
    while (!io_is_idle(io)) {
        cr_assert(!error_is(io_turn(io, io_now_exact(io) + CLOCK_NS_PER_S)));
    }
    for (int i = 0; i < PAIRS; i++) {
        cr_assert_eq(pairs[i].closed, 2);
    }
    io_destroy(io);
    free(pairs);
}

/* ---- refusals ---- */

/* As a container's seccomp profile does. */
static void forbid(uint32_t call, uint32_t answer)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void forbid_io_uring(uint32_t answer)
{
    forbid(SYS_io_uring_setup, answer);
}

static void expect_refusal(enum io_refusal refusal, int error_number)
{
    struct io_probe probe = {0};
    io_probe(&probe);
    cr_assert_eq(probe.refusal, refusal, "refusal %d", (int)probe.refusal);
    cr_assert_eq(probe.error_number, error_number);
    cr_assert_eq(probe.backend, IO_BACKEND_EPOLL);
    cr_assert_neq(probe.reason[0], '\0');
    cr_assert_neq(probe.remedy[0], '\0');

    struct io_options options = io_options_default();
    struct io *io = NULL;
    struct error error = io_create(IO_BACKEND_URING, &options, &io);
    cr_assert(error_is(error));
    cr_assert_null(io);
    cr_assert(!error_is(io_create(IO_BACKEND_AUTO, &options, &io)));
    cr_assert_eq(io_backend_of(io), IO_BACKEND_EPOLL);
    io_destroy(io);
}

Test(io_uring, is_what_the_probe_finds_here)
{
    struct io_probe probe = {0};
    io_probe(&probe);
    cr_assert_eq(probe.backend, IO_BACKEND_URING, "%s", probe.reason);
    cr_assert_eq(probe.refusal, IO_REFUSAL_NONE);
}

Test(io_uring, names_the_seccomp_profile_that_refuses_it)
{
    forbid_io_uring(EPERM);
    expect_refusal(IO_REFUSAL_SECCOMP, EPERM);
}

/* A kernel that has the switch has io_uring: then only a profile answers so. */
Test(io_uring, names_the_kernel_that_lacks_it_unless_that_has_it)
{
    bool has_switch = access("/proc/sys/kernel/io_uring_disabled", F_OK) == 0;
    forbid_io_uring(ENOSYS);
    expect_refusal(has_switch ? IO_REFUSAL_SECCOMP : IO_REFUSAL_KERNEL, ENOSYS);
    cr_assert_eq(io_uring_refusal(EINVAL), IO_REFUSAL_KERNEL);
}

/* The answer -EPERM is -1, which is no sign that errno has the number. */
Test(io_uring, names_the_seccomp_profile_that_refuses_to_enter_a_ring)
{
    forbid(SYS_io_uring_enter, EPERM);
    expect_refusal(IO_REFUSAL_SECCOMP, EPERM);
}

/* Locked memory counts for the user, over all processes: a uid of our own keeps tests apart. */
static void limit_locked_memory(rlim_t bytes)
{
    struct rlimit limit = {bytes, bytes};
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    uid_t uid = 60000 + (uid_t)getpid() % 5000;
    if (geteuid() == 0) {
        cr_assert_eq(setresuid(uid, uid, uid), 0);
    }
}

Test(io_uring, names_the_limit_of_locked_memory)
{
    limit_locked_memory(0);
    expect_refusal(IO_REFUSAL_MEMLOCK, ENOMEM);
}

/* trap: rings count as locked memory; half of a ring may still fit. */
Test(io_uring, takes_a_smaller_ring_when_locked_memory_is_short)
{
    limit_locked_memory(28 << 10);
    struct io_options options = io_options_default();
    struct io *io = NULL;
    struct error error = io_create(IO_BACKEND_URING, &options, &io);
    cr_assert(!error_is(error), "%s", error_text(error.code));
    io_destroy(io);
}

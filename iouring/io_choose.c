/* Which back end: asked for, or the best that works here, with the reason in words. */
#include <errno.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_epoll.h"
#include "iouring/io_uring.h"

enum {
    PROBE_BLOCK_BYTES = 4096,
    PROBE_BLOCK_COUNT = 64,
    PROBE_SUBMISSION_ENTRIES = 64,
    PROBE_COMPLETION_ENTRIES = 256,
};

struct refusal_text {
    const char *reason;
    const char *remedy;
};

static struct refusal_text text_of(enum io_refusal refusal)
{
    switch (refusal) {
    case IO_REFUSAL_NONE:
        return (struct refusal_text){"io_uring works here", "nothing to do"};
    case IO_REFUSAL_SECCOMP:
        return (struct refusal_text){
            "the seccomp profile refuses io_uring",
            "use a Localhost seccomp profile that allows io_uring_setup, io_uring_enter and "
            "io_uring_register"};
    case IO_REFUSAL_SYSCTL:
        return (struct refusal_text){"the sysctl kernel.io_uring_disabled forbids io_uring",
                                     "set kernel.io_uring_disabled=0 on the node"};
    case IO_REFUSAL_KERNEL:
        return (struct refusal_text){
            "the kernel lacks io_uring, multishot receive or buffer rings",
            "run on Linux 6.1 or newer; sandboxed kernels may have no io_uring at all"};
    case IO_REFUSAL_MEMLOCK:
        return (struct refusal_text){
            "the limit of locked memory is used up: no room for a ring of each thread",
            "raise RLIMIT_MEMLOCK, give each pod a uid of its own, or grant CAP_IPC_LOCK"};
    case IO_REFUSAL_ASKED:
        return (struct refusal_text){"epoll was asked for", "start with --io auto"};
    }
    return (struct refusal_text){"unknown", "unknown"};
}

void io_probe_from_error(struct error error, struct io_probe *ret_probe)
{
    enum io_refusal refusal = IO_REFUSAL_NONE;
    if (error_is(error)) {
        refusal = io_uring_refusal(error.detail == 0 ? ENOMEM : error.detail);
    }
    struct refusal_text text = text_of(refusal);
    *ret_probe = (struct io_probe){
        .backend = refusal == IO_REFUSAL_NONE ? IO_BACKEND_URING : IO_BACKEND_EPOLL,
        .refusal = refusal,
        .error_number = error.detail,
        .reason = text.reason,
        .remedy = text.remedy,
    };
}

void io_probe(struct io_probe *ret_probe)
{
    struct io_options options = io_options_default();
    options.block_bytes = PROBE_BLOCK_BYTES;
    options.block_count = PROBE_BLOCK_COUNT;
    options.submission_entries = PROBE_SUBMISSION_ENTRIES;
    options.completion_entries = PROBE_COMPLETION_ENTRIES;
    struct io *io = NULL;
    struct error error = io_create_with(io_uring_driver(), &options, &io);
    io_destroy(io);
    io_probe_from_error(error, ret_probe);
}

struct error io_create(enum io_backend backend, const struct io_options *options,
                       struct io **ret_io)
{
    CHECK(backend != IO_BACKEND_FAKE);
    if (backend == IO_BACKEND_AUTO || backend == IO_BACKEND_URING) {
        struct error error = io_create_with(io_uring_driver(), options, ret_io);
        if (!error_is(error) || backend == IO_BACKEND_URING) {
            return error;
        }
    }
    return io_create_with(io_epoll_driver(), options, ret_io);
}

/*
 * CHECK: an assertion that stays on in release builds, for programmer errors only.
 *
 * It is never used on anything that came from a peer or from configuration: an abort here takes a
 * whole pod's traffic. CHECK_SLOW may walk lists and scan buffers; it is compiled only into the
 * Dev, Asan and Tsan builds.
 */
#pragma once

#include <stddef.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) {                                                   \
            check_failed(#condition, __FILE__, __LINE__, __func__);                                \
        }                                                                                          \
    } while (0)

#ifdef OUTRIGGER_CHECK_SLOW
#define CHECK_SLOW(condition) CHECK(condition)
#else
#define CHECK_SLOW(condition) ((void)0)
#endif

/* Says what the thread was doing; called on a failed CHECK, on the thread that failed, before the
 * abort. */
typedef void (*check_describe_fn)(void *argument);

/* Set, once for each thread, what is printed beside a failed CHECK of that thread (NULL: nothing
 * more). */
void check_describe(check_describe_fn describe, void *argument);

/* Print where and what failed, then the thread's description, and abort. Never returns. */
void check_failed(const char *condition, const char *file, int line, const char *function)
    __attribute__((noreturn, cold));

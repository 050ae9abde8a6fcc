/*
 * Time: nanoseconds as uint64_t. Which clock they are of is said by the name of the function that
 * gave them: io_now() is monotonic and the only clock of deadlines; wall-clock time is for logs and
 * certificates only.
 */
#pragma once

#include <stdint.h>

#define CLOCK_NS_PER_US UINT64_C(1000)
#define CLOCK_NS_PER_MS UINT64_C(1000000)
#define CLOCK_NS_PER_S UINT64_C(1000000000)

/* A deadline that never comes. */
#define CLOCK_NEVER UINT64_MAX

/* `now + span`, saturating at CLOCK_NEVER. */
static inline uint64_t clock_add(uint64_t now_ns, uint64_t span_ns)
{
    return span_ns >= CLOCK_NEVER - now_ns ? CLOCK_NEVER : now_ns + span_ns;
}

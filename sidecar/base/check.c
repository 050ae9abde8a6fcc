/* Failed assertions: one line to standard error, the thread's own description, abort. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static _Thread_local check_describe_fn thread_describe;
static _Thread_local void *thread_argument;

void check_describe(check_describe_fn describe, void *argument)
{
    thread_describe = describe;
    thread_argument = argument;
}

void check_failed(const char *condition, const char *file, int line, const char *function)
{
    fprintf(stderr,
            "level=fatal msg=\"check failed\" check=\"%s\" at=%s:%d function=%s thread=%d\n",
            condition, file, line, function, (int)gettid());
    if (thread_describe != NULL) {
        check_describe_fn describe = thread_describe;
        thread_describe = NULL; /* a CHECK that fails inside the description must not recurse */
        describe(thread_argument);
    }
    abort();
}

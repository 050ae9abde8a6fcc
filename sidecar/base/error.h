/*
 * The one error type: a code and the number behind it, returned by value.
 *
 * Knows no protocol: what a peer is told is a cause (proxy/cause.h). Mistakes in configuration are
 * not errors but diagnostics; the call that found them returns ERROR_CONFIG.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum error_code {
    ERROR_NONE = 0,
    ERROR_OS,        /* detail is errno */
    ERROR_NO_MEMORY, /* the system, an arena's cap or a slab's budget refused */
    ERROR_LIMIT,     /* one of our bounds was reached */
    ERROR_CONFIG,    /* diagnostics say what */
    ERROR_USAGE,     /* command line */
    ERROR_SYNTAX,    /* bytes that do not follow their grammar */
    ERROR_NOT_FOUND,
    ERROR_UNSUPPORTED, /* kernel, library or tool lacks it */
    ERROR_REFUSED,     /* connection refused */
    ERROR_UNREACHABLE, /* no route, network or host down */
    ERROR_TIMED_OUT,
    ERROR_RESET,     /* the peer reset */
    ERROR_TRUNCATED, /* the transport ended without its proper end */
    ERROR_CLOSED,    /* used after its end */
    ERROR_CANCELLED, /* ended by our own side */
    ERROR_PROTOCOL,  /* the peer broke the protocol; detail is the codec's number */
    ERROR_COUNT
};

struct error {
    enum error_code code;
    int32_t detail;
};

_Static_assert(sizeof(struct error) == 8, "an error travels in one register");

#define MUST_USE __attribute__((warn_unused_result))

/* In a signature: this call may fail. Outputs are untouched on failure. */
#define FALLIBLE MUST_USE struct error

/* Return the error of `call` to the caller. The only macro with control flow. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        struct error try_error_ = (call);                                                          \
        if (__builtin_expect(try_error_.code != ERROR_NONE, 0)) {                                  \
            return try_error_;                                                                     \
        }                                                                                          \
    } while (0)

#define OK ((struct error){ERROR_NONE, 0})

static inline struct error error_make(enum error_code code, int32_t detail)
{
    return (struct error){code, detail};
}

/* Is it an error at all? */
static inline bool error_is(struct error error)
{
    return error.code != ERROR_NONE;
}

/* Drop an error on purpose; a comment at the call says why that is right. */
static inline void error_ignore(struct error error)
{
    (void)error;
}

/* The error for an errno value, with the connection errors under their own codes. */
struct error error_from_errno(int number);

/* A short lower-case text for the code ("connection refused"); static storage. */
const char *error_text(enum error_code code);

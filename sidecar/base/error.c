/* Texts of the error codes, and errno to error. */
#include "base/error.h"

#include <errno.h>

struct error error_from_errno(int number)
{
    switch (number) {
    case 0:
        return OK;
    case ENOMEM:
        return error_make(ERROR_NO_MEMORY, number);
    case ECONNREFUSED:
        return error_make(ERROR_REFUSED, number);
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
        return error_make(ERROR_UNREACHABLE, number);
    case ETIMEDOUT:
        return error_make(ERROR_TIMED_OUT, number);
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
        return error_make(ERROR_RESET, number);
    case ECANCELED:
        return error_make(ERROR_CANCELLED, number);
    case EMFILE:
    case ENFILE:
        return error_make(ERROR_LIMIT, number);
    default:
        return error_make(ERROR_OS, number);
    }
}

const char *error_text(enum error_code code)
{
    static const char *const texts[ERROR_COUNT] = {
        [ERROR_NONE] = "no error",
        [ERROR_OS] = "system error",
        [ERROR_NO_MEMORY] = "out of memory",
        [ERROR_LIMIT] = "limit reached",
        [ERROR_CONFIG] = "configuration refused",
        [ERROR_USAGE] = "wrong usage",
        [ERROR_SYNTAX] = "syntax error",
        [ERROR_NOT_FOUND] = "not found",
        [ERROR_UNSUPPORTED] = "not supported",
        [ERROR_REFUSED] = "connection refused",
        [ERROR_UNREACHABLE] = "unreachable",
        [ERROR_TIMED_OUT] = "timed out",
        [ERROR_RESET] = "reset by peer",
        [ERROR_TRUNCATED] = "ended too early",
        [ERROR_CLOSED] = "already closed",
        [ERROR_CANCELLED] = "cancelled",
        [ERROR_PROTOCOL] = "protocol error",
    };
    if ((unsigned)code >= ERROR_COUNT) {
        return "unknown error";
    }
    return texts[code];
}

/* Answers that the proxy itself gives: a status, a short text, proxy-status (RFC 9209); for gRPC a
 * response of trailers only. */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "http/message.h"
#include "proxy/cause.h"

struct reply {
    struct message_head *head;
    struct bytes body; /* empty: the head is all */
};

/* The answer to `request` (NULL: its head never came) for `cause`. Everything in `arena`.
 * Errors: ERROR_NO_MEMORY. */
FALLIBLE reply_make(struct arena *arena, const struct message_head *request, enum cause cause,
                    struct reply *ret_reply);

/* A redirect. Errors: ERROR_NO_MEMORY. */
FALLIBLE reply_make_redirect(struct arena *arena, const struct message_head *request,
                             uint16_t status, struct bytes location, struct reply *ret_reply);

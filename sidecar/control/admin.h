/*
 * The admin socket: HTTP/1.1 on a unix socket, one table of commands (contract section 3). JSON by
 * default, text for people with `Accept: text/plain`. Changing state is POST only.
 */
#pragma once

#include "control/control.h"

/* Handles one request; `owner` is the struct control. */
void admin_handle(struct server_call *call, const struct message_head *head, void *owner);

/* A load that POST /reload asked for is decided: `argument` is what the command gave to
 * builder_ask. */
void admin_reload_done(struct control *control, void *argument,
                       const struct builder_result *result);

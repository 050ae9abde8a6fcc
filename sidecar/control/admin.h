/*
 * The admin socket: HTTP/1.1 on a unix socket, one table of commands (contract section 3). JSON by
 * default, text for people with `Accept: text/plain`. Changing state is POST only.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "control/control.h"

/*
 * Make the listening socket at `path`: mode 0600, or 0660 with `group`; missing directories are
 * made (0755). A file that is there is removed only when it is a socket to which nobody listens.
 * Errors: ERROR_OS; `reason` says which and why.
 */
FALLIBLE admin_listen(const char *path, const char *group, int *ret_fd, char *reason, size_t size);

/* Is the peer root or our own user (SO_PEERCRED)? */
bool admin_is_allowed(int fd);

/* Handles one request; `owner` is the struct control. */
void admin_handle(struct server_call *call, const struct message_head *head, void *owner);

/* A load that POST /reload asked for is decided: `argument` is what the command gave to
 * builder_ask. */
void admin_reload_done(struct control *control, void *argument,
                       const struct builder_result *result);

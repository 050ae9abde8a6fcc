/*
 * The admin socket as a file: where it is, who may use it (reliability.md I).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/*
 * Make the listening socket at `path`: mode 0600, or 0660 with `group`; missing directories are
 * made (0755). A file that is there is removed only when it is a socket to which nobody listens.
 * Errors: ERROR_OS, ERROR_NOT_FOUND (the group); `reason` (size bytes) says which call and why.
 */
FALLIBLE admin_socket_open(const char *path, const char *group, int *ret_fd, char *reason,
                           size_t size);

/* Is the peer of an accepted connection root or our own user (SO_PEERCRED)? */
bool admin_socket_is_allowed(int fd);

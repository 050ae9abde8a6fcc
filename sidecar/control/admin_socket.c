/* The admin socket's file: made with the narrowest mode, found dead and replaced, never anybody
 * else's. */
#include "control/admin_socket.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    ALIVE_TRIES = 30, /* 10 ms apart */
};

bool admin_socket_is_allowed(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static struct error fail(const char *what, int number, char *reason, size_t size)
{
    snprintf(reason, size, "%s: %s", what, strerror(number));
    return error_make(ERROR_OS, number);
}

/* Make the directories of `path` that are missing. */
static struct error make_directories(const char *path, char *reason, size_t size)
{
    char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
    snprintf(directory, sizeof(directory), "%s", path);
    for (char *at = strchr(directory + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
            int number = errno;
            snprintf(reason, size, "cannot make the directory %s: %s", directory, strerror(number));
            return error_make(ERROR_OS, number);
        }
        *at = '/';
    }
    return OK;
}

/* Does somebody listen there? */
static bool is_alive(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_connected =
        fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
    bool is_full = fd >= 0 && !is_connected && errno == EAGAIN;
    if (fd >= 0) {
        close(fd);
    }
    return is_connected || is_full;
}

/*
 * Remove what a dead process of ours left; anything else stays. The socket of one that was killed a
 * moment ago answers until the kernel has taken its ring apart, so "alive" is believed only when it
 * lasts.
 */
static struct error clear_path(const struct sockaddr_un *address, char *reason, size_t size)
{
    static const struct timespec pause = {.tv_nsec = 10000000};
    struct stat info;
    if (lstat(address->sun_path, &info) != 0) {
        return errno == ENOENT ? OK : fail("lstat", errno, reason, size);
    }
    if (!S_ISSOCK(info.st_mode)) {
        snprintf(reason, size, "there is a file at this path that is no socket");
        return error_make(ERROR_OS, EEXIST);
    }
    for (int tries = 0; is_alive(address); tries++) {
        if (tries == ALIVE_TRIES) {
            snprintf(reason, size, "another process listens at this path");
            return error_make(ERROR_OS, EADDRINUSE);
        }
        nanosleep(&pause, NULL);
    }
    return unlink(address->sun_path) == 0 || errno == ENOENT ? OK
                                                             : fail("unlink", errno, reason, size);
}

static struct error set_group(const char *path, const char *group, char *reason, size_t size)
{
    if (group == NULL) {
        return OK;
    }
    const struct group *entry = getgrnam(group);
    if (entry == NULL) {
        snprintf(reason, size, "no such group: %s", group);
        return error_make(ERROR_NOT_FOUND, ENOENT);
    }
    if (chown(path, (uid_t)-1, entry->gr_gid) != 0 || chmod(path, 0660) != 0) {
        return fail("chown", errno, reason, size);
    }
    return OK;
}

struct error admin_socket_open(const char *path, const char *group, int *ret_fd, char *reason,
                               size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        snprintf(reason, size, "the path is longer than %zu bytes", sizeof(address.sun_path) - 1);
        return error_make(ERROR_OS, ENAMETOOLONG);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    TRY(make_directories(path, reason, size));
    TRY(clear_path(&address, reason, size));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return fail("socket", errno, reason, size);
    }
    mode_t mask = umask(0177); /* never wider than 0600, not even for a moment */
    int bound = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    int number = errno;
    umask(mask);
    struct error error =
        bound == 0 ? set_group(path, group, reason, size) : fail("bind", number, reason, size);
    if (!error_is(error) && listen(fd, 16) != 0) {
        error = fail("listen", errno, reason, size);
    }
    if (error_is(error)) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return OK;
}

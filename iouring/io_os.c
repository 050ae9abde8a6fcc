/* Plain system calls of both back ends. */
#include "iouring/io_os.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "iouring/io_driver.h"

enum {
    BACKLOG_DEFAULT = 4096,
};

static struct error last_error(void)
{
    return error_from_errno(errno);
}

static bool set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

static struct error bind_to(int fd, const struct address *address)
{
    struct sockaddr_storage storage;
    socklen_t size = address_to_sockaddr(address, &storage);
    return bind(fd, (const struct sockaddr *)&storage, size) == 0 ? OK : last_error();
}

/*
 * A connection that stays inside this host has no bottleneck to find. BBR, the default of many
 * nodes, paces it all the same, with a timer for every burst: over a third of the CPU of a bulk
 * transfer on a virtual machine, where setting a timer leaves the guest. Reno is in every kernel
 * and open to everybody. What was set on a listener is inherited by the connections that it
 * accepts.
 */
static void skip_pacing(int fd)
{
    static const char name[] = "reno";
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, sizeof(name) - 1);
}

static bool is_inside_host(const struct io *io, const struct address *address)
{
    bool is_own = address_is_loopback(address);
    for (uint32_t i = 0; !is_own && i < io->options.own_addresses_count; i++) {
        is_own = address_equal_ip(&io->options.own_addresses[i], address);
    }
    return is_own;
}

static int domain_of(const struct address *address)
{
    switch (address->family) {
    case ADDRESS_IPV4:
        return AF_INET;
    case ADDRESS_IPV6:
        return AF_INET6;
    case ADDRESS_UNIX:
        return AF_UNIX;
    default:
        return -1;
    }
}

static struct error prepare(const struct io *io, int fd, const struct address *remote,
                            const struct address *local)
{
    if (remote->family != ADDRESS_UNIX && !set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)) {
        return last_error();
    }
    if (is_inside_host(io, remote)) {
        skip_pacing(fd);
    }
    if (local == NULL || local->family == ADDRESS_NONE) {
        return OK;
    }
    if (local->port == 0 && local->family != ADDRESS_UNIX) {
        /* The port is chosen at connect, when the whole four-tuple must be unique, not the port. */
        (void)set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    }
    return bind_to(fd, local);
}

struct error io_os_socket(struct io *io, const struct address *remote, const struct address *local,
                          int *ret_fd)
{
    int fd = socket(domain_of(remote), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return last_error();
    }
    struct error error = prepare(io, fd, remote, local);
    if (error_is(error)) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return OK;
}

struct error io_os_adopt(struct io_socket *socket)
{
    /* One call for the usual case: only TCP takes this option. */
    if (set_option(socket->fd, IPPROTO_TCP, TCP_NODELAY, 1)) {
        return OK;
    }
    int type = 0;
    socklen_t size = sizeof(type);
    if (getsockopt(socket->fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
        return last_error();
    }
    return type == SOCK_STREAM ? OK : error_make(ERROR_OS, ESOCKTNOSUPPORT);
}

struct error io_os_address(const struct io_socket *socket, enum io_address_kind kind,
                           struct address *ret_address)
{
    switch (kind) {
    case IO_ADDRESS_LOCAL:
        return address_of_local(socket->fd, ret_address);
    case IO_ADDRESS_PEER:
        return address_of_peer(socket->fd, ret_address);
    case IO_ADDRESS_ORIGINAL:
        return address_of_original(socket->fd, ret_address);
    }
    return error_make(ERROR_NOT_FOUND, 0);
}

void io_os_shut_down(int fd, bool is_reset)
{
    if (!is_reset) {
        (void)shutdown(fd, SHUT_RDWR); /* ENOTCONN: the peer was first */
        return;
    }
    /* No shutdown: its FIN would tell the peer that all is well before the RST says otherwise. */
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void io_os_discard(struct io *io, int fd)
{
    (void)io;
    io_os_shut_down(fd, true);
    close(fd);
}

bool io_os_is_send_unannounced(int fd)
{
    int unacknowledged = 0;
    return ioctl(fd, SIOCOUTQ, &unacknowledged) == 0 && unacknowledged == 0;
}

bool io_os_is_end_a_reset(const struct io_socket *socket)
{
    if (socket->send_queue.size == 0 || socket->send_state != IO_DIRECTION_OPEN) {
        return false; /* no send was under way that could have taken an error */
    }
    struct tcp_info info;
    socklen_t size = sizeof(info);
    return getsockopt(socket->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_state == TCP_CLOSE;
}

int io_os_take_error(struct io_socket *socket)
{
    int number = 0;
    socklen_t size = sizeof(number);
    return getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &number, &size) == 0 ? number : errno;
}

bool io_os_has_unread(const struct io_socket *socket)
{
    int bytes = 0;
    return ioctl(socket->fd, SIOCINQ, &bytes) == 0 && bytes > 0;
}

uint64_t io_os_now(const struct io *io)
{
    (void)io;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
}

static struct error set_up_listener(int fd, const struct io_listen_options *options)
{
    bool is_inet = options->address.family != ADDRESS_UNIX;
    if (is_inet &&
        !(set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) &&
          set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1))) { /* inherited by accepted ones */
        return last_error();
    }
    if (address_is_loopback(&options->address)) {
        skip_pacing(fd);
    }
    if (options->address.family == ADDRESS_IPV6 &&
        !set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, options->is_v6_only)) {
        return last_error();
    }
    if (options->is_reuse_port && !set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1)) {
        return last_error();
    }
    if (options->is_transparent) {
        bool is_set = options->address.family == ADDRESS_IPV6
                          ? set_option(fd, SOL_IPV6, IPV6_TRANSPARENT, 1)
                          : set_option(fd, SOL_IP, IP_TRANSPARENT, 1);
        if (!is_set) {
            return last_error();
        }
    }
    TRY(bind_to(fd, &options->address));
    int backlog = options->backlog == 0 ? BACKLOG_DEFAULT : options->backlog;
    return listen(fd, backlog) == 0 ? OK : last_error();
}

struct error io_listen_socket(const struct io_listen_options *options, int *ret_fd)
{
    int fd = socket(domain_of(&options->address), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return last_error();
    }
    struct error error = set_up_listener(fd, options);
    if (error_is(error)) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return OK;
}

/*
 * A readable watch and recvmmsg: UDP here is DNS and the like, where one poll and one call for a
 * batch cost less than they are worth replacing by ring ops with address buffers.
 */
#include "iouring/datagram.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "iouring/io_driver.h"
#include "iouring/io_os.h"

enum {
    CONTROL_BYTES = 128, /* more than one address needs */
    IPV6_DESTINATION =
        74, /* IPV6_ORIGDSTADDR and IPV6_RECVORIGDSTADDR, which glibc only half names */
};

/* One batch on its way in; one for each thread, made when its first datagram socket opens. */
struct io_packet_memory {
    struct mmsghdr messages[IO_PACKETS_A_TURN];
    struct iovec vectors[IO_PACKETS_A_TURN];
    struct sockaddr_storage peers[IO_PACKETS_A_TURN];

    _Alignas(struct cmsghdr) uint8_t controls[IO_PACKETS_A_TURN][CONTROL_BYTES];

    uint8_t payloads[IO_PACKETS_A_TURN][IO_PACKET_BYTES_MAX + 1]; /* touched only where used */
};

static bool set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

static struct error set_up(int fd, const struct io_datagram_options *options)
{
    bool is_v6 = options->local.family == ADDRESS_IPV6;
    bool is_set = is_v6 ? set_option(fd, SOL_IPV6, IPV6_V6ONLY, 1) &&
                              set_option(fd, SOL_IPV6, IPV6_DESTINATION, 1)
                        : set_option(fd, SOL_IP, IP_RECVORIGDSTADDR, 1);
    if (is_set && options->is_transparent) {
        is_set = is_v6 ? set_option(fd, SOL_IPV6, IPV6_TRANSPARENT, 1)
                       : set_option(fd, SOL_IP, IP_TRANSPARENT, 1);
    }
    if (is_set && options->is_reuse_address) {
        is_set = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    struct sockaddr_storage storage;
    socklen_t size = address_to_sockaddr(&options->local, &storage);
    if (!is_set || bind(fd, (const struct sockaddr *)&storage, size) != 0) {
        return error_from_errno(errno);
    }
    return OK;
}

struct error io_datagram_socket(const struct io_datagram_options *options, int *ret_fd)
{
    bool is_v6 = options->local.family == ADDRESS_IPV6;
    if (!is_v6 && options->local.family != ADDRESS_IPV4) {
        return error_make(ERROR_OS, EAFNOSUPPORT);
    }
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    struct error error = set_up(fd, options);
    if (error_is(error)) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return OK;
}

static void on_readable(struct io_watch *watch)
{
    struct io_datagram *datagram = LIST_OWNER(watch, struct io_datagram, watch);
    struct io_packet packets[IO_PACKETS_A_TURN];
    uint32_t count = datagram->io->driver->datagram_receive(datagram, packets);
    for (uint32_t i = 0; i < count && !datagram->is_closing; i++) {
        datagram->on_packet(datagram, &packets[i]);
    }
}

static void on_watch_closed(struct io_watch *watch)
{
    struct io_datagram *datagram = LIST_OWNER(watch, struct io_datagram, watch);
    datagram->io->driver->datagram_close(datagram);
    datagram->fd = -1;
    datagram->on_closed(datagram);
}

struct error io_datagram_open(struct io_datagram *datagram, struct io *io, int fd,
                              void (*on_packet)(struct io_datagram *datagram,
                                                const struct io_packet *packet),
                              void (*on_closed)(struct io_datagram *datagram))
{
    if (io->packet_memory == NULL) {
        io->packet_memory = malloc(sizeof(*io->packet_memory));
        if (io->packet_memory == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
    }
    *datagram =
        (struct io_datagram){.io = io, .fd = fd, .on_packet = on_packet, .on_closed = on_closed};
    io_watch_open(&datagram->watch, io, fd, on_readable, on_watch_closed);
    return OK;
}

struct error io_datagram_send(struct io_datagram *datagram, const struct address *peer,
                              const struct address *local, struct bytes payload)
{
    CHECK(!datagram->is_closing);
    return datagram->io->driver->datagram_send(datagram, peer, local, payload);
}

void io_datagram_close(struct io_datagram *datagram)
{
    CHECK(!datagram->is_closing);
    datagram->is_closing = true;
    io_watch_close(&datagram->watch);
}

/* ---- on real sockets ---- */

/* Where the datagram was sent to. */
static bool find_local(struct msghdr *message, struct address *ret_local)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control != NULL;
         control = CMSG_NXTHDR(message, control)) {
        bool is_v4 = control->cmsg_level == SOL_IP && control->cmsg_type == IP_ORIGDSTADDR;
        bool is_v6 = control->cmsg_level == SOL_IPV6 && control->cmsg_type == IPV6_DESTINATION;
        if (is_v4 || is_v6) {
            struct sockaddr_storage storage = {0};
            size_t size = control->cmsg_len - CMSG_LEN(0);
            memcpy(&storage, CMSG_DATA(control), size < sizeof(storage) ? size : sizeof(storage));
            return !error_is(address_from_sockaddr((const struct sockaddr *)&storage,
                                                   (socklen_t)size, ret_local));
        }
    }
    return false;
}

uint32_t io_os_datagram_receive(struct io_datagram *datagram, struct io_packet *packets)
{
    struct io_packet_memory *memory = datagram->io->packet_memory;
    for (uint32_t i = 0; i < IO_PACKETS_A_TURN; i++) {
        memory->vectors[i] =
            (struct iovec){.iov_base = memory->payloads[i], .iov_len = sizeof(memory->payloads[i])};
        memory->messages[i].msg_hdr =
            (struct msghdr){.msg_name = &memory->peers[i],
                            .msg_namelen = sizeof(memory->peers[i]),
                            .msg_iov = &memory->vectors[i],
                            .msg_iovlen = 1,
                            .msg_control = memory->controls[i],
                            .msg_controllen = sizeof(memory->controls[i])};
    }
    int got = recvmmsg(datagram->fd, memory->messages, IO_PACKETS_A_TURN, MSG_DONTWAIT, NULL);
    uint32_t count = 0;
    for (int i = 0; i < got; i++) { /* -1: nothing, or an ICMP error of an earlier datagram */
        struct msghdr *message = &memory->messages[i].msg_hdr;
        struct io_packet packet = {
            .payload = bytes_make(memory->payloads[i], memory->messages[i].msg_len)};
        if (find_local(message, &packet.local) &&
            !error_is(address_from_sockaddr((const struct sockaddr *)&memory->peers[i],
                                            message->msg_namelen, &packet.peer))) {
            packets[count++] = packet;
        }
    }
    return count;
}

/* The source address, as a control message. */
static void set_source(struct msghdr *message, struct cmsghdr *control, const struct address *local)
{
    message->msg_control = control;
    if (local->family == ADDRESS_IPV4) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, local->ip, 4);
        *control = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(info)), .cmsg_level = SOL_IP, .cmsg_type = IP_PKTINFO};
        memcpy(CMSG_DATA(control), &info, sizeof(info));
        message->msg_controllen = CMSG_SPACE(sizeof(info));
        return;
    }
    struct in6_pktinfo info = {.ipi6_ifindex = local->scope_id};
    memcpy(&info.ipi6_addr, local->ip, 16);
    *control = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(info)), .cmsg_level = SOL_IPV6, .cmsg_type = IPV6_PKTINFO};
    memcpy(CMSG_DATA(control), &info, sizeof(info));
    message->msg_controllen = CMSG_SPACE(sizeof(info));
}

struct error io_os_datagram_send(struct io_datagram *datagram, const struct address *peer,
                                 const struct address *local, struct bytes payload)
{
    struct sockaddr_storage storage;
    struct iovec vector = {.iov_len = payload.size};
    memcpy(&vector.iov_base, &payload.data, sizeof(vector.iov_base)); /* only read from */
    struct msghdr message = {
        .msg_name = &storage,
        .msg_namelen = address_to_sockaddr(peer, &storage),
        .msg_iov = &vector,
        .msg_iovlen = 1,
    };

    _Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES] = {0};

    if (local != NULL) {
        set_source(&message, (struct cmsghdr *)(void *)control, local);
    }
    if (sendmsg(datagram->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
        return OK;
    }
    bool is_full = errno == EAGAIN || errno == ENOBUFS;
    return is_full ? error_make(ERROR_LIMIT, errno) : error_from_errno(errno);
}

void io_os_datagram_close(struct io_datagram *datagram)
{
    close(datagram->fd);
}

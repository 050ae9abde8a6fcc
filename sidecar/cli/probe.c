/* Dials an address that nobody has; only the redirection can make that connection arrive. */
#include "cli/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_MS 1000

/* The option has the number of IPv4's SO_ORIGINAL_DST; its own header clashes with libc's. */
#define IP6T_SO_ORIGINAL_DST 80

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t fill_address(enum redirection_family family, const char *text, uint16_t port,
                              union address *ret_address)
{
    *ret_address = (union address){0};
    if (family == REDIRECTION_FAMILY_IPV6) {
        ret_address->v6.sin6_family = AF_INET6;
        ret_address->v6.sin6_port = htons(port);
        inet_pton(AF_INET6, text, &ret_address->v6.sin6_addr);
        return sizeof(ret_address->v6);
    }
    ret_address->v4.sin_family = AF_INET;
    ret_address->v4.sin_port = htons(port);
    inet_pton(AF_INET, text, &ret_address->v4.sin_addr);
    return sizeof(ret_address->v4);
}

/* Is the original destination of this accepted connection the address that was dialled? */
static bool is_redirected_from(int fd, enum redirection_family family, const union address *dialled)
{
    union address original = {0};
    socklen_t size = sizeof(original);
    if (family == REDIRECTION_FAMILY_IPV6) {
        return getsockopt(fd, IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, &original, &size) == 0 &&
               memcmp(&original.v6.sin6_addr, &dialled->v6.sin6_addr,
                      sizeof(original.v6.sin6_addr)) == 0;
    }
    return getsockopt(fd, IPPROTO_IP, SO_ORIGINAL_DST, &original, &size) == 0 &&
           original.v4.sin_addr.s_addr == dialled->v4.sin_addr.s_addr;
}

static enum probe_result dial_probe(int listener, enum redirection_family family, uint16_t port)
{
    union address address;
    socklen_t size = fill_address(
        family, family == REDIRECTION_FAMILY_IPV6 ? REDIRECTION_PROBE_IPV6 : REDIRECTION_PROBE_IPV4,
        port, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return PROBE_SKIPPED;
    }
    enum probe_result result = PROBE_FAILED;
    struct pollfd waiting = {.fd = listener, .events = POLLIN};
    if (connect(fd, &address.any, size) < 0 && errno != EINPROGRESS) {
        /* Without a route nothing can be dialled, so nothing can escape either. */
        result = errno == ENETUNREACH || errno == EHOSTUNREACH || errno == EADDRNOTAVAIL
                     ? PROBE_SKIPPED
                     : PROBE_FAILED;
    } else if (poll(&waiting, 1, TIMEOUT_MS) == 1) {
        int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (accepted >= 0) {
            result = is_redirected_from(accepted, family, &address) ? PROBE_PASSED : PROBE_FAILED;
            close(accepted);
        }
    }
    close(fd);
    return result;
}

enum probe_result probe_dial(enum redirection_family family, uint16_t port)
{
    union address address;
    bool is_ipv6 = family == REDIRECTION_FAMILY_IPV6;
    socklen_t size = fill_address(family, is_ipv6 ? "::1" : "127.0.0.1", port, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return PROBE_SKIPPED;
    }
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    enum probe_result result = PROBE_SKIPPED;
    /* A bind that fails is the running proxy: its own self-test answers in /healthz/ready. */
    if (bind(fd, &address.any, size) == 0 && listen(fd, 1) == 0) {
        result = dial_probe(fd, family, port);
    }
    close(fd);
    return result;
}

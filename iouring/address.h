/*
 * Socket addresses: IPv4, IPv6 and unix paths; parse, print, compare, hash.
 * IPv4-mapped IPv6 addresses are turned into IPv4 wherever an address enters.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/bytes.h"
#include "base/error.h"

enum address_family {
    ADDRESS_NONE,
    ADDRESS_IPV4,
    ADDRESS_IPV6,
    ADDRESS_UNIX,
};

/* By value; compare with address_equal only. */
struct address {
    uint8_t family;    /* enum address_family */
    uint8_t path_size; /* ADDRESS_UNIX: bytes of `path` */
    uint16_t port;     /* host order */
    uint32_t scope_id; /* IPv6 link-local */

    union {
        uint8_t ip[16]; /* network order; the first 4 for IPv4 */
        char path[108]; /* not NUL-terminated by promise */
    };
};

enum {
    ADDRESS_TEXT_MAX = 128, /* "[ffff:...%4294967295]:65535" and unix paths, with the NUL */
};

/* Parse "1.2.3.4", "fd00::1", without port or brackets. Errors: ERROR_SYNTAX. */
FALLIBLE address_parse_ip(struct bytes text, uint16_t port, struct address *ret_address);

/* Parse "1.2.3.4:80", "[fd00::1]:80", "unix:/path". Errors: ERROR_SYNTAX. */
FALLIBLE address_parse(struct bytes text, struct address *ret_address);

/* From the kernel's form. Errors: ERROR_UNSUPPORTED for other families. */
FALLIBLE address_from_sockaddr(const struct sockaddr *sockaddr, socklen_t size,
                               struct address *ret_address);

/* To the kernel's form; returns its size. */
socklen_t address_to_sockaddr(const struct address *address, struct sockaddr_storage *ret_sockaddr);

/* "1.2.3.4:80", "[fd00::1]:80", "unix:/path" into `text` (ADDRESS_TEXT_MAX bytes), NUL-terminated;
 * returns the length. */
size_t address_print(const struct address *address, char *text);

/* The same without the port and without brackets. */
size_t address_print_ip(const struct address *address, char *text);

/* Same family and address, and the same port; without the port. */
bool address_equal(const struct address *a, const struct address *b);
bool address_equal_ip(const struct address *a, const struct address *b);

/* Hash of family, address and port. */
uint64_t address_hash(const struct address *address);

/* 127.0.0.0/8 or ::1. */
bool address_is_loopback(const struct address *address);

/*
 * Of the open socket `fd`: its own address, its peer's, and the destination that it had before
 * packet redirection (SO_ORIGINAL_DST). Errors: ERROR_NOT_FOUND (not connected; not redirected),
 * ERROR_UNSUPPORTED, ERROR_OS.
 */
FALLIBLE address_of_local(int fd, struct address *ret_address);
FALLIBLE address_of_peer(int fd, struct address *ret_address);
FALLIBLE address_of_original(int fd, struct address *ret_address);

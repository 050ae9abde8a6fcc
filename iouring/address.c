/*
 * Socket addresses. The one idea: an IPv4-mapped IPv6 address never exists inside the program, so
 * that a ClusterIP compares equal whichever socket it came through.
 */
#include "iouring/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"

enum {
    SOCKET_OPTION_ORIGINAL = 80, /* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, of netfilter */
    IP_TEXT_MAX = INET6_ADDRSTRLEN,
};

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* An IPv6 address, or the IPv4 address that is mapped into it. */
static struct address from_ip6(const uint8_t *ip, uint16_t port, uint32_t scope_id)
{
    struct address address = {.port = port};
    if (memcmp(ip, mapped_prefix, sizeof(mapped_prefix)) == 0) {
        address.family = ADDRESS_IPV4;
        memcpy(address.ip, ip + sizeof(mapped_prefix), 4);
    } else {
        address.family = ADDRESS_IPV6;
        address.scope_id = scope_id;
        memcpy(address.ip, ip, 16);
    }
    return address;
}

struct error address_parse_ip(struct bytes text, uint16_t port, struct address *ret_address)
{
    struct bytes scope = text;
    struct bytes ip_text = bytes_split(&scope, '%');
    bool has_scope = ip_text.size < text.size;
    char copy[IP_TEXT_MAX];
    if (ip_text.size == 0 || ip_text.size >= sizeof(copy) ||
        memchr(ip_text.data, 0, ip_text.size) != NULL) {
        return error_make(ERROR_SYNTAX, 0);
    }
    memcpy(copy, ip_text.data, ip_text.size);
    copy[ip_text.size] = 0;

    uint8_t ip[16];
    if (inet_pton(AF_INET, copy, ip) == 1) {
        if (has_scope) {
            return error_make(ERROR_SYNTAX, 0);
        }
        struct address address = {.family = ADDRESS_IPV4, .port = port};
        memcpy(address.ip, ip, 4);
        *ret_address = address;
        return OK;
    }
    uint64_t scope_id = 0;
    if (has_scope && error_is(bytes_parse_decimal(scope, UINT32_MAX, &scope_id))) {
        return error_make(ERROR_SYNTAX, 0);
    }
    if (inet_pton(AF_INET6, copy, ip) != 1) {
        return error_make(ERROR_SYNTAX, 0);
    }
    *ret_address = from_ip6(ip, port, (uint32_t)scope_id);
    return OK;
}

static struct error parse_unix(struct bytes path, struct address *ret_address)
{
    struct address address = {.family = ADDRESS_UNIX, .path_size = (uint8_t)path.size};
    /* The kernel wants room for the NUL behind the path. */
    if (path.size == 0 || path.size >= sizeof(address.path) || bytes_find(path, 0) != path.size) {
        return error_make(ERROR_SYNTAX, 0);
    }
    memcpy(address.path, path.data, path.size);
    *ret_address = address;
    return OK;
}

struct error address_parse(struct bytes text, struct address *ret_address)
{
    struct bytes unix_prefix = BYTES("unix:");
    if (bytes_starts_with(text, unix_prefix)) {
        return parse_unix(bytes_skip(text, unix_prefix.size), ret_address);
    }
    bool is_bracketed = bytes_starts_with(text, BYTES("["));
    struct bytes rest = is_bracketed ? bytes_skip(text, 1) : text;
    struct bytes ip = bytes_split(&rest, is_bracketed ? ']' : ':');
    if (is_bracketed) {
        if (!bytes_starts_with(rest, BYTES(":"))) {
            return error_make(ERROR_SYNTAX, 0);
        }
        rest = bytes_skip(rest, 1);
    }
    uint64_t port = 0;
    if (error_is(bytes_parse_decimal(rest, UINT16_MAX, &port))) {
        return error_make(ERROR_SYNTAX, 0);
    }
    /* Brackets are IPv6 and nothing else is: "::1:80" would have two meanings. */
    if (is_bracketed != (bytes_find(ip, ':') < ip.size)) {
        return error_make(ERROR_SYNTAX, 0);
    }
    return address_parse_ip(ip, (uint16_t)port, ret_address);
}

static struct error from_unix(const struct sockaddr *sockaddr, socklen_t size,
                              struct address *ret_address)
{
    struct sockaddr_un form = {0};
    memcpy(&form, sockaddr, size < sizeof(form) ? size : sizeof(form));
    struct address address = {.family = ADDRESS_UNIX};
    size_t path_size = size - offsetof(struct sockaddr_un, sun_path);
    if (path_size > sizeof(address.path)) {
        path_size = sizeof(address.path);
    }
    if (path_size > 0 && form.sun_path[0] != 0) {
        path_size = strnlen(form.sun_path, path_size); /* an abstract name may hold NULs */
    }
    address.path_size = (uint8_t)path_size;
    memcpy(address.path, form.sun_path, path_size);
    *ret_address = address;
    return OK;
}

struct error address_from_sockaddr(const struct sockaddr *sockaddr, socklen_t size,
                                   struct address *ret_address)
{
    if (size < sizeof(sockaddr->sa_family)) {
        return error_make(ERROR_UNSUPPORTED, 0);
    }
    if (sockaddr->sa_family == AF_INET && size >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in form;
        memcpy(&form, sockaddr, sizeof(form));
        struct address address = {.family = ADDRESS_IPV4, .port = ntohs(form.sin_port)};
        memcpy(address.ip, &form.sin_addr, 4);
        *ret_address = address;
        return OK;
    }
    if (sockaddr->sa_family == AF_INET6 && size >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 form;
        memcpy(&form, sockaddr, sizeof(form));
        *ret_address = from_ip6(form.sin6_addr.s6_addr, ntohs(form.sin6_port), form.sin6_scope_id);
        return OK;
    }
    if (sockaddr->sa_family == AF_UNIX) {
        return from_unix(sockaddr, size, ret_address);
    }
    return error_make(ERROR_UNSUPPORTED, sockaddr->sa_family);
}

socklen_t address_to_sockaddr(const struct address *address, struct sockaddr_storage *ret_sockaddr)
{
    *ret_sockaddr = (struct sockaddr_storage){0};
    switch ((enum address_family)address->family) {
    case ADDRESS_IPV4: {
        struct sockaddr_in form = {.sin_family = AF_INET, .sin_port = htons(address->port)};
        memcpy(&form.sin_addr, address->ip, 4);
        memcpy(ret_sockaddr, &form, sizeof(form));
        return sizeof(form);
    }
    case ADDRESS_IPV6: {
        struct sockaddr_in6 form = {.sin6_family = AF_INET6,
                                    .sin6_port = htons(address->port),
                                    .sin6_scope_id = address->scope_id};
        memcpy(&form.sin6_addr, address->ip, 16);
        memcpy(ret_sockaddr, &form, sizeof(form));
        return sizeof(form);
    }
    case ADDRESS_UNIX: {
        struct sockaddr_un form = {.sun_family = AF_UNIX};
        memcpy(form.sun_path, address->path, address->path_size);
        memcpy(ret_sockaddr, &form, sizeof(form));
        bool is_abstract = address->path_size > 0 && address->path[0] == 0;
        bool has_end =
            !is_abstract && address->path_size > 0 && address->path_size < sizeof(form.sun_path);
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + address->path_size + has_end);
    }
    case ADDRESS_NONE:
        break;
    }
    CHECK(address->family == ADDRESS_NONE);
    return sizeof(sa_family_t);
}

/* The path with bytes that would break a line of log replaced; an abstract name begins with '@'. */
static size_t print_path(const struct address *address, char *text)
{
    for (size_t i = 0; i < address->path_size; i++) {
        char byte = address->path[i];
        text[i] = byte > ' ' && byte < 0x7f ? byte : (i == 0 && byte == 0 ? '@' : '?');
    }
    text[address->path_size] = 0;
    return address->path_size;
}

size_t address_print_ip(const struct address *address, char *text)
{
    text[0] = 0;
    if (address->family == ADDRESS_UNIX) {
        return print_path(address, text);
    }
    if (address->family == ADDRESS_NONE) {
        return 0;
    }
    bool is_ipv4 = address->family == ADDRESS_IPV4;
    inet_ntop(is_ipv4 ? AF_INET : AF_INET6, address->ip, text, ADDRESS_TEXT_MAX);
    size_t size = strlen(text);
    if (!is_ipv4 && address->scope_id != 0) {
        size += (size_t)snprintf(text + size, ADDRESS_TEXT_MAX - size, "%%%u", address->scope_id);
    }
    return size;
}

size_t address_print(const struct address *address, char *text)
{
    char name[ADDRESS_TEXT_MAX];
    address_print_ip(address, name);
    int size = 0;
    switch ((enum address_family)address->family) {
    case ADDRESS_IPV4:
        size = snprintf(text, ADDRESS_TEXT_MAX, "%.64s:%u", name, address->port);
        break;
    case ADDRESS_IPV6:
        size = snprintf(text, ADDRESS_TEXT_MAX, "[%.64s]:%u", name, address->port);
        break;
    case ADDRESS_UNIX:
        size = snprintf(text, ADDRESS_TEXT_MAX, "unix:%.108s", name);
        break;
    case ADDRESS_NONE:
        text[0] = 0;
        break;
    }
    CHECK(size >= 0 && size < ADDRESS_TEXT_MAX);
    return (size_t)size;
}

bool address_equal_ip(const struct address *a, const struct address *b)
{
    if (a->family != b->family) {
        return false;
    }
    switch ((enum address_family)a->family) {
    case ADDRESS_IPV4:
        return memcmp(a->ip, b->ip, 4) == 0;
    case ADDRESS_IPV6:
        return memcmp(a->ip, b->ip, 16) == 0 && a->scope_id == b->scope_id;
    case ADDRESS_UNIX:
        return a->path_size == b->path_size && memcmp(a->path, b->path, a->path_size) == 0;
    case ADDRESS_NONE:
        break;
    }
    return true;
}

bool address_equal(const struct address *a, const struct address *b)
{
    return address_equal_ip(a, b) && (a->family == ADDRESS_UNIX || a->port == b->port);
}

/* Multiply and fold (the finaliser of splitmix64): every input bit reaches every output bit. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) + UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ (hash >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    hash = (hash ^ (hash >> 27)) * UINT64_C(0x94d049bb133111eb);
    return hash ^ (hash >> 31);
}

uint64_t address_hash(const struct address *address)
{
    bool is_unix = address->family == ADDRESS_UNIX;
    size_t size = is_unix ? address->path_size : (address->family == ADDRESS_IPV4 ? 4 : 16);
    uint64_t hash = mix(address->family, is_unix ? 0 : address->port);
    for (size_t at = 0; at < size && address->family != ADDRESS_NONE; at += 8) {
        uint64_t word = 0;
        memcpy(&word, address->path + at, size - at < 8 ? size - at : 8);
        hash = mix(hash, word);
    }
    return hash;
}

bool address_is_loopback(const struct address *address)
{
    static const uint8_t loopback6[16] = {[15] = 1};
    return (address->family == ADDRESS_IPV4 && address->ip[0] == 127) ||
           (address->family == ADDRESS_IPV6 && memcmp(address->ip, loopback6, 16) == 0);
}

static struct error of_socket(int fd, int (*get)(int, struct sockaddr *, socklen_t *),
                              struct address *ret_address)
{
    struct sockaddr_storage storage = {0};
    socklen_t size = sizeof(storage);
    if (get(fd, (struct sockaddr *)&storage, &size) != 0) {
        return errno == ENOTCONN ? error_make(ERROR_NOT_FOUND, errno) : error_from_errno(errno);
    }
    return address_from_sockaddr((const struct sockaddr *)&storage, size, ret_address);
}

/* glibc declares these two with transparent unions, which a function pointer cannot carry. */
static int get_local(int fd, struct sockaddr *sockaddr, socklen_t *size)
{
    return getsockname(fd, sockaddr, size);
}

static int get_peer(int fd, struct sockaddr *sockaddr, socklen_t *size)
{
    return getpeername(fd, sockaddr, size);
}

struct error address_of_local(int fd, struct address *ret_address)
{
    return of_socket(fd, get_local, ret_address);
}

struct error address_of_peer(int fd, struct address *ret_address)
{
    return of_socket(fd, get_peer, ret_address);
}

struct error address_of_original(int fd, struct address *ret_address)
{
    struct address local = {0};
    TRY(address_of_local(fd, &local));
    if (local.family == ADDRESS_UNIX) {
        return error_make(ERROR_NOT_FOUND, 0);
    }
    int level = local.family == ADDRESS_IPV4 ? SOL_IP : SOL_IPV6;
    struct sockaddr_storage storage = {0};
    socklen_t size = sizeof(storage);
    if (getsockopt(fd, level, SOCKET_OPTION_ORIGINAL, &storage, &size) != 0) {
        /* ENOENT: conntrack does not know the connection; ENOPROTOOPT: there is no conntrack. */
        bool is_absent = errno == ENOENT || errno == ENOPROTOOPT || errno == EOPNOTSUPP;
        return is_absent ? error_make(ERROR_NOT_FOUND, errno) : error_from_errno(errno);
    }
    struct address original = {0};
    TRY(address_from_sockaddr((const struct sockaddr *)&storage, size, &original));
    if (address_equal(&original, &local)) {
        return error_make(ERROR_NOT_FOUND, 0); /* tracked, but nobody redirected it */
    }
    *ret_address = original;
    return OK;
}

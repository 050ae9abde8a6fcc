/* Lists of ports and networks, as --exclude-* have them: checked, masked, collected. */
#include "cli/redirection.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/bytes.h"

static bool parse_number(const char *text, size_t size, unsigned max, unsigned *ret_value)
{
    uint64_t value = 0;
    if (error_is(bytes_parse_decimal(bytes_make(text, size), max, &value))) {
        return false;
    }
    *ret_value = (unsigned)value;
    return true;
}

/* Insert in order and once: nft refuses a set that names a port twice on some versions. */
static bool add_port(struct redirection_ports *ports, uint16_t port)
{
    size_t at = 0;
    while (at < ports->count && ports->values[at] < port) {
        at++;
    }
    if (at < ports->count && ports->values[at] == port) {
        return true;
    }
    if (ports->count == REDIRECTION_PORTS_MAX) {
        return false;
    }
    memmove(ports->values + at + 1, ports->values + at,
            (ports->count - at) * sizeof(ports->values[0]));
    ports->values[at] = port;
    ports->count++;
    return true;
}

bool redirection_ports_parse(const char *text, struct redirection_ports *ports)
{
    while (*text != '\0') {
        size_t size = strcspn(text, ",");
        unsigned port = 0;
        if (!parse_number(text, size, 65535, &port) || port == 0 ||
            !add_port(ports, (uint16_t)port)) {
            return false;
        }
        text += size;
        if (*text == ',' && *++text == '\0') {
            return false;
        }
    }
    return true;
}

/* One network; what is written goes through inet_ntop, so that no byte of the command line reaches
 * a rule. */
static bool parse_cidr(const char *text, size_t size, struct redirection_cidr *ret_cidr)
{
    char address[REDIRECTION_CIDR_BYTES];
    char printed[INET6_ADDRSTRLEN];
    unsigned char binary[sizeof(struct in6_addr)];
    const char *slash = memchr(text, '/', size);
    size_t address_size = slash == NULL ? size : (size_t)(slash - text);
    if (address_size == 0 || address_size >= sizeof(address)) {
        return false;
    }
    memcpy(address, text, address_size);
    address[address_size] = '\0';
    int domain = memchr(address, ':', address_size) != NULL ? AF_INET6 : AF_INET;
    unsigned bits_max = domain == AF_INET6 ? 128 : 32;
    unsigned bits = bits_max;
    if (inet_pton(domain, address, binary) != 1 ||
        (slash != NULL && !parse_number(slash + 1, size - address_size - 1, bits_max, &bits))) {
        return false;
    }
    /* Host bits are cleared: the kernel prints networks so, and two spellings are one network. */
    for (unsigned i = bits; i < bits_max; i++) {
        binary[i / 8] &= (unsigned char)~(0x80U >> (i % 8));
    }
    if (inet_ntop(domain, binary, printed, sizeof(printed)) == NULL) {
        return false;
    }
    ret_cidr->family = domain == AF_INET6 ? REDIRECTION_FAMILY_IPV6 : REDIRECTION_FAMILY_IPV4;
    snprintf(ret_cidr->text, sizeof(ret_cidr->text), "%s/%u", printed, bits);
    return true;
}

bool redirection_cidrs_parse(const char *text, struct redirection *redirection)
{
    while (*text != '\0') {
        size_t size = strcspn(text, ",");
        struct redirection_cidr cidr = {0};
        if (redirection->cidrs_count == REDIRECTION_CIDRS_MAX || !parse_cidr(text, size, &cidr)) {
            return false;
        }
        redirection->cidrs[redirection->cidrs_count++] = cidr;
        text += size;
        if (*text == ',' && *++text == '\0') {
            return false;
        }
    }
    return true;
}

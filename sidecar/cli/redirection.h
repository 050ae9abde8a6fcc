/*
 * The packet redirection of a pod as data and as text.
 *
 * One walk over the rules (redirection.c) feeds the nft text, the iptables-restore text and the
 * comparison with what the kernel lists, so that the three cannot disagree. Nothing here runs a
 * program or needs a privilege; intercept.c does. Every rule carries a comment that holds its
 * parameters: the comment is what --check compares.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Where the self-test dials: documentation addresses (RFC 5737, RFC 3849), which nobody else uses.
 */
#define REDIRECTION_PROBE_IPV4 "192.0.2.2"
#define REDIRECTION_PROBE_IPV6 "2001:db8::2"

/* The mark that turns an outgoing datagram towards TPROXY, and the routing table that does it. */
#define REDIRECTION_UDP_MARK 0x4f52
#define REDIRECTION_UDP_TABLE 20306

#define REDIRECTION_PORTS_MAX 64
#define REDIRECTION_CIDRS_MAX 64
#define REDIRECTION_CIDR_BYTES 52 /* 45 of an IPv6 address in its longest form, "/128", NUL */

enum redirection_family {
    REDIRECTION_FAMILY_BOTH = 0,
    REDIRECTION_FAMILY_IPV4 = 4,
    REDIRECTION_FAMILY_IPV6 = 6,
};

struct redirection_ports {
    uint16_t values[REDIRECTION_PORTS_MAX];
    size_t count;
};

struct redirection_cidr {
    enum redirection_family family;
    char text[REDIRECTION_CIDR_BYTES];
};

/* What is wanted. A port of 0 means that the proxy has no such listener. */
struct redirection {
    uint32_t proxy_uid;
    uint32_t proxy_gid;
    bool has_proxy_gid;
    bool has_udp;
    enum redirection_family family;
    uint16_t outbound_port;
    uint16_t inbound_port;
    uint16_t health_port;
    struct redirection_ports inbound_excluded;
    struct redirection_ports outbound_excluded;
    struct redirection_cidr cidrs[REDIRECTION_CIDRS_MAX];
    size_t cidrs_count;
};

/* The jumps from the kernel's iptables chains into ours, as bits. */
enum redirection_jump {
    REDIRECTION_JUMP_INBOUND = 1,
    REDIRECTION_JUMP_OUTBOUND = 2,
    REDIRECTION_JUMP_UDP_OUTBOUND = 4,
    REDIRECTION_JUMP_UDP_DELIVER = 8,
};

/* What one iptables-save listing holds of ours: jumps, and whether the UDP chains exist. */
struct redirection_iptables_state {
    unsigned jumps;
    bool has_tcp_chains;
    bool has_udp_chains;
};

/* Add the ports of a list like "80,443"; false when it is not one, or over REDIRECTION_PORTS_MAX.
 */
bool redirection_ports_parse(const char *text, struct redirection_ports *ports);

/* Add the networks of a list like "10.0.0.0/8,fd00::1"; false when it is not one, or too long. */
bool redirection_cidrs_parse(const char *text, struct redirection *redirection);

/* Does `family` of the wanted rules include `one`, which is IPV4 or IPV6? */
bool redirection_has_family(const struct redirection *redirection, enum redirection_family one);

/* The input of `nft -f -`: replaces whatever an earlier run installed, in one transaction. */
void redirection_print_nft(const struct redirection *redirection, FILE *out);

/* The input of `nft -f -` that removes the table, present or not. */
void redirection_print_nft_removal(FILE *out);

/*
 * The input of `iptables-restore --noflush` (or ip6tables-restore) for one family. A jump that
 * `state` has is not added again, because restoring would double it; chains are flushed and filled
 * in the same commit.
 */
void redirection_print_iptables(const struct redirection *redirection,
                                enum redirection_family family,
                                const struct redirection_iptables_state *state, FILE *out);

/* The input of `iptables-restore --noflush` that takes away what `state` says is there. */
void redirection_print_iptables_removal(const struct redirection_iptables_state *state, FILE *out);

/* Read the output of `iptables-save`. */
struct redirection_iptables_state redirection_iptables_state(const char *listing);

/*
 * Compare what is wanted with a listing: `nft list table` (family BOTH) or iptables-save (one
 * family). Writes one line for each rule that is missing and each of ours that is not wanted;
 * returns how many lines.
 */
size_t redirection_compare(const struct redirection *redirection, enum redirection_family family,
                           const char *listing, FILE *report);

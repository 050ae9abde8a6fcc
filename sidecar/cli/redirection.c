/*
 * The rules, in order (packet walks in the README's section on interception):
 *
 * - inbound: health port and excluded ports pass; the rest goes to the inbound listener.
 * - outbound: the self-test's address goes to the outbound listener, whoever dials it; the proxy
 *   itself, loopback, excluded ports and networks pass; the rest goes to the outbound listener.
 * - udp: the same exclusions on a routing hook, which marks; marked datagrams come back on lo and
 *   are handed to the outbound listener by TPROXY, because REDIRECT loses the destination of a
 *   datagram.
 *
 * No rule can loop: what the proxy sends passes before anything is redirected.
 */
#include "cli/redirection.h"

#include <string.h>

#define COMMENT_BYTES_MAX 128 /* nft refuses longer ones */
#define MULTIPORT_MAX 15      /* slots of one multiport match */
#define LABEL "outrigger: "

/* Cloud metadata, node-local DNS and neighbours without a scope: never a ClusterIP, nothing to
 * route. */
#define LINK_LOCAL_IPV4 "169.254.0.0/16"
#define LINK_LOCAL_IPV6 "fe80::/10"

enum chain {
    CHAIN_INBOUND,
    CHAIN_OUTBOUND,
    CHAIN_UDP_OUTBOUND,
    CHAIN_UDP_DELIVER,
};

enum match {
    MATCH_REST,
    MATCH_PROBE,
    MATCH_UID,
    MATCH_GID,
    MATCH_LOOPBACK,
    MATCH_PORTS,
    MATCH_NETWORK,
    MATCH_MARKED,
};

enum verdict {
    VERDICT_PASS,
    VERDICT_REDIRECT,
    VERDICT_MARK,
    VERDICT_TPROXY,
};

struct rule {
    enum chain chain;
    enum match match;
    enum verdict verdict;
    enum redirection_family family;
    uint32_t id;           /* MATCH_UID, MATCH_GID */
    uint16_t port;         /* where REDIRECT and TPROXY lead; the port of the probe */
    const uint16_t *ports; /* borrowed; MATCH_PORTS */
    size_t ports_count;
    const char *network; /* borrowed; MATCH_PROBE, MATCH_NETWORK */
    char comment[COMMENT_BYTES_MAX];
};

typedef void (*rule_visit_fn)(void *argument, const struct rule *rule);

struct walk {
    rule_visit_fn visit;
    void *argument;
};

/* One of the kernel's chains leading into one of ours. */
struct jump {
    enum redirection_jump bit;
    enum chain chain;
    const char *hook;
    const char *protocol;
    const char *comment;
};

static const struct jump jumps[] = {
    {REDIRECTION_JUMP_INBOUND, CHAIN_INBOUND, "PREROUTING", "tcp", LABEL "what arrives over TCP"},
    {REDIRECTION_JUMP_OUTBOUND, CHAIN_OUTBOUND, "OUTPUT", "tcp", LABEL "what leaves over TCP"},
    {REDIRECTION_JUMP_UDP_OUTBOUND, CHAIN_UDP_OUTBOUND, "OUTPUT", "udp",
     LABEL "what leaves over UDP"},
    {REDIRECTION_JUMP_UDP_DELIVER, CHAIN_UDP_DELIVER, "PREROUTING", "udp",
     LABEL "what leaves over UDP, once marked"},
};

#define JUMPS_COUNT (sizeof(jumps) / sizeof(jumps[0]))

static const char *const nft_chains[] = {"inbound", "outbound", "udp_outbound", "udp_deliver"};
static const char *const iptables_chains[] = {"OUTRIGGER_IN", "OUTRIGGER_OUT", "OUTRIGGER_UDP_OUT",
                                              "OUTRIGGER_UDP_IN"};

/* The table block of nft opens each hook with its type and priority. */
static const char *const nft_hooks[] = {
    "prerouting { type nat hook prerouting priority -100; policy accept;",
    "output { type nat hook output priority -100; policy accept;",
    "udp_output { type route hook output priority -150; policy accept;",
    "udp_prerouting { type filter hook prerouting priority -150; policy accept;",
};

static bool is_wanted(const struct redirection *redirection, enum chain chain)
{
    switch (chain) {
    case CHAIN_INBOUND:
        return redirection->inbound_port != 0;
    case CHAIN_OUTBOUND:
        return redirection->outbound_port != 0;
    case CHAIN_UDP_OUTBOUND:
    case CHAIN_UDP_DELIVER:
        return redirection->has_udp && redirection->outbound_port != 0;
    }
    return false;
}

bool redirection_has_family(const struct redirection *redirection, enum redirection_family one)
{
    return redirection->family == REDIRECTION_FAMILY_BOTH || redirection->family == one;
}

static const char *family_name(enum redirection_family family)
{
    return family == REDIRECTION_FAMILY_IPV6 ? "IPv6" : "IPv4";
}

static const char *chain_label(enum chain chain)
{
    switch (chain) {
    case CHAIN_INBOUND:
        return "in";
    case CHAIN_OUTBOUND:
        return "out";
    case CHAIN_UDP_OUTBOUND:
        return "udp";
    case CHAIN_UDP_DELIVER:
        return "udp marked";
    }
    return "";
}

static void visit_pass(const struct walk *walk, enum chain chain, enum match match, uint32_t id)
{
    struct rule rule = {.chain = chain, .match = match, .verdict = VERDICT_PASS, .id = id};
    const char *label = chain_label(chain);
    if (match == MATCH_LOOPBACK) {
        snprintf(rule.comment, sizeof(rule.comment), LABEL "%s: loopback passes", label);
    } else {
        snprintf(rule.comment, sizeof(rule.comment), LABEL "%s: the proxy itself passes, %s %u",
                 label, match == MATCH_UID ? "uid" : "gid", id);
    }
    walk->visit(walk->argument, &rule);
}

/* iptables matches at most 15 ports in a rule; nft is given the same groups, so that both have the
 * same rules. */
static void visit_ports(const struct walk *walk, enum chain chain, const uint16_t *ports,
                        size_t count)
{
    for (size_t first = 0; first < count; first += MULTIPORT_MAX) {
        struct rule rule = {.chain = chain, .match = MATCH_PORTS, .verdict = VERDICT_PASS};
        rule.ports = ports + first;
        rule.ports_count = count - first < MULTIPORT_MAX ? count - first : MULTIPORT_MAX;
        int used =
            snprintf(rule.comment, sizeof(rule.comment), LABEL "%s: pass ", chain_label(chain));
        for (size_t i = 0; i < rule.ports_count; i++) {
            used += snprintf(rule.comment + used, sizeof(rule.comment) - (size_t)used, "%s%u",
                             i == 0 ? "" : ",", rule.ports[i]);
        }
        walk->visit(walk->argument, &rule);
    }
}

static void visit_network(const struct walk *walk, enum chain chain, enum redirection_family family,
                          const char *network)
{
    struct rule rule = {.chain = chain,
                        .match = MATCH_NETWORK,
                        .verdict = VERDICT_PASS,
                        .family = family,
                        .network = network};
    snprintf(rule.comment, sizeof(rule.comment), LABEL "%s: pass %s", chain_label(chain), network);
    walk->visit(walk->argument, &rule);
}

static void visit_probe(const struct walk *walk, enum redirection_family family,
                        const char *address, uint16_t port)
{
    struct rule rule = {.chain = CHAIN_OUTBOUND,
                        .match = MATCH_PROBE,
                        .verdict = VERDICT_REDIRECT,
                        .family = family,
                        .network = address,
                        .port = port};
    snprintf(rule.comment, sizeof(rule.comment), LABEL "out: self-test over %s to port %u",
             family_name(family), port);
    walk->visit(walk->argument, &rule);
}

static void visit_rest(const struct walk *walk, enum chain chain, enum verdict verdict,
                       uint16_t port)
{
    struct rule rule = {.chain = chain, .match = MATCH_REST, .verdict = verdict, .port = port};
    if (verdict == VERDICT_MARK) {
        snprintf(rule.comment, sizeof(rule.comment), LABEL "%s: mark the rest", chain_label(chain));
    } else {
        snprintf(rule.comment, sizeof(rule.comment), LABEL "%s: the rest to port %u",
                 chain_label(chain), port);
    }
    walk->visit(walk->argument, &rule);
}

static void visit_deliver(const struct walk *walk, enum redirection_family family, uint16_t port)
{
    struct rule rule = {.chain = CHAIN_UDP_DELIVER,
                        .match = MATCH_MARKED,
                        .verdict = VERDICT_TPROXY,
                        .family = family,
                        .port = port};
    snprintf(rule.comment, sizeof(rule.comment), LABEL "udp marked: %s to port %u",
             family_name(family), port);
    walk->visit(walk->argument, &rule);
}

/* What both outbound chains let pass, in the order of the reference: the proxy, loopback, ports,
 * networks. */
static void visit_outbound_passes(const struct redirection *redirection, enum chain chain,
                                  const struct walk *walk)
{
    visit_pass(walk, chain, MATCH_UID, redirection->proxy_uid);
    if (redirection->has_proxy_gid) {
        visit_pass(walk, chain, MATCH_GID, redirection->proxy_gid);
    }
    visit_pass(walk, chain, MATCH_LOOPBACK, 0);
    visit_ports(walk, chain, redirection->outbound_excluded.values,
                redirection->outbound_excluded.count);
    visit_network(walk, chain, REDIRECTION_FAMILY_IPV4, LINK_LOCAL_IPV4);
    visit_network(walk, chain, REDIRECTION_FAMILY_IPV6, LINK_LOCAL_IPV6);
    for (size_t i = 0; i < redirection->cidrs_count; i++) {
        const struct redirection_cidr *cidr = &redirection->cidrs[i];
        visit_network(walk, chain, cidr->family, cidr->text);
    }
}

static void visit_chain(const struct redirection *redirection, enum chain chain,
                        const struct walk *walk)
{
    /* DNS over UDP never goes through the proxy: the pod must resolve names while the proxy starts
     * or is gone. */
    static const uint16_t dns[] = {53};
    uint16_t port = redirection->outbound_port;
    switch (chain) {
    case CHAIN_INBOUND:
        visit_ports(walk, chain, &redirection->health_port, redirection->health_port != 0 ? 1 : 0);
        visit_ports(walk, chain, redirection->inbound_excluded.values,
                    redirection->inbound_excluded.count);
        visit_rest(walk, chain, VERDICT_REDIRECT, redirection->inbound_port);
        break;
    case CHAIN_OUTBOUND:
        visit_probe(walk, REDIRECTION_FAMILY_IPV4, REDIRECTION_PROBE_IPV4, port);
        visit_probe(walk, REDIRECTION_FAMILY_IPV6, REDIRECTION_PROBE_IPV6, port);
        visit_outbound_passes(redirection, chain, walk);
        visit_rest(walk, chain, VERDICT_REDIRECT, port);
        break;
    case CHAIN_UDP_OUTBOUND:
        visit_ports(walk, chain, dns, 1);
        visit_outbound_passes(redirection, chain, walk);
        visit_rest(walk, chain, VERDICT_MARK, 0);
        break;
    case CHAIN_UDP_DELIVER:
        visit_deliver(walk, REDIRECTION_FAMILY_IPV4, port);
        visit_deliver(walk, REDIRECTION_FAMILY_IPV6, port);
        break;
    }
}

/* A rule of one family belongs to a wider view; a view of one family takes its own and the common
 * ones. */
static bool is_in_family(const struct rule *rule, enum redirection_family view)
{
    return view == REDIRECTION_FAMILY_BOTH || rule->family == REDIRECTION_FAMILY_BOTH ||
           rule->family == view;
}

/* nft */

struct nft_printer {
    FILE *out;
    enum redirection_family view;
};

static void print_nft_match(const struct rule *rule, FILE *out)
{
    bool is_udp = rule->chain == CHAIN_UDP_OUTBOUND || rule->chain == CHAIN_UDP_DELIVER;
    const char *protocol = is_udp ? "udp" : "tcp";
    const char *ip = rule->family == REDIRECTION_FAMILY_IPV6 ? "ip6" : "ip";
    switch (rule->match) {
    case MATCH_REST:
        fprintf(out, "meta l4proto %s", protocol);
        break;
    case MATCH_PROBE:
        fprintf(out, "%s daddr %s tcp dport %u", ip, rule->network, rule->port);
        break;
    case MATCH_UID:
        fprintf(out, "meta skuid %u", rule->id);
        break;
    case MATCH_GID:
        fprintf(out, "meta skgid %u", rule->id);
        break;
    case MATCH_LOOPBACK:
        fputs("oifname \"lo\"", out);
        break;
    case MATCH_PORTS:
        fprintf(out, "%s dport { ", protocol);
        for (size_t i = 0; i < rule->ports_count; i++) {
            fprintf(out, "%s%u", i == 0 ? "" : ", ", rule->ports[i]);
        }
        fputs(" }", out);
        break;
    case MATCH_NETWORK:
        fprintf(out, "%s daddr %s", ip, rule->network);
        break;
    case MATCH_MARKED:
        fprintf(out, "meta nfproto %s meta l4proto udp iifname \"lo\" meta mark 0x%x",
                rule->family == REDIRECTION_FAMILY_IPV6 ? "ipv6" : "ipv4", REDIRECTION_UDP_MARK);
        break;
    }
}

static void print_nft_rule(void *argument, const struct rule *rule)
{
    const struct nft_printer *printer = argument;
    FILE *out = printer->out;
    if (!is_in_family(rule, printer->view)) {
        return;
    }
    fputs("        ", out);
    print_nft_match(rule, out);
    fputs(" counter ", out);
    switch (rule->verdict) {
    case VERDICT_PASS:
        fputs("return", out);
        break;
    case VERDICT_REDIRECT:
        fprintf(out, "redirect to :%u", rule->port);
        break;
    case VERDICT_MARK:
        fprintf(out, "meta mark set 0x%x", REDIRECTION_UDP_MARK);
        break;
    case VERDICT_TPROXY:
        if (rule->family == REDIRECTION_FAMILY_IPV6) {
            fprintf(out, "tproxy ip6 to [::1]:%u accept", rule->port);
        } else {
            fprintf(out, "tproxy ip to 127.0.0.1:%u accept", rule->port);
        }
        break;
    }
    fprintf(out, " comment \"%s\"\n", rule->comment);
}

void redirection_print_nft_removal(FILE *out)
{
    /* Adding first makes the deletion succeed whether the table was there or not. */
    fputs("add table inet outrigger\n"
          "delete table inet outrigger\n",
          out);
}

void redirection_print_nft(const struct redirection *redirection, FILE *out)
{
    struct nft_printer printer = {.out = out, .view = redirection->family};
    const struct walk walk = {.visit = print_nft_rule, .argument = &printer};
    redirection_print_nft_removal(out);
    fputs("table inet outrigger {\n", out);
    for (size_t i = 0; i < JUMPS_COUNT; i++) {
        if (is_wanted(redirection, jumps[i].chain)) {
            fprintf(out, "    chain %s {\n", nft_chains[jumps[i].chain]);
            visit_chain(redirection, jumps[i].chain, &walk);
            fputs("    }\n", out);
        }
    }
    for (size_t i = 0; i < JUMPS_COUNT; i++) {
        if (is_wanted(redirection, jumps[i].chain)) {
            fprintf(out, "    chain %s\n        ", nft_hooks[jumps[i].chain]);
            if (redirection->family != REDIRECTION_FAMILY_BOTH) {
                fprintf(out, "meta nfproto %s ",
                        redirection->family == REDIRECTION_FAMILY_IPV6 ? "ipv6" : "ipv4");
            }
            fprintf(out, "meta l4proto %s counter jump %s comment \"%s\"\n    }\n",
                    jumps[i].protocol, nft_chains[jumps[i].chain], jumps[i].comment);
        }
    }
    fputs("}\n", out);
}

/* iptables */

static void print_iptables_match(const struct rule *rule, FILE *out)
{
    bool is_udp = rule->chain == CHAIN_UDP_OUTBOUND || rule->chain == CHAIN_UDP_DELIVER;
    const char *protocol = is_udp ? "udp" : "tcp";
    switch (rule->match) {
    case MATCH_REST:
        fprintf(out, " -p %s", protocol);
        break;
    case MATCH_PROBE:
        fprintf(out, " -d %s -p tcp --dport %u", rule->network, rule->port);
        break;
    case MATCH_UID:
        fprintf(out, " -m owner --uid-owner %u", rule->id);
        break;
    case MATCH_GID:
        fprintf(out, " -m owner --gid-owner %u", rule->id);
        break;
    case MATCH_LOOPBACK:
        fputs(" -o lo", out);
        break;
    case MATCH_PORTS:
        fprintf(out, " -p %s -m multiport --dports ", protocol);
        for (size_t i = 0; i < rule->ports_count; i++) {
            fprintf(out, "%s%u", i == 0 ? "" : ",", rule->ports[i]);
        }
        break;
    case MATCH_NETWORK:
        fprintf(out, " -d %s", rule->network);
        break;
    case MATCH_MARKED:
        fprintf(out, " -i lo -p udp -m mark --mark 0x%x", REDIRECTION_UDP_MARK);
        break;
    }
}

struct iptables_printer {
    FILE *out;
    enum redirection_family family;
};

static void print_iptables_rule(void *argument, const struct rule *rule)
{
    const struct iptables_printer *printer = argument;
    FILE *out = printer->out;
    if (!is_in_family(rule, printer->family)) {
        return;
    }
    fprintf(out, "-A %s", iptables_chains[rule->chain]);
    print_iptables_match(rule, out);
    fprintf(out, " -m comment --comment \"%s\" ", rule->comment);
    switch (rule->verdict) {
    case VERDICT_PASS:
        fputs("-j RETURN\n", out);
        break;
    case VERDICT_REDIRECT:
        fprintf(out, "-j REDIRECT --to-ports %u\n", rule->port);
        break;
    case VERDICT_MARK:
        fprintf(out, "-j MARK --set-mark 0x%x\n", REDIRECTION_UDP_MARK);
        break;
    case VERDICT_TPROXY:
        fprintf(out, "-j TPROXY --on-port %u --on-ip %s --tproxy-mark 0x%x\n", rule->port,
                rule->family == REDIRECTION_FAMILY_IPV6 ? "::1" : "127.0.0.1",
                REDIRECTION_UDP_MARK);
        break;
    }
}

static void print_iptables_jump(const struct jump *jump, char verb, FILE *out)
{
    fprintf(out, "-%c %s -p %s -m comment --comment \"%s\" -j %s\n", verb, jump->hook,
            jump->protocol, jump->comment, iptables_chains[jump->chain]);
}

static bool is_udp_jump(const struct jump *jump)
{
    return jump->chain == CHAIN_UDP_OUTBOUND || jump->chain == CHAIN_UDP_DELIVER;
}

/* One table of the restore text: `nat` for TCP, `mangle` for UDP. A null redirection takes
 * everything away. */
static void print_iptables_table(const struct redirection *redirection,
                                 enum redirection_family family,
                                 const struct redirection_iptables_state *state, bool is_udp,
                                 FILE *out)
{
    struct iptables_printer printer = {.out = out, .family = family};
    const struct walk walk = {.visit = print_iptables_rule, .argument = &printer};
    fprintf(out, "*%s\n", is_udp ? "mangle" : "nat");
    /* A chain line creates the chain, or flushes it when it is there. */
    for (size_t i = 0; i < JUMPS_COUNT; i++) {
        if (is_udp_jump(&jumps[i]) == is_udp) {
            fprintf(out, ":%s - [0:0]\n", iptables_chains[jumps[i].chain]);
        }
    }
    for (size_t i = 0; i < JUMPS_COUNT; i++) {
        const struct jump *jump = &jumps[i];
        if (is_udp_jump(jump) != is_udp) {
            continue;
        }
        bool is_there = (state->jumps & jump->bit) != 0;
        bool is_kept = redirection != NULL && is_wanted(redirection, jump->chain);
        if (is_kept) {
            visit_chain(redirection, jump->chain, &walk);
        }
        if (is_kept && !is_there) {
            print_iptables_jump(jump, 'A', out);
        }
        if (!is_kept && is_there) {
            print_iptables_jump(jump, 'D', out);
        }
        if (!is_kept) {
            fprintf(out, "-X %s\n", iptables_chains[jump->chain]);
        }
    }
    fputs("COMMIT\n", out);
}

void redirection_print_iptables(const struct redirection *redirection,
                                enum redirection_family family,
                                const struct redirection_iptables_state *state, FILE *out)
{
    print_iptables_table(redirection, family, state, false, out);
    if (redirection->has_udp || state->has_udp_chains) {
        print_iptables_table(redirection, family, state, true, out);
    }
}

void redirection_print_iptables_removal(const struct redirection_iptables_state *state, FILE *out)
{
    if (state->has_tcp_chains) {
        print_iptables_table(NULL, REDIRECTION_FAMILY_BOTH, state, false, out);
    }
    if (state->has_udp_chains) {
        print_iptables_table(NULL, REDIRECTION_FAMILY_BOTH, state, true, out);
    }
}

struct redirection_iptables_state redirection_iptables_state(const char *listing)
{
    struct redirection_iptables_state state = {0};
    for (size_t i = 0; i < JUMPS_COUNT; i++) {
        char wanted[COMMENT_BYTES_MAX];
        snprintf(wanted, sizeof(wanted), "-j %s\n", iptables_chains[jumps[i].chain]);
        if (strstr(listing, wanted) != NULL) {
            state.jumps |= jumps[i].bit;
        }
        snprintf(wanted, sizeof(wanted), "\n:%s ", iptables_chains[jumps[i].chain]);
        if (strstr(listing, wanted) != NULL) {
            *(is_udp_jump(&jumps[i]) ? &state.has_udp_chains : &state.has_tcp_chains) = true;
        }
    }
    return state;
}

/* comparison */

struct comparison {
    const char *listing;
    FILE *report;
    enum redirection_family view;
    size_t wanted_count;
    size_t missing_count;
};

static void compare_comment(struct comparison *comparison, const char *comment)
{
    char wanted[COMMENT_BYTES_MAX + 16];
    snprintf(wanted, sizeof(wanted), "comment \"%s\"", comment);
    comparison->wanted_count++;
    if (strstr(comparison->listing, wanted) == NULL) {
        fprintf(comparison->report, "missing rule: %s\n", comment + strlen(LABEL));
        comparison->missing_count++;
    }
}

static void compare_rule(void *argument, const struct rule *rule)
{
    struct comparison *comparison = argument;
    if (is_in_family(rule, comparison->view)) {
        compare_comment(comparison, rule->comment);
    }
}

/* How many rules of the listing are ours. */
static size_t count_ours(const char *listing)
{
    static const char marker[] = "comment \"" LABEL;
    size_t count = 0;
    for (const char *at = strstr(listing, marker); at != NULL; at = strstr(at + 1, marker)) {
        count++;
    }
    return count;
}

size_t redirection_compare(const struct redirection *redirection, enum redirection_family family,
                           const char *listing, FILE *report)
{
    struct comparison comparison = {.listing = listing, .report = report, .view = family};
    const struct walk walk = {.visit = compare_rule, .argument = &comparison};
    for (size_t i = 0; i < JUMPS_COUNT; i++) {
        if (is_wanted(redirection, jumps[i].chain)) {
            compare_comment(&comparison, jumps[i].comment);
            visit_chain(redirection, jumps[i].chain, &walk);
        }
    }
    size_t present_count = comparison.wanted_count - comparison.missing_count;
    size_t ours_count = count_ours(listing);
    if (ours_count > present_count) {
        fprintf(report, "rules of another configuration or doubled ones: %zu\n",
                ours_count - present_count);
        return comparison.missing_count + ours_count - present_count;
    }
    return comparison.missing_count;
}

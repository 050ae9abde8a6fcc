/* The rules as text: order, exclusions, families, what is already there, and the comparison with a
 * listing. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/redirection.h"

static struct redirection make(void)
{
    return (struct redirection){
        .proxy_uid = 1337, .outbound_port = 15001, .inbound_port = 15006, .health_port = 15021};
}

static char *nft_text(const struct redirection *redirection)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    cr_assert_not_null(file);
    redirection_print_nft(redirection, file);
    fclose(file);
    return text;
}

static char *iptables_text(const struct redirection *redirection, enum redirection_family family,
                           const struct redirection_iptables_state *state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    cr_assert_not_null(file);
    redirection_print_iptables(redirection, family, state, file);
    fclose(file);
    return text;
}

static size_t count(const char *text, const char *wanted)
{
    size_t found = 0;
    for (const char *at = strstr(text, wanted); at != NULL; at = strstr(at + 1, wanted)) {
        found++;
    }
    return found;
}

/* The fragments stand in the text in this order. */
static void expect_order(const char *text, const char *const fragments[], size_t fragments_count)
{
    const char *at = text;
    for (size_t i = 0; i < fragments_count; i++) {
        const char *next = strstr(at, fragments[i]);
        cr_expect_not_null(next, "'%s' is missing or too early in:\n%s", fragments[i], text);
        at = next == NULL ? at : next;
    }
}

Test(redirection, nft_replaces_the_table_and_lets_the_proxy_pass_before_it_redirects)
{
    struct redirection wanted = make();
    char *text = nft_text(&wanted);
    const char *const order[] = {
        "add table inet outrigger\n",
        "delete table inet outrigger\n",
        "table inet outrigger {",
        "chain inbound {",
        "tcp dport { 15021 } counter return",
        "redirect to :15006",
        "chain outbound {",
        "ip daddr 192.0.2.2 tcp dport 15001 counter redirect to :15001",
        "ip6 daddr 2001:db8::2 tcp dport 15001 counter redirect to :15001",
        "meta skuid 1337 counter return",
        "oifname \"lo\" counter return",
        "ip daddr 169.254.0.0/16 counter return",
        "meta l4proto tcp counter redirect to :15001",
        "type nat hook prerouting priority -100",
        "meta l4proto tcp counter jump inbound",
        "type nat hook output priority -100",
        "meta l4proto tcp counter jump outbound",
    };
    expect_order(text, order, sizeof(order) / sizeof(order[0]));
    cr_expect_null(strstr(text, "udp"));
    cr_expect_null(strstr(text, "skgid"));
    free(text);
}

Test(redirection, iptables_has_the_same_rules_in_the_same_order)
{
    struct redirection wanted = make();
    wanted.has_proxy_gid = true;
    wanted.proxy_gid = 1338;
    const struct redirection_iptables_state nothing = {0};
    char *text = iptables_text(&wanted, REDIRECTION_FAMILY_IPV6, &nothing);
    const char *const order[] = {
        "*nat\n:OUTRIGGER_IN - [0:0]\n:OUTRIGGER_OUT - [0:0]\n",
        "-A OUTRIGGER_IN -p tcp -m multiport --dports 15021",
        "-j REDIRECT --to-ports 15006",
        "-A PREROUTING -p tcp",
        "-A OUTRIGGER_OUT -d 2001:db8::2 -p tcp --dport 15001",
        "--uid-owner 1337",
        "--gid-owner 1338",
        "-A OUTRIGGER_OUT -o lo ",
        "-d fe80::/10",
        "-j REDIRECT --to-ports 15001",
        "-A OUTPUT -p tcp",
        "COMMIT\n",
    };
    expect_order(text, order, sizeof(order) / sizeof(order[0]));
    cr_expect_null(strstr(text, "192.0.2.2"), "a rule of IPv4 in the text of IPv6");
    cr_expect_null(strstr(text, "mangle"));
    free(text);
}

Test(redirection, a_jump_that_is_there_is_not_added_again)
{
    struct redirection wanted = make();
    const char *listing =
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTRIGGER_IN - [0:0]\n:OUTRIGGER_OUT - [0:0]\n"
        "-A PREROUTING -p tcp -m comment --comment \"x\" -j OUTRIGGER_IN\nCOMMIT\n";
    struct redirection_iptables_state state = redirection_iptables_state(listing);
    cr_expect_eq(state.jumps, REDIRECTION_JUMP_INBOUND);
    cr_expect(state.has_tcp_chains);
    cr_expect_not(state.has_udp_chains);
    char *text = iptables_text(&wanted, REDIRECTION_FAMILY_IPV4, &state);
    cr_expect_eq(count(text, "-A PREROUTING"), 0);
    cr_expect_eq(count(text, "-A OUTPUT"), 1);
    free(text);
}

Test(redirection, rules_of_udp_that_are_no_longer_wanted_are_taken_away)
{
    struct redirection wanted = make();
    const struct redirection_iptables_state state = {.jumps = REDIRECTION_JUMP_UDP_OUTBOUND |
                                                              REDIRECTION_JUMP_UDP_DELIVER,
                                                     .has_udp_chains = true};
    char *text = iptables_text(&wanted, REDIRECTION_FAMILY_IPV4, &state);
    const char *const order[] = {"*mangle",
                                 ":OUTRIGGER_UDP_OUT",
                                 "-D OUTPUT -p udp",
                                 "-X OUTRIGGER_UDP_OUT",
                                 "-D PREROUTING -p udp",
                                 "-X OUTRIGGER_UDP_IN",
                                 "COMMIT"};
    expect_order(text, order, sizeof(order) / sizeof(order[0]));
    free(text);
}

Test(redirection, udp_passes_dns_and_the_proxy_then_marks_and_hands_over)
{
    struct redirection wanted = make();
    wanted.has_udp = true;
    char *text = nft_text(&wanted);
    const char *const nft[] = {"chain udp_outbound {",
                               "udp dport { 53 } counter return",
                               "meta skuid 1337 counter return",
                               "meta mark set 0x4f52",
                               "tproxy ip to 127.0.0.1:15001 accept",
                               "tproxy ip6 to [::1]:15001 accept",
                               "type route hook output priority -150",
                               "type filter hook prerouting priority -150"};
    expect_order(text, nft, sizeof(nft) / sizeof(nft[0]));
    free(text);
    const struct redirection_iptables_state nothing = {0};
    text = iptables_text(&wanted, REDIRECTION_FAMILY_IPV4, &nothing);
    const char *const iptables[] = {
        "*mangle", "-p udp -m multiport --dports 53", "-j MARK --set-mark 0x4f52",
        "-i lo -p udp -m mark --mark 0x4f52", "-j TPROXY --on-port 15001 --on-ip 127.0.0.1"};
    expect_order(text, iptables, sizeof(iptables) / sizeof(iptables[0]));
    free(text);
}

Test(redirection, ports_of_zero_leave_their_direction_alone)
{
    struct redirection wanted = make();
    wanted.inbound_port = 0;
    wanted.health_port = 0;
    char *text = nft_text(&wanted);
    cr_expect_null(strstr(text, "prerouting"));
    cr_expect_not_null(strstr(text, "redirect to :15001"));
    free(text);
    wanted = make();
    wanted.outbound_port = 0;
    text = nft_text(&wanted);
    cr_expect_null(strstr(text, "hook output"));
    cr_expect_null(strstr(text, "redirect to :0"));
    free(text);
}

Test(redirection, one_family_leaves_the_other_alone)
{
    struct redirection wanted = make();
    wanted.family = REDIRECTION_FAMILY_IPV4;
    char *text = nft_text(&wanted);
    cr_expect_eq(count(text, "meta nfproto ipv4 meta l4proto tcp counter jump"), 2);
    cr_expect_null(strstr(text, "ip6"));
    free(text);
}

Test(redirection, many_ports_are_split_into_groups_that_multiport_takes)
{
    struct redirection wanted = make();
    cr_assert(redirection_ports_parse("20,19,18,17,16,15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,20",
                                      &wanted.inbound_excluded));
    cr_expect_eq(wanted.inbound_excluded.count, 20, "a port named twice counts once");
    const struct redirection_iptables_state nothing = {0};
    char *text = iptables_text(&wanted, REDIRECTION_FAMILY_IPV4, &nothing);
    cr_expect_not_null(strstr(text, "--dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 "));
    cr_expect_not_null(strstr(text, "--dports 16,17,18,19,20 "));
    free(text);
}

Test(redirection, port_lists_are_taken_or_refused)
{
    const struct {
        const char *text;
        bool is_good;
    } cases[] = {{"80", true},     {"1,65535", true}, {"", true},        {"0", false},
                 {"65536", false}, {"80,", false},    {",80", false},    {"a", false},
                 {"-1", false},    {"80 ", false},    {"80,,81", false}, {"80-90", false},
                 {"0x50", false}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redirection_ports ports = {0};
        cr_expect_eq(redirection_ports_parse(cases[i].text, &ports), cases[i].is_good, "'%s'",
                     cases[i].text);
    }
    char many[REDIRECTION_PORTS_MAX * 6 + 8];
    size_t used = 0;
    for (int i = 0; i <= REDIRECTION_PORTS_MAX; i++) {
        used +=
            (size_t)snprintf(many + used, sizeof(many) - used, "%s%d", i == 0 ? "" : ",", 1000 + i);
    }
    struct redirection_ports ports = {0};
    cr_expect_not(redirection_ports_parse(many, &ports), "one more than the bound");
}

Test(redirection, networks_are_taken_masked_or_refused)
{
    const struct {
        const char *text;
        const char *printed; /* NULL: refused */
    } cases[] = {{"10.1.2.3/8", "10.0.0.0/8"}, {"10.1.2.3", "10.1.2.3/32"},
                 {"0.0.0.0/0", "0.0.0.0/0"},   {"fd00::12:1/112", "fd00::12:0/112"},
                 {"::1", "::1/128"},           {"10.1.2.3/33", NULL},
                 {"10.1.2/8", NULL},           {"fd00::/129", NULL},
                 {"10.0.0.0/", NULL},          {"/8", NULL},
                 {"example.com", NULL},        {"10.0.0.1,", NULL},
                 {"10.0.0.1\" accept #", NULL}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redirection wanted = make();
        bool is_good = redirection_cidrs_parse(cases[i].text, &wanted);
        cr_expect_eq(is_good, cases[i].printed != NULL, "'%s'", cases[i].text);
        if (is_good && cases[i].printed != NULL) {
            cr_expect_str_eq(wanted.cidrs[0].text, cases[i].printed);
        }
    }
}

static size_t compare(const struct redirection *wanted, const char *listing, char **ret_report)
{
    size_t size = 0;
    FILE *file = open_memstream(ret_report, &size);
    cr_assert_not_null(file);
    size_t differences = redirection_compare(wanted, wanted->family, listing, file);
    fclose(file);
    return differences;
}

Test(redirection, a_listing_is_compared_rule_by_rule)
{
    struct redirection wanted = make();
    char *report = NULL;
    char *listing = nft_text(&wanted);
    cr_expect_eq(compare(&wanted, listing, &report), 0, "%s", report);
    free(report);

    wanted.proxy_uid = 1338;
    cr_expect_eq(compare(&wanted, listing, &report), 2, "one missing, one of another uid: %s",
                 report);
    cr_expect_not_null(strstr(report, "missing rule: out: the proxy itself passes, uid 1338"));
    free(report);

    wanted = make();
    char *jump = strstr(listing, "comment \"outrigger: what leaves over TCP\"");
    cr_assert_not_null(jump);
    jump[0] = '#';
    cr_expect_eq(compare(&wanted, listing, &report), 1);
    cr_expect_not_null(strstr(report, "missing rule: what leaves over TCP"));
    free(report);
    free(listing);
    cr_expect_gt(compare(&wanted, "", &report), 5, "an empty listing lacks every rule");
    free(report);
}

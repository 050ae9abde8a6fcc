/*
 * What the four actions of `outrigger intercept` do.
 *
 * nft replaces everything in one transaction, so installing twice is installing once, and there is
 * no moment without rules. iptables-restore commits a table at a time; what is already there is
 * read first, because restoring a jump doubles it. After installing, and in --check, the listing of
 * the kernel is compared rule by rule, and a connection to the self-test's address must arrive at
 * the outbound port: rules that are there and do not work are found here and not by the
 * application.
 */
#include "cli/intercept.h"

#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/intercept_options.h"
#include "cli/probe.h"
#include "cli/redirection.h"
#include "cli/tool.h"

#define RULES_DELETED_MAX 16 /* doubled ip rules of earlier runs */

/* ---- environment ---- */

/*
 * Make the capabilities that we may use effective, and ambient, so that the tools have them too. A
 * file capability on our program is permitted and not effective (+p), because +ep would make it
 * unusable where capabilities are dropped. Returns whether CAP_NET_ADMIN is there.
 */
static bool raise_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    const uint32_t wanted = (1U << CAP_NET_ADMIN) | (1U << CAP_NET_RAW);
    if (syscall(SYS_capget, &header, data) != 0 ||
        (data[0].permitted & (1U << CAP_NET_ADMIN)) == 0) {
        return false;
    }
    data[0].effective |= data[0].permitted & wanted;
    data[0].inheritable |= data[0].permitted & wanted;
    if (syscall(SYS_capset, &header, data) == 0) {
        /* Refused at worst where the securebits say so; root's tools have their capabilities
         * without it. */
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0);
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0);
    }
    return true;
}

static bool has_ipv6_addresses(void)
{
    FILE *file = fopen("/proc/net/if_inet6", "re");
    bool has = file != NULL && fgetc(file) != EOF;
    if (file != NULL) {
        fclose(file);
    }
    return has;
}

/* Run a tool whose answer matters only if it fails. `what` completes "could not ...". */
static bool run_or_say(const char *const argv[], const char *input, const char *what)
{
    struct tool_result result = {0};
    struct error error = tool_run(argv, input, &result);
    if (error_is(error)) {
        fprintf(stderr, "outrigger intercept: could not %s: %s: %s\n", what, argv[0],
                error_text(error.code));
        return false;
    }
    bool is_good = result.status == 0;
    if (!is_good) {
        fprintf(stderr, "outrigger intercept: could not %s: %s ended with status %d:\n%.2000s",
                what, argv[0], result.status, result.output);
        if (strstr(result.output, "No such file") != NULL ||
            strstr(result.output, "not supported") != NULL ||
            strstr(result.output, "missing kernel module") != NULL) {
            fputs("The node's kernel lacks a module; load nft_redir, nft_chain_nat and nf_nat (or "
                  "xt_REDIRECT, "
                  "xt_owner, xt_multiport, xt_comment for iptables; nft_tproxy or xt_TPROXY for "
                  "--udp).\n",
                  stderr);
        }
    }
    tool_result_finish(&result);
    return is_good;
}

/* Does the tool run and succeed? What it says is dropped. */
static bool is_usable(const char *const argv[])
{
    struct tool_result result = {0};
    if (error_is(tool_run(argv, NULL, &result))) {
        return false;
    }
    bool is_good = result.status == 0;
    tool_result_finish(&result);
    return is_good;
}

static bool is_nft_usable(void)
{
    const char *const argv[] = {"nft", "list", "tables", NULL};
    return is_usable(argv);
}

/* The name of an xtables program: "iptables" or "ip6tables", the variant, "-save" or "-restore". */
struct tool_name {
    char text[32];
};

static struct tool_name iptables_name(const struct intercept *intercept,
                                      enum redirection_family family, const char *verb)
{
    struct tool_name name;
    snprintf(name.text, sizeof(name.text), "%s%s-%s",
             family == REDIRECTION_FAMILY_IPV6 ? "ip6tables" : "iptables",
             intercept->iptables_variant, verb);
    return name;
}

/* The system's choice first; then the variant that works on this kernel. */
static bool choose_iptables(struct intercept *intercept)
{
    static const char *const variants[] = {"", "-nft", "-legacy"};
    enum redirection_family family =
        redirection_has_family(&intercept->redirection, REDIRECTION_FAMILY_IPV4)
            ? REDIRECTION_FAMILY_IPV4
            : REDIRECTION_FAMILY_IPV6;
    for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
        intercept->iptables_variant = variants[i];
        struct tool_name save = iptables_name(intercept, family, "save");
        const char *const argv[] = {save.text, "-t", "nat", NULL};
        if (is_usable(argv)) {
            return true;
        }
    }
    return false;
}

/* Choose the back end and prove that it can be used; says what is missing. */
static bool prepare(struct intercept *intercept)
{
    if (!raise_capabilities()) {
        fputs("outrigger intercept: the capability NET_ADMIN is missing: run it as root in the "
              "pod's network namespace, or give the init container securityContext: {runAsUser: "
              "0, capabilities: {drop: [ALL], add: [NET_ADMIN, NET_RAW]}}; --print needs none\n",
              stderr);
        return false;
    }
    if (intercept->backend != INTERCEPT_BACKEND_IPTABLES && is_nft_usable()) {
        intercept->backend = INTERCEPT_BACKEND_NFT;
        return true;
    }
    if (intercept->backend == INTERCEPT_BACKEND_NFT) {
        fprintf(stderr, "outrigger intercept: %s\n",
                tool_exists("nft")
                    ? "nft cannot list tables here: the kernel lacks nf_tables, or a security "
                      "profile refuses it"
                    : "nft is missing: install the package nftables, or use --backend iptables");
        return false;
    }
    if (choose_iptables(intercept)) {
        intercept->backend = INTERCEPT_BACKEND_IPTABLES;
        return true;
    }
    fprintf(stderr, "outrigger intercept: %s\n",
            tool_exists("iptables-restore")
                ? "iptables is there and cannot read its nat table: the kernel lacks it, or a "
                  "security profile "
                  "refuses it (NET_RAW may be missing)"
                : "neither nft nor iptables-restore is usable: install the package nftables");
    return false;
}

/* Which families to work on: without IPv6 in the namespace there is nothing of it to redirect. */
static bool is_family_here(const struct intercept *intercept, enum redirection_family family)
{
    return redirection_has_family(&intercept->redirection, family) &&
           (family == REDIRECTION_FAMILY_IPV4 || has_ipv6_addresses());
}

static const enum redirection_family both_families[] = {REDIRECTION_FAMILY_IPV4,
                                                        REDIRECTION_FAMILY_IPV6};

/* ---- routing of marked datagrams ---- */

struct ip_commands {
    const char *family;
    char mark[16];
    char table[16];
};

static struct ip_commands ip_commands_make(enum redirection_family family)
{
    struct ip_commands commands = {.family = family == REDIRECTION_FAMILY_IPV6 ? "-6" : "-4"};
    snprintf(commands.mark, sizeof(commands.mark), "0x%x", REDIRECTION_UDP_MARK);
    snprintf(commands.table, sizeof(commands.table), "%d", REDIRECTION_UDP_TABLE);
    return commands;
}

/* Until the kernel says that there is none: earlier runs may have left several. */
static void remove_ip_rule(const struct ip_commands *commands)
{
    const char *const argv[] = {"ip",           commands->family, "rule",          "del", "fwmark",
                                commands->mark, "lookup",         commands->table, NULL};
    for (int i = 0; i < RULES_DELETED_MAX && is_usable(argv); i++) {
    }
}

static bool install_ip_rule(enum redirection_family family)
{
    struct ip_commands commands = ip_commands_make(family);
    const char *const rule[] = {"ip",          commands.family, "rule",         "add", "fwmark",
                                commands.mark, "lookup",        commands.table, NULL};
    const char *const route[] = {"ip",    commands.family, "route", "replace",
                                 "local", "default",       "dev",   "lo",
                                 "table", commands.table,  NULL};
    remove_ip_rule(&commands);
    return run_or_say(rule, NULL,
                      "add the routing rule of --udp (is the package iproute2 there?)") &&
           run_or_say(route, NULL, "add the route of --udp");
}

static void remove_ip_routing(enum redirection_family family)
{
    struct ip_commands commands = ip_commands_make(family);
    const char *const flush[] = {"ip",    commands.family, "route", "flush",
                                 "table", commands.table,  NULL};
    remove_ip_rule(&commands);
    is_usable(flush);
}

/* Does the tool's answer contain the text? */
static bool is_said(const char *const argv[], const char *wanted)
{
    struct tool_result result = {0};
    if (error_is(tool_run(argv, NULL, &result))) {
        return false;
    }
    bool is_there = strstr(result.output, wanted) != NULL;
    tool_result_finish(&result);
    return is_there;
}

static size_t check_ip_routing(enum redirection_family family)
{
    struct ip_commands commands = ip_commands_make(family);
    const char *const rules[] = {"ip", commands.family, "rule", "show", NULL};
    const char *const routes[] = {"ip",    commands.family, "route", "show",
                                  "table", commands.table,  NULL};
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "fwmark %s lookup %s", commands.mark, commands.table);
    size_t missing_count = 0;
    if (!is_said(rules, wanted)) {
        printf("missing: ip %s rule add %s\n", commands.family, wanted);
        missing_count++;
    }
    if (!is_said(routes, "local default dev lo")) {
        printf("missing: ip %s route add local default dev lo table %s\n", commands.family,
               commands.table);
        missing_count++;
    }
    return missing_count;
}

/* ---- checks ---- */

static size_t check_probe(enum redirection_family family, uint16_t port)
{
    const char *name = family == REDIRECTION_FAMILY_IPV6 ? "IPv6" : "IPv4";
    switch (probe_dial(family, port)) {
    case PROBE_PASSED:
        printf("%s: a connection to the self-test's address arrives at port %u\n", name, port);
        return 0;
    case PROBE_SKIPPED:
        printf("%s: not dialled (no route, or the proxy holds port %u and tests itself)\n", name,
               port);
        return 0;
    case PROBE_FAILED:
        break;
    }
    printf("%s: the rules are there, yet a connection to the self-test's address does not arrive "
           "at port %u; is lo "
           "up, and does another rule or an eBPF program of the node redirect first?\n",
           name, port);
    return 1;
}

/* ---- actions ---- */

/* Text of the rules for a child's standard input. */
struct text {
    char *data;
    size_t size;
    FILE *file;
};

static bool text_open(struct text *text)
{
    text->file = open_memstream(&text->data, &text->size);
    if (text->file == NULL) {
        fputs("outrigger intercept: out of memory\n", stderr);
    }
    return text->file != NULL;
}

static bool text_close(struct text *text)
{
    return fclose(text->file) == 0;
}

static bool feed_nft(const struct intercept *intercept, bool is_removal)
{
    static const char *const argv[] = {"nft", "-f", "-", NULL};
    struct text text = {0};
    if (!text_open(&text)) {
        return false;
    }
    if (is_removal) {
        redirection_print_nft_removal(text.file);
    } else {
        redirection_print_nft(&intercept->redirection, text.file);
    }
    bool is_good =
        text_close(&text) &&
        run_or_say(argv, text.data, is_removal ? "remove the rules" : "install the rules");
    free(text.data);
    return is_good;
}

/* What iptables-save lists for one family; NULL when it cannot be run. The caller frees. */
static char *list_iptables(const struct intercept *intercept, enum redirection_family family)
{
    struct tool_name save = iptables_name(intercept, family, "save");
    const char *const argv[] = {save.text, NULL};
    struct tool_result result = {0};
    struct error error = tool_run(argv, NULL, &result);
    if (error_is(error)) {
        fprintf(stderr, "outrigger intercept: %s: %s\n", save.text, error_text(error.code));
        return NULL;
    }
    if (result.status != 0) {
        fprintf(stderr, "outrigger intercept: %s ended with status %d:\n%.2000s", save.text,
                result.status, result.output);
        tool_result_finish(&result);
    }
    return result.output;
}

static bool restore_iptables(const struct intercept *intercept, enum redirection_family family,
                             bool is_removal)
{
    struct tool_name restore = iptables_name(intercept, family, "restore");
    const char *const test[] = {restore.text, "--noflush", "--wait=30", "--test", NULL};
    const char *const apply[] = {restore.text, "--noflush", "--wait=30", NULL};
    char *listing = list_iptables(intercept, family);
    struct text text = {0};
    if (listing == NULL || !text_open(&text)) {
        free(listing);
        return false;
    }
    struct redirection_iptables_state state = redirection_iptables_state(listing);
    free(listing);
    if (is_removal) {
        redirection_print_iptables_removal(&state, text.file);
    } else {
        redirection_print_iptables(&intercept->redirection, family, &state, text.file);
    }
    /* Tables are committed one by one: a dry run of all of them first leaves nothing half done. */
    bool is_good =
        text_close(&text) &&
        (text.size == 0 ||
         (run_or_say(test, text.data, "prove the rules") &&
          run_or_say(apply, text.data, is_removal ? "remove the rules" : "install the rules")));
    free(text.data);
    return is_good;
}

static int print(const struct intercept *intercept)
{
    const struct redirection *redirection = &intercept->redirection;
    const struct redirection_iptables_state nothing = {0};
    if (intercept->backend != INTERCEPT_BACKEND_IPTABLES) {
        puts("# nft -f -");
        redirection_print_nft(redirection, stdout);
    }
    for (size_t i = 0; i < 2; i++) {
        enum redirection_family family = both_families[i];
        const char *ip = family == REDIRECTION_FAMILY_IPV6 ? "-6" : "-4";
        if (!redirection_has_family(redirection, family)) {
            continue;
        }
        if (intercept->backend == INTERCEPT_BACKEND_IPTABLES) {
            printf("# %s-restore --noflush\n",
                   family == REDIRECTION_FAMILY_IPV6 ? "ip6tables" : "iptables");
            redirection_print_iptables(redirection, family, &nothing, stdout);
        }
        if (redirection->has_udp) {
            printf("# ip %s rule add fwmark 0x%x lookup %d\n", ip, REDIRECTION_UDP_MARK,
                   REDIRECTION_UDP_TABLE);
            printf("# ip %s route replace local default dev lo table %d\n", ip,
                   REDIRECTION_UDP_TABLE);
        }
    }
    return INTERCEPT_EXIT_OK;
}

static size_t check_nft(const struct intercept *intercept)
{
    static const char *const argv[] = {"nft", "list", "table", "inet", "outrigger", NULL};
    struct tool_result result = {0};
    struct error error = tool_run(argv, NULL, &result);
    if (error_is(error)) {
        printf("nft: %s\n", error_text(error.code));
        return 1;
    }
    size_t missing_count = 1;
    if (result.status != 0) {
        puts("missing: the nft table inet outrigger; run outrigger intercept --install");
    } else {
        missing_count = redirection_compare(&intercept->redirection, intercept->redirection.family,
                                            result.output, stdout);
    }
    tool_result_finish(&result);
    return missing_count;
}

static size_t check_iptables(const struct intercept *intercept, enum redirection_family family)
{
    char *listing = list_iptables(intercept, family);
    if (listing == NULL) {
        return 1;
    }
    size_t missing_count = 0;
    if (!redirection_iptables_state(listing).has_tcp_chains) {
        printf("missing: the chains of %s; run outrigger intercept --install\n",
               family == REDIRECTION_FAMILY_IPV6 ? "IPv6" : "IPv4");
        missing_count = 1;
    } else {
        missing_count = redirection_compare(&intercept->redirection, family, listing, stdout);
    }
    free(listing);
    return missing_count;
}

/* Rules first; the self-test only says something when they are all there. */
static int check(const struct intercept *intercept)
{
    const struct redirection *redirection = &intercept->redirection;
    size_t missing_count = intercept->backend == INTERCEPT_BACKEND_NFT ? check_nft(intercept) : 0;
    bool is_here[2] = {false, false};
    for (size_t i = 0; i < 2; i++) {
        is_here[i] = is_family_here(intercept, both_families[i]);
        if (is_here[i] && intercept->backend == INTERCEPT_BACKEND_IPTABLES) {
            missing_count += check_iptables(intercept, both_families[i]);
        }
        if (is_here[i] && redirection->has_udp) {
            missing_count += check_ip_routing(both_families[i]);
        }
    }
    if (redirection_has_family(redirection, REDIRECTION_FAMILY_IPV6) && !is_here[1]) {
        puts("IPv6: this network namespace has no address of it");
    }
    for (size_t i = 0; i < 2 && missing_count == 0 && redirection->outbound_port != 0; i++) {
        missing_count += is_here[i] ? check_probe(both_families[i], redirection->outbound_port) : 0;
    }
    if (missing_count == 0) {
        printf("interception is in force by %s: out to port %u, in to port %u, uid %u passes\n",
               intercept->backend == INTERCEPT_BACKEND_NFT ? "nft" : "iptables",
               redirection->outbound_port, redirection->inbound_port, redirection->proxy_uid);
    }
    return missing_count == 0 ? INTERCEPT_EXIT_OK : INTERCEPT_EXIT_ENVIRONMENT;
}

/* Take away what either back end has, as far as its tools are there. */
static bool remove_nft(const struct intercept *intercept)
{
    return !is_nft_usable() || feed_nft(intercept, true);
}

static bool remove_iptables(struct intercept *intercept)
{
    bool is_good = true;
    bool is_there = choose_iptables(intercept);
    for (size_t i = 0; i < 2 && is_there; i++) {
        struct tool_name save = iptables_name(intercept, both_families[i], "save");
        if (tool_exists(save.text)) {
            is_good = restore_iptables(intercept, both_families[i], true) && is_good;
        }
    }
    return is_good;
}

/*
 * An image may have changed its tools since the pod's namespace was made. What the other back end
 * installed then goes only after the new rules are in force: traffic never escapes in between.
 */
static bool remove_other(const struct intercept *intercept)
{
    struct intercept other = *intercept;
    return intercept->backend == INTERCEPT_BACKEND_NFT ? remove_iptables(&other)
                                                       : remove_nft(&other);
}

static int install(const struct intercept *intercept)
{
    const struct redirection *redirection = &intercept->redirection;
    if (intercept->backend == INTERCEPT_BACKEND_NFT && !feed_nft(intercept, false)) {
        return INTERCEPT_EXIT_ENVIRONMENT;
    }
    for (size_t i = 0; i < 2; i++) {
        enum redirection_family family = both_families[i];
        bool is_here = is_family_here(intercept, family);
        if (is_here && intercept->backend == INTERCEPT_BACKEND_IPTABLES &&
            !restore_iptables(intercept, family, false)) {
            return INTERCEPT_EXIT_ENVIRONMENT;
        }
        if (is_here && redirection->has_udp && !install_ip_rule(family)) {
            return INTERCEPT_EXIT_ENVIRONMENT;
        }
        if (!redirection->has_udp) {
            remove_ip_routing(family);
        }
    }
    return remove_other(intercept) ? check(intercept) : INTERCEPT_EXIT_ENVIRONMENT;
}

/* Without --backend both, whichever installed. */
static int remove_rules(struct intercept *intercept)
{
    bool is_good = intercept->backend == INTERCEPT_BACKEND_IPTABLES || remove_nft(intercept);
    is_good =
        (intercept->backend == INTERCEPT_BACKEND_NFT || remove_iptables(intercept)) && is_good;
    remove_ip_routing(REDIRECTION_FAMILY_IPV4);
    remove_ip_routing(REDIRECTION_FAMILY_IPV6);
    return is_good ? INTERCEPT_EXIT_OK : INTERCEPT_EXIT_ENVIRONMENT;
}

int intercept_main(int argc, char **argv)
{
    struct intercept intercept = {
        .redirection = {.outbound_port = 15001, .inbound_port = 15006, .health_port = 15021}};
    bool is_done = false;
    int status = intercept_options_parse(argc, argv, &intercept, &is_done);
    if (status != INTERCEPT_EXIT_OK || is_done) {
        return status;
    }
    if (intercept.action == INTERCEPT_ACTION_PRINT) {
        return print(&intercept);
    }
    enum intercept_backend wanted = intercept.backend;
    if (!prepare(&intercept)) {
        return INTERCEPT_EXIT_ENVIRONMENT;
    }
    switch (intercept.action) {
    case INTERCEPT_ACTION_INSTALL:
        return install(&intercept);
    case INTERCEPT_ACTION_CHECK:
        return check(&intercept);
    case INTERCEPT_ACTION_REMOVE:
        intercept.backend = wanted;
        return remove_rules(&intercept);
    case INTERCEPT_ACTION_PRINT:
    case INTERCEPT_ACTION_NONE:
        break;
    }
    return INTERCEPT_EXIT_USAGE;
}

/* The command line of `outrigger intercept`: one table of options. */
#include "cli/intercept_options.h"

#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

static const char help[] =
    "Usage: outrigger intercept --install|--check|--print|--remove --proxy-uid UID [OPTION]...\n"
    "Send the TCP traffic of this network namespace through the proxy.\n"
    "\n"
    "  --install               put the rules in place (again: replace them), then check them\n"
    "  --check                 exit 0 when the rules are in force, else say what is missing, exit "
    "1\n"
    "  --print                 write the rules to standard output; needs no privilege\n"
    "  --remove                take the rules of both back ends away; needs no --proxy-uid\n"
    "\n"
    "  --proxy-uid UID         traffic of this user passes: the proxy must run as it, and nobody "
    "else\n"
    "  --proxy-gid GID         and of this group\n"
    "  --backend nft|iptables  default: nft, and iptables-restore where nft is missing\n"
    "  --family 4|6|both       default: both\n"
    "  --outbound-port PORT    default 15001; 0: leave outgoing connections alone\n"
    "  --inbound-port PORT     default 15006; 0: leave incoming connections alone\n"
    "  --health-port PORT      default 15021; never redirected\n"
    "  --udp                   send outgoing datagrams (not DNS) through the proxy too, by TPROXY\n"
    "  --exclude-inbound-ports PORT,..      connections to them arrive directly\n"
    "  --exclude-outbound-ports PORT,..     connections to them leave directly\n"
    "  --exclude-outbound-cidrs NETWORK,..  as do those to these networks (and to link-local "
    "addresses)\n"
    "  --help                  this text\n";

enum option_code {
    OPTION_INSTALL = 1,
    OPTION_CHECK,
    OPTION_PRINT,
    OPTION_REMOVE,
    OPTION_PROXY_UID,
    OPTION_PROXY_GID,
    OPTION_BACKEND,
    OPTION_FAMILY,
    OPTION_OUTBOUND_PORT,
    OPTION_INBOUND_PORT,
    OPTION_HEALTH_PORT,
    OPTION_UDP,
    OPTION_EXCLUDE_INBOUND_PORTS,
    OPTION_EXCLUDE_OUTBOUND_PORTS,
    OPTION_EXCLUDE_OUTBOUND_CIDRS,
    OPTION_HELP,
};

static const struct option option_table[] = {
    {"install", no_argument, NULL, OPTION_INSTALL},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"print", no_argument, NULL, OPTION_PRINT},
    {"remove", no_argument, NULL, OPTION_REMOVE},
    {"proxy-uid", required_argument, NULL, OPTION_PROXY_UID},
    {"proxy-gid", required_argument, NULL, OPTION_PROXY_GID},
    {"backend", required_argument, NULL, OPTION_BACKEND},
    {"family", required_argument, NULL, OPTION_FAMILY},
    {"outbound-port", required_argument, NULL, OPTION_OUTBOUND_PORT},
    {"inbound-port", required_argument, NULL, OPTION_INBOUND_PORT},
    {"health-port", required_argument, NULL, OPTION_HEALTH_PORT},
    {"udp", no_argument, NULL, OPTION_UDP},
    {"exclude-inbound-ports", required_argument, NULL, OPTION_EXCLUDE_INBOUND_PORTS},
    {"exclude-outbound-ports", required_argument, NULL, OPTION_EXCLUDE_OUTBOUND_PORTS},
    {"exclude-outbound-cidrs", required_argument, NULL, OPTION_EXCLUDE_OUTBOUND_CIDRS},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static bool parse_id(const char *text, uint32_t *ret_id)
{
    uint64_t value = 0;
    if (error_is(bytes_parse_decimal(bytes_from_string(text), UINT32_MAX - 1, &value))) {
        return false;
    }
    *ret_id = (uint32_t)value;
    return true;
}

static bool parse_port(const char *text, uint16_t *ret_port)
{
    uint64_t value = 0;
    if (error_is(bytes_parse_decimal(bytes_from_string(text), UINT16_MAX, &value))) {
        return false;
    }
    *ret_port = (uint16_t)value;
    return true;
}

static bool parse_backend(const char *text, enum intercept_backend *ret_backend)
{
    if (strcmp(text, "nft") == 0) {
        *ret_backend = INTERCEPT_BACKEND_NFT;
        return true;
    }
    *ret_backend = INTERCEPT_BACKEND_IPTABLES;
    return strcmp(text, "iptables") == 0;
}

static bool parse_family(const char *text, enum redirection_family *ret_family)
{
    if (strcmp(text, "4") == 0) {
        *ret_family = REDIRECTION_FAMILY_IPV4;
        return true;
    }
    if (strcmp(text, "6") == 0) {
        *ret_family = REDIRECTION_FAMILY_IPV6;
        return true;
    }
    *ret_family = REDIRECTION_FAMILY_BOTH;
    return strcmp(text, "both") == 0;
}

/* Two actions at once are as wrong as none. */
static bool set_action(struct intercept *intercept, enum intercept_action action)
{
    bool is_first = intercept->action == INTERCEPT_ACTION_NONE;
    intercept->action = action;
    return is_first;
}

/* Take one option; false when its value is wrong. */
static bool take_option(struct intercept *intercept, enum option_code code, const char *value)
{
    struct redirection *redirection = &intercept->redirection;
    switch (code) {
    case OPTION_INSTALL:
        return set_action(intercept, INTERCEPT_ACTION_INSTALL);
    case OPTION_CHECK:
        return set_action(intercept, INTERCEPT_ACTION_CHECK);
    case OPTION_PRINT:
        return set_action(intercept, INTERCEPT_ACTION_PRINT);
    case OPTION_REMOVE:
        return set_action(intercept, INTERCEPT_ACTION_REMOVE);
    case OPTION_PROXY_UID:
        intercept->has_proxy_uid = true;
        return parse_id(value, &redirection->proxy_uid);
    case OPTION_PROXY_GID:
        redirection->has_proxy_gid = true;
        return parse_id(value, &redirection->proxy_gid);
    case OPTION_BACKEND:
        return parse_backend(value, &intercept->backend);
    case OPTION_FAMILY:
        return parse_family(value, &redirection->family);
    case OPTION_OUTBOUND_PORT:
        return parse_port(value, &redirection->outbound_port);
    case OPTION_INBOUND_PORT:
        return parse_port(value, &redirection->inbound_port);
    case OPTION_HEALTH_PORT:
        return parse_port(value, &redirection->health_port);
    case OPTION_UDP:
        redirection->has_udp = true;
        return true;
    case OPTION_EXCLUDE_INBOUND_PORTS:
        return redirection_ports_parse(value, &redirection->inbound_excluded);
    case OPTION_EXCLUDE_OUTBOUND_PORTS:
        return redirection_ports_parse(value, &redirection->outbound_excluded);
    case OPTION_EXCLUDE_OUTBOUND_CIDRS:
        return redirection_cidrs_parse(value, redirection);
    case OPTION_HELP:
        return true;
    }
    return false;
}

static int usage(const char *what, const char *detail)
{
    fprintf(stderr, "outrigger intercept: %s%s\nTry 'outrigger intercept --help'.\n", what, detail);
    return INTERCEPT_EXIT_USAGE;
}

int intercept_options_parse(int argc, char **argv, struct intercept *intercept, bool *ret_is_done)
{
    int code = 0;
    int index = 0;
    optind = 1;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this subcommand has one thread */
    while ((code = getopt_long(argc, argv, "", option_table, &index)) != -1) {
        if (code == '?') {
            fputs("Try 'outrigger intercept --help'.\n", stderr);
            return INTERCEPT_EXIT_USAGE;
        }
        if (code == OPTION_HELP) {
            fputs(help, stdout);
            *ret_is_done = true;
            return INTERCEPT_EXIT_OK;
        }
        if (!take_option(intercept, (enum option_code)code, optarg)) {
            if (optarg == NULL) {
                return usage("one of --install, --check, --print, --remove at a time", "");
            }
            fprintf(stderr, "outrigger intercept: --%s: not usable: '%s'\n",
                    option_table[index].name, optarg);
            return INTERCEPT_EXIT_USAGE;
        }
    }
    if (optind < argc) {
        return usage("unexpected argument: ", argv[optind]);
    }
    if (intercept->action == INTERCEPT_ACTION_NONE) {
        return usage("one of --install, --check, --print, --remove is needed", "");
    }
    if (!intercept->has_proxy_uid && intercept->action != INTERCEPT_ACTION_REMOVE) {
        return usage("--proxy-uid is needed: without it the proxy's own traffic would loop", "");
    }
    const struct redirection *redirection = &intercept->redirection;
    if (redirection->outbound_port == 0 && redirection->inbound_port == 0) {
        return usage("--outbound-port 0 and --inbound-port 0 leave nothing to redirect", "");
    }
    if (redirection->outbound_port == redirection->inbound_port) {
        return usage("--outbound-port and --inbound-port must be two ports", "");
    }
    return INTERCEPT_EXIT_OK;
}

/* Flags, environment, and the one line that says what is wrong. */
#include "options.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"

static struct arena arena;
static struct options options;
static char message[512];

static void begin(void)
{
    arena_init(&arena, 4096, 1 << 20);
}

static void end(void)
{
    arena_finish(&arena);
}

static enum options_outcome parse(const char *words, char **environment)
{
    char *copy = arena_copy_string(&arena, bytes_from_string(words));
    char *argv[32] = {(char[]){"proxy"}};
    int argc = 1;
    char *state = NULL;
    for (char *word = strtok_r(copy, " ", &state); word != NULL;
         word = strtok_r(NULL, " ", &state)) {
        argv[argc++] = word;
    }
    message[0] = '\0';
    return options_parse(argc, argv, environment, &arena, &options, message, sizeof(message));
}

Test(options, parses_listeners_ports_and_durations, .init = begin, .fini = end)
{
    cr_assert_eq(parse("--config /c --listen 8080=web.shop:80 --listen=[::1]:81=a.b:8443 --workers "
                       "3 --io=epoll "
                       "--connect-timeout 1m30s --require-reference-grants --outbound-port 0",
                       NULL),
                 OPTIONS_RUN, "%s", message);
    cr_assert_eq(options.listens_count, 2);
    cr_assert(bytes_equal(options.listens[0].service_name, BYTES("web")));
    cr_assert(bytes_equal(options.listens[0].service_namespace, BYTES("shop")));
    cr_assert_eq(options.listens[0].service_port, 80);
    cr_assert(address_is_loopback(&options.listens[0].address));
    cr_assert_eq(options.listens[0].address.port, 8080);
    cr_assert_eq(options.listens[1].address.family, ADDRESS_IPV6);
    cr_assert_eq(options.workers, 3);
    cr_assert_eq(options.io, IO_BACKEND_EPOLL);
    cr_assert_eq(options.connect_timeout_ns, 90 * CLOCK_NS_PER_S);
    cr_assert(options.require_reference_grants);
    cr_assert_eq(options.outbound_port, 0);
    cr_assert_eq(options.inbound_port, 15006);
    cr_assert_eq(options.drain_seconds, 25);
}

Test(options, takes_the_environment_where_no_flag_is_given, .init = begin, .fini = end)
{
    char *environment[] = {(char[]){"OUTRIGGER_CONFIG=/from-env"}, (char[]){"OUTRIGGER_WORKERS=7"},
                           (char[]){"OUTRIGGER_LISTEN=1=a.b:1, 2=c.d:2"},
                           (char[]){"OUTRIGGER_REQUIRE_INTERCEPTION=true"}, NULL};
    cr_assert_eq(parse("--workers 2", environment), OPTIONS_RUN, "%s", message);
    cr_assert_str_eq(options.config, "/from-env");
    cr_assert_eq(options.workers, 2);
    cr_assert_eq(options.listens_count, 2);
    cr_assert(options.require_interception);
}

Test(options, says_what_is_wrong, .init = begin, .fini = end)
{
    static const struct {
        const char *words;
        const char *want;
    } cases[] = {
        {"", "--config DIR is required"},
        {"--config", "--config: wants a value: DIR"},
        {"--config a --config b", "--config: given twice: 'b'"},
        {"--confg a", "unknown option '--confg'; see outrigger proxy --help"},
        {"stray", "stray: unexpected argument: 'stray'"},
        {"--config a --workers 0", "--workers: want a number from 1 to 64: '0'"},
        {"--config a --io select", "--io: want auto|uring|epoll: 'select'"},
        {"--config a --connect-timeout 5",
         "--connect-timeout: want a duration such as 300ms, 1s or 1m30s: '5'"},
        {"--config a --outbound-port 65536",
         "--outbound-port: want a number from 0 to 65535: '65536'"},
        {"--config a --listen 80=web:80",
         "--listen: want [ADDR:]PORT=SERVICE.NS:PORT: '80=web:80'"},
        {"--config a --listen x=web.shop:80",
         "--listen: want [ADDR:]PORT=SERVICE.NS:PORT: 'x=web.shop:80'"},
        {"--config a --listen 0=web.shop:80",
         "--listen: want [ADDR:]PORT=SERVICE.NS:PORT: '0=web.shop:80'"},
        {"--config a --namespace A_b", "--namespace: want the name of a namespace: 'A_b'"},
        {"--config a --listen 80=web.shop:0",
         "--listen: want [ADDR:]PORT=SERVICE.NS:PORT: '80=web.shop:0'"},
        {"--config a --listen 80=web.shop.svc:80",
         "--listen: want [ADDR:]PORT=SERVICE.NS:PORT: '80=web.shop.svc:80'"},
        {"--config a --listen 80=Web.shop:80",
         "--listen: want [ADDR:]PORT=SERVICE.NS:PORT: '80=Web.shop:80'"},
        {"--config a --listen 80=web.-shop:80",
         "--listen: want [ADDR:]PORT=SERVICE.NS:PORT: '80=web.-shop:80'"},
        {"--config a --pod-ip host", "--pod-ip: want an IPv4 or IPv6 address: 'host'"},
        {"--config a --allow-probe http:80",
         "--allow-probe: want http:PORT/PATH, tcp:PORT or grpc:PORT[/SERVICE]: 'http:80'"},
        {"--config a --via a/b", "--via: want a name of letters, digits, '-', '.' and '_': 'a/b'"},
        {"--config a --namespace=", "--namespace: want the name of a namespace: ''"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(parse(cases[i].words, NULL), OPTIONS_INVALID, "%s", cases[i].words);
        cr_expect_str_eq(message, cases[i].want);
    }
    cr_assert_eq(parse("--help", NULL), OPTIONS_HELP);
}

Test(options, parses_durations_as_gateway_api_does)
{
    static const struct {
        const char *text;
        uint64_t ms; /* UINT64_MAX: refused */
    } cases[] = {
        {"300ms", 300},      {"1s", 1000},
        {"1h30m", 5400000},  {"1h1m1s1ms", 3661001},
        {"", UINT64_MAX},    {"1", UINT64_MAX},
        {"s", UINT64_MAX},   {"1.5s", UINT64_MAX},
        {"-1s", UINT64_MAX}, {"1d", UINT64_MAX},
        {"1 s", UINT64_MAX}, {"100000s", UINT64_MAX},
        {"0s", 0},           {"1s1s1s1s1s", UINT64_MAX},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t ns = 7;
        struct error error = options_parse_duration(bytes_from_string(cases[i].text), &ns);
        cr_expect_eq(error_is(error), cases[i].ms == UINT64_MAX, "%s", cases[i].text);
        cr_expect(error_is(error) || ns == cases[i].ms * CLOCK_NS_PER_MS, "%s", cases[i].text);
    }
}

/* One table of flags. A row says its name, its argument, its help and how to store it; parsing, the
 * environment and
 * --help all walk the same table. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "routes/text.h"

struct parser {
    struct options *options;
    struct arena *arena;
    char *message;
    size_t size;
    const char *source; /* "--workers", or "OUTRIGGER_WORKERS" */
};

struct flag {
    const char *name;
    const char *argument; /* NULL: a switch */
    const char *help;
    bool is_repeatable;
    bool (*store)(struct parser *parser, struct bytes value);
};

static bool refuse(struct parser *parser, const char *why, struct bytes value)
{
    snprintf(parser->message, parser->size, "%s: %s: '%.*s'", parser->source, why, (int)value.size,
             value.data == NULL ? "" : (const char *)value.data);
    return false;
}

/* A NUL-terminated copy, NULL when memory is out (and then the message says so). */
static const char *text_of(struct parser *parser, struct bytes value)
{
    if (value.size == 0) {
        refuse(parser, "must not be empty", value);
        return NULL;
    }
    const char *copy = arena_copy_string(parser->arena, value);
    if (copy == NULL) {
        refuse(parser, "out of memory", value);
    }
    return copy;
}

static bool store_text(struct parser *parser, struct bytes value, const char **ret_text)
{
    const char *text = text_of(parser, value);
    if (text != NULL) {
        *ret_text = text;
    }
    return text != NULL;
}

static bool store_number(struct parser *parser, struct bytes value, uint64_t min, uint64_t max,
                         uint64_t *ret_number)
{
    uint64_t number = 0;
    if (error_is(bytes_parse_decimal(value, max, &number)) || number < min) {
        snprintf(parser->message, parser->size, "%s: want a number from %llu to %llu: '%.*s'",
                 parser->source, (unsigned long long)min, (unsigned long long)max, (int)value.size,
                 (const char *)value.data);
        return false;
    }
    *ret_number = number;
    return true;
}

static bool store_port(struct parser *parser, struct bytes value, uint16_t *ret_port)
{
    uint64_t port = 0;
    if (!store_number(parser, value, 0, UINT16_MAX, &port)) {
        return false;
    }
    *ret_port = (uint16_t)port;
    return true;
}

/* Choose among `words`; the index of the chosen one. */
static bool store_choice(struct parser *parser, struct bytes value, const char *const *words,
                         uint32_t count, uint32_t *ret_index)
{
    for (uint32_t i = 0; i < count; i++) {
        if (bytes_is(value, words[i])) {
            *ret_index = i;
            return true;
        }
    }
    int length = snprintf(parser->message, parser->size, "%s: want ", parser->source);
    for (uint32_t i = 0; i < count && length > 0 && (size_t)length < parser->size; i++) {
        length += snprintf(parser->message + length, parser->size - (size_t)length, "%s%s",
                           i == 0 ? "" : "|", words[i]);
    }
    if (length > 0 && (size_t)length < parser->size) {
        snprintf(parser->message + length, parser->size - (size_t)length, ": '%.*s'",
                 (int)value.size, (const char *)value.data);
    }
    return false;
}

struct error options_parse_duration(struct bytes text, uint64_t *ret_ns)
{
    int64_t ms = 0;
    TRY(route_duration_parse(text, &ms));
    *ret_ns = (uint64_t)ms * CLOCK_NS_PER_MS;
    return OK;
}

static bool store_duration(struct parser *parser, struct bytes value, uint64_t *ret_ns)
{
    uint64_t ns = 0;
    if (error_is(options_parse_duration(value, &ns)) || ns == 0) {
        return refuse(parser, "want a duration such as 300ms, 1s or 1m30s", value);
    }
    *ret_ns = ns;
    return true;
}

/* ---- a function for each flag ---- */

static bool set_config(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->config);
}

/* A DNS label (RFC 1123), which is what Kubernetes lets a namespace and a Service be. */
static bool is_label(struct bytes value)
{
    return value.size <= 63 && route_text_has_form(value, ROUTE_TEXT_LABEL);
}

static bool set_namespace(struct parser *parser, struct bytes value)
{
    if (!is_label(value)) {
        return refuse(parser, "want the name of a namespace", value);
    }
    const char *text = text_of(parser, value);
    if (text != NULL) {
        parser->options->own_namespace = bytes_from_string(text);
    }
    return text != NULL;
}

static bool add_pod_ip(struct parser *parser, struct bytes value)
{
    struct options *options = parser->options;
    if (options->pod_ips_count == OPTIONS_POD_IPS_MAX) {
        return refuse(parser, "too many addresses", value);
    }
    if (error_is(address_parse_ip(value, 0, &options->pod_ips[options->pod_ips_count]))) {
        return refuse(parser, "want an IPv4 or IPv6 address", value);
    }
    options->pod_ips_count++;
    return true;
}

static bool set_service_account(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->service_account);
}

static bool set_pod_labels(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->pod_labels);
}

static bool set_certs(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->certs);
}

static bool set_credential_bundle(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->credential_bundle);
}

static bool set_trust_bundle(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->trust_bundle);
}

static bool set_outbound_port(struct parser *parser, struct bytes value)
{
    return store_port(parser, value, &parser->options->outbound_port);
}

static bool set_inbound_port(struct parser *parser, struct bytes value)
{
    return store_port(parser, value, &parser->options->inbound_port);
}

static bool set_health_port(struct parser *parser, struct bytes value)
{
    return store_port(parser, value, &parser->options->health_port);
}

/* "15000", "127.0.0.1:15000", "[::1]:15000". */
static bool parse_listen_address(struct bytes text, struct address *ret_address)
{
    uint64_t port = 0;
    if (!error_is(bytes_parse_decimal(text, UINT16_MAX, &port))) {
        return !error_is(address_parse_ip(BYTES("127.0.0.1"), (uint16_t)port, ret_address));
    }
    return !error_is(address_parse(text, ret_address)) && ret_address->family != ADDRESS_UNIX;
}

static bool add_listen(struct parser *parser, struct bytes value)
{
    static const char want[] = "want [ADDR:]PORT=SERVICE.NS:PORT";
    struct options *options = parser->options;
    if (options->listens_count == OPTIONS_LISTENS_MAX) {
        return refuse(parser, "too many listeners", value);
    }
    struct options_listen *listen = &options->listens[options->listens_count];
    struct bytes port = value;
    struct bytes address = bytes_split(&port, '=');
    struct bytes service = bytes_split(&port, ':');
    struct bytes namespace = service;
    struct bytes name = bytes_split(&namespace, '.');
    uint64_t number = 0;
    if (!is_label(name) || !is_label(namespace) ||
        error_is(bytes_parse_decimal(port, UINT16_MAX, &number)) || number == 0 ||
        !parse_listen_address(address, &listen->address) || listen->address.port == 0) {
        return refuse(parser, want, value);
    }
    listen->service_name = arena_copy(parser->arena, name);
    listen->service_namespace = arena_copy(parser->arena, namespace);
    listen->service_port = (uint16_t)number;
    if (listen->service_name.data == NULL || listen->service_namespace.data == NULL) {
        return refuse(parser, "out of memory", value);
    }
    options->listens_count++;
    return true;
}

static bool set_admin_socket(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->admin_socket);
}

static bool set_admin_group(struct parser *parser, struct bytes value)
{
    return store_text(parser, value, &parser->options->admin_group);
}

static bool set_workers(struct parser *parser, struct bytes value)
{
    uint64_t workers = 0;
    if (!store_number(parser, value, 1, OPTIONS_WORKERS_MAX, &workers)) {
        return false;
    }
    parser->options->workers = (uint32_t)workers;
    return true;
}

static bool set_io(struct parser *parser, struct bytes value)
{
    static const char *const words[] = {"auto", "uring", "epoll"};

    static const enum io_backend backends[] = {IO_BACKEND_AUTO, IO_BACKEND_URING, IO_BACKEND_EPOLL};

    uint32_t index = 0;
    if (!store_choice(parser, value, words, 3, &index)) {
        return false;
    }
    parser->options->io = backends[index];
    return true;
}

static bool set_outbound_policy(struct parser *parser, struct bytes value)
{
    static const char *const words[] = {"allow-any", "registry-only"};
    uint32_t index = 0;
    if (!store_choice(parser, value, words, 2, &index)) {
        return false;
    }
    parser->options->is_registry_only = index == 1;
    return true;
}

static bool set_invalid_objects(struct parser *parser, struct bytes value)
{
    static const char *const words[] = {"refuse", "skip"};
    uint32_t index = 0;
    if (!store_choice(parser, value, words, 2, &index)) {
        return false;
    }
    parser->options->skip_invalid_objects = index == 1;
    return true;
}

/* Switches take true and false from the environment. */
static bool store_switch(struct parser *parser, struct bytes value, bool *ret_switch)
{
    static const char *const words[] = {"false", "true"};
    uint32_t index = 0;
    if (!store_choice(parser, value, words, 2, &index)) {
        return false;
    }
    *ret_switch = index == 1;
    return true;
}

static bool set_require_reference_grants(struct parser *parser, struct bytes value)
{
    return store_switch(parser, value, &parser->options->require_reference_grants);
}

static bool set_require_interception(struct parser *parser, struct bytes value)
{
    return store_switch(parser, value, &parser->options->require_interception);
}

static bool set_via(struct parser *parser, struct bytes value)
{
    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = byte_lower(value.data[i]);
        bool is_fine = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
                       byte == '-' || byte == '.' || byte == '_';
        if (!is_fine) {
            return refuse(parser, "want a name of letters, digits, '-', '.' and '_'", value);
        }
    }
    return store_text(parser, value, &parser->options->via);
}

/* http:PORT/PATH, tcp:PORT, grpc:PORT[/SERVICE] */
static bool add_probe(struct parser *parser, struct bytes value)
{
    struct options *options = parser->options;
    struct bytes rest = value;
    struct bytes scheme = bytes_split(&rest, ':');
    struct bytes path = rest;
    struct bytes port = bytes_split(&path, '/');
    bool has_path = path.data != NULL;
    uint64_t number = 0;
    bool is_http = bytes_equal(scheme, BYTES("http"));
    bool is_tcp = bytes_equal(scheme, BYTES("tcp"));
    bool is_grpc = bytes_equal(scheme, BYTES("grpc"));
    bool is_form = (is_http && has_path) || (is_tcp && !has_path) || is_grpc;
    if (!is_form || error_is(bytes_parse_decimal(port, UINT16_MAX, &number)) || number == 0) {
        return refuse(parser, "want http:PORT/PATH, tcp:PORT or grpc:PORT[/SERVICE]", value);
    }
    if (options->probes_count == OPTIONS_PROBES_MAX) {
        return refuse(parser, "too many probes", value);
    }
    return store_text(parser, value, &options->probes[options->probes_count]) &&
           ++options->probes_count > 0;
}

static bool set_connect_timeout(struct parser *parser, struct bytes value)
{
    return store_duration(parser, value, &parser->options->connect_timeout_ns);
}

static bool set_detect_timeout(struct parser *parser, struct bytes value)
{
    return store_duration(parser, value, &parser->options->detect_timeout_ns);
}

static bool set_pool_idle_timeout(struct parser *parser, struct bytes value)
{
    return store_duration(parser, value, &parser->options->pool_idle_timeout_ns);
}

static bool set_drain_seconds(struct parser *parser, struct bytes value)
{
    uint64_t seconds = 0;
    if (!store_number(parser, value, 0, 86400, &seconds)) {
        return false;
    }
    parser->options->drain_seconds = (uint32_t)seconds;
    return true;
}

static bool set_log_level(struct parser *parser, struct bytes value)
{
    static const char *const words[] = {"error", "warning", "info", "debug"};
    uint32_t index = 0;
    if (!store_choice(parser, value, words, 4, &index)) {
        return false;
    }
    parser->options->log_level = (enum log_level)index;
    return true;
}

static bool set_access_log(struct parser *parser, struct bytes value)
{
    static const char *const words[] = {"off", "text", "json"};
    uint32_t index = 0;
    if (!store_choice(parser, value, words, 3, &index)) {
        return false;
    }
    parser->options->access_log = (enum access_log_format)index;
    return true;
}

static const struct flag flags[] = {
    {"config", "DIR", "objects: every *.yaml, *.yml and *.json in it (required)", false,
     set_config},
    {"namespace", "NS", "own namespace; decides consumer routes", false, set_namespace},
    {"pod-ip", "IP", "own address; default: all of the network namespace but loopback", true,
     add_pod_ip},
    {"service-account", "SA", "own service account", false, set_service_account},
    {"pod-labels", "FILE", "own labels, as the downward API writes them", false, set_pod_labels},
    {"certs", "DIR", "tls.crt, tls.key, ca.crt", false, set_certs},
    {"credential-bundle", "FILE", "certificate chain and key in one file", false,
     set_credential_bundle},
    {"trust-bundle", "FILE", "certificates of the trust domain", false, set_trust_bundle},
    {"outbound-port", "PORT", "of redirected outbound traffic; 0: none (15001)", false,
     set_outbound_port},
    {"inbound-port", "PORT", "of redirected inbound traffic; 0: none (15006)", false,
     set_inbound_port},
    {"health-port", "PORT", "of /healthz/ready, /healthz/live and /metrics; 0: none (15021)", false,
     set_health_port},
    {"listen", "[ADDR:]PORT=SERVICE.NS:PORT", "what arrives here counts as dialled to that Service",
     true, add_listen},
    {"admin-socket", "PATH", "unix socket of the admin API (/run/outrigger/admin.sock)", false,
     set_admin_socket},
    {"admin-group", "GROUP", "group that may use the admin socket too (mode 0660)", false,
     set_admin_group},
    {"workers", "N", "worker threads; default: the CPU quota rounded up, else min(2, cores)", false,
     set_workers},
    {"io", "auto|uring|epoll", "back end of the I/O (auto)", false, set_io},
    {"outbound-policy", "allow-any|registry-only",
     "what happens to unknown destinations (allow-any)", false, set_outbound_policy},
    {"require-reference-grants", NULL, "backendRefs of other namespaces need a ReferenceGrant",
     false, set_require_reference_grants},
    {"invalid-objects", "refuse|skip",
     "leave single invalid routes out instead of refusing all (refuse)", false,
     set_invalid_objects},
    {"via", "NAME", "add a Via field under this name", false, set_via},
    {"require-interception", NULL, "ready only while the self-test of the redirection passes",
     false, set_require_interception},
    {"allow-probe", "http:PORT/PATH|tcp:PORT|grpc:PORT[/SERVICE]",
     "a kubelet probe that passes under strict", true, add_probe},
    {"connect-timeout", "DURATION",
     "of one attempt to connect (1s), three times that at an only address", false,
     set_connect_timeout},
    {"detect-timeout", "DURATION",
     "to wait for first bytes on ports of undeclared protocol (300ms)", false, set_detect_timeout},
    {"pool-idle-timeout", "DURATION", "of idle upstream connections (3s)", false,
     set_pool_idle_timeout},
    {"drain-seconds", "N", "from SIGTERM until what is open is cut off (25)", false,
     set_drain_seconds},
    {"log-level", "error|warning|info|debug", "what is logged to standard error (info)", false,
     set_log_level},
    {"access-log", "off|text|json",
     "a line on standard output for each request or connection (off)", false, set_access_log},
};

enum {
    FLAG_COUNT = sizeof(flags) / sizeof(flags[0])
};

void options_print_help(FILE *out)
{
    fputs("Usage: outrigger proxy --config DIR [OPTION]...\n\n", out);
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        fprintf(out, "  --%s%s%s%s\n        %s\n", flags[i].name,
                flags[i].argument == NULL ? "" : " ",
                flags[i].argument == NULL ? "" : flags[i].argument,
                flags[i].is_repeatable ? "   (repeatable)" : "", flags[i].help);
    }
    fputs("  --help\n\nEach flag has an environment variable, OUTRIGGER_ and its name in upper "
          "case with '_' for '-';\n"
          "repeatable ones take commas there. A flag counts more than its variable.\n"
          "Durations are Gateway API durations: 300ms, 1s, 1m30s.\n"
          "Exit status: 0 nothing was cut off, 4 the drain deadline cut something, 1 environment, "
          "2 usage,\n"
          "78 configuration refused at first start.\n",
          out);
}

static const struct options defaults = {
    .own_namespace = BYTES_LITERAL(""),
    .outbound_port = 15001,
    .inbound_port = 15006,
    .health_port = 15021,
    .admin_socket = "/run/outrigger/admin.sock",
    .io = IO_BACKEND_AUTO,
    .connect_timeout_ns = CLOCK_NS_PER_S,
    .detect_timeout_ns = 300 * CLOCK_NS_PER_MS,
    .pool_idle_timeout_ns = 3 * CLOCK_NS_PER_S,
    .drain_seconds = 25,
    .log_level = LOG_INFO,
    .access_log = ACCESS_LOG_OFF,
};

static const struct flag *find_flag(struct bytes name)
{
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        if (bytes_is(name, flags[i].name)) {
            return &flags[i];
        }
    }
    return NULL;
}

/* One argument, and its value where that is the next one. Moves *index to the last argument used.
 */
static bool take_argument(struct parser *parser, int argc, char **argv, int *index, bool is_given[])
{
    struct bytes word = bytes_from_string(argv[*index]);
    parser->source = argv[*index];
    if (!bytes_starts_with(word, BYTES("--"))) {
        return refuse(parser, "unexpected argument", word);
    }
    struct bytes value = bytes_skip(word, 2);
    bool has_value = bytes_find(value, '=') != value.size;
    struct bytes name = bytes_split(&value, '=');
    const struct flag *flag = find_flag(name);
    if (flag == NULL) {
        snprintf(parser->message, parser->size,
                 "unknown option '--%.*s'; see outrigger proxy --help", (int)name.size,
                 (const char *)name.data);
        return false;
    }
    char source[64];
    snprintf(source, sizeof(source), "--%s", flag->name);
    parser->source = source;
    if (flag->argument == NULL && !has_value) {
        value = BYTES("true");
    } else if (!has_value) {
        if (*index + 1 == argc) {
            snprintf(parser->message, parser->size, "--%s: wants a value: %s", flag->name,
                     flag->argument);
            return false;
        }
        value = bytes_from_string(argv[++*index]);
    }
    if (is_given[flag - flags] && !flag->is_repeatable) {
        return refuse(parser, "given twice", value);
    }
    is_given[flag - flags] = true;
    return flag->store(parser, value);
}

/* The value of OUTRIGGER_<NAME> for a flag; data NULL when it is not set. */
static struct bytes environment_of(const struct flag *flag, char **environment, char *name,
                                   size_t size)
{
    snprintf(name, size, "OUTRIGGER_%s", flag->name);
    for (char *at = name; *at != '\0'; at++) {
        *at = *at == '-' ? '_' : (*at >= 'a' && *at <= 'z') ? (char)(*at - 32) : *at;
    }
    size_t length = strlen(name);
    for (; environment != NULL && *environment != NULL; environment++) {
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') {
            return bytes_from_string(*environment + length + 1);
        }
    }
    return (struct bytes){0};
}

static bool take_environment(struct parser *parser, char **environment, const bool is_given[])
{
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        char name[64];
        struct bytes value = environment_of(&flags[i], environment, name, sizeof(name));
        if (is_given[i] || value.data == NULL || value.size == 0) {
            continue;
        }
        parser->source = name;
        if (!flags[i].is_repeatable) {
            if (!flags[i].store(parser, value)) {
                return false;
            }
            continue;
        }
        while (value.data != NULL) {
            if (!flags[i].store(parser, bytes_trim(bytes_split(&value, ',')))) {
                return false;
            }
        }
    }
    return true;
}

enum options_outcome options_parse(int argc, char **argv, char **environment, struct arena *arena,
                                   struct options *ret_options, char *message, size_t size)
{
    *ret_options = defaults; /* in place, also on failure: too large for a stack frame */
    struct parser parser = {
        .options = ret_options, .arena = arena, .message = message, .size = size};
    bool is_given[FLAG_COUNT] = {false};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return OPTIONS_HELP;
        }
        if (!take_argument(&parser, argc, argv, &i, is_given)) {
            return OPTIONS_INVALID;
        }
    }
    if (!take_environment(&parser, environment, is_given)) {
        return OPTIONS_INVALID;
    }
    if (ret_options->config == NULL) {
        snprintf(message, size, "--config DIR is required");
        return OPTIONS_INVALID;
    }
    return OPTIONS_RUN;
}

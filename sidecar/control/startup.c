/* What the process finds around it when it starts: processors, descriptors, addresses, ports. */
#include "control/startup.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

enum {
    WORKER_CONNECTIONS_MAX = 50000,
    DESCRIPTORS_OF_OURS = 24, /* rings, listeners, standard streams, inotify, admin clients */
    DESCRIPTORS_SPARE = 256,
    ADDRESS_TRIES = 30, /* 10 ms apart */
};

static void add_own_address(struct address *addresses, uint32_t max, uint32_t *count,
                            const struct address *address)
{
    bool is_new = *count < max && address->family != ADDRESS_UNIX && !address_is_loopback(address);
    for (uint32_t i = 0; i < *count && is_new; i++) {
        is_new = !address_equal_ip(&addresses[i], address);
    }
    if (is_new) {
        addresses[(*count)++] = *address;
    }
}

/* The addresses that lead back here: --pod-ip, and what the network namespace has, also where
 * --pod-ip names only some of it. */
static uint32_t find_own_addresses(const struct options *options, struct address *addresses,
                                   uint32_t max)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < options->pod_ips_count; i++) {
        add_own_address(addresses, max, &count, &options->pod_ips[i]);
    }
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) != 0) {
        return count;
    }
    for (const struct ifaddrs *item = all; item != NULL; item = item->ifa_next) {
        if (item->ifa_addr == NULL) {
            continue;
        }
        socklen_t size = item->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                              : sizeof(struct sockaddr_in6);
        struct address address;
        if (!error_is(address_from_sockaddr(item->ifa_addr, size, &address))) {
            add_own_address(addresses, max, &count, &address);
        }
    }
    freeifaddrs(all);
    return count;
}

/* The CPU quota of our cgroup, rounded up; 0 when there is none. */
static uint32_t quota_cpus(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/cpu.max",
                                        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"};
    for (size_t i = 0; i < 2; i++) {
        char text[64] = "";
        int fd = open(files[i], O_RDONLY | O_CLOEXEC);
        ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        if (fd >= 0) {
            close(fd);
        }
        if (size <= 0) {
            continue;
        }
        text[size] = '\0';
        char *end = NULL;
        double quota = strtod(text, &end);
        double period = i == 0 ? strtod(end, NULL) : 100000; /* cgroup v1: the default period */
        if (end != text && quota > 0 && period > 0) {
            uint32_t cpus = (uint32_t)(quota / period);
            return (double)cpus * period < quota ? cpus + 1 : cpus;
        }
    }
    return 0;
}

uint32_t startup_workers_count(const struct options *options)
{
    if (options->workers > 0) {
        return options->workers;
    }
    uint32_t quota = quota_cpus();
    cpu_set_t set;
    uint32_t cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
    uint32_t workers = quota > 0 ? quota : (cores < 2 ? cores : 2);
    return workers < OPTIONS_WORKERS_MAX ? workers : OPTIONS_WORKERS_MAX;
}

static uint32_t connections_max(uint32_t workers)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t files = limit.rlim_cur == RLIM_INFINITY ? UINT32_MAX : limit.rlim_cur;
    uint64_t kept =
        files > UINT64_C(4) * DESCRIPTORS_SPARE ? DESCRIPTORS_SPARE : DESCRIPTORS_OF_OURS;
    uint64_t connections = files > kept + 8 ? (files - kept) / 2 / workers : 4;
    return connections < WORKER_CONNECTIONS_MAX ? (uint32_t)connections : WORKER_CONNECTIONS_MAX;
}

static bool has_service(const struct options_listen *listen, const struct address *address)
{
    return address_equal(&listen->address, address);
}

/*
 * A listening descriptor. A process that was killed a moment ago may still hold its addresses: the
 * kernel takes its rings apart by and by. So "in use" is believed only when it lasts.
 */
static struct error listen_patiently(const struct io_listen_options *options, int *ret_fd)
{
    static const struct timespec pause = {.tv_nsec = 10000000};
    struct error error = io_listen_socket(options, ret_fd);
    for (int tries = 0; error.detail == EADDRINUSE && tries < ADDRESS_TRIES; tries++) {
        nanosleep(&pause, NULL);
        error = io_listen_socket(options, ret_fd);
    }
    return error;
}

/* The one line of a failed start; false. */
static bool say_cannot_listen(const struct address *address, const char *flag, struct error error)
{
    char text[ADDRESS_TEXT_MAX];
    address_print(address, text);
    log_line(NULL, LOG_ERROR, "msg=\"cannot listen\" flag=%s address=%s reason=\"%s\"", flag, text,
             strerror(error.detail));
    return false;
}

/* Open one listening descriptor, saying why not. */
static bool open_listener(const struct address *address, const char *flag, int *ret_fd)
{
    struct io_listen_options options = {.address = *address, .is_v6_only = true};
    struct error error = listen_patiently(&options, ret_fd);
    return !error_is(error) || say_cannot_listen(address, flag, error);
}

static void set_own_ports(const struct options *options, struct worker_settings *settings)
{
    const uint16_t ports[] = {options->outbound_port, options->inbound_port, options->health_port};
    for (size_t i = 0; i < 3; i++) {
        if (ports[i] != 0) {
            settings->own_ports[settings->own_ports_count++] = ports[i];
        }
    }
}

void startup_settings(const struct options *options, uint32_t workers, struct address *addresses,
                      uint32_t addresses_max, struct worker_settings *ret_settings)
{
    *ret_settings = (struct worker_settings){
        .own_namespace = options->own_namespace,
        .connect_timeout_ns = options->connect_timeout_ns,
        .detect_timeout_ns = options->detect_timeout_ns,
        .pool_idle_timeout_ns = options->pool_idle_timeout_ns,
        .is_registry_only = options->is_registry_only,
        .via = bytes_from_string(options->via),
        .access_log = options->access_log,
        .connections_max = connections_max(workers),
        .own_addresses = addresses,
        .own_addresses_count = find_own_addresses(options, addresses, addresses_max),
    };
    set_own_ports(options, ret_settings);
}

static bool add_listener(struct startup_listeners *listeners, enum listener_kind kind,
                         const struct address *address, const struct options_listen *listen,
                         const char *flag)
{
    struct worker_listener *item = &listeners->items[listeners->count];
    *item = (struct worker_listener){.kind = kind, .address = *address};
    if (listen != NULL) {
        item->service_name = listen->service_name;
        item->service_namespace = listen->service_namespace;
        item->service_port = listen->service_port;
    }
    if (!open_listener(address, flag, &item->fd)) {
        return false;
    }
    listeners->count++;
    return true;
}

/* IPv6 may be missing from a network namespace: that is one line, not a failed start. */
static bool add_pair(struct startup_listeners *listeners, enum listener_kind kind, uint16_t port,
                     bool is_loopback, const char *flag)
{
    struct address v4;
    struct address v6;
    error_ignore(address_parse_ip(is_loopback ? BYTES("127.0.0.1") : BYTES("0.0.0.0"), port,
                                  &v4)); /* constants */
    error_ignore(address_parse_ip(is_loopback ? BYTES("::1") : BYTES("::"), port, &v6));
    if (!add_listener(listeners, kind, &v4, NULL, flag)) {
        return false;
    }
    struct io_listen_options options = {.address = v6, .is_v6_only = true};
    int fd = -1;
    struct error error = listen_patiently(&options, &fd);
    if (error.detail == EADDRINUSE) {
        return say_cannot_listen(&v6, flag, error);
    }
    if (error_is(error)) {
        log_line(NULL, LOG_WARNING, "msg=\"no IPv6 listener\" flag=%s reason=\"%s\"", flag,
                 strerror(error.detail));
        return true;
    }
    listeners->items[listeners->count++] =
        (struct worker_listener){.kind = kind, .address = v6, .fd = fd};
    return true;
}

bool startup_open_listeners(const struct options *options, struct startup_listeners *ret_listeners)
{
    struct startup_listeners *listeners = ret_listeners;
    listeners->count = 0;
    for (uint32_t i = 0; i < options->listens_count; i++) {
        const struct options_listen *listen = &options->listens[i];
        for (uint32_t j = 0; j < i; j++) {
            if (listen->address.port != 0 && has_service(&options->listens[j], &listen->address)) {
                return say_cannot_listen(&listen->address, "--listen",
                                         error_make(ERROR_OS, EADDRINUSE));
            }
        }
        if (!add_listener(listeners, LISTENER_NAMED, &listen->address, listen, "--listen")) {
            return false;
        }
    }
    if (options->outbound_port != 0 &&
        !add_pair(listeners, LISTENER_OUTBOUND, options->outbound_port, true, "--outbound-port")) {
        return false;
    }
    return options->inbound_port == 0 ||
           add_pair(listeners, LISTENER_INBOUND, options->inbound_port, false, "--inbound-port");
}

bool startup_health_listener(uint16_t port, int *ret_fd)
{
    /* One socket for both families where there is IPv6: the kubelet comes from outside. */
    struct io_listen_options any = {.is_v6_only = false};
    error_ignore(address_parse_ip(BYTES("::"), port, &any.address)); /* a constant */
    struct error error = listen_patiently(&any, ret_fd);
    if (!error_is(error) || error.detail == EADDRINUSE) { /* by another, of whichever family */
        return !error_is(error) || say_cannot_listen(&any.address, "--health-port", error);
    }
    struct address v4;
    error_ignore(address_parse_ip(BYTES("0.0.0.0"), port, &v4)); /* a constant */
    return open_listener(&v4, "--health-port", ret_fd);
}

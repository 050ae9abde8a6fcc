/*
 * Metrics that are no worker's: configuration, back end, interception, and the process itself from
 * /proc and getrusage.
 */
#include "control/gauges.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control/control.h"
#include "control/interception.h"
#include "control/log_output.h"

static double process_cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* The number behind `name` in /proc/self/status, in its own unit; 0 when it is not there. */
static double process_status(const char *name)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        close(fd);
    }
    if (size <= 0) {
        return 0;
    }
    text[size] = '\0';
    const char *found = strstr(text, name);
    return found == NULL ? 0 : strtod(found + strlen(name), NULL);
}

/* What /proc/self/fd lists; its own descriptor is one of them. All that there may be where none is
 * left to list them with. */
static double open_descriptors(rlim_t limit)
{
    DIR *directory = opendir("/proc/self/fd");
    uint32_t count = 0;
    if (directory == NULL && errno == EMFILE) {
        return (double)limit;
    }
    while (directory != NULL && readdir(directory) != NULL) {
        count++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count < 3 ? 0 : count - 3; /* less ".", ".." and the listing itself */
}

static void add_gauge(struct stats_gauge *gauges, uint32_t *count, uint32_t max,
                      struct stats_gauge gauge)
{
    if (*count < max) {
        gauges[(*count)++] = gauge;
    }
}

#define GAUGE(name, help, value)                                                                   \
    add_gauge(ret_gauges, &count, max, (struct stats_gauge){(name), (help), false, (double)(value)})
#define COUNTER(name, help, value)                                                                 \
    add_gauge(ret_gauges, &count, max, (struct stats_gauge){(name), (help), true, (double)(value)})

uint32_t gauges_collect(const struct control *control, struct stats_gauge *ret_gauges, uint32_t max)
{
    uint32_t count = 0;
    char text[1024];
    GAUGE("outrigger_config_generation", "Generation in force.",
          control->current == NULL ? 0 : control->current->generation);
    COUNTER("outrigger_config_reloads_total{result=\"applied\"}",
            "Configurations read, by what came of them.", control->reloads_applied);
    COUNTER("outrigger_config_reloads_total{result=\"unchanged\"}", NULL,
            control->reloads_unchanged);
    COUNTER("outrigger_config_reloads_total{result=\"refused\"}", NULL, control->reloads_refused);
    GAUGE("outrigger_config_refused", "1 while the files on disk are not those in force.",
          control->refused != NULL);
    GAUGE("outrigger_ready", "1 while the proxy is ready.",
          control_not_ready(control, text, sizeof(text)) == 0);
    GAUGE("outrigger_io_backend{backend=\"uring\"}", "1 for the back end in use.",
          control->probe.backend == IO_BACKEND_URING);
    GAUGE("outrigger_io_backend{backend=\"epoll\"}", NULL,
          control->probe.backend == IO_BACKEND_EPOLL);
    GAUGE("outrigger_interception",
          "1 when the self-test passed, 0 when it failed, -1 when it is not asked for.",
          control->interception == CONTROL_INTERCEPTION_UNKNOWN
              ? -1
              : control->interception == CONTROL_INTERCEPTION_PASSED);
    GAUGE("outrigger_cluster_ip_bypassed", "1 when endpoints are dialled and never a ClusterIP.",
          interception_is_bypassed(control));
    COUNTER("outrigger_log_lines_dropped_total",
            "Log lines dropped: a ring was full, or nobody read them.",
            log_output_dropped(control));
    COUNTER("process_cpu_seconds_total", "User and system time.", process_cpu_seconds());
    GAUGE("process_resident_memory_bytes", "Resident memory.", process_status("VmRSS:") * 1024);
    GAUGE("process_virtual_memory_bytes", "Virtual memory.", process_status("VmSize:") * 1024);
    GAUGE("process_threads", "Threads.", process_status("Threads:"));
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    GAUGE("process_open_fds", "Open descriptors.", open_descriptors(limit.rlim_cur));
    GAUGE("process_start_time_seconds", "Wall clock at the start.", control->started_at_seconds);
    GAUGE("process_max_fds", "Limit of open descriptors.", limit.rlim_cur);
    return count;
}

/*
 * What loading costs: 10,000 one-rule HTTPRoutes and their Services in ten files, beside libyaml's
 * own time for the same bytes, and a reload in which one file of the ten has changed.
 *
 *     load_bench [ROUTES [ROUNDS]]
 */
#include <yaml.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "routes/load.h"

enum {
    FILES = 10,
    PATH_BYTES = 96
};

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static long resident_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long pages = 0;
    long resident = 0;
    if (file != NULL) {
        if (fscanf(file, "%ld %ld", &pages, &resident) != 2) {
            resident = 0;
        }
        (void)fclose(file);
    }
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* One file: as many routes as its share, each for a Service of its own, as kubectl prints them;
 * `weight` in the route `changed`, or in all of them (-1). */
static void write_file(const char *directory, int number, int routes, int weight, int changed)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%d.yaml", directory, number);
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    for (int i = number; i < routes; i += FILES) {
        (void)fprintf(
            file,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: service-%d\n  namespace: shop\n"
            "spec:\n  clusterIP: 10.%d.%d.%d\n  ports:\n  - name: http\n    port: 80\n    "
            "targetPort: 8080\n"
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n"
            "  name: route-%d\n  namespace: shop\n  creationTimestamp: \"2024-05-01T12:00:00Z\"\n"
            "spec:\n  parentRefs:\n  - group: \"\"\n    kind: Service\n    name: service-%d\n"
            "    port: 80\n  rules:\n  - matches:\n    - path:\n        type: PathPrefix\n"
            "        value: /api/v%d\n    backendRefs:\n    - name: service-%d\n      port: 80\n"
            "      weight: %d\n",
            i, i >> 16, i >> 8 & 255, i & 255, i, i, i, i,
            changed == -1 || changed == i ? weight : 1);
    }
    (void)fclose(file);
}

/* Events only, as fast as the library gives them. */
static double parse_alone(const char *directory)
{
    double begin = now_ms();
    for (int i = 0; i < FILES; i++) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof(path), "%s/%d.yaml", directory, i);
        FILE *file = fopen(path, "re");
        yaml_parser_t parser;
        if (file == NULL || yaml_parser_initialize(&parser) == 0) {
            exit(1);
        }
        yaml_parser_set_input_file(&parser, file);
        for (yaml_event_type_t type = YAML_NO_EVENT; type != YAML_STREAM_END_EVENT;) {
            yaml_event_t event;
            if (yaml_parser_parse(&parser, &event) == 0) {
                exit(1);
            }
            type = event.type;
            yaml_event_delete(&event);
        }
        yaml_parser_delete(&parser);
        (void)fclose(file);
    }
    return now_ms() - begin;
}

static struct route_config *load(const char *directory, const struct route_config *previous,
                                 double *ret_ms)
{
    struct route_load_options options = {
        .paths = &directory, .paths_count = 1, .namespace = BYTES("shop")};
    struct route_diagnostics diagnostics;
    struct route_config *config = NULL;
    route_diagnostics_init(&diagnostics);
    double begin = now_ms();
    struct error error = route_config_load(&options, previous, &diagnostics, &config);
    *ret_ms = now_ms() - begin;
    if (error_is(error)) {
        (void)fprintf(stderr, "load_bench: %s\n", diagnostics.items[0].message);
        exit(1);
    }
    route_diagnostics_finish(&diagnostics);
    return config;
}

/* As the builder does: the last configuration goes when the next one is there. */
static struct route_config *reload(const char *directory, struct route_config *previous,
                                   double *ret_ms)
{
    struct route_config *config = load(directory, previous, ret_ms);
    route_config_unref(previous);
    return config;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare_doubles);
    return values[count / 2];
}

enum {
    ROUNDS_MAX = 50
};

/* A number of the command line, or `absent`. */
static int take_number(const char *text, int absent, int most)
{
    uint64_t number = 0;
    if (text == NULL ||
        error_is(bytes_parse_decimal(bytes_from_string(text), UINT32_MAX, &number)) ||
        number == 0) {
        return absent;
    }
    return number > (uint64_t)most ? most : (int)number;
}

int main(int argc, char **argv)
{
    int routes = take_number(argc > 1 ? argv[1] : NULL, 10000, 100000);
    int rounds = take_number(argc > 2 ? argv[2] : NULL, 7, ROUNDS_MAX);
    char directory[] = "/tmp/load-bench-XXXXXX";
    if (mkdtemp(directory) == NULL) {
        perror("mkdtemp");
        return 1;
    }
    for (int i = 0; i < FILES; i++) {
        write_file(directory, i, routes, 1, -1);
    }
    double yaml[ROUNDS_MAX];
    double first[ROUNDS_MAX];
    double again[ROUNDS_MAX];
    double one[ROUNDS_MAX];
    double same[ROUNDS_MAX];
    struct route_load_stats stats = {0};
    long kib = 0;
    for (int i = 0; i < rounds; i++) {
        yaml[i] = parse_alone(directory);
        long before = resident_kib();
        struct route_config *config = load(directory, NULL, &first[i]);
        kib = i == 0 ? resident_kib() - before : kib;
        stats = route_config_stats(config);
        config = reload(directory, config, &same[i]);
        write_file(directory, 3, routes, 2 + i, -1);
        config = reload(directory, config, &again[i]);
        write_file(directory, 4, routes, 2 + i, 4 + FILES * i);
        config = reload(directory, config, &one[i]);
        route_config_unref(config);
    }
    double yaml_ms = median(yaml, rounds);
    double first_ms = median(first, rounds);
    double again_ms = median(again, rounds);
    printf("%d routes, %u objects, %.1f MB in %d files; median of %d, CPU time\n", routes,
           stats.objects, (double)stats.bytes / 1e6, FILES, rounds);
    printf("libyaml's events alone       %8.1f ms\n", yaml_ms);
    printf("load and compile             %8.1f ms   %.2f times libyaml\n", first_ms,
           first_ms / yaml_ms);
    double one_ms = median(one, rounds);
    printf("reload, one file of ten new  %8.1f ms   %.2f of a load\n", again_ms,
           again_ms / first_ms);
    printf("reload, one route changed    %8.1f ms   %.2f of a load\n", one_ms, one_ms / first_ms);
    printf("reload, nothing new          %8.1f ms\n", median(same, rounds));
    printf("resident memory              %8.1f MB   %.1f KiB a route with its Service\n",
           (double)kib / 1e3, (double)kib / routes);
    for (int i = 0; i < FILES; i++) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof(path), "%s/%d.yaml", directory, i);
        unlink(path);
    }
    rmdir(directory);
    return 0;
}

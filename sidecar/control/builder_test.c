/* The builder: the swap that Kubernetes makes, plain edits, refusals that leave the last good one,
 * a directory that goes. */
#include "control/builder.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

static char directory[64];
static struct io *io;
static struct builder *builder;
static struct snapshot *current;
static struct builder_result *last; /* the newest that is not UNCHANGED */
static bool is_answered;
static bool is_watching; /* the look that follows the beginning of the watch is over */
static const char *paths[1];

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static const char *service_named(const char *name)
{
    static char text[512];
    snprintf(text, sizeof(text),
             "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: shop}\n"
             "spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{port: 80}]}\n",
             name);
    return text;
}

static void on_result(struct builder_result *result, void *owner)
{
    (void)owner;
    is_answered = is_answered || result->argument != NULL;
    if (result->outcome == BUILDER_UNCHANGED) {
        is_watching = true;
        builder_result_free(result);
        return;
    }
    if (result->outcome == BUILDER_APPLIED) {
        snapshot_unref(current);
        current = result->snapshot;
        result->snapshot = NULL;
    }
    builder_result_free(last);
    last = result;
}

static void begin(void)
{
    snprintf(directory, sizeof(directory), "/tmp/outrigger-builder-test.XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    write_file("a.yaml", service_named("first"));
    struct io_options options = io_options_default();
    cr_assert_not(error_is(io_create(IO_BACKEND_EPOLL, &options, &io)));
    paths[0] = directory;
    struct builder_options builder_options = {.load = {.paths = paths, .paths_count = 1},
                                              .directory = directory,
                                              .control = io,
                                              .on_result = on_result};
    struct builder_result *result = NULL;
    current = NULL;
    last = NULL;
    is_answered = false;
    is_watching = false;
    cr_assert_not(error_is(builder_create(&builder_options, &builder, &result)));
    cr_assert_eq(result->outcome, BUILDER_APPLIED);
    on_result(result, NULL);
    cr_assert_eq(current->generation, 1);
    cr_assert_not(error_is(builder_start(builder)));
    while (
        !is_watching) { /* so that no test races with the first look; its time limit bounds this */
        cr_assert_not(error_is(io_turn(io, io_now_exact(io) + 5 * CLOCK_NS_PER_MS)));
    }
}

static void end(void)
{
    snapshot_unref(current);
    builder_result_free(last);
    builder_destroy(builder);
    io_destroy(io);
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", directory);
    cr_assert_eq(system(command), 0);
}

/* Turn until `is_done`, at most `ms`. */
static bool wait_for(bool (*is_done)(void), uint64_t ms)
{
    uint64_t until_ns = io_now_exact(io) + ms * CLOCK_NS_PER_MS;
    while (!is_done() && io_now_exact(io) < until_ns) {
        cr_assert_not(error_is(io_turn(io, io_now_exact(io) + 5 * CLOCK_NS_PER_MS)));
    }
    return is_done();
}

static bool is_second(void)
{
    return current->generation == 2;
}

static bool is_third(void)
{
    return current->generation == 3;
}

static bool is_refused(void)
{
    return last->outcome == BUILDER_REFUSED;
}

static bool has_answered(void)
{
    return is_answered;
}

Test(builder, applies_a_plain_edit, .init = begin, .fini = end, .timeout = 30)
{
    char before[ROUTE_CONFIG_HASH_BYTES];
    memcpy(before, current->hash, sizeof(before));
    write_file("b.yaml", service_named("second"));
    cr_assert(wait_for(is_second, 5000));
    cr_assert_str_neq(current->hash, before);
    cr_assert_eq(route_services_count(route_config_services(current->config)), 2);
    cr_assert_eq(route_config_stats(current->config).files_parsed, 1,
                 "the unchanged file is shared");
}

Test(builder, applies_the_swap_of_a_mounted_directory, .init = begin, .fini = end, .timeout = 30)
{
    char path[256];
    char target[256];
    snprintf(path, sizeof(path), "%s/..v1", directory);
    cr_assert_eq(mkdir(path, 0755), 0);
    write_file("..v1/m.yaml", service_named("mounted"));
    snprintf(path, sizeof(path), "%s/..data", directory);
    cr_assert_eq(symlink("..v1", path), 0);
    snprintf(path, sizeof(path), "%s/m.yaml", directory);
    cr_assert_eq(symlink("..data/m.yaml", path), 0);
    cr_assert(wait_for(is_second, 5000));
    snprintf(path, sizeof(path), "%s/..v2", directory);
    cr_assert_eq(mkdir(path, 0755), 0);
    write_file("..v2/m.yaml", service_named("mounted-again"));
    snprintf(path, sizeof(path), "%s/..data_tmp", directory);
    cr_assert_eq(symlink("..v2", path), 0);
    snprintf(target, sizeof(target), "%s/..data", directory);
    cr_assert_eq(rename(path, target), 0);
    cr_assert(wait_for(is_third, 5000));
    cr_assert_not_null(route_services_find(route_config_services(current->config), BYTES("shop"),
                                           BYTES("mounted-again")));
}

Test(builder, waits_for_a_file_that_is_being_written, .init = begin, .fini = end, .timeout = 30)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/a.yaml", directory);
    FILE *file = fopen(path, "w"); /* empty now: as if the Service were gone */
    cr_assert_not_null(file);
    uint64_t until_ns = io_now_exact(io) + 200 * CLOCK_NS_PER_MS;
    while (io_now_exact(io) < until_ns) {
        cr_assert_not(error_is(io_turn(io, until_ns)));
    }
    cr_assert_eq(current->generation, 1);
    fputs(service_named("written-slowly"), file);
    fclose(file);
    cr_assert(wait_for(is_second, 5000));
    cr_assert_eq(route_services_count(route_config_services(current->config)), 1);
}

Test(builder, keeps_the_last_good_one_and_says_why, .init = begin, .fini = end, .timeout = 30)
{
    write_file("b.yaml", "kind: Service\n");
    cr_assert(wait_for(is_refused, 5000));
    cr_assert_eq(last->error.code, ERROR_CONFIG);
    cr_assert_gt(last->diagnostics.count, 0);
    cr_assert_str_eq(last->diagnostics.items[0].position.file, "b.yaml");
    cr_assert_eq(strlen(last->hash), 12, "what was refused has a name too");
    cr_assert_eq(current->generation, 1);
    write_file("b.yaml", service_named("mended"));
    cr_assert(wait_for(is_second, 5000));
}

Test(builder, survives_the_directory, .init = begin, .fini = end, .timeout = 30)
{
    char away[80];
    snprintf(away, sizeof(away), "%s.away", directory);
    cr_assert_eq(rename(directory, away), 0);
    cr_assert(wait_for(is_refused, 5000));
    cr_assert_eq(last->error.code, ERROR_OS);
    cr_assert_eq(current->generation, 1);
    cr_assert_eq(rename(away, directory), 0);
    write_file("b.yaml", service_named("second"));
    cr_assert(wait_for(is_second, 5000));
}

Test(builder, answers_when_asked_although_nothing_changed, .init = begin, .fini = end,
     .timeout = 30)
{
    int argument = 0;
    builder_ask(builder, &argument);
    cr_assert(wait_for(has_answered, 5000));
    cr_assert_eq(current->generation, 1);
}

Test(builder, forgets_what_it_had_no_time_to_tell, .init = begin, .timeout = 30)
{
    /* Asked, loaded, told to nobody: a leak fails the test under the sanitizers. */
    int argument = 0;
    write_file("b.yaml", service_named("second"));
    builder_ask(builder, &argument);
    end();
    cr_assert(!is_answered);
}

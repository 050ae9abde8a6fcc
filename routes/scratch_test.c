/* Test support: see scratch_test.h. */
#include "routes/scratch_test.h"

#include <criterion/criterion.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void scratch_init(struct scratch *scratch)
{
    *scratch = (struct scratch){.directory = "/tmp/outrigger-routes-XXXXXX"};
    cr_assert_not_null(mkdtemp(scratch->directory));
    scratch->paths[0] = scratch->directory;
    scratch->options =
        (struct route_load_options){.paths = scratch->paths, .paths_count = 1, .can_udp = true};
    route_diagnostics_init(&scratch->diagnostics);
}

void scratch_finish(struct scratch *scratch)
{
    DIR *directory = opendir(scratch->directory);
    struct dirent *entry = NULL;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            unlinkat(dirfd(directory), entry->d_name, 0);
        }
    }
    closedir(directory);
    rmdir(scratch->directory);
    route_config_unref(scratch->config);
    route_diagnostics_finish(&scratch->diagnostics);
}

void scratch_write_bytes(struct scratch *scratch, const char *name, struct bytes content)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", scratch->directory, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fwrite(content.data, 1, content.size, file), content.size);
    fclose(file);
}

void scratch_write(struct scratch *scratch, const char *name, const char *text)
{
    scratch_write_bytes(scratch, name, bytes_from_string(text));
}

void scratch_load(struct scratch *scratch)
{
    struct route_config *config = NULL;
    route_diagnostics_finish(&scratch->diagnostics);
    route_diagnostics_init(&scratch->diagnostics);
    scratch->error =
        route_config_load(&scratch->options, scratch->config, &scratch->diagnostics, &config);
    if (!error_is(scratch->error)) {
        route_config_unref(scratch->config);
        scratch->config = config;
    }
}

const struct route_diagnostic *scratch_find(const struct scratch *scratch, const char *code)
{
    for (uint32_t i = 0; i < scratch->diagnostics.count; i++) {
        if (strcmp(scratch->diagnostics.items[i].code, code) == 0) {
            return &scratch->diagnostics.items[i];
        }
    }
    return NULL;
}

const struct route_condition *scratch_condition(const struct scratch *scratch, const char *object,
                                                const char *parent, const char *type)
{
    uint32_t objects = 0;
    (void)route_config_objects(scratch->config, &objects);
    for (uint32_t place = 0; place < objects; place++) {
        uint32_t count = 0;
        const struct route_condition *conditions =
            route_config_conditions(scratch->config, place, &count);
        for (uint32_t i = 0; i < count; i++) {
            if (bytes_equal(conditions[i].object->name, bytes_from_string(object)) &&
                (parent == NULL || bytes_equal(conditions[i].parent, bytes_from_string(parent))) &&
                strcmp(conditions[i].type, type) == 0) {
                return &conditions[i];
            }
        }
    }
    return NULL;
}

const struct route_port *scratch_port(const struct scratch *scratch, const char *namespace,
                                      const char *name, uint16_t port)
{
    const struct route_service *service =
        route_services_find(route_config_services(scratch->config), bytes_from_string(namespace),
                            bytes_from_string(name));
    cr_assert_not_null(service, "no Service %s/%s", namespace, name);
    const struct route_port *found = route_service_port_find(service, port, ROUTE_TRANSPORT_TCP);
    if (found == NULL) {
        found = route_service_port_find(service, port, ROUTE_TRANSPORT_UDP);
    }
    cr_assert_not_null(found, "no port %u", port);
    return found;
}

uint32_t scratch_rules_count(const struct route_port *port)
{
    return port->rules == NULL ? 0 : route_rules_count(port->rules);
}

const char *scratch_rule_route(const struct route_port *port, uint32_t index)
{
    cr_assert_lt(index, scratch_rules_count(port));
    return (const char *)route_rules_at(port->rules, index)->route_name.data;
}

/* Any bytes as a configuration file: parsed, decoded by whatever kind they name, let go again. */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "routes/census.h"
#include "routes/decode.h"
#include "routes/schema.h"
#include "routes/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decode by the kind that the document names; items of a List likewise. */
static void decode(const struct route_node *node, struct route_diagnostics *diagnostics)
{
    struct bytes version = route_node_text(route_node_find(node, "apiVersion"));
    struct bytes group = BYTES("");
    if (bytes_find(version, '/') != version.size) {
        group = bytes_split(&version, '/');
    }
    const struct route_schema *schema =
        route_schema_find(group, route_node_text(route_node_find(node, "kind")), version);
    if (schema == NULL) {
        return;
    }
    const struct route_object *object = NULL;
    struct error error = route_decode("fuzz", node, schema, diagnostics, &object);
    CHECK(error_is(error) == (object == NULL));
    CHECK(!error_is(error) || error.code == ERROR_NO_MEMORY || diagnostics->errors_count > 0);
    route_object_unref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct route_diagnostics diagnostics;
    struct arena arena;
    struct route_yaml *yaml = NULL;
    route_diagnostics_init(&diagnostics);
    arena_init(&arena, 64 << 10, 64 << 20);
    struct error error = route_yaml_create("fuzz", bytes_make(data, size), &diagnostics, &yaml);
    const struct route_node *document = NULL;
    while (!error_is(error)) {
        error = route_yaml_next(yaml, &arena, &document);
        if (error_is(error) || document == NULL) {
            break;
        }
        decode(document, &diagnostics);
        const struct route_node *items = route_node_find(document, "items");
        if (items != NULL && items->type == ROUTE_NODE_SEQUENCE) {
            for (const struct route_node *item = items->first; item != NULL; item = item->next) {
                decode(item, &diagnostics);
            }
        }
    }
    CHECK(error.code != ERROR_CONFIG || diagnostics.errors_count > 0);
    struct route_spot spot;
    CHECK(error_is(error) ||
          route_census(bytes_make(data, size), UINT32_MAX, &spot) <= route_yaml_nodes_count(yaml));
    route_yaml_destroy(yaml);
    arena_finish(&arena);
    route_diagnostics_finish(&diagnostics);
    return 0;
}

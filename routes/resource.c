/*
 * Objects and their storage: each has an arena of its own, so that a table or a later configuration
 * can hold one object without the file that it came from.
 *
 * The count is atomic although house style keeps atomics elsewhere: objects are shared between
 * configurations, and a configuration is let go by whichever thread drops the last hold on its
 * snapshot. Nobody counts on the request path.
 */
#include "routes/resource.h"

#include <stdatomic.h>

#include "base/arena.h"
#include "base/check.h"

enum {
    OBJECT_BYTES_MAX = 64 << 20
};

struct route_storage {
    _Atomic uint32_t refs;
    struct arena arena; /* this struct and the object live in it */
};

FALLIBLE route_object_create(size_t size, size_t chunk_bytes, struct route_object **ret_object,
                             struct arena **ret_arena)
{
    struct arena arena;
    arena_init(&arena, chunk_bytes, OBJECT_BYTES_MAX);
    struct route_storage *storage = arena_alloc_zero(&arena, 1, sizeof(*storage));
    struct route_object *object = storage == NULL ? NULL : arena_alloc_zero(&arena, 1, size);
    if (object == NULL) {
        arena_finish(&arena);
        return error_make(ERROR_NO_MEMORY, 0);
    }
    atomic_init(&storage->refs, 1);
    storage->arena = arena;
    object->storage = storage;
    *ret_object = object;
    *ret_arena = &storage->arena;
    return OK;
}

void route_object_ref(const struct route_object *object)
{
    uint32_t before = atomic_fetch_add_explicit(&object->storage->refs, 1, memory_order_relaxed);
    CHECK(before > 0 && before < UINT32_MAX);
}

void route_object_unref(const struct route_object *object)
{
    if (object == NULL) {
        return;
    }
    struct route_storage *storage = object->storage;
    uint32_t before = atomic_fetch_sub_explicit(&storage->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1) {
        struct arena arena = storage->arena; /* which holds itself */
        arena_finish(&arena);
    }
}

const char *route_kind_name(enum route_kind kind)
{
    switch (kind) {
    case ROUTE_KIND_HTTP_ROUTE:
        return "HTTPRoute";
    case ROUTE_KIND_GRPC_ROUTE:
        return "GRPCRoute";
    case ROUTE_KIND_TLS_ROUTE:
        return "TLSRoute";
    case ROUTE_KIND_TCP_ROUTE:
        return "TCPRoute";
    case ROUTE_KIND_UDP_ROUTE:
        return "UDPRoute";
    case ROUTE_KIND_REFERENCE_GRANT:
        return "ReferenceGrant";
    case ROUTE_KIND_BACKEND_TLS_POLICY:
        return "BackendTLSPolicy";
    case ROUTE_KIND_BACKEND_TRAFFIC_POLICY:
        return "XBackendTrafficPolicy";
    case ROUTE_KIND_SERVICE:
        return "Service";
    case ROUTE_KIND_ENDPOINT_SLICE:
        return "EndpointSlice";
    case ROUTE_KIND_CONFIG_MAP:
        return "ConfigMap";
    case ROUTE_KIND_SECRET:
        return "Secret";
    case ROUTE_KIND_MESH_PARAMETERS:
        return "MeshParameters";
    case ROUTE_KIND_MESH_TLS_POLICY:
        return "MeshTLSPolicy";
    case ROUTE_KIND_AUTHORIZATION_POLICY:
        return "AuthorizationPolicy";
    case ROUTE_KIND_BODY_MATCH:
        return "BodyMatch";
    case ROUTE_KIND_UNKNOWN:
    case ROUTE_KIND_COUNT:
        break;
    }
    return "unknown";
}

int route_object_compare_age(const struct route_object *a, const struct route_object *b)
{
    if (a->created != b->created) {
        return a->created < b->created ? -1 : 1;
    }
    /* "namespace/name" as one text: '/' sorts before letters and digits, but after '-' and '.'. */
    struct bytes left = a->namespace;
    struct bytes right = b->namespace;
    size_t common = left.size < right.size ? left.size : right.size;
    int order = common == 0 ? 0 : memcmp(left.data, right.data, common);
    if (order != 0) {
        return order;
    }
    if (left.size == right.size) {
        return bytes_compare(a->name, b->name);
    }
    if (left.size < right.size) {
        return '/' - right.data[common];
    }
    return left.data[common] - '/';
}

/* Generations of configuration: reference counts between threads; the last holder hands back, never
 * frees in place. */
#include "control/snapshot.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"

struct error snapshot_create(const struct route_config *config, uint64_t generation,
                             struct snapshot **ret_snapshot)
{
    struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (snapshot == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snapshot->refs = 1;
    snapshot->generation = generation;
    snapshot->config = config;
    snapshot->loaded_at_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    memcpy(snapshot->hash, route_config_hash(config), sizeof(snapshot->hash));
    *ret_snapshot = snapshot;
    return OK;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot)
{
    uint32_t before = atomic_fetch_add_explicit(&snapshot->refs, 1, memory_order_relaxed);
    CHECK(before > 0);
    return snapshot;
}

void snapshot_unref(struct snapshot *snapshot)
{
    if (snapshot == NULL ||
        atomic_fetch_sub_explicit(&snapshot->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (snapshot->retire != NULL) {
        snapshot->retire(snapshot, snapshot->retire_argument);
    } else {
        snapshot_destroy(snapshot);
    }
}

void snapshot_destroy(struct snapshot *snapshot)
{
    route_config_unref(snapshot->config);
    free(snapshot);
}

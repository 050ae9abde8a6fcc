/*
 * Counting: a worker finds a series by hash and adds to its cells; a series is written completely
 * before its address is published in `all`, so that the control thread reads without a lock.
 */
#include "control/stats.h"

#include <stdlib.h>
#include <string.h>

#include "control/stats_cells.h"

const double stats_bucket_seconds[STATS_BUCKETS] = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 29);
}

static uint64_t hash_bytes(uint64_t hash, struct bytes bytes)
{
    hash = mix(hash, bytes.size);
    while (bytes.size >= 8) {
        uint64_t word;
        memcpy(&word, bytes.data, 8);
        hash = mix(hash, word);
        bytes = bytes_skip(bytes, 8);
    }
    uint64_t last = 0;
    if (bytes.size > 0) {
        memcpy(&last, bytes.data, bytes.size);
    }
    return mix(hash, last);
}

static uint64_t hash_key(const struct series_key *key)
{
    uint64_t hash = mix(key->kind, key->numbers);
    for (uint32_t i = 0; i < key->labels_count; i++) {
        hash = hash_bytes(hash, key->labels[i]);
    }
    return hash;
}

bool stats_key_equal(const struct series_key *a, const struct series_key *b)
{
    if (a->kind != b->kind || a->numbers != b->numbers || a->labels_count != b->labels_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->labels_count; i++) {
        if (!bytes_equal(a->labels[i], b->labels[i])) {
            return false;
        }
    }
    return true;
}

static struct series *make_series(const struct series_key *key, uint64_t hash)
{
    size_t texts = 0;
    for (uint32_t i = 0; i < key->labels_count; i++) {
        texts += key->labels[i].size;
    }
    size_t buckets = key->kind == SERIES_DURATION ? STATS_BUCKETS * sizeof(struct stats_cell) : 0;
    struct series *series = calloc(1, sizeof(*series) + buckets + texts);
    if (series == NULL) {
        return NULL;
    }
    series->hash = hash;
    series->key = *key;
    series->buckets = buckets == 0 ? NULL : (struct stats_cell *)(series + 1);
    uint8_t *text = (uint8_t *)(series + 1) + buckets;
    for (uint32_t i = 0; i < key->labels_count; i++) {
        struct bytes label = key->labels[i];
        if (label.size > 0) {
            memcpy(text, label.data, label.size);
        }
        series->key.labels[i] = bytes_make(text, label.size);
        text += label.size;
    }
    return series;
}

static void publish(struct stats *stats, struct series *series)
{
    uint32_t count = atomic_load_explicit(&stats->count, memory_order_relaxed);
    atomic_store_explicit(&stats->all[count], series, memory_order_relaxed);
    atomic_store_explicit(&stats->count, count + 1, memory_order_release);
}

/* The series of `key`; the kind's "other" when there are too many or memory is out; never NULL. */
static struct series *find_series(struct stats *stats, const struct series_key *key)
{
    uint64_t hash = hash_key(key);
    uint32_t slot = (uint32_t)hash & (STATS_SLOTS - 1);
    while (stats->slots[slot] != NULL) {
        struct series *series = stats->slots[slot];
        if (series->hash == hash && stats_key_equal(&series->key, key)) {
            return series;
        }
        slot = (slot + 1) & (STATS_SLOTS - 1);
    }
    bool is_full = atomic_load_explicit(&stats->count, memory_order_relaxed) >= STATS_SERIES_MAX;
    struct series *series = is_full ? NULL : make_series(key, hash);
    if (series == NULL) {
        stats_add(&stats->folded, 1);
        return stats->others[key->kind];
    }
    stats->slots[slot] = series;
    publish(stats, series);
    return series;
}

static uint32_t pack(enum stats_direction direction, uint16_t code, uint8_t grpc_status)
{
    return (uint32_t)direction << 24 | (uint32_t)code << 8 | grpc_status;
}

/* The series that everything beyond the bound goes to: made at once, so that it exists when memory
 * does not. */
static struct error make_others(struct stats *stats)
{
    static const uint32_t labels[SERIES_KIND_COUNT] = {[SERIES_REQUESTS] = 4,
                                                       [SERIES_DURATION] = 2,
                                                       [SERIES_RULE_HITS] = 3,
                                                       [SERIES_ENDPOINT_FAILURE] = 1,
                                                       [SERIES_FALLBACK] = 1};
    for (uint32_t kind = 0; kind < SERIES_KIND_COUNT; kind++) {
        struct series_key key = {
            .kind = (enum series_kind)kind,
            .numbers = kind == SERIES_REQUESTS ? pack(STATS_OUTBOUND, 0, STATS_NO_GRPC) : 0,
            .labels_count = labels[kind]};
        for (uint32_t i = 0; i < labels[kind]; i++) {
            key.labels[i] = BYTES("other");
        }
        stats->others[kind] = make_series(&key, hash_key(&key));
        if (stats->others[kind] == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
    }
    return OK;
}

struct error stats_create(uint32_t worker, struct stats **ret_stats)
{
    struct stats *stats = calloc(1, sizeof(*stats));
    if (stats == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    stats->worker = worker;
    struct error error = make_others(stats);
    if (error_is(error)) {
        stats_destroy(stats);
        return error;
    }
    *ret_stats = stats;
    return OK;
}

void stats_destroy(struct stats *stats)
{
    if (stats == NULL) {
        return;
    }
    for (uint32_t i = 0; i < stats->count; i++) {
        free(stats->all[i]);
    }
    for (uint32_t kind = 0; kind < SERIES_KIND_COUNT; kind++) {
        free(stats->others[kind]);
    }
    free(stats);
}

void stats_count_request(struct stats *stats, const struct stats_request_key *key,
                         uint64_t duration_ns)
{
    struct series_key requests = {.kind = SERIES_REQUESTS,
                                  .numbers = pack(key->direction, key->code, key->grpc_status),
                                  .labels = {key->parent, key->route, key->rule, key->backend},
                                  .labels_count = 4};
    stats_add(&find_series(stats, &requests)->count, 1);
    struct series_key duration = {.kind = SERIES_DURATION,
                                  .numbers = key->direction,
                                  .labels = {key->parent, key->route},
                                  .labels_count = 2};
    struct series *series = find_series(stats, &duration);
    stats_add(&series->count, 1);
    stats_add(&series->sum_us, duration_ns / 1000);
    double seconds = (double)duration_ns / 1e9;
    uint32_t bucket = 0;
    while (bucket < STATS_BUCKETS && seconds > stats_bucket_seconds[bucket]) {
        bucket++;
    }
    if (bucket < STATS_BUCKETS) {
        stats_add(&series->buckets[bucket], 1);
    }
}

void stats_count_connection(struct stats *stats, enum stats_direction direction,
                            enum stats_protocol protocol, bool tls)
{
    stats_add(&stats->connections[direction][protocol][tls], 1);
}

void stats_set_active(struct stats *stats, enum stats_direction direction, uint64_t connections)
{
    stats_set(&stats->active[direction], connections);
}

void stats_count_destination(struct stats *stats, enum stats_destination destination)
{
    stats_add(&stats->destinations[destination], 1);
}

void stats_count_endpoint_failure(struct stats *stats, struct bytes backend, enum cause cause)
{
    struct series_key key = {.kind = SERIES_ENDPOINT_FAILURE,
                             .numbers = (uint32_t)cause,
                             .labels = {backend},
                             .labels_count = 1};
    stats_add(&find_series(stats, &key)->count, 1);
}

void stats_count_refused(struct stats *stats, enum cause cause)
{
    stats_add(&stats->refused[cause], 1);
}

void stats_count_fallback(struct stats *stats, struct bytes backend)
{
    struct series_key key = {.kind = SERIES_FALLBACK, .labels = {backend}, .labels_count = 1};
    stats_add(&find_series(stats, &key)->count, 1);
}

struct stats_cell *stats_rule_hits(struct stats *stats, struct bytes parent, struct bytes route,
                                   struct bytes rule)
{
    struct series_key key = {
        .kind = SERIES_RULE_HITS, .labels = {parent, route, rule}, .labels_count = 3};
    return &find_series(stats, &key)->count;
}

void stats_count_bytes(struct stats *stats, enum stats_direction direction, uint64_t received,
                       uint64_t sent)
{
    stats_add(&stats->received[direction], received);
    stats_add(&stats->sent[direction], sent);
}

/*
 * Statistics cells. A worker finds a series by hash and adds to its cells; a series is written
 * completely before its address is published in `all`, so that the control thread reads without a
 * lock.
 *
 * Read by the control thread: `all` up to `count`, and the cells. The hash table is the worker's
 * alone.
 */
#include "control/stats.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum {
    STATS_SERIES_MAX = 8192,
    STATS_SLOTS = 2 * STATS_SERIES_MAX, /* a power of two: the table is at most half full */
    STATS_BUCKETS = 16,
    LABELS_MAX = 5,
};

enum series_kind {
    SERIES_REQUESTS,         /* labels: parent, route, rule, backend */
    SERIES_DURATION,         /* parent, route */
    SERIES_RULE_HITS,        /* parent, route, rule */
    SERIES_ENDPOINT_FAILURE, /* backend */
    SERIES_FALLBACK,         /* backend */
    SERIES_KIND_COUNT
};

/* Upper bounds in seconds, the same for every histogram. */
static const double bucket_seconds[STATS_BUCKETS] = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

/* What makes a series: its kind, its texts and its small numbers packed into one word. */
struct series_key {
    enum series_kind kind;
    uint32_t numbers; /* direction, code and grpc status; or a cause */
    struct bytes labels[LABELS_MAX];
    uint32_t labels_count;
};

struct series {
    uint64_t hash;
    struct series_key key;    /* its texts live behind the struct */
    struct stats_cell count;  /* of everything */
    struct stats_cell sum_us; /* SERIES_DURATION */
    struct stats_cell *buckets;
};

struct stats {
    struct stats_cell connections[STATS_DIRECTION_COUNT][STATS_PROTOCOL_COUNT][2];
    struct stats_cell active[STATS_DIRECTION_COUNT];
    struct stats_cell received[STATS_DIRECTION_COUNT];
    struct stats_cell sent[STATS_DIRECTION_COUNT];
    struct stats_cell refused[CAUSE_COUNT];
    struct stats_cell destinations[STATS_DESTINATION_COUNT];
    struct stats_cell folded;
    _Atomic uint32_t count;
    struct series *_Atomic all[STATS_SERIES_MAX + SERIES_KIND_COUNT];
    struct series *slots[STATS_SLOTS];
    struct series *others[SERIES_KIND_COUNT];
    uint32_t worker;
};

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

static bool key_equal(const struct series_key *a, const struct series_key *b)
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
        if (series->hash == hash && key_equal(&series->key, key)) {
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
    while (bucket < STATS_BUCKETS && seconds > bucket_seconds[bucket]) {
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

/* ---- reading ---- */

void stats_print(struct stats_text *text, const char *format, ...)
{
    for (;;) {
        va_list arguments;
        va_start(arguments, format);
        size_t room = text->capacity - text->length;
        int size = vsnprintf(text->data == NULL ? NULL : text->data + text->length, room, format,
                             arguments);
        va_end(arguments);
        if (size < 0 || text->is_failed) {
            text->is_failed = true;
            return;
        }
        if ((size_t)size < room) {
            text->length += (size_t)size;
            return;
        }
        size_t capacity = text->capacity * 2 + (size_t)size + 4096;
        char *data = realloc(text->data, capacity);
        if (data == NULL) {
            text->is_failed = true;
            return;
        }
        text->data = data;
        text->capacity = capacity;
    }
}

void stats_text_finish(struct stats_text *text)
{
    free(text->data);
    *text = (struct stats_text){0};
}

/* Call `visit` for every published series of a kind, of all workers. */
typedef void (*visit_fn)(const struct series *series, void *argument);

static void for_each(struct stats *const *workers, uint32_t workers_count, enum series_kind kind,
                     visit_fn visit, void *argument)
{
    for (uint32_t w = 0; w < workers_count; w++) {
        uint32_t count = atomic_load_explicit(&workers[w]->count, memory_order_acquire);
        for (uint32_t i = 0; i < count; i++) {
            const struct series *series =
                atomic_load_explicit(&workers[w]->all[i], memory_order_relaxed);
            if (series->key.kind == kind) {
                visit(series, argument);
            }
        }
        if (stats_read(&workers[w]->others[kind]->count) > 0) {
            visit(workers[w]->others[kind], argument);
        }
    }
}

struct gathered {
    const struct series **items;
    size_t count;
    size_t capacity;
    bool is_failed;
};

static void gather(const struct series *series, void *argument)
{
    struct gathered *gathered = argument;
    if (gathered->count == gathered->capacity) {
        size_t capacity = gathered->capacity * 2 + 64;
        const struct series **items =
            realloc(gathered->items, capacity * sizeof(const struct series *));
        if (items == NULL) {
            gathered->is_failed = true;
            return;
        }
        gathered->items = items;
        gathered->capacity = capacity;
    }
    gathered->items[gathered->count++] = series;
}

static int compare_series(const void *left, const void *right)
{
    const struct series *a = *(const struct series *const *)left;
    const struct series *b = *(const struct series *const *)right;
    for (uint32_t i = 0; i < a->key.labels_count; i++) {
        int order = bytes_compare(a->key.labels[i], b->key.labels[i]);
        if (order != 0) {
            return order;
        }
    }
    return a->key.numbers < b->key.numbers ? -1 : a->key.numbers > b->key.numbers;
}

static const char *direction_name(uint32_t direction)
{
    return direction == STATS_OUTBOUND ? "outbound" : "inbound";
}

/* `name="value"` with what the text format wants escaped. */
static void print_label(struct stats_text *text, const char *name, struct bytes value)
{
    stats_print(text, "%s=\"", name);
    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        if (byte == '"' || byte == '\\') {
            stats_print(text, "\\%c", byte);
        } else if (byte == '\n') {
            stats_print(text, "\\n");
        } else {
            stats_print(text, "%c", byte);
        }
    }
    stats_print(text, "\"");
}

/* All of `items` from `first` on that are the same series in other workers; their count. */
static size_t same_run(const struct gathered *gathered, size_t first)
{
    size_t run = 1;
    while (first + run < gathered->count &&
           compare_series(&gathered->items[first], &gathered->items[first + run]) == 0) {
        run++;
    }
    return run;
}

static uint64_t sum_counts(const struct gathered *gathered, size_t first, size_t run)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < run; i++) {
        sum += stats_read(&gathered->items[first + i]->count);
    }
    return sum;
}

static void print_requests(struct stats_text *text, const struct series_key *key, uint64_t value)
{
    static const char *const names[] = {"parent", "route", "rule", "backend"};
    uint32_t grpc = key->numbers & 0xff;
    stats_print(text, "outrigger_requests_total{direction=\"%s\"",
                direction_name(key->numbers >> 24));
    for (uint32_t i = 0; i < 4; i++) {
        stats_print(text, ",");
        print_label(text, names[i], key->labels[i]);
    }
    uint32_t code = (key->numbers >> 8) & 0xffff;
    if (code == 0) {
        stats_print(text, ",code=\"\"");
    } else {
        stats_print(text, ",code=\"%u\"", code);
    }
    if (grpc == STATS_NO_GRPC) {
        stats_print(text, ",grpc_status=\"\"} %llu\n", (unsigned long long)value);
    } else {
        stats_print(text, ",grpc_status=\"%u\"} %llu\n", grpc, (unsigned long long)value);
    }
}

static void print_duration_labels(struct stats_text *text, const char *suffix,
                                  const struct series_key *key)
{
    stats_print(text, "outrigger_request_duration_seconds_%s{direction=\"%s\",", suffix,
                direction_name(key->numbers));
    print_label(text, "parent", key->labels[0]);
    stats_print(text, ",");
    print_label(text, "route", key->labels[1]);
}

static void print_duration(struct stats_text *text, const struct gathered *gathered, size_t first,
                           size_t run)
{
    const struct series_key *key = &gathered->items[first]->key;
    uint64_t total = sum_counts(gathered, first, run);
    uint64_t cumulated = 0;
    for (uint32_t bucket = 0; bucket < STATS_BUCKETS; bucket++) {
        for (size_t i = 0; i < run; i++) {
            cumulated += stats_read(&gathered->items[first + i]->buckets[bucket]);
        }
        print_duration_labels(text, "bucket", key);
        stats_print(text, ",le=\"%g\"} %llu\n", bucket_seconds[bucket],
                    (unsigned long long)cumulated);
    }
    /* Cells are read one after the other while workers count: never let +Inf fall below the last
     * bucket. */
    total = total < cumulated ? cumulated : total;
    uint64_t sum_us = 0;
    for (size_t i = 0; i < run; i++) {
        sum_us += stats_read(&gathered->items[first + i]->sum_us);
    }
    print_duration_labels(text, "bucket", key);
    stats_print(text, ",le=\"+Inf\"} %llu\n", (unsigned long long)total);
    print_duration_labels(text, "sum", key);
    stats_print(text, "} %.6f\n", (double)sum_us / 1e6);
    print_duration_labels(text, "count", key);
    stats_print(text, "} %llu\n", (unsigned long long)total);
}

static void print_kind(struct stats *const *workers, uint32_t workers_count, enum series_kind kind,
                       struct stats_text *text)
{
    struct gathered gathered = {0};
    for_each(workers, workers_count, kind, gather, &gathered);
    text->is_failed = text->is_failed || gathered.is_failed;
    if (gathered.count > 0) {
        qsort(gathered.items, gathered.count, sizeof(*gathered.items), compare_series);
    }
    for (size_t first = 0; first < gathered.count;) {
        size_t run = same_run(&gathered, first);
        const struct series_key *key = &gathered.items[first]->key;
        unsigned long long value = sum_counts(&gathered, first, run);
        switch (kind) {
        case SERIES_REQUESTS:
            print_requests(text, key, value);
            break;
        case SERIES_DURATION:
            print_duration(text, &gathered, first, run);
            break;
        case SERIES_ENDPOINT_FAILURE:
            stats_print(text, "outrigger_endpoint_failures_total{");
            print_label(text, "backend", key->labels[0]);
            stats_print(text, ",cause=\"%s\"} %llu\n",
                        (const char *)cause_info((enum cause)key->numbers)->name.data, value);
            break;
        case SERIES_FALLBACK:
            stats_print(text, "outrigger_cluster_ip_fallbacks_total{");
            print_label(text, "backend", key->labels[0]);
            stats_print(text, "} %llu\n", value);
            break;
        case SERIES_RULE_HITS: /* /routes shows them; requests_total has the same facts */
        case SERIES_KIND_COUNT:
            break;
        }
        first += run;
    }
    free(gathered.items);
}

static void print_family(struct stats_text *text, const char *name, const char *type,
                         const char *help)
{
    stats_print(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static uint64_t sum_cells(struct stats *const *workers, uint32_t workers_count, size_t offset)
{
    uint64_t sum = 0;
    for (uint32_t w = 0; w < workers_count; w++) {
        sum += stats_read(
            (const struct stats_cell *)(const void *)((const char *)workers[w] + offset));
    }
    return sum;
}

#define SUM(workers, count, member) sum_cells((workers), (count), offsetof(struct stats, member))

static void print_connections(struct stats *const *workers, uint32_t count, struct stats_text *text)
{
    static const char *const protocols[STATS_PROTOCOL_COUNT] = {"tcp", "http1", "http2"};
    print_family(text, "outrigger_connections_total", "counter", "Accepted connections.");
    for (uint32_t d = 0; d < STATS_DIRECTION_COUNT; d++) {
        for (uint32_t p = 0; p < STATS_PROTOCOL_COUNT; p++) {
            for (uint32_t tls = 0; tls < 2; tls++) {
                uint64_t value = SUM(workers, count, connections[d][p][tls]);
                if (value > 0 || (p == 0 && tls == 0)) {
                    stats_print(text,
                                "outrigger_connections_total{direction=\"%s\",protocol=\"%s\",tls="
                                "\"%s\"} %llu\n",
                                direction_name(d), protocols[p], tls ? "true" : "false",
                                (unsigned long long)value);
                }
            }
        }
    }
    print_family(text, "outrigger_connections_active", "gauge", "Connections that are open.");
    for (uint32_t d = 0; d < STATS_DIRECTION_COUNT; d++) {
        stats_print(text, "outrigger_connections_active{direction=\"%s\"} %llu\n",
                    direction_name(d), (unsigned long long)SUM(workers, count, active[d]));
    }
    print_family(text, "outrigger_received_bytes_total", "counter",
                 "Payload received from downstreams.");
    for (uint32_t d = 0; d < STATS_DIRECTION_COUNT; d++) {
        stats_print(text, "outrigger_received_bytes_total{direction=\"%s\"} %llu\n",
                    direction_name(d), (unsigned long long)SUM(workers, count, received[d]));
    }
    print_family(text, "outrigger_sent_bytes_total", "counter", "Payload sent to downstreams.");
    for (uint32_t d = 0; d < STATS_DIRECTION_COUNT; d++) {
        stats_print(text, "outrigger_sent_bytes_total{direction=\"%s\"} %llu\n", direction_name(d),
                    (unsigned long long)SUM(workers, count, sent[d]));
    }
}

static void print_refused(struct stats *const *workers, uint32_t count, struct stats_text *text)
{
    print_family(text, "outrigger_refused_total", "counter",
                 "Requests and connections that the proxy refused.");
    for (uint32_t cause = 1; cause < CAUSE_COUNT; cause++) {
        uint64_t value = SUM(workers, count, refused[cause]);
        if (value > 0 || cause == CAUSE_LOOP) {
            stats_print(text, "outrigger_refused_total{cause=\"%s\"} %llu\n",
                        (const char *)cause_info((enum cause)cause)->name.data,
                        (unsigned long long)value);
        }
    }
}

static void print_destinations(struct stats *const *workers, uint32_t count,
                               struct stats_text *text)
{
    static const char *const kinds[STATS_DESTINATION_COUNT] = {"cluster_ip", "endpoint", "other"};
    print_family(text, "outrigger_outbound_destinations_total", "counter",
                 "Outbound connections by what they were dialled to.");
    for (uint32_t i = 0; i < STATS_DESTINATION_COUNT; i++) {
        stats_print(
            text, "outrigger_outbound_destinations_total{kind=\"%s\"} %llu\n", kinds[i],
            (unsigned long long)stats_destination_sum(workers, count, (enum stats_destination)i));
    }
}

static void print_gauges(const struct stats_gauge *gauges, uint32_t count, struct stats_text *text)
{
    for (uint32_t i = 0; i < count; i++) {
        int family = (int)strcspn(gauges[i].name, "{");
        if (gauges[i].help != NULL) {
            stats_print(text, "# HELP %.*s %s\n# TYPE %.*s %s\n", family, gauges[i].name,
                        gauges[i].help, family, gauges[i].name,
                        gauges[i].is_counter ? "counter" : "gauge");
        }
        stats_print(text, "%s %.15g\n", gauges[i].name, gauges[i].value);
    }
}

void stats_write_prometheus(struct stats *const *workers, uint32_t workers_count,
                            const struct stats_gauge *gauges, uint32_t gauges_count,
                            struct stats_text *text)
{
    print_family(text, "outrigger_requests_total", "counter",
                 "Finished requests and opaque connections.");
    print_kind(workers, workers_count, SERIES_REQUESTS, text);
    print_family(text, "outrigger_request_duration_seconds", "histogram",
                 "From the head to the last byte.");
    print_kind(workers, workers_count, SERIES_DURATION, text);
    print_connections(workers, workers_count, text);
    print_destinations(workers, workers_count, text);
    print_family(text, "outrigger_endpoint_failures_total", "counter",
                 "Failed attempts at an endpoint.");
    print_kind(workers, workers_count, SERIES_ENDPOINT_FAILURE, text);
    print_family(text, "outrigger_cluster_ip_fallbacks_total", "counter",
                 "The ClusterIP was dialled because no endpoint could be reached.");
    print_kind(workers, workers_count, SERIES_FALLBACK, text);
    print_refused(workers, workers_count, text);
    print_family(text, "outrigger_series_folded_total", "counter",
                 "Times a series was folded into \"other\".");
    stats_print(text, "outrigger_series_folded_total %llu\n",
                (unsigned long long)stats_folded_sum(workers, workers_count));
    print_gauges(gauges, gauges_count, text);
}

struct wanted_rule {
    const struct series_key *key;
    uint64_t sum;
};

static void add_rule(const struct series *series, void *argument)
{
    struct wanted_rule *wanted = argument;
    if (key_equal(&series->key, wanted->key)) {
        wanted->sum += stats_read(&series->count);
    }
}

uint64_t stats_rule_hits_sum(struct stats *const *workers, uint32_t workers_count,
                             struct bytes parent, struct bytes route, struct bytes rule)
{
    struct series_key key = {
        .kind = SERIES_RULE_HITS, .labels = {parent, route, rule}, .labels_count = 3};
    struct wanted_rule wanted = {.key = &key};
    for_each(workers, workers_count, SERIES_RULE_HITS, add_rule, &wanted);
    return wanted.sum;
}

uint64_t stats_active_sum(struct stats *const *workers, uint32_t workers_count)
{
    return SUM(workers, workers_count, active[STATS_OUTBOUND]) +
           SUM(workers, workers_count, active[STATS_INBOUND]);
}

uint64_t stats_folded_sum(struct stats *const *workers, uint32_t workers_count)
{
    return SUM(workers, workers_count, folded);
}

uint64_t stats_destination_sum(struct stats *const *workers, uint32_t workers_count,
                               enum stats_destination destination)
{
    return SUM(workers, workers_count, destinations[destination]);
}

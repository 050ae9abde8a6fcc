/*
 * Reading, on the control thread while workers count: sums over all workers, and the Prometheus
 * text, in which equal series of several workers are one.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/stats.h"
#include "control/stats_cells.h"

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
        stats_print(text, ",le=\"%g\"} %llu\n", stats_bucket_seconds[bucket],
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
    /* Without a sample: no certificate is loaded. */
    print_family(text, "outrigger_certificate_expiry_timestamp_seconds", "gauge",
                 "When a certificate in use ends.");
    print_gauges(gauges, gauges_count, text);
}

struct wanted_rule {
    const struct series_key *key;
    uint64_t sum;
};

static void add_rule(const struct series *series, void *argument)
{
    struct wanted_rule *wanted = argument;
    if (stats_key_equal(&series->key, wanted->key)) {
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

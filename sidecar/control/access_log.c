/* The access log's line, as text (key=value) and as JSON: one list of members, two spellings. */
#include "control/access_log.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

struct line {
    char text[LOG_LINE_MAX];
    size_t length;
    bool is_json;
    bool is_first;
};

static void put(struct line *line, const char *text)
{
    size_t size = strlen(text);
    size_t room = sizeof(line->text) - line->length;
    size = size < room ? size : room;
    memcpy(line->text + line->length, text, size);
    line->length += size;
}

static void put_name(struct line *line, const char *name)
{
    if (line->is_json) {
        put(line, line->is_first ? "{\"" : ",\"");
        put(line, name);
        put(line, "\":");
    } else {
        put(line, line->is_first ? "" : " ");
        put(line, name);
        put(line, "=");
    }
    line->is_first = false;
}

/* JSON's escapes: \xNN is none of them, so controls and bytes above 0x7e become \u00NN. */
static void put_json_escaped(struct line *line, struct bytes value)
{
    for (size_t i = 0; i < value.size; i++) {
        char escape[8];
        uint8_t byte = value.data[i];
        if (byte == '"' || byte == '\\') {
            snprintf(escape, sizeof(escape), "\\%c", byte);
        } else if (byte < 0x20 || byte > 0x7e) {
            snprintf(escape, sizeof(escape), "\\u%04x", byte);
        } else {
            snprintf(escape, sizeof(escape), "%c", byte);
        }
        put(line, escape);
    }
}

enum {
    VALUE_BYTES_MAX = 512
}; /* of one member: a target may be 8 KiB, a line may not */

static void put_text(struct line *line, const char *name, struct bytes value)
{
    value = bytes_first(value, VALUE_BYTES_MAX);
    put_name(line, name);
    put(line, "\"");
    if (line->is_json) {
        put_json_escaped(line, value);
    } else {
        line->length = log_escape(line->text, line->length, sizeof(line->text), value);
    }
    put(line, "\"");
}

/* A word of ours: no quotes in text. */
static void put_word(struct line *line, const char *name, const char *word)
{
    put_name(line, name);
    put(line, line->is_json ? "\"" : "");
    put(line, word);
    put(line, line->is_json ? "\"" : "");
}

static void put_number(struct line *line, const char *name, uint64_t number)
{
    char digits[21];
    digits[bytes_print_decimal(number, (uint8_t *)digits)] = '\0';
    put_name(line, name);
    put(line, digits);
}

/* Nanoseconds as milliseconds with three decimals. */
static void put_ms(struct line *line, const char *name, uint64_t ns)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu.%03llu", (unsigned long long)(ns / 1000000),
             (unsigned long long)(ns / 1000 % 1000));
    put_name(line, name);
    put(line, text);
}

static void put_address(struct line *line, const char *name, const struct address *address)
{
    char text[ADDRESS_TEXT_MAX] = "";
    if (address->family != ADDRESS_NONE) {
        address_print(address, text);
    }
    put_word(line, name, address->family == ADDRESS_NONE && !line->is_json ? "-" : text);
}

static void put_request(struct line *line, const struct access_log_entry *entry)
{
    put_text(line, "method", entry->method);
    put_text(line, "authority", entry->authority);
    put_text(line, "path", entry->path);
    put_text(line, "request_id", entry->request_id);
    put_number(line, "status", entry->status);
    if (entry->grpc_status != STATS_NO_GRPC) {
        put_number(line, "grpc_status", entry->grpc_status);
    }
}

static void put_decision(struct line *line, const struct access_log_entry *entry)
{
    put_text(line, "parent", entry->parent);
    put_text(line, "route", entry->route);
    put_text(line, "rule", entry->rule);
    char place[300] = "";
    if (entry->line > 0) {
        snprintf(place, sizeof(place), "%.*s:%u",
                 (int)(entry->file.size < 256 ? entry->file.size : 256),
                 (const char *)entry->file.data, entry->line);
    }
    put_text(line, "at", bytes_from_string(place));
    put_number(line, "generation", entry->generation);
    put_text(line, "backend", entry->backend);
}

void access_log_write(struct log_ring *ring, enum access_log_format format,
                      const struct access_log_entry *entry)
{
    static const char *const protocols[STATS_PROTOCOL_COUNT] = {"tcp", "http1", "http2"};
    if (format == ACCESS_LOG_OFF) {
        return;
    }
    struct line line;
    line.length = 0;
    line.is_json = format == ACCESS_LOG_JSON;
    line.is_first = true;
    char time[40];
    log_timestamp(time, sizeof(time));
    put_word(&line, "time", time);
    put_word(&line, "direction", entry->direction == STATS_OUTBOUND ? "outbound" : "inbound");
    put_word(&line, "protocol", protocols[entry->protocol]);
    put_number(&line, "connection", entry->connection);
    put_address(&line, "downstream", &entry->downstream);
    put_address(&line, "destination", &entry->destination);
    if (entry->method.size > 0) {
        put_request(&line, entry);
    }
    put_decision(&line, entry);
    put_address(&line, "endpoint", &entry->endpoint);
    put_word(&line, "cause", (const char *)cause_info(entry->cause)->name.data);
    put_number(&line, "attempts", entry->attempts);
    if (entry->is_cluster_ip_fallback) {
        put_word(&line, "fallback", "cluster_ip");
    }
    put_number(&line, "received_bytes", entry->received_bytes);
    put_number(&line, "sent_bytes", entry->sent_bytes);
    put_ms(&line, "routing_ms", entry->routing_ns);
    put_ms(&line, "connect_ms", entry->connect_ns);
    put_ms(&line, "first_byte_ms", entry->first_byte_ns);
    put_ms(&line, "total_ms", entry->total_ns);
    put(&line, line.is_json ? "}" : "");
    (void)log_ring_write(
        ring, bytes_make(line.text, line.length)); /* a dropped line is counted by the ring */
}

/* The access log's line in both forms; nothing a peer says can break out of it. */
#include "control/access_log.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/log.h"

static void write_line(enum access_log_format format, const struct access_log_entry *entry,
                       char *out, size_t size)
{
    struct log_ring *ring = NULL;
    cr_assert_not(error_is(log_ring_create(1 << 16, &ring)));
    access_log_write(ring, format, entry);
    size_t length = log_ring_read(ring, (uint8_t *)out, size - 1);
    out[length] = '\0';
    log_ring_destroy(ring);
}

static struct access_log_entry sample(void)
{
    struct access_log_entry entry = {.direction = STATS_OUTBOUND,
                                     .protocol = STATS_PROTOCOL_HTTP1,
                                     .generation = 4,
                                     .connection = 7,
                                     .parent = BYTES("shop/web:80"),
                                     .route = BYTES("shop/split"),
                                     .rule = BYTES("canary"),
                                     .file = BYTES("routes.yaml"),
                                     .line = 12,
                                     .backend = BYTES("web-v2.shop:80"),
                                     .method = BYTES("GET"),
                                     .authority = BYTES("web"),
                                     .path = BYTES("/a\n\"x"),
                                     .request_id = BYTES("id-1"),
                                     .status = 200,
                                     .grpc_status = STATS_NO_GRPC,
                                     .attempts = 1,
                                     .received_bytes = 3,
                                     .sent_bytes = 44,
                                     .routing_ns = 15000,
                                     .connect_ns = 0,
                                     .first_byte_ns = 1234567,
                                     .total_ns = 2000000};
    cr_assert_not(error_is(address_parse(BYTES("10.0.0.1:999"), &entry.downstream)));
    cr_assert_not(error_is(address_parse(BYTES("[fd00::1]:80"), &entry.destination)));
    return entry;
}

Test(access_log, writes_text)
{
    char out[LOG_LINE_MAX];
    struct access_log_entry entry = sample();
    write_line(ACCESS_LOG_TEXT, &entry, out, sizeof(out));
    const char *rest = strchr(out, ' ');
    cr_assert_not_null(rest);
    cr_assert_str_eq(
        rest,
        " direction=outbound protocol=http1 connection=7 downstream=10.0.0.1:999 "
        "destination=[fd00::1]:80 "
        "method=\"GET\" authority=\"web\" path=\"/a\\x0a\\\"x\" request_id=\"id-1\" status=200 "
        "parent=\"shop/web:80\" route=\"shop/split\" rule=\"canary\" at=\"routes.yaml:12\" "
        "generation=4 "
        "backend=\"web-v2.shop:80\" endpoint=- cause=none attempts=1 received_bytes=3 "
        "sent_bytes=44 "
        "routing_ms=0.015 connect_ms=0.000 first_byte_ms=1.234 total_ms=2.000\n");
}

Test(access_log, writes_json)
{
    char out[LOG_LINE_MAX];
    struct access_log_entry entry = sample();
    entry.is_cluster_ip_fallback = true;
    write_line(ACCESS_LOG_JSON, &entry, out, sizeof(out));
    cr_assert_eq(strncmp(out, "{\"time\":\"2", 10), 0);
    cr_assert_not_null(
        strstr(out, "\"path\":\"/a\\u000a\\\"x\",\"request_id\":\"id-1\",\"status\":200,"));
    cr_assert_not_null(strstr(
        out, "\"endpoint\":\"\",\"cause\":\"none\",\"attempts\":1,\"fallback\":\"cluster_ip\""));
    cr_assert_not_null(strstr(out, "\"first_byte_ms\":1.234,\"total_ms\":2.000}\n"));
}

Test(access_log, cuts_long_values_and_stays_one_line)
{
    static char huge[9000];
    memset(huge, '"', sizeof(huge));
    static char out[2 * LOG_LINE_MAX];
    struct access_log_entry entry = sample();
    entry.path = bytes_make(huge, sizeof(huge));
    entry.authority = entry.path;
    write_line(ACCESS_LOG_JSON, &entry, out, sizeof(out));
    cr_assert_eq(strchr(out, '\n'), out + strlen(out) - 1);
    cr_assert_not_null(strstr(out, "\"total_ms\":2.000}\n"));
    write_line(ACCESS_LOG_OFF, &entry, out, sizeof(out));
    cr_assert_str_eq(out, "");
}

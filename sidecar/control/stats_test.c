/* Statistics: sums over workers, folding beyond the bound, histogram shape, label escapes. */
#include "control/stats.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct stats *make(void)
{
    struct stats *stats = NULL;
    cr_assert_not(error_is(stats_create(0, &stats)));
    return stats;
}

static struct stats_request_key key_of(struct bytes route, uint16_t code)
{
    return (struct stats_request_key){.direction = STATS_OUTBOUND,
                                      .parent = BYTES("shop/web:80"),
                                      .route = route,
                                      .rule = BYTES("0"),
                                      .backend = BYTES("web.shop:80"),
                                      .code = code,
                                      .grpc_status = STATS_NO_GRPC};
}

static void expect_line(const struct stats_text *text, const char *line)
{
    cr_expect_not_null(strstr(text->data, line), "missing: %s\nin:\n%s", line, text->data);
}

Test(stats, sums_equal_series_of_all_workers)
{
    struct stats *workers[2] = {make(), make()};
    struct stats_request_key key = key_of(BYTES("shop/a\"b\\"), 200);
    stats_count_request(workers[0], &key, 700 * 1000);
    stats_count_request(workers[1], &key, 3 * 1000 * 1000);
    stats_count_request(workers[1], &key, UINT64_C(90) * 1000 * 1000 * 1000);
    stats_set_active(workers[0], STATS_INBOUND, 2);
    stats_set_active(workers[1], STATS_INBOUND, 3);
    stats_count_refused(workers[1], CAUSE_LOOP);
    stats_count_destination(workers[0], STATS_DESTINATION_ENDPOINT);
    stats_count_destination(workers[1], STATS_DESTINATION_ENDPOINT);
    stats_count_endpoint_failure(workers[0], BYTES("web.shop:80"), CAUSE_CONNECT_REFUSED);
    struct stats_gauge gauges[] = {{"outrigger_config_generation", "Now in force.", false, 3}};
    struct stats_text text = {0};
    stats_write_prometheus(workers, 2, gauges, 1, &text);
    cr_assert_not(text.is_failed);
    expect_line(&text, "outrigger_requests_total{direction=\"outbound\",parent=\"shop/"
                       "web:80\",route=\"shop/a\\\"b\\\\\","
                       "rule=\"0\",backend=\"web.shop:80\",code=\"200\",grpc_status=\"\"} 3\n");
    expect_line(&text, "route=\"shop/a\\\"b\\\\\",le=\"0.0005\"} 0\n");
    expect_line(&text, ",le=\"0.001\"} 1\n");
    expect_line(&text, ",le=\"0.005\"} 2\n");
    expect_line(&text, ",le=\"60\"} 2\n");
    expect_line(&text, ",le=\"+Inf\"} 3\n");
    expect_line(&text, "outrigger_connections_active{direction=\"inbound\"} 5\n");
    expect_line(&text, "outrigger_refused_total{cause=\"loop\"} 1\n");
    expect_line(
        &text,
        "outrigger_endpoint_failures_total{backend=\"web.shop:80\",cause=\"connect_refused\"} 1\n");
    expect_line(&text, "# TYPE outrigger_config_generation gauge\noutrigger_config_generation 3\n");
    expect_line(&text, "outrigger_outbound_destinations_total{kind=\"endpoint\"} 2\n");
    expect_line(&text, "outrigger_outbound_destinations_total{kind=\"cluster_ip\"} 0\n");
    cr_assert_eq(stats_active_sum(workers, 2), 5);
    stats_text_finish(&text);
    stats_destroy(workers[0]);
    stats_destroy(workers[1]);
}

Test(stats, folds_beyond_its_bound_and_counts_it)
{
    struct stats *stats = make();
    for (unsigned i = 0; i < 9000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "shop/r%u", i);
        struct stats_cell *cell =
            stats_rule_hits(stats, BYTES("p"), bytes_from_string(name), BYTES("0"));
        stats_add(cell, 1);
    }
    cr_assert_eq(stats_folded_sum(&stats, 1), 9000 - 8192);
    cr_assert_eq(stats_rule_hits_sum(&stats, 1, BYTES("p"), BYTES("shop/r0"), BYTES("0")), 1);
    cr_assert_eq(stats_rule_hits_sum(&stats, 1, BYTES("p"), BYTES("shop/r8999"), BYTES("0")), 0);
    cr_assert_eq(stats_rule_hits_sum(&stats, 1, BYTES("other"), BYTES("other"), BYTES("other")),
                 9000 - 8192);
    stats_destroy(stats);
}

Test(stats, keeps_cells_where_they_are)
{
    struct stats *stats = make();
    struct stats_cell *cell = stats_rule_hits(stats, BYTES("p"), BYTES("r"), BYTES("0"));
    struct stats_request_key key = key_of(BYTES("shop/x"), 404);
    for (int i = 0; i < 100; i++) {
        stats_count_request(stats, &key, 1);
    }
    cr_assert_eq(stats_rule_hits(stats, BYTES("p"), BYTES("r"), BYTES("0")), cell);
    stats_destroy(stats);
}

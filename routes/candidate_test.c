/*
 * The pieces that index and naive walk share, so that comparing the two says nothing about them.
 */
#include "routes/candidate.h"

#include <criterion/criterion.h>

struct query_case {
    const char *query; /* NULL: none */
    const char *name;
    const char *value;
    enum route_answer answer;
};

static enum route_answer check(const struct route_candidate *candidate,
                               const struct route_request *request)
{
    struct route_scratch *scratch = NULL;
    struct route_failure failure = {0};
    cr_assert(!error_is(route_scratch_create(&scratch)));
    enum route_answer answer = route_candidate_check(candidate, request, scratch, &failure);
    route_scratch_destroy(scratch);
    return answer;
}

Test(candidate, reads_query_parameters_as_design_section_5_says)
{
    static const struct query_case rows[] = {
        {"a=1", "a", "1", ROUTE_YES},
        {"a=1", "A", "1", ROUTE_NO},
        {"b=2&a=1", "a", "1", ROUTE_YES},
        {"a=1&a=2", "a", "1", ROUTE_YES},
        {"a=1&a=2", "a", "2", ROUTE_NO}, /* only the first value */
        {"a=1;b=2", "b", "2", ROUTE_NO}, /* only & separates */
        {"a=1;b=2", "a", "1;b=2", ROUTE_YES},
        {"%61=%31", "a", "1", ROUTE_YES},
        {"a=x+y", "a", "x+y", ROUTE_YES},
        {"a=x+y", "a", "x y", ROUTE_NO},
        {"a=x%20y", "a", "x y", ROUTE_YES},
        {"a=x%2By", "a", "x+y", ROUTE_YES},
        {"a", "a", "", ROUTE_YES},
        {"a=", "a", "", ROUTE_YES},
        {"a=b=c", "a", "b=c", ROUTE_YES},
        {"a=%", "a", "%", ROUTE_YES}, /* what begins nothing stands for itself */
        {"a=%4", "a", "%4", ROUTE_YES},
        {"a=%zz", "a", "%zz", ROUTE_YES},
        {"a=%26", "a", "&", ROUTE_YES},
        {"&&a=1", "a", "1", ROUTE_YES},
        {"", "a", "", ROUTE_NO},
        {NULL, "a", "", ROUTE_NO},
        {"aa=1", "a", "1", ROUTE_NO},
        {"a=12", "a", "1", ROUTE_NO},
        {"a=1", "a", "12", ROUTE_NO},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_value_predicate param = {.name = bytes_from_string(rows[i].name),
                                              .value = bytes_from_string(rows[i].value)};
        struct route_candidate candidate = {.kind = ROUTE_KIND_HTTP_ROUTE,
                                            .type = ROUTE_MATCH_PREFIX,
                                            .path = BYTES(""),
                                            .query_params = &param,
                                            .query_params_count = 1};
        struct route_request request = {
            .method = BYTES("GET"), .path = BYTES("/"), .query = bytes_from_string(rows[i].query)};
        cr_expect(check(&candidate, &request) == rows[i].answer, "?%s for %s=%s", rows[i].query,
                  rows[i].name, rows[i].value);
    }
}

struct header_case {
    const char *fields[3][2];
    const char *name;
    const char *value;
    enum route_answer answer;
};

Test(candidate, joins_repeated_fields)
{
    static const struct header_case rows[] = {
        {{{"X-A", "1"}}, "x-a", "1", ROUTE_YES},
        {{{"x-a", "1"}, {"x-b", "9"}, {"X-A", "2"}}, "x-a", "1,2", ROUTE_YES},
        {{{"x-a", "1"}, {"x-a", "2"}}, "x-a", "1", ROUTE_NO},
        {{{"x-a", "1"}, {"x-a", "2"}}, "x-a", "2", ROUTE_NO},
        {{{"x-a", "1"}, {"x-a", ""}}, "x-a", "1,", ROUTE_YES},
        {{{"x-a", "1,2"}}, "x-a", "1,2", ROUTE_YES},
        {{{"x-a", "A"}}, "x-a", "a", ROUTE_NO},
        {{{"x-a", ""}}, "x-a", "", ROUTE_YES},
        {{{"x-b", "1"}}, "x-a", "", ROUTE_NO},
        {{{"Cookie", "a=1"}, {"cookie", "b=2"}}, "cookie", "a=1; b=2", ROUTE_YES},
        {{{"host", "field"}}, "host", "authority", ROUTE_YES}, /* what the codec made of it */
        {{{"host", "field"}}, "host", "field", ROUTE_NO},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_value_predicate header = {.name = bytes_from_string(rows[i].name),
                                               .value = bytes_from_string(rows[i].value)};
        struct route_candidate candidate = {.kind = ROUTE_KIND_HTTP_ROUTE,
                                            .type = ROUTE_MATCH_PREFIX,
                                            .path = BYTES(""),
                                            .headers = &header,
                                            .headers_count = 1};
        struct route_field fields[3];
        size_t count = 0;
        while (count < 3 && rows[i].fields[count][0] != NULL) {
            fields[count] = (struct route_field){bytes_from_string(rows[i].fields[count][0]),
                                                 bytes_from_string(rows[i].fields[count][1])};
            count++;
        }
        struct route_request request = {.method = BYTES("GET"),
                                        .path = BYTES("/"),
                                        .authority = BYTES("authority"),
                                        .fields = fields,
                                        .fields_count = count};
        cr_expect(check(&candidate, &request) == rows[i].answer, "row %zu", i);
    }
}

Test(candidate, refuses_for_another_reason_before_it_asks_an_expression)
{
    struct route_regex *endless = NULL;
    cr_assert(!error_is(route_regex_create(
        BYTES("(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=(?=)))))))))))))))))).*"), NULL,
        &endless)));
    struct route_value_predicate headers[] = {{.name = BYTES("x-a"), .regex = endless},
                                              {.name = BYTES("x-b"), .value = BYTES("1")}};
    struct route_candidate candidate = {.kind = ROUTE_KIND_HTTP_ROUTE,
                                        .type = ROUTE_MATCH_PREFIX,
                                        .path = BYTES(""),
                                        .headers = headers,
                                        .headers_count = 2};
    struct route_field fields[] = {{BYTES("x-a"), BYTES("1")}, {BYTES("x-b"), BYTES("2")}};
    struct route_request request = {
        .method = BYTES("GET"), .path = BYTES("/"), .fields = fields, .fields_count = 2};
    cr_expect(check(&candidate, &request) == ROUTE_NO);
    fields[1].value = BYTES("1");
    cr_expect(check(&candidate, &request) == ROUTE_OVER_LIMIT);
    route_regex_destroy(endless);
}

Test(candidate, splits_the_path_of_a_grpc_call)
{
    static const struct {
        const char *path;
        const char *service; /* NULL: none */
        const char *method;
    } rows[] = {
        {"/a.B/C", "a.B", "C"}, {"/a/b", "a", "b"},     {"/a", NULL, NULL},    {"/a/", NULL, NULL},
        {"//b", NULL, NULL},    {"/", NULL, NULL},      {"", NULL, NULL},      {"*", NULL, NULL},
        {"a/b", NULL, NULL},    {"/a/b/c", NULL, NULL}, {"/a/b/", NULL, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bytes service = {0};
        struct bytes method = {0};
        bool is_call = route_grpc_split(bytes_from_string(rows[i].path), &service, &method);
        cr_assert(is_call == (rows[i].service != NULL), "%s", rows[i].path);
        cr_expect(bytes_equal(service, bytes_from_string(rows[i].service)));
        cr_expect(bytes_equal(method, bytes_from_string(rows[i].method)));
    }
}

Test(candidate, knows_grpc_by_its_content_type)
{
    static const struct {
        const char *type;
        bool is_grpc;
    } rows[] = {
        {"application/grpc", true},
        {"Application/GRPC", true},
        {"application/grpc+proto", true},
        {"application/grpc; charset=utf-8", true},
        {"application/grpc;q=1", true},
        {"application/grpc-web", false},
        {"application/json", false},
        {"application/grp", false},
        {"", false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_field field = {BYTES("Content-Type"), bytes_from_string(rows[i].type)};
        struct route_request request = {.fields = &field, .fields_count = 1};
        cr_expect(route_request_is_grpc(&request) == rows[i].is_grpc, "%s", rows[i].type);
    }
    struct route_request nothing = {0};
    cr_expect(!route_request_is_grpc(&nothing));
}

Test(candidate, compares_server_names_by_label)
{
    static const struct {
        const char *suffix; /* without the "*" */
        const char *sni;
        enum route_answer answer;
    } rows[] = {
        {".example.com", "a.example.com", ROUTE_YES},
        {".example.com", "a.b.example.com", ROUTE_YES},
        {".example.com", "A.EXAMPLE.com", ROUTE_YES},
        {".example.com", "example.com", ROUTE_NO},
        {".example.com", ".example.com", ROUTE_NO},
        {".example.com", "aexample.com", ROUTE_NO},
        {".example.com", "a.example.com.x", ROUTE_NO},
        {".example.com", "", ROUTE_NO},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_candidate candidate = {.kind = ROUTE_KIND_TLS_ROUTE,
                                            .type = ROUTE_MATCH_PREFIX,
                                            .path = bytes_from_string(rows[i].suffix)};
        struct route_request request = {.sni = bytes_from_string(rows[i].sni)};
        cr_expect(check(&candidate, &request) == rows[i].answer, "%s", rows[i].sni);
    }
}

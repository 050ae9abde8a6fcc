/* Fields of a head: names, changes, hop-by-hop rules. */
#include "http/message.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "http/scan.h"
#include "limits.h"

static struct arena arena;

static void start(void)
{
    arena_init(&arena, 4096, 1 << 20);
}

static void stop(void)
{
    arena_finish(&arena);
}

TestSuite(message, .init = start, .fini = stop);

static void add(struct message_head *head, const char *name, const char *value)
{
    cr_assert(
        !error_is(message_add(head, &arena, bytes_from_string(name), bytes_from_string(value))));
}

/* The fields that are left, as one text. */
static const char *show(const struct message_head *head)
{
    static char text[4096];
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < head->fields_count; i++) {
        const struct message_field *field = &head->fields[i];
        if (!field->is_dropped) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%.*s=%.*s;",
                                     (int)field->name.size, (const char *)field->name.data,
                                     (int)field->value.size, (const char *)field->value.data);
        }
    }
    return text;
}

Test(message, knows_its_names_in_any_case_and_no_others)
{
    static const struct {
        const char *name;
        enum message_field_name known;
    } cases[] = {
        {"Access-Control-Request-Method", MESSAGE_FIELD_ACCESS_CONTROL_REQUEST_METHOD},
        {"authorization", MESSAGE_FIELD_AUTHORIZATION},
        {"CONNECTION", MESSAGE_FIELD_CONNECTION},
        {"Content-Length", MESSAGE_FIELD_CONTENT_LENGTH},
        {"Content-Type", MESSAGE_FIELD_CONTENT_TYPE},
        {"cOOKIE", MESSAGE_FIELD_COOKIE},
        {"Date", MESSAGE_FIELD_DATE},
        {"Expect", MESSAGE_FIELD_EXPECT},
        {"Host", MESSAGE_FIELD_HOST},
        {"Keep-Alive", MESSAGE_FIELD_KEEP_ALIVE},
        {"Max-Forwards", MESSAGE_FIELD_MAX_FORWARDS},
        {"Origin", MESSAGE_FIELD_ORIGIN},
        {"Proxy-Connection", MESSAGE_FIELD_PROXY_CONNECTION},
        {"te", MESSAGE_FIELD_TE},
        {"Trailer", MESSAGE_FIELD_TRAILER},
        {"Transfer-Encoding", MESSAGE_FIELD_TRANSFER_ENCODING},
        {"Upgrade", MESSAGE_FIELD_UPGRADE},
        {"Via", MESSAGE_FIELD_VIA},
        {"X-Forwarded-Client-Cert", MESSAGE_FIELD_X_FORWARDED_CLIENT_CERT},
        {"X-Request-ID", MESSAGE_FIELD_X_REQUEST_ID},
    };

    cr_assert_eq(sizeof(cases) / sizeof(cases[0]), MESSAGE_FIELD_NAME_COUNT - 1, "all of them");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[64];
        size_t size = (size_t)snprintf(name, sizeof(name), "%s", cases[i].name);
        cr_assert_eq(message_field_known(bytes_make(name, size)), cases[i].known, "%s", name);
        for (size_t at = 0; at < size; at++) { /* any other letter is another name */
            char kept = name[at];
            name[at] = kept == 'q' ? 'z' : 'q';
            cr_assert_eq(message_field_known(bytes_make(name, size)), MESSAGE_FIELD_OTHER);
            name[at] = kept;
        }
        cr_assert_eq(message_field_known(bytes_make(name, size - 1)), MESSAGE_FIELD_OTHER);
    }
    cr_assert_eq(message_field_known(BYTES("")), MESSAGE_FIELD_OTHER);
    cr_assert_eq(message_field_known(BYTES("content_length")), MESSAGE_FIELD_OTHER);
}

Test(message, adds_sets_and_removes)
{
    struct message_head head = {0};
    add(&head, "A", "1");
    add(&head, "b", "2");
    add(&head, "a", "3");
    add(&head, "Host", "h");
    cr_assert_str_eq(show(&head), "A=1;b=2;a=3;Host=h;");
    cr_assert(bytes_equal(message_find(&head, MESSAGE_FIELD_HOST)->value, BYTES("h")));
    cr_assert_null(message_find(&head, MESSAGE_FIELD_DATE));

    cr_assert(!error_is(message_set(&head, &arena, BYTES("a"), BYTES("9"))));
    cr_assert_str_eq(show(&head), "a=9;b=2;Host=h;");
    cr_assert(!error_is(message_set(&head, &arena, BYTES("C"), BYTES("4"))));
    message_remove(&head, BYTES("B"));
    cr_assert_str_eq(show(&head), "a=9;Host=h;C=4;");

    message_remove(&head, BYTES("host"));
    cr_assert_null(message_find(&head, MESSAGE_FIELD_HOST));
    cr_assert_null(message_find_name(&head, BYTES("Host")));
    add(&head, "HOST", "i");
    cr_assert(bytes_equal(message_find(&head, MESSAGE_FIELD_HOST)->value, BYTES("i")));
    cr_assert(!error_is(message_set(&head, &arena, BYTES("b"), BYTES("5"))));
    cr_assert_str_eq(show(&head), "a=9;C=4;HOST=i;b=5;", "what was removed does not come back");
}

Test(message, holds_no_more_fields_than_its_bound)
{
    struct message_head head = {0};
    struct error error = OK;
    uint32_t added = 0;
    while (!error_is(error) && added < 10000) {
        error = message_add(&head, &arena, BYTES("x"), BYTES("y"));
        added += error_is(error) ? 0 : 1;
    }
    cr_assert_eq(error.code, ERROR_LIMIT);
    cr_assert_geq(added, LIMIT_FIELDS_SENT);
    cr_assert_lt(added, 2 * LIMIT_FIELDS_SENT);

    struct message_head other = {0};
    arena_fail_after(&arena, 1);
    cr_assert_eq(message_add(&other, &arena, BYTES("x"), BYTES("y")).code, ERROR_NO_MEMORY);
    cr_assert_eq(other.fields_count, 0);
}

Test(message, removes_what_is_for_one_hop)
{
    static const struct {
        const char *fields[6]; /* name, value, ... */
        const char *left;      /* NULL: refused */
    } cases[] = {
        {{"Connection", "X-A", "x-a", "1", "B", "2"}, "B=2;"},
        {{"x-a", "1", "Connection", "close, x-A,,", "B", "2"}, "B=2;"},
        {{"Connection", "keep-alive", "Keep-Alive", "5", "B", "2"}, "B=2;"},
        {{"TE", "trailers", "Upgrade", "h2c", "Transfer-Encoding", "chunked"}, ""},
        {{"Proxy-Connection", "x", "Content-Length", "5", "Host", "a"}, "Content-Length=5;Host=a;"},
        {{"Connection", "", "B", "2"}, "B=2;"},
        {{"Connection", "host", "Host", "a"}, NULL},
        {{"Connection", "Content-Length", "Content-Length", "5"}, NULL},
        {{"Connection", "x, cookie"}, NULL},
        {{"Connection", "authorization"}, NULL},
        {{"Connection", "transfer-encoding"}, NULL},
        {{"Connection", "X-Forwarded-Anything"}, NULL},
        {{"Connection", "x", "Connection", "host"}, NULL},
        {{"Connection", "a b"}, NULL},
        {{"Connection", "a,b,c,d,e,f,g,h", "Connection", "i,j,k,l,m,n,o,p", "B", "2"}, ""},
        {{"Connection", "a,b,c,d,e,f,g,h", "Connection", "i,j,k,l,m,n,o,p,q"}, NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct message_head head = {0};
        for (size_t j = 0; j < 6 && cases[i].fields[j] != NULL; j += 2) {
            add(&head, cases[i].fields[j], cases[i].fields[j + 1]);
        }
        struct error error = message_remove_hop_by_hop(&head);
        cr_assert_eq(error.code, cases[i].left == NULL ? ERROR_PROTOCOL : ERROR_NONE, "case %zu",
                     i);
        if (cases[i].left != NULL) {
            cr_assert_str_eq(show(&head), cases[i].left, "case %zu", i);
            cr_assert(!error_is(message_remove_hop_by_hop(&head)), "twice is as good as once");
        }
    }
}

/* What the scans stop at, byte by byte, at every place of a vector and behind its end. */
Test(message, scans_agree_with_the_classes_of_single_bytes_everywhere)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        for (size_t size = 1; size <= 40; size++) {
            for (size_t at = 0; at < size; at++) {
                uint8_t text[40];
                memset(text, 'a', sizeof(text));
                text[at] = (uint8_t)byte;
                uint8_t one = (uint8_t)byte;
                cr_assert_eq(scan_value(text, size), scan_is_value(one) ? size : at);
                cr_assert_eq(scan_target(text, size), scan_is_target(one) ? size : at);
                cr_assert_eq(scan_token(text, size), scan_token_table[one] != 0 ? size : at);
            }
        }
    }
}

Test(message, classes_are_those_of_the_rfc)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (unsigned byte = 0; byte < 256; byte++) {
        bool is_token = byte != 0 && strchr(token, (int)byte) != NULL;
        cr_assert_eq(scan_token_table[byte] != 0, is_token, "%u", byte);
    }
    cr_assert(message_is_field_value(BYTES("")));
    cr_assert(message_is_field_value(BYTES("a\tb \x80\xff")));
    static const char *const bad[] = {" a", "a ", "\ta", "a\t", "a\rb", "a\nb", "a\x01", "\x7f"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert(!message_is_field_value(bytes_from_string(bad[i])), "%zu", i);
    }
    cr_assert(!message_is_field_value(bytes_make("a\0b", 3)));
    cr_assert(!message_is_token(BYTES("")));
}

Test(message, has_reasons_for_the_registered_statuses)
{
    cr_assert(bytes_equal(message_reason(100), BYTES("Continue")));
    cr_assert(bytes_equal(message_reason(200), BYTES("OK")));
    cr_assert(bytes_equal(message_reason(431), BYTES("Request Header Fields Too Large")));
    cr_assert(bytes_equal(message_reason(511), BYTES("Network Authentication Required")));
    cr_assert(bytes_equal(message_reason(299), BYTES("")));
    unsigned known = 0;
    for (uint16_t status = 0; status < 1000; status++) {
        known += message_reason(status).size > 0 ? 1 : 0;
    }
    cr_assert_eq(known, 60);
}

/* Socket addresses. */
#include "iouring/address.h"

#include <criterion/criterion.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

Test(address, prints_what_it_parses_and_refuses_the_rest)
{
    static const struct {
        const char *text;
        const char *printed; /* NULL: refused */
    } cases[] = {
        {"1.2.3.4:80", "1.2.3.4:80"},
        {"0.0.0.0:0", "0.0.0.0:0"},
        {"[::1]:65535", "[::1]:65535"},
        {"[fd00:0:0::1]:443", "[fd00::1]:443"},
        {"[fe80::1%7]:80", "[fe80::1%7]:80"},
        {"[::ffff:10.0.0.1]:80", "10.0.0.1:80"},
        {"unix:/run/app.sock", "unix:/run/app.sock"},
        {"", NULL},
        {"1.2.3.4", NULL},
        {"1.2.3.4:", NULL},
        {"1.2.3.4:65536", NULL},
        {"1.2.3.4:+80", NULL},
        {"1.2.3.4:80 ", NULL},
        {" 1.2.3.4:80", NULL},
        {"1.2.3:80", NULL},
        {"01.2.3.4:80", NULL},
        {"[1.2.3.4]:80", NULL},
        {"::1:80", NULL},
        {"[::1]80", NULL},
        {"[::1", NULL},
        {"[::1]", NULL},
        {"[]:80", NULL},
        {"[fe80::1%eth0]:80", NULL},
        {"[fe80::1%]:80", NULL},
        {"1.2.3.4%1:80", NULL},
        {"host:80", NULL},
        {"unix:", NULL},
        {"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:80", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct address address = {0};
        struct error error = address_parse(bytes_from_string(cases[i].text), &address);
        cr_expect_eq(error.code, cases[i].printed == NULL ? ERROR_SYNTAX : ERROR_NONE, "%s",
                     cases[i].text);
        char text[ADDRESS_TEXT_MAX];
        size_t size = address_print(&address, text);
        cr_expect_str_eq(text, cases[i].printed == NULL ? "" : cases[i].printed);
        cr_expect_eq(size, strlen(text));
    }
}

Test(address, refuses_a_nul_inside_text)
{
    struct address address = {0};
    cr_assert_eq(address_parse(BYTES("1.2.3.4\0:80"), &address).code, ERROR_SYNTAX);
    cr_assert_eq(address_parse(BYTES("unix:/a\0b"), &address).code, ERROR_SYNTAX);
    cr_assert_eq(address_parse_ip(BYTES("1.2.3.4\0"), 80, &address).code, ERROR_SYNTAX);
}

Test(address, takes_the_longest_unix_path_and_not_one_more)
{
    char text[5 + 108 + 1] = "unix:/";
    memset(text + 6, 'p', sizeof(text) - 6);
    struct address address = {0};
    cr_assert_not(error_is(address_parse(bytes_make(text, 5 + 107), &address)));
    struct sockaddr_storage storage;
    cr_assert_leq(address_to_sockaddr(&address, &storage), sizeof(struct sockaddr_un));
    char printed[ADDRESS_TEXT_MAX];
    cr_assert_eq(address_print(&address, printed), 5 + 107);
    cr_assert_eq(address_parse(bytes_make(text, 5 + 108), &address).code, ERROR_SYNTAX);
}

Test(address, goes_to_the_kernels_form_and_back)
{
    static const char *const texts[] = {"10.1.2.3:8080", "[fd00::2]:9", "[fe80::1%3]:1",
                                        "unix:/tmp/x"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct address address = {0};
        cr_assert_not(error_is(address_parse(bytes_from_string(texts[i]), &address)));
        struct sockaddr_storage storage;
        socklen_t size = address_to_sockaddr(&address, &storage);
        struct address back = {0};
        cr_assert_not(
            error_is(address_from_sockaddr((const struct sockaddr *)&storage, size, &back)));
        cr_expect(address_equal(&address, &back), "%s", texts[i]);
        cr_expect_eq(address_hash(&address), address_hash(&back), "%s", texts[i]);
    }
}

Test(address, turns_a_mapped_address_from_the_kernel_into_ipv4)
{
    struct sockaddr_in6 form = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
    static const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 7};
    memcpy(&form.sin6_addr, mapped, sizeof(mapped));
    struct address address = {0};
    cr_assert_not(
        error_is(address_from_sockaddr((const struct sockaddr *)&form, sizeof(form), &address)));
    struct address plain = {0};
    cr_assert_not(error_is(address_parse(BYTES("10.0.0.7:80"), &plain)));
    cr_assert(address_equal(&address, &plain));
    cr_assert_eq(address_hash(&address), address_hash(&plain));
}

Test(address, refuses_short_and_foreign_kernel_forms)
{
    struct sockaddr_storage storage = {.ss_family = AF_INET6};
    struct address address = {0};
    const struct sockaddr *form = (const struct sockaddr *)&storage;
    cr_assert_eq(address_from_sockaddr(form, 4, &address).code, ERROR_UNSUPPORTED);
    storage.ss_family = AF_PACKET;
    cr_assert_eq(address_from_sockaddr(form, sizeof(storage), &address).code, ERROR_UNSUPPORTED);
    cr_assert_eq(address_from_sockaddr(form, 1, &address).code, ERROR_UNSUPPORTED);
}

Test(address, prints_unnamed_and_abstract_unix_addresses_on_one_line)
{
    struct sockaddr_un form = {.sun_family = AF_UNIX, .sun_path = "\0a\nb"};
    struct address address = {0};
    char text[ADDRESS_TEXT_MAX];
    socklen_t unnamed = offsetof(struct sockaddr_un, sun_path);
    cr_assert_not(
        error_is(address_from_sockaddr((const struct sockaddr *)&form, unnamed + 4, &address)));
    address_print(&address, text);
    cr_assert_str_eq(text, "unix:@a?b");
    cr_assert_not(
        error_is(address_from_sockaddr((const struct sockaddr *)&form, unnamed, &address)));
    address_print(&address, text);
    cr_assert_str_eq(text, "unix:");
}

Test(address, compares_with_and_without_the_port)
{
    struct address a = {0};
    struct address b = {0};
    struct address c = {0};
    cr_assert_not(error_is(address_parse(BYTES("10.0.0.1:80"), &a)));
    cr_assert_not(error_is(address_parse(BYTES("10.0.0.1:81"), &b)));
    cr_assert_not(error_is(address_parse(BYTES("[a00:1::]:80"), &c))); /* the same first bytes */
    cr_assert(address_equal_ip(&a, &b));
    cr_assert_not(address_equal(&a, &b));
    cr_assert_neq(address_hash(&a), address_hash(&b));
    cr_assert_not(address_equal_ip(&a, &c));
    cr_assert_neq(address_hash(&a), address_hash(&c));
}

Test(address, knows_loopback)
{
    static const struct {
        const char *text;
        bool is_loopback;
    } cases[] = {
        {"127.0.0.1", true}, {"127.255.0.9", true},      {"126.0.0.1", false},
        {"::1", true},       {"::ffff:127.0.0.1", true}, {"::2", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct address address = {0};
        cr_assert_not(error_is(address_parse_ip(bytes_from_string(cases[i].text), 1, &address)));
        cr_expect_eq(address_is_loopback(&address), cases[i].is_loopback, "%s", cases[i].text);
    }
}

Test(address, reads_the_addresses_of_a_socket)
{
    struct address wanted = {0};
    cr_assert_not(error_is(address_parse(BYTES("127.0.0.1:0"), &wanted)));
    struct sockaddr_storage storage;
    socklen_t size = address_to_sockaddr(&wanted, &storage);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (const struct sockaddr *)&storage, size), 0);
    cr_assert_eq(listen(listener, 1), 0);
    struct address local = {0};
    cr_assert_not(error_is(address_of_local(listener, &local)));
    cr_assert(address_equal_ip(&local, &wanted));
    cr_assert_neq(local.port, 0);

    struct address none = {0};
    cr_assert_eq(address_of_peer(listener, &none).code, ERROR_NOT_FOUND);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size = address_to_sockaddr(&local, &storage);
    cr_assert_eq(connect(client, (const struct sockaddr *)&storage, size), 0);
    int server = accept(listener, NULL, NULL);
    struct address peer = {0};
    struct address other = {0};
    cr_assert_not(error_is(address_of_peer(server, &peer)));
    cr_assert_not(error_is(address_of_local(client, &other)));
    cr_assert(address_equal(&peer, &other));
    /* Nothing redirected it, whether this machine tracks connections or not. */
    cr_assert_eq(address_of_original(server, &none).code, ERROR_NOT_FOUND);
    close(server);
    close(client);
    close(listener);
}

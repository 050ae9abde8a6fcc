/* The control server on real unix sockets: keep-alive, answers that come later, clients that leave,
 * bounds. */
#include "control/server.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    BIG_BYTES = 1 << 20
};

static struct io *io;
static struct server *server;
static struct sockaddr_un address;
static struct server_call *held; /* a call to be answered later */
static int requests;

static char *copy_of(const char *text)
{
    char *copy = strdup(text);
    cr_assert_not_null(copy);
    return copy;
}

static void handle(struct server_call *call, const struct message_head *head, void *owner)
{
    (void)owner;
    requests++;
    if (bytes_equal(head->target, BYTES("/later"))) {
        held = call;
    } else if (bytes_equal(head->target, BYTES("/big"))) {
        char *text = malloc(BIG_BYTES);
        cr_assert_not_null(text);
        memset(text, 'b', BIG_BYTES);
        server_reply(call, 200, "text/plain", text, BIG_BYTES);
    } else if (bytes_equal(head->method, BYTES("POST"))) {
        server_reply_not_allowed(call, "GET");
    } else {
        server_reply(call, 200, "text/plain", copy_of("hello"), 5);
    }
}

static void begin_with(uint32_t connections_max)
{
    struct io_options options = io_options_default();
    cr_assert_not(error_is(io_create(IO_BACKEND_EPOLL, &options, &io)));
    address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/outrigger-server-test.%d.sock",
             (int)getpid());
    unlink(address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(fd, 16), 0);
    struct server_options server_options = {
        .fd = fd, .connections_max = connections_max, .handle = handle};
    cr_assert_not(error_is(server_open(io, &server_options, &server)));
    held = NULL;
    requests = 0;
}

static void begin(void)
{
    begin_with(8);
}

/* Everything that was opened is given back, whatever the test left behind. */
static void end(void)
{
    server_close(server);
    uint64_t until_ns = io_now_exact(io) + 3 * CLOCK_NS_PER_S;
    while (!io_is_idle(io) && io_now_exact(io) < until_ns) {
        cr_assert_not(error_is(io_turn(io, io_now_exact(io) + 10 * CLOCK_NS_PER_MS)));
    }
    cr_assert(io_is_idle(io));
    io_destroy(io);
    unlink(address.sun_path);
}

static void turn_for(uint64_t ms)
{
    uint64_t until_ns = io_now_exact(io) + ms * CLOCK_NS_PER_MS;
    while (io_now_exact(io) < until_ns) {
        cr_assert_not(error_is(io_turn(io, until_ns)));
    }
}

static int connect_client(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void send_text(int fd, const char *text)
{
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Turn until `wanted` stands in what the client has read, or it reads the end; at most 2 s. Returns
 * what was read. */
static const char *read_until(int fd, const char *wanted)
{
    static char text[BIG_BYTES + 4096];
    size_t size = 0;
    uint64_t until_ns = io_now_exact(io) + 2 * CLOCK_NS_PER_S;
    text[0] = '\0';
    while (io_now_exact(io) < until_ns && (wanted == NULL || strstr(text, wanted) == NULL)) {
        cr_assert_not(error_is(io_turn(io, io_now_exact(io) + CLOCK_NS_PER_MS)));
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, 0) <= 0) {
            continue;
        }
        ssize_t got = recv(fd, text + size, sizeof(text) - 1 - size, MSG_DONTWAIT);
        if (got <= 0) {
            break;
        }
        size += (size_t)got;
        text[size] = '\0';
    }
    return text;
}

Test(server, answers_request_after_request_on_one_connection, .init = begin, .fini = end,
     .timeout = 20)
{
    int fd = connect_client();
    for (int i = 1; i <= 3; i++) {
        send_text(fd, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        const char *text = read_until(fd, "hello");
        cr_assert_eq(strncmp(text, "HTTP/1.1 200 OK\r\n", 17), 0, "%s", text);
        cr_assert_eq(requests, i);
    }
    send_text(fd, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    cr_assert_not_null(strstr(read_until(fd, "Allow: GET"), "405"));
    close(fd);
}

Test(server, answers_pipelined_requests_in_order, .init = begin, .fini = end, .timeout = 20)
{
    int fd = connect_client();
    send_text(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nHost: a\r\n\r\n"
                  "GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    const char *text = read_until(fd, NULL);
    cr_assert_eq(requests, 3);
    int answers = 0;
    int bodies = 0;
    for (const char *at = text; (at = strstr(at, "HTTP/1.1 200")) != NULL; at++) {
        answers++;
    }
    for (const char *at = text; (at = strstr(at, "hello")) != NULL; at++) {
        bodies++;
    }
    cr_assert_eq(answers, 3);
    cr_assert_eq(bodies, 2);
    close(fd);
}

Test(server, answers_later_and_to_clients_that_left, .init = begin, .fini = end, .timeout = 20)
{
    int fd = connect_client();
    send_text(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_for(30);
    cr_assert_not_null(held);
    server_reply(held, 200, "text/plain", copy_of("at last"), 7);
    cr_assert_not_null(strstr(read_until(fd, "at last"), "at last"));
    send_text(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_for(30);
    cr_assert_eq(requests, 2);
    close(fd);
    turn_for(30);
    server_reply(held, 200, "text/plain", copy_of("too late"), 8);
}

Test(server, answers_a_client_that_has_closed_its_half, .init = begin, .fini = end, .timeout = 20)
{
    int fd = connect_client();
    send_text(fd, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(fd, SHUT_WR);
    cr_assert_not_null(strstr(read_until(fd, "hello"), "hello"));
    close(fd);
}

Test(server, sends_large_answers_to_slow_readers, .init = begin, .fini = end, .timeout = 20)
{
    int fd = connect_client();
    send_text(fd, "GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    turn_for(100);
    const char *text = read_until(fd, NULL);
    const char *body = strstr(text, "\r\n\r\n");
    cr_assert_not_null(body);
    cr_assert_eq(strlen(body + 4), BIG_BYTES);
    close(fd);
}

Test(server, refuses_what_is_malformed_and_goes_on, .init = begin, .fini = end, .timeout = 20)
{
    int fd = connect_client();
    send_text(fd, "GET  /x HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *text = read_until(fd, NULL);
    cr_assert_not_null(strstr(text, "400"));
    cr_assert_not_null(
        strstr(text, "\r\n\r\n{\"code\":\"request_malformed\",\"message\":\"Bad Request\"}\n"),
        "%s", text);
    close(fd);
    fd = connect_client();
    send_text(fd, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    cr_assert_not_null(strstr(read_until(fd, "hello"), "hello"));
    close(fd);
}

static void begin_narrow(void)
{
    begin_with(2);
}

static bool is_at_end(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno == ECONNRESET);
}

/* One that says nothing, one in the middle of its head, one that takes no answer. */
Test(server, makes_room_for_the_next_client_by_the_oldest_that_is_waited_for, .init = begin_narrow,
     .fini = end, .timeout = 20)
{
    static const char *const words[] = {"", "GET /x HT", "GET /big HTTP/1.1\r\nHost: a\r\n\r\n"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        int first = connect_client();
        send_text(first, words[i]);
        turn_for(30);
        int second = connect_client();
        turn_for(30);
        int third = connect_client();
        send_text(third, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        cr_assert_not_null(strstr(read_until(third, "hello"), "hello"), "%s", words[i]);
        turn_for(30);
        (void)read_until(first, NULL); /* what had been sent to it */
        cr_assert(is_at_end(first), "%s", words[i]);
        send_text(second, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        cr_assert_not_null(strstr(read_until(second, "hello"), "hello"));
        close(first);
        close(second);
        close(third);
        turn_for(30);
    }
}

Test(server, keeps_those_it_owes_an_answer, .init = begin_narrow, .fini = end, .timeout = 20)
{
    int first = connect_client();
    send_text(first, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_for(30);
    struct server_call *first_call = held;
    int second = connect_client();
    send_text(second, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_for(30);
    int third = connect_client();
    turn_for(30);
    cr_assert(is_at_end(third));
    server_reply(first_call, 200, "text/plain", copy_of("first"), 5);
    server_reply(held, 200, "text/plain", copy_of("second"), 6);
    cr_assert_not_null(strstr(read_until(first, "first"), "first"));
    cr_assert_not_null(strstr(read_until(second, "second"), "second"));
    close(first);
    close(second);
    close(third);
}

/* Idle time before the request does not count. Returns the client. */
static int be_told_that_the_handler_is_stuck(void)
{
    int fd = connect_client();
    turn_for(1000);
    send_text(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_for(4500);
    char byte;
    cr_assert_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1, "told before its time");
    const char *text = read_until(fd, "stuck");
    cr_assert_eq(strncmp(text, "HTTP/1.1 503 ", 13), 0, "%s", text);
    return fd;
}

/* What the handler says in the end is dropped. */
Test(server, tells_a_client_whose_handler_is_stuck, .init = begin, .fini = end, .timeout = 20)
{
    int fd = be_told_that_the_handler_is_stuck();
    send_text(fd, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    cr_assert_not_null(strstr(read_until(fd, "hello"), "hello"));
    server_reply(held, 200, "text/plain", copy_of("at last"), 7);
    turn_for(30);
    char byte;
    cr_assert_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    close(fd);
}

Test(server, outlives_a_client_that_left_a_stuck_handler, .init = begin, .fini = end, .timeout = 20)
{
    close(be_told_that_the_handler_is_stuck());
    turn_for(30);
    server_reply(held, 200, "text/plain", copy_of("at last"), 7);
    turn_for(30);
}

Test(server, waits_longer_for_a_handler_that_says_so, .init = begin, .fini = end, .timeout = 20)
{
    int fd = connect_client();
    send_text(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_for(30);
    server_wait_longer(held, 8);
    turn_for(6000);
    server_reply(held, 200, "text/plain", copy_of("at last"), 7);
    cr_assert_not_null(strstr(read_until(fd, "at last"), "200 OK"));
    close(fd);
}

Test(server, lets_go_of_clients_that_say_nothing, .init = begin, .fini = end, .timeout = 20)
{
    int fd = connect_client();
    send_text(fd, "GET /x HT");
    turn_for(5500);
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    cr_assert(got == 0 || (got == 1 && byte == 'H'), "%zd", got); /* closed, or told 408 */
    close(fd);
}

/* The client of the admin socket: one request, one answer, to the end of the connection. */
#include "cli/admin.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"

enum {
    TIMEOUT_SECONDS = 125, /* longer than the proxy takes to say that it is stuck */
    REQUEST_BYTES_MAX = 8192,
    ANSWER_BYTES_MAX = 256 << 20,
};

static const char default_socket[] = "/run/outrigger/admin.sock";

struct request {
    char text[REQUEST_BYTES_MAX];
    size_t length;
    bool is_cut;
};

static void add(struct request *request, const char *text)
{
    size_t size = strlen(text);
    if (size >= sizeof(request->text) - request->length) {
        request->is_cut = true;
        return;
    }
    memcpy(request->text + request->length, text, size + 1);
    request->length += size;
}

/* Percent-encode everything but the unreserved characters of RFC 3986 2.3. */
static void add_encoded(struct request *request, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        bool is_plain = (byte_lower(byte) >= 'a' && byte_lower(byte) <= 'z') ||
                        (byte >= '0' && byte <= '9') || strchr("-._~/:", byte) != NULL;
        char piece[4];
        snprintf(piece, sizeof(piece), is_plain ? "%c" : "%%%02X", byte);
        add(request, piece);
    }
}

static void print_usage(FILE *out)
{
    fputs("Usage: outrigger admin [--socket PATH] [--json] COMMAND\n\n"
          "  status | config | routes | endpoints | connections | stats | certificates | dump\n"
          "  explain SERVICE.NS:PORT [-X METHOD] [-H 'name: value']... PATH\n"
          "  reload                    read the configuration now; says what refuses it\n"
          "  drain                     finish what is open, then end\n"
          "  log LEVEL [DURATION]      error|warning|info|debug, for a while\n\n"
          "The socket is that of --socket, else /run/outrigger/admin.sock.\n"
          "Exit status: 0 done, 1 refused or no proxy there, 2 usage.\n",
          out);
}

/* `explain SERVICE.NS:PORT [-X M] [-H 'n: v'].. PATH` to a target; false: usage. */
static bool add_explain(struct request *request, int argc, char **argv)
{
    const char *to = NULL;
    const char *path = NULL;
    add(request, "GET /explain?");
    for (int i = 1; i < argc; i++) {
        bool is_method = strcmp(argv[i], "-X") == 0;
        bool is_header = strcmp(argv[i], "-H") == 0;
        if ((is_method || is_header) && i + 1 == argc) {
            return false;
        }
        if (is_method || is_header) {
            add(request, is_method ? "method=" : "header=");
            add_encoded(request, argv[++i]);
            add(request, "&");
        } else if (to == NULL) {
            to = argv[i];
        } else if (path == NULL) {
            path = argv[i];
        } else {
            return false;
        }
    }
    if (to == NULL || path == NULL) {
        return false;
    }
    add(request, "to=");
    add_encoded(request, to);
    add(request, "&path=");
    add_encoded(request, path);
    return true;
}

/* The request line's method and target; false: usage. */
static bool add_command(struct request *request, int argc, char **argv)
{
    static const char *const reads[] = {"status",      "config", "routes",       "endpoints",
                                        "connections", "stats",  "certificates", "dump"};
    const char *command = argv[0];
    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        if (strcmp(command, reads[i]) == 0 && argc == 1) {
            add(request, "GET /");
            add(request, command);
            return true;
        }
    }
    if (strcmp(command, "explain") == 0) {
        return add_explain(request, argc, argv);
    }
    if ((strcmp(command, "reload") == 0 || strcmp(command, "drain") == 0) && argc == 1) {
        add(request, "POST /");
        add(request, command);
        return true;
    }
    if (strcmp(command, "log") == 0 && (argc == 2 || argc == 3)) {
        add(request, "POST /log?level=");
        add_encoded(request, argv[1]);
        add(request, argc == 3 ? "&for=" : "");
        add_encoded(request, argc == 3 ? argv[2] : "");
        return true;
    }
    return false;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval timeout = {.tv_sec = TIMEOUT_SECONDS};
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        int number = errno;
        close(fd);
        errno = number;
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        text += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* Everything to the end of the connection, NUL-terminated; NULL on failure with errno. */
static char *read_all(int fd, size_t *ret_size)
{
    size_t capacity = 65536;
    size_t size = 0;
    char *text = malloc(capacity + 1);
    while (text != NULL) {
        ssize_t got = read(fd, text + size, capacity - size);
        if (got == 0) {
            text[size] = '\0';
            *ret_size = size;
            return text;
        }
        if (got < 0 && errno == EINTR) {
            continue;
        }
        size += got > 0 ? (size_t)got : 0;
        char *larger = got < 0 || size >= ANSWER_BYTES_MAX ? NULL : text;
        if (larger != NULL && size == capacity) {
            capacity *= 2;
            larger = realloc(text, capacity + 1);
        }
        if (larger == NULL) {
            free(text);
            return NULL;
        }
        text = larger;
    }
    return NULL;
}

/* Print the body of an HTTP/1.1 answer; 0 for a 2xx, else 1. */
static int print_answer(const char *text, size_t size)
{
    static const struct bytes separator = BYTES_LITERAL("\r\n\r\n");
    struct bytes answer = bytes_make(text, size);
    size_t end = bytes_find_bytes(answer, separator);
    if (!bytes_starts_with(answer, BYTES("HTTP/1.1 ")) || size < 12 || end == size) {
        fputs("outrigger admin: what answered is not an admin socket\n", stderr);
        return 1;
    }
    bool is_done = text[9] == '2';
    struct bytes body = bytes_skip(answer, end + separator.size);
    fwrite(body.data, 1, body.size, is_done ? stdout : stderr);
    return is_done ? 0 : 1;
}

static int ask(const char *path, const struct request *request)
{
    int fd = connect_to(path);
    if (fd < 0) {
        fprintf(stderr, "outrigger admin: %s: %s\n", path, strerror(errno));
        return 1;
    }
    size_t size = 0;
    char *text = send_all(fd, request->text, request->length) ? read_all(fd, &size) : NULL;
    int status = 1;
    if (text == NULL) {
        fprintf(stderr, "outrigger admin: %s: no answer: %s\n", path, strerror(errno));
    } else {
        status = print_answer(text, size);
    }
    free(text);
    close(fd);
    return status;
}

struct command_line {
    const char *path;
    bool is_json;
    bool is_help;
    int count; /* words of the command, moved to argv[0] and on */
};

/* Options stand before the command or behind its name, but for what `explain` takes for itself. */
static bool read_command_line(int argc, char **argv, struct command_line *line)
{
    bool is_value = false; /* of -X or -H */
    for (int at = 1; at < argc; at++) {
        char *word = argv[at];
        if (is_value || strncmp(word, "--", 2) != 0) {
            is_value = !is_value && (strcmp(word, "-X") == 0 || strcmp(word, "-H") == 0);
            argv[line->count++] = word;
        } else if (strcmp(word, "--json") == 0) {
            line->is_json = true;
        } else if (strcmp(word, "--socket") == 0 && at + 1 < argc) {
            line->path = argv[++at];
        } else if (strncmp(word, "--socket=", 9) == 0) {
            line->path = word + 9;
        } else if (strcmp(word, "--help") == 0) {
            line->is_help = true;
        } else {
            bool is_bare = strcmp(word, "--socket") == 0;
            fprintf(stderr, "outrigger admin: %s '%s'; see outrigger admin --help\n",
                    is_bare ? "a path is needed after" : "unknown option", word);
            return false;
        }
    }
    return true;
}

int admin_main(int argc, char **argv)
{
    struct command_line line = {.path = default_socket};
    if (!read_command_line(argc, argv, &line)) {
        return 2;
    }
    if (line.is_help) {
        print_usage(stdout);
        return 0;
    }
    static struct request request;
    if (line.count == 0 || !add_command(&request, line.count, argv)) {
        fprintf(stderr, "outrigger admin: %s%s\n",
                line.count == 0 ? "a command is needed" : "no such command, or not so: ",
                line.count == 0 ? "" : argv[0]);
        print_usage(stderr);
        return 2;
    }
    add(&request, " HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nAccept: ");
    add(&request, line.is_json ? "application/json\r\n\r\n" : "text/plain\r\n\r\n");
    if (request.is_cut) {
        fputs("outrigger admin: the request is too long\n", stderr);
        return 2;
    }
    return ask(line.path, &request);
}

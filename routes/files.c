/* Reading a directory that may be swapped under our hands: one descriptor, and again when a name
 * has gone. */
#include "routes/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    NAMES_MAX = 10000,
    PATH_BYTES_MAX = 2048,
    TRIES_MAX = 5, /* swaps in a row that we follow */
    NAMES_ARENA_BYTES_MAX = 16 << 20,
};

/* What reads one path. */
struct reader {
    struct route_files *files;
    struct route_diagnostics *diagnostics;
    const char *path;
    uint64_t bytes_max;
    uint64_t total_max;
};

void route_files_init(struct route_files *files)
{
    *files = (struct route_files){0};
    arena_init(&files->names, 4096, NAMES_ARENA_BYTES_MAX);
}

struct bytes route_file_take(struct route_file *file)
{
    struct bytes content = file->content;
    file->content = (struct bytes){0};
    return content;
}

static void drop_from(struct route_files *files, uint32_t first)
{
    for (uint32_t i = first; i < files->count; i++) {
        files->bytes -= files->items[i].content.size;
        if (!files->items[i].is_known) {
            free((void *)(uintptr_t)files->items[i].content.data);
        }
    }
    files->count = first;
}

void route_files_finish(struct route_files *files)
{
    drop_from(files, 0);
    free(files->items);
    free(files->buffer);
    arena_finish(&files->names);
    *files = (struct route_files){0};
}

static void complain(const struct reader *reader, const char *name, const char *code,
                     const char *what, const char *detail)
{
    struct route_position position = {.file = name};
    route_diagnostics_add(reader->diagnostics, ROUTE_SEVERITY_ERROR, position, code, NULL, "%s%s%s",
                          what, detail[0] == '\0' ? "" : ": ", detail);
}

static struct error add_file(struct route_files *files, const char *name, struct bytes content,
                             bool is_known)
{
    if (files->count == files->capacity) {
        uint32_t capacity = files->capacity * 2 + 16;
        struct route_file *items = realloc(files->items, capacity * sizeof(*items));
        if (items == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        files->items = items;
        files->capacity = capacity;
    }
    struct route_file *file = &files->items[files->count];
    *file = (struct route_file){.name = arena_copy_string(&files->names, bytes_from_string(name)),
                                .content = content,
                                .is_known = is_known};
    if (file->name == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    files->bytes += content.size;
    files->count++;
    return OK;
}

/* Read `size` bytes, which a regular file said that it has; 0 or an errno. */
static int read_exactly(int fd, uint8_t *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, data + done, size - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return errno;
        }
        if (got == 0) {
            return ESTALE; /* it shrank while we read: somebody writes in place */
        }
        done += (size_t)got;
    }
    return 0;
}

/* Room for `size` bytes that are only looked at. */
static uint8_t *take_buffer(struct route_files *files, size_t size)
{
    if (files->buffer_bytes < size) {
        free(files->buffer);
        files->buffer = malloc(size);
        files->buffer_bytes = files->buffer == NULL ? 0 : size;
    }
    return files->buffer;
}

/* Read a file that is likely to hold what it held before, `past`. */
static struct error read_again(const struct reader *reader, const char *name, int fd,
                               struct bytes past)
{
    struct route_files *files = reader->files;
    uint8_t *data = take_buffer(files, past.size + 1);
    if (data == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    int failure = read_exactly(fd, data, past.size);
    if (failure != 0) {
        complain(reader, name, "file-unreadable", "cannot be read", strerror(failure));
        return OK;
    }
    if (bytes_equal(bytes_make(data, past.size), past)) {
        return add_file(files, name, past, true);
    }
    data[past.size] = '\0';
    files->buffer = NULL;
    files->buffer_bytes = 0;
    struct error error = add_file(files, name, bytes_make(data, past.size), false);
    if (error_is(error)) {
        free(data);
    }
    return error;
}

/* Read a file of `size` bytes; what is wrong with it becomes a diagnostic. */
static struct error read_regular(const struct reader *reader, const char *name, int fd, size_t size)
{
    struct route_files *files = reader->files;
    struct bytes past = {0};
    if (files->known != NULL) {
        past = files->known(files->known_argument, name);
    }
    if (past.data != NULL && past.size == size) {
        return read_again(reader, name, fd, past);
    }
    uint8_t *data = malloc(size + 1);
    if (data == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    data[size] = '\0';
    int failure = read_exactly(fd, data, size);
    if (failure != 0) {
        free(data);
        complain(reader, name, "file-unreadable", "cannot be read", strerror(failure));
        return OK;
    }
    struct error error = add_file(files, name, bytes_make(data, size), false);
    if (error_is(error)) {
        free(data);
    }
    return error;
}

/* Read an open file; what is wrong with it becomes a diagnostic. */
static struct error read_open(const struct reader *reader, const char *name, int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        complain(reader, name, "file-unreadable", "cannot be read", strerror(errno));
        return OK;
    }
    if (!S_ISREG(info.st_mode)) {
        complain(reader, name, "file-not-regular", "is not a regular file", "");
        return OK;
    }
    if ((uint64_t)info.st_size > reader->bytes_max) {
        complain(reader, name, "file-too-large", "is larger than 8 MiB", "");
        return OK;
    }
    if ((uint64_t)info.st_size + reader->files->bytes > reader->total_max) {
        complain(reader, name, "config-too-large",
                 "makes the configuration larger than 64 MiB in all", "");
        return OK;
    }
    return read_regular(reader, name, fd, (size_t)info.st_size);
}

static bool is_wanted(const char *name)
{
    static const char *const endings[] = {".yaml", ".yml", ".json"};
    size_t size = strlen(name);
    for (size_t i = 0; i < 3 && name[0] != '.'; i++) {
        size_t ending = strlen(endings[i]);
        if (size > ending && strcmp(name + size - ending, endings[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The wanted names of a directory, sorted, each malloc'd. */
struct names {
    char **items;
    uint32_t count;
};

static void free_names(struct names *names)
{
    for (uint32_t i = 0; i < names->count; i++) {
        free(names->items[i]);
    }
    free(names->items);
    *names = (struct names){0};
}

static struct error list_names(int directory_fd, struct names *names)
{
    int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        struct error error = error_make(ERROR_OS, errno);
        if (fd >= 0) {
            close(fd);
        }
        return error;
    }
    names->items = calloc(NAMES_MAX, sizeof(*names->items));
    struct error error = names->items == NULL ? error_make(ERROR_NO_MEMORY, 0) : OK;
    for (struct dirent *entry = NULL; !error_is(error) && (entry = readdir(directory)) != NULL;) {
        if (!is_wanted(entry->d_name)) {
            continue;
        }
        char *name = names->count == NAMES_MAX ? NULL : strdup(entry->d_name);
        if (name == NULL) {
            error = error_make(names->count == NAMES_MAX ? ERROR_LIMIT : ERROR_NO_MEMORY, 0);
            break;
        }
        names->items[names->count++] = name;
    }
    closedir(directory);
    if (!error_is(error)) {
        qsort(names->items, names->count, sizeof(*names->items), compare_names);
    }
    return error;
}

/* Open a file below `directory_fd`, never outside of it; -1 with errno. */
static int open_below(int directory_fd, const char *name)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_BENEATH};
    int fd = (int)syscall(SYS_openat2, directory_fd, name, &how, sizeof(how));
    if (fd < 0 &&
        (errno == ENOSYS ||
         errno == EPERM)) { /* an old kernel, or a seccomp profile that does not know it */
        fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    return fd;
}

/* Where an open descriptor is, as the kernel writes it; false when that does not fit. */
static bool path_of(int fd, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0 || (size_t)length >= size - 1) {
        return false;
    }
    path[length] = '\0';
    return true;
}

/* A link that was followed out of `directory_fd` by an absolute path: fine when it came back in. */
static int open_returning(int directory_fd, const char *name)
{
    char directory[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return -1;
    }
    bool is_known =
        path_of(directory_fd, directory, sizeof(directory)) && path_of(fd, path, sizeof(path));
    size_t size = is_known ? strlen(directory) : 0;
    if (is_known && strncmp(path, directory, size) == 0 && path[size] == '/') {
        return fd;
    }
    close(fd);
    errno = EXDEV;
    return -1;
}

/*
 * Open `name`. In a mount of Kubernetes it is a link to "..data/NAME": then it is read from
 * `data_fd`, the directory that
 * `..data` was when we began.
 */
static int open_name(int directory_fd, int data_fd, const char *name)
{
    static const char prefix[] = "..data/";
    char target[512];
    ssize_t size = data_fd < 0 ? -1 : readlinkat(directory_fd, name, target, sizeof(target) - 1);
    if (size > (ssize_t)strlen(prefix) && strncmp(target, prefix, strlen(prefix)) == 0) {
        target[size] = '\0';
        return open_below(data_fd, target + strlen(prefix));
    }
    int fd = open_below(directory_fd, name);
    return fd < 0 && errno == EXDEV ? open_returning(directory_fd, name) : fd;
}

/* The name of a file of the directory `path` as it is shown. */
static const char *show_name(const struct reader *reader, const char *name, char *out, size_t size)
{
    size_t length = strlen(reader->path);
    if (!reader->files->has_many_paths || length == 0) {
        return name;
    }
    const char *slash = reader->path[length - 1] == '/' ? "" : "/";
    snprintf(out, size, "%s%s%s", reader->path, slash, name);
    return out;
}

/* One try at a directory. `is_again`: a name went away meanwhile; drop what was read and try again.
 */
static struct error read_once(const struct reader *reader, int directory_fd,
                              const struct names *names, bool is_last, bool *ret_again)
{
    int data_fd = openat(directory_fd, "..data", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct error error = OK;
    *ret_again = false;
    for (uint32_t i = 0; i < names->count && !error_is(error); i++) {
        char path[PATH_BYTES_MAX];
        const char *shown = show_name(reader, names->items[i], path, sizeof(path));
        int fd = open_name(directory_fd, data_fd, names->items[i]);
        if (fd >= 0) {
            error = read_open(reader, shown, fd);
            close(fd);
        } else if (errno == ENOENT && !is_last) {
            *ret_again = true;
            break;
        } else {
            const char *why =
                errno == EXDEV ? "is a link that leaves its directory" : strerror(errno);
            complain(reader, shown, "file-unreadable", "cannot be read", why);
        }
    }
    if (data_fd >= 0) {
        close(data_fd);
    }
    return error;
}

static struct error read_directory(const struct reader *reader, int directory_fd)
{
    uint32_t first = reader->files->count;
    struct error error = OK;
    bool is_again = true;
    for (int tries = 1; is_again && !error_is(error); tries++) {
        struct names names = {0};
        drop_from(reader->files, first);
        error = list_names(directory_fd, &names);
        if (!error_is(error)) {
            error = read_once(reader, directory_fd, &names, tries == TRIES_MAX, &is_again);
        }
        free_names(&names);
    }
    if (error.code == ERROR_LIMIT) {
        complain(reader, ".", "config-too-large", "the directory has more than 10,000 files", "");
        error = OK; /* what was wrong has been said */
    }
    return error;
}

struct error route_files_read(struct route_files *files, const char *path, uint64_t bytes_max,
                              uint64_t total_max, struct route_diagnostics *diagnostics)
{
    struct reader reader = {.files = files,
                            .diagnostics = diagnostics,
                            .path = path,
                            .bytes_max = bytes_max,
                            .total_max = total_max};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_make(ERROR_OS, errno);
    }
    struct stat info;
    struct error error;
    if (fstat(fd, &info) != 0) {
        error = error_make(ERROR_OS, errno);
    } else if (S_ISDIR(info.st_mode)) {
        error = read_directory(&reader, fd);
    } else {
        error = read_open(&reader, path, fd);
    }
    close(fd);
    return error;
}

/*
 * Runs a fuzz target over every file of a corpus directory, as an ordinary test: what libFuzzer
 * does with -runs=0, for the builds that have no libFuzzer. The empty input always comes first. A
 * corpus without a file is a failure.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Implemented by the target; libFuzzer declares it nowhere either. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    uint8_t *data = NULL;
    size_t size = 0;
    size_t capacity = 0;
    size_t got = 0;
    do {
        if (size == capacity) {
            capacity = capacity == 0 ? 4096 : capacity * 2;
            uint8_t *grown = realloc(data, capacity);
            if (grown == NULL) {
                abort();
            }
            data = grown;
        }
        got = fread(data + size, 1, capacity - size, file);
        size += got;
    } while (got > 0);
    int failed = ferror(file);
    fclose(file);

    /* An exact copy, so that AddressSanitizer sees a read one past the end. */
    uint8_t *exact = malloc(size > 0 ? size : 1);
    if (exact == NULL) {
        abort();
    }
    memcpy(exact, data, size);
    free(data);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS_DIRECTORY\n", argv[0]);
        return 2;
    }
    DIR *directory = opendir(argv[1]);
    if (directory == NULL) {
        fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    static const uint8_t nothing[1];
    LLVMFuzzerTestOneInput(nothing, 0);

    int replayed = 0;
    int failed = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        replayed++;
        if (replay_file(path) != 0) {
            failed++;
        }
    }
    closedir(directory);
    printf("%d passed, %d failed\n", replayed - failed, failed);
    return replayed > 0 && failed == 0 ? 0 : 1;
}

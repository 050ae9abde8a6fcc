/*
 * Test support: the rows of integration/e2e/http1_requests.txt and http1_responses.txt, whose
 * notation their own first lines explain.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    VECTOR_COLUMNS_MAX = 5
};

/* How the bytes of a side end. */
enum vector_end {
    VECTOR_END_NONE,
    VECTOR_END_CLEAN,
    VECTOR_END_RESET,
    VECTOR_END_TRUNCATED,
};

/* Bytes of a column, decoded. */
struct vector_bytes {
    uint8_t *data; /* owned */
    size_t size;
    enum vector_end end;
};

struct vector_row {
    char *columns[VECTOR_COLUMNS_MAX]; /* as written; owned by the table */
};

struct vector_table {
    struct vector_row *rows;
    size_t count;
    char *text;
};

/* Read a file of rows with `columns` columns each; ends the program when it cannot be read. */
void vector_load(const char *path, size_t columns, struct vector_table *ret_table);
void vector_unload(struct vector_table *table);

/* Decode a column; vector_free gives it back. */
struct vector_bytes vector_decode(const char *text);
void vector_free(struct vector_bytes *bytes);

/*
 * Values to JSON text. A thin face on Jansson, whose only home is json.c.
 *
 * Values are built bottom-up and owned by whoever made them until they are put into another.
 * Running out of memory makes a value NULL; every call accepts NULL values, and json_print of a
 * tree that lost a part returns NULL, so that callers check once, at the end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct json;

/* New values, owned by the caller until they are put or pushed. NULL without memory. */
struct json *json_new_object(void);
struct json *json_new_array(void);
/* Bytes that are not UTF-8 become U+FFFD. */
struct json *json_new_string(struct bytes text);
/* NULL text gives JSON null. */
struct json *json_new_text(const char *text);
struct json *json_new_number(int64_t number);
struct json *json_new_real(double number);
struct json *json_new_boolean(bool value);
struct json *json_new_null(void);

/* Put `value` (owned by `object` from here on, also on failure) under `key`. Members keep the order
 * of their arrival. */
void json_put(struct json *object, const char *key, struct json *value);

/* Append `value` (owned by `array` from here on, also on failure). */
void json_push(struct json *array, struct json *value);

/* Accepts NULL. */
void json_release(struct json *value);

/*
 * Print and release `value`. NUL-terminated, to be freed by the caller; NULL without memory, at the
 * value or at any json_put or json_push into it. `indent` 0: one line.
 */
char *json_print(struct json *value, unsigned indent);

/*
 * The same for people: members as aligned "name  value" lines, arrays of objects as tables with a
 * line of names, deeper values as JSON in one line. Takes `value` over like json_print; NULL
 * likewise.
 */
char *json_print_text(struct json *value);

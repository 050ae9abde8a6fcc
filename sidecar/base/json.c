/* JSON through Jansson. A value that lost a member on the way carries a mark, so that it never
 * prints as if whole. */
#include "base/json.h"

#include <jansson.h>
#include <stdlib.h>

/* struct json is Jansson's json_t under our name: never defined, only pointed at. */
static json_t *theirs(struct json *value)
{
    return (json_t *)(void *)value;
}

static struct json *ours(json_t *value)
{
    return (struct json *)(void *)value;
}

/* A member that no caller can have put: an object with it is incomplete. */
static const char lost_key[] = "\x01lost";

struct json *json_new_object(void)
{
    return ours(json_object());
}

struct json *json_new_array(void)
{
    return ours(json_array());
}

/* Length of the valid UTF-8 sequence at the start of `text`, 0 when there is none (RFC 3629). */
static size_t sequence(struct bytes text)
{
    uint8_t first = text.data[0];
    size_t size = first < 0x80                    ? 1
                  : first >= 0xc2 && first < 0xe0 ? 2
                  : first >= 0xe0 && first < 0xf0 ? 3
                  : first >= 0xf0 && first < 0xf5 ? 4
                                                  : 0;
    if (size == 0 || size > text.size) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if ((text.data[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool is_overlong =
        (first == 0xe0 && text.data[1] < 0xa0) || (first == 0xf0 && text.data[1] < 0x90);
    bool is_surrogate = first == 0xed && text.data[1] >= 0xa0;
    bool is_above = first == 0xf4 && text.data[1] >= 0x90;
    return is_overlong || is_surrogate || is_above ? 0 : size;
}

/* A string with U+FFFD for every byte that begins no sequence. */
static json_t *repaired(struct bytes text)
{
    char *copy = malloc(text.size * 3 + 1);
    if (copy == NULL) {
        return NULL;
    }
    size_t length = 0;
    while (text.size > 0) {
        size_t size = sequence(text);
        if (size == 0) {
            /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): in the middle of a text */
            memcpy(copy + length, "\xef\xbf\xbd", 3);
            length += 3;
            text = bytes_skip(text, 1);
        } else {
            memcpy(copy + length, text.data, size);
            length += size;
            text = bytes_skip(text, size);
        }
    }
    json_t *value = json_stringn_nocheck(copy, length);
    free(copy);
    return value;
}

struct json *json_new_string(struct bytes text)
{
    if (text.size == 0) {
        return ours(json_stringn("", 0));
    }
    json_t *value = json_stringn((const char *)text.data, text.size);
    return ours(value != NULL ? value : repaired(text));
}

struct json *json_new_text(const char *text)
{
    return text == NULL ? json_new_null() : json_new_string(bytes_from_string(text));
}

struct json *json_new_number(int64_t number)
{
    return ours(json_integer(number));
}

struct json *json_new_real(double number)
{
    return ours(json_real(number));
}

struct json *json_new_boolean(bool value)
{
    return ours(json_boolean(value));
}

struct json *json_new_null(void)
{
    return ours(json_null());
}

void json_put(struct json *object, const char *key, struct json *value)
{
    if (value == NULL || json_object_set_new_nocheck(theirs(object), key, theirs(value)) != 0) {
        json_object_set_new_nocheck(theirs(object), lost_key, json_true());
    }
}

void json_push(struct json *array, struct json *value)
{
    if (value == NULL || json_array_append_new(theirs(array), theirs(value)) != 0) {
        json_t *mark = json_object();
        json_object_set_new_nocheck(mark, lost_key, json_true());
        json_array_append_new(theirs(array), mark);
    }
}

void json_release(struct json *value)
{
    json_decref(theirs(value));
}

char *json_print(struct json *value, unsigned indent)
{
    size_t flags = JSON_ENCODE_ANY | (indent > 0 ? JSON_INDENT(indent) : JSON_COMPACT);
    char *text = value == NULL ? NULL : json_dumps(theirs(value), flags);
    json_release(value);
    if (text != NULL && strstr(text, "\\u0001lost") != NULL) {
        free(text);
        return NULL;
    }
    return text;
}

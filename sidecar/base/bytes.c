/* Views of bytes: comparison, search, numbers. No locale, no NUL. */
#include "base/bytes.h"

bool bytes_equal_nocase(struct bytes a, struct bytes b)
{
    if (a.size != b.size) {
        return false;
    }
    for (size_t i = 0; i < a.size; i++) {
        if (byte_lower(a.data[i]) != byte_lower(b.data[i])) {
            return false;
        }
    }
    return true;
}

int bytes_compare(struct bytes a, struct bytes b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
    if (order != 0) {
        return order;
    }
    return a.size < b.size ? -1 : a.size > b.size;
}

size_t bytes_find(struct bytes bytes, uint8_t byte)
{
    if (bytes.size == 0) {
        return 0;
    }
    const uint8_t *found = memchr(bytes.data, byte, bytes.size);
    return found == NULL ? bytes.size : (size_t)(found - bytes.data);
}

size_t bytes_find_bytes(struct bytes bytes, struct bytes needle)
{
    if (needle.size == 0) {
        return 0;
    }
    if (bytes.size < needle.size) {
        return bytes.size;
    }
    const uint8_t *found = memmem(bytes.data, bytes.size, needle.data, needle.size);
    return found == NULL ? bytes.size : (size_t)(found - bytes.data);
}

size_t bytes_first_character(struct bytes text, uint32_t *ret_code_point)
{
    const uint8_t *data = text.data;
    uint8_t lead = data[0];
    size_t size = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead >= 0x80 && (lead < 0xc2 || lead > 0xf4 || size > text.size)) {
        return 0;
    }
    uint32_t code_point = size == 1 ? lead : lead & (0x7fU >> size);
    for (size_t i = 1; i < size; i++) {
        if ((data[i] & 0xc0) != 0x80) {
            return 0;
        }
        code_point = code_point << 6 | (data[i] & 0x3fU);
    }
    if ((lead == 0xe0 && data[1] < 0xa0) || (lead == 0xed && data[1] > 0x9f) ||
        (lead == 0xf0 && data[1] < 0x90) || (lead == 0xf4 && data[1] > 0x8f)) {
        return 0;
    }
    if (ret_code_point != NULL) {
        *ret_code_point = code_point;
    }
    return size;
}

struct bytes bytes_trim(struct bytes bytes)
{
    while (bytes.size > 0 && (bytes.data[0] == ' ' || bytes.data[0] == '\t')) {
        bytes = bytes_skip(bytes, 1);
    }
    while (bytes.size > 0 &&
           (bytes.data[bytes.size - 1] == ' ' || bytes.data[bytes.size - 1] == '\t')) {
        bytes.size--;
    }
    return bytes;
}

struct bytes bytes_split(struct bytes *rest, uint8_t separator)
{
    struct bytes whole = *rest;
    size_t at = bytes_find(whole, separator);
    if (at == whole.size) {
        *rest = (struct bytes){0};
        return whole;
    }
    *rest = bytes_skip(whole, at + 1);
    return bytes_first(whole, at);
}

struct error bytes_parse_decimal(struct bytes bytes, uint64_t max, uint64_t *ret_value)
{
    if (bytes.size == 0) {
        return error_make(ERROR_SYNTAX, 0);
    }
    uint64_t value = 0;
    bool is_over = false;
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t digit = (uint8_t)(bytes.data[i] - '0');
        if (digit > 9) {
            return error_make(ERROR_SYNTAX, 0);
        }
        if (value > (UINT64_MAX - digit) / 10) {
            is_over = true; /* go on: a letter further on makes it a syntax error all the same */
            continue;
        }
        value = value * 10 + digit;
    }
    if (is_over || value > max) {
        return error_make(ERROR_LIMIT, 0);
    }
    *ret_value = value;
    return OK;
}

size_t bytes_print_decimal(uint64_t value, uint8_t *out)
{
    uint8_t digits[20];
    size_t count = 0;
    do {
        digits[count++] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    for (size_t i = 0; i < count; i++) {
        out[i] = digits[count - 1 - i];
    }
    return count;
}

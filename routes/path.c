/*
 * One pass validates and notices whether a segment could be a dot segment; only then is anything
 * copied.
 *
 * Resolving follows RFC 3986 5.2.4, with two differences on purpose: climbing above the root is an
 * error (servers disagree about it, and disagreement is what path attacks live on), and a dot may
 * be written %2e (6.2.2.2: it is unreserved, so both spellings are the same path).
 */
#include "routes/path.h"

#include "base/check.h"

enum byte_class {
    CLASS_PLAIN,
    CLASS_REFUSED,
    CLASS_REFUSED_IN_PATH,
    CLASS_PERCENT,
    CLASS_SLASH,
    CLASS_QUESTION,
};

/* Controls and space are refused; what is not named here is CLASS_PLAIN, bytes above 0x7f included:
 * they are forwarded as they are. */
static const uint8_t classes[256] = {
    [0x7f] = CLASS_REFUSED, ['#'] = CLASS_REFUSED, ['\\'] = CLASS_REFUSED_IN_PATH,
    ['%'] = CLASS_PERCENT,  ['/'] = CLASS_SLASH,   ['?'] = CLASS_QUESTION,
};

static enum byte_class classify(uint8_t byte)
{
    return byte <= 0x20 ? CLASS_REFUSED : (enum byte_class)classes[byte];
}

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    uint8_t lower = byte_lower(byte);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The value of the "%xx" at `at`, or -1 when it is none. */
static int decode_percent(struct bytes text, size_t at)
{
    if (text.size - at < 3) {
        return -1;
    }
    int high = hex_digit(text.data[at + 1]);
    int low = hex_digit(text.data[at + 2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* How many dots a segment consists of, however they are written: 1, 2, or 0 for anything else. */
static unsigned count_dots(struct bytes segment)
{
    unsigned dots = 0;
    size_t at = 0;
    while (at < segment.size && dots <= 2) {
        if (segment.data[at] == '.') {
            at += 1;
        } else if (segment.data[at] == '%' && decode_percent(segment, at) == '.') {
            at += 3;
        } else {
            return 0;
        }
        dots++;
    }
    return at == segment.size && dots <= 2 ? dots : 0;
}

/* Check the path up to the query, and find out where it ends and whether a segment begins like a
 * dot. */
static struct error scan_path(struct bytes target, size_t *ret_end, bool *ret_may_have_dots)
{
    bool may_have_dots = false;
    size_t at = 0;
    while (at < target.size) {
        switch (classify(target.data[at])) {
        case CLASS_PLAIN:
            break;
        case CLASS_SLASH:
            may_have_dots |=
                at + 1 < target.size && (target.data[at + 1] == '.' || target.data[at + 1] == '%');
            break;
        case CLASS_PERCENT:
            if (decode_percent(target, at) <= 0) {
                return error_make(ERROR_SYNTAX, 0);
            }
            at += 2;
            break;
        case CLASS_QUESTION:
            *ret_end = at;
            *ret_may_have_dots = may_have_dots;
            return OK;
        case CLASS_REFUSED:
        case CLASS_REFUSED_IN_PATH:
            return error_make(ERROR_SYNTAX, 0);
        }
        at++;
    }
    *ret_end = at;
    *ret_may_have_dots = may_have_dots;
    return OK;
}

static bool has_dot_segment(struct bytes path)
{
    struct bytes rest = bytes_skip(path, 1);
    while (rest.data != NULL) {
        if (count_dots(bytes_split(&rest, '/')) != 0) {
            return true;
        }
    }
    return false;
}

/* Write `path` to `out`, which has room for it, without its dot segments. */
static struct error resolve_dots(struct bytes path, uint8_t *out, size_t *ret_size)
{
    size_t size = 0;
    struct bytes rest = bytes_skip(path, 1);
    while (rest.data != NULL) {
        struct bytes segment = bytes_split(&rest, '/');
        unsigned dots = count_dots(segment);
        if (dots == 2) {
            if (size == 0) {
                return error_make(ERROR_SYNTAX, 0);
            }
            do {
                size--;
            } while (out[size] != '/');
        }
        if (dots == 0) {
            out[size++] = '/';
            if (segment.size != 0) {
                memcpy(out + size, segment.data, segment.size);
            }
            size += segment.size;
        } else if (rest.data == NULL) {
            out[size++] = '/'; /* "/a/." is "/a/": what it names is the directory */
        }
    }
    *ret_size = size;
    return OK;
}

static struct error check_query(struct bytes query)
{
    for (size_t i = 0; i < query.size; i++) {
        if (classify(query.data[i]) == CLASS_REFUSED) {
            return error_make(ERROR_SYNTAX, 0);
        }
    }
    return OK;
}

/* Make the resolved path in `arena`. */
static struct error make_resolved(struct bytes path, struct arena *arena, struct bytes *ret_path)
{
    uint8_t *out = arena_alloc(arena, path.size);
    size_t size = 0;
    if (out == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    TRY(resolve_dots(path, out, &size));
    CHECK(size >= 1 && size < path.size);
    *ret_path = bytes_make(out, size);
    return OK;
}

struct error route_target_parse(struct bytes target, struct arena *arena,
                                struct route_target *ret_target)
{
    CHECK(arena != NULL && ret_target != NULL);
    size_t end = 0;
    bool may_have_dots = false;
    if (bytes_equal(target, BYTES("*"))) {
        *ret_target = (struct route_target){.path = target};
        return OK;
    }
    if (target.size == 0 || target.data[0] != '/') {
        return error_make(ERROR_SYNTAX, 0);
    }
    TRY(scan_path(target, &end, &may_have_dots));
    struct route_target result = {.path = bytes_first(target, end), .has_query = end < target.size};
    if (result.has_query) {
        result.query = bytes_skip(target, end + 1);
        TRY(check_query(result.query));
    }
    result.is_changed = may_have_dots && has_dot_segment(result.path);
    if (result.is_changed) {
        TRY(make_resolved(result.path, arena, &result.path));
    }
    *ret_target = result;
    return OK;
}

struct bytes route_path_prefix(struct bytes value)
{
    if (value.size > 0 && value.data[value.size - 1] == '/') {
        value.size--;
    }
    return value;
}

bool route_path_has_prefix(struct bytes path, struct bytes prefix)
{
    return bytes_starts_with(path, prefix) &&
           (path.size == prefix.size || path.data[prefix.size] == '/');
}

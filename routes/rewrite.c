/*
 * Path modifiers by the table of HTTPPathModifier, and the Location of a redirect.
 */
#include "routes/rewrite.h"

#include "base/check.h"
#include "routes/path.h"

static struct error join(struct bytes first, struct bytes second, struct arena *arena,
                         struct bytes *ret_path)
{
    struct bytes head = first.size > 0 ? first : second;
    size_t slash = head.size > 0 && head.data[0] == '/' ? 0 : 1;
    if (slash == 0 && (first.size == 0 || second.size == 0)) {
        *ret_path = head;
        return OK;
    }
    uint8_t *out = arena_alloc(arena, slash + first.size + second.size);
    if (out == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    out[0] = '/';
    if (first.size > 0) {
        memcpy(out + slash, first.data, first.size);
    }
    if (second.size > 0) {
        memcpy(out + slash + first.size, second.data, second.size);
    }
    *ret_path = bytes_make(out, slash + first.size + second.size);
    return OK;
}

struct error route_rewrite_path(const struct route_path_modifier *modifier, struct bytes path,
                                size_t prefix_bytes, struct arena *arena, struct bytes *ret_path)
{
    CHECK(modifier != NULL && arena != NULL);
    CHECK(path.data != NULL && prefix_bytes <= path.size);
    switch (modifier->type) {
    case ROUTE_PATH_REPLACE_FULL:
        return join(modifier->replace_full_path, (struct bytes){0}, arena, ret_path);
    case ROUTE_PATH_REPLACE_PREFIX:
        /* The match's prefix is without its last "/", so the replacement must be too. */
        return join(route_path_prefix(modifier->replace_prefix_match),
                    bytes_skip(path, prefix_bytes), arena, ret_path);
    case ROUTE_PATH_MODIFIER_UNSUPPORTED:
        break;
    }
    *ret_path = path;
    return OK;
}

struct bytes route_authority_host(struct bytes authority)
{
    size_t end = authority.size;
    while (end > 0 && authority.data[end - 1] >= '0' && authority.data[end - 1] <= '9') {
        end--;
    }
    bool has_port = end > 0 && authority.data[end - 1] == ':';
    struct bytes host = bytes_first(authority, has_port ? end - 1 : authority.size);
    /* Colons within an address without brackets are no ports. */
    bool is_bare_address =
        host.size > 0 && host.data[0] != '[' && bytes_find(host, ':') != host.size;
    return is_bare_address ? authority : host;
}

/* The port to show, 0 for none. */
static uint16_t choose_port(const struct route_redirect *redirect,
                            const struct route_redirect_from *from, struct bytes scheme)
{
    uint16_t scheme_port = bytes_equal(scheme, BYTES("https")) ? 443 : 80;
    uint16_t port = redirect->port;
    if (port == 0) {
        port = redirect->scheme.data != NULL ? scheme_port : from->port;
    }
    return port == scheme_port ? 0 : port;
}

struct error route_redirect_location(const struct route_redirect *redirect,
                                     const struct route_redirect_from *from, struct arena *arena,
                                     struct bytes *ret_location)
{
    CHECK(redirect != NULL && from != NULL);
    struct bytes scheme = redirect->scheme.data != NULL ? redirect->scheme : from->scheme;
    struct bytes host = redirect->hostname.data != NULL ? redirect->hostname
                                                        : route_authority_host(from->authority);
    struct bytes path = from->path;
    if (redirect->path != NULL) {
        TRY(route_rewrite_path(redirect->path, from->path, from->prefix_bytes, arena, &path));
    }
    uint16_t number = choose_port(redirect, from, scheme);
    const char *port = number == 0 ? "" : arena_format(arena, ":%u", number);
    if (port == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    char *text = arena_format(
        arena, "%.*s://%.*s%s%.*s%s%.*s", (int)scheme.size, (const char *)scheme.data,
        (int)host.size, host.data == NULL ? "" : (const char *)host.data, port, (int)path.size,
        (const char *)path.data, from->has_query ? "?" : "", (int)from->query.size,
        from->query.data == NULL ? "" : (const char *)from->query.data);
    if (text == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    *ret_location = bytes_from_string(text);
    return OK;
}

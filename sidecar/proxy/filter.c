/* Filters that change heads (gateway-api.md 2.10 to 2.13). */
#include "proxy/filter.h"

#include "routes/rewrite.h"

/* set replaces, add appends, remove drops; no two of them name the same field, so their order does
 * not matter. Pseudo-fields are out of their reach. */
static struct error modify(const struct route_header_modifier *modifier, struct arena *arena,
                           struct message_head *head)
{
    for (uint32_t i = 0; i < modifier->set_count; i++) {
        TRY(message_set(head, arena, modifier->set[i].name, modifier->set[i].value));
    }
    for (uint32_t i = 0; i < modifier->add_count; i++) {
        TRY(message_add(head, arena, modifier->add[i].name, modifier->add[i].value));
    }
    for (uint32_t i = 0; i < modifier->remove_count; i++) {
        message_remove(head, modifier->remove[i]);
    }
    return OK;
}

static struct error set_authority(struct message_head *head, struct arena *arena,
                                  struct bytes hostname)
{
    head->authority = hostname;
    return message_find(head, MESSAGE_FIELD_HOST) == NULL
               ? OK
               : message_set(head, arena, BYTES("Host"), hostname);
}

/* A new path with the query that came. */
static struct error set_path(const struct filter_request *request,
                             const struct route_path_modifier *modifier, struct message_head *head)
{
    struct bytes path = {0};
    TRY(route_rewrite_path(modifier, request->target->path, request->decision->prefix_bytes,
                           request->arena, &path));
    if (!request->target->has_query) {
        head->target = path;
        return OK;
    }
    struct bytes query = request->target->query;
    uint8_t *text = arena_alloc(request->arena, path.size + 1 + query.size);
    if (text == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    memcpy(text, path.data, path.size);
    text[path.size] = '?';
    if (query.size > 0) {
        memcpy(text + path.size + 1, query.data, query.size);
    }
    head->target = bytes_make(text, path.size + 1 + query.size);
    return OK;
}

/* Dot segments are resolved: the bytes matched are the bytes forwarded. */
static struct error set_normal_path(const struct filter_request *request, struct message_head *head)
{
    const struct route_target *target = request->target;
    if (!target->is_changed) {
        return OK;
    }
    uint8_t *text = arena_alloc(request->arena, target->path.size + 1 + target->query.size);
    if (text == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    size_t size = target->path.size;
    memcpy(text, target->path.data, size);
    if (target->has_query) {
        text[size++] = '?';
        if (target->query.size > 0) {
            memcpy(text + size, target->query.data, target->query.size);
            size += target->query.size;
        }
    }
    head->target = bytes_make(text, size);
    return OK;
}

static struct error apply_request(const struct filter_request *request,
                                  const struct route_table_filter *filters, uint32_t count,
                                  struct message_head *head)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct route_filter *source = filters[i].source;
        if (filters[i].type == ROUTE_FILTER_REQUEST_HEADER_MODIFIER) {
            TRY(modify(source->header_modifier, request->arena, head));
        } else if (filters[i].type == ROUTE_FILTER_URL_REWRITE) {
            const struct route_rewrite *rewrite = source->rewrite;
            if (rewrite->hostname.size > 0) {
                TRY(set_authority(head, request->arena, rewrite->hostname));
            }
            if (rewrite->path != NULL) {
                TRY(set_path(request, rewrite->path, head));
            }
        }
    }
    return OK;
}

FALLIBLE filter_request_apply(const struct filter_request *request,
                              const struct route_table_rule *rule,
                              const struct route_table_backend *backend, struct message_head *head)
{
    TRY(set_normal_path(request, head));
    TRY(apply_request(request, rule->filters, rule->filters_count, head));
    if (backend == NULL) {
        return OK;
    }
    return apply_request(request, backend->filters, backend->filters_count, head);
}

static struct error apply_response(struct arena *arena, const struct route_table_filter *filters,
                                   uint32_t count, struct message_head *head)
{
    for (uint32_t i = 0; i < count; i++) {
        if (filters[i].type == ROUTE_FILTER_RESPONSE_HEADER_MODIFIER) {
            TRY(modify(filters[i].source->header_modifier, arena, head));
        }
    }
    return OK;
}

FALLIBLE filter_response_apply(struct arena *arena, const struct route_table_rule *rule,
                               const struct route_table_backend *backend, struct message_head *head)
{
    TRY(apply_response(arena, rule->filters, rule->filters_count, head));
    if (backend == NULL) {
        return OK;
    }
    return apply_response(arena, backend->filters, backend->filters_count, head);
}

FALLIBLE filter_redirect_location(const struct filter_request *request,
                                  const struct route_redirect *redirect,
                                  const struct message_head *head, struct bytes *ret_location)
{
    const struct route_redirect_from from = {.scheme = head->scheme,
                                             .authority = head->authority,
                                             .port = request->service_port,
                                             .path = request->target->path,
                                             .query = request->target->query,
                                             .has_query = request->target->has_query,
                                             .prefix_bytes = request->decision->prefix_bytes};
    return route_redirect_location(redirect, &from, request->arena, ret_location);
}

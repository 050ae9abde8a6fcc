/* Answers of the proxy's own. */
#include "proxy/reply.h"

enum {
    FIELDS_MAX = 8
};

static struct message_head *make_head(struct arena *arena, uint16_t status)
{
    struct message_head *head = arena_alloc_zero(arena, 1, sizeof(*head));
    struct message_field *fields = arena_alloc_zero(arena, FIELDS_MAX, sizeof(*fields));
    if (head == NULL || fields == NULL) {
        return NULL;
    }
    head->version = MESSAGE_HTTP_1_1;
    head->status = status;
    head->reason = message_reason(status);
    head->fields = fields;
    head->fields_capacity = FIELDS_MAX;
    head->body = MESSAGE_BODY_LENGTH;
    return head;
}

/* What a status of 0 (no answer is foreseen) is answered with, where there must be one. */
static uint16_t status_of(const struct cause_info *info)
{
    return info->status == 0 ? 503 : info->status;
}

static struct error add_proxy_status(struct arena *arena, struct message_head *head,
                                     const struct cause_info *info)
{
    struct bytes error = info->proxy_error;
    if (error.size == 0) {
        error = BYTES("proxy_internal_error");
    }
    char *text =
        arena_format(arena, "outrigger; error=%.*s; details=\"%.*s\"", (int)error.size,
                     (const char *)error.data, (int)info->name.size, (const char *)info->name.data);
    if (text == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    return message_add(head, arena, BYTES("proxy-status"), bytes_from_string(text));
}

/* Trailers-only (gRPC over HTTP/2, "Responses"): everything stands in the head. */
static struct error make_grpc(struct arena *arena, const struct cause_info *info,
                              struct reply *ret_reply)
{
    struct message_head *head = make_head(arena, 200);
    char *status = arena_format(arena, "%u", info->grpc_status);
    if (head == NULL || status == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    head->body = MESSAGE_BODY_NONE;
    TRY(message_add(head, arena, BYTES("content-type"), BYTES("application/grpc")));
    TRY(message_add(head, arena, BYTES("grpc-status"), bytes_from_string(status)));
    TRY(message_add(head, arena, BYTES("grpc-message"), info->text));
    TRY(add_proxy_status(arena, head, info));
    *ret_reply = (struct reply){.head = head};
    return OK;
}

FALLIBLE reply_make(struct arena *arena, const struct message_head *request, enum cause cause,
                    struct reply *ret_reply)
{
    const struct cause_info *info = cause_info(cause);
    if (request != NULL && request->is_grpc) {
        return make_grpc(arena, info, ret_reply);
    }
    struct message_head *head = make_head(arena, status_of(info));
    char *body = arena_format(arena, "%.*s\n", (int)info->text.size, (const char *)info->text.data);
    if (head == NULL || body == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    head->content_length = info->text.size + 1;
    TRY(message_add(head, arena, BYTES("content-type"), BYTES("text/plain; charset=utf-8")));
    TRY(add_proxy_status(arena, head, info));
    *ret_reply = (struct reply){.head = head, .body = bytes_from_string(body)};
    return OK;
}

FALLIBLE reply_make_redirect(struct arena *arena, const struct message_head *request,
                             uint16_t status, struct bytes location, struct reply *ret_reply)
{
    (void)request;
    struct message_head *head = make_head(arena, status);
    if (head == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    TRY(message_add(head, arena, BYTES("location"), location));
    *ret_reply = (struct reply){.head = head};
    return OK;
}

/*
 * The admin commands about what workers own, and what they share with the other commands of
 * admin.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "control/control.h"
#include "http/message.h"

/* One command under way: what the handlers need of the request, and of the answer. */
struct admin_call {
    struct control *control;
    struct server_call *call;
    bool is_text;
};

/* Answer with `json` (taken over), as JSON or as text. Defined in admin.c. */
void admin_reply(const struct admin_call *admin, uint16_t status, struct json *json);

/* Answer {"code","message"}. Defined in admin.c. */
void admin_reply_error(const struct admin_call *admin, uint16_t status, const char *code,
                       const char *message);

/* GET /connections, /endpoints, /dump: answered when the last worker has answered. */
void admin_get_connections(const struct admin_call *admin, const struct message_head *head);
void admin_get_endpoints(const struct admin_call *admin, const struct message_head *head);
void admin_get_dump(const struct admin_call *admin, const struct message_head *head);

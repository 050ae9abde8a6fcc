/* The health port: /healthz/ready, /healthz/live, /metrics (contract section 1). A fixed table of
 * paths, GET only. */
#pragma once

#include "control/control.h"

/* Handles one request; `owner` is the struct control. */
void health_handle(struct server_call *call, const struct message_head *head, void *owner);

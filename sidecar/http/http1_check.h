/*
 * The second half of parsing a head: its lines are whole and its fields valid by themselves; may
 * they stand together, and what do they say? Private to http1_parse.c.
 */
#pragma once

#include <stdbool.h>

#include "http/http1_parse.h"

/* Check a request's head and fill in what follows from its fields: authority, target in
 * origin-form, body, flags; drop its hop-by-hop fields. HTTP1_FAULT_NONE, or what is wrong. */
enum http1_fault http1_check_request(struct http1_parsed *parsed);

/* The same for the response to a request that `is_head_request` and `is_upgrade` describe. */
enum http1_fault http1_check_response(struct http1_parsed *parsed, bool is_head_request,
                                      bool is_upgrade);

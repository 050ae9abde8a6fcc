/*
 * What this version cannot keep: features of a valid object that are not served, and policies that
 * it would be dangerous to load without keeping them.
 */
#pragma once

#include "routes/diagnostic.h"
#include "routes/resource.h"

/* Warn of everything in `object` that has no effect; an error when it asks for protection. */
void route_unserved_check(const struct route_object *object, struct route_diagnostics *diagnostics);

/*
 * What users get wrong although it is valid: warnings that `outrigger check` adds to those of the
 * load. Nothing here changes what is served.
 */
#pragma once

#include "base/error.h"
#include "routes/diagnostic.h"
#include "routes/load.h"

/* Look at everything in `config` and add warnings; sorted with what is there already. */
void route_lint(const struct route_config *config, struct route_diagnostics *diagnostics);

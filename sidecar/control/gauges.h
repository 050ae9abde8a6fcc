/*
 * The metrics that control knows by itself; those of workers are cells (control/stats.h). Reads a
 * few files of /proc, which do not block. Control thread.
 */
#pragma once

#include <stdint.h>

#include "control/stats.h"

struct control;

/* Their present values, in the order of the exposition; returns how many, at most `max`. Names and
 * help texts are static. */
uint32_t gauges_collect(const struct control *control, struct stats_gauge *ret_gauges,
                        uint32_t max);

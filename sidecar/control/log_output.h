/*
 * The workers' log rings to standard error, their access-log rings to standard output. A pipe that
 * nobody reads loses lines and never holds anybody up. Control thread, but for the rings' wake.
 */
#pragma once

#include <stdint.h>

struct control;

/* Have the rings of this worker, which control->logs and access_logs hold, wake control when they
 * are written to after they fell asleep. Before the worker starts. */
void log_output_attach(struct control *control, uint32_t worker);

/* Look at the rings from now on. */
void log_output_start(struct control *control);

/* Write what the rings hold now, as a last act; rings that were never made are passed over. */
void log_output_drain(struct control *control);

/* Lines that were dropped because a ring was full, of all workers since the start. */
uint64_t log_output_dropped(const struct control *control);

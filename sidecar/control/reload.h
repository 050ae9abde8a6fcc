/*
 * Loads of the configuration, as control sees them: the first at the start, and what comes of each
 * later one. The builder thread reads and compiles; here a result is put in force, counted, said in
 * the log, and handed to the POST /reload that asked for it. Control thread.
 */
#pragma once

#include <stdbool.h>

struct control;

/*
 * Make the builder and load for the first time, which is waited for: nothing is served yet. After
 * that results of the builder are put in force as they come. False: it was refused or could not be
 * read; the log says why, and control->exit_status is set.
 */
bool reload_first(struct control *control);

/*
 * `outrigger intercept`: installs, checks, prints and removes the redirection of a pod's traffic.
 * The rules themselves are redirection.h.
 */
#pragma once

/* argv[0] is "intercept". Returns the exit status: 0, 1 (missing rules, privilege or tool), 2
 * (usage). */
int intercept_main(int argc, char **argv);

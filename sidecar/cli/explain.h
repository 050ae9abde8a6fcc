/*
 * `outrigger explain`: why a request goes where it goes, offline, from the files of a
 * configuration.
 */
#pragma once

/* argv[0] is "explain". Returns the exit status: 0, 1 (configuration or Service cannot be used), 2
 * (usage). */
int explain_main(int argc, char **argv);

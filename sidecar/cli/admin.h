/*
 * `outrigger admin`: a client of the admin socket. Text for people, JSON with --json.
 */
#pragma once

/* argv[0] is "admin". Returns the exit status: 0, 1 (refused, or no proxy there), 2 (usage). */
int admin_main(int argc, char **argv);

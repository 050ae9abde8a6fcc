/* `outrigger check`: says of configuration files what is wrong with them, before a pod does. */
#pragma once

/* Run the subcommand; argv[0] is its name. Returns the exit status: 0 no errors, 1 errors, 2 usage.
 */
int check_main(int argc, char **argv);

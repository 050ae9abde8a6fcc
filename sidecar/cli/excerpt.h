/* A line of a file with a caret under one of its characters, as a terminal shows it. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "base/bytes.h"

/*
 * Print `line` with its number and a caret under character `column` (from 1; a byte order mark at
 * the beginning of line 1 is no character). Of a long line a window around the caret is shown.
 * What could steer a terminal or turn its direction is shown as `?`; wide characters are two
 * columns, combining ones none.
 */
void excerpt_print(FILE *out, struct bytes line, uint32_t number, uint32_t column);

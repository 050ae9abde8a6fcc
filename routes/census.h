/*
 * How many nodes a YAML or JSON file has at least, without parsing it: a file of millions of nodes
 * is refused in the time of reading it, not of making half a million of them first.
 */
#pragma once

#include <stdint.h>

#include "base/bytes.h"
#include "routes/resource.h"

/*
 * Count the nodes of `content`, any bytes, that one look at each character makes certain: never
 * more than a parser finds in a file that it accepts, and fewer wherever the text is not plain
 * block or flow style. Stops when more than `enough` are certain, with the place in `ret_spot`.
 */
uint32_t route_census(struct bytes content, uint32_t enough, struct route_spot *ret_spot);

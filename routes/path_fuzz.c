/*
 * Any bytes as a request target. What comes out must be its own normal form, no longer than what
 * came in, without dot segments, and copied only when it changed.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/check.h"
#include "routes/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct route_target target;
    struct route_target again;
    arena_init(&arena, 4096, 1u << 20);
    if (!error_is(route_target_parse(bytes_make(data, size), &arena, &target))) {
        CHECK(target.path.size + target.query.size <= size);
        CHECK(target.is_changed || target.path.data == data);
        CHECK(target.path.data[0] == '/' || size == 1);
        CHECK(bytes_find_bytes(target.path, BYTES("/../")) == target.path.size);
        CHECK(bytes_find_bytes(target.path, BYTES("/./")) == target.path.size);
        CHECK(bytes_find(target.path, '#') == target.path.size);
        CHECK(!error_is(route_target_parse(target.path, &arena, &again)));
        CHECK(!again.is_changed && bytes_equal(again.path, target.path));
    }
    arena_finish(&arena);
    return 0;
}

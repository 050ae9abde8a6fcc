/* Slab: a small header before each object holds the free list, so that the object stays as it was.
 */
#include "base/slab.h"

#include <sys/mman.h>

#include "base/check.h"

enum {
    HEADER_BYTES = 16
};

struct header {
    struct header *next; /* borrowed: of the free list */
    uint64_t is_used;
};

_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header keeps objects aligned");

FALLIBLE slab_init(struct slab *slab, size_t object_bytes, uint32_t count_max)
{
    CHECK(object_bytes > 0 && count_max > 0);
    size_t stride = HEADER_BYTES + ((object_bytes + 15) & ~(size_t)15);
    size_t total = 0;
    if (__builtin_mul_overflow(stride, (size_t)count_max, &total)) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    void *memory = mmap(NULL, total, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    /* A page for one small object would cost more than the object; huge pages far more. */
    (void)madvise(memory, total, MADV_NOHUGEPAGE);
    *slab = (struct slab){.memory = memory, .stride_bytes = stride, .count_max = count_max};
    return OK;
}

void slab_finish(struct slab *slab)
{
    if (slab->memory != NULL) {
        munmap(slab->memory, slab->stride_bytes * slab->count_max);
    }
    *slab = (struct slab){0};
}

static struct header *header_at(const struct slab *slab, uint32_t index)
{
    return (struct header *)(void *)(slab->memory + slab->stride_bytes * index);
}

void *slab_take(struct slab *slab)
{
    if (__builtin_expect(slab->fail_after != 0, 0) && --slab->fail_after == 0) {
        return NULL;
    }
    struct header *header = slab->free;
    if (header != NULL) {
        slab->free = header->next;
    } else if (slab->touched < slab->count_max) {
        header = header_at(slab, slab->touched++);
    } else {
        return NULL;
    }
    CHECK(!header->is_used);
    header->is_used = true;
    slab->used++;
    return (uint8_t *)header + HEADER_BYTES;
}

void slab_put(struct slab *slab, void *object)
{
    struct header *header = (struct header *)(void *)((uint8_t *)object - HEADER_BYTES);
    CHECK((uint8_t *)header >= slab->memory &&
          (uint8_t *)header < slab->memory + slab->stride_bytes * slab->touched);
    CHECK(header->is_used);
    header->is_used = false;
    header->next = slab->free;
    slab->free = header;
    slab->used--;
}

void *slab_at(const struct slab *slab, uint32_t index)
{
    CHECK(index < slab->touched);
    return (uint8_t *)header_at(slab, index) + HEADER_BYTES;
}

bool slab_is_used(const struct slab *slab, const void *object)
{
    const uint8_t *header = (const uint8_t *)object - HEADER_BYTES;
    CHECK(header >= slab->memory && header < slab->memory + slab->stride_bytes * slab->touched);
    return ((const struct header *)(const void *)header)->is_used;
}

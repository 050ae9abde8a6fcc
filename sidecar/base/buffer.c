/* Byte queues of slices. The ring of slices starts inside the buffer and moves to the heap when it
 * outgrows it. */
#include "base/buffer.h"

#include <stdlib.h>

#include "base/check.h"

enum {
    BUFFER_RING_SLICES = 8,      /* of the first ring */
    BUFFER_SLICES_MAX = 1 << 20, /* far above any byte bound with sane slices; ends a runaway */
};

static uint32_t capacity_of(const struct buffer *buffer)
{
    return buffer->capacity == 0 ? 1 : buffer->capacity;
}

static struct slice *slots(struct buffer *buffer)
{
    return buffer->capacity == 0 ? &buffer->only : buffer->slices;
}

static const struct slice *const_slots(const struct buffer *buffer)
{
    return buffer->capacity == 0 ? &buffer->only : buffer->slices;
}

struct slice *buffer_slice(struct buffer *buffer, uint32_t index)
{
    CHECK(index < buffer->count);
    return &slots(buffer)[(buffer->first + index) & (capacity_of(buffer) - 1)];
}

struct bytes buffer_front(const struct buffer *buffer)
{
    if (buffer->count == 0) {
        return (struct bytes){0};
    }
    const struct slice *front = &const_slots(buffer)[buffer->first];
    return bytes_make(front->data, front->size);
}

/* Back to no ring; the buffer holds nothing. */
static void release_ring(struct buffer *buffer)
{
    if (buffer->capacity != 0) {
        free(buffer->slices);
    }
    buffer->slices = NULL;
    buffer->capacity = 0;
    buffer->first = 0;
}

/* Make room for `extra` more slices. */
static struct error grow(struct buffer *buffer, uint32_t extra)
{
    uint32_t capacity = capacity_of(buffer);
    if (buffer->count + extra <= capacity) {
        return OK;
    }
    uint32_t wanted = BUFFER_RING_SLICES;
    while (wanted < buffer->count + extra) {
        wanted *= 2;
    }
    if (wanted > BUFFER_SLICES_MAX) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    struct slice *slices = malloc(wanted * sizeof(*slices));
    if (slices == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    uint32_t count = buffer->count;
    for (uint32_t i = 0; i < count; i++) {
        slices[i] = *buffer_slice(buffer, i);
    }
    release_ring(buffer);
    buffer->slices = slices;
    buffer->capacity = wanted;
    return OK;
}

/* Add a slice whose reference the buffer takes over; there is room. */
static void push(struct buffer *buffer, struct slice slice)
{
    uint32_t capacity = capacity_of(buffer);
    slots(buffer)[(buffer->first + buffer->count) & (capacity - 1)] = slice;
    buffer->count++;
    buffer->size += slice.size;
}

/* Forget the first slice without releasing its reference; an emptied buffer gives its heap ring
 * back. */
static void drop_first(struct buffer *buffer)
{
    buffer->first = (buffer->first + 1) & (capacity_of(buffer) - 1);
    buffer->count--;
    if (buffer->count == 0) {
        release_ring(buffer);
    }
}

void buffer_clear(struct buffer *buffer)
{
    buffer_consume(buffer, buffer->size);
    release_ring(buffer);
    *buffer = (struct buffer){0};
}

void buffer_consume(struct buffer *buffer, size_t size)
{
    CHECK(size <= buffer->size);
    while (size > 0) {
        struct slice *slice = buffer_slice(buffer, 0);
        if (size < slice->size) {
            slice->data += size;
            slice->size -= (uint32_t)size;
            buffer->size -= size;
            return;
        }
        size -= slice->size;
        buffer->size -= slice->size;
        struct block *block = slice->block;
        drop_first(buffer);
        block_unref(block);
    }
}

/* The last slice, when more bytes may be written behind it; else NULL. */
static struct slice *writable_tail(struct buffer *buffer)
{
    if (buffer->count == 0) {
        return NULL;
    }
    struct slice *last = buffer_slice(buffer, buffer->count - 1);
    const struct block *block = last->block;
    bool is_at_end = last->data + last->size == block->data + block->used;
    return !block->is_lent && block->refs == 1 && is_at_end && block->used < block->capacity ? last
                                                                                             : NULL;
}

struct error buffer_append_slice(struct buffer *buffer, struct block *block, struct bytes bytes)
{
    CHECK(bytes.size <= block->capacity);
    if (bytes.size == 0) {
        return OK;
    }
    uint8_t *data = block->data + (bytes.data - block->data);
    if (buffer->count > 0) {
        struct slice *last = buffer_slice(buffer, buffer->count - 1);
        if (last->block == block && last->data + last->size == data) {
            last->size += (uint32_t)bytes.size; /* neighbours in one block are one slice */
            buffer->size += bytes.size;
            return OK;
        }
    }
    TRY(grow(buffer, 1));
    block_ref(block);
    push(buffer, (struct slice){block, data, (uint32_t)bytes.size});
    return OK;
}

struct error buffer_reserve(struct buffer *buffer, struct block_source *source, size_t size,
                            uint8_t **ret_data)
{
    struct slice *tail = writable_tail(buffer);
    if (tail != NULL && size <= tail->block->capacity - tail->block->used) {
        *ret_data = tail->block->data + tail->block->used;
        return OK;
    }
    TRY(grow(buffer, 1));
    struct block *block = source->take(source, size);
    if (block == NULL) {
        return error_make(ERROR_NO_MEMORY, 0);
    }
    CHECK(block->refs == 1 && block->used == 0 && block->capacity >= size);
    push(buffer, (struct slice){block, block->data, 0});
    *ret_data = block->data;
    return OK;
}

void buffer_commit(struct buffer *buffer, size_t size)
{
    CHECK(buffer->count > 0);
    struct slice *last = buffer_slice(buffer, buffer->count - 1);
    struct block *block = last->block;
    CHECK(size <= block->capacity - block->used);
    block->used += (uint32_t)size;
    last->size += (uint32_t)size;
    buffer->size += size;
    if (last->size == 0) { /* an unused reservation of a new block: slices of size 0 do not stay */
        buffer->count--;
        block_unref(block);
    }
}

struct error buffer_append(struct buffer *buffer, struct block_source *source, struct bytes bytes)
{
    struct slice *tail = bytes.size == 0 ? NULL : writable_tail(buffer);
    if (tail != NULL) {
        size_t room = tail->block->capacity - tail->block->used;
        struct bytes part = bytes_first(bytes, room);
        memcpy(tail->block->data + tail->block->used, part.data, part.size);
        buffer_commit(buffer, part.size);
        bytes = bytes_skip(bytes, part.size);
    }
    while (bytes.size > 0) {
        uint8_t *data = NULL;
        TRY(buffer_reserve(buffer, source, 1, &data));
        const struct block *block = buffer_slice(buffer, buffer->count - 1)->block;
        struct bytes part = bytes_first(bytes, block->capacity - block->used);
        memcpy(data, part.data, part.size);
        buffer_commit(buffer, part.size);
        bytes = bytes_skip(bytes, part.size);
    }
    return OK;
}

struct error buffer_move(struct buffer *from, struct buffer *to, size_t size)
{
    CHECK(from != to && size <= from->size);
    uint32_t slices = 0;
    for (size_t seen = 0; seen < size; slices++) {
        seen += buffer_slice(from, slices)->size;
    }
    if (slices == 0) {
        return OK;
    }
    TRY(grow(to, slices));
    while (size > 0) {
        struct slice *slice = buffer_slice(from, 0);
        if (size < slice->size) {
            block_ref(slice->block);
            push(to, (struct slice){slice->block, slice->data, (uint32_t)size});
            slice->data += size;
            slice->size -= (uint32_t)size;
            from->size -= size;
            return OK;
        }
        size -= slice->size;
        from->size -= slice->size;
        push(to, *slice);
        drop_first(from);
    }
    return OK;
}

void buffer_copy_range(const struct buffer *buffer, size_t offset, size_t size, uint8_t *out)
{
    CHECK(offset <= buffer->size && size <= buffer->size - offset);
    const struct slice *all = const_slots(buffer);
    uint32_t mask = capacity_of(buffer) - 1;
    for (uint32_t i = 0; size > 0; i++) {
        const struct slice *slice = &all[(buffer->first + i) & mask];
        if (offset >= slice->size) {
            offset -= slice->size;
            continue;
        }
        size_t part = slice->size - offset;
        part = size < part ? size : part;
        memcpy(out, slice->data + offset, part);
        offset = 0;
        out += part;
        size -= part;
    }
}

void buffer_copy_out(const struct buffer *buffer, size_t size, uint8_t *out)
{
    buffer_copy_range(buffer, 0, size, out);
}

struct error buffer_unlend(struct buffer *buffer, struct block_source *source)
{
    for (uint32_t i = 0; i < buffer->count; i++) {
        struct slice *slice = buffer_slice(buffer, i);
        if (!slice->block->is_lent) {
            continue;
        }
        struct block *copy = source->take(source, slice->size);
        if (copy == NULL) {
            return error_make(ERROR_NO_MEMORY, 0);
        }
        memcpy(copy->data, slice->data, slice->size);
        copy->used = slice->size;
        struct block *lent = slice->block;
        *slice = (struct slice){copy, copy->data, slice->size};
        block_unref(lent);
    }
    return OK;
}

enum {
    HEAP_BLOCK_BYTES = 4096
};

static void free_heap_block(struct block *block)
{
    free(block);
}

static struct block *take_heap_block(struct block_source *source, size_t size_min)
{
    (void)source;
    size_t capacity = size_min > HEAP_BLOCK_BYTES ? size_min : HEAP_BLOCK_BYTES;
    if (capacity > UINT32_MAX) {
        return NULL;
    }
    struct block *block = malloc(sizeof(*block) + capacity);
    if (block == NULL) {
        return NULL;
    }
    *block = (struct block){.data = (uint8_t *)(block + 1),
                            .capacity = (uint32_t)capacity,
                            .refs = 1,
                            .release = free_heap_block};
    return block;
}

struct block_source *block_source_heap(void)
{
    static struct block_source source = {.take = take_heap_block};
    return &source;
}

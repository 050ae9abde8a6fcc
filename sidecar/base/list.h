/*
 * Intrusive doubly linked list: the node is embedded in its owner, the head is a node that owns
 * nothing. A node that is in no list points at itself, so unlinking twice is harmless.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next; /* borrowed: the neighbours own themselves */
    struct list *previous;
};

#define LIST_OWNER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
    list->next = list;
    list->previous = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

/* Put `node`, which is in no list, at the end of `list`. */
static inline void list_append(struct list *list, struct list *node)
{
    node->previous = list->previous;
    node->next = list;
    list->previous->next = node;
    list->previous = node;
}

/* Put `node`, which is in no list, at the front of `list`. */
static inline void list_prepend(struct list *list, struct list *node)
{
    list_append(list->next, node);
}

static inline void list_remove(struct list *node)
{
    node->next->previous = node->previous;
    node->previous->next = node->next;
    list_init(node);
}

/* Take the first node off `list`; NULL when it is empty. */
static inline struct list *list_take(struct list *list)
{
    if (list_is_empty(list)) {
        return NULL;
    }
    struct list *node = list->next;
    list_remove(node); /* NOLINT(clang-analyzer-unix.Malloc): it forgets that this unlinks */
    return node;
}

/* Move every node of `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_move_all(struct list *from, struct list *to)
{
    if (list_is_empty(from)) {
        return;
    }
    from->next->previous = to->previous;
    to->previous->next = from->next;
    from->previous->next = to;
    to->previous = from->previous;
    list_init(from);
}

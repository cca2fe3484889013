/*
 * list - an intrusive doubly linked list.
 *
 * The head is a node whose neighbours are the ends; an empty list points at
 * itself. A node that is in no list has next == NULL after list_del().
 */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/check.h"

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(head)                                                                            \
	{                                                                                          \
		&(head), &(head)                                                                   \
	}

static inline void
list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool
list_empty(const struct list *head)
{
	return head->next == head;
}

static inline bool
list_linked(const struct list *node)
{
	return node->next != NULL;
}

static inline void
list_insert_between(struct list *node, struct list *before, struct list *after)
{
	node->prev = before;
	node->next = after;
	before->next = node;
	after->prev = node;
}

static inline void
list_add_tail(struct list *head, struct list *node)
{
	list_insert_between(node, head->prev, head);
}

static inline void
list_add_head(struct list *head, struct list *node)
{
	list_insert_between(node, head, head->next);
}

/* Takes the node out of whatever list it is in; one that is in none is left alone. */
static inline void
list_del(struct list *node)
{
	if (node->next == NULL)
		return;
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->next = node->prev = NULL;
}

#define list_entry(node, type, member) container_of(node, type, member)

#define list_first(head, type, member)                                                             \
	(list_empty(head) ? NULL : list_entry((head)->next, type, member))

/* `node` walks the list; the safe form allows the current node to be deleted. */
#define list_for(node, head)                                                                       \
	for (struct list *node = (head)->next; node != (head); node = node->next)
#define list_for_safe(node, head)                                                                  \
	for (struct list *node = (head)->next, *node##_next = node->next; node != (head);          \
	     node = node##_next, node##_next = node->next)

#endif

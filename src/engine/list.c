/* SPDX-License-Identifier: MIT */
/* Lists of futures, linked through the future itself. */
#include "engine/engine.h"

void fm__list_append(struct fm__list *list, fm_future *future)
{
    future->list = list;
    future->next = NULL;
    future->prev = list->last;
    if (list->last)
        list->last->next = future;
    else
        list->first = future;
    list->last = future;
}

void fm__list_remove(fm_future *future)
{
    struct fm__list *list = future->list;

    if (!list)
        return;
    if (future->prev)
        future->prev->next = future->next;
    else
        list->first = future->next;
    if (future->next)
        future->next->prev = future->prev;
    else
        list->last = future->prev;
    future->list = NULL;
    future->prev = NULL;
    future->next = NULL;
}

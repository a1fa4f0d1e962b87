/* SPDX-License-Identifier: MIT */
/* What workers of a pool have told and nobody has heard yet; see line.h. */
#include <errno.h>
#include <string.h>

#include "engine/line.h"
#include "os/memory.h"
#include "os/sys.h"

/* Longer data are not copied. */
#define COPIED_MOST 65536

/* Behind it: first text, second text, each terminated; the data. */
struct entry {
    uint64_t call;
    int64_t begun_at;
    size_t len;
    void *block; /* the data's, when they are not here */
    uint32_t first_len, second_len;
    unsigned char what, format;
};

_Static_assert(sizeof(struct entry) % 16 == 0, "entries are aligned");

static size_t text_size(const struct entry *entry)
{
    return (size_t)entry->first_len + entry->second_len + 2;
}

static size_t entry_size(const struct entry *entry)
{
    size_t inside = entry->block ? 0 : entry->len;

    return (sizeof *entry + text_size(entry) + inside + 15) & ~(size_t)15;
}

/* Those that were heard go, when there are more of them than others. */
static void compact(struct fm__messages *messages)
{
    struct fm__buffer *buffer = &messages->buffer;
    size_t left = buffer->len - messages->at;

    if (left >= messages->at)
        return;
    if (left > 0)
        memcpy(buffer->data, buffer->data + messages->at, left);
    buffer->len = left;
    messages->at = 0;
}

/* All of it, with zeroes between the texts. */
static void write_entry(unsigned char *at, const struct entry *entry,
                        const char *texts, const void *data)
{
    memcpy(at, entry, sizeof *entry);
    at += sizeof *entry;
    memcpy(at, texts, entry->first_len);
    at[entry->first_len] = '\0';
    at += entry->first_len + 1;
    memcpy(at, texts + entry->first_len, entry->second_len);
    at[entry->second_len] = '\0';
    at += entry->second_len + 1;
    if (!entry->block && entry->len > 0)
        memcpy(at, data, entry->len);
}

void fm__messages_init(struct fm__messages *messages)
{
    memset(messages, 0, sizeof *messages);
    fm__buffer_init(&messages->buffer, SIZE_MAX / 2);
    fm__buffer_init(&messages->current, SIZE_MAX / 2);
}

int fm__messages_add(struct fm__messages *messages, struct fm__inbox *inbox,
                     const struct fm__tell *tell, const char *texts,
                     size_t texts_len, int64_t begun_at)
{
    struct fm__buffer *buffer = &messages->buffer;
    struct entry entry;

    memset(&entry, 0, sizeof entry); /* its padding too */
    entry.call = tell->call;
    entry.begun_at = begun_at;
    entry.len = inbox->len;
    entry.block = inbox->len > COPIED_MOST ? inbox->data : NULL;
    entry.first_len = tell->first_len;
    entry.second_len = (uint32_t)(texts_len - tell->first_len);
    entry.what = tell->what;
    entry.format = tell->format;
    compact(messages);
    if (fm__buffer_reserve(buffer, entry_size(&entry)) < 0)
        return -ENOMEM;
    write_entry(buffer->data + buffer->len, &entry, texts, inbox->data);
    buffer->len += entry_size(&entry);
    if (entry.block) {
        messages->in_blocks += entry.len;
        inbox->data = NULL; /* it is ours now */
    }
    return 0;
}

static void free_block(struct fm__messages *messages)
{
    messages->block = fm__bulk_resize(messages->block, 0);
}

int fm__messages_next(struct fm__messages *messages,
                      struct fm__message *ret_message)
{
    struct fm__buffer *buffer = &messages->buffer;
    struct fm__buffer *current = &messages->current;
    struct entry entry;
    const char *at;

    free_block(messages);
    if (messages->at == buffer->len) {
        buffer->len = 0;
        messages->at = 0;
        if (buffer->size > FM__MESSAGES_MOST)
            fm__buffer_done(buffer);
        return 0;
    }
    memcpy(&entry, buffer->data + messages->at, sizeof entry);
    /* Others may be told while this one is looked at. */
    fm__buffer_clear(current);
    if (fm__buffer_append(current, buffer->data + messages->at,
                          entry_size(&entry)) < 0)
        return -ENOMEM;
    at = (const char *)current->data + sizeof entry;
    *ret_message = (struct fm__message){
        .call = entry.call,
        .what = (enum fm__tell_what)entry.what,
        .format = entry.format,
        .data = entry.block ? entry.block : at + text_size(&entry),
        .len = entry.len,
        .first = at,
        .second = at + entry.first_len + 1,
        .begun_at = entry.begun_at};
    messages->at += entry_size(&entry);
    messages->block = entry.block;
    if (entry.block)
        messages->in_blocks -= entry.len;
    return 1;
}

size_t fm__messages_size(const struct fm__messages *messages)
{
    return messages->buffer.len - messages->at + messages->in_blocks;
}

void fm__messages_done(struct fm__messages *messages)
{
    struct fm__buffer *buffer = &messages->buffer;
    struct entry entry;

    free_block(messages);
    while (messages->at < buffer->len) {
        memcpy(&entry, buffer->data + messages->at, sizeof entry);
        messages->block = entry.block;
        free_block(messages);
        messages->at += entry_size(&entry);
    }
    fm__buffer_done(buffer);
    fm__buffer_done(&messages->current);
}

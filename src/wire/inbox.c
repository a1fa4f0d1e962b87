/* SPDX-License-Identifier: MIT */
/* The parent's side of a conversation; see inbox.h. */
#include "wire/inbox.h"

#include <errno.h>
#include <string.h>

#include "fork_map.h"
#include "os/memory.h"
#include "os/sys.h"

void fm__inbox_init(struct fm__inbox *inbox, uint64_t job, uint64_t limit)
{
    memset(inbox, 0, sizeof *inbox);
    inbox->job = job;
    inbox->limit = limit;
}

static void drop_texts(struct fm__inbox *inbox)
{
    fm__sys.free(inbox->first);
    fm__sys.free(inbox->second);
    inbox->first = NULL;
    inbox->second = NULL;
}

void fm__inbox_done(struct fm__inbox *inbox)
{
    drop_texts(inbox);
    inbox->data = fm__bulk_resize(inbox->data, 0);
    fm__sys.free(inbox->control);
    inbox->control = NULL;
    inbox->control_size = 0;
    inbox->len = 0;
    inbox->size = 0;
}

static int broken(struct fm__inbox *inbox, int rc)
{
    inbox->ending = FM__ENDING_BROKEN;
    inbox->no_memory = rc == -ENOMEM;
    return rc;
}

/* Room for `more` bytes of data that have arrived: at most twice what came. */
static int reserve(struct fm__inbox *inbox, size_t more)
{
    size_t want = inbox->len + more;
    size_t size = inbox->size;
    void *data;

    if (inbox->limit != 0 && (uint64_t)want > inbox->limit) {
        inbox->over_limit = true;
        return FM_ELIMIT;
    }
    if (want <= size)
        return 0;
    size = size * 2 > want ? size * 2 : want;
    if (size < 256)
        size = 256;
    if (inbox->limit != 0 && size > inbox->limit)
        size = (size_t)inbox->limit;
    data = fm__bulk_resize(inbox->data, size);
    if (!data)
        return -ENOMEM;
    inbox->data = data;
    inbox->size = size;
    return 0;
}

static int take_data(struct fm__inbox *inbox, const unsigned char *p, size_t n)
{
    int rc = reserve(inbox, n);

    if (rc < 0)
        return broken(inbox, rc);
    memcpy(inbox->data + inbox->len, p, n);
    inbox->len += n;
    return 0;
}

static char *copy_text(const unsigned char *p, size_t n)
{
    char *text = fm__sys.malloc(n + 1);

    if (text) {
        memcpy(text, p, n);
        text[n] = '\0';
    }
    return text;
}

static int take_pair(struct fm__inbox *inbox, enum fm__verdict verdict)
{
    const unsigned char *p = inbox->control;
    size_t len = inbox->head.len;
    uint32_t first;

    memcpy(&first, p, sizeof first);
    if (first > len - sizeof first)
        return FM_EPROTOCOL;
    drop_texts(inbox);
    inbox->first = copy_text(p + 4, first);
    inbox->second = copy_text(p + 4 + first, len - 4 - first);
    if (!inbox->first || !inbox->second)
        return -ENOMEM;
    inbox->verdict = verdict;
    inbox->len = 0;
    return 0;
}

static int take_start_failed(struct fm__inbox *inbox)
{
    memcpy(&inbox->code, inbox->control, sizeof inbox->code);
    drop_texts(inbox);
    inbox->first = copy_text(inbox->control + 4, inbox->head.len - 4);
    if (!inbox->first)
        return -ENOMEM;
    inbox->ending = FM__ENDING_NOT_STARTED;
    return 0;
}

static int take_end(struct fm__inbox *inbox)
{
    uint64_t total;

    memcpy(&total, inbox->control, sizeof total);
    if (total != inbox->len)
        return FM_EPROTOCOL;
    inbox->ending = FM__ENDING_ENDED;
    return 0;
}

/* Nothing of it is believed here but that the texts are where it says. */
static int take_tell(struct fm__inbox *inbox)
{
    struct fm__tell tell;
    size_t len = inbox->head.len - sizeof tell;
    int rc;

    memcpy(&tell, inbox->control, sizeof tell);
    if (!inbox->on_tell || tell.what >= FM__TELL_COUNT ||
        tell.first_len > len || tell.zero[0] != 0 || tell.zero[1] != 0)
        return FM_EPROTOCOL;
    rc =
        inbox->on_tell(inbox, &tell, (const char *)inbox->control + sizeof tell,
                       len, inbox->tell_ud);
    if (!inbox->data)
        inbox->size = 0;
    inbox->len = 0;
    return rc;
}

/* A whole frame that is not DATA lies in inbox->control. */
static int take_control(struct fm__inbox *inbox)
{
    switch ((enum fm__frame_type)inbox->head.type) {
    case FM__FRAME_START_FAILED:
        return take_start_failed(inbox);
    case FM__FRAME_FORMAT:
        inbox->format = inbox->control[0];
        inbox->len = 0;
        return 0;
    case FM__FRAME_FAIL:
        return take_pair(inbox, FM__VERDICT_FAILED);
    case FM__FRAME_REFUSE:
        return take_pair(inbox, FM__VERDICT_REFUSED);
    case FM__FRAME_EXCEED:
        return take_pair(inbox, FM__VERDICT_EXCEEDED);
    case FM__FRAME_EXITED:
        memcpy(&inbox->code, inbox->control, sizeof inbox->code);
        inbox->ending = FM__ENDING_EXITED;
        return 0;
    case FM__FRAME_END:
        return take_end(inbox);
    case FM__FRAME_ASIDE:
        if (inbox->on_aside)
            inbox->on_aside(inbox, inbox->control[0], inbox->aside_ud);
        inbox->len = 0;
        return 0;
    case FM__FRAME_TELL:
        return take_tell(inbox);
    case FM__FRAME_DATA:
        break;
    }
    return FM_EPROTOCOL;
}

/* A child that has said anything else has started. */
static int check_head(struct fm__inbox *inbox)
{
    bool begun = inbox->begun;

    inbox->begun = true;
    if (begun && inbox->head.type == FM__FRAME_START_FAILED)
        return FM_EPROTOCOL;
    return fm__frame_check(&inbox->head, inbox->job);
}

/* The header is whole: believe it only if it may be there. */
static int open_payload(struct fm__inbox *inbox)
{
    int rc;

    memcpy(&inbox->head, inbox->head_bytes, sizeof inbox->head);
    rc = check_head(inbox);
    if (rc < 0)
        return broken(inbox, rc);
    inbox->in_payload = true;
    inbox->have = 0;
    if (inbox->head.type != FM__FRAME_DATA &&
        inbox->head.len > inbox->control_size) {
        unsigned char *control =
            fm__sys.realloc(inbox->control, inbox->head.len);

        if (!control)
            return broken(inbox, -ENOMEM);
        inbox->control = control;
        inbox->control_size = inbox->head.len;
    }
    return 0;
}

static int take_payload(struct fm__inbox *inbox, const unsigned char *p,
                        size_t n)
{
    int rc = 0;

    if (inbox->head.type == FM__FRAME_DATA)
        rc = take_data(inbox, p, n);
    else
        memcpy(inbox->control + inbox->have, p, n);
    if (rc < 0)
        return rc;
    inbox->have += n;
    if (inbox->have < inbox->head.len)
        return 0;
    inbox->in_payload = false;
    inbox->have = 0;
    if (inbox->head.type != FM__FRAME_DATA)
        rc = take_control(inbox);
    return rc < 0 ? broken(inbox, rc) : 0;
}

int fm__inbox_feed(struct fm__inbox *inbox, const void *data, size_t len)
{
    const unsigned char *p = data;
    int rc = 0;

    while (rc == 0 && len > 0 && inbox->ending == FM__ENDING_OPEN) {
        size_t want = inbox->in_payload ? inbox->head.len : FM__FRAME_HEAD;
        size_t n = want - inbox->have < len ? want - inbox->have : len;

        if (inbox->in_payload) {
            rc = take_payload(inbox, p, n);
        } else {
            memcpy(inbox->head_bytes + inbox->have, p, n);
            inbox->have += n;
            if (inbox->have == FM__FRAME_HEAD)
                rc = open_payload(inbox);
        }
        p += n;
        len -= n;
    }
    return rc;
}

bool fm__inbox_is_between(const struct fm__inbox *inbox)
{
    return !inbox->in_payload && inbox->have == 0;
}

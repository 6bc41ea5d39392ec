#define _GNU_SOURCE
#include "walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct walk {
    lfs_reader *r;
    uint64_t *queue;
    size_t queued;
    size_t limit;
    int result;
} walk;

static void note(walk *w, int64_t r)
{
    if (r < 0 && w->result == 0)
        w->result = (int)r;
}

static void ask_file(walk *w, const lfs_stat *st)
{
    static char buf[1 << 16];
    uint64_t at = 0;
    int64_t got = 1;

    for (int i = 0; i < 64 && got > 0 && at < st->size; i++, at += (uint64_t)got) {
        got = lfs_reader_read(w->r, st->nid, at, buf, sizeof buf, NULL);
        note(w, got);
    }
    at = 0;
    for (int i = 0; i < 64 && at < st->size; i++) {
        uint64_t where, length;
        int r = lfs_reader_extent(w->r, st->nid, at, &where, &length, NULL);
        note(w, r);
        if (r < 0)
            break;
        if (length == 0)
            abort();
        at += length;
    }
    note(w, lfs_reader_read(w->r, st->nid, st->size / 2, buf, sizeof buf, NULL));
}

static void ask_directory(walk *w, uint64_t nid)
{
    char buf[2048];
    uint64_t cookie = 0;
    int64_t got;

    while ((got = lfs_reader_readdir(w->r, nid, &cookie, buf, sizeof buf, NULL)) > 0) {
        for (int64_t i = 0; i < got; i += 10 + (uint8_t)buf[i + 9]) {
            uint64_t child, found;
            int r;

            memcpy(&child, buf + i, sizeof child);
            r = lfs_reader_lookup(w->r, nid, buf + i + 10, (uint8_t)buf[i + 9], &found, NULL);
            note(w, r);
            if (w->queued < w->limit)
                w->queue[w->queued++] = child;
        }
        if (w->queued >= w->limit)
            return;
    }
    note(w, got);
}

int walk_layer(int fd, unsigned limit)
{
    static char buf[1 << 18];
    walk w = {.limit = limit};
    int r = lfs_reader_open(fd, &w.r, NULL);

    if (r < 0)
        return r;
    w.queue = calloc(limit, sizeof *w.queue);
    w.queue[w.queued++] = lfs_reader_root(w.r);
    for (size_t i = 0; i < w.queued; i++) {
        lfs_stat st;

        r = lfs_reader_stat(w.r, w.queue[i], &st, NULL);
        note(&w, r);
        if (r < 0)
            continue;
        note(&w, lfs_reader_xattrs(w.r, st.nid, buf, sizeof buf, NULL));
        if (S_ISDIR(st.mode))
            ask_directory(&w, st.nid);
        else if (S_ISREG(st.mode))
            ask_file(&w, &st);
        else if (S_ISLNK(st.mode))
            note(&w, lfs_reader_readlink(w.r, st.nid, buf, sizeof buf, NULL));
    }
    free(w.queue);
    lfs_reader_free(w.r);
    return w.result;
}

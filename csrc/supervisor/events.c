/* events.c - what happens to the container while nobody is there, into the file that `layerfs events` reads. */
#define _GNU_SOURCE
#include "supervise.h"

#include "../util.h"

#include <fcntl.h>
#include <stdio.h>

#define ATTRIBUTES_MAX 65536

/* What every event of this container tells: a JSON object in a file, which a renaming replaces. */
static ssize_t read_attributes(int state, char *text)
{
    cleanup_close int fd = openat(state, "attributes.json", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -1 : read(fd, text, ATTRIBUTES_MAX);
}

void sv_event(const sv_supervisor *s, const char *action)
{
    cleanup_free char *line = malloc(ATTRIBUTES_MAX + 512), *text = malloc(ATTRIBUTES_MAX);
    cleanup_close int fd = -1;
    ssize_t size;
    int n;

    if (s->spec->events < 0 || line == NULL || text == NULL)
        return;
    size = read_attributes(s->spec->state, text);
    if (size <= 0 || size == ATTRIBUTES_MAX) {
        memcpy(text, "{}", 2);
        size = 2;
    }
    n = snprintf(line, ATTRIBUTES_MAX + 512,
                 "{\"time\":%lld,\"type\":\"container\",\"action\":\"%s\",\"id\":\"%s\",\"attributes\":%.*s}\n",
                 (long long)sv_now(), action, s->spec->name, (int)size, text);
    /* By its name at each event: the file is replaced when it has grown. One write is one line. */
    fd = openat(s->spec->events, "events", O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)!write(fd, line, (size_t)n);
}

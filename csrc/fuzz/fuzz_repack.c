/* Any bytes as the rest of a layer (the layer is the input as well): no fault, nothing from outside of it. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "layerfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("layer", MFD_CLOEXEC);
    size_t step = size > 0 ? data[0] + 1u : 1;
    lfs_repack *r = NULL;
    uint8_t buf[4096];
    int64_t got = 0;

    if (write(fd, data, size) != (ssize_t)size || lfs_repack_open(fd, 0, &r, NULL) < 0)
        size = 0;
    for (size_t at = 0; at < size && got >= 0; at += step) {
        if (lfs_repack_feed(r, data + at, step < size - at ? step : size - at, NULL) < 0)
            break;
        for (int i = 0; i < 100 && (got = lfs_repack_read(r, buf, sizeof buf, NULL)) > 0; i++)
            ;
    }
    if (got == 0 && r != NULL)
        lfs_repack_finish(r, NULL);
    lfs_repack_free(r);
    close(fd);
    return 0;
}

/* walk.h - everything the reader can be asked of a layer, asked of all of it. */
#ifndef LAYERFS_FUZZ_WALK_H
#define LAYERFS_FUZZ_WALK_H

#include "layerfs.h"

/* At most `limit` names (a hostile layer may be endless). The first failure met, or 0. */
int walk_layer(int fd, unsigned limit);

#endif

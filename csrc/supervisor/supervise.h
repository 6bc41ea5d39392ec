/* supervise.h - the life of a container that nobody waits for. See docs/supervisor.md. */
#ifndef SUPERVISOR_SUPERVISE_H
#define SUPERVISOR_SUPERVISE_H

#include "spec.h"

/* Goes into the background, reports the first start to the channel, and returns the exit status of this process. */
int sv_supervise(const sv_spec *spec, int channel);

#endif

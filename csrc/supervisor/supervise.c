#include "supervise.h"
int sv_supervise(const sv_spec *spec, int channel)
{
    (void)spec; (void)channel; return 1;
}

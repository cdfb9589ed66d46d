/* See driver.h. */
#include "process/driver.h"

#include <stdatomic.h>
#include <string.h>

#include "intercept/intercept.h"

hami_uses hami_use;

#define FILL(name, signature)                                              \
    do {                                                                   \
        void *address = hami_dlsym(handle, #name);                         \
        memcpy(&hami_use.name, &address, sizeof address);                  \
    } while (0);

bool hami_uses_load(void)
{
    if (!hami_driver_load())
        return false;
    void *handle = hami_driver_handle(0);
    HAMI_USES(FILL)
    return true;
}

bool hami_nvml_uses_load(void)
{
    static _Atomic int answer; /* 0 not tried, 1 usable, 2 not */
    if (atomic_load(&answer) == 0) {
        bool usable = hami_nvml_load();
        if (usable) {
            void *handle = hami_driver_handle(1);
            HAMI_NVML_USES(FILL)
            usable = USE(nvmlInit_v2) == NVML_SUCCESS;
        }
        atomic_store(&answer, usable ? 1 : 2);
    }
    return atomic_load(&answer) == 1;
}

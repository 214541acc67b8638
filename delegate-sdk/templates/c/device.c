/* Which devices there are. */

#include "my_npu.h"

#define DEVICE_NAME "no chip yet"
#define DEVICE_ARCH "portable C"

/* A real delegate asks its driver in `initialize`, and gives what it found: kind DG_DEVICE_NPU, driver version, memory. */
static const dg_device_info device = {
    .struct_size = sizeof(dg_device_info),
    .struct_id = DG_STRUCT_DEVICE_INFO,
    .id = 0,
    .kind = DG_DEVICE_CPU,
    .name = DEVICE_NAME,
    .name_size = sizeof DEVICE_NAME - 1,
    .vendor = MY_NPU_VENDOR,
    .vendor_size = sizeof MY_NPU_VENDOR - 1,
    .arch = DEVICE_ARCH,
    .arch_size = sizeof DEVICE_ARCH - 1,
};

dg_status my_npu_device_enumerate(dg_delegate *self, const dg_call *call, uint64_t capacity, const dg_device_info **out,
                                  uint64_t *count) {
    (void)self;
    (void)call;
    /* The host calls with no room first, to learn the number. */
    if (capacity > 0) out[0] = &device;
    *count = 1;
    return DG_OK;
}

/* Which devices there are. */

#include "my_npu.hpp"

std::vector<dg::device> my_npu_delegate::devices() {
    /* A real delegate asks its driver: kind DG_DEVICE_NPU, driver version, memory. */
    dg::device device;
    device.kind = DG_DEVICE_CPU;
    device.name = "no chip yet";
    device.vendor = "Example Inc.";
    device.arch = "portable C++";
    return {device};
}

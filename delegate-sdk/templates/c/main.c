/* The entry, the table, who the delegate is, and its start and end. */

#include "my_npu.h"

#include <stdio.h>
#include <stdlib.h>

/* What the host holds for a started delegate. A real one has its driver's handle here. */
struct dg_delegate {
    int unused;
};

dg_status my_npu_fail(const dg_call *call, dg_status status, uint32_t node, const char *message) {
    call->host->call_set_error(call, status, 0, node, message, strlen(message), NULL, 0);
    return status;
}

dg_status my_npu_bad_struct(const dg_call *call, const char *name) {
    char message[80];
    snprintf(message, sizeof message, "`%s` is NULL or too small", name);
    return my_npu_fail(call, DG_E_BAD_STRUCT, DG_NO_NODE, message);
}

static const dg_delegate_info info = {
    .struct_size = sizeof(dg_delegate_info),
    .struct_id = DG_STRUCT_DELEGATE_INFO,
    .name = MY_NPU_NAME,
    .name_size = sizeof MY_NPU_NAME - 1,
    .vendor = MY_NPU_VENDOR,
    .vendor_size = sizeof MY_NPU_VENDOR - 1,
    .version = MY_NPU_VERSION,
    .version_size = sizeof MY_NPU_VERSION - 1,
    .opset = DG_OPSET,
    .opset_size = sizeof DG_OPSET - 1,
    .blob_format = MY_NPU_FORMAT,
    .blob_format_size = sizeof MY_NPU_FORMAT - 1,
    .blob_format_version = MY_NPU_FORMAT_VERSION,
    .image_version = DG_IMAGE_MAJOR,
    .abi_minor = DG_ABI_MINOR,
    .abi_min_minor = 0,
    .layout_hash = DG_LAYOUT_HASH,
};

static dg_status get_info(const dg_call *call, const dg_delegate_info **out) {
    (void)call;
    *out = &info;
    return DG_OK;
}

static dg_status initialize(const dg_call *call, const dg_init *init, dg_delegate **out) {
    dg_delegate *self;
    if (!MY_NPU_REACHES(call, dg_call, host)) return DG_E_BAD_STRUCT;
    if (!MY_NPU_REACHES(init, dg_init, option_count)) return my_npu_bad_struct(call, "dg_init");
    if (init->option_count > 0) {
        /* A typing error in somebody's backends.toml must be found. */
        const dg_kv *option = init->options[0];
        int size = option->key_size < 100 ? (int)option->key_size : 100;
        char message[160];
        snprintf(message, sizeof message, "unknown option `%.*s`: this delegate has none", size, option->key);
        return my_npu_fail(call, DG_E_INVALID_ARGUMENT, DG_NO_NODE, message);
    }
    self = calloc(1, sizeof *self);
    if (!self) return my_npu_fail(call, DG_E_OUT_OF_MEMORY, DG_NO_NODE, "out of memory");
    *out = self;
    return DG_OK;
}

static void shut_down(dg_delegate *self, const dg_call *call) {
    (void)call;
    free(self);
}

static const dg_delegate_api api = {
    .struct_size = sizeof(dg_delegate_api),
    .major = DG_ABI_MAJOR,
    .minor = DG_ABI_MINOR,
    .features = {DG_FEATURE_COMPILE | DG_FEATURE_RUN, 0},
    .get_info = get_info,
    .initialize = initialize,
    .shutdown = shut_down,
    .device_enumerate = my_npu_device_enumerate,
    .partition = my_npu_partition,
    .compile = my_npu_compile,
    .blob_check = my_npu_blob_check,
    .session_load = my_npu_session_load,
    .session_unload = my_npu_session_unload,
    .session_execute = my_npu_session_execute,
};

/* The one symbol of the library. It does no work: that belongs in `initialize`. */
DG_EXPORT dg_status dg_delegate_entry_v1(const dg_host_api *host, const dg_delegate_api **out_table) {
    (void)host;
    *out_table = &api;
    return DG_OK;
}

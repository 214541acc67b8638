/* What the files of the delegate share. The contract is include/delegraph.h; nothing else of Delegraph's is needed. */

#ifndef MY_NPU_H
#define MY_NPU_H

#include "delegraph.h"
#include "delegraph_image.h"
#include "delegraph_ops.h"

/* Who it is. The first three say the same in my-npu.delegate.toml. */
#define MY_NPU_NAME "my-npu"
#define MY_NPU_VENDOR "Example Inc."
#define MY_NPU_VERSION "0.1.0"
/* The form of its blobs. Raise the version whenever an old blob would be misread. */
#define MY_NPU_FORMAT "my-npu.steps"
#define MY_NPU_FORMAT_VERSION 1

/* An operator that the delegate takes: a row of the table in ops.c. */
typedef struct my_npu_op {
    /* Stands in blobs: a row that was shipped keeps its code. */
    uint32_t code;
    /* A name of delegraph_ops.h. */
    const char *name;
    /* Tensors that it reads: the first parameters of the operator, 1 or 2. */
    uint32_t operands;
    /* Says what is wrong with the parameters behind them; NULL: nothing. */
    const char *(*refuse)(const dg_image *graph, uint32_t node);
    /* Computes `count` elements. `b` is NULL for one operand. */
    void (*run)(uint64_t count, const float *a, const float *b, float *out);
} my_npu_op;

/* ops.c: a row, or NULL. */
const my_npu_op *my_npu_op_named(dg_text name);
const my_npu_op *my_npu_op_coded(uint32_t code);

/* caps.c: DG_REASON_NONE if it takes the node; else why not, in `text` too. */
dg_reason my_npu_verdict(const dg_image *graph, uint32_t node, char *text, size_t room);
dg_status my_npu_partition(dg_delegate *self, const dg_call *call, const dg_graph *graph, dg_part_sink *sink);

/* compile.c */
dg_status my_npu_compile(dg_delegate *self, const dg_call *call, const dg_graph *graph, const dg_target *target,
                         dg_blob_sink *sink);

/* execute.c */
dg_status my_npu_blob_check(dg_delegate *self, const dg_call *call, const dg_blob_meta *meta, dg_check_sink *sink);
dg_status my_npu_session_load(dg_delegate *self, const dg_call *call, const dg_blob *blob, dg_session **out);
void my_npu_session_unload(dg_session *session, const dg_call *call);
dg_status my_npu_session_execute(dg_session *session, const dg_call *call, const dg_tensor *const *inputs,
                                 uint64_t input_count, dg_tensor *const *outputs, uint64_t output_count);

/* device.c */
dg_status my_npu_device_enumerate(dg_delegate *self, const dg_call *call, uint64_t capacity, const dg_device_info **out,
                                  uint64_t *count);

/* 1 if a struct of the host's reaches as far as this field, the last one that it had in the first minor. A smaller one is DG_E_BAD_STRUCT; a
 * larger one is fine. */
#define MY_NPU_REACHES(at, type, field) ((at) && (at)->struct_size >= offsetof(type, field) + sizeof(((const type *)0)->field))

/* main.c: says why a call fails, and returns the status. `node` may be DG_NO_NODE. */
dg_status my_npu_fail(const dg_call *call, dg_status status, uint32_t node, const char *message);
/* main.c: a struct that is too small. */
dg_status my_npu_bad_struct(const dg_call *call, const char *name);

#endif

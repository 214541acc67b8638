/* What the delegate takes, node by node. */

#include "my_npu.h"

#include <stdio.h>

static dg_reason refuse(dg_reason reason, const char *why, char *text, size_t room) {
    snprintf(text, room, "%s", why);
    return reason;
}

dg_reason my_npu_verdict(const dg_image *graph, uint32_t node, char *text, size_t room) {
    dg_text name = dg_image_node_op(graph, node);
    const my_npu_op *op = my_npu_op_named(name);
    uint32_t result = dg_image_node_output(graph, node, 0);
    if (!op) {
        snprintf(text, room, "no kernel for `%.*s`", name.size < 200 ? (int)name.size : 200, name.data);
        return DG_REASON_UNKNOWN_OP;
    }
    if (dg_image_node_output_count(graph, node) != 1 || dg_image_value_dtype(graph, result) != DG_DTYPE_F32)
        return refuse(DG_REASON_DTYPE, "f32 only", text, room);
    for (uint32_t i = 0; i < op->operands; i++) {
        /* A number may stand where the operator's schema says Tensor: it is an argument, but no value. */
        uint32_t value = dg_image_arg_value(dg_image_node_arg(graph, node, i));
        if (value == DG_NONE) return refuse(DG_REASON_ATTRIBUTE, "every operand must be a tensor", text, room);
        if (dg_image_value_dtype(graph, value) != DG_DTYPE_F32) return refuse(DG_REASON_DTYPE, "f32 only", text, room);
        if (dg_image_value_weight(graph, value) != DG_NONE)
            return refuse(DG_REASON_OTHER, "weights are not done yet", text, room);
        /* Equal sizes are equal expressions, known now or not. */
        if (!dg_image_same_sizes(graph, value, result))
            return refuse(DG_REASON_SHAPE, "operands of different shapes are not broadcast", text, room);
    }
    if (op->refuse) {
        const char *why = op->refuse(graph, node);
        if (why) return refuse(DG_REASON_ATTRIBUTE, why, text, room);
    }
    return DG_REASON_NONE;
}

dg_status my_npu_partition(dg_delegate *self, const dg_call *call, const dg_graph *graph, dg_part_sink *sink) {
    dg_image image;
    (void)self;
    if (!MY_NPU_REACHES(graph, dg_graph, weights)) return my_npu_bad_struct(call, "dg_graph");
    if (dg_image_open(graph->image, graph->image_size, &image) != DG_OK)
        return my_npu_fail(call, DG_E_INVALID_ARGUMENT, DG_NO_NODE, "the graph image cannot be read");
    for (uint32_t node = 0; node < dg_image_node_count(&image); node++) {
        char text[256] = "";
        dg_reason reason = my_npu_verdict(&image, node, text, sizeof text);
        dg_status status = call->host->part_node_verdict(sink, node, reason == DG_REASON_NONE, reason, text, strlen(text));
        if (status != DG_OK) return status;
    }
    return DG_OK;
}

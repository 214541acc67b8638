/* A graph becomes a list of steps, in little-endian words of 32 bits:
 *
 *     inputs, steps, outputs | for each step: code, slot a, slot b | for each output: slot
 *
 * Tensors lie in numbered slots: the inputs first, then what each step makes. */

#include "my_npu.h"

#include <stdlib.h>

/* Most tensors of one region. */
#define MOST 65536u

static dg_status put(const dg_call *call, dg_blob_sink *sink, uint32_t word) {
    uint8_t bytes[4] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (uint8_t)(word >> 24)};
    return call->host->blob_write(sink, bytes, sizeof bytes);
}

static dg_status write_steps(const dg_call *call, const dg_image *image, uint32_t *slots, dg_blob_sink *sink) {
    uint32_t inputs = dg_image_input_count(image), nodes = dg_image_node_count(image);
    uint32_t outputs = dg_image_output_count(image), words[3] = {inputs, nodes, outputs};
    dg_status status = call->host->blob_begin_section(sink, "steps", 5, 4);
    for (uint32_t i = 0; status == DG_OK && i < 3; i++) status = put(call, sink, words[i]);
    for (uint32_t i = 0; i < inputs; i++) slots[dg_image_input(image, i)] = i;
    for (uint32_t node = 0; status == DG_OK && node < nodes; node++) {
        char text[256];
        const my_npu_op *op = my_npu_op_named(dg_image_node_op(image, node));
        uint32_t a = dg_image_arg_value(dg_image_node_arg(image, node, 0)), b = a;
        /* It took every node; should one be here all the same, naming it makes the host try again without it. */
        if (my_npu_verdict(image, node, text, sizeof text) != DG_REASON_NONE)
            return my_npu_fail(call, DG_E_UNSUPPORTED, node, text);
        if (op->operands > 1) b = dg_image_arg_value(dg_image_node_arg(image, node, 1));
        words[0] = op->code;
        words[1] = slots[a];
        words[2] = slots[b];
        for (uint32_t i = 0; status == DG_OK && i < 3; i++) status = put(call, sink, words[i]);
        slots[dg_image_node_output(image, node, 0)] = inputs + node;
    }
    for (uint32_t i = 0; status == DG_OK && i < outputs; i++) {
        uint32_t slot = slots[dg_image_output(image, i)];
        if (slot == DG_NONE) return my_npu_fail(call, DG_E_UNSUPPORTED, DG_NO_NODE, "an output that no step makes");
        status = put(call, sink, slot);
    }
    return status;
}

dg_status my_npu_compile(dg_delegate *self, const dg_call *call, const dg_graph *graph, const dg_target *target,
                         dg_blob_sink *sink) {
    dg_image image;
    uint32_t *slots;
    dg_status status;
    (void)self;
    if (!MY_NPU_REACHES(graph, dg_graph, weights)) return my_npu_bad_struct(call, "dg_graph");
    /* `target->name` is what the user asked for with `--target my-npu:NAME`; empty: anything. */
    if (!MY_NPU_REACHES(target, dg_target, name_size)) return my_npu_bad_struct(call, "dg_target");
    if (dg_image_open(graph->image, graph->image_size, &image) != DG_OK)
        return my_npu_fail(call, DG_E_INVALID_ARGUMENT, DG_NO_NODE, "the graph image cannot be read");
    if (dg_image_value_count(&image) > MOST || dg_image_node_count(&image) == 0)
        return my_npu_fail(call, DG_E_UNSUPPORTED, DG_NO_NODE, "an empty region, or more than 65536 tensors in it");
    slots = malloc(dg_image_value_count(&image) * sizeof *slots);
    if (!slots) return my_npu_fail(call, DG_E_OUT_OF_MEMORY, DG_NO_NODE, "out of memory");
    for (uint32_t i = 0; i < dg_image_value_count(&image); i++) slots[i] = DG_NONE;
    status = write_steps(call, &image, slots, sink);
    free(slots);
    return status;
}

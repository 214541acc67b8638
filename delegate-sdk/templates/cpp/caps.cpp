/* What the delegate takes, node by node. */

#include "my_npu.hpp"

std::optional<my_npu_delegate::Refusal> my_npu_delegate::verdict(const dg::image &graph, std::uint32_t node) {
    const Op *op = op_named(graph.op(node));
    if (!op) return Refusal{DG_REASON_UNKNOWN_OP, "no kernel for `" + std::string(graph.op(node)) + "`"};
    std::uint32_t result = graph.output(node, 0);
    if (graph.output_count(node) != 1 || graph.dtype(result) != DG_DTYPE_F32) return Refusal{DG_REASON_DTYPE, "f32 only"};
    for (std::uint32_t i = 0; i < op->operands; i++) {
        /* A number may stand where the operator's schema says Tensor: it is an argument, but no value. */
        std::uint32_t value = dg_image_arg_value(graph.arg(node, i));
        if (value == DG_NONE) return Refusal{DG_REASON_ATTRIBUTE, "every operand must be a tensor"};
        if (graph.dtype(value) != DG_DTYPE_F32) return Refusal{DG_REASON_DTYPE, "f32 only"};
        if (graph.weight(value) != DG_NONE) return Refusal{DG_REASON_OTHER, "weights are not done yet"};
        /* Equal sizes are equal expressions, known now or not. */
        if (!graph.same_sizes(value, result))
            return Refusal{DG_REASON_SHAPE, "operands of different shapes are not broadcast"};
    }
    if (std::string_view why = op->refuse ? op->refuse(graph, node) : ""; !why.empty())
        return Refusal{DG_REASON_ATTRIBUTE, std::string(why)};
    return std::nullopt;
}

/* A graph becomes a list of steps, in little-endian words of 32 bits:
 *
 *     inputs, steps, outputs | for each step: code, slot a, slot b | for each output: slot
 *
 * Tensors lie in numbered slots: the inputs first, then what each step makes. */

#include "my_npu.hpp"

std::vector<std::uint8_t> my_npu_delegate::compile(const dg::image &graph) {
    std::vector<std::uint8_t> blob;
    auto put = [&](std::uint32_t word) {
        for (int shift = 0; shift < 32; shift += 8) blob.push_back(static_cast<std::uint8_t>(word >> shift));
    };
    if (graph.node_count() == 0) throw dg::error::unsupported("an empty region");
    std::vector<std::uint32_t> slots(graph.value_count(), DG_NONE);
    put(graph.input_count());
    put(graph.node_count());
    put(graph.output_count());
    for (std::uint32_t i = 0; i < graph.input_count(); i++) slots.at(graph.input(i)) = i;
    for (std::uint32_t node = 0; node < graph.node_count(); node++) {
        /* It took every node; should one be here all the same, naming it makes the host try again without it. */
        if (auto refusal = verdict(graph, node)) throw dg::error::unsupported(refusal->text).at(node);
        const Op *op = op_named(graph.op(node));
        put(op->code);
        for (std::uint32_t i = 0; i < 2; i++)
            put(slots.at(dg_image_arg_value(graph.arg(node, i < op->operands ? i : 0))));
        slots.at(graph.output(node, 0)) = graph.input_count() + node;
    }
    for (std::uint32_t i = 0; i < graph.output_count(); i++) {
        std::uint32_t slot = slots.at(graph.output(i));
        if (slot == DG_NONE) throw dg::error::unsupported("an output that no step makes");
        put(slot);
    }
    return blob;
}

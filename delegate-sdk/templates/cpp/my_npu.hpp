/* What the files of the delegate share. Everything comes from include/delegraph.hpp; nothing else of Delegraph's is needed. */

#ifndef MY_NPU_HPP
#define MY_NPU_HPP

#include "delegraph.hpp"
#include "delegraph_ops.h"

namespace my_npu_delegate {

/* An operator that the delegate takes: a row of the table in ops.cpp. */
struct Op {
    /* Stands in blobs: a row that was shipped keeps its code. */
    std::uint32_t code;
    /* A name of delegraph_ops.h. */
    std::string_view name;
    /* Tensors that it reads: the first parameters of the operator, 1 or 2. */
    std::uint32_t operands;
    /* Says what is wrong with the parameters behind them; empty: nothing. */
    std::string_view (*refuse)(const dg::image &graph, std::uint32_t node);
    /* Computes every element of `out`. `b` is empty for one operand. */
    void (*run)(dg::span<const float> a, dg::span<const float> b, dg::span<float> out);
};

/* ops.cpp: a row, or null. */
const Op *op_named(std::string_view name);
const Op *op_coded(std::uint32_t code);

/* A node that is not taken. */
struct Refusal {
    dg_reason reason;
    std::string text;
};

/* caps.cpp: nothing if it takes the node. */
std::optional<Refusal> verdict(const dg::image &graph, std::uint32_t node);

/* compile.cpp */
std::vector<std::uint8_t> compile(const dg::image &graph);

/* execute.cpp */
std::unique_ptr<dg::session> load(dg::span<const std::uint8_t> steps);

/* device.cpp */
std::vector<dg::device> devices();

} // namespace my_npu_delegate

#endif

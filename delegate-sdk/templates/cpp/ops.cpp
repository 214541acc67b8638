/* The operators that the delegate takes. THIS IS THE PLACE TO BEGIN: everything else is done for f32 tensors of one shape. */

#include "my_npu.hpp"

namespace my_npu_delegate {

/* BEGIN your operators */
/* Nothing yet, so every node is refused. `aten::add.Tensor` would be a function and a row that names it:
 *
 *     void add(dg::span<const float> a, dg::span<const float> b, dg::span<float> out) {
 *         for (std::size_t i = 0; i < out.size(); i++) out[i] = a[i] + b[i];
 *     }
 *
 *     {1, DG_OP_ATEN_ADD_TENSOR, 2, alpha_is_not_one, add},
 *
 * `alpha_is_not_one` refuses what `add` does not do: the operator has a third parameter, `self + alpha * other`.
 */
static const std::vector<Op> &ops() {
    static const std::vector<Op> table = {};
    return table;
}
/* END your operators */

const Op *op_named(std::string_view name) {
    for (const Op &op : ops())
        if (op.name == name) return &op;
    return nullptr;
}

const Op *op_coded(std::uint32_t code) {
    for (const Op &op : ops())
        if (op.code == code) return &op;
    return nullptr;
}

} // namespace my_npu_delegate

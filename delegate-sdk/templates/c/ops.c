/* The operators that the delegate takes. THIS IS THE PLACE TO BEGIN: everything else is done for f32 tensors of one shape. */

#include "my_npu.h"

/* BEGIN your operators */
/* Nothing yet, so every node is refused. `aten::add.Tensor` would be a function and a row that names it:
 *
 *     static void add(uint64_t count, const float *a, const float *b, float *out) {
 *         for (uint64_t i = 0; i < count; i++) out[i] = a[i] + b[i];
 *     }
 *
 *     {1, DG_OP_ATEN_ADD_TENSOR, 2, alpha_is_not_one, add},
 *
 * `alpha_is_not_one` refuses what `add` does not do: the operator has a third parameter, `self + alpha * other`.
 */
static const my_npu_op ops[] = {
    {0, NULL, 0, NULL, NULL}, /* ends the table */
};
/* END your operators */

const my_npu_op *my_npu_op_named(dg_text name) {
    for (const my_npu_op *op = ops; op->name; op++)
        if (dg_text_is(name, op->name)) return op;
    return NULL;
}

const my_npu_op *my_npu_op_coded(uint32_t code) {
    for (const my_npu_op *op = ops; op->name; op++)
        if (op->code == code) return op;
    return NULL;
}

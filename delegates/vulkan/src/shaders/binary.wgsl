// A first elementwise kernel: the sum of two f32 tensors of one size, and relu.
//@ workgroup 64
//@ include index
//@ include numbers
//@ buffer a read array<f32>
//@ buffer b read array<f32>
//@ buffer out write array<f32>
// params: count, operation, alpha

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let x = a[i];
    if params[1] == 0u {
        out[i] = x + bitcast<f32>(params[2]) * b[i];
    } else {
        out[i] = select(max(x, 0.0), x, is_nan(x));
    }
}

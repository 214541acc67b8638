// Weights that are computed on the device, in the form that `conv_point` and `conv_direct` read (`packing/conv.rs` does the same to constants),
// or, with one channel a group, that of `conv_depthwise`. An invocation makes four elements.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include channels
//@ buffer w read array<u32>
//@ buffer out write array<$V>
//@ variant f32 T=f32 V=vec4<f32>
//@ variant f16 T=f16 V=vec2<u32>
// params: 0 invocations, 1 code, 2 kernel elements, 3 inputs of a group, 4 outputs, 5 outputs of a group, 6 1 for weights of a transposed convolution,
// 7 1 for a channel a group

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let code = params[1];
    let volume = params[2];
    let inner = params[3];
    let outputs = params[4];
    let share = params[5];
    let blocks = (outputs + 3u) / 4u;
    let block = i % blocks;
    var c = (i / blocks) % ((inner + 3u) / 4u * 4u);
    var k = i / blocks / ((inner + 3u) / 4u * 4u);
    if params[7] != 0u {
        c = 0u;
        k = i / blocks;
    }
    var made = vec4<f32>(0.0);
    for (var lane = 0u; lane < 4u; lane++) {
        let o = 4u * block + lane;
        if o < outputs && c < inner {
            var at = (o * inner + c) * volume + k;
            if params[6] != 0u { at = ((o / share * inner + c) * share + o % share) * volume + k; }
            made[lane] = float_from(w[word_of(at, code)], at, code);
        }
    }
    out[i] = pack4(made);
}

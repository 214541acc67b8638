// The first element of batch `z`: params 3 and 4 are the sizes of the inner two of three batch dimensions; from `at` on: the first element of
// all, two words of the kernel's, the steps of the three.
fn batch_start(z: u32, at: u32) -> u32 {
    let last = z % params[4];
    let rest = z / params[4];
    let i0 = rest / params[3];
    let i1 = rest % params[3];
    return params[at] + i0 * params[at + 3u] + i1 * params[at + 4u] + last * params[at + 5u];
}

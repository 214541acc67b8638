// Writing to places that an index tensor names. An invocation takes one column: what has the same place in all other dimensions. It goes through the
// indices in order, so that where several name one place the last is written, and sums are the same each time. Needs `chosen`, and the buffer `index`.
// params: 0 columns, 1 two's logarithm of the bytes of an element, 2 indices of a column, 3 first element of the output, 4 of the source,
// 5 elements of the output from one index to the next, 6 how many indices there are (0: places), 7 words of an index, and STRICT,
// 8 stride along the column in the index tensor, 9 in the source, 10 element type, 11 operation, 12 factor (bits of f32, or of i64 with 13),
// 14 dimensions, then for each, the outermost first: size, stride in the output, in the source, in the index tensor
struct Column {
    to: u32,
    from_: u32,
    which: u32,
}

fn column(e: u32) -> Column {
    var c = Column(params[3], params[4], 0u);
    var rest = e;
    for (var d = params[14]; d > 0u; d--) {
        let base = 11u + 4u * d;
        let size = params[base];
        let whole = rest / size;
        let at = rest - whole * size;
        c.to += at * params[base + 1u];
        c.from_ += at * params[base + 2u];
        c.which += at * params[base + 3u];
        rest = whole;
    }
    return c;
}

fn target_of(c: Column, k: u32) -> u32 {
    let words = params[7] & 3u;
    let at = (c.which + k * params[8]) * words;
    return c.to + params[5] * chosen_of(index[at], index[at + words - 1u], params[7], params[6]);
}

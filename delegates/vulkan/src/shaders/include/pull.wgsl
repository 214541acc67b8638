// A kernel whose output elements are each one element of a source, of any size from 1 to 16 bytes. An invocation makes a word of the output, so
// that no two write one word; in variants with WIDE an element is a vector of 16 bytes.
//
// The kernel has buffers `out` (array<u32>; WIDE: array<vec4<u32>>) and defines
//   source_of(e)   the element of the source for element `e` of the output; FILL: the filling; KEEP: what is there already
//   fetch(at)      a word (WIDE: a vector) of the source
// params: 0 elements of the output, 1 two's logarithm of their bytes, 2 and 3 the filling: 8 bytes of whole elements
const FILL: u32 = 0xffffffffu;
const KEEP: u32 = 0xfffffffeu;

//@ if WIDE
fn pull(i: u32) {
    if i >= params[0] { return; }
    let from_ = source_of(i);
    if from_ == FILL {
        out[i] = vec4<u32>(params[2], params[3], params[2], params[3]);
    } else if from_ != KEEP {
        out[i] = fetch(from_);
    }
}
//@ end
//@ if WORDS
fn pull(i: u32) {
    let count = params[0];
    let kind = params[1];
    if kind >= 2u {
        let more = kind - 2u;
        let e = i >> more;
        if e >= count { return; }
        let from_ = source_of(e);
        let half = i & more;
        if from_ == FILL {
            out[i] = params[2u + half];
        } else if from_ != KEEP {
            out[i] = fetch((from_ << more) + half);
        }
        return;
    }
    let down = 2u - kind;
    let first = i << down;
    if first >= count { return; }
    let lanes = 1u << down;
    let width = 8u << kind;
    let mask = (1u << width) - 1u;
    var word = 0u;
    for (var lane = 0u; lane < lanes; lane++) {
        if first + lane >= count { break; }
        let from_ = source_of(first + lane);
        var bits = params[2];
        if from_ == KEEP {
            bits = out[i] >> (lane * width);
        } else if from_ != FILL {
            bits = fetch(from_ >> down) >> ((from_ & (lanes - 1u)) * width);
        }
        word |= (bits & mask) << (lane * width);
    }
    out[i] = word;
}
//@ end

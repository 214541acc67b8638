//! What a machine has is found, and the best of it is taken.

use delegraph_cpu_kernels::Isa;
use delegraph_cpu_kernels::quant::Dot;

/// Names of ways to multiply bytes, with commas between them: all that this machine has, from the plainest to the best. `cargo xtask cross` says so of
/// the processors that it plays; where nobody says anything, order alone is checked.
const EXPECTED: &str = "DELEGRAPH_EXPECTED_WAYS";

#[test]
fn what_the_machine_has_is_found_and_the_best_of_it_taken() {
    let ways = Dot::all();
    assert_eq!(ways.first(), Some(&Dot::Scalar));
    assert_eq!(ways.last(), Some(&Dot::best()));
    assert!(ways.is_sorted());
    let sets = Isa::all();
    assert_eq!(sets.first(), Some(&Isa::Scalar));
    assert_eq!(sets.last(), Some(&Isa::best()));
    assert_eq!(Dot::best().isa(), Isa::best());
    for isa in sets {
        assert_eq!(Dot::of(isa).isa(), isa);
    }
    if let Ok(expected) = std::env::var(EXPECTED) {
        let names: Vec<&str> = ways.iter().map(|way| way.name()).collect();
        assert_eq!(names.join(","), expected);
    }
}

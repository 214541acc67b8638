// Where an invocation of a grid of one row is: `grid()` of `encoder.rs` made the grid. May be beyond the end: compare with the count.
fn linear(id: vec3<u32>, groups: vec3<u32>) -> u32 {
    return id.x + id.y * groups.x * WX;
}

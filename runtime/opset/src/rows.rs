//! Look-up in a sorted text: one row a line, found by a name in it.

/// A text of lines, sorted by the bytes of the names that `name` finds in them. Its last line ends with a line feed.
pub(crate) struct Rows {
    text: &'static str,
    name: fn(&'static str) -> &'static str,
}

impl Rows {
    pub const fn new(text: &'static str, name: fn(&'static str) -> &'static str) -> Rows {
        Rows { text, name }
    }

    /// Text of the row that starts at `start`.
    pub fn row(&self, start: usize) -> &'static str {
        let rest = &self.text[start..];
        &rest[..rest.find('\n').unwrap_or(rest.len())]
    }

    /// Name of the row that starts at `start`.
    pub fn name(&self, start: usize) -> &'static str {
        (self.name)(self.row(start))
    }

    /// Starts of all rows, from the one at `start`.
    pub fn from(&'static self, start: usize) -> impl Iterator<Item = usize> {
        let mut at = start;
        core::iter::from_fn(move || {
            let row = at;
            at += self.text[row..].find('\n')? + 1;
            Some(row)
        })
    }

    /// Start of the row of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        let start = self.lower_bound(name, "");
        (start < self.text.len() && self.name(start) == name).then_some(start)
    }

    /// Start of the first row whose name is not below `base` + `suffix`.
    pub fn lower_bound(&self, base: &str, suffix: &str) -> usize {
        let bytes = self.text.as_bytes();
        let (mut low, mut high) = (0usize, bytes.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let start = bytes[..middle]
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |i| i + 1)
                .max(low);
            if self.name(start).bytes().lt(base.bytes().chain(suffix.bytes())) {
                low = start + self.row(start).len() + 1;
            } else {
                high = start;
            }
        }
        low
    }
}

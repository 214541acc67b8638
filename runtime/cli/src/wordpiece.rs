//! The demo's tokenizer: lower-cased greedy longest-match word pieces, as BERT's uncased models use.

use std::collections::HashMap;

const CLS: i64 = 101;
const SEP: i64 = 102;
const UNKNOWN: i64 = 100;

/// A word list.
pub struct WordPiece {
    ids: HashMap<String, i64>,
}

impl WordPiece {
    /// One piece a line, the id is the line number from 0.
    pub fn new(vocabulary: &str) -> WordPiece {
        WordPiece {
            ids: vocabulary
                .lines()
                .enumerate()
                .map(|(i, line)| (line.trim_end().to_string(), i as i64))
                .collect(),
        }
    }

    /// Ids of a sentence between the beginning and ending marks, at most `limit` in all, and how many words were unknown.
    pub fn encode(&self, sentence: &str, limit: usize) -> (Vec<i64>, usize) {
        let mut ids = vec![CLS];
        let mut unknown = 0;
        for word in words(sentence) {
            match self.pieces(&word) {
                Some(pieces) => ids.extend(pieces),
                None => {
                    unknown += 1;
                    ids.push(UNKNOWN);
                }
            }
        }
        ids.truncate(limit.saturating_sub(1));
        ids.push(SEP);
        (ids, unknown)
    }

    /// The pieces of one word, the longest first; `None` if some part of it is in no piece.
    fn pieces(&self, word: &str) -> Option<Vec<i64>> {
        let mut ids = Vec::new();
        let mut start = 0;
        while start < word.len() {
            let mut end = word.len();
            let id = loop {
                if end == start {
                    return None;
                }
                if word.is_char_boundary(end) {
                    let piece = &word[start..end];
                    let piece = if start == 0 {
                        piece.to_string()
                    } else {
                        format!("##{piece}")
                    };
                    if let Some(&id) = self.ids.get(&piece) {
                        break id;
                    }
                }
                end -= 1;
            };
            ids.push(id);
            start = end;
        }
        Some(ids)
    }
}

/// Lower-cased words; punctuation stands alone.
fn words(sentence: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in sentence.to_lowercase().chars() {
        if c.is_whitespace() {
            words.push(String::new());
        } else if c.is_alphanumeric() {
            if let Some(word) = words.last_mut() {
                word.push(c);
            }
        } else {
            words.push(c.to_string());
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pieces: &[&str]) -> WordPiece {
        let mut text: String = (0..103).map(|i| format!("[{i}]\n")).collect();
        for piece in pieces {
            text += piece;
            text.push('\n');
        }
        WordPiece::new(&text)
    }

    #[test]
    fn longest_pieces_win_and_unknown_words_are_counted() {
        // Greedy as BERT's: what the longest piece leaves over is not tried otherwise.
        assert_eq!(
            list(&["eat", "##ing", "eati"]).encode("eating", 8),
            (vec![101, 100, 102], 1)
        );
        let list = list(&["eat", "##ing", "##in", "a", "."]);
        assert_eq!(list.encode("Eating a.", 128), (vec![101, 103, 104, 106, 107, 102], 0));
        assert_eq!(list.encode("zebra", 128), (vec![101, 100, 102], 1));
        assert_eq!(list.encode("a a a a", 4).0, vec![101, 106, 106, 102]);
        assert_eq!(list.encode("日本", 8).1, 1);
    }
}

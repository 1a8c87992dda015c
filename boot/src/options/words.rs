//! The words of a command line, and how far two of them are from each other.

/// The words of a command line; double quotes keep spaces together, as the kernel's own `next_arg` does.
pub(super) fn words(command_line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    for character in command_line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                // What is shown of a flag must not move the cursor of a console.
                word.push(if c.is_control() { '?' } else { c });
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// Levenshtein's distance between two ASCII words, in letters: for "did you mean".
#[must_use]
pub fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.bytes().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (b, above) in to.bytes().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(a != b)).min(left + 1).min(above + 1);
            diagonal = *above;
            left = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

//! Contenders in turns: A B C A B C, so that whatever the machine does meanwhile meets all of them.

use anyhow::{Context, Result};
use std::fmt::Display;

/// Calls `run` with each contender and the round's number from 1, all contenders in each round.
///
/// # Errors
/// The first one of `run`, with contender and round.
pub fn interleaved<C: Display>(
    rounds: u32,
    contenders: &[C],
    mut run: impl FnMut(&C, u32) -> Result<()>,
) -> Result<()> {
    for round in 1..=rounds {
        for contender in contenders {
            run(contender, round).with_context(|| format!("{contender}, round {round}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contenders_take_turns() {
        let mut seen = Vec::new();
        interleaved(2, &["a", "b", "c"], |contender, round| {
            seen.push(format!("{contender}{round}"));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a1", "b1", "c1", "a2", "b2", "c2"]);
    }

    #[test]
    fn an_error_says_whose_and_when() {
        let error = interleaved(3, &["a", "b"], |contender, round| {
            anyhow::ensure!((*contender, round) != ("b", 2), "no medium");
            Ok(())
        });
        assert_eq!(format!("{:#}", error.unwrap_err()), "b, round 2: no medium");
    }
}

//! What happens to each guest next: a state machine that is told the time and what happened, and says what to do.

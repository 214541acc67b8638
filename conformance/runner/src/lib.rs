//! Runs cases in child processes and records verdicts.

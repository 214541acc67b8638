//! Tags nodes with delegates: verdicts, convex regions, atomic sets, rules.

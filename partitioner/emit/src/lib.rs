//! IR to .pte: the portable plan, memory planning, overlay.

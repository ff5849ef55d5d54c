"""Blocks: what is stopped at once, kept so that nothing but its end ends it."""

"""Documentation search: what the Python standard library says of itself."""

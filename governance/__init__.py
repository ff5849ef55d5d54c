"""Rules and contracts in, decisions out: a pure library."""

"""A tool that answers with what it was sent, for tests."""

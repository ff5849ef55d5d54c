"""Handbook search: what a repository's Markdown pages say."""

"""Follows endpoints, and reads the contracts of what they serve."""

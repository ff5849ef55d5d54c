"""Contracts as values: normalised, digested, their options read."""

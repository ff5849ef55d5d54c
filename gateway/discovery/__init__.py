"""Decides what of all that endpoints serve the mesh lets in, and keeps the catalog of it."""

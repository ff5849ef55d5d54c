"""Finds what endpoints serve, and decides what of it the mesh lets in."""

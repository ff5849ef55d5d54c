"""Catalog and policy to Envoy resources, without input or output."""

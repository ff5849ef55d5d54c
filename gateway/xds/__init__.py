"""Envoy programmed over delta ADS."""

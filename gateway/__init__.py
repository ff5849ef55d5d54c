"""The gateway: finds tools, keeps the catalog, programs Envoy."""

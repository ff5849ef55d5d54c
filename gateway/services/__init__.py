"""What the gateway serves itself: the catalog, reflection and health to clients, leases to tools."""

"""What Envoy is started with: the listener and what the edge does, before the gateway has spoken."""

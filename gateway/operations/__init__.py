"""How the mesh is watched: figures and health, without a token, for those who run it.

Envoy serves them on the operations port (gateway/listener/operations.py), so
that what it says of itself holds where the gateway is away; the gateway's own
figures come from here, over a socket.
"""

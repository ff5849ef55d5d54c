"""The filter that looks at no more tokens of an address that shows many bad ones."""

from __future__ import annotations

from importlib import resources

from google.protobuf.message import Message

from gateway.snapshot import blocks
from gateway.xds.messages import make

# What Envoy says of an answer that a script gave.
DETAILS = "lua_response"

SCRIPT = resources.files("gateway.listener").joinpath("floods.lua").read_text()


def refuse_floods(refused_tokens_per_s: int) -> Message:
    """The filter that answers for the one that verifies, once that has refused so many tokens of an address."""
    # Envoy's own rate limit counts good calls with bad ones: apply_on_stream_done is accepted and ignored (1.40).
    names = f'local LIMIT, BLOCKS, BLOCKS_RESULT = {refused_tokens_per_s}, "{blocks.METADATA}", "{blocks.RESULT}"'
    script = f"{names}\n{SCRIPT}"
    return make("envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": script})

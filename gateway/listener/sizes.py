"""The filter that holds messages to the sizes that their contracts state."""

from __future__ import annotations

from importlib import resources
from typing import Any as Untyped

from gateway.snapshot.sizes import SIZES
from gateway.xds.messages import make, pack

SCRIPT = resources.files("gateway.listener").joinpath("sizes.lua").read_text()


def hold_to_sizes() -> dict[str, Untyped]:
    """The filter, for routes to turn on."""
    script = make("envoy.extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": SCRIPT})
    return {"name": SIZES, "typed_config": pack(script), "disabled": True}

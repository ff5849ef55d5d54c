"""What a tool says that it uses, and the mesh does not have."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.catalog import Tool
from gateway.reading.candidate import NAMED
from governance.ownership import is_platform


def unmet(tool: Tool, tools: Mapping[str, Tool]) -> str:
    """Which of the methods that a tool uses are not among the tools, for its owner to read; empty if all are.

    What another domain hides is not there, to it.
    """
    used = {name for method in tool.methods for name in method.options.uses}
    missing = [f"`{name}`" for name in sorted(used) if not _is_there(name, tools, tool.domain)]
    if not missing:
        return ""
    names, more = ", ".join(missing[:NAMED]), len(missing) - NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"it uses {names}{rest}, not known here, or hidden: a call of what is not there is refused"


def _is_there(name: str, tools: Mapping[str, Tool], domain: str) -> bool:
    service, _, method = name.partition("/")
    found = tools.get(service)
    if found is None or (found.sheet.hidden and found.domain != domain):
        return is_platform(service)
    return any(each.name == method for each in found.methods)

"""Strings and bytes: patterns of bounded length, in characters that JSON writes as they are."""

from __future__ import annotations

__all__ = ["base64_text", "expression", "matching", "plain", "string"]

import base64
import re

from buf.validate import validate_pb2 as validate
from llmesh.schema.errors import LeftOutError
from llmesh.schema.limits import Limits
from llmesh.schema.pattern import ANY, ASCII, bounded, repeated
from llmesh.schema.rules import Asked, span
from llmesh.schema.shape import Shape, choice, text

_LABEL = "[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,2}}\.[a-z]{{2,6}}"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_IPV6 = "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}"
_URI = rf"https://{_HOST}(/[A-Za-z0-9._~-]{{1,24}}){{0,6}}(\?[a-z]{{1,8}}=[A-Za-z0-9._~-]{{1,24}})?"
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,20}(\.[A-Za-z_][A-Za-z0-9_]{0,20}){0,4}"

# Protovalidate's formats -> some of what each allows. What isn't here is checked afterwards alone.
FORMATS = {
    "email": rf"[a-z0-9]([a-z0-9._+-]{{0,24}}[a-z0-9])?@{_HOST}",
    "hostname": _HOST,
    "address": _HOST,
    "host_and_port": rf"{_HOST}:[1-9][0-9]{{0,3}}",
    "ip": _IPV4,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ip_with_prefixlen": f"{_IPV4}/([12]?[0-9]|3[0-2])",
    "ipv4_with_prefixlen": f"{_IPV4}/([12]?[0-9]|3[0-2])",
    "uri": _URI,
    "uri_ref": _URI,
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "tuuid": "[0-9a-f]{32}",
    "ulid": "[0-7][0-9A-HJKMNP-TV-Z]{25}",
    "protobuf_fqn": _NAME,
    "protobuf_dot_fqn": rf"\.{_NAME}",
}
# Bytes in formats -> how many there are.
BYTES_FORMATS = {"ip": 4, "ipv4": 4, "ipv6": 16, "uuid": 16}
# Base64: three bytes; and what the last character before the padding can be, where one or two bytes are left over.
THREE = "([A-Za-z0-9+/]{4})"
TAILS = {0: "", 1: "[A-Za-z0-9+/][AQgw]==", 2: "[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]="}


def plain(chars: int) -> Shape:
    """Any text of so many characters at most, none of which JSON would escape."""
    return matching("^.*$", most=chars)


def matching(pattern: str, *, most: int = 1000) -> Shape:
    """A text that matches the whole of an expression of ours, of so many characters at most."""
    found = bounded(pattern, low=0, high=most, most=most, allowed=ANY)
    if found is None:
        raise LeftOutError(f"no text of {most} characters matches `{pattern}`")
    return text(found.text, found.max_bytes)


def string(limits: Limits, asked: Asked, *, otherwise: str = "^.*$", limit: int | None = None) -> Shape:
    """A string by its rules. Raises LeftOutError if they leave none.

    otherwise: an expression for one without a pattern. limit: its characters at most; None for that of strings.
    """
    rules = asked.rules.string if asked.rules.WhichOneof("type") == "string" else validate.StringRules()
    named = [rules.const] if rules.HasField("const") else list(getattr(rules, "in"))
    if named:
        return _one_of([each for each in dict.fromkeys(named) if each not in rules.not_in])
    exact = [getattr(rules, name) for name in ("len", "len_bytes") if rules.HasField(name)]
    least = max([*exact, rules.min_len, rules.min_bytes, int(asked.nonzero)])
    most = [*exact, *(getattr(rules, name) for name in ("max_len", "max_bytes") if rules.HasField(name))]
    low, high = span(least, min(most, default=None), limit=limit or limits.string_chars, limits=limits)
    in_bytes = any(rules.HasField(name) for name in ("len_bytes", "min_bytes", "max_bytes"))
    for pattern in (expression(rules), otherwise):
        found = pattern and bounded(
            pattern, low=low, high=high, most=min(most, default=None), allowed=ASCII if in_bytes else ANY
        )
        if found:
            return text(found.text, found.max_bytes)
    raise LeftOutError("its rules leave no text")


def expression(rules: validate.StringRules) -> str:
    """The expression that the rules amount to; empty if they state none."""
    if rules.pattern:
        return rules.pattern
    known = rules.WhichOneof("well_known") or ""
    if known in FORMATS:
        return f"^{FORMATS[known]}$"
    if not (rules.prefix or rules.contains or rules.suffix):
        return ""
    inside = f"{re.escape(rules.contains)}.*" if rules.contains else ""
    return f"^{re.escape(rules.prefix)}.*{inside}{re.escape(rules.suffix)}$"


def _one_of(values: list[str]) -> Shape:
    if not values:
        raise LeftOutError("its rules leave no value")
    return choice(values)


def base64_text(limits: Limits, asked: Asked) -> Shape:
    """Bytes by their rules: threes, which need no padding, unless a length says otherwise. Raises like `string`."""
    rules = asked.rules.bytes if asked.rules.WhichOneof("type") == "bytes" else validate.BytesRules()
    named = [rules.const] if rules.HasField("const") else list(getattr(rules, "in"))
    if named:
        kept = [each for each in dict.fromkeys(named) if each not in rules.not_in]
        return _one_of([base64.b64encode(each).decode() for each in kept])
    known = BYTES_FORMATS.get(rules.WhichOneof("well_known") or "")
    exact = [rules.len] if rules.HasField("len") else [] if known is None else [known]
    least = max([*exact, rules.min_len, int(asked.nonzero)])
    most = [*exact, *([rules.max_len] if rules.HasField("max_len") else [])]
    low, high = span(least, min(most, default=None), limit=limits.data_bytes, limits=limits)
    fewest, groups = -(-low // 3), high // 3
    if fewest > groups:
        return text(f"{repeated(THREE, groups, groups)}{TAILS[high % 3]}", 4 * groups + 4)
    return text(repeated(THREE, fewest, groups), 4 * groups)

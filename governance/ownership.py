"""Who owns which protobuf packages.

The ownership file alone says so, never a contract: a tool in a package that
no domain owns, or another domain owns, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import yaml

from governance.document import DocumentError

__all__ = ["PLATFORM_PREFIXES", "Ownership", "OwnershipError", "is_platform", "parse_ownership"]

# Packages that only the platform's own pinned copies may define.
PLATFORM_PREFIXES = ("llmesh", "google", "grpc", "buf")

PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
DOMAIN = re.compile(r"[a-z][a-z0-9_-]{0,62}")


FILE = "ownership.yaml"


class OwnershipError(DocumentError):
    """What is wrong with an ownership file, with the line (from 1)."""

    def __init__(self, message: str, *, line: int) -> None:
        """Say what and where."""
        super().__init__(FILE, line, message)


@dataclass(frozen=True, slots=True)
class Ownership:
    """Package prefix to the domain that owns it."""

    prefixes: Mapping[str, str]

    def domain_of(self, package: str) -> str | None:
        """The domain that owns the package; None if no domain does.

        Whole dotted labels, longest prefix: `acme.support` owns
        `acme.support.v1` and not `acme.supporters`.
        """
        labels = package.split(".")
        for length in range(len(labels), 0, -1):
            domain = self.prefixes.get(".".join(labels[:length]))
            if domain is not None:
                return domain
        return None

    @property
    def domains(self) -> frozenset[str]:
        """Every domain that owns something."""
        return frozenset(self.prefixes.values())


def is_platform(package: str) -> bool:
    """Whether the package is one that only the platform defines."""
    return package.split(".", 1)[0] in PLATFORM_PREFIXES


def parse_ownership(text: str) -> Ownership:
    """The ownership that a file's text states. Raises OwnershipError."""
    try:
        # The stubs leave its result untyped.
        document = cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark
        raise OwnershipError(err.problem or "not YAML", line=mark.line + 1 if mark else 1) from err
    except yaml.YAMLError as err:
        raise OwnershipError("not YAML", line=1) from err
    prefixes: dict[str, str] = {}
    for key, value in _entries(document):
        if key.value != "owners":
            raise OwnershipError(f"unknown key `{key.value}`; the one key is `owners`", line=_line(key))
        prefixes = dict(_owner(prefix, domain) for prefix, domain in _entries(value))
    if not prefixes:
        raise OwnershipError("`owners` names no package", line=1)
    return Ownership(MappingProxyType(prefixes))


def _entries(node: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """A mapping's entries; a key that comes twice is an error, where YAML takes the last."""
    if not isinstance(node, yaml.MappingNode):
        raise OwnershipError("expected `key: value` entries", line=_line(node) if node else 1)
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise OwnershipError("a key must be a plain word", line=_line(key))
        if key.value in seen:
            raise OwnershipError(f"`{key.value}` comes twice", line=_line(key))
        seen.add(key.value)
        yield key, value


def _owner(prefix: yaml.ScalarNode, domain: yaml.Node) -> tuple[str, str]:
    if not PREFIX.fullmatch(prefix.value):
        raise OwnershipError(f"`{prefix.value}` is not a protobuf package", line=_line(prefix))
    if not isinstance(domain, yaml.ScalarNode) or not DOMAIN.fullmatch(domain.value):
        raise OwnershipError(
            f"the owner of `{prefix.value}` must be a domain: lower case letters, digits, `-` and `_`",
            line=_line(domain),
        )
    return prefix.value, domain.value


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1

"""Who owns which protobuf packages.

The ownership file alone says so, never a contract: a tool in a package that
no domain owns, or another domain owns, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field

from llmesh.document import Document, parse_document

__all__ = ["DOMAIN", "PLATFORM", "PLATFORM_PREFIXES", "Ownership", "is_platform", "parse_ownership"]

# The domain of the gateway's own tools, whether or not the file names it.
PLATFORM = "platform"
# Packages that only the platform's own pinned copies may define.
PLATFORM_PREFIXES = ("llmesh", "google", "grpc", "buf")

PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
DOMAIN = re.compile(r"[a-z][a-z0-9_-]{0,62}")


FILE = "ownership.yaml"


def _check_package(name: str) -> str:
    if not PREFIX.fullmatch(name):
        raise ValueError(f"`{name}` is not a protobuf package")
    return name


def _check_domain(name: str) -> str:
    if not DOMAIN.fullmatch(name):
        raise ValueError(f"`{name}` cannot be a domain: use lower case letters, digits, `-` and `_`")
    return name


class OwnershipFile(Document):
    """Who owns which packages."""

    owners: dict[Annotated[str, AfterValidator(_check_package)], Annotated[str, AfterValidator(_check_domain)]] = Field(
        min_length=1,
        description="package -> domain; a package stands for those below it as well, and the longest one wins",
    )


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

    def owner_of(self, service: str) -> str | None:
        """The domain that owns the package of a service; None if no domain does."""
        return self.domain_of(service.rpartition(".")[0])

    @property
    def domains(self) -> frozenset[str]:
        """Every domain that owns something, the platform's among them."""
        return frozenset({*self.prefixes.values(), PLATFORM})


def is_platform(name: str) -> bool:
    """Whether a package, or what is in it, is one that only the platform defines."""
    return name.split(".", 1)[0] in PLATFORM_PREFIXES


def parse_ownership(text: str, *, file: str = "ownership.yaml") -> Ownership:
    """The ownership that a file's text states. Raises DocumentError."""
    return Ownership(MappingProxyType(dict(parse_document(OwnershipFile, text, file=file).owners)))

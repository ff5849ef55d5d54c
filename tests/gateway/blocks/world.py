"""Blocks by hand, kept in a database of the test's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gateway.blocks.blocks import Blocks
from gateway.blocks.store import TABLES, Store
from gateway.blocks.words import Block, CallerId, Kind, Target
from gateway.clock import Clock
from gateway.database import open_database

OPS = CallerId("corp", "pia")


def tool(service: str) -> Target:
    """A tool."""
    return Target(Kind.TOOL, service)


def method(name: str) -> Target:
    """A method, by service/Method."""
    return Target(Kind.METHOD, name)


def domain(name: str) -> Target:
    """A domain."""
    return Target(Kind.DOMAIN, name)


def caller(subject: str, issuer: str = "corp") -> Target:
    """A caller."""
    return Target(Kind.CALLER, subject, issuer)


def block(target: Target, reason: str = "it leaks", *, until_us: int | None = None) -> Block:
    """A block that was never kept."""
    return Block("b1", target, reason, OPS, 1000_000_000, until_us)


def store_in(folder: Path) -> Store:
    """What is kept in a folder."""
    return Store(cache(lambda: open_database(f"sqlite:///{folder}/mesh.db", TABLES)), folder / "blocks.json")


def blocks_in(folder: Path, clock: Clock) -> Blocks:
    """The blocks that a folder keeps."""
    return Blocks(store_in(folder), clock=clock)

"""What can go wrong between message types, schemas and JSON."""

from __future__ import annotations

__all__ = ["BadJson", "LeftOutError", "NoSchemaError", "SchemaError", "SchemaTooLargeError"]


class BadJson(ValueError):  # noqa: N818 named for what it is, like the kinds of llmesh.errors
    """The JSON isn't of the message's type; the message says where and why."""


class SchemaError(ValueError):
    """A message type has no schema that can be used. type_name: the type at fault, which the message names too."""

    def __init__(self, type_name: str, message: str) -> None:
        """Say what is wrong with the type."""
        super().__init__(message)
        self.type_name = type_name


class SchemaTooLargeError(SchemaError):
    """The schema, or the work to make it, would pass the limits."""


class NoSchemaError(SchemaError):
    """No JSON of the type can be asked for: it holds nothing else than what schemas leave out."""


class LeftOutError(Exception):
    """A part of a type that no schema can say. Whoever can do without it leaves it out."""

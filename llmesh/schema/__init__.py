"""A message type as a JSON Schema, and JSON text as a message.

For whoever writes JSON that must become a message: a model whose decoding the
schema constrains, a client of MCP, a caller of tools. What an instance of the
schema says is read back by `read_text`, whatever wrote it. Pure: descriptors
and text in, values out. docs/schemas.md has the rules, type by type.

One message passes so: `messages` walks its descriptor, field by field; `rules`
says what the contract asks of each; `numbers`, `strings`, `known` make the leaves;
`shape` puts the parts together and counts what they cost.
"""

from llmesh.schema.errors import BadJson, NoSchemaError, SchemaError, SchemaTooLargeError
from llmesh.schema.limits import Limits
from llmesh.schema.messages import Schema, schema_of
from llmesh.schema.reading import read_text, read_value

__all__ = [
    "BadJson",
    "Limits",
    "NoSchemaError",
    "Schema",
    "SchemaError",
    "SchemaTooLargeError",
    "read_text",
    "read_value",
    "schema_of",
]

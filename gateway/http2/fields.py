"""Header fields as they are sent and as they are read, without any memory of those before (RFC 7541). Pure.

Neither side keeps a table of what it has sent: we do not, and tell the other side that it may not. So no answer can
change how another is read, and what nobody wants need not be read at all. The table that everybody has and the code of
Huffman are hpack's; its own decoder takes several times as long for the two blocks of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from hpack import HPACKError
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE
from hpack.table import HeaderTable

from gateway.http2.frames import PeerError, Reason

__all__ = ["EMPTY_TABLE", "FIELDS_MAX_BYTES", "Fields", "block_of", "read", "request_block"]

Fields = Mapping[bytes, bytes]
"""Of a name that comes twice, the last."""

# Those of one answer: as it is sent, and as it is read, where each counts for 32 bytes more. Envoy passes on 60 KiB.
FIELDS_MAX_BYTES = 1 << 17
_FIELD_BYTES = 32
# From now on the sender's table has no room (RFC 7541, 6.3): right whatever the reader allows.
EMPTY_TABLE = b"\x20"
# `:method: POST` and `:scheme: http`, of the table that every reader has (RFC 7541, appendix A).
_POST_HTTP = b"\x83\x86"
# How a field begins: with its place in the table; or with its name or that one's place, and then its value, which is to
# be kept for later or not. Or it is no field, but the size of the table of those that are kept.
_INDEXED, _KEPT, _SIZE = 0x80, 0x40, 0x20
_LENGTH_MAX = 0x7F
_INTEGER_MAX_BYTES = 5
_PATHS = 4096
_TABLE = HeaderTable.STATIC_TABLE
# Blocks and texts that come again and again, as sent: no longer ones than these, and no more of them, are kept as read.
_SHORT_BYTES, _SHORT_KEPT = 24, 1024


def block_of(fields: Iterable[tuple[str, str | bytes]]) -> bytes:
    """These fields, each written out. Raises ValueError for text that is not ASCII."""
    made = bytearray()
    for name, value in fields:
        key, data = name.encode("ascii"), value.encode("ascii") if isinstance(value, str) else value
        made += b"\x00" + _length(len(key)) + key + _length(len(data)) + data
    return bytes(made)


def _length(size: int) -> bytes:
    """A length as HPACK has it (RFC 7541, 5.1): without Huffman's code, in seven bits and as many more as it takes."""
    if size < _LENGTH_MAX:
        return bytes((size,))
    made, size = bytearray((_LENGTH_MAX,)), size - _LENGTH_MAX
    while size > _LENGTH_MAX:
        made.append(size & _LENGTH_MAX | 0x80)
        size >>= 7
    made.append(size)
    return bytes(made)


@lru_cache(_PATHS)
def request_block(path: str) -> bytes:
    """The fields with which a gRPC call of a path begins; its metadata's follow."""
    return _POST_HTTP + block_of(
        (
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "llmesh"),
        )
    )


def read(block: bytes) -> Fields:
    """The fields in a block. Raises PeerError."""
    try:
        return _read_short(block) if len(block) <= _SHORT_BYTES else _read(block)
    except (HPACKError, IndexError) as err:
        raise PeerError(Reason.COMPRESSION_ERROR, f"header fields that cannot be read: {err}") from err


def _read(block: bytes) -> Fields:
    found, at, size = dict[bytes, bytes](), 0, 0
    while at < len(block):
        begins = block[at]
        if begins & _INDEXED:
            index, at = _integer(block, at, 0x7F)
            name, value = _listed(index)
        elif not begins & _KEPT and begins & _SIZE:
            table_bytes, at = _integer(block, at, 0x1F)
            if found or table_bytes:
                raise HPACKError("a table, though none may be kept")
            continue
        else:
            index, at = _integer(block, at, 0x3F if begins & _KEPT else 0x0F)
            if index:
                name = _listed(index)[0]
            else:
                name, at = _text(block, at)
            value, at = _text(block, at)
        size += _FIELD_BYTES + len(name) + len(value)
        if size > FIELDS_MAX_BYTES:
            raise HPACKError(f"they have more than {FIELDS_MAX_BYTES} bytes")
        found[name] = value
    return found


_read_short = lru_cache(_SHORT_KEPT)(_read)


def _listed(index: int) -> tuple[bytes, bytes]:
    """The field at a place of the table that everybody has; there is no other."""
    if not 1 <= index <= len(_TABLE):
        raise HPACKError("a field that is in no table")
    return _TABLE[index - 1]


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """The number that begins in the low bits of a byte, and where it ends. Raises IndexError, HPACKError."""
    value, at = block[at] & mask, at + 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _INTEGER_MAX_BYTES, 7):
        byte = block[at]
        value, at = value + ((byte & 0x7F) << shift), at + 1
        if byte < 0x80:  # noqa: PLR2004 the bit that says that there is more
            return value, at
    raise HPACKError("a number without an end")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    size, at = _integer(block, at, 0x7F)
    text, at = block[at : at + size], at + size
    if len(text) != size:
        raise HPACKError("a text without an end")
    if not coded:
        return text, at
    return (_decode_short if size <= _SHORT_BYTES else _decode)(text), at


class _Steps(dict[int, tuple[int, bytes, bool]]):
    """Huffman's code, a byte for a step: where it leads, what it says, and whether a text may end there.

    By where the bytes before have led, and the byte. Each is made once, when it is needed: hpack's table takes half a
    byte for a step, and so several times as long.
    """

    def __missing__(self, key: int) -> tuple[int, bytes, bool]:
        state, flags, said = key >> 8, 0, bytearray()
        for half in (key >> 4 & 0xF, key & 0xF):
            state, flags, symbol = HUFFMAN_TABLE[state << 4 | half]
            if flags & HUFFMAN_FAIL:
                raise HPACKError("a text that is not in Huffman's code")
            if flags & HUFFMAN_EMIT_SYMBOL:
                said.append(symbol)
        self[key] = step = state << 8, bytes(said), bool(flags & HUFFMAN_COMPLETE)
        return step


_STEPS = _Steps()


def _decode(text: bytes) -> bytes:
    state, may_end, made = 0, True, bytearray()
    for byte in text:
        state, said, may_end = _STEPS[state | byte]
        made += said
    if not may_end:
        raise HPACKError("a text that ends in the middle of Huffman's code")
    return bytes(made)


_decode_short = lru_cache(_SHORT_KEPT)(_decode)

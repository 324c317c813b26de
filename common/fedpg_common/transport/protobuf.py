"""Where the fields of a serialized message lie, without parsing it: what to parse can be decided before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

FIELDS_MAX = 64
"""At one level of a message; none of the contract has half as many. Each costs time to look at."""
_VARINT, _I64, _LEN, _START, _END, _I32 = range(6)
"""Wire types (protobuf.dev/programming-guides/encoding)."""
_VARINT_BYTES_MAX = 10


class TooManyFieldsError(DecodeError):
    """There are more than `FIELDS_MAX`."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    start: int
    """Where its tag begins."""
    content: int
    """Where its value begins."""
    end: int
    is_nested: bool
    """Whether the value is of a given length: bytes, a text, a message, or packed numbers."""


def protobuf_fields(message: memoryview) -> Iterator[Field]:
    """The fields in their order; those of a group stand beside it.

    Raises DecodeError if one is cut, TooManyFieldsError.
    """
    at = 0
    for _ in range(FIELDS_MAX):
        if at == len(message):
            return
        start = at
        tag, at = _varint(message, at)
        content, kind = at, tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _LEN:
            length, content = _varint(message, at)
            at = content + length
        elif kind in (_I64, _I32):
            at += 8 if kind == _I64 else 4
        elif kind not in (_START, _END):
            raise DecodeError("a field of no known kind")
        if at > len(message):
            raise DecodeError("a field that is cut")
        yield Field(tag >> 3, start, content, at, kind == _LEN)
    if at < len(message):
        raise TooManyFieldsError(f"more than {FIELDS_MAX} fields")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise DecodeError("a number that is cut or too long")

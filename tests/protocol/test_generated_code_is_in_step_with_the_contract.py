"""The Python of the contract is what its .proto files generate, and every call and field in them says what it means."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc  # type: ignore[import-untyped]

PROTO = Path(__file__).parents[2] / "proto"
SOURCES = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("fedpg/v1/*.proto"))


def test_the_generated_code_is_in_step() -> None:
    check = [sys.executable, str(PROTO / "generate.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def parts_of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Path and name of every call, field and enum value, as protoc numbers them in its source information."""
    for s, service in enumerate(file.service):
        yield from (((6, s, 2, m), f"{service.name}.{method.name}") for m, method in enumerate(service.method))
    for e, enum in enumerate(file.enum_type):
        yield from (((5, e, 2, v), value.name) for v, value in enumerate(enum.value))
    for m, message in enumerate(file.message_type):
        yield from (((4, m, 2, f), f"{message.name}.{field.name}") for f, field in enumerate(message.field))
        for e, enum in enumerate(message.enum_type):
            yield from (((4, m, 4, e, 2, v), value.name) for v, value in enumerate(enum.value))


@pytest.mark.parametrize("source", SOURCES)
def test_every_call_field_and_value_is_documented(tmp_path: Path, source: str) -> None:
    out = tmp_path / "descriptors"
    assert protoc.main(["protoc", f"-I{PROTO}", "--include_source_info", f"--descriptor_set_out={out}", source]) == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    documented = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip() or location.trailing_comments.strip()
    }
    assert [name for path, name in parts_of(file) if path not in documented] == []

"""The protocol as files, for tools that are no Python: ``.proto`` for Postman, a descriptor set for grpcurl.

Triton has no server reflection, so such a tool must be told what it speaks. The published files are those of
triton-inference-server/common, folder ``protobuf``. tritonclient is generated from them and carries their descriptors;
here these are written down as ``.proto`` again: the same messages, without the comments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labsupport.workspace import atomic_bytes, atomic_text

PROTOSET = "triton.protoset"
METHOD = "inference.GRPCInferenceService/ModelStreamInfer"
_SCALARS = ("", "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "",
            "bytes", "uint32", "", "sfixed32", "sfixed64", "sint32", "sint64")  # fmt: skip  # by number of the type
_REPEATED = 3


def write_protos(folder: Path) -> list[Path]:
    """Write ``grpc_service.proto``, what it imports, and ``triton.protoset`` (all in one, binary) into ``folder``.

    Returns:
        The files, the service first.
    """
    from google.protobuf import descriptor_pb2
    from tritonclient.grpc import model_config_pb2, service_pb2

    folder.mkdir(parents=True, exist_ok=True)
    made, both = [], descriptor_pb2.FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):  # what is imported comes first in a set
        file = both.file.add()
        module.DESCRIPTOR.CopyToProto(file)
        made.append(folder / file.name)
        atomic_text(made[-1], "\n".join(_file(file)) + "\n")
    made.append(folder / PROTOSET)
    atomic_bytes(made[-1], both.SerializeToString())
    return [made[1], made[0], made[2]]


def _file(file: Any) -> Iterator[str]:
    yield 'syntax = "proto3";'
    yield f"package {file.package};"
    yield from (f'import "{name}";' for name in file.dependency)
    for kind in file.enum_type:
        yield from _enum(kind, "")
    for message in file.message_type:
        yield from _message(message, "")
    for service in file.service:
        yield f"\nservice {service.name} {{"
        for method in service.method:
            asks, answers = (
                ("stream " if streams else "") + name
                for name, streams in (
                    (method.input_type, method.client_streaming),
                    (method.output_type, method.server_streaming),
                )
            )
            yield f"  rpc {method.name}({asks}) returns ({answers});"
        yield "}"


def _message(message: Any, margin: str) -> Iterator[str]:
    maps = {one.name: one for one in message.nested_type if one.options.map_entry}
    yield f"\n{margin}message {message.name} {{"
    inside = margin + "  "
    for kind in message.enum_type:
        yield from _enum(kind, inside)
    for nested in message.nested_type:
        if nested.name not in maps:
            yield from _message(nested, inside)
    open_group = -1
    for field in message.field:
        group = field.oneof_index if field.HasField("oneof_index") and not field.proto3_optional else -1
        if group != open_group:
            if open_group >= 0:
                yield f"{inside}}}"
            if group >= 0:
                yield f"{inside}oneof {message.oneof_decl[group].name} {{"
            open_group = group
        yield f"{inside}{'  ' if group >= 0 else ''}{_field(field, maps)}"
    if open_group >= 0:
        yield f"{inside}}}"
    yield f"{margin}}}"


def _field(field: Any, maps: dict[str, Any]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2]) if field.type_name else None
    if entry:
        kind = f"map<{_kind(entry.field[0])}, {_kind(entry.field[1])}>"
    else:
        label = "repeated " if field.label == _REPEATED else "optional " if field.proto3_optional else ""
        kind = label + _kind(field)
    return f"{kind} {field.name} = {field.number};"


def _kind(field: Any) -> str:
    return str(field.type_name or _SCALARS[field.type])


def _enum(kind: Any, margin: str) -> Iterator[str]:
    yield f"\n{margin}enum {kind.name} {{"
    yield from (f"{margin}  {value.name} = {value.number};" for value in kind.value)
    yield f"{margin}}}"

"""Frozen dataclasses to and from JSON, checked against their own type hints; and the JSON Schema of them.

Understood as a field's type: str, int, bool, `X | None`, `tuple[X, ...]` and another dataclass. A field with a default
may be left out of the JSON; a key that is no field is refused, or ignored where a newer release may have sent it.
Standard library only.
"""

from __future__ import annotations

import dataclasses
import types
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cornerstone.model.error import CornerstoneError

Record = TypeVar("Record")

_NAMES = {str: "text", int: "a whole number", bool: "true or false"}
_SCHEMA = {str: "string", int: "integer", bool: "boolean"}


def from_record(kind: type[Record], data: Any, source: str, *, ignore_unknown: bool = False) -> Record:
    """Read the dataclass kind from parsed JSON. CornerstoneError with source and the value's path: .disks[2].size.

    ignore_unknown: for messages, whose sender may be of a newer release; a key that is no field is an error else.
    """
    return _read(kind, _without_unknown(kind, data) if ignore_unknown else data, source, "")


def to_record(value: Any) -> Any:
    """A dataclass as dicts, lists and scalars, every field written out, in the order of definition."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_record(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [to_record(item) for item in value] if isinstance(value, tuple) else value


def schema_of(kind: type) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a dataclass; the docstrings are the descriptions."""
    definitions: dict[str, Any] = {}
    top = _schema(kind, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": definitions}


@cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Each field's type, and whether it has to be there."""
    hints = get_type_hints(kind)
    return {field.name: (hints[field.name], field.default is dataclasses.MISSING
                         and field.default_factory is dataclasses.MISSING) for field in dataclasses.fields(kind)}


def _optional(kind: Any) -> Any:
    """X of `X | None`; None for any other type."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(inner for inner in get_args(kind) if inner is not type(None))
    return None


def _without_unknown(kind: Any, data: Any) -> Any:
    """Return parsed JSON without the keys that are no fields of the dataclass kind, at any depth."""
    kind = _optional(kind) or kind
    if get_origin(kind) is tuple and isinstance(data, list):
        return [_without_unknown(get_args(kind)[0], item) for item in data]
    if dataclasses.is_dataclass(kind) and isinstance(data, dict):
        fields = _fields(kind)
        return {key: _without_unknown(fields[key][0], value) for key, value in data.items() if key in fields}
    return data


def _read(kind: Any, data: Any, source: str, path: str) -> Any:
    if (inner := _optional(kind)) is not None:
        return None if data is None else _read(inner, data, source, path)
    if get_origin(kind) is tuple:
        if not isinstance(data, list):
            raise _wrong(source, path, "a list", data)
        return tuple(_read(get_args(kind)[0], item, source, f"{path}[{number}]") for number, item in enumerate(data))
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, data, source, path)
    # bool is an int to Python, not to us
    if type(data) is not kind:
        raise _wrong(source, path, _NAMES[kind], data)
    return data


def _read_fields(kind: Any, data: Any, source: str, path: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(source, path, "an object", data)
    fields = _fields(kind)
    for key in data:
        if key not in fields:
            raise CornerstoneError(f"{source}: {path}.{key} is unknown", f"known here are {', '.join(fields)}")
    for name, (_, required) in fields.items():
        if required and name not in data:
            raise CornerstoneError(f"{source}: {path}.{name} is missing", "add it")
    return kind(**{key: _read(fields[key][0], value, source, f"{path}.{key}") for key, value in data.items()})


def _wrong(source: str, path: str, wanted: str, data: Any) -> CornerstoneError:
    return CornerstoneError(f"{source}: {path or '.'} has to be {wanted}, not {data!r:.60}", "correct it there")


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if (inner := _optional(kind)) is not None:
        return {"anyOf": [_schema(inner, definitions), {"type": "null"}]}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _schema(get_args(kind)[0], definitions)}
    if not dataclasses.is_dataclass(kind):
        return {"type": _SCHEMA[kind]}
    if kind.__name__ not in definitions:
        fields = _fields(kind)
        definitions[kind.__name__] = {
            "description": " ".join((kind.__doc__ or "").split()), "type": "object", "additionalProperties": False,
            "properties": {name: _schema(inner, definitions) for name, (inner, _) in fields.items()},
            "required": [name for name, (_, required) in fields.items() if required]}
    return {"$ref": f"#/$defs/{kind.__name__}"}

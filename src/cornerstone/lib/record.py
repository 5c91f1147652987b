"""Frozen dataclasses to and from JSON, checked against their own type hints; and the JSON Schema of them.

Understood as a field's type: str, int, bool, `X | None`, `tuple[X, ...]` and another dataclass. A field with a default
may be left out of the JSON; a key that is no field is refused. Annotated[int, Within(0, 9)] bounds a number, and the
same of a tuple how many entries it may have; without it WHOLE and LIST do. Standard library only.
"""

from __future__ import annotations

import dataclasses
import types
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import MOST, read_json
from cornerstone.lib.printable import LONGEST, printable, quoted

Record = TypeVar("Record")

_NAMES = {str: "text", int: "a whole number", bool: "true or false"}
_SCHEMA = {str: "string", bool: "boolean"}


@dataclasses.dataclass(frozen=True)
class Within:
    """Bounds of a number, or of the number of entries in a list; both are allowed values."""

    lowest: int
    highest: int

    def __str__(self) -> str:
        return f"a whole number from {self.lowest} to {self.highest}"


# what fits everywhere where numbers have 64 bits, with a sign or without
WHOLE = Within(0, 2 ** 63 - 1)
LIST = Within(0, 1 << 16)


def from_record(kind: type[Record], data: Any, source: str, hint: str = "", code: Code = Code.INPUT, *,
                ignore_unknown: bool = False) -> Record:
    """Read the dataclass kind from parsed JSON. ignore_unknown: pass over keys that are no fields.

    Raises CornerstoneError with source and the value's path, as .disks[2].size; hint and code are the error's.
    """
    return _Reader(source, hint, code, ignore_unknown).read(kind, data, "")


def from_json(kind: type[Record], text: bytes | str, source: str, hint: str = "", code: Code = Code.INPUT,
              most: int = MOST, *, ignore_unknown: bool = False) -> Record:
    """Read the dataclass kind from the text of a file or message of at most most bytes.

    Raises CornerstoneError as read_json and from_record do.
    """
    data = read_json(text, source, hint, code, most)
    return from_record(kind, data, source, hint, code, ignore_unknown=ignore_unknown)


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
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: (hints[field.name], field.default is dataclasses.MISSING
                         and field.default_factory is dataclasses.MISSING) for field in dataclasses.fields(kind)}


def _optional(kind: Any) -> Any:
    """X of `X | None`; None for any other type."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(inner for inner in get_args(kind) if inner is not type(None))
    return None


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads values of one source. ignore_unknown: keys that are no fields are passed over, not refused."""

    source: str
    hint: str
    code: Code
    ignore_unknown: bool

    def read(self, kind: Any, data: Any, path: str) -> Any:
        if (inner := _optional(kind)) is not None:
            return None if data is None else self.read(inner, data, path)
        kind, bounds = _bounds(kind)
        if get_origin(kind) is tuple:
            if not isinstance(data, list):
                raise self.wrong(path, "a list", data)
            if len(data) > bounds.highest:
                raise self.error(f"{path or '.'} has {len(data)} entries, and at most {bounds.highest} are read")
            return tuple(self.read(get_args(kind)[0], item, f"{path}[{number}]") for number, item in enumerate(data))
        if dataclasses.is_dataclass(kind):
            return self.read_fields(kind, data, path)
        # bool is an int to Python, not to us
        if type(data) is not kind:
            raise self.wrong(path, _NAMES[kind], data)
        if kind is int and not bounds.lowest <= data <= bounds.highest:
            raise self.wrong(path, str(bounds), data)
        if kind is str and not _is_text(data):
            raise self.wrong(path, "text in Unicode", data)
        return data

    def read_fields(self, kind: Any, data: Any, path: str) -> Any:
        if not isinstance(data, dict):
            raise self.wrong(path, "an object", data)
        fields = _fields(kind)
        for key in () if self.ignore_unknown else data:
            if key not in fields:
                raise CornerstoneError(f"{self.source}: {path}.{printable(key, LONGEST)} is unknown",
                                       self.hint or f"known here are {', '.join(fields)}", self.code)
        for name, (_, required) in fields.items():
            if required and name not in data:
                raise CornerstoneError(f"{self.source}: {path}.{name} is missing", self.hint or "add it", self.code)
        return kind(**{name: self.read(inner, data[name], f"{path}.{name}") for name, (inner, _) in fields.items()
                       if name in data})

    def wrong(self, path: str, wanted: str, data: Any) -> CornerstoneError:
        return self.error(f"{path or '.'} has to be {wanted}, not {quoted(data)}")

    def error(self, problem: str) -> CornerstoneError:
        return CornerstoneError(f"{self.source}: {problem}", self.hint or "correct it there", self.code)


def _bounds(kind: Any) -> tuple[Any, Within]:
    """A type without its annotation, and its bounds."""
    if get_origin(kind) is Annotated:
        return get_args(kind)
    return kind, LIST if get_origin(kind) is tuple else WHOLE


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: a lone surrogate can't."""
    return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if (inner := _optional(kind)) is not None:
        return {"anyOf": [_schema(inner, definitions), {"type": "null"}]}
    kind, bounds = _bounds(kind)
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _schema(get_args(kind)[0], definitions), "maxItems": bounds.highest}
    if kind is int:
        return {"type": "integer", "minimum": bounds.lowest, "maximum": bounds.highest}
    if not dataclasses.is_dataclass(kind):
        return {"type": _SCHEMA[kind]}
    if kind.__name__ not in definitions:
        fields = _fields(kind)
        definitions[kind.__name__] = {
            "description": " ".join((kind.__doc__ or "").split()), "type": "object", "additionalProperties": False,
            "properties": {name: _schema(inner, definitions) for name, (inner, _) in fields.items()},
            "required": [name for name, (_, required) in fields.items() if required]}
    return {"$ref": f"#/$defs/{kind.__name__}"}

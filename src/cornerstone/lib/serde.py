"""Frozen dataclasses to and from JSON, checked against their own type hints; formats with versions; JSON Schemas.

Understood as a field's type: str, int, bool, `X | None`, `tuple[X, ...]` and another dataclass. A field with a default
may be left out of the JSON; a key that is no field is refused. Annotated[int, Within(0, 9)] bounds a number, and the
same of a tuple how many entries it may have; without it WHOLE and LIST do. Standard library only.

A Format is a file or message that one release writes and another reads. Its version is the major one: a field that is
only added, with a default, keeps it. What must not be ignored by who doesn't know it, above all what forbids something,
takes another version, or in a message another action.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

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


Step = Callable[[dict[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Format(Generic[Record]):
    """A file, or a message, of the dataclass kind, whose version stands in key. writer, reader: for docs/formats.md.

    version: the one that is written; what says none is of version 1. floor: the oldest that is read. steps: what makes
    the fields of a version to those of the next, where that isn't nothing. hint: how to mend what can't be read; newer:
    what to do about a file of a newer version, with newer_code. code, most: as from_json has them.
    """

    name: str
    kind: type[Record]
    writer: str
    reader: str
    version: int = 1
    floor: int = 1
    message: bool = False
    key: str = "version"
    hint: str = ""
    newer: str = ""
    code: Code = Code.INPUT
    newer_code: Code = Code.REFUSED
    most: int = MOST
    steps: Mapping[int, Step] = dataclasses.field(default_factory=dict)

    def write(self, value: Record) -> dict[str, Any]:
        """Return a value as dicts, lists and scalars, with this release's version."""
        record = to_record(value)
        return record | {self.key: self.version} if self.key in record else {self.key: self.version, **record}

    def read(self, content: bytes | str, source: str = "") -> Record:
        """Read the text of the file or message. Raises CornerstoneError as parse does, and when it isn't JSON."""
        source = source or self.name
        return self.parse(read_json(content, source, self.hint, self.code, self.most), source)

    def parse(self, data: Any, source: str = "") -> Record:
        """Read parsed JSON; fields that aren't known are ignored.

        Raises CornerstoneError, with source and the value's path, for what doesn't fit, and as upgrade does.
        """
        source, hint = source or self.name, self.hint
        if self.message and self._is_newer(data):
            hint = f"it comes from a newer release: update the side that reads it, {self.reader}"
        return from_record(self.kind, self.upgrade(data, source), source, hint, self.code, ignore_unknown=True)

    def upgrade(self, data: Any, source: str = "") -> Any:
        """Return the fields of parsed JSON as this version has them; what is no object is returned as it is.

        Raises CornerstoneError for a version below the floor, and for a file's that is newer than this release's.
        """
        if not isinstance(data, dict):
            return data
        source, version = source or self.name, data.get(self.key, 1)
        if type(version) is not int or version < 1:
            raise CornerstoneError(f"{source}: .{self.key} has to be a whole number from 1 on, not {quoted(version)}",
                                   self.hint or "correct it there", self.code)
        if version < self.floor:
            raise CornerstoneError(f"{source} has version {version}, and this release reads from {self.floor} on",
                                   f"update the side that writes it, {self.writer}", self.newer_code)
        if version > self.version and not self.message:
            raise CornerstoneError(f"{source} has version {version}, and this release reads up to {self.version}",
                                   self.newer or "use the release that wrote it, or a newer one", self.newer_code)
        for number in range(version, self.version):
            data = self.steps.get(number, dict)(data)
        return data | {self.key: self.version} if version < self.version else data

    def _is_newer(self, data: Any) -> bool:
        version = data.get(self.key) if isinstance(data, dict) else None
        return type(version) is int and version > self.version


def outline(kind: Any, path: str = "", missing: str = "") -> Iterator[tuple[str, str]]:
    """Return each value of a dataclass by its path, as .disks[].size, with its type in words; "?": may be missing."""
    inner = _optional(kind)
    words = f"{' or null' if inner is not None else ''}{missing}"
    plain, _ = _bounds(kind if inner is None else inner)
    if get_origin(plain) is tuple:
        yield path, f"a list{words}"
        yield from outline(get_args(plain)[0], f"{path}[]")
    elif dataclasses.is_dataclass(plain):
        if path:
            yield path, f"an object{words}"
        for name, (field, required) in _fields(plain).items():
            yield from outline(field, f"{path}.{name}", "" if required else "?")
    else:
        yield path, f"{_NAMES.get(plain, plain.__name__)}{words}"


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
            "description": " ".join((kind.__doc__ or "").split()), "type": "object",
            "properties": {name: _schema(inner, definitions) for name, (inner, _) in fields.items()},
            "required": [name for name, (_, required) in fields.items() if required]}
    return {"$ref": f"#/$defs/{kind.__name__}"}

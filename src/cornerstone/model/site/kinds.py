"""Kinds of values in a site file: how each is read, normalised and described in the JSON Schema.

A kind's `read` takes a value and its path, notes what is wrong, and returns the normalised JSON value; None when
nothing usable is left. It goes on after a mistake, so that one look finds all of them. Standard library only.
"""

from __future__ import annotations

import difflib
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cornerstone.lib.printable import printable, shown
from cornerstone.model.contracts import network

Schema = dict[str, Any]

# how many problems, and how many warnings, are told of one file
MOST_TOLD = 50
# how alike an unknown key and a known one are for the known one to be suggested
ALIKE = 0.7
LONGEST_PATH, LONGEST_REASON, LONGEST_KEY = 200, 400, 60
# keys that only the API of Foundation Central has
CENTRAL = frozenset((
    "aos_package_url", "aos_package_sha256sum", "nos_package_url", "nos_package_sha256sum", "hypervisor_iso_details",
    "hypervisor_isos", "hypervisor_iso_url", "hypervisor_iso_sha256sum", "common_network_settings", "nodes_list",
    "cluster_size", "storage_node_count", "skip_cluster_creation", "fc_metadata", "imaged_node_uuid",
    "imaged_node_uuid_list", "imaged_cluster_uuid", "fc_imaged_node_uuid", "use_existing_network_settings",
    "cluster_status", "api_key_uuid"))
NOTHING: Schema = {"anyOf": [
    {"enum": [None, False, 0, ""]}, {"type": "array", "items": {"$ref": "#/$defs/nothing"}},
    {"type": "object", "additionalProperties": {"$ref": "#/$defs/nothing"}}]}
"""The schema of what asks_nothing says yes to; referred to as $defs/nothing."""


def asks_nothing(value: Any) -> bool:
    """Whether a value asks for nothing: null, false, 0, "", and lists and objects that hold nothing else."""
    if isinstance(value, dict):
        return all(map(asks_nothing, value.values()))
    return all(map(asks_nothing, value)) if isinstance(value, list) else not value


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a site file: path as .blocks[0].nodes[1].cvm_ip, the reason, and how to mend it."""

    path: str
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"{self.path or 'the file'}: {self.reason}"


@dataclass
class Notes:
    """What was found while reading: problems, which refuse the file, and warnings, which don't.

    The first MOST_TOLD of each are kept; more: how many problems there are beyond; central: it was told
    that a key is Foundation Central's. unread: paths of fields that are in
    the file and couldn't be read, so that nothing else is said to be wrong because they are missing.
    """

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    more: int = 0
    central: bool = False
    unread: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """How many problems there are."""
        return len(self.problems) + self.more

    def wrong(self, path: str, reason: str, hint: str) -> None:
        """Note a problem; returns None, which is what a kind returns then."""
        if len(self.problems) < MOST_TOLD:
            self.problems.append(_problem(path, reason, hint))
        else:
            self.more += 1

    def of_central(self, path: str) -> None:
        """Note, once for a file, that a key is of another API."""
        if not self.central:
            self.wrong(path, "is of Foundation Central's format, which isn't read here",
                       "write the body of Foundation's own image_nodes: docs/site.md")
        self.central = True

    def warn(self, path: str, reason: str, hint: str) -> None:
        """Note something that the person should know."""
        if len(self.warnings) < MOST_TOLD:
            self.warnings.append(_problem(path, reason, hint))


def _problem(path: str, reason: str, hint: str) -> Problem:
    return Problem(printable(path, LONGEST_PATH), printable(reason, LONGEST_REASON), printable(hint, LONGEST_REASON))


Read = Callable[[Any, str, Notes], Any]


@dataclass(frozen=True)
class Kind:
    """How a value is read, and its JSON Schema. empty: whether a value means the same as a field left out."""

    read: Read
    schema: Schema
    empty: Callable[[Any], bool] = operator.not_


@dataclass(frozen=True)
class Field:
    """A field of the file: its kind; about: what it does, or why it is refused. secret: never shown or logged.

    status: accepted, refused (unless its value asks for nothing) or ignored (with a warning).
    """

    kind: Kind
    about: str
    required: bool = False
    secret: bool = False
    status: str = "accepted"


Fields = Mapping[str, Field]


def text(check: Callable[[str], str | None] = lambda value: None, hint: str = "give a text", *, pattern: str = "",
         longest: int = 1024, secret: bool = False) -> Kind:
    """A text on one line. check returns the reason against it as a clause; pattern: the whole text's."""
    def read(value: Any, path: str, notes: Notes) -> str | None:
        name = "the value" if secret else shown(value)
        if not isinstance(value, str):
            return notes.wrong(path, f"{name} isn't a text", f"{hint}, in quotes")
        if not value.strip() or value != value.strip() or not value.isprintable():
            return notes.wrong(path, f"{name} is empty, has spaces around it or characters that don't print", hint)
        if len(value) > longest:
            return notes.wrong(path, f"{name} has {len(value)} characters", f"at most {longest}")
        if pattern and not re.fullmatch(pattern, value):
            return notes.wrong(path, f"{name} doesn't fit", hint)
        if reason := check(value):
            return notes.wrong(path, f"{name} {reason}", hint)
        return value
    return Kind(read, {"type": "string", "maxLength": longest,
                       **({"pattern": f"^(?:{pattern})$"} if pattern else {})})


def converted(convert: Callable[[str], Any], hint: str, **schema: Any) -> Kind:
    """A text that convert reads, whose str() is its normalised form; ValueError has the reason as a clause."""
    def read(value: Any, path: str, notes: Notes) -> str | None:
        try:
            if not isinstance(value, str):
                raise ValueError("isn't a text")
            return str(convert(value))
        except ValueError as error:
            return notes.wrong(path, f"{shown(value)} {error}", hint)
    return Kind(read, {"type": "string", **schema})


def _netmask(value: str) -> str:
    network.netmask(value)
    return value


IPV4 = converted(network.address, "write four numbers with dots: 10.20.0.11", format="ipv4")
NETMASK = converted(_netmask, "write it in dots: 255.255.255.0", format="ipv4")
MAC = converted(network.mac, "write six pairs of hexadecimal digits: 52:54:00:12:34:56",
                pattern="^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$")
HOST_NAME = text(lambda value: None if network.is_host_name(value) else "isn't a host name",
                 "letters, digits and dashes, as RFC 1123 says: node-1", longest=64)


def _boolean(value: Any, path: str, notes: Notes) -> bool | None:
    if value == 0 and isinstance(value, int):
        return False
    if not isinstance(value, bool):
        return notes.wrong(path, f"{shown(value)} isn't true or false", "write true or false, without quotes")
    return value


# false is a wish, and 0 is how some clients write it
BOOLEAN = Kind(_boolean, {"type": "boolean"}, lambda value: not value and not isinstance(value, int))


def number(lowest: int, highest: int) -> Kind:
    """A whole number within bounds."""
    def read(value: Any, path: str, notes: Notes) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return notes.wrong(path, f"{shown(value)} isn't a whole number", "write digits, without quotes")
        if not lowest <= value <= highest:
            return notes.wrong(path, f"{shown(value)} is out of range", f"from {lowest} to {highest}")
        return value
    return Kind(read, {"type": "integer", "minimum": lowest, "maximum": highest},
                lambda value: not value and not (lowest <= 0 and type(value) is int))


def choice(*allowed: Any, why_not: Mapping[str, str] | None = None) -> Kind:
    """One of some values. why_not: known values that are refused, with the reason."""
    listed = ", ".join(json.dumps(each) for each in allowed)

    def read(value: Any, path: str, notes: Notes) -> Any:
        if isinstance(value, str) and value in (why_not or {}):
            return notes.wrong(path, f"'{value}' is refused: {why_not[value]}", f"write {listed}, or leave it out")
        # 1 == True in Python, but not in JSON
        if not any(value == each and type(value) is type(each) for each in allowed):
            return notes.wrong(path, f"{shown(value)} isn't one of {listed}", f"write {listed}")
        return value
    return Kind(read, {"enum": list(allowed)})


def many(kind: Kind, least: int = 1, most: int = 256) -> Kind:
    """A list; of texts, without repetitions."""
    def read(value: Any, path: str, notes: Notes) -> list[Any] | None:
        if not isinstance(value, list):
            return notes.wrong(path, f"{shown(value)} isn't a list", "write it as [a, b]")
        if not least <= len(value) <= most:
            notes.wrong(path, f"has {len(value)} entries", f"from {least} to {most}")
        found = [kind.read(each, f"{path}[{index}]", notes) for index, each in enumerate(value[:most])]
        seen: set[Any] = set()
        twice = False
        for index, each in enumerate(found):
            if isinstance(each, str) and each in seen:
                notes.wrong(f"{path}[{index}]", f"{shown(each)} is there twice", "keep one of the two")
                twice = True
            elif isinstance(each, str):
                seen.add(each)
        return None if twice or None in found else found
    return Kind(read, {"type": "array", "items": kind.schema, "minItems": least, "maxItems": most})


def comma_list(kind: Kind) -> Kind:
    """Several texts in one, with commas, as Foundation has them on the wire."""
    def read(value: Any, path: str, notes: Notes) -> str | None:
        if not isinstance(value, str):
            return notes.wrong(path, f"{shown(value)} isn't a text", 'write one text, with commas: "a,b"')
        found = many(kind, 0, 8).read([part.strip() for part in value.split(",")] if value.strip() else [], path, notes)
        return ",".join(found) if found else None
    return Kind(read, {"type": "string"})


def record(fields: Fields, require: Callable[[dict, str, Notes], None] = lambda value, path, notes: None,
           told: Mapping[str, str] = {}) -> Kind:
    """An object of known fields. require: checks of its fields together; told: keys without effect, each with why."""
    def read(value: Any, path: str, notes: Notes) -> dict[str, Any]:
        if not isinstance(value, dict):
            notes.wrong(path, f"{shown(value)} isn't an object", 'write it as {"key": value}')
            return {}  # keeps the place of an object in a list
        for key in sorted(value.keys() - fields.keys()):
            where = f"{path}.{printable(key, LONGEST_KEY)}"
            if key.startswith("ui_"):
                notes.warn(where, "is state of Foundation's own pages and has no effect", "it can be deleted")
            elif key in told:
                notes.warn(where, f"has no effect: {told[key]}", "it can be deleted")
            elif asks_nothing(value[key]):
                notes.warn(where, "is an unknown key, and asks for nothing", _near(key, fields, len(notes.warnings)))
            elif key in CENTRAL:
                notes.of_central(where)
            else:
                notes.wrong(where, "unknown key", _near(key, fields, len(notes.problems)))
        found = {}
        for name, each in fields.items():
            given, before = value.get(name), notes.count
            # in JSON as Foundation's clients write it, an empty value means the same as a key left out
            if given in (None, "") if each.required else each.kind.empty(given):
                if each.required:
                    notes.wrong(f"{path}.{name}", "is missing", f"it is needed: {each.about}")
                continue
            result = each.kind.read(given, f"{path}.{name}", notes)
            if result is not None and (each.required or result != {}):
                found[name] = result
            elif notes.count > before:
                notes.unread.add(f"{path}.{name}")
        require(found, path, notes)
        return found
    return Kind(read, record_schema(fields, told))


def record_schema(fields: Fields, told: Mapping[str, str] = {}) -> Schema:
    """The JSON Schema of an object. An empty value stands for a key left out, where none is required."""
    nothing = {"$ref": "#/$defs/nothing"}
    empty: Schema = {"enum": [None, False, 0, "", [], {}]}
    properties: dict[str, Schema] = {name: {"description": f"no effect: {why}"} for name, why in told.items()}
    for name, each in fields.items():
        schema = each.kind.schema if each.required or not each.kind.schema or each.status == "refused" else {
            "anyOf": [each.kind.schema, empty]}
        properties[name] = {"description": each.about, **schema}
    required = [name for name, each in fields.items() if each.required]
    return {"type": "object", "properties": properties, **({"required": required} if required else {}),
            "patternProperties": {"^ui_": {}}, "additionalProperties": nothing}


def _near(key: str, fields: Fields, told: int) -> str:
    """A hint for an unknown key; the nearest known one only for those that are told."""
    # what is refused is no suggestion, and what is much longer or shorter means something else
    known = [name for name, each in fields.items() if each.status == "accepted" and abs(len(name) - len(key)) <= 2]
    near = difflib.get_close_matches(key, known, 1, ALIKE) if len(key) <= LONGEST_KEY and told < MOST_TOLD else []
    if not near:
        return "delete it; docs/site.md has the fields that are known"
    spelt = ", misspelt as Foundation has it on the wire" if near[0] == "exlude_boot_serial" else ""
    return f"did you mean {near[0]}{spelt}?"


def refused(reason: str, idle: Callable[[Any], bool] = asks_nothing) -> Field:
    """A field that Foundation knows and this factory can't follow. A value that asks for nothing passes.

    idle: other values that ask for nothing, but say something: they are told in a warning.
    """
    def read(value: Any, path: str, notes: Notes) -> None:
        if idle(value):
            notes.warn(path, "has no effect", "it can be deleted")
        else:
            notes.wrong(path, f"is refused: {reason}", "delete it")
    schema = {"$ref": "#/$defs/nothing"} if idle is asks_nothing else {}
    return Field(Kind(read, schema), f"refused unless empty: {reason}", status="refused")


def ignored(reason: str) -> Field:
    """A field that asks for nothing that could be done, or for what happens anyway: told in a warning."""
    def read(value: Any, path: str, notes: Notes) -> None:
        notes.warn(path, f"has no effect: {reason}", "it can be deleted")
    return Field(Kind(read, {}), f"no effect: {reason}", status="ignored")

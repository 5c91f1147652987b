"""YAML files whose every value knows its line, so that an error can say file:line and the path of the value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import DEEPEST, read_bounded
from cornerstone.lib.printable import LONGEST, printable, quoted

MOST = 1 << 20
# with every alias written out
MOST_VALUES = 50_000
_MOST_DIGITS = 40
# by YAML's kind: what shows its meaning
_SPELLINGS = {"str": re.compile(r".*", re.DOTALL), "int": re.compile(rf"-?(0|[1-9][0-9]{{0,{_MOST_DIGITS - 1}}})"),
              "float": re.compile(r"-?[0-9]{1,20}\.[0-9]{1,20}"), "bool": re.compile("true|false"),
              "null": re.compile(r"~|null|")}

Where = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.CSafeLoader):
    """SafeLoader that leaves dates as text: pydantic reads them, so a wrong one is reported with its line."""

    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class Document:
    """A parsed YAML file. label: its name in errors; lines: path to line (from 1); scalars: path to text as written."""

    label: str
    data: dict[str, Any]
    lines: dict[Where, int] = field(default_factory=dict)
    scalars: dict[Where, str] = field(default_factory=dict)

    def at(self, where: Where) -> str:
        """file:line of a value, or of the nearest mapping around it that the file has."""
        while where not in self.lines and where:
            where = where[:-1]
        return f"{self.label}:{self.lines.get(where, 1)}"

    def error(self, where: Where, problem: str, hint: str) -> CornerstoneError:
        """The error for one value: file:line: .dotted.path: problem."""
        return located_error(self.at(where), where, problem, hint)


def located_error(at: str, where: Where, problem: str, hint: str) -> CornerstoneError:
    """The error for a value at file:line."""
    path = f" {dotted(where)}:" if where else ""
    return CornerstoneError(f"{at}:{path} {problem}", hint, Code.INPUT)


def dotted(where: Where) -> str:
    """(controller, memory) as .cvm.memory; (releases, 3) as .releases[3]."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part, LONGEST)}" for part in where)


def did_you_mean(given: str, known: Iterable[str], what: str) -> str:
    """A hint: the nearest of the known names, else all of them."""
    names = list(known)
    near = difflib.get_close_matches(given, names, n=1) if len(given) <= LONGEST else []
    if near:
        return f"did you mean {near[0]}?"
    return f"known {what}: {', '.join(names)}" if names else f"there are no {what}"


def load(path: Path, label: str) -> Document:
    """Read one YAML file that holds a mapping; CornerstoneError when it can't be read or parsed.

    Refused beyond YAML's own rules, because each hides a mistake: a key written twice, a key that isn't text, a key
    without a value, the merge key, tags, numbers and truth values in a spelling that YAML 1.1 reads as something else
    than it shows, and characters that don't print.
    """
    try:
        content = read_bounded(path, MOST)
    except OSError as error:
        raise CornerstoneError(f"{label}: can't be read: {error.strerror}", "check the path and its rights") from None
    if len(content) > MOST:
        raise CornerstoneError(f"{label}: has more than {MOST >> 10} KiB", "give the file that is meant")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise CornerstoneError(f"{label}:{line}: isn't UTF-8 text", "save the file as UTF-8") from None
    document = Document(label, {})
    try:
        _check_depth(text, label)
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise CornerstoneError(f"{label}:1: isn't a mapping of keys to values", "write it as lines of key: value")
        _walk(node, (), document, ())
        document.data.update(loader.construct_document(node))
    except yaml.YAMLError as error:
        raise _malformed(error, text, label) from None
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
        # a tag before something else, such as !!int before a text, or a number of thousands of digits
        raise CornerstoneError(f"{label}: holds a value that can't be read", "delete tags that begin with !!") from None
    return document


def _check_depth(text: str, label: str) -> None:
    """Refuse what is nested deeply before anything recurses: the composer in C has no guard, and ends the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise CornerstoneError(f"{label}:{event.start_mark.line + 1}: is nested too deeply",
                                       f"at most {DEEPEST} lists and mappings lie in one another")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _malformed(error: yaml.YAMLError, text: str, label: str) -> CornerstoneError:
    """One sentence from PyYAML's error, which holds a problem and often what it was doing, each with a mark."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        line, problem = error.problem_mark.line + 1, error.problem or "can't be parsed"
        if error.context:
            started = f" from line {error.context_mark.line + 1}" if error.context_mark else ""
            problem = f"{error.context}{started}: {problem}"
    else:
        line = text[:getattr(error, "position", 0)].count("\n") + 1
        problem = getattr(error, "reason", "can't be parsed")
    return CornerstoneError(f"{label}:{min(line, text.count(chr(10)) or 1)}: malformed YAML: {problem}",
                            "check the indentation, the quotes and the brackets on that line and the one before it")


def _walk(node: yaml.Node, where: Where, document: Document, above: tuple[int, ...]) -> None:
    """Record the line of every value and refuse what a mapping shouldn't hold."""
    if id(node) in above:
        raise document.error(where, "refers to itself", "write the values out instead of using an alias")
    if len(document.lines) > MOST_VALUES:
        raise document.error(where, f"is beyond the {MOST_VALUES:,} values that are read", "write fewer aliases")
    document.lines.setdefault(where, node.start_mark.line + 1)
    if not isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] not in ("map", "seq"):
        raise document.error(where, "holds a value that can't be read", "delete tags that begin with !!")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            _check_key(key, value, where, document, seen)
            document.lines[(*where, key.value)] = key.start_mark.line + 1
            _walk(value, (*where, key.value), document, (*above, id(node)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*where, index), document, (*above, id(node)))
    else:
        document.scalars[where] = node.value
        _check_scalar(node, where, document)


def _check_scalar(node: yaml.ScalarNode, where: Where, document: Document) -> None:
    """Refuse what isn't written in the one spelling that shows its meaning."""
    kind, written = node.tag.rpartition(":")[2], node.value
    if kind not in _SPELLINGS:
        raise document.error(where, "holds a value that can't be read", "delete tags that begin with !!")
    if not _SPELLINGS[kind].fullmatch(written):
        if kind == "int" and len(written) <= _MOST_DIGITS:
            # 010 is 8 in YAML 1.1, 0x10 is 16, and 1:30 is 90
            plain = written.replace("_", "").lstrip("+0")
            other = f" or {plain}" if plain.isdecimal() and int(plain) != _as_int(node) else ""
            raise document.error(where, f"{quoted(written)} is {_as_int(node)} to YAML",
                                 f"write {_as_int(node)}{other}, or put a text in quotes")
        if kind == "bool":
            raise document.error(where, f"{quoted(written)} is a truth value to YAML",
                                 "write true or false, or put a text in quotes")
        raise document.error(where, f"{quoted(written)} is a number that can't be read",
                             "write plain digits, or put a text in quotes")
    for line in written.split("\n"):
        if not line.isprintable():
            raise document.error(where, f"{quoted(written)} has characters that don't print", "delete them")


def _as_int(node: yaml.ScalarNode) -> int:
    return int(yaml.SafeLoader("").construct_yaml_int(node))


def _check_key(key: yaml.Node, value: yaml.Node, where: Where, document: Document, seen: set[str]) -> None:
    at = f"{document.label}:{key.start_mark.line + 1}"
    if key.tag == "tag:yaml.org,2002:merge":
        raise located_error(at, where, "the merge key << isn't used here", "write the keys out, or use extends")
    if key.tag != "tag:yaml.org,2002:str":
        raise located_error(at, where, f"the key {quoted(str(key.value))} isn't text", "put the key in quotes")
    if key.value in seen:
        raise located_error(at, (*where, key.value), "is written twice", "keep one of the two")
    seen.add(key.value)
    if value.tag == "tag:yaml.org,2002:null":
        raise located_error(at, (*where, key.value), "has no value", "give it a value, or delete the line")


def validate(model: type[Model], document: Document) -> Model:
    """Check the document against a pydantic model; CornerstoneError for the first wrong line."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda item: (_line(document, item), item["loc"]))
        raise _explain(model, document, problems[0]) from None


def _line(document: Document, problem: ErrorDetails) -> int:
    return int(document.at(problem["loc"]).rpartition(":")[2])


def _explain(model: type[BaseModel], document: Document, problem: ErrorDetails) -> CornerstoneError:
    where, kind, context = problem["loc"], problem["type"], problem.get("ctx", {})
    written = document.scalars.get(where)
    explain = _EXPLANATIONS.get(kind)
    if kind == "extra_forbidden":
        section = _section(model, where[:-1])
        if now := getattr(section, "RENAMED", {}).get(where[-1]):
            return document.error(where, f"is called {dotted((*where[:-1], now))} now", f"rename the key to {now}")
        return document.error(where, "unknown key", did_you_mean(str(where[-1]), _keys(section), "keys"))
    if "hint" in context:
        return document.error(where, problem["msg"], context["hint"])
    if explain is None:
        return document.error(where, problem["msg"].lower(), "see the schema of this file for what fits here")
    text, hint = explain(written, context)
    return document.error(where, text, hint)


def _shown(written: str | None) -> str:
    return quoted(written) if written is not None else "this"


_EXPLANATIONS: dict[str, Callable[[str | None, dict[str, Any]], tuple[str, str]]] = {
    "missing": lambda written, context: ("is missing", "add the key with a value"),
    "string_type": lambda written, context: (
        f"{_shown(written)} isn't text",
        "give one text, not a list or a mapping" if written is None
        else f'put it in quotes: "{written}"; YAML reads it as something else'),
    "int_type": lambda written, context: (f"{_shown(written)} isn't a whole number", "write digits without quotes"),
    "bool_type": lambda written, context: (f"{_shown(written)} isn't true or false", "write true or false"),
    "literal_error": lambda written, context: (f"{_shown(written)} isn't one of {context['expected']}",
                                               f"choose {context['expected']}"),
    "string_pattern_mismatch": lambda written, context: (f"{_shown(written)} doesn't fit",
                                                         f"the pattern is {context['pattern']}"),
    "greater_than_equal": lambda written, context: (f"{_shown(written)} is too small", f"at least {context['ge']}"),
    "less_than_equal": lambda written, context: (f"{_shown(written)} is too large", f"at most {context['le']}"),
    "model_type": lambda written, context: (f"{_shown(written)} isn't a mapping of keys to values",
                                            "write keys with values below it, indented"),
    "list_type": lambda written, context: (f"{_shown(written)} isn't a list", "write it as [a, b]"),
    "dict_type": lambda written, context: (f"{_shown(written)} isn't a mapping of keys to values",
                                           "write keys with values below it, indented"),
}


def _keys(section: type[BaseModel]) -> list[str]:
    """Return the keys that a model knows."""
    return [info.alias or name for name, info in section.model_fields.items()]


def _section(model: type[BaseModel], where: Where) -> Any:
    """Return the model at a place in a model."""
    current: Any = model
    for part in where:
        if isinstance(part, int):
            continue
        field_info = next(info for name, info in current.model_fields.items() if part in (name, info.alias))
        current = _model_in(field_info.annotation)
    return current


def _model_in(annotation: Any) -> Any:
    """The model inside tuple[Model, ...], Model | None or Model."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_model_in, get_args(annotation)) if found is not None), None)

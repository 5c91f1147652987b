"""Formats: every version's sample is read by the newest code, and what that writes by the rule of the oldest supported.

A field that changes fails a test here, until its format has a new version with a step from the older one, and samples:
NAME-vN.json, and NAME-vN.fields.json with what lib.serde.outline said of it then, which is frozen.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cornerstone.cli.formats import FORMATS, page, sample, slug
from cornerstone.cvm.membership import kept, keys
from cornerstone.cvm.membership.kept import MEMBERSHIP_FORMAT, Membership
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.event import Event
from cornerstone.lib.serde import Format, outline
from cornerstone.model.contracts.iscsi import Answer, Offer, Portal, from_line, to_line
from cornerstone.model.contracts.manifest import Manifest
from cornerstone.model.contracts.node import NODE, NodeConfig

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests/data/formats"
NAMES = {slug(form): form for form in FORMATS}
FILES = {name: form for name, form in NAMES.items() if not form.message}
MESSAGES = {name: form for name, form in NAMES.items() if form.message}
VERSIONS = [(name, version) for name, form in NAMES.items() for version in range(form.floor, form.version + 1)]
MISSING = object()
TYPES = {"text": str, "a whole number": int, "true or false": bool, "a list": list, "an object": dict, "dict": dict,
         "list": list, "float": (int, float)}


def read_written(name: str, content: bytes, folder: Path) -> Any:
    """Read a file or message with the code that does it in earnest, and return what that writes again, parsed."""
    if name == "manifest":
        return json.loads(Manifest.from_bytes(content).to_bytes())
    if name == "event":
        return json.loads(Event.from_json(content).to_json())
    if name == "membership":
        return json.loads(Membership.from_json(content, "membership.json").to_json())
    if name == "foreign-osds":
        (folder / kept.OSDS).write_bytes(content)
        kept.keep_osds(kept.load_osds(folder), folder)
        return json.loads((folder / kept.OSDS).read_bytes())
    if name == "member-keys":
        (folder / keys.KEYS).write_bytes(content)
        keys.learn({"10.20.0.33": {"certificate": "c" * 64, "admission": 0}}, "10.20.0.31", folder)
        return json.loads((folder / keys.KEYS).read_bytes())
    if name in ("layer", "build"):
        return NAMES[name].upgrade(json.loads(content))
    form = NAMES[name]
    return json.loads(json.dumps(form.write(form.read(content))))


def values(data: Any, tokens: list[str]) -> Iterator[Any]:
    """Return what is at a path; MISSING for a key that isn't there, and nothing below what is missing or null."""
    if not tokens:
        yield data
    elif tokens[0] == "[]":
        for each in data if isinstance(data, list) else ():
            yield from values(each, tokens[1:])
    elif isinstance(data, dict):
        if tokens[0] in data:
            yield from values(data[tokens[0]], tokens[1:])
        elif len(tokens) == 1:
            yield MISSING


def wrong(data: Any, fields: dict[str, str]) -> list[str]:
    """Return what a version's reader would miss in data, or find to be of another type."""
    found = []
    for path, words in fields.items():
        kind, optional = words.removesuffix("?"), words.endswith("?")
        for value in values(data, re.findall(r"\[\]|[^.\[\]]+", path)):
            if value is MISSING:
                found += [] if optional else [f"{path} is missing"]
            elif not (value is None and kind.endswith(" or null")
                      or isinstance(value, TYPES[kind.removesuffix(" or null")])
                      and (kind != "a whole number" or type(value) is int)):
                found.append(f"{path} is {value!r}, not {kind}")
    return found


def frozen(name: str, version: int) -> dict[str, str]:
    return json.loads((SAMPLES / f"{name}-v{version}.fields.json").read_text())


def changes(now: dict[str, str], then: dict[str, str]) -> list[str]:
    """Return what changed in a format's fields that its version doesn't allow."""
    found = [f"{path} was {words} and is {now.get(path, 'gone')}" for path, words in then.items()
             if now.get(path) not in (words, f"{words}?")]
    return found + [f"{path} is new, and may not be missing" for path, words in now.items()
                    if path not in then and path.rpartition(".")[0].removesuffix("[]") in ("", *then)
                    and not words.endswith("?") and not path.endswith("[]")]


def test_the_page_is_the_declarations():
    assert (ROOT / "docs/formats.md").read_text() == page()


def test_no_declaration_is_left_out():
    found = [call for path in (ROOT / "src").rglob("*.py") for call in ast.walk(ast.parse(path.read_text()))
             if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Format"]
    assert len(found) == len(FORMATS) == len({form.name for form in FORMATS})


def test_each_version_has_a_sample_and_its_fields_and_there_are_no_others():
    names = {path.name for path in SAMPLES.iterdir()}
    assert names == {f"{name}-v{version}{end}.json" for name, version in VERSIONS for end in ("", ".fields")}
    assert all((ROOT / sample(NAMES[name], version)).is_file() for name, version in VERSIONS)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_a_sample_is_what_its_version_requires(name, version):
    content = json.loads((SAMPLES / f"{name}-v{version}.json").read_text())
    assert wrong(content, {path: words for path, words in frozen(name, version).items()
                           if path != f".{NAMES[name].key}"}) == []


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_old_to_new_and_new_to_old(name, version, tmp_path):
    """Each version's sample is read, and what is written of it by the rule of the oldest that has to understand it."""
    form, content = NAMES[name], (SAMPLES / f"{name}-v{version}.json").read_bytes()
    written = read_written(name, content, tmp_path)
    assert written.get(form.key, 1) == (1 if name in ("layer", "build") else form.version)
    for supported in range(form.floor if form.message else form.version, form.version + 1):
        assert wrong(written, frozen(name, supported)) == []


def with_unknown(data: Any) -> Any:
    """The same with a field in each object that no release knows."""
    if isinstance(data, dict):
        return {**{key: with_unknown(value) for key, value in data.items()}, "of_a_later_release": {"colour": "blue"}}
    return [with_unknown(each) for each in data] if isinstance(data, list) else data


@pytest.mark.parametrize(("name", "version"), [each for each in VERSIONS if each[0] != "member-keys"])
def test_fields_of_a_later_release_are_ignored(name, version, tmp_path):
    content = json.loads((SAMPLES / f"{name}-v{version}.json").read_text())
    if name in ("layer", "build"):
        assert NAMES[name].upgrade(with_unknown(content)) == with_unknown(content)
        return
    plain = read_written(name, json.dumps(content).encode(), tmp_path)
    found = read_written(name, json.dumps(with_unknown(content)).encode(), tmp_path)
    if name in ("manifest", "event"):
        # the profile and an event's data are kept whole
        for each in (found, plain):
            each.pop("profile", None), each.pop("data", None)
    assert found == plain


def test_a_member_s_key_is_never_ignored(tmp_path):
    """Not to know whose a key is must not look like having met nobody."""
    content = json.loads((SAMPLES / "member-keys-v1.json").read_text())
    (tmp_path / keys.KEYS).write_text(json.dumps(content | {"10.20.0.33": {"certificates": []}}))
    with pytest.raises(CornerstoneError, match="is damaged"):
        keys.known(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_newer_version_is_refused_with_what_to_do(name, tmp_path):
    form = FILES[name]
    content = json.loads((SAMPLES / f"{name}-v{form.version}.json").read_text()) | {form.key: form.version + 1}
    with pytest.raises(CornerstoneError, match=rf"has version {form.version + 1}, and this release reads up to "
                       f"{form.version}") as refused:
        read_written(name, json.dumps(content).encode(), tmp_path)
    assert refused.value.hint == form.newer != ""
    assert refused.value.code == form.newer_code


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_a_newer_version_is_read_as_far_as_it_fits(name, tmp_path):
    form = MESSAGES[name]
    content = json.loads((SAMPLES / f"{name}-v{form.version}.json").read_text())
    newer = json.dumps(with_unknown(content) | {form.key: form.version + 1}).encode()
    read_written(name, newer, tmp_path)


@pytest.mark.parametrize("version", [0, -1, True, "1", None, 1.0, [], 10**30])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_version_is_refused_in_words(name, version, tmp_path):
    form = FILES[name]
    content = json.loads((SAMPLES / f"{name}-v{form.version}.json").read_text()) | {form.key: version}
    with pytest.raises(CornerstoneError):
        read_written(name, json.dumps(content).encode(), tmp_path)


@dataclass(frozen=True)
class Said:
    """Something that one side says to another."""

    words: str


def test_a_message_below_the_floor_is_refused_with_the_side_to_update():
    form = Format("greeting", Said, "the left side", "the right side", 3, 2, message=True)
    assert form.read(b'{"words": "a", "version": 2}') == Said("a")
    with pytest.raises(CornerstoneError, match="greeting has version 1, and this release reads from 2 on") as refused:
        form.read(b'{"words": "a"}')
    assert refused.value.hint == "update the side that writes it, the left side"
    with pytest.raises(CornerstoneError, match="words is missing") as refused:
        form.read(b'{"text": "a", "version": 4}')
    assert "update the side that reads it, the right side" in refused.value.hint


def test_a_file_below_the_floor_is_refused_and_each_step_is_made_on_the_way():
    form = Format("notes", Said, "w", "r", 3, 2, steps={2: lambda record: {"words": record["text"]}})
    assert form.read(b'{"text": "a", "version": 2}') == form.read(b'{"words": "a", "version": 3}') == Said("a")
    with pytest.raises(CornerstoneError, match="reads from 2 on"):
        form.read(b'{"words": "a"}')
    assert form.write(Said("a")) == {"version": 3, "words": "a"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "event"])
def test_a_field_changes_only_with_the_version(name):
    form = NAMES[name]
    now = {f".{form.key}": "a whole number", **dict(outline(form.kind))}
    assert changes(now, frozen(name, form.version)) == []


@pytest.mark.parametrize(("change", "words"), [
    ({".cvm.name": None}, ".cvm.name was text and is gone"),
    ({".cvm.memory": "text"}, ".cvm.memory was a whole number and is text"),
    ({".aos": "text"}, ".aos was text? and is text"),
    ({".colour": "text"}, ".colour is new, and may not be missing"),
    ({".cvm.colour": "text"}, ".cvm.colour is new, and may not be missing"),
    ({".cvm.disks[].colour": "text"}, ".cvm.disks[].colour is new, and may not be missing"),
])
def test_the_test_of_changes_fails_when_it_should(change, words):
    then = frozen("node", 2)
    assert changes({path: each for path, each in (then | change).items() if each}, then) == [words]


def test_an_added_field_with_a_default_is_no_change_of_the_version():
    then = frozen("node", 2)
    assert changes(then | {".colour": "an object or null?", ".colour.name": "text", ".cvm.name": "text?"}, then) == []


def test_node_json_of_the_first_version_is_read_with_its_old_name_for_the_cvm():
    old = json.loads((SAMPLES / "node-v1.json").read_text())
    assert "controller" in old and "cvm" not in old
    config = NodeConfig.from_json(json.dumps(old))
    assert config.cvm.name == old["controller"]["name"]
    assert config == replace(NodeConfig.from_json((SAMPLES / "node-v2.json").read_text()), aos_beside=())
    assert json.loads(config.to_json())["schema"] == NODE.version == 2


def test_the_keys_of_a_damaged_or_newer_membership_are_not_shown():
    record = json.loads((SAMPLES / "membership-v1.json").read_text())
    for change in ({"version": 2}, {"fsid": 5}, {"version": "x"}):
        with pytest.raises(CornerstoneError) as refused:
            Membership.from_json(json.dumps(record | change), "membership.json")
        assert record["admin_key"] not in str(refused.value)
    with pytest.raises(CornerstoneError) as refused:
        Membership.of(record | {"version": MEMBERSHIP_FORMAT.version + 1})
    assert refused.value.code == Code.REFUSED


def test_lines_between_host_and_cvm_carry_their_version():
    offer = Offer("iqn.x", (Portal("192.168.5.2", 1),), ("s",))
    assert json.loads(to_line(offer))["version"] == 1
    assert from_line(Offer, to_line(offer), "offer") == offer
    older = json.dumps({"sessions": ["a"]}).encode()
    assert from_line(Answer, older, "answer") == Answer(("a",))

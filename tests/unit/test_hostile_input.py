"""What comes from a medium, a machine or a peer: any bytes are either refused by our own error, or can be used."""

import copy
import dataclasses
import json
import random
import time
from pathlib import Path

import pytest

from cornerstone.factory.build.build import recall
from cornerstone.factory.store.layers import changed_inputs
from cornerstone.foundation.installer.plan import make_plan
from cornerstone.foundation.installer.plan_text import lines
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import DEEPEST, MOST, read_json
from cornerstone.lib.printable import printable, quoted, shown
from cornerstone.lib.serde import from_json
from cornerstone.model.contracts.facts import Facts
from cornerstone.model.contracts.genesis import Genesis, StateRecord
from cornerstone.model.contracts.iscsi import Answer, Initiator, Offer, Portal, from_line, to_line
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, Manifest
from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.contracts.requirements import Requirements
from cornerstone.model.rules.hardware import check_machine
from cornerstone.model.site.file import SiteError, read_site, redacted, to_area
from small_iso import PROFILE

ROOT = Path(__file__).resolve().parents[2]
MACHINES = sorted((ROOT / "tests" / "machines").glob("*.json"))
SITE = (ROOT / "sites" / "lab-one-node.json").read_bytes()
IDENTITY = "1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11"
MANIFEST = json.dumps({
    "schema": 1, "product": "Cornerstone Foundation", "identity": IDENTITY, "signed_with": "development key",
    "epoch": 1_800_000_000, "site_area": {"path": "site.area", "size": 262144},
    "profile": PROFILE | {"inherits": ["base"], "machine": {"firmware": "any", "tpm": "any"}},
    "files": [{"path": HYPERVISOR, "size": 7, "sha256": "b" * 64},
              {"path": CVM, "size": 5, "sha256": "a" * 64, "masked": [[8, 56], [2548, 8]]}]}).encode()
STRANGE = (None, True, False, 0, -1, 1, 2**63, 10**400, 0.5, 1e300, "", "x", "\x1b[2J", "\ud800", "‮x", "\0", [], {},
           [[]], {"": None}, "9" * 50, "0-99999999999", "../../x", "A" * 5000)


def mutations(content: bytes, count: int, seed: int):
    """The content with values, keys and bytes changed at random; always the same."""
    chance = random.Random(seed)
    whole = json.loads(content)
    for _ in range(count):
        if chance.random() < 0.25:
            changed = bytearray(content)
            for _ in range(chance.randint(1, 4)):
                if not changed:
                    break
                at = chance.randrange(len(changed))
                kind = chance.randrange(3)
                if kind == 0:
                    changed[at] = chance.choice(b'"{}[]:,\\0-9e.\xff\x00\x1b u')
                elif kind == 1:
                    del changed[at:at + chance.randint(1, 30)]
                else:
                    changed[at:at] = changed[chance.randrange(at + 1):][:chance.randint(1, 40)]
            yield bytes(changed)
            continue
        document = copy.deepcopy(whole)
        for _ in range(chance.randint(1, 2)):
            place = document
            while True:
                keys = list(place) if isinstance(place, dict) else list(range(len(place)))
                if not keys:
                    break
                key = chance.choice(keys)
                if isinstance(place[key], (dict, list)) and place[key] and chance.random() < 0.8:
                    place = place[key]
                    continue
                action = chance.randrange(4)
                if action == 0:
                    del place[key]
                elif action == 1 and isinstance(place, dict):
                    place[chance.choice(("novel", "\x1b[2J", "\ud800", "config"))] = place.pop(key)
                elif action == 2 and isinstance(place, list):
                    place += place
                else:
                    place[key] = copy.deepcopy(chance.choice(STRANGE))
                break
        yield json.dumps(document).encode()


def hold(read, use, content: bytes, count: int, seed: int, code: Code | None = None) -> None:
    """Hold a reader against mutations: only our own error, printable; and what it takes can be used."""
    taken = refused = 0
    for changed in mutations(content, count, seed):
        try:
            value = read(changed)
        except CornerstoneError as error:
            refused += 1
            assert code is None or error.code is code
            text = str(error)
            assert len(text) < 1500 or isinstance(error, SiteError)
            assert text.encode() and all(line.isprintable() for line in text.split("\n"))
            continue
        taken += 1
        use(value)
    assert taken > count // 50
    assert refused > count // 4


def use_manifest(manifest: Manifest) -> None:
    Requirements.of(manifest.profile, manifest.epoch)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert f"{manifest.signed} {manifest.profile['name']} {manifest.profile['payload']}".encode()
    for path in (HYPERVISOR, CVM):
        try:
            assert manifest.entry(path).layer
        except CornerstoneError as error:
            assert error.code is Code.VERIFY


def test_manifests_t24_t28():
    hold(Manifest.from_bytes, use_manifest, MANIFEST, 6000, 1, Code.VERIFY)


FULL = json.loads(MANIFEST)


def at(path: str, value: object) -> bytes:
    """The manifest with a value at .a.b or .files[0].c; ... takes it out."""
    document = copy.deepcopy(FULL)
    place = document
    parts = path[1:].replace("[", ".[").split(".")
    for part in parts[:-1]:
        place = place[int(part[1:-1]) if part[0] == "[" else part]
    if value is ...:
        del place[parts[-1]]
    else:
        place[parts[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(("path", "value"), [
    (".profile", {}), (".profile.cvm", ...), (".profile.cvm", 7), (".profile.cvm.memory", "1 GiB"),
    (".profile.cvm.memory", 10**400), (".profile.cvm.memory", -1), (".profile.cvm.vcpus", ...),
    (".profile.hypervisor", []), (".profile.hypervisor.root_slot", None), (".profile.aos", ...), (".profile.aos", 6.8),
    (".profile.ahv", None), (".profile.name", []), (".profile.payload", ...), (".profile.machine", 5),
    (".files", 7), (".files[0].path", 5), (".files[0].path", "../etc/passwd"), (".files[0].path", "/etc/passwd"),
    (".files[0].path", ""), (".files[0].path", CVM), (".files[0].size", -1), (".files[0].size", True),
    (".files[0].size", 10**30), (".files[0].sha256", 12), (".files[0].sha256", "B" * 64), (".files[1].masked", [[1]]),
    (".files[1].masked", [[1, "2"]]), (".files[1].masked", [[1, 2, 3]]), (".identity", "../x"), (".identity", 1),
    (".epoch", 10**12), (".epoch", "x"), (".site_area", 7), (".site_area.size", 10**12), (".signed_with", "my key"),
])
def test_a_manifest_s_fields_are_checked_when_it_is_read_t24(path, value):
    with pytest.raises(CornerstoneError) as caught:
        Manifest.from_bytes(at(path, value))
    assert caught.value.code is Code.VERIFY
    assert caught.value.message.startswith("manifest.json: not a Foundation manifest: ")
    parts = path.split("[")[0]
    assert parts in caught.value.message or parts.rpartition(".")[0] in caught.value.message


def test_keys_of_a_later_release_are_passed_over_and_kept_t24():
    manifest = Manifest.from_bytes(at(".profile.novel", {"x": 1}))
    assert manifest.profile["novel"] == {"x": 1}


@pytest.mark.parametrize("path", MACHINES[:3], ids=lambda path: path.stem)
def test_facts_t27_t28(path):
    manifest = Manifest.from_bytes(MANIFEST)
    needs = Requirements.of(manifest.profile, manifest.epoch)
    site = read_site(SITE)
    chance = random.Random(3)

    def use(facts: Facts) -> None:
        assert Facts.from_json(facts.to_json()) == facts
        for disk in facts.disks:
            assert f"{disk} {disk.contents}".encode()
        for verdict in check_machine(facts, needs):
            assert verdict.message.encode()
        if chance.random() < 0.3:
            try:
                plan = make_plan(facts, site, manifest)
            except CornerstoneError:
                return
            assert "\n".join(lines(plan)).encode()

    hold(Facts.from_json, use, path.read_bytes(), 1500, 2)


@pytest.mark.parametrize(("path", "value"), [
    ("memory", 10**400), ("memory", -1), ("clock.system", 10**12), ("clock.system", 10**30), ("clock.rtc", 10**13),
    ("disks.0.size", 10**400), ("disks.0.size", -5), ("cpu.threads", 2**64),
])
def test_numbers_have_bounds_t27(path, value):
    document = json.loads(MACHINES[0].read_text())
    *parts, last = path.split(".")
    place = document
    for part in parts:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value
    with pytest.raises(CornerstoneError) as caught:
        Facts.from_json(json.dumps(document), "m.json")
    where = "." + path.replace(".0.", "[0].")
    assert caught.value.message.startswith(f"m.json: {where} has to be a whole number from 0 to ")


NODE_JSON = sorted((ROOT / "tests" / "data" / "nodes").glob("*.json"))


def test_node_json_t28():
    def use(node: NodeConfig) -> None:
        assert NodeConfig.from_json(node.to_json()) == node
        assert node.patience >= 0
    hold(NodeConfig.from_json, use, NODE_JSON[0].read_bytes(), 3000, 4)


def test_genesis_json_t28():
    genesis = Genesis("boot", (StateRecord("disks", "done", 1, 2, 3, 4, warnings=("a",)), StateRecord("engine")))

    def use(value: Genesis) -> None:
        assert Genesis.from_json(value.to_json()) == value
        assert value.ready in (True, False)
    hold(Genesis.from_json, use, genesis.to_json().encode(), 3000, 5)


@pytest.mark.parametrize("record", [Offer("iqn", (Portal("10.0.0.1", 1),), ("a", "b")), Answer(("x",), "no", ("y",)),
                                    Initiator("iqn", "secret")], ids=lambda record: type(record).__name__)
def test_lines_of_the_data_path_t28(record):
    kind = type(record)

    def use(value: object) -> None:
        assert from_line(kind, to_line(value), "x") == value
    hold(lambda line: from_line(kind, line, "the line"), use, to_line(record), 2000, 6)


def test_a_secret_of_a_wrong_type_is_not_told_t37():
    with pytest.raises(CornerstoneError) as caught:
        from_line(Initiator, b'{"name": "a", "secret": ["s3cret"]}', "the line")
    assert "s3cret" not in str(caught.value)


def test_sites_t28_t32():
    def use(site: object) -> None:
        again = read_site(to_area(site))
        assert dataclasses.replace(again, warnings=site.warnings) == site
        assert redacted(site).encode()
        assert all(str(warning).isprintable() for warning in site.warnings)
    hold(read_site, use, SITE, 3000, 7)


READERS = {"facts.json": Facts.from_json, "node.json": NodeConfig.from_json, "genesis.json": Genesis.from_json,
           "manifest.json": Manifest.from_bytes, "a line": lambda content: from_line(Offer, content, "a line"),
           "site.json": read_site}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 50_000, b'{"schema": 1, "x": ' + b"[" * DEEPEST],
                         ids=["lists", "objects", "one more"])
def test_deep_nesting_is_refused_t28(name, content):
    begun = time.process_time()
    with pytest.raises(CornerstoneError, match="is nested too deeply"):
        READERS[name](content)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("name", READERS)
def test_a_key_written_twice_is_refused_t28(name):
    with pytest.raises(CornerstoneError, match=r"\.schema:? is written twice"):
        READERS[name](b'{"schema": 1, "schema": 1}')
    with pytest.raises(CornerstoneError, match=r"\.a\[1\]\.b:? is written twice"):
        READERS[name](b'{"a": [{}, {"b": 1, "b": 1}]}')


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [
    b"", b"\xff", b"\xff\xfe{\x00}\x00", b"NaN", b'{"schema": NaN}', b'{"schema": 1e999}', b'{"schema": -Infinity}',
    b"7" * 5000, b'"' + b"\\\"" * 20_000, b"{}", b"[]", b"null", b'"x"', b" " * (MOST + 1),
    b'{"schema": 1' + b" " * MOST,
], ids=lambda content: repr(content[:14]))
def test_what_is_no_file_of_ours_is_refused_soon_t28(name, content):
    begun = time.process_time()
    with pytest.raises(CornerstoneError):
        READERS[name](content)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("key", ["\x1b[2J", "\ud800", "‮", "\x9b", "\u2028", "a" * 100_000])
@pytest.mark.parametrize("name", READERS)
def test_what_is_quoted_does_nothing_to_a_terminal_t37(name, key):
    document = {"schema": 1}
    for wrong in ({**document, key: 1}, {**document, "schema": key}, {**document, "schema": {key: key}}):
        with pytest.raises(CornerstoneError) as caught:
            READERS[name](json.dumps(wrong).encode())
        text = str(caught.value)
        assert len(text) < 4000
        assert text.encode() and all(line.isprintable() for line in text.split("\n"))


def test_an_unknown_key_is_shown_escaped_t37():
    document = {"target": "t", "portals": [], "volumes": [], "\x1b[2J": 1}
    with pytest.raises(CornerstoneError, match=r"^m\.json: \.\\x1b\[2J is unknown\n"):
        from_json(Offer, json.dumps(document), "m.json")


def test_an_error_is_printable_whatever_it_quotes_t37():
    error = CornerstoneError("a\x1b[2J\nb\ud800", "c\u202e")
    assert str(error) == "a\\x1b[2J\nb\\ud800\n  hint: c\\u202e"
    assert error.line.encode()


def test_quoting_is_short_and_printable_t37():
    for value in STRANGE:
        for text in (quoted(value), shown(value)):
            assert text.isprintable() and len(text) <= 160
    assert printable("x" * 99, 10) == "xxxxxxx..."


def test_a_list_is_bounded():
    content = json.dumps({"target": "t", "portals": [], "volumes": ["v"] * 70_000})
    with pytest.raises(CornerstoneError, match=r"\.volumes has 70000 entries, and at most 65536 are read"):
        from_json(Offer, content, "x")


def test_a_file_in_json_may_begin_with_a_byte_order_mark():
    assert read_json(b"\xef\xbb\xbf{}", "x") == {}


@pytest.mark.parametrize("record", [
    '{"layers": []}', '{"iso": []}', '{"layers": {"cvm": 5}}', '{"iso": {}, "layers": {"a": {"b": 1}}, "file": [1, 2]}',
    "[" * 100_000, '{"a": 1, "a": 2}', '{"iso": {}, "layers": {}, "file": {}}',
    '{"iso": {}, "layers": {}, "file": [1]}',
    '{"iso": {}, "layers": {}, "file": [1, 2], "evidence": []}', "\ud800".encode("utf-8", "surrogatepass"),
    '{"iso": {}, "layers": {}, "file": [1, 2], "evidence": {"files": {"x": 1}}}', "NaN",
])
def test_a_record_of_a_build_of_another_shape_is_none_t29(record, tmp_path):
    (tmp_path / "build.json").write_bytes(record if isinstance(record, bytes) else record.encode())
    assert recall(tmp_path / "x.iso") == {}


def test_records_of_builds_t29(tmp_path):
    content = json.dumps({"iso": {"code": "1", "layer cvm": "2"}, "layers": {"cvm": {"lock": "3"}, "efi-image": {}},
                          "file": [5, 6], "evidence": {"sha256": "7", "source": {"name": "s"}, "made_by": "8",
                                                       "files": {"report.json": [9, 10]}}}).encode()

    class Cvm:
        @staticmethod
        def all_inputs() -> dict[str, str]:
            return {"lock": "4"}

    for changed in mutations(content, 1000, 8):
        (tmp_path / "build.json").write_bytes(changed)
        earlier = recall(tmp_path / "x.iso")
        assert isinstance(changed_inputs(Cvm(), earlier.get("layers", {}).get("cvm")), list)
        assert all(isinstance(value, str) for value in earlier.get("iso", {}).values())

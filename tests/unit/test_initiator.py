"""A host's iSCSI identity: drawn once, for root alone, and whole after an interruption."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cornerstone.hypervisor.initiator import draw, main, write
from cornerstone.model.contracts.iscsi import Initiator, from_line
from cornerstone.model.contracts.node import NodeConfig

NODES = Path(__file__).resolve().parents[1] / "data/nodes"


def config(name: str = "passthrough") -> NodeConfig:
    return NodeConfig.from_json((NODES / f"{name}.json").read_text())


def test_the_name_stays_and_the_secret_is_drawn():
    first, second = draw(config()), draw(config())
    assert first.name == second.name and first.secret != second.secret
    assert first.name != draw(config("bond-and-single-disks")).name
    assert len(bytes.fromhex(first.secret)) == 16


def test_it_is_drawn_once_and_written_for_root_alone(tmp_path):
    state, root = tmp_path / "state", tmp_path / "root"
    write(config(), state, root)
    credential, name = state / "initiator.json", root / "etc/iscsi/initiatorname.iscsi"
    before = credential.read_bytes()
    initiator = from_line(Initiator, before, "test")
    assert name.read_text() == f"InitiatorName={initiator.name}\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (credential, name)} == {0o600}
    write(config(), state, root)
    assert credential.read_bytes() == before
    assert {path.name for path in state.iterdir()} == {"initiator.json"}


def test_what_an_interruption_left_is_no_hindrance(tmp_path):
    (tmp_path / ".initiator.json.abcd0123").write_text("half")
    write(config(), tmp_path, tmp_path)
    assert from_line(Initiator, (tmp_path / "initiator.json").read_bytes(), "test").secret
    assert {path.name for path in tmp_path.iterdir()} == {"initiator.json", "etc"}


@pytest.mark.parametrize("content, said", [(None, "No such file"), ("{", "isn't JSON"), ("{}", "is missing")])
def test_a_bad_node_json_is_told_in_a_line(tmp_path, capsys, content, said):
    node = tmp_path / "node.json"
    if content is not None:
        node.write_text(content)
    assert main(node) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1

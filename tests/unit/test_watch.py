"""The watch over the Controller VM: what it starts again, what it leaves alone, what it tells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.hypervisor.watch import BETWEEN_STARTS_SECONDS, Watch, main

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "tests/data/nodes/passthrough.json"


class Machine:
    """A domain as virsh shows it; starts, and how they end."""

    def __init__(self, state: str) -> None:
        self.answer = (0, state)
        self.start_answer = (0, "")
        self.starts = 0
        self.now = 1000.0
        self.told: list[tuple[str, str]] = []
        self.watch = Watch("cvm", lambda event: self.told.append((event.state, event.message)), self.virsh,
                           lambda: self.now)

    def virsh(self, *words: str) -> tuple[int, str]:
        if words[0] == "start":
            assert words == ("start", "cvm")
            self.starts += 1
            return self.start_answer
        assert words == ("domstate", "--reason", "cvm")
        return self.answer

    def look(self, state: str | None = None, later: float = 0) -> None:
        self.now += later
        if state is not None:
            self.answer = (0, state)
        self.watch.look()


@pytest.mark.parametrize(("state", "starts"), [
    ("shut off (crashed)", 1), ("shut off (failed)", 1),
    ("running (booted)", 0), ("running (crashed)", 0), ("paused (I/O error)", 0), ("in shutdown (user)", 0),
    ("shut off (shutdown)", 0), ("shut off (destroyed)", 0), ("shut off (unknown)", 0), ("shut off (saved)", 0),
])
def test_what_is_started_again(state, starts):
    machine = Machine(state)
    machine.look()
    assert machine.starts == starts


def test_a_death_and_the_start_after_it_are_told():
    machine = Machine("running (booted)")
    machine.look()
    machine.look("shut off (crashed)")
    machine.look("running (booted)")
    assert machine.told == [
        ("progress", "cvm: running (booted)"),
        ("warning", "cvm: shut off (crashed)"), ("started", "cvm died and is started again"),
        ("done", "cvm is started"),
        ("progress", "cvm: running (booted)")]


def test_what_stays_is_told_once():
    machine = Machine("running (booted)")
    for _ in range(3):
        machine.look()
    assert machine.told == [("progress", "cvm: running (booted)")]


def test_one_that_cannot_live_is_not_churned():
    machine = Machine("shut off (crashed)")
    machine.start_answer = (1, "error: no memory")
    machine.look()
    machine.look("shut off (failed)", later=BETWEEN_STARTS_SECONDS - 1)
    assert machine.starts == 1
    machine.look(later=1)
    assert machine.starts == 2
    assert [entry for entry in machine.told if entry[0] == "failed"] == [("failed", "error: no memory")] * 2


def test_a_libvirt_that_does_not_answer_is_told_once_and_nothing_is_started():
    machine = Machine("")
    machine.answer = (1, "error: failed to connect to the hypervisor")
    machine.look()
    machine.look()
    assert machine.told == [("warning", "cvm: error: failed to connect to the hypervisor")]
    assert machine.starts == 0


def test_a_bad_node_json_is_said(tmp_path, capsys):
    (tmp_path / "node.json").write_text("{}")
    assert main(tmp_path / "node.json") != 0
    assert ".identity is missing" in capsys.readouterr().err


def test_it_looks_and_listens_and_keeps_the_events(tmp_path):
    """The program as the unit runs it, with a virsh that notes what it is asked and ends the watch when it listens."""
    (tmp_path / "node.json").write_bytes(NODE.read_bytes())
    (tmp_path / "virsh").write_text("""#!/bin/sh
echo "$*" >>"${0%/*}/asked"
case "$2" in
    domstate) echo "shut off (crashed)" ;;
    event) kill "$PPID" ;;
esac
""")
    (tmp_path / "virsh").chmod(0o755)
    done = subprocess.run([sys.executable, "-m", "cornerstone.hypervisor.watch", tmp_path / "node.json"],
                          env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")},
                          capture_output=True, text=True, timeout=60, check=False)
    name = "NTNX-22SM6D010001-A-CVM"
    assert (done.returncode, done.stderr) == (-15, "")
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"--quiet domstate --reason {name}", f"--quiet start {name}", f"--quiet domstate --reason {name}",
        f"--quiet event --domain {name} --event lifecycle --timeout 20"]
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 3

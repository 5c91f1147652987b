"""What an install in the lab is made of, without a machine: the network, the way in, the timeline, the blank disks."""

from __future__ import annotations

import json
import stat
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cornerstone.lab.access import Access, with_key
from cornerstone.lab.install import Run
from cornerstone.lab.network import forwarded_port, resolver, user_network
from cornerstone.lab.shape import load_shape
from cornerstone.lab.timeline import Timeline
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Event
from cornerstone.model.site.file import read_site

SITE = Path(__file__).parents[2] / "sites" / "lab-one-node.json"


@pytest.fixture
def site():
    return read_site(SITE.read_bytes())


def test_the_network_is_the_sites_and_lets_nothing_out(site):
    assert user_network(site, site.nodes[0]) == (
        "user,net=10.20.0.0/24,host=10.20.0.1,dns=10.20.0.2,restrict=on,hostfwd=tcp:127.0.0.1:0-10.20.0.11:22")
    assert resolver(site, site.nodes[0]) == IPv4Address("10.20.0.2")


class Answers:
    """A machine that answers one question."""

    def __init__(self, text: str) -> None:
        self.text = text

    def ask(self, command: str, **arguments: object) -> str:
        return self.text


def test_the_port_is_the_one_that_the_kernel_chose():
    # as QEMU 7.2 prints it
    text = ("Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
            "  TCP[HOST_FORWARD]  15       127.0.0.1 35123      10.20.0.11    22     0     0\r\n")
    assert forwarded_port(Answers(text)) == 35123
    with pytest.raises(CornerstoneError, match="forwards no port"):
        forwarded_port(Answers("Hub -1 (net0):\r\n"))


def test_the_key_of_a_run_is_private_and_goes(tmp_path, site):
    access = Access(tmp_path / "access")
    public = access.draw()
    assert stat.S_IMODE(access.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(access.folder.stat().st_mode) == 0o700
    customised = read_site(with_key(SITE.read_bytes(), public))
    assert customised.authorized_keys == (*site.authorized_keys, public)
    access.configure(2222)
    # read by ssh itself
    said = subprocess.run(["ssh", "-G", "-F", access.config, "node"], capture_output=True, text=True, check=True).stdout
    assert {"port 2222", "user root", "stricthostkeychecking accept-new", "batchmode yes",
            f"identityfile {access.key}"} <= set(said.splitlines())
    access.remove()
    assert not access.folder.exists()


def test_a_timeline_has_stages_and_rates(tmp_path, monkeypatch):
    clock = iter([101.0, 110.0, 113.0, 114.0, 120.0])
    monkeypatch.setattr("cornerstone.lab.timeline.time.monotonic", lambda: next(clock))
    timeline = Timeline(100.0)
    timeline(Event("boot", "kernel", "progress", data={"seconds": 0.5}))
    timeline(Event("foundation", "image", "progress", data={"phase": "root", "bytes": 0, "total": 8 << 20}))
    timeline(Event("foundation", "image", "progress", data={"phase": "root", "bytes": 8 << 20, "total": 8 << 20}))
    timeline(Event("foundation", "image", "done"))
    timeline(Event("foundation", "install", "done"))
    timeline.write(tmp_path / "timeline.json", firmware="bios")
    assert json.loads((tmp_path / "timeline.json").read_text()) == {
        "firmware": "bios", "stages": {"kernel": 0.5, "foundation/image done": 14.0,
                                       "foundation/install done": 20.0},
        "phases": {"root": {"from": 10.0, "to": 14.0, "bytes": 8 << 20, "bytes_per_second": 2 << 20}}}
    assert timeline.lines() == ["     0.5 s  kernel", "    14.0 s  foundation/image done",
                                "    20.0 s  foundation/install done", "     4.0 s  for root, 8 MiB at 2 MiB/s"]


def prepare(folder: Path, name: str = "one-node") -> Run:
    return Run.prepare(folder, load_shape(name), SITE.read_bytes(),
                       lambda site, iso: iso.write_bytes(site.read_bytes()))


def test_a_run_begins_with_blank_disks_and_a_key_of_its_own(tmp_path):
    first = prepare(tmp_path / "run")
    first.image("boot").write_bytes(b"something")
    key = first.access.key.read_bytes()
    run = prepare(tmp_path / "run")
    info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", run.image("boot")], capture_output=True,
                                     text=True, check=True).stdout)
    assert (info["format"], info["virtual-size"]) == ("qcow2", 32 << 30)
    assert sorted(path.stem for path in run.image("boot").parent.iterdir()) == ["boot", "data-1", "data-2"]
    assert run.node.hostname == "lab-1"
    assert run.access.key.read_bytes() != key
    assert read_site(run.iso.read_bytes()).authorized_keys
    assert stat.S_IMODE(run.site_file.stat().st_mode) == 0o600
    run.remove_secrets()
    assert sorted(path.name for path in run.folder.iterdir()) == ["disks", "site.json"]


def test_a_folder_that_is_somebody_elses_stays_as_it_is(tmp_path):
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(CornerstoneError, match="isn't empty, and not what an earlier run left"):
        prepare(tmp_path)
    assert (tmp_path / "letter").read_text() == "dear"

"""No domain takes a controller from under a disk that the host has mounted."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cornerstone.hypervisor import guard

NODES = Path(__file__).parents[1] / "data" / "nodes"
DOMAIN = (NODES / "passthrough.xml").read_text()


@pytest.fixture
def host(tmp_path):
    """A host whose root and state are on sda, behind a chipset; mounted(where) puts that disk elsewhere."""
    def mounted(controller: str) -> Path:
        part = tmp_path / f"sys/devices/pci0000:00/{controller}/ata1/host0/block/sda/sda5"
        part.mkdir(parents=True)
        number = tmp_path / "sys/dev/block/8:5"
        number.parent.mkdir(parents=True)
        number.symlink_to(part)
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/mountinfo").write_text(
            "22 1 8:5 / / rw - ext4 /dev/sda5 rw\n23 22 0:21 / /proc rw - proc proc rw\n")
        return tmp_path
    return mounted


def test_the_addresses_are_those_of_the_domain():
    found = list(guard.passed(DOMAIN))
    assert found and all(len(address) == len("0000:3b:00.0") for address in found)


def test_a_controller_without_a_mounted_disk_may_go(host):
    assert guard.refusal(DOMAIN, host("0000:00:1f.2")) == ""


def test_the_controller_of_the_boot_disk_stays(host):
    address = next(iter(guard.passed(DOMAIN)))
    why = guard.refusal(DOMAIN, host(f"0000:00:03.0/{address}"))
    assert why.startswith(f"the controller at {address} has the disk sda5 that this host runs from")


@pytest.mark.parametrize(("words", "code"), [(["cvm", "prepare", "begin", "-"], 1), (["cvm", "started", "begin"], 0),
                                             (["cvm", "release", "end"], 0)])
def test_only_a_start_is_refused(words, code, monkeypatch, capsys):
    monkeypatch.setattr(guard, "refusal", lambda domain: "because")
    monkeypatch.setattr("sys.stdin", io.StringIO(DOMAIN))
    assert guard.main(words) == code
    assert capsys.readouterr().err == ("because\n" if code else "")

"""What may start on a host, and what the kernel ends last."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cornerstone.hypervisor import admission, guard
from cornerstone.hypervisor.guest import Guest, guest_xml
from cornerstone.model.contracts.node import NodeConfig

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
    found = list(guard.pci_addresses(DOMAIN))
    assert found and all(len(address) == len("0000:3b:00.0") for address in found)


def test_a_controller_without_a_mounted_disk_may_go(host):
    assert guard.refusal(DOMAIN, host("0000:00:1f.2")) == ""


def test_the_controller_of_the_boot_disk_stays(host):
    address = next(iter(guard.pci_addresses(DOMAIN)))
    why = guard.refusal(DOMAIN, host(f"0000:00:03.0/{address}"))
    assert why.startswith(f"the controller at {address} has the disk sda5 that this host runs from")


@pytest.mark.parametrize(("words", "code"), [(["cvm", "prepare", "begin", "-"], 1), (["cvm", "started", "begin"], 0),
                                             (["cvm", "release", "end"], 0)])
def test_only_a_start_is_refused(words, code, monkeypatch, capsys):
    monkeypatch.setattr(guard, "refusal", lambda domain: "because")
    monkeypatch.setattr("sys.stdin", io.StringIO(DOMAIN))
    assert guard.main(words) == code
    assert capsys.readouterr().err == ("because\n" if code else "")


GIB, MIB = 1 << 30, 1 << 20
CVM = "NTNX-22SM6D010001-A-CVM"


@pytest.fixture
def node(tmp_path):
    """A host of 32 GiB whose CVM of 20 GiB runs as process 77, with 11 - 1 GiB for guests."""
    (tmp_path / "var/lib/cornerstone").mkdir(parents=True)
    (tmp_path / "var/lib/cornerstone/node.json").write_bytes((NODES / "passthrough.json").read_bytes())
    assert NodeConfig.read(tmp_path / "var/lib/cornerstone/node.json").cvm.memory == 20 * GIB
    (tmp_path / "run/libvirt/qemu").mkdir(parents=True)
    for pid in (77, 78):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/oom_score_adj").write_text("0\n")
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/mountinfo").touch()
    meminfo(tmp_path)
    runs(tmp_path, CVM, 20 * GIB, 77)
    return tmp_path


def meminfo(root: Path, total: int = 32 * GIB, huge: int = 0) -> None:
    (root / "proc/meminfo").write_text(f"MemTotal:       {total >> 10} kB\nMemFree:          100 kB\n"
                                       f"HugePages_Total:       0\nHugetlb:        {huge >> 10} kB\n")


def domain(name: str, size: int, more: str = "") -> str:
    return f"<domain type='kvm' id='2'><name>{name}</name><memory unit='KiB'>{size >> 10}</memory>{more}</domain>"


def runs(root: Path, name: str, size: int, pid: int = 78) -> None:
    """As libvirt keeps it of a domain that runs."""
    (root / f"run/libvirt/qemu/{name}.pid").write_text(f"{pid}\n")
    (root / f"run/libvirt/qemu/{name}.xml").write_text(
        f"<domstatus state='running' reason='booted' pid='{pid}'><taint flag='x'/>{domain(name, size)}</domstatus>\n")


def score(root: Path, pid: int) -> str:
    return (root / f"proc/{pid}/oom_score_adj").read_text().strip()


def test_the_cvm_is_the_last_that_a_shortage_of_memory_ends_d28(node):
    runs(node, "vm1", GIB)
    for name in (CVM, "vm1"):
        guard.protect(name, node)
    assert (score(node, 77), score(node, 78)) == ("-900", "0")


@pytest.mark.parametrize(("operation", "asked"), [("prepare begin", []), ("started begin", ["a"]),
                                                  ("reconnect begin", ["a"]), ("stopped end", [])])
def test_it_is_protected_at_each_start_and_when_libvirt_finds_it_again_d28(operation, asked, monkeypatch):
    protected: list[str] = []
    monkeypatch.setattr(guard, "refusal", lambda domain: "")
    monkeypatch.setattr(guard, "protect", protected.append)
    monkeypatch.setattr("sys.stdin", io.StringIO(DOMAIN))
    assert guard.main(["a", *operation.split(), "-"]) == 0
    assert protected == asked


@pytest.mark.parametrize("broken", ["pid", "gone"])
def test_a_cvm_that_cannot_be_protected_runs_all_the_same_d28(node, capsys, broken):
    (node / f"run/libvirt/qemu/{CVM}.pid").write_text("x" if broken == "pid" else "99")
    guard.protect(CVM, node)
    assert "its oom_score_adj stays as it is" in capsys.readouterr().err


def test_a_guest_that_fits_starts_and_one_that_does_not_is_refused_d28(node):
    free = 32 * GIB - 20 * GIB - admission.HOST_MEMORY - admission.GUEST_OVERHEAD
    assert guard.refusal(domain("vm1", free), node) == ""
    assert guard.refusal(domain("vm1", free + 1024), node)
    assert guard.refusal(domain("vm1", free + MIB), node) == (
        "vm1 needs 11265 MiB of memory, and 11264 MiB are left for it: of this host's 32768 MiB the Controller VM has "
        "20480 MiB, other guests 0 MiB, the host itself 1024 MiB; give it less memory, or end another guest")


def test_the_memory_of_other_guests_counts_and_its_own_does_not_d28(node):
    runs(node, "vm2", 8 * GIB)
    assert guard.refusal(domain("vm1", 3 * GIB), node)
    assert not guard.refusal(domain("vm1", 2 * GIB), node)
    # it is there already when libvirt has noted it before it asks
    runs(node, "vm1", 2 * GIB)
    assert not guard.refusal(domain("vm1", 2 * GIB), node)
    (node / "run/libvirt/qemu/vm2.xml").unlink()
    assert not guard.refusal(domain("vm1", 3 * GIB), node)


def test_the_cvms_memory_is_kept_while_it_is_down_and_it_may_always_start_d28(node):
    (node / f"run/libvirt/qemu/{CVM}.xml").unlink()
    assert guard.refusal(domain("vm1", 12 * GIB), node)
    runs(node, "vm2", 31 * GIB)
    assert not guard.refusal(domain(CVM, 20 * GIB), node)


def test_huge_pages_are_aside_d28(node):
    huge = "<memoryBacking><hugepages/></memoryBacking>"
    meminfo(node, huge=8 * GIB)
    assert guard.refusal(domain("vm1", 4 * GIB), node)
    assert not guard.refusal(domain("vm1", 8 * GIB, huge), node)
    assert not guard.refusal(domain("vm1", 2 * GIB), node)


def test_a_host_that_is_too_small_for_its_cvm_takes_no_guest_d28(node):
    meminfo(node, total=16 * GIB)
    assert guard.refusal(domain("vm1", 64 * MIB), node)


def test_what_ends_meanwhile_is_no_error_d28(node):
    (node / "run/libvirt/qemu/vm2.xml").write_text("<domstatus")
    assert not guard.refusal(domain("vm1", GIB), node)


@pytest.mark.parametrize(("unit", "text"), [("KiB", "11534336"), ("b", str(11 * GIB)), ("MiB", "11264"), ("GiB", "11")])
def test_every_unit_of_libvirt_is_known_d28(node, unit, text):
    assert guard.refusal(f"<domain><name>a</name><memory unit='{unit}'>{text}</memory></domain>", node)


def test_our_own_guests_are_asked_for_too_d28(node):
    assert guard.refusal(guest_xml(Guest("vm1", 12 * GIB, 1, ())), node)
    assert not guard.refusal(guest_xml(Guest("vm1", 4 * GIB, 1, ())), node)

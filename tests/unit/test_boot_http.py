"""The initramfs's boot script with its medium over HTTP, from a real server on the loopback, by a real wget."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from boot_box import CONSOLES, IDENTITY, SHELLS, SQUASHFS, Box
from cornerstone.model.contracts.manifest import HYPERVISOR, MOST, NAME, SIGNATURE_NAME

MAC = "52:54:00:12:34:56"
NET = f"{MAC},10.0.2.15/255.255.255.0,10.0.2.2,10.0.2.3"
SERVE = "serve the folder netboot as the build made it, whole"
# ip needs rights; the last arguments of mount are its folder
FAKES = 'ip() { echo "ip $*" >>"$BOX/calls"; case "$*" in *"${FAIL_IP:-nothing}"*) return 2 ;; esac; }\n'
# the pauses between two tries are over at once; the sleep of a refusal ends the script
NAPS = "sleep() { [ $1 = 3 ] || exit 99; }"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; answers tells otherwise by path: an error's number, or how many bytes are sent of a file."""

    def __init__(self, *arguments: object, asked: list[str], answers: dict, **options: object) -> None:
        self.asked, self.answers = asked, answers
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        answers = self.answers.get(self.path, [])
        answer = answers.pop(0) if answers else None
        if answer == "break off":
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:-1])
        elif answer:
            self.send_error(answer)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Served:
    """A box and the folder that its machine starts from."""

    def __init__(self, box: Box, folder: Path, port: int, asked: list[str], answers: dict) -> None:
        self.box, self.folder, self.asked, self.answers = box, folder, asked, answers
        self.base = f"http://127.0.0.1:{port}/netboot"

    def boot(self, *, code: str = "", net: str = NET, base: str | None = None, pin: str | None = None,
             **environment: str) -> int:
        """Run the boot script to its end; 99 is a refusal's."""
        pin = pin if pin is not None else hashlib.sha256((self.folder / NAME).read_bytes()).hexdigest()
        self.box.kernel_arguments(
            f"boot=cornerstone cornerstone.medium={IDENTITY} cornerstone.http={base or self.base + '/'} "
            f"cornerstone.manifest.sha256={pin} cornerstone.net={net}")
        return self.box.run(f"{FAKES}{code}\nmountroot", **environment).returncode


@pytest.fixture(params=SHELLS.values(), ids=SHELLS.keys())
def served(request, tmp_path) -> Iterator[Served]:
    """A box without a medium, and a server that has it."""
    if not shutil.which(request.param[0]) or not shutil.which("busybox"):
        pytest.skip("the shell or busybox isn't installed")
    box = Box(tmp_path / "box", request.param)
    box.put_medium()
    shutil.rmtree(tmp_path / "box/medium/.disk")
    (box.folder / "medium/boot/layers").mkdir(parents=True)
    for path in ("boot/bios.img", "boot/layers/hypervisor.squashfs", "layers/cvm.qcow2"):
        shutil.copyfile(box.folder / "other", box.folder / "medium" / path)
    folder = tmp_path / "www/netboot"
    folder.parent.mkdir()
    (box.folder / "medium").rename(folder)
    (box.folder / "bin/wget").symlink_to(shutil.which("busybox"))
    (box.folder / "sys/class/net/eth0/address").write_text("52:54:00:00:00:01\n")
    (box.folder / "sys/class/net/ens3").mkdir()
    (box.folder / "sys/class/net/ens3/address").write_text(f"{MAC}\n")
    (box.folder / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n")
    asked: list[str] = []
    answers: dict = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder.parent, asked=asked,
                                                       answers=answers)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Served(box, folder, server.server_address[1], asked, answers)
        finally:
            server.shutdown()
            thread.join()


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_the_medium_is_fetched_and_mounted(served):
    assert served.boot() == 0, served.box.refusal()
    box = served.box
    assert box.refusal() == ""
    assert box.in_order([
        "ip link set dev ens3 up", "ip address add 10.0.2.15/255.255.255.0 dev ens3",
        "ip route add default via 10.0.2.2 dev ens3", "mount -t tmpfs -o mode=0755,size=100% medium /medium",
        "ip address flush dev ens3", "mount -t tmpfs -o remount,ro medium /medium",
        "mount -t squashfs -o ro,loop /medium/layers/hypervisor.squashfs /root", "mount -o move /medium /root/medium"])
    fetched = {path.relative_to(box.folder / "medium").as_posix(): path.read_bytes()
               for path in (box.folder / "medium").rglob("*") if path.is_file()}
    assert fetched == {path.relative_to(served.folder).as_posix(): path.read_bytes()
                       for path in served.folder.rglob("*") if path.is_file()}
    assert (box.folder / "run/cornerstone/medium").read_text() == f"{served.base}\n"
    assert (box.folder / "run/cornerstone/checked-root").read_text().strip() == box.wanted()
    assert (box.folder / "etc/resolv.conf").read_text() == "nameserver 10.0.2.3\n"
    assert f"cornerstone: medium {served.base}" in box.said("ttyS0")


@pytest.mark.parametrize("end", ["", "/", "/boot.ipxe"])
def test_the_folder_is_known_by_its_address_or_by_the_script_s(served, end):
    assert served.boot(base=f"{served.base}{end}") == 0, served.box.refusal()
    assert (served.box.folder / "run/cornerstone/medium").read_text() == f"{served.base}\n"


def test_without_gateway_and_name_server(served):
    assert served.boot(net=f"{MAC},10.0.2.15/255.255.255.0,,") == 0, served.box.refusal()
    assert not any("route" in call for call in served.box.calls())
    assert not (served.box.folder / "etc/resolv.conf").exists()


def other_release(folder: Path) -> None:
    """A manifest that is as good, but isn't the one."""
    flip(folder / NAME, 60)


DAMAGES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    # what is done to the folder, what is said, and whether the pin follows the manifest
    "another manifest": (other_release, f"manifest.json at BASE isn't the one that boot.ipxe names; {SERVE}, with the "
                                        "boot.ipxe of the same build", False),
    "unsigned manifest": (other_release, "manifest.json on the medium isn't signed by the key of this initramfs; "
                                         f"{SERVE}", True),
    "manifest without end": (lambda f: (f / NAME).write_bytes(bytes(MOST + 1)),
                             f"manifest.json at BASE has more than {MOST} bytes; {SERVE}", True),
    "signature": (lambda f: flip(f / SIGNATURE_NAME, 0),
                  f"manifest.json on the medium isn't signed by the key of this initramfs; {SERVE}", True),
    "byte of the root": (lambda f: flip(f / HYPERVISOR, 7),
                         f"layer hypervisor.squashfs does not match the manifest; {SERVE}", True),
    "shorter root": (lambda f: (f / HYPERVISOR).write_bytes(SQUASHFS[:-1]),
                     f"{HYPERVISOR} at BASE has {len(SQUASHFS) - 1} bytes, the manifest says {len(SQUASHFS)}; {SERVE}",
                     True),
    "longer root": (lambda f: (f / HYPERVISOR).write_bytes(SQUASHFS + b"x"),
                    f"{HYPERVISOR} at BASE has more than {len(SQUASHFS)} bytes; {SERVE}", True),
    "shorter disk": (lambda f: (f / "layers/cvm.qcow2").write_bytes(b""),
                     f"layers/cvm.qcow2 at BASE has 0 bytes, the manifest says 5; {SERVE}", True),
    "no disk": (lambda f: (f / "layers/cvm.qcow2").unlink(),
                "layers/cvm.qcow2 can't be fetched from BASE: server returned error: HTTP/1.0 404 File not found; "
                f"{SERVE}, and see that this machine may reach it", True),
}


@pytest.mark.parametrize(("damage", "says", "pinned"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_served_otherwise_is_refused_on_every_console(served, damage, says, pinned):
    pin = None if pinned else hashlib.sha256((served.folder / NAME).read_bytes()).hexdigest()
    damage(served.folder)
    assert served.boot(pin=pin) == 99
    refusal = f"REFUSED: {says.replace('BASE', served.base)}"
    assert {name: served.box.said(name)[-1] for name in CONSOLES} == dict.fromkeys(CONSOLES, refusal)
    assert not any("squashfs" in call for call in served.box.calls()), "nothing of it was mounted"


@pytest.mark.parametrize("pin", ["", "0" * 63])
def test_without_a_pin_it_refuses(served, pin):
    assert served.boot(pin=pin) == 99
    assert "isn't the one that boot.ipxe names" in served.box.refusal()


def test_large_files_are_fetched_only_after_the_signature_was_checked(served):
    flip(served.folder / SIGNATURE_NAME, 0)
    served.boot()
    assert served.asked == [f"/netboot/{NAME}", f"/netboot/{SIGNATURE_NAME}"]


@pytest.mark.parametrize("free", [1023, 1024])
def test_a_machine_with_too_little_memory_is_refused(served, free):
    (served.box.folder / "proc/meminfo").write_text(f"MemAvailable: {free * 1024} kB\n")
    refused = served.boot() == 99
    assert refused == (free < 1024)
    if refused:
        assert served.box.refusal() == (
            "REFUSED: this machine has 1023 MiB of memory free and needs 1024 to start over the network: 0 for the "
            "files and 1024 beside them; add memory, or start it from the ISO")
        assert len(served.asked) == 2


@pytest.mark.parametrize(("base", "says"), [
    ("https://host/netboot", "=https://host/netboot is no http:// address: set base in iPXE, as boot.ipxe says"),
    ("tftp://host/", "=tftp://host is no http:// address: set base in iPXE, as boot.ipxe says"),
    ("undionly.kpxe", "=undionly.kpxe is no http:// address: set base in iPXE, as boot.ipxe says"),
    ("http://", "=http:/ is no http:// address: set base in iPXE, as boot.ipxe says"),
    ("http://me:secret@host/x", "= has a user or password for all to read: leave it out"),
])
def test_other_addresses_are_refused(served, base, says):
    assert served.boot(base=base) == 99
    assert served.box.refusal() == f"REFUSED: kernel argument cornerstone.http{says}"


def test_a_card_that_no_driver_knows_is_refused_after_some_time(served):
    assert served.boot(net="52:54:00:ff:ff:ff,10.0.2.15/24,,", code=NAPS) == 99
    assert served.box.refusal() == ("REFUSED: no driver here knows the network card 52:54:00:ff:ff:ff; start this "
                                    "machine from the ISO, or over another card")


@pytest.mark.parametrize("net", ["", MAC, f"{MAC},"])
def test_without_an_address_it_refuses(served, net):
    assert served.boot(net=net) == 99
    assert served.box.refusal().startswith("REFUSED: kernel argument cornerstone.net= has to be MAC,ADDRESS/NETMASK")


@pytest.mark.parametrize(("fail", "says"), [("address add", "the address 10.0.2.15/255.255.255.0"),
                                            ("route add", "the gateway 10.0.2.2")])
def test_an_address_that_the_kernel_does_not_take_is_refused(served, fail, says):
    assert served.boot(FAIL_IP=fail) == 99
    assert served.box.refusal() == f"REFUSED: network card {MAC} can't be given {says}"


def test_what_breaks_off_or_fails_for_a_moment_is_asked_for_again(served):
    served.answers["/netboot/layers/cvm.qcow2"] = ["break off", 503]
    assert served.boot(code=NAPS) == 0, served.box.refusal()
    assert served.asked.count("/netboot/layers/cvm.qcow2") == 3
    again = [line for line in served.box.said() if line.endswith("; asking again")]
    assert len(again) == 2
    assert "503" in again[1]


def test_a_server_that_is_not_there_is_refused_after_some_time(served):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert served.boot(base=f"http://127.0.0.1:{port}/netboot", code=NAPS) == 99
    assert served.box.refusal() == (
        f"REFUSED: manifest.json can't be fetched from http://127.0.0.1:{port}/netboot: can't connect to remote host "
        f"(127.0.0.1): Connection refused; {SERVE}, and see that this machine may reach it")
    assert sum(line.endswith("; asking again") for line in served.box.said()) == 39


@pytest.mark.parametrize(("naps", "ended"), [(6, False), (7, True)])
def test_how_far_it_is_is_said_and_what_does_not_come_any_more_is_ended(served, naps, ended):
    (served.box.folder / "medium").mkdir()
    (served.box.folder / "medium/half").write_bytes(bytes(50))
    done = served.box.run(f"{FAKES}. {served.box.folder}/scripts/cornerstone-http\n"
                          f"kill() {{ echo killed $*; }}\nslept=0\n"
                          f"sleep() {{ slept=$((slept + 1)); [ $slept -le {naps} ]; }}\nwatch_fetching half 200 77")
    assert served.box.said("ttyS1") == ["cornerstone: fetching half, 25 %"] * naps
    assert done.stdout == "killed 77\n" * ended

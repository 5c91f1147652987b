"""Where the site is found at boot: kernel argument, volume, the ISO's area; on real servers, volumes and leases."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import socketserver
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from cornerstone.foundation.installer import site_source
from cornerstone.foundation.installer.site_source import (
    MOST,
    Found,
    block_devices,
    fetch,
    find_site,
    is_carried,
    kernel_arguments,
)
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts import site_area
from cornerstone.model.site.file import read_site, to_area
from machine_tree import HBA, Link, tree

SITE = b'{"blocks": []}\n'
LAB_SITE = Path(__file__).resolve().parents[2] / "sites/lab-one-node.json"
PIN = hashlib.sha256(SITE).hexdigest()
root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices take root")


@contextlib.contextmanager
def on_loopback() -> Iterator[str]:
    yield "by loopback"


def refusal(**named) -> CornerstoneError:
    with pytest.raises(CornerstoneError) as error:
        find(**named)
    assert error.value.hint
    return error.value


def find(medium: Path, url: str = "", devices=(), pin: str | None = None, **named) -> Found | None:
    """What is found with these kernel arguments; what comes over the network is pinned to SITE unless pin says else."""
    if pin is None and url.startswith("http"):
        pin = PIN
    arguments = {"foundation.site": url} if url else {}
    return find_site(medium, arguments | ({"foundation.site.sha256": pin} if pin else {}), devices=devices,
                     **{"connect": on_loopback, "carried": lambda device: True} | named)


@pytest.mark.parametrize(("line", "arguments"), [
    ("BOOT_IMAGE=/vmlinuz quiet foundation.site=http://h/?a=b",
     {"BOOT_IMAGE": "/vmlinuz", "quiet": "", "foundation.site": "http://h/?a=b"}),
    ('a="b c" "d=e f" g=\n', {"a": "b c", "d": "e f", "g": ""}),
    ("console=tty0 console=ttyS0", {"console": "ttyS0"}),
    ("it's", {"it's": ""}),
    ("", {}),
])
def test_kernel_arguments(line, arguments):
    assert kernel_arguments(line) == arguments


# the kernel argument

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.partition("?")[0]
        if name == "/moved":
            self.send_response(302)
            self.send_header("Location", "/site.json")
            self.end_headers()
        elif name == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif name.startswith("/to/"):
            self.send_response(int(name.split("/")[2]))
            self.send_header("Location", urllib.parse.unquote(name.split("/", 3)[3]))
            self.end_headers()
        elif name in ("/circle", "/moved-endless"):
            self.send_response(302)
            self.send_header("Location", "/circle" if name == "/circle" else "/site.json")
            self.end_headers()
            with contextlib.suppress(OSError):
                while name == "/moved-endless":
                    self.wfile.write(bytes(1 << 16))
        elif name == "/silent":
            self.server.release.wait()
        elif name in ("/site.json", "/endless", "/short"):
            self.send_response(200)
            if name != "/endless":
                self.send_header("Content-Length", str(len(SITE) + 5 * (name == "/short")))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(SITE)
                while name == "/endless":
                    self.wfile.write(bytes(1 << 16))
        else:
            self.send_error(404)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(certificate: Path | None = None) -> Iterator[str]:
    """A server on the loopback, with a certificate by https; yields its address."""
    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        release = threading.Event()

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server():
    with serving() as address:
        yield address


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """A server by https whose certificate this process trusts."""
    certificate = tmp_path / "server.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", "/CN=loopback", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
                    "-keyout", certificate, "-out", tmp_path / "public.pem"], check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "public.pem").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))
    with serving(certificate) as address:
        yield address


@pytest.mark.parametrize("path", ["/site.json", "/site.json?token=s3cret", "/moved"])
def test_a_url_is_fetched_and_its_query_never_shown(server, tmp_path, path):
    found = find(tmp_path, server + path)
    assert found.content == SITE
    assert found.origin == f"foundation.site={server}{path.partition('?')[0]} (by loopback)"
    assert "blocks" not in repr(found), "a site has secrets"


@pytest.mark.parametrize(("path", "message"), [
    ("/missing?token=s3cret", "can't be fetched: the server says 404 Not Found"),
    ("/elsewhere", "can't be fetched: the server says 302"),
    ("/endless", "has more than 256 KiB"),
    ("/short", "can't be fetched: the connection broke off 5 bytes before the end"),
])
def test_a_url_that_gives_no_site(server, tmp_path, path, message):
    error = refusal(medium=tmp_path, url=server + path)
    assert message in error.message and "s3cret" not in str(error)
    assert server + path.partition("?")[0] in error.message


def to(server: str, target: str, code: int = 302) -> str:
    """An address that answers with a redirect."""
    return f"{server}/to/{code}/{urllib.parse.quote(target, safe='')}"


@pytest.mark.parametrize("kind", ["server", "secure"])
def test_a11_a_site_over_the_network_needs_a_pin(request, tmp_path, kind):
    """By https too: whoever gets a certificate for a name, or the name itself, isn't the operator yet."""
    asked = []

    @contextlib.contextmanager
    def connect() -> Iterator[str]:
        asked.append(1)
        yield "by loopback"
    url = f"{request.getfixturevalue(kind)}/site.json"
    error = refusal(medium=tmp_path, url=f"{url}?token=s3cret", pin="", connect=connect)
    assert error.message == f"foundation.site={url} comes over the network, and nothing says that it is yours"
    assert "foundation.site.sha256=" in error.hint and "sha256sum" in error.hint
    assert not asked, "nothing is asked of a network that can't be believed"


@pytest.mark.parametrize("kind", ["server", "secure"])
def test_a11_another_site_than_the_pinned_one_is_refused(request, tmp_path, kind):
    url = f"{request.getfixturevalue(kind)}/site.json"
    error = refusal(medium=tmp_path, url=url, pin="0" * 64)
    assert error.code is Code.VERIFY
    assert error.message == (f"foundation.site={url} (by loopback) has the sha256 {PIN}, and foundation.site.sha256 "
                             f"is {'0' * 64}")
    assert find(tmp_path, url, pin=PIN.upper()).content == SITE


@pytest.mark.parametrize("pin", ["12", PIN[:-1], PIN + "0", f"sha256:{PIN}", PIN[:-1] + "g", " "])
def test_a11_a_pin_that_is_none_is_refused(server, tmp_path, pin):
    assert "foundation.site.sha256" in refusal(medium=tmp_path, url=f"{server}/site.json", pin=pin).message
    with pytest.raises(CornerstoneError, match="foundation.site.sha256= isn't a sha256"):
        find_site(tmp_path, {"foundation.site.sha256": ""}, devices=[])


def test_a11_a_pin_holds_wherever_the_site_is(tmp_path):
    (tmp_path / "site.json").write_bytes(SITE)
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE))
    for url in ("", "file:site.json"):
        assert find(tmp_path, url, pin=PIN).content == SITE
        assert refusal(medium=tmp_path, url=url, pin="0" * 64).code is Code.VERIFY
    (tmp_path / "site.area").write_bytes(site_area.pack(None))
    error = refusal(medium=tmp_path, pin=PIN)
    assert error.message == "foundation.site.sha256 pins a site, and there is none"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a12_no_redirect_leads_from_https_to_http(secure, server, code):
    with pytest.raises(CornerstoneError, match="redirects from https to http") as caught:
        fetch(to(secure, f"{server}/site.json", code), "https://shown")
    assert caught.value.code is Code.NETWORK and caught.value.message.startswith("https://shown ")


@pytest.mark.parametrize("make", [
    lambda secure, server: to(secure, server.replace("http", "HTTP") + "/site.json"),
    lambda secure, server: to(secure, to(secure, f"{server}/site.json")),
    # by http, by https, and back
    lambda secure, server: to(server, to(secure, f"{server}/site.json")),
    lambda secure, server: to(secure, f"http://{secure.removeprefix('https://')}/site.json"),
])
def test_a12_no_chain_of_redirects_does_either(secure, server, make):
    with pytest.raises(CornerstoneError, match="redirects from https to http"):
        fetch(make(secure, server), "shown")


@pytest.mark.parametrize("target", ["/site.json", "//{0}/site.json", "https://{0}/site.json", "HTTPS://{0}/site.json",
                                    "https://{0}/site.json#top", "https://{0}/site.json?a=b c"])
def test_a12_redirects_by_https_are_followed(secure, server, target):
    assert fetch(to(secure, target.format(secure.removeprefix("https://"))), "shown") == SITE
    assert fetch(to(server, f"{secure}/site.json"), "shown") == SITE


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/site.json", "file:///etc/passwd", "data:,x", "https://me:s3cret@h/",
                                    "https://me@h/", "https://", "https://h:port/", "https://[::1/",
                                    "http:site.json"])
def test_a12_a_redirect_to_what_is_no_address_is_refused(secure, target):
    with pytest.raises(CornerstoneError) as caught:
        fetch(to(secure, target), "shown")
    assert caught.value.code is Code.NETWORK and "s3cret" not in str(caught.value)
    assert caught.value.message.startswith("shown ")


def test_a12_redirects_come_to_an_end(server, secure):
    for each in (server, secure):
        url = f"{each}/circle"
        with pytest.raises(CornerstoneError, match="more than 10 redirects"):
            fetch(url, "shown")


def test_a12_what_comes_with_a_redirect_is_not_read(server):
    assert fetch(f"{server}/moved-endless", "shown") == SITE


def test_a_server_that_says_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(site_source, "SILENCE_SECONDS", 1)
    error = refusal(medium=tmp_path, url=f"{server}/silent")
    assert "nothing came for 1 s" in error.message and error.code is Code.NETWORK


def test_a_server_that_is_not_there(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as gone:
        url = f"http://127.0.0.1:{gone.server_port}/site.json"
    error = refusal(medium=tmp_path, url=url)
    assert "Connection refused" in error.message and error.code is Code.NETWORK


@pytest.mark.parametrize("url", ["ftp://h/site.json", "site.json", "http://", "http://me:s3cret@h/x", "file:",
                                 "https:///x"])
def test_what_is_no_address_of_a_site_file(tmp_path, url):
    error = refusal(medium=tmp_path, url=url)
    assert "is no address of a site file" in error.message and "s3cret" not in str(error)


@pytest.mark.parametrize("form", ["file:sites/my site.json", "file:sites/my%20site.json",
                                  "file:{}/sites/my%20site.json", "file://{}/sites/my%20site.json"])
def test_a_file_on_the_medium_or_anywhere(tmp_path, form):
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites/my site.json").write_bytes(SITE)
    medium = tmp_path if "{}" not in form else tmp_path / "elsewhere"
    assert find(medium, form.format(tmp_path)).content == SITE


def test_a_file_that_is_not_there_or_too_big(tmp_path):
    assert "No such file" in refusal(medium=tmp_path, url="file:site.json").message
    (tmp_path / "site.json").write_bytes(bytes(MOST + 1))
    assert "has more than 256 KiB" in refusal(medium=tmp_path, url="file:site.json").message


# a volume

MAKERS = {
    "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "{label}", "{image}"],
    "vfat": ["mkfs.vfat", "-n", "{label}", "{image}"],
}


def volume(path: Path, kind: str, label: str, content: bytes | None) -> Path:
    """An image of a file system with that content as site.json."""
    image = path.with_suffix(f".{kind}")
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run([word.format(label=label, image=image) for word in MAKERS[kind]], check=True, capture_output=True)
    if content is not None:
        source = path.with_suffix(".json")
        source.write_bytes(content)
        command = (["mcopy", "-i", image, source, "::site.json"] if kind == "vfat" else
                   ["debugfs", "-w", "-R", f"write {source} site.json", image])
        subprocess.run(command, check=True, capture_output=True)
    return image


@contextlib.contextmanager
def attached(image: Path, *options: str) -> Iterator[Path]:
    device = subprocess.run(["losetup", "--find", "--show", *options, image], check=True, capture_output=True,
                            text=True).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@root
@pytest.mark.parametrize(("kind", "label"), [("ext4", "FOUNDATION-SITE"), ("vfat", "FOUND-SITE")])
def test_a_volume_is_read_and_stays_as_it_was(tmp_path, kind, label):
    image = volume(tmp_path / "stick", kind, label, SITE)
    before = image.read_bytes()
    with attached(volume(tmp_path / "other", "ext4", "DATA", b"no site"), "--read-only") as other, \
            attached(image) as stick:
        found = find(tmp_path, devices=[other, stick])
    assert found == Found(SITE, f"volume FOUNDATION-SITE on {stick}")
    assert image.read_bytes() == before
    assert str(stick) not in Path("/proc/self/mounts").read_text()


@root
def test_a_partition_of_a_stick_is_found(tmp_path):
    """As blkid's scan by label doesn't when the whole disk looks like something too."""
    stick = tmp_path / "stick.img"
    with stick.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["sfdisk", "-q", stick], input="start=2048,size=32768,type=83\n", text=True, check=True)
    part = volume(tmp_path / "part", "ext4", "FOUNDATION-SITE", SITE)
    with stick.open("r+b") as file:
        file.seek(2048 * 512)
        file.write(part.read_bytes())
    with attached(stick) as whole, attached(stick, "--offset", str(2048 * 512)) as inner:
        assert find(tmp_path, devices=[whole, inner]) == Found(SITE, f"volume FOUNDATION-SITE on {inner}")


@root
@pytest.mark.parametrize(("kind", "label", "content", "message"), [
    ("ext4", "FOUNDATION-SITE", None, "can't be read: No such file"),
    ("ext4", "FOUNDATION-SITE", bytes(MOST + 1), "has more than 256 KiB"),
    ("vfat", "FOUND-SITE", None, "can't be read: it isn't there, or"),
    ("vfat", "FOUND-SITE", bytes(2 * MOST), "has more than 256 KiB"),
])
def test_a_volume_without_a_site_is_refused_rather_than_passed_over(tmp_path, kind, label, content, message):
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE))
    with attached(volume(tmp_path / "stick", kind, label, content)) as stick:
        error = refusal(medium=tmp_path, devices=[stick])
        assert error.message.startswith(f"site.json on volume {label} ({stick}) {message}")
    assert str(stick) not in Path("/proc/self/mounts").read_text()


@root
def test_two_volumes_may_say_the_same_but_not_two_things(tmp_path):
    one, same, other = (volume(tmp_path / name, "vfat", "FOUND-SITE", content)
                        for name, content in (("a", SITE), ("b", SITE), ("c", SITE + b" ")))
    with attached(one) as first, attached(same) as second, attached(other) as third:
        assert find(tmp_path, devices=[first, second]).content == SITE
        error = refusal(medium=tmp_path, devices=[first, third])
    assert error.code is Code.REFUSED
    assert error.message == (
        f"two sites that aren't the same: volume FOUNDATION-SITE on {first} (sha256 {PIN[:16]}) and "
        f"volume FOUNDATION-SITE on {third} (sha256 {hashlib.sha256(SITE + b' ').hexdigest()[:16]})")


@root
def test_a13_two_partitions_of_one_stick_with_one_label_and_two_sites(tmp_path):
    one, other = (volume(tmp_path / name, "ext4", label, content) for name, label, content in (
        ("a", "FOUNDATION-SITE", SITE), ("b", "foundation-site", SITE + b" ")))
    stick = tmp_path / "stick.img"
    stick.write_bytes(bytes(1 << 20) + one.read_bytes() + other.read_bytes())
    with attached(stick, "--offset", str(1 << 20), "--sizelimit", str(16 << 20)) as first, \
            attached(stick, "--offset", str(17 << 20)) as second:
        error = refusal(medium=tmp_path, devices=[first, second])
    assert str(first) in error.message and str(second) in error.message and error.code is Code.REFUSED


@root
@pytest.mark.parametrize("label", ["FOUND-SITE", "Found-Site", "FOUNDATION-SITE"])
def test_a13_a_site_on_a_disk_that_is_built_in_is_none(tmp_path, label):
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE + b"area"))
    kind = "ext4" if len(label) > 11 else "vfat"
    told = []
    with attached(volume(tmp_path / "a", kind, label, SITE + b"tenant")) as disk, \
            attached(volume(tmp_path / "b", "vfat", "FOUND-SITE", SITE + b"stick")) as stick:
        found = find(tmp_path, devices=[disk], carried=lambda device: False, tell=told.append)
        assert found.content == SITE + b"area"
        (tmp_path / "site.area").unlink()
        assert find(tmp_path, devices=[disk], carried=lambda device: False) is None
        found = find(tmp_path, devices=[disk, stick], carried=lambda device: device == stick, tell=told.append)
        assert found.content == SITE + b"stick"
    assert told == [f"{disk} is labelled {told[0].split()[3]} and isn't removable: no site is read from it"] * 2
    assert told[0].split()[3].upper() == label.upper()


@root
def test_a13_a_volume_and_an_iso_with_two_sites_are_refused_by_both_names(tmp_path):
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE + b"area"))
    with attached(volume(tmp_path / "stick", "vfat", "FOUND-SITE", SITE)) as stick:
        error = refusal(medium=tmp_path, devices=[stick])
        assert f"volume FOUNDATION-SITE on {stick} (sha256 {PIN[:16]})" in error.message
        assert "the ISO's reserved area (sha256 " in error.message and error.code is Code.REFUSED
        # a pin says which site it has to be, not which of two: the other one is somebody's
        assert refusal(medium=tmp_path, devices=[stick], pin=PIN).code is Code.REFUSED
        (tmp_path / "site.area").write_bytes(site_area.pack(SITE))
        assert find(tmp_path, devices=[stick]).content == SITE


@root
def test_a13_the_same_site_is_the_same_in_the_words_of_the_iso(tmp_path):
    """An ISO holds it without blanks and in one order of keys."""
    content = LAB_SITE.read_bytes()
    (tmp_path / "site.area").write_bytes(site_area.pack(to_area(read_site(content))))
    assert site_area.unpack((tmp_path / "site.area").read_bytes()) != content
    with attached(volume(tmp_path / "stick", "vfat", "FOUND-SITE", content)) as stick:
        assert find(tmp_path, devices=[stick]).content == content
        site = json.loads(content)
        site["blocks"][0]["nodes"][0]["hypervisor_hostname"] = "other"
        (tmp_path / "site.area").write_bytes(site_area.pack(to_area(read_site(json.dumps(site).encode()))))
        assert refusal(medium=tmp_path, devices=[stick]).code is Code.REFUSED


USB = "usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0"


@pytest.mark.parametrize(("name", "where", "files", "carried"), [
    ("sdb", USB, {"block/sdb/removable": "0"}, True), ("sdb1", USB, {}, True), ("sr0", "ata1/host1", {}, True),
    # a bay of a server: the kernel calls it removable, and its disk is a former tenant's as any other
    ("sdb", "ata1/host1/target1:0:0/1:0:0:0", {"block/sdb/removable": "1"}, False),
    ("sdb1", "ata1/host1/target1:0:0/1:0:0:0", {"block/sdb/removable": "1"}, False),
    ("sdb", "host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0", {"block/sdb/removable": "1"}, False),
    ("sdb", "host0/target0:0:0/0:0:0:0", {"scsi_level": "6", "block/sdb/removable": "1"}, False),
    ("nvme0n1", "nvme/nvme0", {"block/nvme0n1/removable": "0"}, False), ("vda", "virtio1", {}, False),
    ("mmcblk0p1", "mmc_host/mmc0/mmc0:0001", {"type": "SD"}, True),
    ("mmcblk0p1", "mmc_host/mmc0/mmc0:0001", {"type": "MMC"}, False),
    ("dm-0", "virtual", {}, False), ("md127", "virtual", {}, False),
])
def test_a13_what_people_carry_about(tmp_path, name, where, files, carried):
    disk = name[:-2] if name.startswith("mmcblk") else name.rstrip("1") if name[:-1].isalpha() else name
    device = f"{HBA}/{where}"
    at = f"{device}/block/{disk}" + f"/{name}" * (name != disk)
    root = tree(tmp_path, {f"{device}/block/{disk}/device": Link(device), f"sys/class/block/{disk}": Link(
        f"{device}/block/{disk}"), **({f"{at}/partition": "1", f"sys/class/block/{name}": Link(at)} if name != disk
                                      else {}), **{f"{device}/{path}": text for path, text in files.items()}})
    assert is_carried(Path("/dev") / name, root / "sys") == carried


@root
def test_a_labelled_volume_with_a_broken_file_system(tmp_path):
    image = volume(tmp_path / "stick", "ext4", "FOUNDATION-SITE", SITE)
    os.truncate(image, 4 << 20)
    with attached(image) as stick:
        assert f"volume FOUNDATION-SITE ({stick}) can't be mounted" in refusal(medium=tmp_path, devices=[stick]).message


def test_devices_are_disks_and_partitions(tmp_path):
    for name in ("sda", "sda1", "sr0", "nvme0n1p2", "loop0", "ram0", "zram0", "fd0", "nbd3"):
        (tmp_path / name).mkdir()
    assert [path.name for path in block_devices(tmp_path)] == ["nvme0n1p2", "sda", "sda1", "sr0"]
    assert all(shutil.which(tool) for tool in ("blkid", "mount", "umount"))


# the ISO's area, and the order

def test_the_isos_area(tmp_path):
    assert find(tmp_path) is None
    (tmp_path / "site.area").write_bytes(site_area.pack(None))
    assert find(tmp_path) is None
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE))
    assert find(tmp_path) == Found(SITE, "the ISO's reserved area")
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE).replace(b"blocks", b"clocks"))
    assert refusal(medium=tmp_path).code is Code.VERIFY


@root
def test_the_argument_goes_before_volume_and_area(tmp_path):
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE + b"area"))
    (tmp_path / "file.json").write_bytes(SITE + b"file")
    with attached(volume(tmp_path / "stick", "vfat", "FOUND-SITE", SITE + b"volume")) as stick:
        assert find(tmp_path, "file:file.json", [stick]).content == SITE + b"file"
    assert find(tmp_path).content == SITE + b"area"


@root
def test_a13_an_area_that_is_damaged_is_not_passed_over_for_a_volume(tmp_path):
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE).replace(b"blocks", b"clocks"))
    with attached(volume(tmp_path / "stick", "vfat", "FOUND-SITE", SITE)) as stick:
        assert refusal(medium=tmp_path, devices=[stick]).code is Code.VERIFY

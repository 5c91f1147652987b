"""Where the site is found at boot: kernel argument, volume, the ISO's area; on real servers, volumes and leases."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cornerstone.foundation import site_source
from cornerstone.foundation.site_source import MOST, Found, block_devices, find_site, kernel_arguments
from cornerstone.model import site_area
from cornerstone.model.error import Code, CornerstoneError

SITE = b'{"blocks": []}\n'
root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices take root")


@contextlib.contextmanager
def on_loopback() -> Iterator[str]:
    yield "by loopback"


def refusal(**named) -> CornerstoneError:
    with pytest.raises(CornerstoneError) as error:
        find(**named)
    assert error.value.hint
    return error.value


def find(medium: Path, url: str = "", devices=()) -> Found | None:
    return find_site(medium, {"foundation.site": url} if url else {}, devices=devices, connect=on_loopback)


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


@pytest.fixture
def server():
    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        release = threading.Event()

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.release.set()
        server.shutdown()
        thread.join()


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
        assert refusal(medium=tmp_path, devices=[first, third]).message == (
            f"{first} and {third} both have a site, and not the same")


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
def test_the_argument_goes_before_the_volume_and_that_before_the_area(tmp_path):
    (tmp_path / "site.area").write_bytes(site_area.pack(SITE + b"area"))
    (tmp_path / "file.json").write_bytes(SITE + b"file")
    with attached(volume(tmp_path / "stick", "vfat", "FOUND-SITE", SITE + b"volume")) as stick:
        assert find(tmp_path, "file:file.json", [stick]).content == SITE + b"file"
        assert find(tmp_path, devices=[stick]).content == SITE + b"volume"
    assert find(tmp_path).content == SITE + b"area"

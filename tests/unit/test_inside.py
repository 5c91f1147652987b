"""What is read of a root instead of asking its programs (factory/inside): units, sshd, libraries, imports, initramfs.

That each says the same as the program does is for tests/sandbox.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.factory.inspection import elf, imports, initramfs, sshd
from cornerstone.factory.inspection.units import Units
from cornerstone.lib.error import Code, CornerstoneError
from trees import Link, make_tree

ETC, USR = "etc/systemd/system", "usr/lib/systemd/system"
BASIC = {
    f"{USR}/multi-user.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\n",
    f"{USR}/basic.target": "[Unit]\nRequires=sysinit.target\nWants=sockets.target\n"
                           "After=sysinit.target sockets.target\n",
    f"{USR}/sysinit.target": "[Unit]\n", f"{USR}/sockets.target": "[Unit]\n",
    f"{USR}/one.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    f"{ETC}/multi-user.target.wants/one.service": Link("/usr/lib/systemd/system/one.service"),
}


def units(**more):
    """Units of a root with these unit files beside the basic ones; __ in a name is a dot."""
    return Units(make_tree(BASIC | {path.replace("__", "."): content for path, content in more.items()}))


def test_states_of_units():
    found = Units(make_tree(BASIC | {
        f"{USR}/off.service": "[Install]\nWantedBy=multi-user.target\n", f"{USR}/static.service": "[Service]\n",
        f"{USR}/only.service": "[Install]\nAlso=off.service\n",
        f"{USR}/gone.service": "[Install]\nWantedBy=x\n", f"{ETC}/gone.service": Link("/dev/null"),
        f"{USR}/empty.service": "", f"{USR}/other.service": Link("one.service"),
        f"{USR}/dbus-x.service": "[Install]\nAlias=x.service\n", f"{ETC}/x.service": Link(f"/{USR}/dbus-x.service"),
        f"{USR}/a@.service": "[Install]\nWantedBy=x.target\n",
        f"{ETC}/x.target.wants/a@b.service": Link(f"/{USR}/a@.service"),
    }))
    assert {name: found.state(name) for name in found.files if name.endswith(".service")} == {
        "one.service": "enabled", "off.service": "disabled", "static.service": "static", "only.service": "indirect",
        "gone.service": "masked", "empty.service": "masked", "other.service": "alias", "dbus-x.service": "enabled",
        "x.service": "alias", "a@.service": "enabled"}


def test_presets():
    found = Units(make_tree(BASIC | {
        "usr/lib/systemd/system-preset/10-a.preset": "# words\nenable one.service\ndisable t*.service\n",
        "usr/lib/systemd/system-preset/99-b.preset": "enable two.service\ndisable *\n",
        "usr/lib/systemd/system-preset/20-c.preset": "enable x.service\n",
        "etc/systemd/system-preset/20-c.preset": "ignore x.service\n"}))
    assert [found.preset(f"{name}.service") for name in ("one", "two", "x", "y")] == [
        "enable", "disable", "ignore", "disable"]
    assert Units(make_tree(BASIC)).preset("one.service") == "enable"


def test_an_order_that_goes_somewhere():
    assert units().circle("multi-user.target") == []
    assert units().pulled("multi-user.target") == {
        "multi-user.target", "basic.target", "sysinit.target", "sockets.target", "one.service"}


@pytest.mark.parametrize("more", [
    {"one.service": "[Unit]\nBefore=sysinit.target\n"},
    {"one.service": "[Unit]\nAfter=two.service\nWants=two.service\n", "two.service": "[Unit]\nAfter=one.service\n"},
    {"one.service.d/x.conf": "[Unit]\nBefore=\\\n basic.target\n"},
    {"one.service": "[Unit]\nWants=a.socket\nBefore=a.socket\n", "a.socket": "[Unit]\nBefore=one.service\n"},
    {"one.service": "[Unit]\nWants=a.timer t@x.service\nAfter=t@x.service\n", "a.timer": "[Timer]\nUnit=t@x.service\n",
     "t@.service": "[Unit]\nAfter=one.service\n"},
    {"one.service": "[Service]\nType=dbus\n[Unit]\nWants=dbus.socket\n", "dbus.socket": "[Unit]\nAfter=one.service\n"},
], ids=["defaults", "two", "drop-in", "socket", "template", "bus"])
def test_an_order_that_goes_round(more):
    found = units(**{f"{ETC}/{name}": text for name, text in more.items()}).circle("multi-user.target")
    assert len(found) >= 2
    assert "one.service" in found


def test_without_the_defaults_there_is_no_circle():
    found = units(**{f"{ETC}/one.service": "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n"})
    assert found.circle("multi-user.target") == []


SSHD = {"etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\nUsePAM yes\n"}


def test_sshd_takes_the_first_value():
    found = sshd.settings(make_tree(SSHD | {
        "etc/ssh/sshd_config.d/10-a.conf": "# a\nPasswordAuthentication=no\nPermitRootLogin without-password\n",
        "etc/ssh/sshd_config.d/20-b.conf": "PermitRootLogin yes\nChallengeResponseAuthentication no\n",
        "etc/ssh/sshd_config.d/30-c": "PermitEmptyPasswords yes\n"}))
    assert {name: found[name] for name in sshd.DEFAULTS} == {
        "passwordauthentication": "no", "permitrootlogin": "prohibit-password", "kbdinteractiveauthentication": "no",
        "permitemptypasswords": "no"}
    assert sshd.settings(make_tree(SSHD))["passwordauthentication"] == "yes"


@pytest.mark.parametrize(("name", "text"), [
    ("x.conf", "Match User root\nPasswordAuthentication yes\n"), ("x.conf", "Include sshd_config.d/x.conf\n")])
def test_sshd_with_other_settings_for_some_or_without_an_end_is_refused(name, text):
    with pytest.raises(ValueError, match="Match User root|includes itself"):
        sshd.settings(make_tree(SSHD | {f"etc/ssh/sshd_config.d/{name}": text}))


def test_libraries_of_a_program():
    """Those of this machine's own Python, put into a root one after another."""
    program = Path(sys.executable).resolve().read_bytes()
    names, _ = elf.needed(program)
    assert "libc.so.6" in names
    listing = subprocess.run(["ldd", Path(sys.executable).resolve()], capture_output=True, text=True, check=True).stdout
    found = {words[0]: Path(words[2]).read_bytes() for line in listing.splitlines() if len(words := line.split()) > 3}
    root = {"usr/bin/x": program, "lib64": Link("usr/lib64"),
            "usr/lib64/ld-linux-x86-64.so.2": b"\x7fELF\x02\x01".ljust(64, b"\0")}
    lacking = elf.missing(make_tree(root), "usr/bin/x")
    assert any(line.startswith("libc.so.6, which usr/bin/x needs") for line in lacking)
    root |= {"etc/ld.so.conf.d/x.conf": "# x\n/opt/lib\n", **{f"opt/lib/{name}": each for name, each in found.items()}}
    assert elf.missing(make_tree(root), "usr/bin/x") == []


def test_scripts_and_what_is_no_program():
    assert elf.missing(make_tree({"x": "#!/usr/bin/python3 -I\n"}), "x") == [
        "/usr/bin/python3, the interpreter of x"]
    for content in (b"", b"text", b"\x7fELF\x02\x01", b"\x7fELF\x02\x01".ljust(56, b"\xff") + b"\xff" * 8):
        with pytest.raises(ValueError, match="no ELF file|damaged"):
            elf.missing(make_tree({"x": content}), "x")


PYTHON = {"usr/bin/python3": Link("python3.11"), "usr/lib/python3.11/json/__init__.py": "",
          "usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so": "",
          "usr/lib/python3/dist-packages/rados.cpython-311-x86_64-linux-gnu.so": "",
          "usr/lib/cornerstone/cornerstone/__init__.py": "", "usr/lib/cornerstone/cornerstone/model/__init__.py": "",
          "usr/lib/cornerstone/cornerstone/lib/__init__.py": "",
          "usr/lib/cornerstone/cornerstone/lib/error.py": "class CornerstoneError: pass\n"}


@pytest.mark.parametrize(("text", "lacking"), [
    ("import json, sys, _ssl, rados\nfrom cornerstone.lib.error import CornerstoneError\n", []),
    ("from cornerstone.lib import error\n", []),
    ("def later():\n    import pydantic.main\n", ["pydantic, which cornerstone.x imports"]),
    ("import cornerstone.model.gone\n", ["cornerstone.model.gone, which cornerstone.x imports"]),
    ("from cornerstone.factory import build\n", ["cornerstone.factory, which cornerstone.x imports"]),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pydantic\n",
     ["typing, which cornerstone.x imports"]),
    ("def (:\n", ["what usr/lib/cornerstone/cornerstone/x.py says in line 1, for a Python 3.11"]),
])
def test_imports(text, lacking):
    tree = make_tree(PYTHON | {"usr/lib/cornerstone/cornerstone/x.py": text})
    assert imports.missing(tree, "cornerstone.x") == lacking


def test_an_initramfs_of_several_archives():
    small = archive({"kernel/x86/microcode": b"code"})
    main = archive({"scripts/local": b"#!sh\n", "bin": Link("usr/bin"), "kernel/x86/microcode": b"newer"})
    packed = subprocess.run(["zstd", "-q", "-c"], input=main, capture_output=True, check=True).stdout
    for content in (small + bytes(512) + packed, small + bytes(100) + gzip.compress(main), small + main):
        assert initramfs.files(content) == {
            "kernel/x86/microcode": b"newer", "scripts/local": b"#!sh\n", "bin": b"usr/bin"}


def zstd(content: bytes, *words: str) -> bytes:
    return subprocess.run(["zstd", "-q", "-c", *words], input=content, capture_output=True, check=True).stdout


@pytest.mark.parametrize("pack", [gzip.compress, zstd, lambda content: zstd(content, "--no-check"),
                                  lambda content: zstd(content, "--stream-size", str(len(content)))])
def test_an_initramfs_whose_packed_archives_follow_one_another(pack):
    one, two = archive({"a": bytes(300_000), "b": b"old"}), archive({"b": b"new", "c": bytes(range(256)) * 2000})
    for between in (b"", b"\0", bytes(7)):
        assert initramfs.files(pack(one) + between + pack(two)) == {
            "a": bytes(300_000), "b": b"new", "c": bytes(range(256)) * 2000}


def test_an_initramfs_of_very_many_archives_is_refused(monkeypatch):
    monkeypatch.setattr(initramfs, "MOST_ARCHIVES", 3)
    assert initramfs.files(archive({"x": b""}) * 3) == {"x": b""}
    with pytest.raises(CornerstoneError, match="too large"):
        initramfs.files(archive({"x": b""}) * 4)


def test_a1_small_archives_of_an_initramfs_don_t_fill_the_memory_together(monkeypatch):
    monkeypatch.setattr(initramfs, "MOST", 1 << 20)
    for pack in (zstd, gzip.compress):
        with pytest.raises(CornerstoneError, match="too large"):
            initramfs.files(pack(archive({"x": bytes(600_000)})) * 2)


@pytest.mark.parametrize("content", [
    b"junk", b"070701" + b"0" * 30, b"\x28\xb5\x2f\xfd junk", b"\x1f\x8b junk", b"070701" + b"f" * 104 + bytes(8)])
def test_an_initramfs_that_is_none_is_refused(content):
    with pytest.raises(CornerstoneError, match="the initramfs can't be read") as caught:
        initramfs.files(content)
    assert caught.value.code is Code.VERIFY


@pytest.mark.parametrize("pack", [
    gzip.compress, lambda content: subprocess.run(["zstd", "-q", "-c"], input=content, capture_output=True,
                                                  check=True).stdout])
def test_a1_a_small_initramfs_doesn_t_fill_the_memory(pack, monkeypatch):
    monkeypatch.setattr(initramfs, "MOST", 1 << 20)
    with pytest.raises(CornerstoneError, match="too large"):
        initramfs.files(pack(archive({"x": bytes(8 << 20)})))


def archive(names):
    """A cpio archive in the kernel's form."""
    content = b""
    for name, each in (*names.items(), ("TRAILER!!!", b"")):
        mode = 0o120777 if isinstance(each, Link) else 0o100644
        each = each.encode() if isinstance(each, str) else each
        fields = (1, mode, 0, 0, 1, 0, len(each), 0, 0, 0, 0, len(name) + 1, 0)
        content += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        content += bytes(-len(content) % 4) + each + bytes(-len(each) % 4)
    return content

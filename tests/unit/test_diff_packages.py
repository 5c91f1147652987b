"""Packages in a root: their order by version as dpkg itself has it, and who owns what."""

import itertools
import subprocess

import pytest

from cornerstone.factory.diff import packages
from cornerstone.factory.inspection.roots import File
from cornerstone.factory.packages import debian_version

VERSIONS = ["0", "1", "1-0", "1-1", "1.0", "1.0~rc1", "1.0~rc1-1", "1.0~~", "1.0~", "1.0a", "1.0+deb12u1", "1.0+b1",
            "1:0.9", "2:0.1-1", "1.2.3-4", "1.2.3-4~bpo12+1", "1.10", "1.9", "1.09", "1.2-3-4", "1.51~1+deb12u1+16.1-2",
            "3.20250311.1~deb12u1", "3.20250311.1", "2026f-0+deb13u1", "1:1.2.13.dfsg-1",
            "1:1.3.dfsg+really1.3.1-1+deb13u1", "a", "1a1", "1a01", "12.4+deb12u15", "12.4+deb12u9"]


def by_dpkg(a, b):
    return next(order for order, word in ((-1, "lt"), (0, "eq"), (1, "gt"))
                if subprocess.run(["dpkg", "--compare-versions", a, word, b], stderr=subprocess.DEVNULL,
                                  check=False).returncode == 0)


def test_versions_are_ordered_as_dpkg_orders_them():
    # dpkg takes a few ms a pair: each version with its neighbours and some further away
    pairs = [(a, b) for (n, a), (m, b) in itertools.product(enumerate(VERSIONS), repeat=2) if (n - m) % 5 < 2]
    ours = {pair: debian_version.compare(*pair) for pair in pairs}
    assert ours == {pair: by_dpkg(*pair) for pair in pairs}


STATUS = b"""Package: libc6
Status: install ok installed
Multi-Arch: same
Architecture: amd64
Version: 2.36-9
Description: C library
 Version: not this

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-9

Package: kept
Status: hold ok installed
Architecture: all
Version: 1:2
"""


def test_installed_packages_come_from_dpkg_s_status():
    assert packages.versions({packages.STATUS: STATUS}) == {"libc6": "2.36-9", "libc6:i386": "2.36-9", "kept": "1:2"}


def test_a_root_without_dpkg_has_no_packages():
    assert packages.versions({}) == {}
    assert packages.owners({}, {"usr": File("folder", 0o755, 0, 0, 0, "")}) == {}


@pytest.mark.parametrize(("path", "owner"), [
    ("usr/bin/tool", "tool"), ("usr/lib/tool/x", "tool"), ("usr/share", None), ("usr/share/tool", "tool"),
    ("var/lib/dpkg/info/tool:amd64.list", "tool"), ("var/lib/dpkg/info/other.postinst", "other"),
    ("usr/lib/py/__pycache__", "tool"), ("usr/lib/py/__pycache__/mod.cpython-313.pyc", "tool"),
    ("usr/lib/py/__pycache__/nobody.cpython-313.pyc", None), ("etc/shadow", None)])
def test_owner_of_a_path(path, owner):
    kept = {"var/lib/dpkg/info/tool:amd64.list": b"/.\n/usr\n/usr/bin\n/bin/tool\n/lib/tool/x\n/usr/share\n"
                                                 b"/usr/share/tool\n/usr/lib/py\n/usr/lib/py/mod.py\n",
            "var/lib/dpkg/info/other.list": b"/.\n/usr\n/usr/share\n", packages.STATUS: STATUS}
    link, file = File("link", 0o777, 0, 0, 0, "usr/lib"), File("file", 0o644, 0, 0, 1, "00")
    files = {"lib": link, "bin": link._replace(content="usr/bin"), path: file}
    assert packages.owners(kept, files).get(path) == owner


@pytest.mark.parametrize(("path", "wanted"), [
    ("var/lib/dpkg/status", True), ("var/lib/dpkg/info/x.list", True), ("var/lib/dpkg/info/x.md5sums", False),
    ("var/lib/dpkg/status-old", False), ("usr/share/x.list", False)])
def test_content_that_is_wanted(path, wanted):
    assert packages.wanted(path) is wanted

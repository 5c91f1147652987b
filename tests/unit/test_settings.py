"""Where the Debian archive is: settings first, then what this machine's apt uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cornerstone.factory.settings import Mirror, Workspace, find_mirror
from cornerstone.model.error import Code, CornerstoneError

MAIN, SECURITY = "http://deb.example.org/debian", "http://deb.example.org/debian-security"
ONE_LINE = f"""# deb http://commented.example.org/debian trixie main
deb-src http://sources.example.org/debian trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {MAIN} trixie main
deb http://sec.example.org/debian-security trixie-security main
"""
DEB822 = f"""Types: deb
URIs: {MAIN}/
Suites: trixie trixie-updates
Components: main

Types: deb
URIs: http://sec.example.org/debian-security/
Suites: trixie-security
"""
UBUNTU = "Types: deb\nURIs: http://archive.example.org/ubuntu/\nSuites: noble\n"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("CORNERSTONE_MIRROR", "CORNERSTONE_SECURITY_MIRROR", "CORNERSTONE_CACHE"):
        monkeypatch.delenv(name, raising=False)


def apt(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir()
    for name, content in files.items():
        stem, _, kind = name.rpartition("_")
        (folder / ("sources.list" if name == "main" else f"sources.list.d/{stem}.{kind}")).write_text(content)
    return folder


@pytest.mark.parametrize(("files", "expected"), [
    ({"main": ONE_LINE}, Mirror(MAIN, "http://sec.example.org/debian-security")),
    ({"debian_sources": DEB822}, Mirror(MAIN, "http://sec.example.org/debian-security")),
    ({"main": "# moved to debian.sources\n", "debian_sources": DEB822},
     Mirror(MAIN, "http://sec.example.org/debian-security")),
    ({"main": f"deb {MAIN} trixie main\n"}, Mirror(MAIN, SECURITY)),
    ({"main": f"deb {MAIN}/ trixie main\n"}, Mirror(MAIN, SECURITY)),
    ({"both_sources": f"Types: deb\nURIs: http://x.example.org/ubuntu {MAIN}\n"}, Mirror(MAIN, SECURITY)),
    ({"ubuntu_sources": UBUNTU, "zz_list": f"deb {MAIN} sid main\n"}, Mirror(MAIN, SECURITY)),
    ({"main": f"deb cdrom:[Debian 13]/ trixie main\ndeb {MAIN} trixie main\n"}, Mirror(MAIN, SECURITY)),
    ({"main": "deb file:///srv/mirror/debian trixie main\n"},
     Mirror("file:///srv/mirror/debian", "file:///srv/mirror/debian-security")),
], ids=["one line", "deb822", "old and new", "implied security", "slash", "two addresses", "beside ubuntu", "cdrom",
        "file"])
def test_mirror_from_apt(tmp_path, files, expected):
    assert find_mirror(apt(tmp_path, **files)) == expected


@pytest.mark.parametrize("files", [
    {}, {"ubuntu_sources": UBUNTU}, {"main": "# nothing\n"},
    {"debian_sources~": DEB822}, {"debian_disabled": DEB822},
    {"image_sources": "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\n"},
], ids=["empty", "ubuntu only", "comments", "editor's copy", "switched off", "mirror list"])
def test_no_mirror(tmp_path, files):
    with pytest.raises(CornerstoneError) as caught:
        find_mirror(apt(tmp_path, **files))
    assert caught.value.message == "no Debian mirror is known: apt on this machine names none"
    assert "CORNERSTONE_MIRROR" in caught.value.hint
    assert caught.value.code is Code.NETWORK


def test_no_apt_at_all(tmp_path):
    with pytest.raises(CornerstoneError):
        find_mirror(tmp_path / "missing")


def test_stanza_that_is_off(tmp_path):
    off = DEB822.replace("Types: deb\n", "Enabled: no\nTypes: deb\n")
    assert find_mirror(apt(tmp_path, a_sources=off, b_list="deb http://on.example.org/debian sid main\n")).main \
        == "http://on.example.org/debian"


@pytest.mark.parametrize(("main", "security", "expected"), [
    ("http://set.example.org/debian", "", Mirror("http://set.example.org/debian",
                                                 "http://set.example.org/debian-security")),
    ("http://set.example.org/debian/", "http://s.example.org/x/", Mirror("http://set.example.org/debian",
                                                                         "http://s.example.org/x")),
    ("", "http://s.example.org/x", Mirror(MAIN, "http://s.example.org/x")),
])
def test_settings_win(tmp_path, monkeypatch, main, security, expected):
    monkeypatch.setenv("CORNERSTONE_MIRROR", main)
    monkeypatch.setenv("CORNERSTONE_SECURITY_MIRROR", security)
    assert find_mirror(apt(tmp_path, debian_sources=DEB822)) == expected


def test_bases():
    mirror = Mirror(MAIN, SECURITY)
    assert (mirror.base("main"), mirror.base("security")) == (MAIN, SECURITY)


def test_workspace(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    assert workspace.cache == tmp_path / "output" / "cache"
    monkeypatch.setenv("CORNERSTONE_CACHE", "relative")
    assert workspace.cache == Path.cwd() / "relative"
    assert workspace.pool.parent == workspace.layers.parent == workspace.temporary.parent == workspace.cache
    assert workspace.locks == tmp_path / "versions" / "locks"


def test_limit_of_the_layers(tmp_path, monkeypatch):
    monkeypatch.delenv("CORNERSTONE_LAYERS_GIB", raising=False)
    assert Workspace(tmp_path).layers_limit == 20 << 30
    monkeypatch.setenv("CORNERSTONE_LAYERS_GIB", "3")
    assert Workspace(tmp_path).layers_limit == 3 << 30


@pytest.mark.parametrize("text", ["x", "-1", "20 GiB", "1.5"])
def test_limit_that_is_no_number(tmp_path, monkeypatch, text):
    monkeypatch.setenv("CORNERSTONE_LAYERS_GIB", text)
    with pytest.raises(CornerstoneError, match="CORNERSTONE_LAYERS_GIB"):
        _ = Workspace(tmp_path).layers_limit

"""Where the Debian archive is: settings first, then what this machine's apt uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cornerstone.factory.settings import Mirror, Workspace, find_mirror, find_snapshot
from cornerstone.lib import apt as apt_module
from cornerstone.lib.error import Code, CornerstoneError

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
    for name in ("CORNERSTONE_MIRROR", "CORNERSTONE_SECURITY_MIRROR", "CORNERSTONE_CACHE", "CORNERSTONE_KEYRING"):
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
], ids=["empty", "ubuntu only", "comments", "editor's copy", "switched off"])
def test_no_mirror(tmp_path, files):
    with pytest.raises(CornerstoneError) as caught:
        find_mirror(apt(tmp_path, **files))
    assert caught.value.message == "no Debian mirror is known: apt on this machine names none"
    assert "CORNERSTONE_MIRROR" in caught.value.hint
    assert caught.value.code is Code.NETWORK


def test_no_apt_at_all(tmp_path):
    with pytest.raises(CornerstoneError):
        find_mirror(tmp_path / "missing")


CLOUD = """Types: deb deb-src
URIs: mirror+file://{folder}/mirrors/debian.list
Suites: trixie trixie-updates trixie-backports
Components: main

Types: deb deb-src
URIs: mirror+file://{folder}/mirrors/debian-security.list
Suites: trixie-security
Components: main
"""


def cloud(folder: Path, main: str, security: str) -> Path:
    """A folder like /etc/apt of Debian's cloud images."""
    apt(folder, debian_sources=CLOUD.format(folder=folder))
    (folder / "mirrors").mkdir()
    (folder / "mirrors/debian.list").write_text(main)
    (folder / "mirrors/debian-security.list").write_text(security)
    return folder


def test_mirror_list_of_a_cloud_image_m24(tmp_path):
    found = find_mirror(cloud(tmp_path, f"{MAIN}\n", f"{SECURITY}\n"))
    assert found == Mirror(MAIN, SECURITY)


def test_mirror_list_with_priorities_types_and_several_archives_m24(tmp_path):
    found = find_mirror(cloud(tmp_path, "# ours\nhttp://far.example.org/debian\tpriority:2\n"
                              "http://src.example.org/debian type:deb-src\n"
                              "http://near.example.org/debian/ priority:1\n",
                              f"{SECURITY}\n"))
    assert found == Mirror("http://near.example.org/debian", SECURITY)
    assert found.others == (Mirror("http://far.example.org/debian", SECURITY),)


@pytest.mark.parametrize("main", ["", "# none\n", None], ids=["empty", "comments", "missing"])
def test_mirror_list_that_names_nothing_is_refused_by_its_name_m24(tmp_path, main):
    cloud(tmp_path, main or "", "")
    if main is None:
        (tmp_path / "mirrors/debian.list").unlink()
    with pytest.raises(CornerstoneError, match="mirrors/debian.list names no archive") as caught:
        find_mirror(tmp_path)
    assert caught.value.code is Code.NETWORK


@pytest.mark.parametrize(("text", "expected"), [
    (f"Types: deb\nURIs:\n {MAIN}\nSuites: trixie\nComponents: main\n", Mirror(MAIN, SECURITY)),
    (f"types: deb\nuris: http://x.example.org/ubuntu\n# between\n\t{MAIN}\nsuites:\n trixie\ncomponents: main\n",
     Mirror(MAIN, SECURITY)),
    ("Types: deb\nURIs: http://all.example.org/os\nSuites: trixie trixie-updates\nComponents: main\n\n"
     "Types: deb\nURIs: http://all.example.org/os\nSuites: trixie-security\nComponents: main\n",
     Mirror("http://all.example.org/os", "http://all.example.org/os")),
    (f"Types: deb\nURIs: http://docker.example.org/linux/debian\nSuites: trixie\nComponents: stable\n\n"
     f"Types: deb\nURIs: {MAIN}\nSuites: trixie\nComponents: main\n", Mirror(MAIN, SECURITY)),
], ids=["continued", "lower case and comments", "another path", "somebody else's for debian"])
def test_deb822_as_apt_reads_it_m25(tmp_path, text, expected):
    assert find_mirror(apt(tmp_path, a_sources=text)) == expected


@pytest.mark.parametrize("scheme", ["tor+http", "s3", "cdrom"])
def test_scheme_that_apt_can_not_use_is_refused_by_name_m25(tmp_path, monkeypatch, scheme):
    text = f"Types: deb\nURIs: {scheme}://deb.example.org/debian\nSuites: trixie\nComponents: main\n"
    with pytest.raises(CornerstoneError, match=re.escape(scheme)) as caught:
        find_mirror(apt(tmp_path, a_sources=text))
    assert caught.value.code is Code.NETWORK
    monkeypatch.setenv("CORNERSTONE_MIRROR", f"{scheme}://deb.example.org/debian")
    with pytest.raises(CornerstoneError, match=re.escape(repr(scheme))):
        find_mirror()


def test_how_a_source_is_trusted_comes_along_m29(tmp_path):
    key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n -----END PGP PUBLIC KEY BLOCK-----"
    text = (f"Types: deb\nURIs: {MAIN}\nSuites: trixie\nComponents: main\nArchitectures: amd64\nSigned-By:\n {key}\n")
    line = "deb [arch=amd64 signed-by=/srv/a.gpg,/srv/b.gpg check-valid-until=no] " \
           "http://s.example.org/debian-security trixie-security main\n"
    found = find_mirror(apt(tmp_path, a_sources=text, b_list=line))
    assert found.options["main"] == f"Signed-By:\n {key}\n"
    assert found.options["security"] == "signed-by: /srv/a.gpg /srv/b.gpg\ncheck-valid-until: no\n"


def test_a_keyring_can_be_set_m29(tmp_path, monkeypatch):
    monkeypatch.setenv("CORNERSTONE_KEYRING", str(tmp_path / "own.gpg"))
    monkeypatch.setenv("CORNERSTONE_MIRROR", MAIN)
    with pytest.raises(CornerstoneError, match="CORNERSTONE_KEYRING"):
        find_mirror()
    (tmp_path / "own.gpg").touch()
    assert find_mirror().options == dict.fromkeys(("main", "security"), f"Signed-By: {tmp_path}/own.gpg\n")


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


def test_passwords_of_settings_are_not_shown_m28(tmp_path, monkeypatch):
    for name, value in (("CORNERSTONE_SNAPSHOT_MIRROR", "http://us:s3cret@example.org/{date}"),
                        ("CORNERSTONE_MIRROR", "gopher://us:s3cret@example.org/debian")):
        monkeypatch.setenv(name, value)
        with pytest.raises(CornerstoneError) as caught:
            (find_snapshot if "SNAPSHOT" in name else find_mirror)()
        assert "example.org" in caught.value.message
        assert "s3cret" not in str(caught.value)


def test_machine_without_apt_is_told_so_m24(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(apt_module, "HELPER", tmp_path / "apt-helper")
    for call in (find_mirror, lambda: apt_module.download([])):
        with pytest.raises(CornerstoneError, match="apt-config is not installed|apt-helper is missing") as caught:
            call()
        assert caught.value.code is Code.MACHINE


def test_mirror_list_by_a_setting_m24(tmp_path, monkeypatch):
    (tmp_path / "list").write_text(f"{MAIN}\n")
    monkeypatch.setenv("CORNERSTONE_MIRROR", f"mirror+file:{tmp_path}/list")
    assert find_mirror() == Mirror(MAIN, SECURITY)

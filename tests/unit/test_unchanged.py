"""Nothing changed: seen by stat alone, and never where anything that a plan reads or a build leaves has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cornerstone.cli import up_to_date
from cornerstone.factory.build import unchanged
from cornerstone.factory.settings import Workspace

NAME = "aos-6.8"
TOLD = {"lines": [".name = aos-6.8"], "signed": "development-signed", "iso": "/x.iso",
        "message": "/x.iso is up to date"}


@pytest.fixture
def checkout(workspace, monkeypatch) -> Workspace:
    """A checkout, its products and its key, all of long ago."""
    monkeypatch.setattr(unchanged, "DPKG", workspace.root / "status")
    monkeypatch.setattr(unchanged, "FRESH_NS", -1 << 62)
    for path in ("src/cornerstone/a.py", "elements/base/static/etc/x", "versions/locks/x.lock", "profiles/aos-6.8.yaml",
                 "tasks.py", "status", "output/cache/keys/development.pem", f"output/{NAME}/x.iso",
                 f"output/{NAME}/netboot/boot.ipxe", f"output/{NAME}/build.json"):
        (workspace.root / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / path).write_text("x")
    return workspace


def note(checkout: Workspace) -> None:
    unchanged.remember(checkout, NAME, unchanged.look(checkout, NAME), TOLD)


def known(checkout: Workspace) -> bool:
    return unchanged.recall(checkout, NAME, unchanged.look(checkout, NAME)) is not None


def test_as_it_was(checkout):
    assert not known(checkout)
    note(checkout)
    assert known(checkout)
    # what every build and every start of Python writes
    (checkout.output / NAME / "events.jsonl").write_text("{}\n")
    (checkout.output / NAME / "logs").mkdir()
    (checkout.root / "src/cornerstone/__pycache__").mkdir()
    (checkout.root / "src/cornerstone/__pycache__/a.pyc").touch()
    assert known(checkout)


def keep_times(path: Path, change: Callable[[Path], object]) -> None:
    """Change a file in a way that size and time of content don't show."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "code": lambda root: (root / "src/cornerstone/a.py").write_text("xy"),
    "code, its time put back": lambda root: keep_times(root / "src/cornerstone/a.py",
                                                         lambda path: path.write_text("y")),
    "a new module": lambda root: (root / "src/cornerstone/b.py").touch(),
    "a module gone": lambda root: (root / "src/cornerstone/a.py").unlink(),
    "a static file": lambda root: (root / "elements/base/static/etc/x").write_text("xy"),
    "executable": lambda root: (root / "elements/base/static/etc/x").chmod(0o755),
    "a lock": lambda root: (root / "versions/locks/x.lock").write_text("xy"),
    "the profile": lambda root: (root / "profiles/aos-6.8.yaml").write_text("xy"),
    "the tasks": lambda root: (root / "tasks.py").write_text("xy"),
    "the tools": lambda root: (root / "status").write_text("xy"),
    "the key": lambda root: (root / "output/cache/keys/development.pem").write_text("xy"),
    "the ISO": lambda root: keep_times(root / f"output/{NAME}/x.iso", lambda path: path.write_text("y")),
    "the ISO gone": lambda root: (root / f"output/{NAME}/x.iso").unlink(),
    "the folder netboot": lambda root: (root / f"output/{NAME}/netboot/boot.ipxe").write_text("xy"),
    "the build's record": lambda root: (root / f"output/{NAME}/build.json").write_text("xy"),
    "a paper gone": lambda root: (root / f"output/{NAME}/build.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_has_changed_is_for_the_plan_to_decide(checkout, change):
    note(checkout)
    change(checkout.root)
    assert not known(checkout)


@pytest.mark.parametrize("setting", unchanged.KEY_SETTINGS)
def test_another_key_is_for_the_plan_to_decide(checkout, monkeypatch, setting):
    note(checkout)
    monkeypatch.setenv(setting, "pkcs11:token=x")
    assert not known(checkout)


def test_another_cache_is_for_the_plan_to_decide(checkout, monkeypatch):
    note(checkout)
    monkeypatch.setenv("CORNERSTONE_CACHE", str(checkout.root / "elsewhere"))
    assert not known(checkout)


@pytest.mark.parametrize("word", ["profiles/aos-6.8.yaml", "aos-6.8.yaml", "./aos-6.8"])
def test_a_path_may_lead_anywhere(checkout, word):
    assert unchanged.look(checkout, word) is None


def test_what_changed_while_the_plan_read_it_is_not_remembered(checkout):
    inputs = unchanged.look(checkout, NAME)
    (checkout.root / "src/cornerstone/a.py").write_text("xy")
    unchanged.remember(checkout, NAME, inputs, TOLD)
    assert not known(checkout)


def test_a_file_that_may_change_again_within_one_tick_is_not_remembered(checkout, monkeypatch):
    monkeypatch.setattr(unchanged, "FRESH_NS", 10**12)
    note(checkout)
    assert not known(checkout)


@pytest.mark.parametrize("content", ["", "[]", "7", "{", "\0"])
def test_a_record_of_another_shape_is_none(checkout, content):
    note(checkout)
    (checkout.output / NAME / unchanged.NAME).write_text(content)
    assert not known(checkout)


def test_it_is_told_as_by_a_build(checkout, capsys, monkeypatch):
    monkeypatch.setattr(up_to_date.os, "geteuid", lambda: 0)
    note(checkout)
    assert up_to_date.tell_up_to_date(checkout, NAME, unchanged.look(checkout, NAME))
    said = capsys.readouterr()
    assert said.out == "/x.iso\n"
    assert said.err == (".name = aos-6.8\n= iso                  cached  /x.iso is up to date\ndevelopment-signed\n")
    assert '"state": "cached"' in (checkout.output / NAME / "events.jsonl").read_text()
    monkeypatch.setattr(up_to_date.os, "geteuid", lambda: 1000)
    assert not up_to_date.tell_up_to_date(checkout, NAME, unchanged.look(checkout, NAME))


@pytest.mark.parametrize(("signed", "files", "customised"), [
    ("release-signed", None, False), ("development-signed", "files", False), ("development-signed", None, True)])
def test_a_release_a_profile_with_files_and_an_iso_with_a_site_are_looked_at_each_time(checkout, signed, files,
                                                                                       customised):
    note(checkout)
    profile = SimpleNamespace(name=NAME, additions=lambda root: SimpleNamespace(files=files), lines=list)
    inputs = unchanged.look(checkout, NAME)
    up_to_date.note_up_to_date(checkout, profile, inputs, Path("/x.iso"), signed, lambda iso: customised)
    assert not known(checkout)
    up_to_date.note_up_to_date(checkout, SimpleNamespace(name=NAME, additions=lambda root: SimpleNamespace(files=None),
                                                         lines=list),
                               inputs, Path("/x.iso"), "development-signed", lambda iso: False)
    assert known(checkout)

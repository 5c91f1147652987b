"""More samples of the kinds of faults that the tests t1 to t60 name: other tasks, files and words than theirs."""

from __future__ import annotations

import json
import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import test_command_line
from cornerstone.cli import building, cleaning, inputs
from cornerstone.customize import site_new
from cornerstone.factory.packages.lock import EARLIEST, parse, read_lock
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.store import layers
from cornerstone.factory.store.layers import Layer, Store
from cornerstone.lib import filelock, junit
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import DEEPEST
from cornerstone.model.profile.additions import MOST_BYTES, ExtraFile, read_tree
from cornerstone.model.profile.profile import profile_names
from test_command_line import ONE, ROOT, fake_build, require_error

# fixtures
tasks, call, checkout = test_command_line.tasks, test_command_line.call, test_command_line.checkout

LOCK = ("# Locked packages of the cvm root, Debian trixie, amd64. Made by `invoke lock`; don't edit.\n"
        "# resolved: {date}\n# requests: jq\nmain jq 1.7.1-6 amd64 {size} " + "a" * 64 + " pool/main/j/jq.deb\n")


# a place for results that can't take any is told before the work

@pytest.mark.parametrize("words", [
    ["verify", "x.iso", "--junit"], ["boot", "x.iso", "--junit"], ["bench", "--output"], ["fetch", "--to"]],
    ids=lambda words: words[0])
@pytest.mark.parametrize("place", ["taken", "taken/below", "taken/far/below"])
def test_t4_a_folder_for_results_is_looked_at_before_the_work(call, tmp_path, words, place):
    for name in ("taken", "x.iso"):
        (tmp_path / name).touch()
    require_error(call(*words, place), Code.INPUT, f"{words[-1]} {place}: {tmp_path / 'taken'} isn't a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_t4_a_folder_that_is_somebody_else_s_is_refused():
    with pytest.raises(CornerstoneError, match="nothing can be written into /"):
        inputs.check_folder("--junit", Path("/new"))


@pytest.mark.parametrize("words", [["lab.install", "--media", "disk"], ["lab.install", "--media", "floppy"],
                                   ["lab.node", "--firmware", "coreboot"], ["lab.cluster", "--firmware", "UEFI"]])
def test_t4_the_lab_refuses_a_word_before_it_builds(call, monkeypatch, words):
    monkeypatch.setattr("cornerstone.cli.lab.build_one", lambda *_: 1 / 0)
    require_error(call(*words), Code.INPUT, f"{words[1]} '{words[2]}' is unknown")


@pytest.mark.parametrize(("change", "said"), [
    (lambda site: site.clear(), "is missing"),
    (lambda site: site.update(nos_package="nutanix_installer_package-release-fraser-5.20-stable-x86_64.tar.gz"),
     "5.20"),
])
def test_t4_the_lab_refuses_a_site_before_it_builds(call, monkeypatch, tmp_path, change, said):
    monkeypatch.setattr("cornerstone.cli.lab.build_one", lambda *_: 1 / 0)
    site = json.loads(ONE.read_bytes())
    change(site)
    (tmp_path / "site.json").write_text(json.dumps(site))
    require_error(call("lab.node", "--site", "site.json"), Code.INPUT, said)


# a word that would have no effect

def test_t5_a_lock_of_a_suite_and_of_a_profile_is_refused(call):
    require_error(call("lock", "--suite", "trixie", "--profile", "nosuch"), Code.INPUT, "are both given")


@pytest.mark.parametrize("words", [["profiles", "--", "x"], ["build", "aos-6.8", "--", "aos-6.10"],
                                   ["site.new", "a.json", "--", "b.json"], ["matrix", "--", "--strict"]], ids=" ".join)
def test_t5_a_word_after_two_dashes_is_taken_or_refused(call, monkeypatch, words):
    monkeypatch.setattr(building, "build_one", lambda *_: 1 / 0)
    require_error(call(*words), Code.INPUT, f"no idea what '{words[-1]}' is")


@pytest.mark.parametrize("name", ["-s.json", "--no-flag", "-", "--", "-f=x", "site"])
def test_t6_a_file_of_any_name_can_be_given_after_two_dashes(call, tmp_path, name):
    for each in (name, "other.json"):
        (tmp_path / each).write_bytes(ONE.read_bytes())
    done = call("site.check", "--", name, "other.json")
    assert done.returncode == 0 and done.stdout.startswith(f"{name} is valid\n"), done.stderr
    assert "\nother.json is valid\n" in done.stdout


def folders(workspace: Workspace, *names: str) -> None:
    for name in names:
        (workspace.output / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.output / name).touch()


@pytest.mark.parametrize("cache", ["output/mine", "output/a/b", "output/aos-6.8/../mine"])
def test_t5_clean_keeps_the_cache_that_is_set_wherever_it_lies(checkout, monkeypatch, cache):
    monkeypatch.setenv("CORNERSTONE_CACHE", str(checkout.root / cache))
    folders(checkout, "README.md", "aos-6.8/x.iso", "a/x", "cache/x")
    place = Path(os.path.normpath(checkout.root / cache))
    place.mkdir(parents=True)
    (place / "keys").touch()
    gone = list(cleaning.clean(checkout, False))
    assert (place / "keys").exists() and (checkout.output / "cache/x").exists()
    assert sorted(str(path.relative_to(checkout.output)) for path in gone) == (
        ["a/x", "aos-6.8"] if cache == "output/a/b" else ["a", "aos-6.8"])


def test_t5_clean_never_follows_a_link_to_above_the_cache(checkout, monkeypatch, tmp_path):
    folders(checkout, "x")
    (tmp_path / "above/cache").mkdir(parents=True)
    (tmp_path / "above/precious").touch()
    (checkout.output / "link").symlink_to(tmp_path / "above")
    monkeypatch.setenv("CORNERSTONE_CACHE", str(checkout.output / "link/cache"))
    assert [path.name for path in cleaning.clean(checkout, False)] == ["link", "x"]
    assert (tmp_path / "above/precious").exists() and (tmp_path / "above/cache").is_dir()


def test_t5_clean_of_a_cache_that_lies_elsewhere_is_refused_and_removes_nothing(call, checkout, tmp_path):
    folders(checkout, "aos-6.8/x.iso", "cache/x")
    require_error(call("clean", "--cache", root=checkout.root, CORNERSTONE_CACHE=str(tmp_path / "a cache")),
                  Code.INPUT, f"outside {checkout.output}", f"rm -r '{tmp_path / 'a cache'}'")
    assert (checkout.output / "aos-6.8/x.iso").exists() and (checkout.output / "cache/x").exists()


def test_t5_clean_names_what_is_gone_also_when_it_can_not_go_on(call, checkout, monkeypatch):
    folders(checkout, "a/x", "b/x")

    def failing(path: Path) -> None:
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(cleaning.shutil, "rmtree", failing)
    done = call("clean", root=checkout.root)
    assert done.stdout == f"removed {checkout.output / 'a'}\n" and done.returncode == Code.MACHINE


# several profiles

def named(folder: Path, name: str) -> str:
    folder.mkdir()
    (folder / f"{name}.yaml").write_text((ROOT / f"profiles/{name}.yaml").read_text())
    return str(folder / f"{name}.yaml")


def test_t51_a_profile_that_is_named_twice_is_built_once(call, checkout, monkeypatch):
    fake_build(monkeypatch, {"aos-6.8": None})
    done = call("build", f"aos-6.8,{checkout.root}/profiles/aos-6.8.yaml, aos-6.8", root=checkout.root)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1, done.stderr


def test_t51_two_profiles_of_one_name_are_refused_before_one_is_built(call, checkout, monkeypatch, tmp_path):
    """Their ISOs have one place."""
    fake_build(monkeypatch, {})
    mine = named(tmp_path / "mine", "aos-6.8")
    require_error(call("build", f"aos-6.8,{mine}", root=checkout.root), Code.INPUT,
                  f"aos-6.8 and {mine} are both named aos-6.8")


@pytest.mark.parametrize(("error", "code"), [(OSError(28, "No space left on device", "/x"), Code.MACHINE),
                                             (PermissionError(13, "Permission denied", "/x"), Code.MACHINE)])
def test_t9_an_error_of_the_system_hides_no_other_profile(call, checkout, monkeypatch, error, code):
    def build(workspace, profile, *_):
        if profile.name == "aos-6.5":
            raise error
        raise CornerstoneError("next", "", Code.STEP)
    monkeypatch.setattr(building, "build_one", build)
    done = call("build", "aos-6.5,aos-6.8", root=checkout.root)
    assert done.returncode == Code.STEP and "error: aos-6.5: " in done.stderr and "error: aos-6.8: next" in done.stderr


# what is read has a bound

def in_time(seconds: float, begun: float) -> None:
    assert time.monotonic() - begun < seconds


def test_t32_a_long_list_of_additions_is_read_in_linear_time():
    begun = time.monotonic()
    assert len(ExtraFile(packages=[f"p{number}" for number in range(50_000)]).packages) == 50_000
    in_time(10, begun)


def test_t28_folders_that_lie_deep_in_one_another_are_refused(tmp_path):
    """A thousand would end in Python's own limit, and a hundred thousand may lie in one another."""
    (tmp_path / "etc" / "/".join("d" * DEEPEST)).mkdir(parents=True)
    (tmp_path / "etc/d/x").touch()
    with pytest.raises(CornerstoneError, match="too deep in one another"):
        read_tree(tmp_path, tmp_path)


def test_t32_a_huge_file_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "etc").mkdir()
    with (tmp_path / "etc/huge").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    begun = time.monotonic()
    with pytest.raises(CornerstoneError, match="more than 1024 MiB together"):
        read_tree(tmp_path, tmp_path)
    in_time(5, begun)


def test_a_private_key_is_found_wherever_it_begins(tmp_path):
    (tmp_path / "etc").mkdir()
    mark = b"-----BEGIN OPENSSH PRIVATE KEY-----"
    for begin in ((1 << 20) - 1, (1 << 20) - len(mark) + 1, 3 << 20):
        (tmp_path / "etc/x").write_bytes(b"x" * begin + mark)
        with pytest.raises(CornerstoneError, match="private key"):
            read_tree(tmp_path, tmp_path)


@pytest.mark.parametrize(("name", "said"), [
    ("/dev/zero", "has more than 64 KiB"), ("~nobody-of-that-name/id.pub", "isn't known here"), ("/", "can't be read"),
    ("/proc/self/environ\x7f", "can't be read")])
def test_t32_t9_a_key_file_that_is_none_is_refused_at_once(name, said):
    with pytest.raises(CornerstoneError, match=said):
        site_new.ssh_keys(name)


def test_t32_a_signing_key_without_an_end_is_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("CORNERSTONE_SIGNING_KEY", "/dev/zero")
    with pytest.raises(CornerstoneError):
        signing_key(tmp_path)


@pytest.mark.parametrize(("change", "said"), [
    (dict(size="9" * 5000), "not a locked package"), (dict(date="0001-01-01T00:00:00Z"), "first lines"),
    (dict(date="1979-12-31T23:59:59Z"), "first lines"), (dict(date="10000-01-01T00:00:00Z"), "first lines")])
def test_t27_a_lock_with_numbers_that_can_not_be_is_refused(change, said):
    good = dict(size="9", date="1980-01-01T00:00:00Z")
    assert parse(LOCK.format(**good), "cvm", "trixie").epoch == EARLIEST.timestamp()
    with pytest.raises(CornerstoneError, match=said):
        parse(LOCK.format(**good | change), "cvm", "trixie")


def test_t32_a_lock_without_an_end_is_refused_at_once(tmp_path):
    with (tmp_path / "trixie-cvm.lock").open("wb") as file:
        file.truncate(1 << 40)
    begun = time.monotonic()
    with pytest.raises(CornerstoneError, match="has more than 16 MiB"):
        read_lock(tmp_path, "cvm", "trixie")
    in_time(5, begun)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x1b[2J", b"9" * 1000, b""])
def test_t37_whoever_holds_a_lock_is_told_in_words_that_print(tmp_path, content):
    (tmp_path / "x.lock").write_bytes(content)
    assert filelock.holder(tmp_path / "x.lock").isprintable()
    assert len(filelock.holder(tmp_path / "x.lock")) < 60


@pytest.mark.parametrize("content", [
    "[" * 100_000, '{"files": [' * 50_000, "[]", "1", '{"files": 5}', '{"files": {"x": 1}}'])
def test_t28_t29_a_layer_s_record_that_is_none_is_damage(store, content):
    layer = Layer("cvm", {"a": "b"}, lambda folder, needed: (folder / "x").touch())
    store.make(layer)
    (store.path(layer) / layers.RECORD).write_text(content)
    assert Store(store.path(layer).parent, store.path(layer).parent / "tmp").damage(layer)


# names of files

def some_checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "profiles").mkdir(parents=True)
    for path in (ROOT / "profiles").glob("*.yaml"):
        (root / "profiles" / path.name).write_text(path.read_text())
    for name in ("versions", "elements", "src", "tests", "sites"):
        (root / name).symlink_to(ROOT / name)
    return root


@pytest.mark.parametrize("name", ["x²", "²", "৩", "x\udcff", "a\x01b", "-x", " "])
@pytest.mark.parametrize("words", [["profiles"], ["profiles", "--format", "json"], ["matrix"],
                                   ["matrix", "--format", "junit"], ["matrix", "--format", "markdown"]],
                         ids=" ".join)
def test_t42_a_profile_of_any_name_is_a_row_of_its_own(call, tasks, monkeypatch, tmp_path, name, words):
    root = some_checkout(tmp_path)
    monkeypatch.setattr(tasks, "ROOT", root)
    (root / f"profiles/{name}.yaml").write_text("extends: base\n")
    for output in ([], ["--output", "out"]) if words[0] == "matrix" else ([],):
        done = call(*words, *output, root=root)
        assert done.returncode in (Code.FAILED, Code.INPUT) and "Traceback" not in done.stderr, done.stderr
        text = (tmp_path / "out").read_text() if output else done.stdout
        assert "aos-6.8" in text
        if "json" in words:
            json.loads(text)
        if "junit" in words:
            ET.fromstring(text.encode("utf-8", "replace"))


def test_t42_a_pipe_among_the_profiles_holds_nobody_up(call, tmp_path):
    root = some_checkout(tmp_path)
    os.mkfifo(root / "profiles/pipe.yaml")
    begun = time.monotonic()
    assert "pipe" in profile_names(root)
    done = call("profiles", root=root)
    assert done.returncode == Code.FAILED and "pipe" in done.stdout
    in_time(20, begun)


@pytest.mark.parametrize("name", ["a\x01b", "a\udcffb", "a<&\"b", "a\u202eb", "a.b"])
def test_t40_a_report_of_an_iso_of_any_name_can_be_read(tmp_path, name):
    junit.write_report(tmp_path / "x.xml", "verify", name, [junit.Case(f"case {name}", f"wrong {name}\nmore"),
                                                            junit.Case("skipped", skipped=name)])
    top = ET.parse(tmp_path / "x.xml").getroot()
    assert len(list(top.iter("testcase"))) == 2


@pytest.mark.parametrize("name", ["a\udcffb.iso", "a\x1b[2Jb.iso", "-", "--", "a\nb.iso"])
def test_t37_a_path_that_does_not_print_is_told_in_one_that_does(call, name):
    done = call("verify", f"./{name}")
    assert done.returncode == Code.INPUT and "isn't there" in done.stderr
    assert all(line.isprintable() for line in done.stderr.splitlines())

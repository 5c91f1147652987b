"""The elements: what diskimage-builder expects of each, and what none of them may hold."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from cornerstone.factory.packages import elements
from cornerstone.factory.payload import additions
from cornerstone.lib.error import CornerstoneError

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = ROOT / "elements"
NAMES = sorted(path.name for path in ELEMENTS.iterdir())
PHASES = ("root.d", "extra-data.d", "pre-install.d", "install.d", "post-install.d", "post-root.d", "block-device.d",
          "pre-finalise.d", "finalise.d", "cleanup.d", "environment.d")
HOOKS = sorted(str(path.relative_to(ELEMENTS)) for path in ELEMENTS.glob("*/*.d/*"))
# what diskimage-builder itself ships and ours may depend on
SHIPPED = {"no-final-image"}
SECRETS = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY|ssh-(rsa|ed25519|dss) AAAA|\$(1|2[aby]|5|6|y)\$[^\s$]{2,}\$"
                     r"|(password|passwd|secret|token)\s*[:=]\s*[^\s/]{4,}", re.I)


@pytest.fixture(autouse=True)
def fresh():
    elements.closure.cache_clear()
    yield
    elements.closure.cache_clear()


def read_packages(name: str) -> dict:
    """package-installs.yaml; a name that is there twice is an error, which YAML itself lets pass."""
    path = ELEMENTS / name / "package-installs.yaml"
    if not path.is_file():
        return {}
    keys = [key.value for key, _ in yaml.compose(path.read_text()).value]
    assert [key for key, times in Counter(keys).items() if times > 1] == [], path
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_readme_has_the_name_and_a_sentence(name):
    lines = (ELEMENTS / name / "README.rst").read_text().splitlines()
    assert lines[:3] == ["=" * len(name), name, "=" * len(name)]
    assert any(line.endswith(".") for line in lines[3:])


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_would_be_run(hook):
    path = ELEMENTS / hook
    assert path.parent.name in PHASES, "diskimage-builder knows no such phase"
    assert re.fullmatch("[0-9A-Za-z_-]+", path.name), "run-parts would leave it out"
    assert re.match(r"\d\d-", path.name)
    assert path.stat().st_mode & stat.S_IXUSR, "is executable"
    assert path.read_text().startswith("#!/bin/bash\n")


def test_git_knows_that_hooks_are_executable():
    listing = subprocess.run(["git", "ls-files", "--stage", "elements"], cwd=ROOT, capture_output=True, text=True,
                             check=False)
    if listing.returncode or not listing.stdout:
        pytest.skip("not a git checkout")
    modes = dict(re.findall(r"^(\d+) .*\telements/(.*)$", listing.stdout, re.M))
    assert [hook for hook in HOOKS if modes.get(hook, "100755") != "100755"] == []


@pytest.mark.parametrize("root", elements.ROOTS)
def test_no_hook_hides_another_of_its_phase(root):
    times = Counter(f"{hook.parent.name}/{hook.name}" for name in elements.closure(ELEMENTS, root)
                    for hook in (ELEMENTS / name).glob("*.d/*"))
    assert [hook for hook, count in times.items() if count > 1] == []


@pytest.mark.parametrize("root", elements.ROOTS)
def test_no_static_file_hides_another(root):
    times = Counter(str(path.relative_to(ELEMENTS / name / "static")) for name in elements.closure(ELEMENTS, root)
                    for path in (ELEMENTS / name / "static").rglob("*") if not path.is_dir())
    assert [path for path, count in times.items() if count > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_dependencies_are_there(name):
    deps = ELEMENTS / name / "element-deps"
    known = deps.read_text().split() if deps.is_file() else []
    assert set(known) <= set(NAMES) | SHIPPED
    assert known == sorted(known)


def test_every_element_is_used():
    used = {name for root in elements.ROOTS for name in elements.closure(ELEMENTS, root)}
    # in a root only when a profile brings files
    assert used | {additions.ELEMENT} == set(NAMES) and additions.ELEMENT not in used


@pytest.mark.parametrize("name", NAMES)
def test_packages_of_an_element(name):
    asked = read_packages(name)
    assert list(asked) == sorted(asked)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", package) for package in asked)


@pytest.mark.parametrize("root", elements.ROOTS)
def test_no_package_is_asked_for_twice_in_a_root(root):
    times = Counter(package for name in elements.closure(ELEMENTS, root) for package in read_packages(name))
    assert [package for package, count in times.items() if count > 1] == []


@pytest.mark.parametrize("path", sorted(str(p.relative_to(ELEMENTS)) for p in ELEMENTS.rglob("*") if p.is_file()))
def test_no_secret(path):
    found = SECRETS.search((ELEMENTS / path).read_text())
    assert not found, found


@pytest.mark.parametrize("text", ["-----BEGIN OPENSSH PRIVATE KEY-----", "root:$6$salt$hash", "password = hunter2",
                                  "ssh-ed25519 AAAAC3Nz", "root:$y$j9T$salt$hash", "token: abcdef"])
def test_a_secret_would_be_found(text):
    assert SECRETS.search(text)


@pytest.mark.parametrize("unit", sorted(str(p.relative_to(ELEMENTS)) for p in ELEMENTS.rglob("*.preset")))
def test_presets_only_enable(unit):
    """What runs is written down in one way: a list of what is enabled, and at the end `disable *`."""
    lines = [line for line in (ELEMENTS / unit).read_text().splitlines() if line and not line.startswith("#")]
    if Path(unit).name.startswith("99-"):
        assert lines == ["disable *"]
    else:
        assert all(re.fullmatch(r"enable [a-z0-9@.-]+\.(service|socket|timer)", line) for line in lines), lines
        assert len(lines) == len(set(lines))


def test_our_own_units_are_enabled_where_they_want_to_be():
    enabled = {line.split()[1] for preset in ELEMENTS.rglob("*.preset") for line in preset.read_text().splitlines()
               if line.startswith("enable ")}
    wanting = {unit.name for unit in ELEMENTS.rglob("*.service") if "[Install]" in unit.read_text()}
    assert wanting
    assert wanting <= enabled


UNITS = sorted(ELEMENTS.glob("*/static/usr/lib/systemd/system/*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a26_every_unit_of_ours_gives_up_what_nothing_in_it_needs(unit):
    """These hinder none of our programs: none is real-time or of another architecture, or changes its personality."""
    assert {"LockPersonality=yes", "RestrictRealtime=yes", "SystemCallArchitectures=native"} <= set(
        unit.read_text().splitlines())


# the readers

def tree(folder: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(elements, "ROOTS", {"one": ("top",)})
    return tree(tmp_path / "elements", {
        "top/element-deps": "middle\nno-final-image\n", "top/package-installs.yaml": "jq:\nzstd:\n",
        "middle/element-deps": "bottom\ntop\n", "middle/install.d/10-do": "#!/bin/bash\n",
        "bottom/package-installs.yaml": "ceph-volume: {when: DIB_RELEASE=trixie}\nlvm2:\n",
        "unused/package-installs.yaml": "emacs:\n"})


def test_closure_follows_dependencies_even_in_a_circle(small):
    assert elements.closure(small, "one") == ("bottom", "middle", "top")


@pytest.mark.parametrize(("suite", "expected"), [("trixie", ("ceph-volume", "jq", "lvm2", "zstd")),
                                                 ("bookworm", ("jq", "lvm2", "zstd"))])
def test_packages_by_suite(small, suite, expected):
    assert elements.packages(small, "one", suite) == expected


@pytest.mark.parametrize(("content", "problem"), [
    ("- jq\n", "must map package names"), ("jq\n", "must map package names"),
    ("jq: {when: ARCH=amd64}\n", "jq: `when` knows only DIB_RELEASE here"),
])
def test_packages_that_are_wrong(small, content, problem):
    (small / "top" / "package-installs.yaml").write_text(content)
    with pytest.raises(CornerstoneError) as caught:
        elements.packages(small, "one", "trixie")
    assert caught.value.message.startswith(f"{small / 'top' / 'package-installs.yaml'}: ")
    assert problem in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("content", [
    pytest.param("jq: [\n"),
    pytest.param("jq: yes please\n"),
])
def test_packages_that_are_malformed(small, content):
    (small / "top" / "package-installs.yaml").write_text(content)
    with pytest.raises(CornerstoneError, match="package-installs.yaml"):
        elements.packages(small, "one", "trixie")


CHANGES = {
    "content": lambda base: (base / "middle/install.d/10-do").write_text("#!/bin/bash\necho\n"),
    "name": lambda base: (base / "middle/install.d/10-do").rename(base / "middle/install.d/11-do"),
    "executable": lambda base: (base / "middle/install.d/10-do").chmod(0o755),
    "new file": lambda base: (base / "bottom/README.rst").write_text("x"),
    "gone": lambda base: (base / "top/package-installs.yaml").unlink(),
    "link": lambda base: (base / "top/link").symlink_to("10-do"),
    "dependency": lambda base: (base / "bottom/element-deps").write_text("unused\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_fingerprint_changes_with(small, change):
    before = elements.fingerprint(small, "one")
    change(small)
    elements.closure.cache_clear()
    assert elements.fingerprint(small, "one") != before


def test_fingerprint_does_not_change_with_place_time_umask_or_what_is_unused(small, tmp_path):
    before = elements.fingerprint(small, "one")
    other = tmp_path / "elsewhere"
    shutil.copytree(small, other)
    for number, path in enumerate(other.rglob("*")):
        os.utime(path, (number, number))
        if path.is_file():
            path.chmod(0o664)
    (other / "unused" / "more").write_text("x")
    (other / "top" / "__pycache__").mkdir()
    (other / "top" / "__pycache__" / "x.pyc").write_text("x")
    assert elements.fingerprint(other, "one") == before


def test_the_logs_of_every_root_are_rotated_d29():
    """Packages bring their rules for it, and the timer is off unless a preset says otherwise."""
    assert "enable logrotate.timer" in (ELEMENTS / "base/static/usr/lib/systemd/system-preset/10-cornerstone.preset"
                                        ).read_text().splitlines()
    for lock in (ELEMENTS.parent / "versions/locks").glob("*.lock"):
        assert re.search(r"^main logrotate ", lock.read_text(), re.MULTILINE), lock

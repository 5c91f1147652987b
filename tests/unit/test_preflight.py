"""What a build needs of its machine is named before anything is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from build_plans import Told, plan_of, profile, touch
from cornerstone.factory.build import build as build_module
from cornerstone.factory.build import preflight
from cornerstone.factory.settings import Workspace
from cornerstone.factory.store.layers import Layer
from cornerstone.lib.error import Code, CornerstoneError

SRC = Path(__file__).resolve().parents[2] / "src"
CODE = ("import sys; from pathlib import Path; from cornerstone.factory.build.preflight import *\n"
        "preflight(Workspace(Path(sys.argv[1]), 'build-x'))")


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess:
    """Run the whole preflight in a mount namespace that a shell script has changed before."""
    (folder / "output/cache/tmp/build-x").mkdir(parents=True)
    return subprocess.run(["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "-", sys.executable, "-c", CODE,
                           folder], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(SRC), "CORNERSTONE_CACHE": ""})


def test_this_machine_is_good(tmp_path):
    done = in_namespace(":", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "output/cache/tmp/build-x").iterdir()) == []


def test_machine_without_loop_devices_m37(tmp_path):
    """As in a container: a /dev of its own."""
    done = in_namespace("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3", tmp_path)
    assert "CornerstoneError: this machine gives no loop device: losetup failed" in done.stderr
    assert "privileged" in done.stderr
    assert not (tmp_path / "output/cache/tmp/build-x/tried.img").exists()


def test_cache_that_takes_no_devices_m37(tmp_path):
    cache = tmp_path / "output/cache"
    done = in_namespace(f"mount -t tmpfs -o nodev none {cache} && mkdir -p {cache}/tmp/build-x", tmp_path)
    assert "it takes no device nodes" in done.stderr


def test_machine_that_lacks_programs_m37(tmp_path):
    with pytest.raises(CornerstoneError, match="^this machine lacks no-such-tool, nor-this\n") as caught:
        preflight.check_tools(["sh", "no-such-tool", "nor-this"])
    assert caught.value.code is Code.MACHINE


def test_root_that_may_not_mount_m37(monkeypatch, tmp_path):
    done = subprocess.run(["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c",
                           "from cornerstone.factory.build.preflight import *; check_namespaces(Path('/tmp'))"],
                          capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(SRC)})
    assert "CornerstoneError: nothing can be mounted in namespaces of our own: unshare failed" in done.stderr


@pytest.mark.parametrize(("name", "what"), [
    ("a b", "blanks"), ("a\tb", "blanks"), ("a\u00a0b", "blanks"), ("a:b", "colons"), ("a,b", "commas"),
    ("a'b", "quotes"), ("a$b", "quotes"), ("a%41", "quotes"), ("a\x07", "unprintable"),
    (os.fsdecode(b"w\xf6rk"), "no UTF-8"),
])
def test_path_that_can_not_be_used_m34(tmp_path, monkeypatch, name, what):
    for where in ("checkout", "cache"):
        monkeypatch.setenv("CORNERSTONE_CACHE", str(tmp_path / name) if where == "cache" else str(tmp_path))
        with pytest.raises(CornerstoneError, match=what) as caught:
            preflight.preflight(Workspace(tmp_path / name if where == "checkout" else tmp_path))
        assert caught.value.code is Code.MACHINE
        assert "CORNERSTONE_CACHE" in caught.value.hint


def test_path_beyond_ascii_can_be_used_m34(tmp_path):
    preflight.check_paths([tmp_path / "wörk", tmp_path / "日本", tmp_path / "a+b~c@d=e_f.g"])


def test_nothing_is_fetched_before_the_preflight_m34(workspace, monkeypatch):
    plan = plan_of(workspace, Layer("cvm", {}, touch))
    monkeypatch.setattr(build_module, "make_plan", lambda *_: plan)
    monkeypatch.setattr(build_module, "is_current", lambda *_: False)
    monkeypatch.setattr(build_module, "load_catalogue", lambda *_: None)
    monkeypatch.setattr("cornerstone.model.rules.release.require_profile", lambda *_, **__: None)
    monkeypatch.setattr(build_module, "fetch_packages", lambda *_: pytest.fail("it fetches"))
    monkeypatch.setattr(preflight, "TOOLS", ("no-such-tool",))
    with pytest.raises(CornerstoneError, match="^this machine lacks no-such-tool"):
        build_module.build(workspace, profile(), Told())

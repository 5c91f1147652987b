"""A build that is ended in the middle leaves nothing behind: no process, mount, loop device or half layer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PROFILE = "aos-6.8"


def processes_with(setting: str) -> list[int]:
    """The ids of processes whose environment has a setting."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if setting.encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_nothing_is_left(iso, ending, tmp_path, request):
    root = request.config.rootpath
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "pool").symlink_to(Path(os.environ.get("CORNERSTONE_CACHE") or root / "output/cache") / "pool")
    before = iso.stat()
    setting = f"CORNERSTONE_CACHE={cache}"
    log = root / "output" / PROFILE / "logs" / "hypervisor.log"
    log.unlink(missing_ok=True)
    build = subprocess.Popen([sys.executable, "-m", "invoke", "build", "--profile", PROFILE], cwd=root,
                             env={**os.environ, "CORNERSTONE_CACHE": str(cache)}, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # until packages are being unpacked: then mounts, a namespace and a dozen processes are there
    with subprocess.Popen(["tail", "-F", "-n", "+1", log], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as watch:
        # a build that ends too early ends the wait
        threading.Thread(target=lambda: (build.wait(), watch.kill()), daemon=True).start()
        seen = any("installing remaining packages" in line for line in watch.stdout)
        watch.kill()
    assert seen, build.communicate()[0]
    assert len(processes_with(setting)) > 3

    build.send_signal(ending)
    said, _ = build.communicate(timeout=120)

    assert build.returncode == 130, said
    assert "interrupted" in said
    assert processes_with(setting) == []
    assert str(cache) not in Path("/proc/mounts").read_text()
    loops = json.loads(subprocess.run(["losetup", "--json", "--list"], capture_output=True, text=True,
                                      check=True).stdout or "{}")
    assert not [loop for loop in loops.get("loopdevices", []) if str(cache) in (loop["back-file"] or "")]
    assert list((cache / "tmp").iterdir()) == []
    assert [path.name for path in (cache / "layers").iterdir() if path.name.startswith(".")] == []
    assert (iso.stat().st_ino, iso.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

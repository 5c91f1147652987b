"""A build that is ended in the middle leaves nothing behind: no process, mount, loop device or half layer."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading

import pytest

PROFILE = "aos-6.8"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_nothing_is_left(iso, ending, own_cache, request):
    root = request.config.rootpath
    before = iso.stat()
    # with another key: else the ISO in its place is what would come out, and nothing is done
    shutil.rmtree(own_cache.folder / "keys")
    log = root / "output" / PROFILE / "logs" / "hypervisor-packages.log"
    log.unlink(missing_ok=True)
    build = subprocess.Popen([sys.executable, "tasks.py", "build", "--profile", PROFILE], cwd=root,
                             env=own_cache.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # until packages are being unpacked: then mounts, a namespace and a dozen processes are there
    with subprocess.Popen(["tail", "-F", "-n", "+1", log], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as watch:
        # a build that ends too early ends the wait
        threading.Thread(target=lambda: (build.wait(), watch.kill()), daemon=True).start()
        seen = any("installing remaining packages" in line for line in watch.stdout)
        watch.kill()
    assert seen, build.communicate()[0]
    assert len(own_cache.processes()) > 3

    build.send_signal(ending)
    said, _ = build.communicate(timeout=120)

    assert build.returncode == 130, said
    assert "interrupted" in said
    assert own_cache.leftovers() == []
    assert (iso.stat().st_ino, iso.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

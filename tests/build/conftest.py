"""What the tests of whole builds share: a cache of their own that starts warm, and what a build may leave behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from cornerstone.factory.settings import Workspace


class OwnCache:
    """A cache beside the one that the tier shares: its pool by name, its key copied, no layers."""

    def __init__(self, folder: Path, shared: Workspace) -> None:
        self.folder = folder
        (folder / "keys").mkdir(parents=True)
        (folder / "pool").symlink_to(shared.pool)
        for key in (shared.cache / "keys").glob("*.pem"):
            shutil.copy2(key, folder / "keys")
        self._setting = f"CORNERSTONE_CACHE={folder}".encode()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CORNERSTONE_CACHE": str(self.folder)}

    def processes(self) -> list[int]:
        """The ids of the processes that work for a build of this cache, by their environment or their folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._setting in (process / "environ").read_bytes().split(b"\0") \
                        or str((process / "cwd").readlink()).startswith(f"{self.folder}/"):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def wait_for_the_end_of(self, processes: list[int]) -> None:
        """Until all of them have ended; fails when one lives on for half a minute."""
        for process in processes:
            try:
                ended = os.pidfd_open(process)
            except ProcessLookupError:
                continue
            assert select.select([ended], [], [], 30)[0], Path(f"/proc/{process}/cmdline").read_text()
            os.close(ended)

    def leftovers(self) -> list[str]:
        """What a build has left behind that it shouldn't have: processes, mounts, loop devices, half layers."""
        loops = json.loads(subprocess.run(["losetup", "--json", "--list"], capture_output=True, text=True,
                                          check=True).stdout or "{}").get("loopdevices", [])
        mounts = [Path(f"/proc/{process}/mountinfo") for process in [*self.processes(), os.getpid()]]
        return [*(f"process {process}" for process in self.processes()),
                *(f"mount seen by {mount}" for mount in mounts if mount.exists()
                  and f" {self.folder}/" in mount.read_text()),
                *(f"loop device {loop['name']}" for loop in loops if str(self.folder) in (loop["back-file"] or "")),
                *(str(path) for path in (self.folder / "tmp").iterdir()),
                *(str(path) for path in (self.folder / "layers").iterdir()
                  if path.is_dir() and not (path / "layer.json").is_file())]


@pytest.fixture
def own_cache(tmp_path, request) -> OwnCache:
    """A cache with a warm pool and no layers."""
    return OwnCache(tmp_path / "cache", Workspace(request.config.rootpath))

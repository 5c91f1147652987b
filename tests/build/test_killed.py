"""A build that is killed outright, again and again at random points, loses nothing but what it was making.

The points are chosen by a seed, which is printed; CORNERSTONE_SEED sets it, CORNERSTONE_KILLS how many
there are (13). A root takes minutes, so four of them fall into the making of one root: one into taking in
its packages, two into installing them, one into assembling the rest; and the others into the steps after it, whose
layers are taken away before each.

The builds have an empty pool, no mirror, and a folder of packages that was carried to them: so this also
is the test of a site without a network.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cornerstone.factory.build.build import fetch_all
from cornerstone.factory.build.netboot import SUMS, folder_of
from cornerstone.factory.build.plan import make_plan
from cornerstone.factory.build.reproduce import copy_checkout
from cornerstone.factory.packages.elements import packages_layer
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.store.layers import Store
from cornerstone.model.profile.profile import load_profile

PROFILE = "aos-6.8"
SEED = int(os.environ.get("CORNERSTONE_SEED") or random.randrange(1 << 32))
KILLS = int(os.environ.get("CORNERSTONE_KILLS") or 13)

# after which event, and how many seconds after it at the most; a build of these steps lasts longer than that
POINTS = [("hypervisor-boot", "started", 1.0), ("cvm-boot", "started", 1.0), ("efi-image", "started", 0.1),
          ("cvm-disk", "started", 6.0), ("netboot-initrd", "started", 3.0), ("iso", "started", 1.0),
          ("iso", "progress", 0.5), ("netboot", "started", 0.3)]


class Builder:
    """Builds of copies of the checkout, with a cache of their own in which all layers are there at first."""

    def __init__(self, root: Path, folder: Path, cache) -> None:
        self.cache, self._folder, self._carried = cache, folder, folder / "carried"
        workspace, profile = Workspace(root), load_profile(PROFILE, root)
        fetch_all(workspace, profile, lambda event: None, self._carried)
        (cache.folder / "pool").unlink()
        self.plan = make_plan(workspace, profile, signing_key(workspace.cache))
        self.store = Store(cache.folder / "layers")
        for layer in self.plan.layers.values():
            shutil.copytree(Store(workspace.layers).path(layer), self.store.path(layer))
        for name in ("one", "other"):
            copy_checkout(root, folder / name)

    def remove(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.store.path(self.plan.layers[name]), ignore_errors=True)

    def iso(self, name: str = "one") -> Path:
        return self._folder / name / "output" / PROFILE / f"foundation-{PROFILE}.iso"

    def start(self, name: str = "one") -> subprocess.Popen:
        self.events(name).parent.mkdir(parents=True, exist_ok=True)
        self.events(name).write_text("")
        return subprocess.Popen([sys.executable, "tasks.py", "build", "--profile", PROFILE,
                                 "--from", self._carried], text=True, cwd=self._folder / name,
                                env={**self.cache.environment, "CORNERSTONE_MIRROR": "nothing://"},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def events(self, name: str) -> Path:
        return self._folder / name / "output" / PROFILE / "events.jsonl"

    def wait_for(self, build: subprocess.Popen, wanted: Callable[[dict], bool], name: str = "one") -> dict:
        """The first event of a build that is wanted; fails when the build ends without it."""
        with subprocess.Popen(["tail", "-f", "-n", "+1", self.events(name)], text=True,
                              stdout=subprocess.PIPE) as watch:
            threading.Thread(target=lambda: (build.wait(), watch.kill()), daemon=True).start()
            event = next((event for event in map(json.loads, watch.stdout) if wanted(event)), None)
            watch.kill()
        assert event, build.communicate()[0]
        return event

    def kill(self, step: str, state: str, delay: float) -> bool:
        """Start a build and kill it some seconds after an event; whether that was in the middle."""
        build = self.start()
        self.wait_for(build, lambda event: (event["step"], event["state"]) == (step, state))
        # a random point in time is what is wanted here
        time.sleep(delay)
        family = self.cache.processes()
        build.kill()
        said, _ = build.communicate()
        # whatever it had started goes with it, without anybody's help
        self.cache.wait_for_the_end_of(family)
        assert build.returncode in (0, -9), said
        return build.returncode == -9

    def succeed(self, build: subprocess.Popen) -> str:
        said, _ = build.communicate()
        assert build.returncode == 0, said
        return said


@pytest.fixture
def builder(iso, own_cache, tmp_path, request) -> Builder:
    return Builder(request.config.rootpath, tmp_path, own_cache)


def test_killed_at_random_points_and_two_at_once(iso, builder):
    print(f"CORNERSTONE_SEED={SEED}", file=sys.stderr)
    chance = random.Random(SEED)
    root = chance.choice(["hypervisor", "cvm"])
    after = {"hypervisor": ["hypervisor-boot", "efi-image", "netboot-initrd"], "cvm": ["cvm-boot", "cvm-disk"]}

    packages = packages_layer(root)
    builder.remove(packages, root, *after[root])
    in_a_root = [("packages", "started", 0.1), (packages, "started", 10), (packages, "started", 25),
                 (root, "started", 5)]
    kills = sum(builder.kill(step, state, chance.uniform(0, most)) for step, state, most in in_a_root)
    assert kills == len(in_a_root)
    assert not builder.store.has(builder.plan.layers[root])

    # what was left behind is in nobody's way: two at once, and the root is made once
    one = builder.start("one")
    builder.wait_for(one, lambda event: (event["step"], event["state"]) == (root, "started"))
    other = builder.start("other")
    waited = builder.wait_for(other, lambda event: (event["step"], event["state"]) == (root, "waiting"), "other")
    assert waited["message"] == f"another build (process {one.pid}) has it in hand"
    said = builder.succeed(one), builder.succeed(other)
    assert [f"= {root} " in text for text in said] == [False, True], said
    for name in ("one", "other"):
        assert filecmp.cmp(iso, builder.iso(name), shallow=False), name
    assert builder.cache.leftovers() == []

    while kills < KILLS:
        step, state, most = chance.choice(POINTS)
        builder.remove(*{"hypervisor-boot", "cvm-boot", "efi-image", "cvm-disk", "netboot-initrd"} & {
            step, *chance.sample(sorted(builder.plan.layers), 3)})
        builder.iso().unlink(missing_ok=True)
        kills += builder.kill(step, state, chance.uniform(0, most))

    builder.iso().unlink(missing_ok=True)
    builder.succeed(builder.start())
    assert filecmp.cmp(iso, builder.iso(), shallow=False)
    assert not list(builder.iso().parent.glob(".netboot*"))
    assert filecmp.cmp(folder_of(iso) / SUMS, folder_of(builder.iso()) / SUMS, shallow=False)
    assert [builder.store.damage(layer) for layer in builder.plan.layers.values()] == [""] * len(builder.plan.layers)
    assert builder.cache.leftovers() == []

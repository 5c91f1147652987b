"""What the cases share: a copy of the checkout with a store of its own, the packages, the ISO, the rounds."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cornerstone.factory.bench.measure import Usage, measure
from cornerstone.factory.build.build import iso_path
from cornerstone.factory.build.reproduce import copy_checkout
from cornerstone.factory.packages import elements
from cornerstone.factory.packages.lock import Lock, read_lock
from cornerstone.factory.packages.repository import make_repository
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import SECRETS, for_a_build
from cornerstone.factory.store.layers import RECORD
from cornerstone.model.profile.profile import Profile

# How often a whole process of under a second is run for one of the long ones.
SHORT_RUNS = 5


@dataclass(frozen=True)
class Bench:
    """One benchmark: what it measures (the user's checkout, and a profile), and where it works (work, logs).

    The user's own tree, store and products are read and never written, the pool of packages excepted.
    """

    users: Workspace
    profile: Profile
    rounds: int
    work: Path
    logs: Path

    @property
    def checkout(self) -> Path:
        return self.work / "checkout"

    @property
    def cache(self) -> Path:
        return self.work / "cache"

    @property
    def iso(self) -> Path:
        return iso_path(Workspace(self.checkout), self.profile)

    @property
    def product(self) -> Path:
        """The folder of the ISO and its events."""
        return self.iso.parent

    @cached_property
    def locks(self) -> Mapping[str, Lock]:
        """The lock of each root by name."""
        suite = self.profile.reference.suite
        return {name: read_lock(self.users.locks, name, suite, self.profile) for name in elements.ROOTS}

    def prepare(self) -> None:
        """Copy the checkout, link the pool, and bring the pool up to the locks."""
        copy_checkout(self.users.root, self.checkout)
        (self.cache / "keys").mkdir(parents=True)
        self.users.pool.mkdir(parents=True, exist_ok=True)
        (self.cache / "pool").symlink_to(self.users.pool)
        for key in (self.users.cache / "keys").glob("*.pem"):
            shutil.copy2(key, self.cache / "keys")
        self.invoke("fetch", "--profile", self.profile.name)

    def invoke(self, *words: str | Path, log: str = "prepare") -> Usage:
        """A whole `invoke` in the copy of the checkout."""
        return measure([sys.executable, "tasks.py", *words], log=self.logs / f"{log}.log", cwd=self.checkout,
                       env={**{name: value for name, value in for_a_build().items() if name not in SECRETS},
                            "CORNERSTONE_CACHE": str(self.cache)})

    def build(self, log: str = "build") -> Usage:
        """A whole `invoke build`."""
        return self.invoke("build", "--profile", self.profile.name, log=log)

    def forget(self) -> None:
        """Empty the store and take away the products."""
        shutil.rmtree(self.cache / "layers", ignore_errors=True)
        shutil.rmtree(self.product, ignore_errors=True)

    def built(self) -> Path:
        """The ISO, built unless it is there; layers that the user's own store has are linked, not made again."""
        if not self.iso.is_file():
            for record in self.users.layers.glob(f"*/{RECORD}"):
                target = self.cache / "layers" / record.parent.name
                if not target.exists():
                    shutil.copytree(record.parent, target, copy_function=_link)
            self.build()
        return self.iso

    def made(self) -> set[str]:
        """The names of the steps that the last builds did, since their events were last taken away."""
        events = map(json.loads, (self.product / "events.jsonl").read_text().splitlines())
        return {event["step"] for event in events if event["state"] == "done"}

    def repositories(self, folder: Path) -> None:
        """Make folder/ROOT/repository of the locked packages for each root."""
        for name, lock in self.locks.items():
            (folder / name).mkdir(parents=True)
            make_repository(self.users.pool, lock, folder / name / "repository", self.logs / "repositories.log")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

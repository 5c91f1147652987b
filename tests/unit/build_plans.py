"""Plans for a build of small layers, and what listens to it."""

from __future__ import annotations

import functools
from pathlib import Path

from cornerstone.factory.build.plan import Plan
from cornerstone.factory.packages.lock import Lock, LockedPackage
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.store.layers import Layer
from cornerstone.lib.event import Event
from cornerstone.model.profile.profile import Profile, load_profile

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def package(name: str, size: int) -> LockedPackage:
    return LockedPackage("main", name, "1", "all", size, name.encode().hex().ljust(64, "0"), f"pool/{name}.deb")


@functools.cache
def profile() -> Profile:
    return load_profile("aos-6.8", ROOT)


def plan_of(workspace: Workspace, *layers: Layer, packages: tuple[LockedPackage, ...] = ()) -> Plan:
    locks = {"cvm": Lock("cvm", "trixie", 1_800_000_000, (), packages)}
    return Plan(profile(), signing_key(workspace.cache), locks,
                {layer.name: layer for layer in layers}, {"code": "1", **{f"layer {n.name}": n.key for n in layers}})


def touch(folder: Path, needed: dict[str, Path]) -> None:
    (folder / "made").touch()


class Told(list):
    """A listener: (step, state) of everything but progress."""

    def __call__(self, event: Event) -> None:
        if event.state != "progress":
            self.append((event.step, event.state))

"""The layer store: a layer is a folder named by a key over everything that can change its content.

A layer is made beside the store and renamed into it, so there is never half a layer, and a build that
was killed loses only what it was making. Same key, same bytes: then nothing is made at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KEY_VERSION = 1
RECORD = "layer.json"


@dataclass(frozen=True)
class Layer:
    """One node of the build's graph.

    inputs: what can change it, name → digest or plain value; needs: the layers it is made from;
    make(folder, needed) fills an empty folder, given the folders of the needed layers by name.
    """

    name: str
    inputs: Mapping[str, str]
    make: Callable[[Path, Mapping[str, Path]], None]
    needs: tuple[Layer, ...] = field(default=())

    def all_inputs(self) -> dict[str, str]:
        """inputs with the keys of the layers that it needs."""
        return {**self.inputs, **{f"layer {layer.name}": layer.key for layer in self.needs}}

    @property
    def key(self) -> str:
        """sha256 over the name and all inputs."""
        content = json.dumps([KEY_VERSION, self.name, self.all_inputs()], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class Store:
    """Layers by key below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, layer: Layer) -> Path:
        """The layer's folder, whether or not it is there yet."""
        return self._folder / f"{layer.name}-{layer.key[:32]}"

    def has(self, layer: Layer) -> bool:
        return (self.path(layer) / RECORD).is_file()

    def make(self, layer: Layer) -> None:
        """Make a layer whose needs are in the store already."""
        beside = self._folder / f".{layer.name}.{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            layer.make(beside, {needed.name: self.path(needed) for needed in layer.needs})
            (beside / RECORD).write_text(json.dumps({"name": layer.name, "inputs": layer.all_inputs()}, indent=1))
            shutil.rmtree(self.path(layer), ignore_errors=True)
            beside.rename(self.path(layer))
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def used(self, layers: Iterable[Layer]) -> None:
        """Note that layers were used just now, for prune."""
        for layer in layers:
            os.utime(self.path(layer) / RECORD)

    def prune(self, keep: Iterable[Layer], limit: int) -> list[str]:
        """Remove the layers that weren't used for longest until the rest has at most limit bytes.

        What keep names stays in any case. Returns the names of the folders that were removed.
        """
        kept = {self.path(layer) for layer in keep}
        folders = {path: sum(file.stat().st_blocks * 512 for file in path.iterdir())
                   for path in self._folder.iterdir() if (path / RECORD).is_file()}
        total, removed = sum(folders.values()), []
        for path in sorted(folders.keys() - kept, key=lambda path: (path / RECORD).stat().st_mtime):
            if total <= limit:
                break
            total -= folders[path]
            # out of sight in one step, so that a killed removal leaves no half layer
            gone = path.with_name(f".{path.name}")
            path.rename(gone)
            shutil.rmtree(gone)
            removed.append(path.name)
        return removed


def changed_inputs(layer: Layer, earlier: Mapping[str, str] | None) -> list[str]:
    """The names of the inputs that differ from an earlier build's record of the same layer."""
    if earlier is None:
        return ["never built"]
    now = layer.all_inputs()
    return sorted(name for name in now.keys() | earlier.keys() if now.get(name) != earlier.get(name))

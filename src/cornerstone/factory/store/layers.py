"""The layer store: a layer is a folder named by a key over everything that can change its content.

A layer is made elsewhere on the same file system and renamed into the store, so there is never half a
layer, and a build that was killed loses only what it was making. Same key, same bytes: then nothing is
made at all. Several builds may share a store: each layer has a lock, held alone by who makes or removes
it, and together by those who use it.

A layer's record is sealed with the key of the build that made it, for the store may lie where others write: a layer
that no build with our key made isn't taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cornerstone.factory.signing.signing import SigningKey, is_sealed, sealed
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.filelock import Hold, hold, try_hold
from cornerstone.lib.serde import Format

KEY_VERSION = 2
RECORD = "layer.json"
SEALED = "layer"
UNSEALED = "nobody with our key made it"


@dataclass(frozen=True)
class Layer:
    """One node of the build's graph.

    inputs: what can change it, name → digest or plain value; needs: the layers it is made from;
    make(folder, needed) fills an empty folder, given the folders of the needed layers by name. kept: whether a build
    needs it in the store once all that is made from it is there.
    """

    name: str
    inputs: Mapping[str, str]
    make: Callable[[Path, Mapping[str, Path]], None]
    needs: tuple[Layer, ...] = field(default=())
    kept: bool = True

    def all_inputs(self) -> dict[str, str]:
        """inputs with the keys of the layers that it needs."""
        return {**self.inputs, **{f"layer {layer.name}": layer.key for layer in self.needs}}

    @property
    def key(self) -> str:
        """sha256 over the name and all inputs."""
        content = json.dumps([KEY_VERSION, self.name, self.all_inputs()], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """What lies beside a layer's files. files: size and sha256 of each; seal: the building key's signature."""

    name: str
    inputs: dict[str, Any]
    files: dict[str, Any]
    seal: str = ""


LAYER = Format(RECORD, Record, "a build, sealed", "later builds, reproduce",
               newer="use the checkout that made it, or another cache")


class Store:
    """Layers by key below one folder; temporary: where they are made, on the same file system.

    key: seals what is made and has to have sealed what is found; a store without one is only looked at.
    """

    def __init__(self, folder: Path, temporary: Path | None = None, key: SigningKey | None = None) -> None:
        self._folder = folder
        self._temporary = temporary or folder / ".new"
        self._key = key
        self._held: dict[Path, Hold] = {}
        self._made: set[Path] = set()
        self._contents: dict[Path, dict[str, list]] = {}

    def path(self, layer: Layer) -> Path:
        """The layer's folder, whether or not it is there yet."""
        return self._folder / f"{layer.name}-{layer.key[:32]}"

    def has(self, layer: Layer) -> bool:
        return (self.path(layer) / RECORD).is_file()

    def hold(self, layer: Layer, waiting: Callable[[str], None]) -> bool:
        """Lock a layer until release: against removal when it is there (True), else for us alone to make (False).

        Waits while another build makes or removes it; waiting is told once who that is.
        """
        lock = _lock(self.path(layer))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._release(layer)
        for shared in (True, False):
            held = hold(lock, waiting, shared)
            if self.has(layer) == shared:
                self._held[self.path(layer)] = held
                return shared
            held.release()
        return self.hold(layer, waiting)

    def holds(self, layer: Layer) -> bool:
        """Whether this store object has a layer locked."""
        return self.path(layer) in self._held

    def _release(self, layer: Layer) -> None:
        if held := self._held.pop(self.path(layer), None):
            held.release()

    def release(self) -> None:
        """Let go of every layer that is held."""
        while self._held:
            self._held.popitem()[1].release()

    def make(self, layer: Layer) -> None:
        """Make a layer whose needs are in the store already."""
        target = self.path(layer)
        beside = self._temporary / target.name
        self._folder.mkdir(parents=True, exist_ok=True)
        beside.mkdir(parents=True)
        try:
            layer.make(beside, {needed.name: self.path(needed) for needed in layer.needs})
            contents = {path.name: _digest(path) for path in sorted(beside.iterdir())}
            record: dict = {LAYER.key: LAYER.version, "name": layer.name, "inputs": layer.all_inputs(),
                            "files": contents}
            if self._key:
                record = sealed(record, SEALED, self._key)
            (beside / RECORD).write_text(json.dumps(record, indent=1))
            for path in (beside, *beside.iterdir()):
                path.chmod(path.stat().st_mode & ~0o022)
            shutil.rmtree(target, ignore_errors=True)
            beside.rename(target)
            self._made.add(target)
            self._contents[target] = contents
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def damage(self, layer: Layer) -> str:
        """What is wrong with a layer in the store: empty when its files are those that a build with our key made.

        A layer that this store object made itself isn't read again.
        """
        folder = self.path(layer)
        if folder in self._made:
            return ""
        try:
            record = LAYER.upgrade(json.loads((folder / RECORD).read_text()), RECORD)
            files = record["files"]
            if self._key:
                if not is_sealed(record, SEALED, self._key.public_pem()):
                    return f"{UNSEALED}: its record isn't sealed with this build's key"
                if (record["name"], record["inputs"]) != (layer.name, layer.all_inputs()):
                    return f"{UNSEALED}: its record is another layer's"
                if strange := {path.name for path in folder.iterdir()} - {RECORD, *files}:
                    return f"{min(strange)} was put into it"
            for name, digest in files.items():
                if not stat.S_ISREG((folder / name).lstat().st_mode) or _digest(folder / name) != digest:
                    return f"{name} isn't what was made"
            self._contents[folder] = files
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except CornerstoneError as error:
            return error.message
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"can't be read: {error}"
        return ""

    def contents(self, layer: Layer) -> dict[Path, tuple[int, str]]:
        """Size and sha256 of each file of a layer that this store object has made or found undamaged, by its path."""
        folder = self.path(layer)
        return {folder / name: (size, sha256) for name, (size, sha256) in self._contents.get(folder, {}).items()}

    def discard(self, layer: Layer, waiting: Callable[[str], None]) -> None:
        """Remove a damaged layer once nobody uses it, unless another build has mended it meanwhile."""
        self._release(layer)
        with hold(_lock(self.path(layer)), waiting):
            if self.has(layer) and self.damage(layer):
                self._remove(self.path(layer))

    def used(self, layers: Iterable[Layer]) -> None:
        """Note that layers were used just now, for prune."""
        for layer in layers:
            os.utime(self.path(layer) / RECORD)

    def prune(self, limit: int) -> list[str]:
        """Remove the layers that weren't used for longest until the rest has at most limit bytes.

        What is held, here or by another build, stays in any case. Returns the names of the folders that
        were removed.
        """
        folders = {path: sum(file.stat().st_blocks * 512 for file in path.iterdir())
                   for path in self._folder.iterdir() if (path / RECORD).is_file()}
        total, removed = sum(folders.values()), []
        for path in sorted(folders, key=lambda path: (path / RECORD).stat().st_mtime):
            if total <= limit:
                break
            if (held := try_hold(_lock(path))) is None:
                continue
            with held:
                self._remove(path)
                _lock(path).unlink()
            total -= folders[path]
            removed.append(path.name)
        return removed

    def _remove(self, path: Path) -> None:
        # out of sight in one step, so that a killed removal leaves no half layer
        gone = self._temporary / f"removed-{path.name}"
        gone.parent.mkdir(parents=True, exist_ok=True)
        path.rename(gone)
        shutil.rmtree(gone)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _digest(path: Path) -> list[int | str]:
    """Size and sha256 of a file, as a record has them."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def changed_inputs(layer: Layer, earlier: Mapping[str, str] | None) -> list[str]:
    """The names of the inputs that differ from an earlier build's record of the same layer."""
    if earlier is None:
        return ["never built"]
    now = layer.all_inputs()
    return sorted(name for name in now.keys() | earlier.keys() if now.get(name) != earlier.get(name))

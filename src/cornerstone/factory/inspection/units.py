"""systemd's units in a root: which are enabled, what presets say of them, and whether their order goes round."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator
from functools import cached_property

from cornerstone.factory.inspection.tree import Tree

# in the order in which systemd looks; /run is empty in a root
FOLDERS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
PRESETS = ("etc/systemd/system-preset", "usr/local/lib/systemd/system-preset", "usr/lib/systemd/system-preset")
KINDS = ("service", "socket", "target", "mount", "automount", "swap", "timer", "path", "slice", "scope")
INSTALL = ("WantedBy", "RequiredBy", "UpheldBy", "Alias")
PULLS = ("Requires", "Requisite", "BindsTo", "Wants", "Upholds")

Sections = dict[str, dict[str, list[str]]]


class Units:
    """The units of a root. Source: systemd.unit(5), systemd.preset(5), bootup(7)."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._read: dict[str, Sections] = {}

    @cached_property
    def files(self) -> dict[str, str]:
        """The path of each unit file and alias by name; the first folder's counts."""
        found: dict[str, str] = {}
        for folder in FOLDERS:
            for name in self._tree.names(folder):
                if name.rpartition(".")[2] in KINDS and not self._tree.is_folder(f"{folder}/{name}"):
                    found.setdefault(name, f"{folder}/{name}")
        return found

    def name(self, unit: str) -> str | None:
        """The unit's own name, not an alias; None when there is no file for it, nor for its template."""
        path = self.files.get(unit)
        if path is None:
            template = re.sub(r"@[^@]*\.", "@.", unit)
            return unit if template != unit and template in self.files and self.name(template) else None
        if (target := self._tree.link(path)) is None:
            return unit
        to = posixpath.basename(target)
        return None if target == "/dev/null" else unit if to == unit else self.name(to) if to in self.files else None

    def state(self, unit: str) -> str:
        """enabled, disabled, masked, alias or static, as systemctl list-unit-files has it."""
        path = self.files[unit]
        target = self._tree.link(path)
        if target == "/dev/null" or (self._tree.is_file(path) and not self._tree.read(path)):
            return "masked"
        if target is not None and posixpath.basename(target) != unit:
            return "alias"
        if unit in self._enabled:
            return "enabled"
        install = self.read(unit).get("Install", {})
        return "disabled" if any(install.get(key) for key in INSTALL) else "indirect" if install.get("Also") else \
            "static"

    @cached_property
    def _enabled(self) -> set[str]:
        """The names of unit files that a link in /etc turns on: an alias, or a name in a folder of wants."""
        found = set()
        for name in self._tree.names(FOLDERS[0]):
            folder = f"{FOLDERS[0]}/{name}"
            if target := self._tree.link(folder):
                unit = posixpath.basename(target)
                if unit in self.files and name in self.values(unit, "Alias", "Install"):
                    found.add(unit)
            elif name.endswith((".wants", ".requires", ".upholds")):
                found |= {re.sub(r"@[^@]*\.", "@.", each) for each in self._tree.names(folder)}
        return found

    def links(self, unit: str, kind: str) -> set[str]:
        """The units that links pull in for a unit; kind: wants, requires or upholds."""
        return {name for folder in FOLDERS for name in self._tree.names(f"{folder}/{unit}.{kind}")}

    def preset(self, unit: str) -> str:
        """enable, disable or ignore: what the first fitting line of the presets says."""
        for verb, pattern in self._presets:
            if fnmatch.fnmatchcase(unit, pattern):
                return verb
        return "enable"

    @cached_property
    def _presets(self) -> list[tuple[str, str]]:
        files: dict[str, str] = {}
        for folder in PRESETS:
            for name in self._tree.names(folder):
                if name.endswith(".preset"):
                    files.setdefault(name, f"{folder}/{name}")
        return [(words[0], words[1]) for _, path in sorted(files.items())
                for line in self._tree.text(path).splitlines()
                if len(words := line.split()) >= 2 and words[0] in ("enable", "disable", "ignore")]

    def read(self, unit: str) -> Sections:
        """A unit's settings with those of its drop-ins: section → key → values in their order."""
        if unit in self._read:
            return self._read[unit]
        template = re.sub(r"@[^@]*\.", "@.", unit)
        path = self.files.get(unit) or self.files.get(template)
        found: Sections = {}
        for each in [path, *self._drop_ins(unit, template)]:
            if each and self._tree.is_file(each):
                merge(found, self._tree.text(each))
        self._read[unit] = found
        return found

    def _drop_ins(self, unit: str, template: str) -> list[str]:
        stem, _, kind = unit.rpartition(".")
        parts = stem.split("-")
        prefixes = [f"{'-'.join(parts[:count])}-.{kind}" for count in range(1, len(parts))]
        found: dict[str, str] = {}
        for name in (unit, template, *reversed(prefixes), kind):
            for folder in FOLDERS:
                for each in self._tree.names(f"{folder}/{name}.d"):
                    if each.endswith(".conf"):
                        found.setdefault(each, f"{folder}/{name}.d/{each}")
        return [found[name] for name in sorted(found)]

    def values(self, unit: str, key: str, section: str = "Unit") -> list[str]:
        """The words of a list of a unit, without those before an empty assignment."""
        words: list[str] = []
        for value in self.read(unit).get(section, {}).get(key, []):
            words = [*words, *value.split()] if value else []
        return [word.replace("%i", _instance(unit)).replace("%I", _instance(unit)) for word in words]

    def has_defaults(self, unit: str) -> bool:
        """Whether systemd adds the ordering that nearly all units have."""
        last = self.values(unit, "DefaultDependencies")
        return not last or last[-1].lower() not in ("no", "false", "0", "off")

    def pulled(self, start: str) -> set[str]:
        """Return the names of a unit and of all units that are started along with it, without aliases."""
        found: set[str] = set()
        waiting = [start]
        while waiting:
            unit = self.name(waiting.pop())
            if unit is None or unit in found:
                continue
            found.add(unit)
            waiting += self._needs(unit)
        return found

    def _needs(self, unit: str) -> Iterator[str]:
        for key in PULLS:
            yield from self.values(unit, key)
        for kind in ("wants", "requires", "upholds"):
            for name in {unit, re.sub(r"@[^@]*\.", "@.", unit)}:
                yield from self.links(name, kind)
        if self.has_defaults(unit) and unit.endswith((".service", ".socket", ".timer", ".path")):
            yield "sysinit.target"

    def order(self, units: set[str]) -> dict[str, set[str]]:
        """Which of some units each of them comes after."""
        after: dict[str, set[str]] = {unit: set() for unit in units}

        def add(later: str | None, earlier: str | None) -> None:
            if later in after and earlier in after and later != earlier:
                after[later].add(earlier)

        for unit in units:
            for earlier in (*self.values(unit, "After"), *self._after_by_kind(unit)):
                add(unit, self.name(earlier))
            for later in (*self.values(unit, "Before"), *self._before_by_kind(unit)):
                add(self.name(later), unit)
        # a target comes after what it starts, unless it says otherwise
        for unit in sorted(units):
            if unit.endswith(".target") and self.has_defaults(unit):
                for each in map(self.name, self._needs(unit)):
                    if each in units and self.has_defaults(each) and unit not in after[each]:
                        add(unit, each)
        return after

    def _after_by_kind(self, unit: str) -> Iterator[str]:
        if self.has_defaults(unit):
            if unit.endswith((".service", ".socket", ".timer", ".path")):
                yield "sysinit.target"
            if unit.endswith(".service"):
                yield "basic.target"
            if unit.endswith((".mount", ".automount", ".swap")):
                yield "local-fs-pre.target"
        if unit.endswith(".service"):
            # without a type, a name on the bus makes it one of the bus
            named = ["dbus"] if self.values(unit, "BusName", "Service") else []
            if (self.values(unit, "Type", "Service") or named)[-1:] == ["dbus"]:
                yield "dbus.socket"
            yield from self.values(unit, "Sockets", "Service")
            yield unit.removesuffix(".service") + ".socket"

    def _before_by_kind(self, unit: str) -> Iterator[str]:
        if unit.endswith((".timer", ".path")):
            section = "Timer" if unit.endswith(".timer") else "Path"
            yield (self.values(unit, "Unit", section) or [re.sub(r"\.\w+$", ".service", unit)])[-1]
        if self.has_defaults(unit):
            for kind, target in ((".socket", "sockets.target"), (".timer", "timers.target"), (".path", "paths.target"),
                                 (".mount", "local-fs.target"), (".automount", "local-fs.target"),
                                 (".swap", "swap.target")):
                if unit.endswith(kind):
                    yield target

    def circle(self, start: str) -> list[str]:
        """Units of which each waits for the next, and the last for the first, when a unit starts; none is good."""
        after = self.order(self.pulled(start))
        done: set[str] = set()
        for first in sorted(after):
            path: list[str] = []
            stack = [(first, iter(sorted(after[first])))] if first not in done else []
            path += [first] if stack else []
            while stack:
                unit, rest = stack[-1]
                following = next(rest, None)
                if following is None:
                    done.add(unit)
                    stack.pop()
                    path.pop()
                elif following in path:
                    return path[path.index(following):]
                elif following not in done:
                    stack.append((following, iter(sorted(after[following]))))
                    path.append(following)
        return []


def merge(found: Sections, text: str) -> None:
    """Add a unit file's settings to those that were read before."""
    section: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            section = found.setdefault(line[1:-1], {})
        elif "=" in line:
            key, _, value = line.partition("=")
            section.setdefault(key.strip(), []).append(value.strip())


def _instance(unit: str) -> str:
    return unit.partition("@")[2].rpartition(".")[0]

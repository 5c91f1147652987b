"""`acli vg.…`: volume groups, in the words that operators of such systems know. Nothing else of acli is here."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cornerstone.controller.data_services import container
from cornerstone.controller.data_services.catalogue import UNITS, Disk, size_of
from cornerstone.model.data_path import device_name
from cornerstone.model.error import CornerstoneError

USAGE = """\
acli vg.list
acli vg.get NAME
acli vg.create NAME
acli vg.disk_create NAME create_size=10G
acli vg.delete NAME"""
# each word, and the arguments that it takes besides the name
WORDS = {"vg.list": (), "vg.get": (), "vg.create": (), "vg.disk_create": ("create_size",), "vg.delete": ()}


def parse(words: Sequence[str]) -> tuple[str, str, dict[str, str]]:
    """The word, the group's name ("" for vg.list), and its arguments. CornerstoneError for anything else."""
    hint = f"the words are:\n{USAGE}"
    if not words or words[0] not in WORDS:
        raise CornerstoneError(f"acli doesn't know {words[0]!r:.40}" if words else "acli needs a word", hint)
    word, rest = words[0], list(words[1:])
    names = [each for each in rest if "=" not in each]
    if len(names) != (word != "vg.list"):
        raise CornerstoneError(f"{word} takes {'no name' if word == 'vg.list' else 'one name'}, not {len(names)}", hint)
    arguments = dict(each.split("=", 1) for each in rest if "=" in each)
    if unknown := sorted(set(arguments) - set(WORDS[word])):
        raise CornerstoneError(f"{word} has no argument {', '.join(unknown)}", hint)
    if missing := sorted(set(WORDS[word]) - set(arguments)):
        raise CornerstoneError(f"{word} needs {', '.join(missing)}", hint)
    return word, names[0] if names else "", arguments


def size_text(size: int) -> str:
    """Bytes as acli takes them."""
    unit = next(unit for unit in reversed(UNITS) if size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def disk_line(disk: Disk) -> str:
    """One disk for people: where it is on a host, too."""
    return "  ".join((str(disk.index), size_text(disk.size), f"lun {disk.lun}", disk.serial,
                      f"/dev/mapper/{device_name(disk.serial)}"))


def run(words: Sequence[str]) -> list[str]:
    """Do what the words say; the lines to print."""
    word, name, arguments = parse(words)
    size = size_of(arguments["create_size"]) if "create_size" in arguments else 0
    # imported here: bad words need no Ceph
    from cornerstone.controller.data_services.store import Store

    with Store(container()) as store:
        if word == "vg.create":
            store.create_group(name)
        elif word == "vg.delete":
            store.delete_group(name)
        elif word == "vg.disk_create":
            return [disk_line(store.create_disk(name, size))]
        elif word == "vg.get":
            return [name, *(f"  {disk_line(disk)}" for disk in store.catalogue().group(name).disks)]
        else:
            return [f"{group.name}  {len(group.disks)} disks" for group in store.catalogue().groups]
    return [f"{name}: {'created' if word == 'vg.create' else 'deleted'}"]


def main(words: Sequence[str]) -> int:
    """0, or the error's code with the error on standard error."""
    try:
        print(*run(words), sep="\n")
    except CornerstoneError as error:
        print(error, file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

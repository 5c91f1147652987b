"""`acli vg.…`: volume groups, in the words that operators of such systems know. Nothing else of acli is here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cornerstone.cvm.iscsi_target import container
from cornerstone.cvm.iscsi_target.catalogue import UNITS, Disk, VolumeGroup, size_of
from cornerstone.lib.error import Code, CornerstoneError, ends_in_one_line
from cornerstone.model.contracts.iscsi import device_name

if TYPE_CHECKING:
    from cornerstone.cvm.iscsi_target.store import Store

USAGE = """\
acli vg.list
acli vg.get NAME
acli vg.create NAME
acli vg.disk_create NAME create_size=10G
acli vg.detach NAME
acli vg.delete NAME [--now] [--yes]
acli vg.trash_list
acli vg.restore NAME
acli vg.purge NAME [--yes]"""
# each word, and the arguments that it takes besides the name
WORDS = {"vg.list": (), "vg.get": (), "vg.create": (), "vg.disk_create": ("create_size",), "vg.detach": (),
         "vg.delete": (), "vg.trash_list": (), "vg.restore": (), "vg.purge": ()}
OPTIONS = {"vg.delete": ("--now", "--yes"), "vg.purge": ("--yes",)}
NAMELESS = ("vg.list", "vg.trash_list")
AGREED = "I agree"

Ask = Callable[[str], str]


def parse(words: Sequence[str]) -> tuple[str, str, dict[str, str]]:
    """The word, the group's name ("" for a word that takes none), and its arguments; an option's value is "".

    CornerstoneError for anything else.
    """
    hint = f"the words are:\n{USAGE}"
    if not words or words[0] not in WORDS:
        raise CornerstoneError(f"acli doesn't know {words[0]!r:.40}" if words else "acli needs a word", hint)
    word, rest = words[0], list(words[1:])
    options = [each for each in rest if each.startswith("--")]
    names = [each for each in rest if "=" not in each and each not in options]
    if len(names) != (word not in NAMELESS):
        raise CornerstoneError(f"{word} takes {'no name' if word in NAMELESS else 'one name'}, not {len(names)}", hint)
    arguments = dict(each.split("=", 1) for each in rest if "=" in each and each not in options)
    if unknown := sorted({*arguments, *options} - {*WORDS[word], *OPTIONS.get(word, ())}):
        raise CornerstoneError(f"{word} has no argument {', '.join(unknown)}", hint)
    if missing := sorted(set(WORDS[word]) - set(arguments)):
        raise CornerstoneError(f"{word} needs {', '.join(missing)}", hint)
    return word, names[0] if names else "", arguments | dict.fromkeys(options, "")


def size_text(size: int) -> str:
    """Bytes as acli takes them."""
    unit = next(unit for unit in reversed(UNITS) if size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def rough_size(size: int) -> str:
    """Bytes for people, with one decimal: 3.7G."""
    unit = next((unit for unit in reversed(UNITS) if size >= UNITS[unit]), "M")
    return f"{size / UNITS[unit]:.1f}{unit}"


def disk_line(disk: Disk) -> str:
    """One disk for people: where it is on a host, too."""
    return "  ".join((str(disk.index), size_text(disk.size), f"lun {disk.lun}", disk.serial,
                      f"/dev/mapper/{device_name(disk.serial)}"))


def group_lines(group: VolumeGroup) -> list[str]:
    """A group and its disks for people."""
    return [group.name, *(f"  {disk_line(disk)}" for disk in group.disks)]


def _list(store: Store) -> Iterator[str]:
    """The groups, and how much room there is."""
    groups, room, trash = store.catalogue().groups, store.capacity(), store.volumes.trash()
    for group in groups:
        yield f"{group.name}  {len(group.disks)} disks"
    sold = sum(disk.size for group in groups for disk in group.disks)
    yield (f"free {rough_size(room.free)} of {rough_size(room.usable)}, sold {rough_size(sold)} of at most "
           f"{rough_size(room.most_sold)}, in the trash {rough_size(sum(each.size for each in trash))}")


def _trash_list(store: Store) -> Iterator[str]:
    """What can be restored: a line for each group that was deleted, those that were deleted last at the end."""
    trash = store.volumes.trash()
    for deletion in dict.fromkeys(each.deletion for each in trash):
        disks = [each for each in trash if each.deletion == deletion]
        yield (f"{disks[0].group}  {len(disks)} disks  {size_text(sum(each.size for each in disks))}  kept until "
               f"{min(each.until for each in disks):%F %R} UTC")


def _require_consent(word: str, what: str, arguments: dict[str, str], ask: Ask) -> None:
    """Go on if an operator agrees to what, or has with --yes. CornerstoneError otherwise."""
    if "--yes" in arguments:
        return
    if not sys.stdin.isatty():
        raise CornerstoneError(f"{what} {word} asks first, and there is nobody to ask", "in a script say --yes",
                               Code.REFUSED)
    if ask(f"{what}\nDo you want to proceed? ({AGREED}/[N]): ") != AGREED:
        raise CornerstoneError("nothing is deleted", "", Code.INTERRUPTED)


def _delete(store: Store, name: str, arguments: dict[str, str], ask: Ask) -> str:
    disks, now = store.require_unused(name).disks, "--now" in arguments or store.full()
    size = size_text(sum(disk.size for disk in disks)) if disks else "0M"
    _require_consent("vg.delete", f"This {'destroys' if now else 'deletes'} {name} with {len(disks)} disks, {size}, "
                     + ("at once." if now else "and keeps them in the trash for a day."), arguments, ask)
    until = store.delete_group(name, now)
    return f"{name}: deleted" + (f"; until {until:%F %R} UTC: acli vg.restore {name}" if until else "")


def run(words: Sequence[str], ask: Ask = input) -> list[str]:
    """Do what the words say; the lines to print. ask: asks an operator at a terminal."""
    word, name, arguments = parse(words)
    size = size_of(arguments["create_size"]) if "create_size" in arguments else 0
    # imported here: bad words need no Ceph
    from cornerstone.cvm.iscsi_target.store import Store

    with Store(container()) as store:
        if word == "vg.create":
            store.create_group(name)
            return [f"{name}: created"]
        if word == "vg.disk_create":
            return [disk_line(store.create_disk(name, size))]
        if word == "vg.detach":
            store.detach_group(name)
            return [f"{name}: detached"]
        if word == "vg.delete":
            return [_delete(store, name, arguments, ask)]
        if word == "vg.restore":
            return group_lines(store.restore_group(name))
        if word == "vg.purge":
            _require_consent(word, f"This destroys what the trash has of {name}.", arguments, ask)
            store.purge_group(name)
            return [f"{name}: purged"]
        if word == "vg.get":
            return group_lines(store.catalogue().group(name))
        return list(_list(store) if word == "vg.list" else _trash_list(store))


@ends_in_one_line
def main(words: Sequence[str]) -> int:
    """0, or the error's code with the error on standard error."""
    try:
        print(*run(words), sep="\n")
    except CornerstoneError as error:
        print(error, file=sys.stderr)
        return int(error.code)
    except (KeyboardInterrupt, EOFError):
        return int(Code.INTERRUPTED)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a build needs of its machine: looked at before the first byte is fetched, and named in plain words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from cornerstone.factory.scratch import check_file_system
from cornerstone.factory.settings import Workspace
from cornerstone.lib import process
from cornerstone.lib.error import Code, CornerstoneError

# Programs that the making of roots, disks and ISOs starts on this machine.
TOOLS = ("apt-ftparchive", "apt-get", "chroot", "depmod", "dpkg-deb", "hostname", "losetup", "mcopy", "mke2fs",
         "mkfs.vfat", "mksquashfs", "mmdebstrap", "modinfo", "mount", "qemu-img", "setpriv", "sudo", "tune2fs",
         "unshare", "unsquashfs", "zstd")


# A shell reads these, or apt in the address of a folder.
SIGNS = "'\"\\`$%*?[]|&;<>(){}#!"


def preflight(workspace: Workspace) -> None:
    """Raise CornerstoneError (MACHINE) unless roots can be made on this machine, in this workspace's cache."""
    check_paths([workspace.root, workspace.cache])
    check_tools(TOOLS)
    check_file_system(workspace.temporary)
    check_namespaces(workspace.temporary)
    check_loop_device(workspace.temporary)


def check_paths(paths: Iterable[Path]) -> None:
    """Raise CornerstoneError (MACHINE) for a path that diskimage-builder's scripts would take apart.

    Letters beyond ASCII are no trouble: all tools run under a UTF-8 locale.
    """
    for path in paths:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
        wrong = {"bytes that are no UTF-8": text != str(path), "blanks": any(letter.isspace() for letter in text),
                 "colons": ":" in text, "commas": "," in text,
                 "quotes or other signs that a shell or apt reads": any(letter in text for letter in SIGNS),
                 "unprintable letters": not text.isprintable()}
        if bad := [what for what, is_there in wrong.items() if is_there]:
            raise CornerstoneError(f"{text!r}: a path with {bad[0]} can't be used to build in",
                                   "move the checkout, or set CORNERSTONE_CACHE to a plain path", Code.MACHINE)


def check_tools(tools: Iterable[str]) -> None:
    """Raise CornerstoneError (MACHINE) that names all programs that aren't installed."""
    where = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if missing := [tool for tool in tools if shutil.which(tool, path=where) is None]:
        raise CornerstoneError(f"this machine lacks {', '.join(missing)}",
                               "run ./invoke, which installs what is missing", Code.MACHINE)


def check_namespaces(folder: Path) -> None:
    """Raise CornerstoneError (MACHINE) unless namespaces of our own can be made and mounted in, as in build_root."""
    try:
        process.read(["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
                      "sh", "-c", 'mount -t tmpfs none "$1" && umount "$1" && hostname localhost', "-", folder])
    except CornerstoneError as error:
        raise CornerstoneError(f"nothing can be mounted in namespaces of our own: {error.message}",
                               "build as the machine's own root; a container must be privileged",
                               Code.MACHINE) from error


def check_loop_device(folder: Path) -> None:
    """Raise CornerstoneError (MACHINE) unless a file can be attached to a loop device: diskimage-builder does that."""
    image = folder / "tried.img"
    try:
        with image.open("wb") as file:
            file.truncate(1 << 20)
        device = process.read(["losetup", "--find", "--show", image]).strip()
        process.call(["losetup", "--detach", device])
    except CornerstoneError as error:
        raise CornerstoneError(f"this machine gives no loop device: {error.message}",
                               "load the kernel's module loop; a container must be privileged and see the host's /dev",
                               Code.MACHINE) from error
    finally:
        image.unlink(missing_ok=True)

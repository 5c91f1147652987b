"""The QEMU that machines are emulated with: the one of an ISO's hypervisor, where this computer's own is older.

Starting a process within a machine takes 7.2 four times as long as 10.0.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from cornerstone.customize.iso_image import Image
from cornerstone.factory.scratch import own_folder
from cornerstone.factory.settings import Workspace
from cornerstone.lib import process
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.manifest import HYPERVISOR

PROGRAM = "qemu-system-x86_64"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
FIRMWARE = ("usr/share/qemu", "usr/share/seabios")
LOADER = "lib64/ld-linux-x86-64.so.2"
PARTS = (f"usr/bin/{PROGRAM}", LIBRARIES, *FIRMWARE, "lib64", "usr/lib64")

# It runs with the libraries and firmware beside it, and leaves those of the computer alone.
WRAPPER = f"""\
#!/bin/sh
export QEMU_MODULE_DIR={{root}}/{LIBRARIES}/qemu
exec {{root}}/{LOADER} --library-path {{root}}/{LIBRARIES} {{root}}/usr/bin/{PROGRAM} {{firmware}} "$@"
"""


@contextlib.contextmanager
def emulator(iso: Path, workspace: Workspace) -> Iterator[str]:
    """The program to call, while the block runs. CornerstoneError (VERIFY) when the ISO can't be read."""
    own = shutil.which(PROGRAM)
    with own_folder(workspace) as folder:
        of_iso = unpack(iso, folder.temporary)
        yield of_iso if own is None or version(of_iso) > version(own) else own


def unpack(iso: Path, folder: Path) -> str:
    """Take QEMU and what it needs out of the ISO's hypervisor root; the program to call."""
    image = Image(iso)
    try:
        place = image.place(HYPERVISOR)
    finally:
        image.close()
    root = folder / "root"
    process.read(["unsquashfs", "-quiet", "-no-progress", "-offset", str(place.start), "-dest", root, iso, *PARTS])
    quoted = shlex.quote(str(root))
    wrapper = folder / PROGRAM
    wrapper.write_text(WRAPPER.format(root=quoted, firmware=" ".join(f"-L {quoted}/{path}" for path in FIRMWARE)))
    wrapper.chmod(0o755)
    return str(wrapper)


def version(program: str) -> tuple[int, int]:
    """Of a QEMU: (10, 0)."""
    said = process.read([program, "--version"])
    if not (found := re.search(r"version (\d+)\.(\d+)", said)):
        raise CornerstoneError(f"{program} doesn't say its version: {said[:80]!r}", "see that it is QEMU")
    return int(found[1]), int(found[2])

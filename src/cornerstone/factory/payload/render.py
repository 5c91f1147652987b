"""Text files from the templates beside this module (jinja2; an undefined name is an error)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2

from cornerstone.model.contracts.boot_area import ARGUMENTS, CONSOLE
from cornerstone.model.contracts.manifest import BOOT_AREA
from cornerstone.model.disk.slot_disk import HYPERVISOR_ARGUMENTS, INSTALLED_MARK, SERIAL, VERBOSE, VERBOSE_TITLE

TEMPLATES = Path(__file__).parent / "templates"

# the serial port is GRUB's variable; audit off: the live environment has no one to read it, and it would write over
# the screen
LIVE_ARGUMENTS = f"{HYPERVISOR_ARGUMENTS} audit=0".replace(f"console={SERIAL}", f"console=${CONSOLE}")
# the menus on the ISO, by their path there
MENUS = {"boot/grub/grub.cfg": "iso-grub.cfg", "boot/grub/loopback.cfg": "iso-loopback.cfg"}
IPXE_SCRIPT = "boot.ipxe"
# the templates of what lies on the ISO or beside it
OF_THE_ISO = (*MENUS.values(), IPXE_SCRIPT)


def render(template: str, **values: object) -> str:
    """The text of templates/<template>.j2 with values."""
    return _environment().get_template(f"{template}.j2").render(**values)


def menus(identity: str, profile: object, key: str, arguments: Sequence[str] = ()) -> dict[str, bytes]:
    """GRUB's menus for the ISO of a profile, by their paths; key: the kind of the key that it is signed with.

    arguments: the profile's own for the hypervisor's kernel, which is the one that runs Foundation.
    """
    live = " ".join((LIVE_ARGUMENTS, *arguments))
    return {path: render(template, identity=identity, profile=profile, key=key, arguments=live,
                         installed_mark=INSTALLED_MARK, boot_area=BOOT_AREA, serial=SERIAL,
                         loaded=f"{CONSOLE} {ARGUMENTS}", verbose=VERBOSE, verbose_title=VERBOSE_TITLE).encode()
            for path, template in MENUS.items()}


def ipxe_script(identity: str, profile: object, key: str, manifest: str, arguments: Sequence[str] = ()) -> str:
    """iPXE's script for starting a profile's Foundation over the network; manifest: the sha256 of its manifest.json.

    arguments: further ones of the profile for the kernel, as in menus.
    """
    live = " ".join((LIVE_ARGUMENTS.replace(f"${CONSOLE}", "${serial-console}"), *arguments))
    return render(IPXE_SCRIPT, identity=identity, profile=profile, key=key, manifest=manifest, serial=SERIAL,
                  initrd="initrd.img", arguments=live)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        # shell and GRUB text stays as it is
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)

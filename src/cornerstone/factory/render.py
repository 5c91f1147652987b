"""Text files from the templates beside this module (jinja2; an undefined name is an error)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from cornerstone.model.slot_disk import HYPERVISOR_ARGUMENTS

TEMPLATES = Path(__file__).parent / "templates"

# audit off: the live environment has no one to read it, and it would write over the screen
LIVE_ARGUMENTS = f"{HYPERVISOR_ARGUMENTS} audit=0"


def render(template: str, **values: object) -> str:
    """The text of templates/<template>.j2 with values."""
    return _environment().get_template(f"{template}.j2").render(**values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        # shell and GRUB text stays as it is
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)

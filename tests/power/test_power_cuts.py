"""A power cut at ten points of imaging, one after the other on the same machine, and one in its first boot.

`./invoke test --tier power`: an hour under emulation, for the night.
"""

from __future__ import annotations

import pytest

from cornerstone.customize.customize import customize
from cornerstone.lab.install import Run
from cornerstone.lab.power import Cut, installed_in_spite
from cornerstone.lab.shape import load_shape

pytestmark = pytest.mark.usefixtures("emulator")
CUTS = [Cut("partition"), Cut("root"), Cut("root", 50), Cut("root", 99), Cut("esp"), Cut("state"),
        Cut("cvm", 60), Cut("check", 10), Cut("check", 90), Cut("commit")]


@pytest.mark.parametrize(("firmware", "first_boot"), [("bios", "networks"), ("uefi", "cvm")])
def test_ten_cuts_and_one_in_first_boot_end_in_a_node(iso, site_file, runs, firmware, first_boot):
    run = Run.prepare(runs / f"power-{firmware}", load_shape("one-node"), site_file.read_bytes(),
                      lambda site, to: customize(iso, site, to), firmware, "cd")
    try:
        with installed_in_spite(run, [*CUTS, Cut(first_boot=first_boot)]) as survived:
            assert survived.outcome.verdict.ok
            assert [(str(at), verdict.reason) for at, verdict in survived.alone] \
                == [(str(at), "nothing-boots") for at in CUTS]
    finally:
        run.remove_secrets()

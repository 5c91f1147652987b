"""The QEMU of the hypervisor's root, run on this computer."""

from __future__ import annotations

import subprocess

from cornerstone.factory.inspection.emulator import unpack, version


def test_the_hypervisors_qemu_starts_a_machine_here(iso, tmp_path):
    program = unpack(iso, tmp_path)
    assert version(program) >= (7, 2)
    # its own firmware and libraries are beside it
    words = ["-nodefaults", "-display", "none", "-S", "-qmp", "stdio", "-accel", "tcg", "-machine", "q35",
             "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]
    asked = subprocess.run([program, *words], input=b'{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n',
                           capture_output=True, check=True)
    assert b'"return"' in asked.stdout and asked.stderr == b""

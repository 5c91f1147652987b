"""`invoke diff` on two real ISOs, one on each Debian suite: the largest difference that there is."""

import json

from cornerstone.factory.diff import diff_isos
from cornerstone.model.contracts.manifest import CVM, FIRST_BOOT


def test_the_isos_of_two_suites(isos, tmp_path, capsys):
    newer, older = isos
    diff_isos(older, newer, tmp_path, format="json", files=True)
    found = json.loads(capsys.readouterr().out)
    assert not found["equal"]
    roots = {root["name"]: {package["name"]: package for package in root["packages"]} for root in found["roots"]}
    assert roots.keys() == {"hypervisor", "cvm"}
    for packages in roots.values():
        assert packages["libc6"]["state"] == packages["systemd"]["state"] == "upgraded"
        assert "usr/lib/x86_64-linux-gnu/libc.so.6" in [file["path"] for file in packages["libc6"]["files"]]
        assert [name for name, package in packages.items() if package["state"] == "downgraded"] == []
        # nearly all files have a package: the rest is made while a root is assembled
        assert len(packages[""]["files"]) * 20 < sum(len(package["files"]) for package in packages.values())
    boot = {change["name"]: change["b"] for change in found["boot"]}
    assert boot["boot/vmlinuz"].startswith("Linux 6.12.")
    assert boot["EFI/BOOT/grubx64.efi"].startswith("grub 2.12-")
    assert boot["EFI/BOOT/BOOTX64.EFI"].startswith("shim 1")
    assert FIRST_BOOT in [text["name"] for text in found["texts"]]
    assert CVM in found["entries"]

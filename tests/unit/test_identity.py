"""Who a Controller VM is: the files that come of node.json."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.cvm import identity
from cornerstone.cvm.identity import become, files, main
from cornerstone.model.contracts.node import NodeConfig
from cornerstone.model.packet_filter import cvm_rules

NODES = Path(__file__).resolve().parents[1] / "data/nodes"
CONFIG = NodeConfig.from_json((NODES / "passthrough.json").read_text())


def test_files():
    assert files(CONFIG) == {
        "etc/hostname": "NTNX-22SM6D010001-A-CVM\n",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
                     "10.20.0.31 NTNX-22SM6D010001-A-CVM\n",
        "etc/resolv.conf": "nameserver 10.20.0.2\n",
        "etc/chrony/chrony.conf":
            "server ntp1.example.org iburst\n"
            "server 10.20.0.32 iburst minpoll 4 maxpoll 6\nserver 10.20.0.33 iburst minpoll 4 maxpoll 6\n"
            "allow 10.20.0.31\nallow 10.20.0.32\nallow 10.20.0.33\nmaxchange 60 1 -1\n"
            "makestep 1 -1\nrtcsync\ndriftfile /var/lib/chrony/chrony.drift\ncmdport 0\n",
        "run/systemd/network/10-eth0.network":
            "[Match]\nName=eth0\n\n[Network]\nAddress=10.20.0.31/24\nGateway=10.20.0.1\n"
            "IPv6AcceptRA=no\n",
        "run/systemd/network/10-eth1.network":
            "[Match]\nName=eth1\n\n[Network]\nAddress=192.168.5.2/24\nLinkLocalAddressing=no\n"
            "IPv6AcceptRA=no\n",
        "etc/nftables.conf": cvm_rules(CONFIG),
        "run/cornerstone/authorized_keys/root": "".join(f"{key}\n" for key in CONFIG.authorized_keys),
    }


def test_a_single_node_without_time_servers_has_no_time_source():
    alone = replace(CONFIG, cluster=None, cvm=replace(CONFIG.cvm, ntp_servers=()))
    assert not re.search("^(server|allow|local)", files(alone)["etc/chrony/chrony.conf"], re.MULTILINE)


def test_written_twice_they_are_the_same_and_nothing_is_left_beside_them(tmp_path):
    before = os.umask(0o022)
    try:
        become(CONFIG, tmp_path)
        (tmp_path / "etc/hostname").write_text("another\n")
        become(CONFIG, tmp_path)
    finally:
        os.umask(before)
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == files(CONFIG)
    # sshd takes no keys from where others may write
    assert {path.stat().st_mode & 0o022 for path in tmp_path.rglob("*")} == {0}


def test_the_name_is_set(tmp_path, monkeypatch, capsys):
    (tmp_path / "cornerstone.node").write_text(CONFIG.to_json())
    done = []
    monkeypatch.setattr(socket, "sethostname", done.append)
    monkeypatch.setattr(identity, "become", done.append)
    assert main(tmp_path) == 0
    assert done == [CONFIG, "NTNX-22SM6D010001-A-CVM"]
    assert capsys.readouterr().out == "this is NTNX-22SM6D010001-A-CVM: 10.20.0.31/24, 192.168.5.2/24\n"


@pytest.mark.parametrize(("content", "message"), [
    ("no JSON", "cornerstone.node isn't JSON"), ("{}", "cornerstone.node: .identity is missing"),
    (None, "can't be read")])
def test_a_bad_credential_is_one_line_and_changes_nothing(tmp_path, monkeypatch, capsys, content, message):
    if content is not None:
        (tmp_path / "cornerstone.node").write_text(content)
    monkeypatch.setattr(identity, "become", pytest.fail)
    assert main(tmp_path) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1

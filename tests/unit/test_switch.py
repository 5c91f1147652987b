"""The lab's switch passes frames between the ports that know each other, and its door answers as the gateway."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from cornerstone.lab.network import closed_network
from cornerstone.lab.switch import DOOR, Switch, door
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.site.file import read_site

ROOT = Path(__file__).parents[2]
ALL = b"\xff" * 6
A, B, C = (bytes.fromhex(f"5254000000{number:02x}") for number in (1, 2, 3))


@contextmanager
def plugged(folder, *names):
    """Sockets where QEMU's would be."""
    ends = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in names]
    try:
        for end, name in zip(ends, names, strict=True):
            end.bind(str(folder / f"{name}.far"))
            end.settimeout(10)
        yield ends
    finally:
        for end in ends:
            end.close()


def say(end, folder, port: str, frame: bytes) -> None:
    end.sendto(frame, str(folder / port))


def hears_nothing(end) -> bool:
    end.settimeout(0.2)
    try:
        end.recv(100)
    except TimeoutError:
        return True
    finally:
        end.settimeout(10)
    return False


def test_a_broadcast_reaches_all_and_an_answer_only_its_port(tmp_path):
    with Switch(tmp_path, ("a", "b", "c")), plugged(tmp_path, "a", "b", "c") as (a, b, c):
        say(a, tmp_path, "a", ALL + A + b"who")
        assert (b.recv(100), c.recv(100)) == (ALL + A + b"who",) * 2
        say(b, tmp_path, "b", A + B + b"me")
        assert a.recv(100) == A + B + b"me"
        assert hears_nothing(c) and hears_nothing(b)


def test_a_cut_parts_two_ports_and_no_other(tmp_path):
    with Switch(tmp_path, ("a", "b", "c")) as switch, plugged(tmp_path, "a", "b", "c") as (a, b, c):
        switch.cut("a", "b")
        say(a, tmp_path, "a", ALL + A + b"one")
        assert c.recv(100) == ALL + A + b"one" and hears_nothing(b)
        switch.heal("b", "a")
        say(a, tmp_path, "a", ALL + A + b"two")
        assert b.recv(100) == ALL + A + b"two"


def test_what_is_said_to_an_empty_port_is_lost(tmp_path):
    with Switch(tmp_path, ("a", "b", "c")), plugged(tmp_path, "a", "c") as (a, c):
        say(a, tmp_path, "a", ALL + A + b"lost")
        # it has passed the switch
        assert c.recv(100)
        with plugged(tmp_path, "b") as (b,):
            assert hears_nothing(b)
            say(a, tmp_path, "a", ALL + A + b"found")
            assert b.recv(100) == ALL + A + b"found"


def test_behind_the_door_is_the_gateway_and_a_way_in_for_each(tmp_path):
    site = read_site((ROOT / "sites/lab-three-nodes.json").read_bytes())
    nodes = [(str(node.hypervisor.ip), 22) for node in site.nodes]
    with (Switch(tmp_path, ("a", DOOR)) as switch, plugged(tmp_path, "a") as (a,),
          door(switch, closed_network(site, site.nodes[0]), tuple(nodes)) as ports):
        assert len(set(ports)) == 3 and all(ports)
        ask = bytes.fromhex("0806" "0001" "0800" "0604" "0001") + A + bytes([10, 20, 0, 99]) + bytes(6)
        say(a, tmp_path, "a", ALL + A + ask + bytes([10, 20, 0, 1]))
        answer = a.recv(100)
        assert answer[:6] == A and answer[28:32] == bytes([10, 20, 0, 1])


def test_a_network_that_qemu_refuses_is_an_error(tmp_path):
    with (Switch(tmp_path, (DOOR,)) as switch, pytest.raises(CornerstoneError, match="user network didn't start"),
          door(switch, "user,net=nonsense", (("10.20.0.11", 22),))):
        pass

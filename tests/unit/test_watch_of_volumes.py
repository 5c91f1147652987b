"""The watch on the catalogue: lost with the network, and there again as soon as that is."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from cornerstone.cvm.iscsi_target import watch
from cornerstone.cvm.iscsi_target.watch import LastingWatch


class Network:
    """Watches that are there while up; what was done, in order."""

    def __init__(self) -> None:
        self.up = True
        self.done: list[str] = []
        self.lost = None
        self.alive, self.age = True, timedelta(seconds=1)
        self.heard = threading.Event()
        self.told: list[str] = []
        self.lasting = LastingWatch(self.make, self.renewed, lambda event: self.told.append(event.state))

    def make(self, lost):
        self.done.append("watch" if self.up else "in vain")
        if not self.up:
            # the network comes back while nobody looks
            self.up = len(self.done) > 4
            raise ConnectionError("RADOS timed out")
        self.lost, self.alive, self.age = lost, True, timedelta(seconds=1)
        return self

    def renewed(self) -> None:
        self.done.append("look")
        self.heard.set()

    def check(self) -> timedelta:
        if not self.alive:
            raise ConnectionError("not connected")
        return self.age

    def close(self) -> None:
        self.done.append("close")
        if not self.up:
            raise ConnectionError("RADOS timed out")


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.001)
    network = Network()
    network.lasting.open()
    thread = threading.Thread(target=network.lasting.run)
    thread.start()
    yield network
    network.lasting.close()
    thread.join(30)
    assert not thread.is_alive()


def test_d22_a_lost_watch_is_made_anew_and_then_there_is_a_look(network):
    network.up = False
    network.lost(-107)
    assert network.heard.wait(30)
    assert network.done == ["watch", "close", "in vain", "in vain", "in vain", "watch", "look"]
    assert network.told == ["warning", "done"]


def test_d22_it_is_made_anew_each_time(network):
    for _ in range(3):
        network.heard.clear()
        network.lost(-107)
        assert network.heard.wait(30)
    assert network.done == ["watch", *["close", "watch", "look"] * 3]


def test_d22_a_watch_that_is_lost_without_a_word_is_found_by_a_look(network):
    network.lasting.check()
    assert network.done == ["watch"]
    network.alive = False
    network.lasting.check()
    assert network.heard.wait(30)
    assert network.done == ["watch", "close", "watch", "look"]


def test_d22_a_watch_that_the_cluster_does_not_confirm_is_made_anew_without_a_word_and_a_look(monkeypatch):
    monkeypatch.setattr(watch, "LOOKS", 30_000)
    network = Network()
    network.lasting.open()
    thread = threading.Thread(target=network.lasting.run)
    thread.start()
    network.age = timedelta(seconds=29)
    assert not network.heard.wait(0.2)
    network.age = timedelta(seconds=31)
    assert network.heard.wait(30)
    network.lasting.close()
    thread.join(30)
    assert network.done[:4] == ["watch", "close", "watch", "look"]


def test_d22_it_ends_while_the_network_is_away(network):
    network.make = lambda lost: (_ for _ in ()).throw(ConnectionError())
    network.lasting._make = network.make
    network.lost(-107)

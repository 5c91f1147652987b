"""An offer reaches the host over a real connection, and is made again until the host is logged in everywhere."""

from __future__ import annotations

import socket
import threading

import pytest

from cornerstone.cvm.iscsi_target.offering import Offering
from cornerstone.model.contracts.iscsi import Answer, Offer, Portal, from_line, to_line

OFFER = Offer("iqn.x", (Portal("192.168.5.2", 1), Portal("10.20.0.22", 2)), ())
BOTH = ("10.20.0.22:3260,2", "192.168.5.2:3260,1")


class Host:
    """Answers one offer after the other with what it was given."""

    def __init__(self, answers: list[bytes]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.where = self._socket.getsockname()
        self.heard: list[Offer] = []
        self.done = threading.Event()
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._socket:
            for answer in self._answers:
                peer, _ = self._socket.accept()
                with peer, peer.makefile("rb") as lines:
                    self.heard.append(from_line(Offer, lines.readline(), "offer"))
                    peer.sendall(answer)
        self.done.set()

    def join(self) -> None:
        self._thread.join(30)


@pytest.mark.parametrize("answer, said", [
    (to_line(Answer(BOTH)), ""),
    (to_line(Answer(BOTH[1:])), "the host isn't logged in to 10.20.0.22:3260,2: "),
    (to_line(Answer(BOTH[:1], "no route")), "the host isn't logged in to 192.168.5.2:3260,1: no route"),
    (to_line(Answer(BOTH, "", ("a",))), "the host doesn't see by every path: a"),
    (b"", "the host takes no offer: "),
    (b"{}\n", "the host takes no offer: "),
])
def test_what_the_host_answers_is_said(answer, said):
    host = Host([answer])
    assert Offering(lambda event: None, host.where).make(OFFER).startswith(said)
    assert host.heard == [OFFER]
    host.join()


def test_a_host_that_does_not_listen_is_said():
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = free.getsockname()
    assert Offering(lambda event: None, where).make(OFFER).startswith("the host takes no offer: ")


def test_it_is_offered_again_until_the_host_is_everywhere_and_then_at_a_change():
    events: list[str] = []
    whole = Offer("iqn.x", OFFER.portals, ("a",))
    host = Host([to_line(Answer(BOTH[:1])), to_line(Answer(BOTH)), to_line(Answer(BOTH))])
    everywhere, stop = threading.Event(), threading.Event()

    def tell(event) -> None:
        events.append(event.state)
        if event.state == "done":
            everywhere.set()
    offering = Offering(tell, host.where)
    thread = threading.Thread(target=offering.run, args=(stop,))
    thread.start()
    offering.set(OFFER)
    assert everywhere.wait(30)
    offering.set(OFFER)
    offering.set(whole)
    assert host.done.wait(30)
    stop.set()
    offering.stop()
    thread.join(30)
    assert host.heard == [OFFER, OFFER, whole]
    assert events == ["warning", "done"]


def test_d17_a_host_has_let_go_of_a_generation_when_it_has_all_of_the_offer():
    """What it answers in part is offered again, and so is the same offer of a later catalogue."""
    noted: list[int] = []
    host = Host([to_line(Answer(BOTH[:1])), to_line(Answer(BOTH, "sdb is in use")), to_line(Answer(BOTH)),
                 to_line(Answer(BOTH))])
    stop, one, two = threading.Event(), threading.Event(), threading.Event()

    def answered(generation: int) -> None:
        noted.append(generation)
        (two if generation == 6 else one).set()
    offering = Offering(lambda event: None, host.where, answered)
    thread = threading.Thread(target=offering.run, args=(stop,))
    thread.start()
    offering.set(OFFER, 5)
    assert one.wait(30)
    assert len(host.heard) == 3
    offering.set(OFFER, 6)
    assert two.wait(30)
    stop.set()
    offering.stop()
    thread.join(30)
    assert noted == [5, 6]

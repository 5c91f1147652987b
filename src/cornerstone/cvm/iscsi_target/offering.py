"""Offer this CVM's host what there is, until it has it by every path; again at each change."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from cornerstone.lib.deadline import within
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Event, Listener
from cornerstone.model.contracts import ports
from cornerstone.model.contracts.iscsi import HOST_ADDRESS, Answer, Offer, from_line, to_line

# the host logs in before it answers
ANSWER_SECONDS = 120
# bytes: some words about each portal and each volume
LONGEST_ANSWER = 1 << 20
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1, 30


class Offering:
    """The offer that stands, and a thread that makes it. where: the host's address and port.

    answered: called with the catalogue's generation when the host has taken its offer, and has let go of all else.
    """

    def __init__(self, tell: Listener, where: tuple[str, int] = (HOST_ADDRESS, ports.OFFERS),
                 answered: Callable[[int], None] = lambda generation: None) -> None:
        self._tell = tell
        self._where = where
        self._answered = answered
        self._standing: tuple[Offer, int] | None = None
        self._changed = threading.Event()
        self._last = ""

    def set(self, offer: Offer, generation: int = 0) -> None:
        """Offer this from now on, unless that is what is offered. generation: of the catalogue that it is made from."""
        if (offer, generation) != self._standing:
            self._standing = offer, generation
            self._changed.set()

    def stop(self) -> None:
        self._changed.set()

    def run(self, stop: threading.Event) -> None:
        """Until stop is set."""
        pause: float | None = None
        while not stop.is_set():
            # a host that has all of it needs no more until something changes
            changed = self._changed.wait(pause)
            self._changed.clear()
            if stop.is_set() or self._standing is None:
                continue
            offer, generation = self._standing
            said = self._offer(offer, generation)
            if said != self._last:
                self._last = said
                self._tell(Event("data-services", "host", "warning" if said else "done", said))
            pause = min((pause or FIRST_PAUSE_SECONDS / 2) * (1 if changed else 2), LONGEST_PAUSE_SECONDS) \
                if said else None

    def _offer(self, offer: Offer, generation: int) -> str:
        """Offer, and pass on that it was answered; what went wrong, or ""."""
        try:
            return self.make(offer) or self._note(generation)
        except Exception as error:
            # whatever it is: without this thread the host learns of no volume
            return f"the host's answer: {type(error).__name__}: {error}"

    def _note(self, generation: int) -> str:
        """Pass on that the host has answered; what went wrong, or ""."""
        try:
            self._answered(generation)
        except CornerstoneError as error:
            return f"the host's answer can't be noted: {error.message}"
        return ""

    def make(self, offer: Offer) -> str:
        """Offer once; "" when the host is logged in to every portal and sees each volume there, else what isn't so."""
        try:
            with socket.create_connection(self._where, timeout=ANSWER_SECONDS) as host, \
                    within(host, ANSWER_SECONDS), host.makefile("rb") as lines:
                host.sendall(to_line(offer))
                answer = from_line(Answer, lines.readline(LONGEST_ANSWER), "the host's answer")
        except (OSError, CornerstoneError) as error:
            return f"the host takes no offer: {error}"
        missing = sorted({str(portal) for portal in offer.portals} - set(answer.sessions))
        if missing:
            return f"the host isn't logged in to {', '.join(missing)}: {answer.error}"
        if answer.unseen:
            # a CVM that is slow shows a volume after the host has looked
            return f"the host doesn't see by every path: {', '.join(answer.unseen)}"
        return f"the host: {answer.error}" if answer.error else ""

"""Ask another member something: a POST of JSON over mutual TLS, from this CVM's own address.

Three things can come of it beside an answer: the member isn't there (Absent), it isn't as far yet (NotYet), or one of
the two doesn't take the other for a member (Refused).
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cornerstone.cvm.membership import keys
from cornerstone.cvm.membership.member import PORT, SAME_ISO, Member, context
from cornerstone.cvm.membership.messages import REFUSAL, REQUEST, Request
from cornerstone.lib.deadline import within
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import parse_once
from cornerstone.model.contracts.places import STATE

TIMEOUT_SECONDS = 5
# times a timeout, which counts for each step, for all from the handshake to the answer's end
MOST_TIMEOUTS = 3
# an answer is some services of one node
MAX_BYTES = 1 << 20


class Absent(CornerstoneError):
    """Nobody answers at the address."""


class NotYet(CornerstoneError):
    """The member is there and can't give what was asked for yet. osds: another cluster's that its data disks hold."""

    osds: tuple[str, ...] = ()


class Refused(CornerstoneError):
    """It isn't a member, or doesn't take us for one."""


class Unadmitted(Refused):
    """There is a cluster, whose members know another key for the address of one of the two."""


@dataclass(frozen=True)
class Client:
    """me: who asks; folder: where its certificate is."""

    me: Member
    folder: Path = STATE

    def ask(self, address: str, action: str, timeout: float = TIMEOUT_SECONDS, **more: Any) -> dict[str, Any]:
        """The member's answer. CornerstoneError, of the three kinds above, when there is none.

        timeout: of connecting, and of waiting for more; in seconds.
        """
        tls = context(ssl.PROTOCOL_TLS_CLIENT, self.folder)
        body = json.dumps({**REQUEST.write(Request(self.me.now(self.folder))), **more})
        try:
            with socket.create_connection((address, PORT), timeout, (self.me.address, 0)) as plain, \
                    within(plain, MOST_TIMEOUTS * timeout), \
                    contextlib.closing(http.client.HTTPConnection(address, PORT)) as connection:
                connection.sock = tls.wrap_socket(plain, server_hostname=address)
                if not keys.meet(address, connection.sock.getpeercert(binary_form=True) or b"", self.folder):
                    raise Unadmitted(*keys.another(address), Code.REFUSED)
                connection.request("POST", f"/{action}", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                return _understood(address, answer.status, answer.read(MAX_BYTES))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise Absent(f"{address} breaks off", "", Code.NETWORK) from None
        except ssl.SSLError as error:
            raise Refused(f"{address} and {self.me.address} aren't members of one cluster: {_words(error)}", SAME_ISO,
                          Code.REFUSED) from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise Absent(f"this CVM hasn't got its address {self.me.address} yet", "see: networkctl status eth0",
                             Code.NETWORK) from None
            raise Absent(f"{address} doesn't answer: {error.strerror or error}", "", Code.NETWORK) from None
        except (ValueError, http.client.HTTPException):
            raise Absent(f"{address} answers in another language", "", Code.NETWORK) from None

    def ask_all(self, addresses: tuple[str, ...], action: str, timeout: float = TIMEOUT_SECONDS,
                **more: Any) -> dict[str, dict[str, Any] | CornerstoneError]:
        """Ask several at the same time: by address, the answer or the error."""
        def one(address: str) -> dict[str, Any] | CornerstoneError:
            try:
                return self.ask(address, action, timeout, **more)
            except CornerstoneError as error:
                return error
        with ThreadPoolExecutor(len(addresses) or 1) as threads:
            return dict(zip(addresses, threads.map(one, addresses), strict=True))


def _understood(address: str, status: int, content: bytes) -> dict[str, Any]:
    """The answer of a member. Raises ValueError when it isn't an object in JSON, NotYet or Refused for an error's."""
    record = parse_once(content, MAX_BYTES)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    # what goes wrong in another form is still told, so this is all that has to fit
    try:
        record = REFUSAL.upgrade(record, f"what {address} answers")
    except CornerstoneError as error:
        raise Refused(error.message, error.hint, error.code) from None
    if status == HTTPStatus.OK:
        return record
    kind = NotYet if status == HTTPStatus.CONFLICT else Unadmitted if record.get("another_key") is True else Refused
    error = kind(f"{address}: {record.get('error', status)}", str(record.get("hint", "")), Code.REFUSED)
    if isinstance(error, NotYet):
        osds = record.get("osds")
        error.osds = tuple(map(str, osds)) if isinstance(osds, list) else ()
    raise error


def _words(error: ssl.SSLError) -> str:
    """What TLS found, in words that help; its own where it is something rare."""
    if isinstance(error, ssl.SSLCertVerificationError):
        rare = {10: "its certificate has expired", 62: "its certificate is another machine's",
                64: "its certificate is another address's"}
        return rare.get(error.verify_code, "their bootstrap secrets or cluster names differ")
    if "UNKNOWN_CA" in (error.reason or ""):
        return "their bootstrap secrets or cluster names differ"
    return f"TLS says {error.reason or error}"

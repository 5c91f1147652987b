"""The members' service of a CVM: for other members on its address by mutual TLS, for the host on the internal one.

Members POST JSON (actions.py). Who asks has to show a certificate of the cluster's authority for the very address that
it calls from, and that has to be one of node.json's members. What the node keeps is read anew for each connection.

The host gets one page on the internal network, to read only and with nothing secret in it: whether this node is a
member yet.
"""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from cornerstone.cvm.membership import keys
from cornerstone.cvm.membership.actions import Actions, Answer
from cornerstone.cvm.membership.kept import load
from cornerstone.cvm.membership.member import PORT, Member, context
from cornerstone.cvm.membership.messages import REFUSAL, REQUEST
from cornerstone.lib.deadline import within
from cornerstone.lib.error import CornerstoneError, ends_in_one_line
from cornerstone.lib.event import note
from cornerstone.lib.failures import Failures
from cornerstone.model.contracts.member_page import MEMBER_PAGE, MemberPage
from cornerstone.model.contracts.network import CVM_INTERNAL, INTERNAL
from cornerstone.model.contracts.node import NODE_CREDENTIAL, NodeConfig
from cornerstone.model.contracts.places import STATE

INTERNAL_ADDRESS = str(CVM_INTERNAL)
# for the whole of a request, from the handshake on
TIMEOUT_SECONDS = 10
MAX_BYTES = 1 << 16
# before the handshake is over nobody knows who it is: one address can't take all threads
MOST_FROM_ONE_ADDRESS = 8
# of all addresses together that are no member's
MOST_FROM_STRANGERS = 32
# linux/in.h, bind before the address is there; the module socket has no name for it
IP_FREEBIND = 15


class FreeBind(HTTPServer):
    """Listens on its address from the start, whenever that gets configured."""

    request_queue_size = 64

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        # not HTTPServer's: it asks the name servers for our name
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
        self._failures = Failures(note)

    def handle_error(self, request: Any, client_address: tuple[str, int]) -> None:
        """Note what a request raised, in a line and once; the next one is served."""
        error = sys.exc_info()[1]
        self._failures.add(CornerstoneError(f"{client_address[0]}: {type(error).__name__}: {error}"))


class Bounded(FreeBind, ThreadingHTTPServer):
    """Every connection has a thread of its own, and one address a few: who says nothing keeps nobody else out."""

    daemon_threads = True

    def __init__(self, address: str, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((address, PORT), handler)
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def verify_request(self, request: Any, client_address: tuple[str, int]) -> bool:
        return self._open[client_address[0]] < MOST_FROM_ONE_ADDRESS

    def process_request(self, request: Any, client_address: tuple[str, int]) -> None:
        with self._lock:
            self._open[client_address[0]] += 1
        try:
            super().process_request(request, client_address)
        except Exception:
            # no thread was to be had, so none counts it down
            self._close(client_address[0])
            raise

    def process_request_thread(self, request: Any, client_address: tuple[str, int]) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._close(client_address[0])

    def _close(self, address: str) -> None:
        with self._lock:
            self._open -= Counter([address])


class MembersServer(Bounded):
    """Mutual TLS for members; the handshake is on the connection's own thread."""

    def __init__(self, me: Member, folder: Path = STATE) -> None:
        super().__init__(me.address, MembersHandler)
        self.me = me
        self.actions = Actions(me, folder)
        self._folder = folder
        self._noted: dict[str, str] = {}

    def verify_request(self, request: Any, client_address: tuple[str, int]) -> bool:
        with self._lock:
            strangers = sum(count for address, count in self._open.items() if address not in self.me.members)
        return super().verify_request(request, client_address) and (
            client_address[0] in self.me.members or strangers < MOST_FROM_STRANGERS)

    def finish_request(self, request: Any, client_address: tuple[str, int]) -> None:
        request.settimeout(TIMEOUT_SECONDS)
        try:
            with within(request, TIMEOUT_SECONDS) as has_come, \
                    context(ssl.PROTOCOL_TLS_SERVER, self._folder).wrap_socket(request, server_side=True) as secured:
                MembersHandler(secured, client_address, self, has_come)
        except ssl.SSLError as error:
            self.note(client_address[0], _words(error))
        except OSError as error:
            self.note(client_address[0], f"broke off: {error.strerror or error}")
        except CornerstoneError as error:
            self.note(client_address[0], error.message)

    def stranger(self, certificate: Mapping[str, Any], address: str) -> str:
        """Why who called from an address with a good certificate isn't a member, or ""."""
        named = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "IP Address"]
        if named != [address]:
            return f"its certificate is for {', '.join(named) or 'no address'}"
        if address not in self.me.members:
            return f"it isn't one of the members {', '.join(self.me.members)}"
        return ""

    def note(self, address: str, what: str) -> None:
        """Put it into the journal; what a member that tries again and again meets, once."""
        if self._noted.get(address) != what:
            print(f"{address}: {what}", file=sys.stderr, flush=True)
        if address in self.me.members:
            self._noted[address] = what


class MembersHandler(BaseHTTPRequestHandler):
    """One request of a member: POST /<action>, with what the member says of itself."""

    server: MembersServer
    connection: ssl.SSLSocket

    def __init__(self, request: ssl.SSLSocket, client_address: tuple[str, int], server: MembersServer,
                 has_come: Callable[[], None]) -> None:
        """Answer it. has_come: called when all of it is here, for what it asks for may take longer."""
        self._has_come = has_come
        super().__init__(request, client_address, server)

    def do_POST(self) -> None:
        address = self.client_address[0]
        # read in any case: closing on what wasn't read would take the answer away
        content = self._content()
        self._has_come()
        if reason := self.server.stranger(self.connection.getpeercert() or {}, address):
            status, answer = HTTPStatus.FORBIDDEN, {"error": f"{address} isn't taken for a member: {reason}"}
        elif not self.server.actions.meet(address, self.connection.getpeercert(binary_form=True) or b""):
            reason, hint = keys.another(address)
            status, answer = HTTPStatus.FORBIDDEN, {"error": reason, "hint": hint, "another_key": True}
        else:
            status, answer = self._answer(content, address)
        if status != HTTPStatus.OK or self.path != "/status":
            self.server.note(address, f"{self.path[1:]}: {answer.get('error', 'done')}")
        _send(self, status, {REFUSAL.key: REFUSAL.version, **answer})

    def _content(self) -> bytes:
        size = self.headers.get("Content-Length", "")
        return self.rfile.read(int(size)) if re.fullmatch("[0-9]{1,9}", size) and int(size) <= MAX_BYTES else b""

    def _answer(self, content: bytes, address: str) -> Answer:
        try:
            request = REQUEST.read(content, f"what {address} sends")
        except CornerstoneError as error:
            return HTTPStatus.BAD_REQUEST, {"error": error.message, "hint": error.hint}
        try:
            return self.server.actions.answer(self.path[1:], request)
        except CornerstoneError as error:
            return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": error.message, "hint": error.hint}

    def log_message(self, *_: object) -> None:
        """Nothing: what is worth it goes into the journal by note()."""


class PublicServer(Bounded):
    """The page for the host: plain, to read only.

    hosts: the network that is answered. Linux takes what comes for an address by any card, so a neighbour reaches it.
    """

    def __init__(self, folder: Path = STATE, address: str = INTERNAL_ADDRESS, hosts: IPv4Network = INTERNAL) -> None:
        super().__init__(address, PublicHandler)
        self.folder = folder
        self._hosts = hosts

    def verify_request(self, request: Any, client_address: tuple[str, int]) -> bool:
        # who forges such an address gets no connection: what TCP answers goes to the host
        return IPv4Address(client_address[0]) in self._hosts and super().verify_request(request, client_address)

    def finish_request(self, request: Any, client_address: tuple[str, int]) -> None:
        # who never comes to an end keeps no thread
        with within(request, TIMEOUT_SECONDS):
            super().finish_request(request, client_address)


class PublicHandler(BaseHTTPRequestHandler):
    """GET anything: {"member": true} when this node is a member of its cluster."""

    server: PublicServer
    timeout = TIMEOUT_SECONDS

    def do_GET(self) -> None:
        try:
            _send(self, HTTPStatus.OK, MEMBER_PAGE.write(MemberPage(load(self.server.folder) is not None)))
        except CornerstoneError as error:
            _send(self, HTTPStatus.INTERNAL_SERVER_ERROR, {"error": error.message})

    def log_message(self, *_: object) -> None:
        """Nothing: the host asks often."""


def _send(handler: BaseHTTPRequestHandler, status: HTTPStatus, answer: Mapping[str, Any]) -> None:
    content = json.dumps(answer).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _words(error: ssl.SSLError) -> str:
    """What went wrong in a handshake, in words that help."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate isn't one of this cluster's: {error.verify_message}"
    if "UNKNOWN_CA" in reason:
        return "doesn't take this node for a member: their bootstrap secrets or cluster names differ"
    if "PEER_DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return "shows no certificate"
    return f"no member, TLS says {reason or error}"


@ends_in_one_line
def main(credentials: Path) -> int:
    """Serve for ever; an error's code when it can't be."""
    config = NodeConfig.read(credentials / NODE_CREDENTIAL)
    threading.Thread(target=PublicServer().serve_forever, daemon=True).start()
    MembersServer(Member.of(config)).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["CREDENTIALS_DIRECTORY"])))

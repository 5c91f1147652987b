"""What somebody on the network gets from the members' service who isn't a member, or isn't the one he says."""

from __future__ import annotations

import contextlib
import datetime
import json
import queue
import socket
import ssl
from dataclasses import replace

import pytest

from cluster_nodes import SECRET, Node, addresses, nodes
from cornerstone.cvm.membership import server
from cornerstone.cvm.membership.authority import BEGIN, END, Authority, secret_bytes
from cornerstone.cvm.membership.client import Absent, Client, Refused
from cornerstone.cvm.membership.kept import MEMBER, Membership, keep
from cornerstone.cvm.membership.member import PORT, Member, certify
from cornerstone.cvm.membership.server import MOST_FROM_ONE_ADDRESS, MOST_FROM_STRANGERS, MembersServer
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.serde import to_record

OURS = Authority(secret_bytes(SECRET), "lab")
FOREIGN = Authority(b"sixteen bytes at the least", "lab")
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


@pytest.fixture
def formed(tmp_path):
    """Two of three nodes, the first a member of its cluster and serving."""
    one, other, _ = nodes(tmp_path, 3)
    for node in (one, other):
        node.folder.mkdir()
        certify(node.member, SECRET, node.folder)
    keep(Membership.draw(), one.folder)
    with one.serving():
        yield one, other


def dressed(node: Node, authority: Authority, pem: str) -> Client:
    """A client with a certificate of the tests' own making."""
    (node.folder / MEMBER).write_text(pem + authority.certificate)
    return Client(node.member, node.folder)


def test_a_member_gets_what_it_asks_for(formed):
    one, other = formed
    answer = Client(other.member, other.folder).ask(one.member.address, "join")
    assert Membership.of(answer["membership"]) == one.kept
    assert answer["member"]["fsid"] == one.kept.fsid


def tls(node: Node, authority: Authority | None, pem: str = "", **limits: object) -> ssl.SSLSocket:
    """A connection that checks nothing of the other side, with a certificate or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in limits.items():
        setattr(context, name, value)
    if authority:
        (node.folder / "shown.pem").write_text(pem + authority.certificate)
        context.load_cert_chain(node.folder / "shown.pem")
    plain = socket.create_connection((node.member.members[0], PORT), 10, (node.member.address, 0))
    return context.wrap_socket(plain)


def request(member: Member, action: str = "join") -> bytes:
    body = json.dumps({"member": to_record(member)}).encode()
    return b"POST /%s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (action.encode(), len(body), body)


@pytest.fixture
def noted(monkeypatch):
    """What the service puts into the journal, when it does."""
    lines, note = queue.Queue(), MembersServer.note

    def noting(self, address, what):
        note(self, address, what)
        lines.put(f"{address}: {what}")
    monkeypatch.setattr(MembersServer, "note", noting)
    return lines


STRANGERS = {
    "no certificate": (None, "", "shows no certificate"),
    "an authority of his own": (FOREIGN, "", "its certificate isn't one of this cluster's"),
    "an expired one": (OURS, "expired", "its certificate isn't one of this cluster's: certificate has expired"),
    "one that is not valid yet": (OURS, "early", "certificate is not yet valid"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_gets_nothing_from_tls(noted, formed, name):
    one, other = formed
    authority, when, words = STRANGERS[name]
    begin, end = {"": (BEGIN, END), "expired": (BEGIN, YESTERDAY),
                  "early": (YESTERDAY + datetime.timedelta(days=30), END)}[when]
    pem = authority.certify(other.member.address, begin, end) if authority else ""
    with pytest.raises((ssl.SSLError, ConnectionError)), tls(other, authority, pem) as stranger:
        # TLS 1.3: the client's part of the handshake is over before the server has seen its certificate
        stranger.sendall(request(other.member))
        while answer := stranger.recv(4096):
            assert not answer, "the service has answered"
        raise ConnectionError("closed")
    line = noted.get(timeout=60)
    assert line.startswith(f"{other.member.address}: ") and words in line


def test_tls_1_2_is_refused(formed):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls(formed[1], OURS, OURS.certify(formed[1].member.address), maximum_version=ssl.TLSVersion.TLSv1_2)


def test_plain_text_is_refused(formed):
    one, other = formed
    with socket.create_connection((one.member.address, PORT), 10, (other.member.address, 0)) as plain:
        plain.sendall(request(other.member))
        received = b""
        try:
            while more := plain.recv(4096):
                received += more
        except ConnectionResetError:
            pass
    # an alert of TLS at most
    assert b"HTTP" not in received and one.kept.fsid.encode() not in received


def test_a_certificate_of_another_address_is_refused(formed, capfd):
    one, other = formed
    third = other.member.members[2]
    client = dressed(other, OURS, OURS.certify(third))
    with pytest.raises(Refused, match=f"isn't taken for a member: its certificate is for {third}"):
        client.ask(one.member.address, "join")
    assert f"{other.member.address}: join: {other.member.address} isn't taken" in capfd.readouterr().err


def test_a_server_with_a_certificate_of_another_address_is_refused(formed):
    one, other = formed
    (one.folder / MEMBER).write_text(OURS.certify(other.member.members[2]) + OURS.certificate)
    with pytest.raises(Refused, match="its certificate is another address's"):
        Client(other.member, other.folder).ask(one.member.address, "join")


def test_a_server_with_an_expired_certificate_is_refused(formed):
    one, other = formed
    (one.folder / MEMBER).write_text(OURS.certify(one.member.address, end=YESTERDAY) + OURS.certificate)
    with pytest.raises(Refused, match="its certificate has expired"):
        Client(other.member, other.folder).ask(one.member.address, "join")


def test_a_server_of_somebody_else_is_refused_and_learns_nothing(formed):
    one, other = formed
    (one.folder / MEMBER).write_text(FOREIGN.certify(one.member.address) + FOREIGN.certificate)
    with pytest.raises(Refused, match="their bootstrap secrets or cluster names differ"):
        Client(other.member, other.folder).ask(one.member.address, "join")


def test_a_members_certificate_makes_no_others(formed):
    """A leaf isn't an authority, whatever it signs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    one, other = formed
    pem = (other.folder / MEMBER).read_bytes()
    mine = Authority(b"sixteen bytes at the least", "lab")
    mine._key = serialization.load_pem_private_key(pem[pem.index(b"-----BEGIN"):], None)
    mine._name = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT"):]).subject
    chain = mine.certify(other.member.members[2]) + pem[pem.index(b"-----BEGIN CERT"):].decode()
    with pytest.raises((ssl.SSLError, ConnectionError)), tls(other, OURS, chain) as stranger:
        stranger.sendall(request(other.member))
        assert not stranger.recv(4096)
        raise ConnectionError("closed")


@pytest.mark.parametrize(("sent", "status"), [
    (b"POST /join HTTP/1.0\r\nContent-Length: 2\r\n\r\n[]", b"400"),
    (b"POST /join HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", b"400"),
    (b"POST /join HTTP/1.0\r\nContent-Length: 20\r\n\r\n{\"member\": {\"x\": 1}}", b"400"),
    (b"POST /join HTTP/1.0\r\nContent-Length: many\r\n\r\n", b"400"),
    (b"POST /join HTTP/1.0\r\nContent-Length: -1\r\n\r\n", b"400"),
    (b"GET /join HTTP/1.0\r\n\r\n", b"501"),
    (b"rubbish\r\n\r\n", b"400"),
])
def test_rubbish_is_refused_and_the_service_goes_on(formed, sent, status):
    one, other = formed
    with tls(other, OURS, (other.folder / MEMBER).read_text().partition("\n")[2]) as member:
        member.sendall(sent)
        answer = member.recv(4096)
    assert status in answer.split(b"\r\n")[0]
    assert Client(other.member, other.folder).ask(one.member.address, "join")["member"]["fsid"] == one.kept.fsid


def test_an_action_that_there_is_not_is_refused(formed):
    one, other = formed
    with pytest.raises(Refused, match="there is no format"):
        Client(other.member, other.folder).ask(one.member.address, "format")


def test_connections_that_say_nothing_keep_nobody_else_out(formed):
    one, other = formed
    silent = [socket.create_connection((one.member.address, PORT), 10, (one.member.members[2], 0))
              for _ in range(MOST_FROM_ONE_ADDRESS + 4)]
    try:
        # those above the limit are closed at once; the others wait for their handshake to run out of time
        for each in silent[MOST_FROM_ONE_ADDRESS:]:
            assert each.recv(1) == b""
        assert Client(other.member, other.folder).ask(one.member.address, "join")
    finally:
        for each in silent:
            each.close()


def test_a16_strangers_by_many_addresses_keep_no_member_out(formed):
    one, other = formed
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((one.member.address, PORT), 10, (source, 0)))
                  for number in range(1, 10) for source in [f"127.249.0.{number}"]
                  for _ in range(MOST_FROM_ONE_ADDRESS)]
        closed = [each for each in silent[MOST_FROM_STRANGERS:] if each.recv(1) == b""]
        assert len(closed) == len(silent) - MOST_FROM_STRANGERS
        assert Client(other.member, other.folder).ask(one.member.address, "join")


def test_an_answer_that_breaks_off_is_no_answer(formed, monkeypatch):
    one, other = formed
    half = b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{\"memb"
    monkeypatch.setattr(server, "_send", lambda handler, *_: handler.wfile.write(half))
    with pytest.raises(Absent):
        Client(other.member, other.folder).ask(one.member.address, "join")


def test_an_answer_that_is_something_else_shows_no_key(formed):
    with pytest.raises(CornerstoneError) as caught:
        Membership.of({"fsid": 1, "monitor_key": "hush", "admin_key": ["hush"]})
    assert "hush" not in str(caught.value)
    (formed[0].folder / "membership.json").write_text('{"monitor_key": "hush"}')
    with pytest.raises(CornerstoneError, match="is damaged"):
        _ = formed[0].kept
    assert "hush" not in repr(Membership("", "hush", "hush"))


def test_who_has_no_certificate_yet_is_told_so(tmp_path):
    node = nodes(tmp_path, 1)[0]
    with pytest.raises(CornerstoneError, match="no certificate yet"):
        Client(node.member, node.folder).ask(node.member.address, "status")


def test_nobody_there_is_said_with_the_address(formed):
    (nowhere,) = addresses(1)
    with pytest.raises(Absent, match=f"{nowhere} doesn't answer: Connection refused") as caught:
        Client(formed[1].member, formed[1].folder).ask(nowhere, "status")
    assert caught.value.code is Code.NETWORK


@pytest.mark.parametrize("action", ["join", "create", "start", "stop"])
def test_a_member_of_another_cluster_changes_nothing_here(formed, action):
    one, other = formed
    theirs = keep(Membership.draw(), other.folder)
    with pytest.raises(Refused, match="there is no second formation") as caught:
        Client(other.member, other.folder).ask(one.member.address, action)
    assert theirs.fsid in str(caught.value)


def test_cluster_create_is_refused_where_there_is_a_cluster(formed):
    one, other = formed
    with pytest.raises(Refused, match=f"it is a member of the cluster {one.kept.fsid} already"):
        Client(other.member, other.folder).ask(one.member.address, "create")


def test_the_authority_is_the_same_everywhere_and_another_for_another_name_or_secret():
    assert Authority(secret_bytes(SECRET), "lab").certificate == OURS.certificate
    assert len({OURS.certificate, FOREIGN.certificate, Authority(secret_bytes(SECRET), "prod").certificate}) == 3


def test_the_service_listens_before_its_address_is_there(tmp_path):
    """As at boot, where networks come up in their own time."""
    node = nodes(tmp_path, 1)[0]
    elsewhere = replace(node.config.cvm, address="192.0.2.77/24")
    early = Node(replace(node.config, cvm=elsewhere), tmp_path)
    certify(early.member, SECRET, tmp_path)
    with early.serving(), pytest.raises(Absent, match="this CVM hasn't got its address 192.0.2.77 yet"):
        Client(early.member, tmp_path).ask(early.member.address, "join")

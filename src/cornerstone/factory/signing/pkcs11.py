"""A signing key in a PKCS#11 token (HSM, smart card), named by an RFC 7512 URI; the private half never leaves it.

    pkcs11:token=press;object=release?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin
"""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pkcs11
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, TokenFlag
from pkcs11.exceptions import PinIncorrect, PinInvalid, PinLenRange, PinLocked, PKCS11Error

from cornerstone.factory.signing.signing import PIN_SETTING, as_pem
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.json_text import read_bounded

SCHEME = "pkcs11:"
MODULE_SETTING = "PKCS11_MODULE"
PATH_ATTRIBUTES = ("token", "serial", "object", "id", "type")
# bytes of a file with a PIN
MOST_PIN = 1 << 10
QUERY_ATTRIBUTES = ("module-path", "pin-source")
HINT = f"the form is: {SCHEME}token=LABEL;object=LABEL?module-path=FILE&pin-source=file:FILE (see docs/evidence.md)"


@dataclass(frozen=True)
class Uri:
    """What an RFC 7512 URI names: token by label or serial, key by label (object) or id; empty matches any."""

    text: str
    module: str
    token: str = ""
    serial: str = ""
    object: str = ""
    id: bytes = b""
    pin_source: str = ""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Raises CornerstoneError for what isn't understood, and for a PIN in the URI, which would end up in logs."""
        path, _, query = text.removeprefix(SCHEME).partition("?")
        found: dict[str, bytes] = {}
        for known, words in ((PATH_ATTRIBUTES, path.split(";")), (QUERY_ATTRIBUTES, query.split("&"))):
            for name, equals, value in (word.partition("=") for word in words if word):
                if name == "pin-value":
                    raise CornerstoneError("a PKCS#11 URI with the PIN in it would end up in logs and process lists",
                                           f"take pin-value out; use pin-source=file:FILE, or set {PIN_SETTING}")
                if name not in known or not equals or name in found:
                    raise CornerstoneError(f"{text}: {name!r} is no attribute that is understood here, or is there "
                                           "twice, or has no value", HINT)
                found[name] = urllib.parse.unquote_to_bytes(value)
        if found.pop("type", b"private") != b"private":
            raise CornerstoneError(f"{text}: names no private key", "leave type out, or say type=private")
        identifier = found.pop("id", b"")
        try:
            words = {name: value.decode() for name, value in found.items()}
        except UnicodeDecodeError as error:
            raise CornerstoneError(f"{text}: only id may be other than text", HINT) from error
        module = words.get("module-path") or os.environ.get(MODULE_SETTING, "")
        if not module:
            raise CornerstoneError(f"{text}: names no PKCS#11 module",
                                   f"add ?module-path=FILE, or set {MODULE_SETTING} to the module of the token's maker")
        return cls(text, module, words.get("token", ""), words.get("serial", ""), words.get("object", ""), identifier,
                   words.get("pin-source", ""))

    def pin(self) -> str | None:
        """The PIN from pin-source, else from the setting; None when there is neither."""
        if not self.pin_source:
            return os.environ.get(PIN_SETTING) or None
        path = Path(self.pin_source.removeprefix("file://").removeprefix("file:"))
        try:
            return read_bounded(path, MOST_PIN).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CornerstoneError(f"the PIN of the signing key can't be read from {path}",
                                   f"pin-source is the path of a file, or set {PIN_SETTING}") from error


@dataclass(frozen=True)
class TokenKey:
    """An ed25519 key in a token, the user's own. Each signature opens a session of its own."""

    uri: Uri
    public: Ed25519PublicKey
    kind: str = "release"

    @classmethod
    def named(cls, text: str) -> TokenKey:
        """The key that a URI names. Raises CornerstoneError unless it names exactly one, and that is ed25519."""
        uri = Uri.parse(text)
        with _session(uri) as session:
            key = _one(session, uri, ObjectClass.PRIVATE_KEY)
            point = b""
            if key.key_type is KeyType.EC_EDWARDS:
                # tokens say it as a DER octet string or bare; in both the 32 bytes of the key come last
                point = _one(session, uri, ObjectClass.PUBLIC_KEY)[Attribute.EC_POINT]
            if len(point) not in (32, 34):
                raise CornerstoneError(f"{text}: holds a key of the wrong kind ({key.key_type.name}), ed25519 is "
                                       "needed", "name another key of the token, or make an EC:edwards25519 one")
            return cls(uri, Ed25519PublicKey.from_public_bytes(point[-32:]))

    def sign(self, content: bytes) -> bytes:
        """The 64-byte signature of content, made by the token."""
        with _session(self.uri) as session:
            return _one(session, self.uri, ObjectClass.PRIVATE_KEY).sign(content, mechanism=Mechanism.EDDSA)

    def public_pem(self) -> bytes:
        """The public half as PEM (SubjectPublicKeyInfo), as openssl reads it."""
        return as_pem(self.public)


@contextlib.contextmanager
def _session(uri: Uri) -> Iterator[pkcs11.Session]:
    try:
        library = pkcs11.lib(uri.module)
        tokens = [token for token in library.get_tokens(token_flags=TokenFlag.TOKEN_INITIALIZED)
                  if uri.token in ("", token.label) and uri.serial in ("", token.serial.decode("ascii", "replace"))]
        if len(tokens) != 1:
            raise CornerstoneError(f"{uri.text}: {uri.module} has {len(tokens) or 'no'} tokens that fit",
                                   "name one by token=LABEL or serial=NUMBER; is it plugged in?")
        with tokens[0].open(user_pin=uri.pin()) as session:
            yield session
    except (PinIncorrect, PinInvalid, PinLenRange, PinLocked) as error:
        words = "is locked: too many wrong ones" if isinstance(error, PinLocked) else "is wrong"
        raise CornerstoneError(f"{uri.text}: the PIN {words}", "give the user's PIN of this token; a token locks "
                               "itself after a few wrong ones") from error
    except PKCS11Error as error:
        raise CornerstoneError(f"{uri.text}: the token can't be used: {error or type(error).__name__}",
                               f"look at it with: pkcs11-tool --module {uri.module} -O") from error


def _one(session: pkcs11.Session, uri: Uri, kind: ObjectClass) -> pkcs11.Object:
    wanted = {Attribute.CLASS: kind, **({Attribute.LABEL: uri.object} if uri.object else {}),
              **({Attribute.ID: uri.id} if uri.id else {})}
    found = list(session.get_objects(wanted))
    if len(found) == 1:
        return found[0]
    what = "private" if kind is ObjectClass.PRIVATE_KEY else "public"
    raise CornerstoneError(
        f"{uri.text}: the token shows {len(found) or 'no'} {what} keys that fit",
        "name one by object=LABEL or id=%HEX" if found else
        "check object and id; the public half must be in the token too"
        + ("" if uri.pin() else f"; without a PIN (pin-source, or {PIN_SETTING}) private keys stay hidden"))

"""Signing: an ed25519 key from a setting (file, environment, PKCS#11 token), else a development key made here."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cornerstone.lib.atomic import put
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import read_bounded

SETTING = "CORNERSTONE_SIGNING_KEY"
PEM_SETTING = "CORNERSTONE_SIGNING_KEY_PEM"
PIN_SETTING = "CORNERSTONE_PKCS11_PIN"
# layers are made in parallel, and a token takes one login at a time
_SEALING = threading.Lock()
# bytes of a file with a key
MOST = 64 << 10
# what no program that we start may see
SECRETS = (PEM_SETTING, PIN_SETTING)


class SigningKey(Protocol):
    """An ed25519 key that can sign; kind is 'release' (the user's own) or 'development' (made here)."""

    @property
    def kind(self) -> str: ...

    def sign(self, content: bytes) -> bytes:
        """The 64-byte signature of content."""

    def public_pem(self) -> bytes:
        """The public half as PEM (SubjectPublicKeyInfo), as openssl reads it."""


@dataclass(frozen=True)
class SoftwareKey:
    """A SigningKey whose private half is in memory."""

    private: Ed25519PrivateKey
    kind: str

    def sign(self, content: bytes) -> bytes:
        """The 64-byte signature of content."""
        return self.private.sign(content)

    def public_pem(self) -> bytes:
        """The public half as PEM (SubjectPublicKeyInfo), as openssl reads it."""
        return as_pem(self.private.public_key())


def as_pem(key: Ed25519PublicKey) -> bytes:
    """A public key as PEM (SubjectPublicKeyInfo)."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class PublicKey:
    """The public half of a key, for those who only look: pem is None where there is no key yet."""

    kind: str
    pem: bytes | None

    def sign(self, content: bytes) -> bytes:
        """Never called: nobody who only looks signs."""
        raise CornerstoneError("this is the public half of a key", "sign with signing_key")

    def public_pem(self) -> bytes:
        """The public half as PEM, or nothing where there is no key yet."""
        return self.pem or b""


def public_key(cache: Path) -> SigningKey:
    """What signing_key would return, as far as looking needs it: nothing is made, and of a development key only the
    public half is read. Raises CornerstoneError as signing_key does for a key of the settings.
    """
    if os.environ.get(SETTING) or os.environ.get(PEM_SETTING):
        return signing_key(cache)
    private = development_key(cache)
    public = development_public_key(cache)
    if public.is_file():
        return PublicKey("development", _read(public))
    return signing_key(cache) if private.exists() else PublicKey("development", None)


def development_key(cache: Path) -> Path:
    """Where the development key of a cache is."""
    return cache / "keys" / "development.pem"


def development_public_key(cache: Path) -> Path:
    """Where its public half is, which everybody may read."""
    return cache / "development.pub"


def signing_key(cache: Path) -> SigningKey:
    """The key of the settings, else the cache's development key, made when it isn't there.

    CORNERSTONE_SIGNING_KEY is the path of a PEM file or a PKCS#11 URI; CORNERSTONE_SIGNING_KEY_PEM is the PEM itself.
    Raises CornerstoneError when both are set, or the key is none, is locked or is of another kind than ed25519.
    """
    named, pem = os.environ.get(SETTING, ""), os.environ.get(PEM_SETTING, "")
    if named and pem:
        raise CornerstoneError(f"{SETTING} and {PEM_SETTING} are both set, and only one key can sign",
                               "unset one of them")
    if named.startswith("pkcs11:"):
        # the library costs time to load, and few need it
        from cornerstone.factory.signing.pkcs11 import TokenKey
        return TokenKey.named(named)
    if named:
        return SoftwareKey(_load(_read(Path(named)), named), "release")
    if pem:
        return SoftwareKey(_load(pem.encode(), PEM_SETTING), "release")
    path = development_key(cache)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        put(path, made, 0o600)
    key = SoftwareKey(_load(_read(path), str(path)), "development")
    public = development_public_key(cache)
    if not public.is_file() or public.read_bytes() != key.public_pem():
        with contextlib.suppress(PermissionError):
            put(public, key.public_pem())
    return key


def for_a_build() -> dict[str, str]:
    """Our own settings, secrets among them: for a build in a process of its own, and for nothing else."""
    return {name: value for name, value in os.environ.items()
            if name.startswith("CORNERSTONE_") or name in ("PKCS11_MODULE", "SOFTHSM2_CONF")}


def forget() -> None:
    """Take the secrets out of this process's environment, for one that has signed and goes on to start machines."""
    for name in SECRETS:
        os.environ.pop(name, None)


HINT = f"make one with: openssl genpkey -algorithm ed25519 -out KEY.pem, and set {SETTING} to its path"


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, MOST)
    except OSError as error:
        raise CornerstoneError(f"{path}: not a readable private key: {error.strerror}", HINT) from error


def _load(pem: bytes, where: str) -> Ed25519PrivateKey:
    """The key in a PEM; errors say where it came from, never what is in it."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise CornerstoneError(f"{where}: this private key has a passphrase, and a build asks nobody for one",
                               "take the passphrase off with: openssl pkey -in KEY.pem -out PLAIN.pem, or keep the key "
                               "in a PKCS#11 token") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CornerstoneError(f"{where}: not a readable private key", HINT) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CornerstoneError(f"{where}: holds a key of the wrong kind, ed25519 is needed", HINT)
    return key


def sealed(record: Mapping, what: str, key: SigningKey) -> dict:
    """A record of this build machine with the key's signature over it, for a later build; what names its kind.

    It isn't for others: it says that a build with this key has read what the record is about.
    """
    with _SEALING:
        return {**record, "seal": key.sign(_to_seal(record, what)).hex()}


def is_sealed(record: Mapping, what: str, public_pem: bytes) -> bool:
    """Whether a record is one that sealed() made with this key, for the same kind."""
    try:
        check_signature(public_pem, _to_seal(record, what), bytes.fromhex(record["seal"]), what)
    except (CornerstoneError, KeyError, TypeError, ValueError):
        return False
    return True


def _to_seal(record: Mapping, what: str) -> bytes:
    plain = {name: value for name, value in record.items() if name != "seal"}
    # no manifest, list of checksums or DSSE envelope begins like this
    return f"cornerstone record of a {what}, version 1\n{json.dumps(plain, sort_keys=True)}".encode()


def check_signature(public_pem: bytes, content: bytes, signature: bytes, what: str) -> None:
    """Raise CornerstoneError (VERIFY) unless signature is public_pem's over content; what names the content."""
    try:
        key = serialization.load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CornerstoneError(f"the public key can't be read: {error}", "give a PEM file of an ed25519 public key") \
            from error
    if not isinstance(key, Ed25519PublicKey):
        raise CornerstoneError("the public key is of the wrong kind, ed25519 is needed",
                               "give the public half of the key that signed the ISO")
    try:
        key.verify(signature, content)
    except InvalidSignature as error:
        raise CornerstoneError(f"{what} isn't signed by this key", "it was changed after signing, or signed by another "
                               "key: don't use the medium", Code.VERIFY) from error

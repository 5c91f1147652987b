"""Signing the manifest: an ed25519 key from a setting, else a development key made here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cornerstone.model.error import Code, CornerstoneError

SETTING = "CORNERSTONE_SIGNING_KEY"


@dataclass(frozen=True)
class SigningKey:
    """An ed25519 private key; kind is 'release' (the user's own) or 'development' (made here)."""

    private: Ed25519PrivateKey
    kind: str

    def sign(self, content: bytes) -> bytes:
        """The 64-byte signature of content."""
        return self.private.sign(content)

    def public_pem(self) -> bytes:
        """The public half as PEM (SubjectPublicKeyInfo), as openssl reads it."""
        return self.private.public_key().public_bytes(serialization.Encoding.PEM,
                                                      serialization.PublicFormat.SubjectPublicKeyInfo)


def signing_key(cache: Path) -> SigningKey:
    """The key that CORNERSTONE_SIGNING_KEY names (path of a PEM file), else the cache's development key."""
    named = os.environ.get(SETTING, "")
    if named:
        return SigningKey(_load(Path(named)), "release")
    path = cache / "keys" / "development.pem"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        beside = path.with_suffix(f".{os.getpid()}")
        beside.touch(0o600)
        beside.write_bytes(pem)
        beside.rename(path)
    return SigningKey(_load(path), "development")


def _load(path: Path) -> Ed25519PrivateKey:
    hint = f"make one with: openssl genpkey -algorithm ed25519 -out KEY.pem, and set {SETTING} to its path"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CornerstoneError(f"{path}: not a readable private key without passphrase: {error}", hint) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CornerstoneError(f"{path}: holds a key of the wrong kind, ed25519 is needed", hint)
    return key


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

"""Signing keys: whose they are, what is refused, and that openssl agrees with every signature."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cornerstone.factory.signing.signing import PEM_SETTING, SETTING, SoftwareKey, check_signature, signing_key
from cornerstone.lib.error import Code, CornerstoneError

CONTENT = b"a manifest\n" * 100


@pytest.fixture(autouse=True)
def no_setting(monkeypatch):
    monkeypatch.delenv(SETTING, raising=False)
    monkeypatch.delenv(PEM_SETTING, raising=False)


@pytest.fixture
def key() -> SoftwareKey:
    return SoftwareKey(Ed25519PrivateKey.generate(), "development")


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def made_by_openssl(path: Path, *arguments: str) -> Path:
    openssl("genpkey", "-out", path, *arguments)
    return path


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_development_key_is_made_once_for_its_owner(tmp_path, umask):
    before = os.umask(umask)
    try:
        first = signing_key(tmp_path)
    finally:
        os.umask(before)
    path = tmp_path / "keys" / "development.pem"
    content = path.read_bytes()
    assert first.kind == "development"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing_key(tmp_path).public_pem() == first.public_pem()
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["development.pem"]


def test_two_caches_have_two_keys(tmp_path):
    assert signing_key(tmp_path / "a").public_pem() != signing_key(tmp_path / "b").public_pem()


def test_key_from_the_setting(tmp_path, monkeypatch):
    path = made_by_openssl(tmp_path / "mine.pem", "-algorithm", "ed25519")
    monkeypatch.setenv(SETTING, str(path))
    key = signing_key(tmp_path / "cache")
    assert key.kind == "release"
    assert key.public_pem() == openssl("pkey", "-in", path, "-pubout").stdout
    assert not (tmp_path / "cache").exists(), "no other key is made"


@pytest.mark.parametrize(("arguments", "problem"), [
    (["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "holds a key of the wrong kind, ed25519 is needed"),
    (["-algorithm", "X25519"], "holds a key of the wrong kind"),
    pytest.param(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp160r1"], "private key"),
], ids=["rsa", "x25519", "unusual curve"])
def test_key_of_no_use(tmp_path, monkeypatch, arguments, problem):
    path = made_by_openssl(tmp_path / "bad.pem", *arguments)
    monkeypatch.setenv(SETTING, str(path))
    with pytest.raises(CornerstoneError) as caught:
        signing_key(tmp_path)
    assert caught.value.message.startswith(f"{path}: ")
    assert problem in caught.value.message
    assert "openssl genpkey -algorithm ed25519" in caught.value.hint
    assert caught.value.code is Code.INPUT


@pytest.mark.parametrize("content", [None, b"", b"no key\n",
                                     b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_key_that_is_none(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "bad.pem").write_bytes(content)
    monkeypatch.setenv(SETTING, str(tmp_path / "bad.pem"))
    with pytest.raises(CornerstoneError, match="bad.pem: not a readable private key"):
        signing_key(tmp_path)


def test_key_with_a_passphrase(tmp_path, monkeypatch):
    path = made_by_openssl(tmp_path / "locked.pem", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret")
    monkeypatch.setenv(SETTING, str(path))
    with pytest.raises(CornerstoneError, match="locked.pem: this private key has a passphrase") as caught:
        signing_key(tmp_path)
    assert "openssl pkey -in" in caught.value.hint


def test_key_from_the_environment_itself(tmp_path, monkeypatch):
    path = made_by_openssl(tmp_path / "mine.pem", "-algorithm", "ed25519")
    monkeypatch.setenv(PEM_SETTING, path.read_text())
    key = signing_key(tmp_path / "cache")
    assert key.kind == "release"
    assert key.public_pem() == openssl("pkey", "-in", path, "-pubout").stdout
    monkeypatch.setenv(SETTING, str(path))
    with pytest.raises(CornerstoneError, match="both set") as caught:
        signing_key(tmp_path)
    assert caught.value.code is Code.INPUT


@pytest.mark.parametrize("content", ["no key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"])
def test_a_bad_key_in_the_environment_is_not_shown(tmp_path, monkeypatch, content):
    monkeypatch.setenv(PEM_SETTING, content)
    with pytest.raises(CornerstoneError) as caught:
        signing_key(tmp_path)
    assert caught.value.message == f"{PEM_SETTING}: not a readable private key"
    assert content not in str(caught.value)


def test_public_key_is_no_private_key(tmp_path, monkeypatch, key):
    (tmp_path / "bad.pem").write_bytes(key.public_pem())
    monkeypatch.setenv(SETTING, str(tmp_path / "bad.pem"))
    with pytest.raises(CornerstoneError, match="not a readable private key"):
        signing_key(tmp_path)


def openssl_verifies(folder: Path, public: bytes, content: bytes, signature: bytes) -> bool:
    """As the initramfs and the live environment do it."""
    for name, data in (("key.pem", public), ("content", content), ("signature", signature)):
        (folder / name).write_bytes(data)
    return subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", folder / "key.pem", "-rawin",
                           "-in", folder / "content", "-sigfile", folder / "signature"],
                          capture_output=True, check=False).returncode == 0


def test_openssl_verifies_what_we_sign(tmp_path, key):
    signature = key.sign(CONTENT)
    assert len(signature) == 64
    assert key.sign(CONTENT) == signature, "ed25519 has no chance in it"
    assert openssl_verifies(tmp_path, key.public_pem(), CONTENT, signature)
    assert not openssl_verifies(tmp_path, key.public_pem(), CONTENT + b"!", signature)
    check_signature(key.public_pem(), CONTENT, signature, "manifest.json")


@pytest.mark.parametrize("change", ["content", "signature", "short", "key"])
def test_wrong_signature(key, change):
    content, signature, public = CONTENT, key.sign(CONTENT), key.public_pem()
    if change == "content":
        content = b"A" + content[1:]
    elif change == "signature":
        signature = bytes([signature[0] ^ 1]) + signature[1:]
    elif change == "short":
        signature = signature[:-1]
    else:
        public = SoftwareKey(Ed25519PrivateKey.generate(), "release").public_pem()
    with pytest.raises(CornerstoneError) as caught:
        check_signature(public, content, signature, "manifest.json")
    assert caught.value.message == "manifest.json isn't signed by this key"
    assert caught.value.code is Code.VERIFY


@pytest.mark.parametrize("public", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_public_key_that_is_none(public):
    with pytest.raises(CornerstoneError, match="^the public key can't be read") as caught:
        check_signature(public, CONTENT, bytes(64), "manifest.json")
    assert "PEM" in caught.value.hint


def test_public_key_of_the_wrong_kind(tmp_path):
    path = made_by_openssl(tmp_path / "rsa.pem", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    with pytest.raises(CornerstoneError, match="the public key is of the wrong kind"):
        check_signature(openssl("pkey", "-in", path, "-pubout").stdout, CONTENT, bytes(64), "manifest.json")

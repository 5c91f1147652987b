"""Signing with a key in a PKCS#11 token: a SoftHSM token made here, whose signatures openssl's library verifies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters

from cornerstone.factory.signing.pkcs11 import MODULE_SETTING, Uri
from cornerstone.factory.signing.signing import PIN_SETTING, SETTING, check_signature, signing_key
from cornerstone.lib.error import Code, CornerstoneError

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "5678-secret"
ED25519 = encode_named_curve_parameters("1.3.101.112")


@pytest.fixture(scope="module", autouse=True)
def token(tmp_path_factory):
    """The token `press` with two ed25519 keys, `release` and `next`, an RSA key, and a private key without its half."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "conf").write_text(f"directories.tokendir = {folder}\nobjectstore.backend = file\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "conf"))
        subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", "press", "--so-pin", "87654321", "--pin",
                        PIN], check=True, capture_output=True)
        with pkcs11.lib(MODULE).get_token(token_label="press").open(rw=True, user_pin=PIN) as session:
            for number, label in enumerate(("release", "next", "lonely"), 1):
                parameters = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: ED25519},
                                                              local=True)
                public, _ = parameters.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True,
                                                        label=label, id=bytes([number]))
                if label == "lonely":
                    public.destroy()
            session.generate_keypair(KeyType.RSA, 2048, store=True, label="rsa", id=b"\x09")
        yield


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setenv(MODULE_SETTING, MODULE)
    monkeypatch.setenv(PIN_SETTING, PIN)


def key_named(uri: str, monkeypatch, tmp_path: Path):
    monkeypatch.setenv(SETTING, uri)
    return signing_key(tmp_path / "cache")


@pytest.mark.parametrize("uri", ["pkcs11:token=press;object=release", "pkcs11:object=release", "pkcs11:id=%01",
                                 "pkcs11:token=%70ress;object=release;type=private"])
def test_a_token_signs(monkeypatch, tmp_path, uri):
    key = key_named(uri, monkeypatch, tmp_path)
    assert key.kind == "release"
    signature = key.sign(b"content")
    assert len(signature) == 64
    assert key.sign(b"content") == signature, "ed25519 has no chance in it"
    check_signature(key.public_pem(), b"content", signature, "content")
    assert not (tmp_path / "cache").exists(), "no other key is made"


def test_two_keys_of_a_token_are_two(monkeypatch, tmp_path):
    first, other = (key_named(f"pkcs11:object={label}", monkeypatch, tmp_path) for label in ("release", "next"))
    assert first.public_pem() != other.public_pem()


def test_module_and_pin_from_the_uri(monkeypatch, tmp_path):
    monkeypatch.delenv(MODULE_SETTING)
    monkeypatch.delenv(PIN_SETTING)
    (tmp_path / "pin").write_text(f"{PIN}\n")
    key = key_named(f"pkcs11:token=press;object=release?module-path={MODULE}&pin-source=file:{tmp_path}/pin",
                    monkeypatch, tmp_path)
    check_signature(key.public_pem(), b"content", key.sign(b"content"), "content")


@pytest.mark.parametrize(("uri", "problem"), [
    ("pkcs11:token=nope;object=release", "has no tokens that fit"),
    ("pkcs11:serial=1;object=release", "has no tokens that fit"),
    ("pkcs11:object=nope", "the token shows no private keys that fit"),
    ("pkcs11:id=%77", "the token shows no private keys that fit"),
    ("pkcs11:token=press", "the token shows 4 private keys that fit"),
    ("pkcs11:object=lonely", "the token shows no public keys that fit"),
    ("pkcs11:object=rsa", "holds a key of the wrong kind (RSA), ed25519 is needed"),
    ("pkcs11:objekt=release", "'objekt' is no attribute that is understood here"),
    ("pkcs11:object=release;object=next", "or is there twice"),
    ("pkcs11:object", "or has no value"),
    ("pkcs11:object=release;type=public", "names no private key"),
    ("pkcs11:object=%ff", "only id may be other than text"),
    ("pkcs11:object=release?module-path=/no/such.so", "the token can't be used: OS exception while loading"),
    ("pkcs11:object=release?pin-source=file:/no/such", "the PIN of the signing key can't be read from /no/such"),
])
def test_what_names_no_key_is_one_clear_error(monkeypatch, tmp_path, uri, problem):
    with pytest.raises(CornerstoneError) as caught:
        key_named(uri, monkeypatch, tmp_path)
    assert problem in caught.value.message
    assert caught.value.hint
    assert caught.value.code is Code.INPUT


def test_a_pin_in_the_uri_is_refused_and_not_repeated(monkeypatch, tmp_path):
    with pytest.raises(CornerstoneError) as caught:
        key_named(f"pkcs11:object=release?pin-value={PIN}", monkeypatch, tmp_path)
    assert PIN not in str(caught.value)
    assert "pin-source" in caught.value.hint


def test_a_wrong_pin_is_said_and_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv(PIN_SETTING, "wrong-secret")
    with pytest.raises(CornerstoneError, match="the PIN is wrong") as caught:
        key_named("pkcs11:object=release", monkeypatch, tmp_path)
    assert "wrong-secret" not in str(caught.value)


def test_without_a_pin_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.delenv(PIN_SETTING)
    with pytest.raises(CornerstoneError, match="shows no private keys") as caught:
        key_named("pkcs11:object=release", monkeypatch, tmp_path)
    assert PIN_SETTING in caught.value.hint


def test_without_a_module_it_is_asked_for(monkeypatch):
    monkeypatch.delenv(MODULE_SETTING)
    with pytest.raises(CornerstoneError, match="names no PKCS#11 module") as caught:
        Uri.parse("pkcs11:object=release")
    assert MODULE_SETTING in caught.value.hint

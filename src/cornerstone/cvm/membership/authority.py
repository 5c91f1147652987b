"""The cluster's certificate authority: a key derived from the bootstrap secret and the cluster's name, never kept.

Every node that has the secret derives the same key and certifies itself with it, so that nobody has to be asked. Each
certificate names one CVM address. Needs python3-cryptography, from 38 on.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cornerstone.lib.error import CornerstoneError
from cornerstone.model.contracts.node import SECRET_FILE
from cornerstone.model.contracts.places import STATE

MIN_SECRET_BYTES = 16
SALT = b"cornerstone cluster authority 1"
# Members' certificates last as long as the cluster: nobody could renew them once the secret is wiped, and a clock that
# is wrong must not keep a node out. The end is RFC 5280's "no end" (4.1.2.5).
BEGIN = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


class Authority:
    """secret: bytes by chance, 16 or more. The same secret and name give the same key and certificate everywhere."""

    def __init__(self, secret: bytes, cluster: str) -> None:
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=SALT, info=cluster.encode()).derive(secret)
        self._key = Ed25519PrivateKey.from_private_bytes(derived)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cornerstone cluster authority")])
        public = self._key.public_key()
        certificate = (self._builder(self._name, public, serial=1)
                       .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                       .add_extension(_usage(signs_certificates=True), critical=True))
        self.certificate = _text(certificate.sign(self._key, None))

    def certify(self, address: str, begin: datetime.datetime = BEGIN, end: datetime.datetime = END) -> str:
        """A new key for the CVM with this address and its certificate, both as PEM."""
        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (self._builder(name, key.public_key(), x509.random_serial_number(), begin, end)
                       .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                       .add_extension(_usage(signs_certificates=False), critical=True)
                       .add_extension(both, critical=False)
                       .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]),
                                      critical=False))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return private + _text(certificate.sign(self._key, None))

    def _builder(self, subject: x509.Name, public: Ed25519PublicKey, serial: int, begin: datetime.datetime = BEGIN,
                 end: datetime.datetime = END) -> x509.CertificateBuilder:
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public)
                .serial_number(serial).not_valid_before(begin).not_valid_after(end)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                               critical=False))


def secret_bytes(text: str) -> bytes:
    """A bootstrap secret as a site file has it. CornerstoneError, which doesn't show it, when it isn't one."""
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) < MIN_SECRET_BYTES:
        raise CornerstoneError(f"the bootstrap secret isn't {MIN_SECRET_BYTES} bytes or more in base64",
                               f"put the one of the site file into {STATE}/{Path(SECRET_FILE).name} on the host, "
                               "then shut the CVM down and start it") from None
    return secret


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=False,
                         content_commitment=False, key_encipherment=False, data_encipherment=False,
                         key_agreement=False, encipher_only=False, decipher_only=False)


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()

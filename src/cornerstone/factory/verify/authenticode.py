"""Signatures inside PE files (shim, GRUB, the kernel): who made them, and whether over these very bytes.

Source: Microsoft, "Windows Authenticode Portable Executable Signature Format"; PE format, "Attribute Certificate
Table". This isn't Secure Boot's own check, which the firmware makes with its keys when a machine boots.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import pkcs7

PE32_PLUS = 0x20B
CERTIFICATE_DIRECTORY = 4
PKCS_SIGNED_DATA = 2


@dataclass(frozen=True)
class Signature:
    """One signature of a PE file: the subjects of its certificates, and whether it holds this file's digest."""

    subjects: tuple[str, ...]
    over_these_bytes: bool


def signatures(content: bytes) -> list[Signature]:
    """The Authenticode signatures of a PE32+ file, in order; empty when it has none. ValueError when it isn't one."""
    try:
        return _signatures(content)
    except struct.error as error:
        raise ValueError("it is cut short") from error


def _signatures(content: bytes) -> list[Signature]:
    header = struct.unpack_from("<I", content, 0x3C)[0] if content[:2] == b"MZ" else len(content)
    if content[header:header + 4] != b"PE\0\0":
        raise ValueError("it isn't a PE file")
    optional = header + 24
    if struct.unpack_from("<H", content, optional)[0] != PE32_PLUS:
        raise ValueError("it isn't a PE32+ file")
    directories = struct.unpack_from("<I", content, optional + 108)[0]
    if directories <= CERTIFICATE_DIRECTORY:
        return []
    entry = optional + 112 + CERTIFICATE_DIRECTORY * 8
    start, size = struct.unpack_from("<II", content, entry)
    if not size:
        return []
    # all of the file but the checksum, the entry that points at the signatures, and the signatures themselves
    signed = content[:optional + 64] + content[optional + 68:entry] + content[entry + 8:start] + content[start + size:]
    digest = hashlib.sha256(signed).digest()
    found, at = [], start
    while at < start + size:
        length, _, kind = struct.unpack_from("<IHH", content, at)
        if length <= 8 or at + length > len(content):
            raise ValueError("its table of signatures is damaged")
        if kind == PKCS_SIGNED_DATA:
            blob = _der(content[at + 8:at + length])
            found.append(Signature(_subjects(blob), digest in blob))
        at += (length + 7) // 8 * 8
    return found


def _der(blob: bytes) -> bytes:
    """One DER value without the padding after it."""
    if blob[1] < 0x80:
        return blob[:2 + blob[1]]
    count = blob[1] & 0x7F
    return blob[:2 + count + int.from_bytes(blob[2:2 + count], "big")]


def _subjects(blob: bytes) -> tuple[str, ...]:
    with warnings.catch_warnings():
        # some signers write BER where the standard asks for DER
        warnings.simplefilter("ignore", UserWarning)
        certificates = pkcs7.load_der_pkcs7_certificates(blob)
    return tuple(certificate.subject.rfc4514_string() for certificate in certificates)

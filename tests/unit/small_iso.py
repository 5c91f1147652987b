"""A small Foundation ISO for tests: tiny files of the right shapes, mastered and signed by the real code."""

import datetime
import hashlib
import struct
from pathlib import Path
from types import SimpleNamespace

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import pkcs7

from cornerstone.customize import iso_image
from cornerstone.factory.build import netboot
from cornerstone.factory.build.plan import Plan
from cornerstone.factory.evidence import evidence
from cornerstone.factory.iso import mastering
from cornerstone.factory.iso.iso_checks import GRUB, INITRAMFS, KERNEL, MOK_MANAGER, SHIM
from cornerstone.factory.packages.lock import Lock, LockedPackage
from cornerstone.factory.payload.render import menus
from cornerstone.factory.signing.signing import SoftwareKey
from cornerstone.factory.store.layers import Layer
from cornerstone.factory.verify import verify
from cornerstone.lib.fat import MIB, make_fat
from cornerstone.model.contracts import boot_area, site_area
from cornerstone.model.contracts.boot_area import BootSettings
from cornerstone.model.contracts.manifest import (
    BOOT_AREA,
    BOOT_CODE,
    CVM,
    FIRST_BOOT,
    HYPERVISOR,
    NAME,
    SIGNATURE_NAME,
    SITE_AREA,
    Manifest,
    entry_of,
)
from cornerstone.model.profile.additions import Additions
from cornerstone.model.profile.profile import load_profile

EPOCH = 1795333787
IDENTITY = "0c2f7a52-27a5-5b0e-8c0b-5b2d1d9c6a11"
PROFILE = {"name": "tiny", "aos": "6.8", "ahv": "20230302.207", "payload": "reference",
           "hypervisor": {"root_slot": 2 << 30},
           "cvm": {"memory": 20 << 30, "vcpus": None, "disk": 20 << 30, "root_slot": 2 << 30}}
SITE_AREA_SIZE = 4096
KEY = SoftwareKey(Ed25519PrivateKey.generate(), "development")
LOCKS = {root: Lock(root, "trixie", EPOCH, ("jq",), tuple(
    LockedPackage("main", name, version, "amd64", 9, hashlib.sha256(name.encode()).hexdigest(), f"pool/{name}.deb")
    for name, version in (("jq", "1.7.1-6"), ("libstdc++6", "14.2.0-19"), ("openssl", "3.5.1-1+deb13u1"))))
    for root in ("hypervisor", "cvm")}
LAYERS = {name: Layer(name, {"lock": "5" * 64, "elements": "6" * 64}, lambda folder, needed: None)
          for name in ("hypervisor", "cvm", "cvm-disk", "first-boot", "efi-image")}
PLAN = Plan(load_profile("aos-6.8", Path(__file__).resolve().parents[2]), KEY, LOCKS, LAYERS, {"code": "7" * 64})
BOOT_HYBRID = b"\xeb\x63".ljust(384, b"\x90") + b"GRUB ".ljust(128, b"\x90")


# what the SBAT of a shim and a GRUB that nobody has revoked begins with, in a length that fits pe
SHIM_SBAT = b"sbat,1,SBAT Version,sbat,1,https\nshim,4,UEFI shim,shim,1,https\n".ljust(80)
GRUB_SBAT = b"sbat,1,SBAT Version,sbat,1,https\ngrub,5,FSF,grub,2.12,https\n".ljust(80)


def pe(body: bytes, *signers: str | None) -> bytes:
    """A PE32+ file of headers and a body, with an Authenticode-shaped signature by a certificate of each name."""
    header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    optional = struct.pack("<H", 0x20B).ljust(108, b"\0") + struct.pack("<I", 16)
    start = len(header) + 24 + len(optional) + 16 * 8 + len(body)
    assert start % 8 == 0

    def assembled(size: int) -> bytes:
        directory = bytearray(16 * 8)
        struct.pack_into("<II", directory, 4 * 8, start if size else 0, size)
        return header + b"PE\0\0".ljust(24, b"\0") + optional + directory + body

    if None in signers:
        return assembled(0)
    plain = assembled(0)
    checksum, entry = 0x40 + 24 + 64, 0x40 + 24 + 112 + 4 * 8
    digest = hashlib.sha256(plain[:checksum] + plain[checksum + 4:entry] + plain[entry + 8:]).digest()
    key = ec.generate_private_key(ec.SECP256R1())
    day, table = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC), b""
    for signer in signers:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, signer)])
        certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                       .serial_number(1).not_valid_before(day).not_valid_after(day + datetime.timedelta(days=1))
                       .sign(key, hashes.SHA256()))
        blob = (pkcs7.PKCS7SignatureBuilder().set_data(digest).add_signer(certificate, key, hashes.SHA256())
                .sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary]))
        table += struct.pack("<IHH", 8 + len(blob), 0x200, 2) + blob
        table += bytes(-len(table) % 8)
    return assembled(len(table)) + table


class Workshop:
    """Makes small ISOs in a folder; what a test wants otherwise it changes in `content` before `master`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = {
            SHIM: pe(SHIM_SBAT + b"shim" * 400, "Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"),
            GRUB: pe(GRUB_SBAT + b"grub" * 500, "Debian Secure Boot Signer - grub2"),
            MOK_MANAGER: pe(b"moks" * 300, "Debian Secure Boot Signer - shim"),
            KERNEL: pe(b"kern" * 600, "Debian Secure Boot Signer - linux"),
            mastering.BIOS_IMAGE: bytes(64).ljust(2548, b"\xaa") + struct.pack("<Q", 2) + b"\x55" * 1001,
            INITRAMFS: b"initramfs" * 99, HYPERVISOR: b"hsqs" * 999, CVM: b"QFI\xfb" * 777,
            FIRST_BOOT: b"#!/bin/bash\n",
            ".disk/info": b"Cornerstone Foundation, tiny, reference payload\n", f".disk/{IDENTITY}": b"",
            **menus(IDENTITY, SimpleNamespace(**PROFILE), "development"),
        }
        self.extra: dict[str, bytes] = {}
        self.named_extra: dict[str, bytes] = {}
        self.boot_hybrid = BOOT_HYBRID
        # None: that of boot_hybrid
        self.named_boot_code: str | None = None
        self.fat = {path: self.content[path] for path in (SHIM, GRUB, MOK_MANAGER)}
        self.site_area = SITE_AREA_SIZE
        self.boot_area = boot_area.SIZE
        self.profile = PROFILE

    @property
    def boot_code(self) -> str:
        """What the manifest says of the MBR's boot code."""
        digest = hashlib.sha256(self.boot_hybrid[:BOOT_CODE]).hexdigest()
        return digest if self.named_boot_code is None else self.named_boot_code

    def put(self, path: str, content: bytes) -> Path:
        at = self.folder / path.replace("/", "+")
        at.write_bytes(content)
        return at

    def master(self) -> Path:
        """The ISO, with manifest.pem beside it."""
        files = {path: self.put(path, content) for path, content in {**self.content, **self.named_extra}.items()}
        if mastering.EFI_IMAGE not in files:
            sources = {path: self.put(f"fat+{path}", content) for path, content in self.fat.items()}
            files[mastering.EFI_IMAGE] = self.folder / "efi.img"
            make_fat(files[mastering.EFI_IMAGE], MIB, "ESP", sources, epoch=EPOCH, log=self.folder / "log")
        entries = tuple(entry_of(path, source, iso_image.BIOS_IMAGE_MASK if path == mastering.BIOS_IMAGE else ())
                        for path, source in sorted(files.items()))
        manifest = Manifest(IDENTITY, self.profile, "development", EPOCH, entries, SITE_AREA_SIZE,
                            self.boot_area, self.boot_code).to_bytes()
        area = site_area.pack(None, self.site_area)
        unnamed = {NAME: manifest, SIGNATURE_NAME: KEY.sign(manifest), SITE_AREA: area}
        if self.boot_area:
            unnamed[BOOT_AREA] = boot_area.pack(BootSettings())
        unnamed |= self.extra
        files |= {path: self.put(path, content) for path, content in unnamed.items() if content is not None}
        target = self.folder / "tiny.iso"
        mastering.master(target, files, boot_hybrid=self.boot_hybrid, identity=IDENTITY, epoch=EPOCH,
                   progress=lambda done, total: None)
        target.with_name(verify.KEY_NAME).write_bytes(KEY.public_pem())
        return target

    def certify(self, target: Path) -> dict:
        """Write an ISO's evidence beside it, as a build does; returns the record of it."""
        return evidence.write(target, PLAN, target)

    def serve(self, target: Path) -> Path:
        """Write an ISO's folder netboot beside it, as a build does; returns the folder."""
        files = {"hypervisor": ("hypervisor.squashfs", self.content[HYPERVISOR]),
                 "cvm-disk": ("cvm.qcow2", self.content[CVM]),
                 netboot.LAYER: (netboot.INITRD, self.content[INITRAMFS] + b"drivers")}
        layers = {name: self.folder / "layers" / name for name in files}
        for name, (file, content) in files.items():
            layers[name].mkdir(parents=True)
            (layers[name] / file).write_bytes(content)
        profile = SimpleNamespace(**self.profile | {"hypervisor": SimpleNamespace(extra=Additions())})
        netboot.write(SimpleNamespace(key=KEY, profile=profile), layers, target, {})
        return netboot.folder_of(target)

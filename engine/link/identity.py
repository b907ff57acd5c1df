"""The identity of a site: one ECDSA P-256 key and its certificate, known to peers by the certificate's fingerprint.

Trust comes from the fingerprint alone, typed or carried by an invitation at pairing. OpenSSL, as Python offers it,
lets a server ask for a client's certificate only if it can verify a chain; so every identity is signed by one
authority whose private key is public: made from a sentence, below. Its signature says nothing and is trusted for
nothing; what it buys is that both ends prove in the handshake that they hold the key of their certificate.
This module must never make an identity where there is one, and never give a private key out.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blockstore.disk import Disk
from engine.errors import BadValue, IdentityUnreadable

CERTIFICATE = "certificate.pem"
KEY = "key.pem"

SENTENCE: Final = b"Leeward: everybody has this key, and what it signs is worth nothing."
_NEVER_BEFORE: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""Certificates do not expire: a wrong clock must not keep two sites apart. A lost key is unpaired, not waited for."""

_AUTHORITY_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Leeward, no authority")])
_FINGERPRINT: Final = re.compile(r"SHA256:([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the certificate and its key lie (PEM), and the fingerprint "SHA256:" + 64 hex digits."""

    certificate: Path
    key: Path
    fingerprint: str


def fingerprint_of(certificate_der: bytes) -> str:
    """The fingerprint of a certificate in DER."""
    return f"SHA256:{hashlib.sha256(certificate_der).hexdigest()}"


def parse_fingerprint(text: str) -> str:
    """A fingerprint as operators paste it, in its one written form. Raises BadValue."""
    kind, colon, digits = text.strip().partition(":")
    found = f"{kind.upper()}{colon}{digits.replace(':', '').lower()}"
    if not _FINGERPRINT.fullmatch(found):
        raise BadValue(what="fingerprint", value=text, reason="SHA256: and 64 hex digits are wanted")
    return found


def _authority_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(SENTENCE).digest()), ec.SECP256R1())


def authority_pem() -> str:
    """The certificate of the authority that vouches for nothing, as a TLS context wants it (PEM)."""
    key = _authority_key()
    return (
        _builder(_AUTHORITY_NAME, key.public_key(), serial=1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_AUTHORITY_NAME)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_NEVER_BEFORE)
        .not_valid_after(_FOR_EVER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_authority_key().public_key()), critical=False
        )
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def create(folder: Path, site_name: str) -> Identity:
    """Make an identity in `folder` (made if missing, mode 0700), durable when this returns.

    Raises IdentityUnreadable if there is one already, OSError.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    common_name = site_name.encode()[:64].decode(errors="ignore")  # for people only; X.509 allows no more
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        _builder(name, key.public_key(), x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(purposes, critical=False)
        .sign(_authority_key(), hashes.SHA256())
    )
    Disk().make_dir(str(folder))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        _write_new(folder / KEY, private)
        _write_new(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    except FileExistsError:
        raise IdentityUnreadable(path=str(folder), reason="there is one already, and it is never replaced") from None
    Disk().sync_dir(str(folder))
    return load(folder)


def _write_new(path: Path, content: bytes) -> None:
    file = Disk().open(str(path), create=True)
    try:
        file.write(content, 0)
        file.sync()
    finally:
        file.close()


def load(folder: Path) -> Identity:
    """The identity in `folder`, its key and certificate checked against each other. Raises IdentityUnreadable."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / KEY).read_bytes(), password=None)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem().encode()))
    except OSError as error:
        raise IdentityUnreadable(path=str(folder), reason=error.strerror or str(error)) from error
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityUnreadable(path=str(folder), reason=f"a file in it is damaged ({error})") from error
    if certificate.public_key() != key.public_key():
        raise IdentityUnreadable(path=str(folder), reason="the key is not that of the certificate")
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Identity(folder / CERTIFICATE, folder / KEY, fingerprint_of(der))

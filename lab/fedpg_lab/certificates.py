"""A private authority for one federation: certificates for its server, its agents, and the operator.

Every participant gets a folder of its own (`ca.pem`, `cert.pem`, `key.pem`), so that it can be handed its key and no
other. The authority's own key lies in the folder `authority` and is needed only to make further certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fedpg_common.channels import AGENT_NAME_PREFIX, OPERATOR_NAME, SERVER_NAME
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.files import exists

AUTHORITY = "authority"
AUTHORITY_CERTIFICATE, AUTHORITY_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "cert.pem", "key.pem"
SERVER = SERVER_NAME
OPERATOR = OPERATOR_NAME
BACKDATED = datetime.timedelta(minutes=10)
"""Clocks of other machines may be a little behind."""
RENEWED_BEFORE = datetime.timedelta(days=7)
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*")


@dataclass(frozen=True)
class Authority:
    """The federation's certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(
    folder: Path, agents: int, server_names: Sequence[str], days: int, now: datetime.datetime
) -> list[str]:
    """Make what is missing, expired or about to expire below `folder`; returns the names of what was made.

    `server_names` are the host names and addresses under which agents reach the server. Keys are readable by their
    owner alone. Whoever has a certificate of an authority that was replaced gets a new one. Raises UsageError for a
    name that is none, StorageError for a folder or file that cannot be used.
    """
    expires = now + datetime.timedelta(days=days)
    hosts = [_general_name(name) for name in server_names]
    server_usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # it checks its own health
    try:
        folder.mkdir(parents=True, exist_ok=True)
        authority, is_new = _load_or_make_authority(folder / AUTHORITY, now, expires)
        made = [AUTHORITY] if is_new else []
        if not _is_good(folder / SERVER, authority, hosts, now):
            _issue(folder / SERVER, authority, server_usages, hosts, now, expires)
            made.append(SERVER)
        for name in (OPERATOR, *(f"{AGENT_NAME_PREFIX}{index}" for index in range(1, agents + 1))):
            if not _is_good(folder / name, authority, [], now):
                _issue(folder / name, authority, [ExtendedKeyUsageOID.CLIENT_AUTH], [], now, expires)
                made.append(name)
    except OSError as error:
        raise StorageError(f"certificates cannot be kept in {folder}: {error.strerror}") from error
    return made


def _load_or_make_authority(folder: Path, now: datetime.datetime, expires: datetime.datetime) -> tuple[Authority, bool]:
    """The authority, and whether it is new."""
    certificate_path, key_path = folder / AUTHORITY_CERTIFICATE, folder / AUTHORITY_KEY
    if exists(certificate_path) and exists(key_path):
        authority = Authority(_load_certificate(certificate_path), _load_key(key_path))
        if authority.certificate.public_key() != authority.key.public_key():
            raise StorageError(f"{certificate_path} is not the certificate of {key_path}")
        if _lasts(authority.certificate, now):
            return authority, False
    folder.mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedPG federation authority")])
    certificate = (
        _builder(name, name, key, now, expires)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(key_path, _key_pem(key), secret=True)
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key), True


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise StorageError(f"{path} is no certificate in PEM: delete it to have a new one made") from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # no key, one with a password, an unknown kind
        raise StorageError(f"{path} is no key in PEM without a password: delete it to have a new one made") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StorageError(f"{path} is not an elliptic-curve key: delete it to have a new one made")
    return key


def _issue(
    folder: Path,
    authority: Authority,
    usages: Sequence[x509.ObjectIdentifier],
    hosts: Sequence[x509.GeneralName],
    now: datetime.datetime,
    expires: datetime.datetime,
) -> None:
    """Make a key and its certificate in a folder of their own; the folder's name is the certificate's."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(folder)
    # An authority that ends earlier takes everything that it has signed with it.
    expires = min(expires, authority.certificate.not_valid_after_utc)
    builder = (
        _builder(subject, authority.certificate.subject, key, now, expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    folder.mkdir(mode=0o700, exist_ok=True)
    _write(folder / KEY, _key_pem(key), secret=True)
    _write(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    _write(folder / AUTHORITY_CERTIFICATE, authority.certificate.public_bytes(serialization.Encoding.PEM))


def _is_good(folder: Path, authority: Authority, hosts: Sequence[x509.GeneralName], now: datetime.datetime) -> bool:
    """Whether a folder has a key and its certificate, of this authority, that lasts, for these hosts."""
    if not all(exists(folder / name) for name in (KEY, CERTIFICATE, AUTHORITY_CERTIFICATE)):
        return False
    certificate = _load_certificate(folder / CERTIFICATE)
    if _load_certificate(folder / AUTHORITY_CERTIFICATE) != authority.certificate:
        return False
    if certificate.public_key() != _load_key(folder / KEY).public_key():
        return False
    if certificate.subject != _subject(folder):  # another's, copied into this folder
        return False
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value if hosts else ()
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return set(hosts) <= set(names) and _lasts(certificate, now)


def _subject(folder: Path) -> x509.Name:
    """Whom a folder's certificate is for."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])


def _lasts(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    """Whether a certificate has more than a week left, or a quarter of its time if it has so little in all."""
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc > now + min(RENEWED_BEFORE, lifetime / 4)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    expires: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(expires)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    """A host name or an address as certificates have it. Raises UsageError for anything else."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not HOST_NAME.fullmatch(host):
            raise UsageError(f"{host!r} is not a host name or an address: write it without a port") from None
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, secret: bool = False) -> None:
    """Write a file that appears whole; a secret one is never readable by others, not even for a moment."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(unfinished, path)

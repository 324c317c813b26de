"""A private authority for one federation: certificates for its server, its agents, and the operator.

Every participant gets a folder of its own (`ca.pem`, `cert.pem`, `key.pem`), so that it can be handed its key and no
other. The authority's own key lies in the folder `authority` and is needed only to make further certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.files import exists
from fedpg_common.transport.channels import AGENT_NAME_PREFIX, OPERATOR_NAME, SERVER_NAME

from fedpg_lab.deploy.authority import (
    AUTHORITY,
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    CERTIFICATE,
    KEY,
    Authority,
    Note,
    close_to_others,
    load_authority,
    load_certificate,
    load_key,
    one_at_a_time,
    require_key,
    write_file,
)
from fedpg_lab.deploy.revocations import (
    are_written,
    check_names,
    load_revoked,
    remove_revoked,
    serials_to_revoke,
    write_revoked,
)

SERVER = SERVER_NAME
OPERATOR = OPERATOR_NAME
BACKDATED = datetime.timedelta(minutes=10)
"""Clocks of other machines may be a little behind."""
RENEWED_BEFORE = datetime.timedelta(days=7)
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*")


def make_certificates(
    folder: Path,
    agents: int,
    server_names: Sequence[str],
    days: int,
    now: datetime.datetime,
    authority: Path | None = None,
    new_authority: bool = False,
    note: Note = lambda _sentence: None,
    revoke: Sequence[str] = (),
) -> list[str]:
    """Make what is missing, expired or about to expire below `folder`; returns the names of what was made.

    `server_names` are the host names and addresses under which agents reach the server. Keys are readable by their
    owner alone; `note` is told of what was otherwise, or in the wrong folder, and has been put right. The authority is
    the one in the folder `authority`, if not in that of this name below `folder`. There is a new one at the very
    first, when the old one ends (and all that it signed with it), or with `new_authority`; whoever has a certificate
    of one that was replaced gets a new one. The certificates of `revoke`, agents or the operator, are put on the
    authority's revocation list, and made again. Raises UsageError for a name that is not one, StorageError for a folder
    or file that cannot be used and for an authority or its key that is kept elsewhere and needed; then nothing is
    changed.
    """
    check_names(revoke)
    if revoke and new_authority:
        raise UsageError("--revoke and --new-authority exclude each other: a new one has signed nothing yet")
    hosts = [_general_name(name) for name in server_names]
    place = folder / AUTHORITY if authority is None else authority
    participants = [SERVER, OPERATOR, *(f"{AGENT_NAME_PREFIX}{index}" for index in range(1, agents + 1))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder):
            found = None if new_authority else load_authority(place, folder, note)
            expires = now + datetime.timedelta(days=days)
            made = []
            if found is not None and not _lasts(found.certificate, now):
                end = f"the authority in {place} ends on {found.certificate.not_valid_after_utc:%Y-%m-%d}"
                if found.key is None:
                    raise StorageError(f"{end}: replace it and every certificate with --new-authority")
                note(f"{end}: it is replaced, and every certificate with it")
                found = None
            if found is None:
                found = _make_authority(place, now, expires)
                made.append(AUTHORITY)
                remove_revoked(place, folder)
            revoked = load_revoked(place, folder, found) | serials_to_revoke(folder, revoke, found)
            needed = [
                name
                for name in participants
                if not _is_good(folder / name, found, hosts if name == SERVER else [], now, revoked, note)
            ]
            is_listed = are_written(place, folder, revoked, found)
            require_key(found, place, needed or ([] if is_listed else ["the revocation list"]))
            if not is_listed:
                write_revoked(place, folder, revoked, found, now)
            close_to_others(place, AUTHORITY_KEY, note)
            for name in participants:
                close_to_others(folder / name, KEY, note)
                if name in needed:
                    _issue(folder / name, found, hosts if name == SERVER else [], now, expires)
    except OSError as error:
        raise StorageError(f"certificates cannot be kept in {folder}: {error.strerror}") from error
    return made + needed


def _make_authority(folder: Path, now: datetime.datetime, expires: datetime.datetime) -> Authority:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedPG federation authority")])
    certificate = (
        _builder(name, name, key, now, expires)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_file(folder / AUTHORITY_KEY, _key_pem(key), secret=True)
    write_file(folder / AUTHORITY_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key)


def _issue(
    folder: Path,
    authority: Authority,
    hosts: Sequence[x509.GeneralName],
    now: datetime.datetime,
    expires: datetime.datetime,
) -> None:
    """Make a key and its certificate in a folder of their own; the folder's name is the certificate's."""
    assert authority.key is not None  # see `require_key`
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if folder.name == SERVER:  # which checks its own health as a client
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
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
    write_file(folder / KEY, _key_pem(key), secret=True)
    write_file(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    write_file(folder / AUTHORITY_CERTIFICATE, authority.certificate.public_bytes(serialization.Encoding.PEM))


def _is_good(
    folder: Path,
    authority: Authority,
    hosts: Sequence[x509.GeneralName],
    now: datetime.datetime,
    revoked: Collection[int],
    note: Note,
) -> bool:
    """Whether a folder has a key and its certificate, of this authority, that lasts, for these hosts."""
    if not all(exists(folder / name) for name in (KEY, CERTIFICATE, AUTHORITY_CERTIFICATE)):
        return False
    certificate = load_certificate(folder / CERTIFICATE)
    if load_certificate(folder / AUTHORITY_CERTIFICATE) != authority.certificate:
        return False
    if certificate.public_key() != load_key(folder / KEY).public_key():
        return False
    if certificate.subject != _subject(folder):  # another's, copied into this folder
        note(f"{folder / CERTIFICATE} is the certificate of {certificate.subject.rfc4514_string()}: it is replaced")
        return False
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value if hosts else ()
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return certificate.serial_number not in revoked and set(hosts) <= set(names) and _lasts(certificate, now)


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

"""The authority's revocation list: certificates that a server must not trust any more although they have not expired.

It lies beside the authority's certificate and in the server's folder, in X.509's own form. It grows and never shrinks.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.files import exists
from fedpg_common.transport.channels import OPERATOR_NAME, REVOCATION_LIST, SERVER_NAME, agent_of_name

from fedpg_lab.deploy.authority import CERTIFICATE, Authority, load_certificate, write_file


def check_names(names: Sequence[str]) -> None:
    """Raise UsageError unless each is a participant whose certificate the server can refuse."""
    for name in names:
        if name == SERVER_NAME:
            raise UsageError(
                "the server's certificate cannot be revoked, because agents do not ask for the list: replace the "
                "authority and every certificate with --new-authority"
            )
        if name != OPERATOR_NAME and agent_of_name(name) is None:
            raise UsageError(f"{name!r} has no certificate to revoke: name a folder, like agent-3 or {OPERATOR_NAME}")


def serials_to_revoke(folder: Path, names: Sequence[str], authority: Authority) -> set[int]:
    """The serial numbers of the certificates in these participants' folders. Raises StorageError without one."""
    serials = set()
    for name in names:
        path = folder / name / CERTIFICATE
        if not exists(path):
            raise StorageError(f"there is no {path} to revoke: give the folder that has it with --out")
        certificate = load_certificate(path)
        try:
            certificate.verify_directly_issued_by(authority.certificate)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise StorageError(f"{path} is not of this authority: there is nothing to revoke") from error
        serials.add(certificate.serial_number)
    return serials


def load_revoked(place: Path, folder: Path, authority: Authority) -> set[int]:
    """The serial numbers on the authority's lists, beside it and in the server's folder. Raises StorageError."""
    serials: set[int] = set()
    for path in _lists(place, folder):
        if not exists(path):
            continue
        try:
            found = x509.load_pem_x509_crl(path.read_bytes())
            is_signed = found.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path} is not a revocation list in PEM: put it back from a copy") from error
        if not is_signed:
            raise StorageError(f"{path} is not of the authority in {place}: put it back from a copy")
        serials |= {entry.serial_number for entry in found}
    return serials


def are_written(place: Path, folder: Path, revoked: Collection[int], authority: Authority) -> bool:
    """Whether both lists say this already; also where nothing is revoked and there are none."""
    if not revoked:
        return True
    contents = {path.read_bytes() if exists(path) else b"" for path in _lists(place, folder)}
    return len(contents) == 1 and load_revoked(place, folder, authority) == set(revoked)


def write_revoked(
    place: Path, folder: Path, revoked: Collection[int], authority: Authority, now: datetime.datetime
) -> None:
    """Write both lists. The authority has its key. Raises OSError."""
    assert authority.key is not None  # see `require_key`
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(max(now + datetime.timedelta(days=1), authority.certificate.not_valid_after_utc))
    )
    for serial in sorted(revoked):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    content = builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    for path in _lists(place, folder):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_file(path, content)


def remove_revoked(place: Path, folder: Path) -> None:
    """Remove the lists of an authority that has been replaced. Raises OSError."""
    for path in _lists(place, folder):
        path.unlink(missing_ok=True)


def _lists(place: Path, folder: Path) -> tuple[Path, Path]:
    return place / REVOCATION_LIST, folder / SERVER_NAME / REVOCATION_LIST

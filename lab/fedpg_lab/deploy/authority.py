"""Which authority signs a federation's certificates: the one that is there, and never another one unasked.

A new authority makes every certificate useless that has been handed out. So a key that is kept elsewhere is asked for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fedpg_common.errors import StorageError
from fedpg_common.files import exists

AUTHORITY = "authority"
AUTHORITY_CERTIFICATE, AUTHORITY_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "cert.pem", "key.pem"
OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

Note = Callable[[str], None]
"""Takes a sentence for the user."""


@dataclass(frozen=True)
class Authority:
    """The federation's certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None
    """None if it is kept elsewhere: then nothing can be signed."""


def load_authority(place: Path, folder: Path, note: Note) -> Authority | None:
    """The authority in `place`; None if there has been none. `folder` is where the certificates are.

    A certificate of the authority that is missing is taken from those who have been given it. Raises StorageError if
    the authority is damaged, or is missing where others have certificates of it.
    """
    certificate_path, key_path = place / AUTHORITY_CERTIFICATE, place / AUTHORITY_KEY
    key = load_key(key_path) if exists(key_path) else None
    if exists(certificate_path):
        certificate = load_certificate(certificate_path)
        if key is not None and certificate.public_key() != key.public_key():
            raise StorageError(f"{certificate_path} is not the certificate of {key_path}")
        return Authority(certificate, key)
    owners = certificate_owners(folder)
    for name in owners if key is not None else ():
        with suppress(StorageError, OSError):
            content = (folder / name / AUTHORITY_CERTIFICATE).read_bytes()
            certificate = load_certificate(folder / name / AUTHORITY_CERTIFICATE)
            if key is not None and certificate.public_key() == key.public_key():
                write_file(certificate_path, content)
                note(f"{certificate_path} was missing: it is that in {name} again")
                return Authority(certificate, key)
    if owners:
        raise StorageError(
            f"there is no authority in {place}, but {folder} has certificates of one ({shortened(owners)}): say where "
            "it is kept with --authority, or replace it and every certificate with --new-authority"
        )
    return None


def require_key(authority: Authority, place: Path, needed: Sequence[str]) -> None:
    """Raise StorageError if a signature is needed and the key is not there."""
    if needed and authority.key is None:
        raise StorageError(
            f"the authority's key is needed to make certificates for {shortened(needed)}: put it to "
            f"{place / AUTHORITY_KEY}, or say where ca.pem and ca.key are kept with --authority; nothing is changed"
        )


def certificate_owners(folder: Path) -> list[str]:
    """The names of the folders in which there is a certificate."""
    return sorted(path.parent.name for path in folder.glob(f"*/{CERTIFICATE}"))


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate. Raises StorageError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise StorageError(f"{path} is not a certificate in PEM: delete it to have a new one made") from error


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a key. Raises StorageError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # no key, one with a password, an unknown kind
        raise StorageError(
            f"{path} is not a key in PEM without a password: delete it to have a new one made"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StorageError(f"{path} is not an elliptic-curve key: delete it to have a new one made")
    return key


def write_file(path: Path, content: bytes, secret: bool = False) -> None:
    """Write a file that appears whole; a secret one is never readable by others, not even for a moment."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(unfinished, path)


def close_to_others(folder: Path, key_name: str, note: Note) -> None:
    """See that nobody but its owner can read a key, and nobody else can put another into its folder.

    Raises OSError where that may not be changed.
    """
    for path, forbidden, what in (
        (folder / key_name, OTHERS, "could be read by others"),
        (folder, OTHERS_WRITE, "could be written by others"),
    ):
        if not exists(path):
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & forbidden:
            path.chmod(mode & ~forbidden)
            note(f"{path} {what}: it cannot any more; make new certificates if somebody has done so")


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until nobody else makes certificates in a folder, and keep others waiting meanwhile. Raises OSError."""
    import fcntl  # not on every system, and the module is imported for its names as well

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written to and not read: it cannot be locked, either
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks on folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def shortened(names: Sequence[str]) -> str:
    """A list of names for a sentence, cut."""
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"

"""Certificates that are not to be trusted any more although they have not expired: the authority's revocation list.

gRPC's own reading of such lists is not to be had from Python, so callers are looked up here. The list is optional, lies
beside the server's certificate, and is followed while the server runs: who is on it is refused at its next call.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from fedpg_common.errors import UsageError
from fedpg_common.files import reason, shown
from fedpg_common.transport.channels import TlsFiles

LOOK_EVERY_S = 1.0
CERTIFICATES_REMEMBERED = 20_000

log = logging.getLogger(__name__)


class RevocationList:
    """The serial numbers that the authority has revoked. Without a file there are none."""

    def __init__(self, tls: TlsFiles) -> None:
        """Read the list beside the certificate, if there is one. Raises UsageError for one that cannot be used."""
        self._path = tls.revocation_list
        self._authority = tls.authority
        self._seen = _state_of(self._path)
        self._serials = self._read() if self._seen is not None else frozenset()

    def __len__(self) -> int:
        """How many certificates are on it."""
        return len(self._serials)

    def has(self, certificate_pem: bytes) -> bool:
        """Whether a certificate of the authority is on the list."""
        return bool(self._serials) and _serial(certificate_pem) in self._serials

    async def follow(self) -> None:
        """Take up changes of the file until cancelled. What cannot be used leaves the list as it was."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.refresh()

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        state = _state_of(self._path)
        if state == self._seen:
            return
        self._seen = state
        if state is None:
            log.warning("%s is gone: the %d certificates on it stay revoked until the server is started again",
                        shown(self._path), len(self))  # fmt: skip
            return
        try:
            self._serials = self._read()
        except UsageError as error:
            log.warning("%s; the %d certificates revoked before stay so", error, len(self))
        else:
            log.info("%s has changed: certificates revoked: %d", shown(self._path), len(self))

    def _read(self) -> frozenset[int]:
        try:
            revoked = x509.load_pem_x509_crl(self._path.read_bytes())
            authority = x509.load_pem_x509_certificate(self._authority.read_bytes())
            is_signed = revoked.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # RSA, EC, …
        except OSError as error:
            raise UsageError(f"TLS file {shown(self._path)} cannot be read: {reason(error)}") from error
        except (ValueError, TypeError) as error:
            raise UsageError(f"TLS file {shown(self._path)} is not a revocation list in PEM") from error
        if not is_signed or revoked.issuer != authority.subject:
            raise UsageError(
                f"TLS file {shown(self._path)} is not a revocation list of the authority in {shown(self._authority)}"
            )
        return frozenset(entry.serial_number for entry in revoked)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@lru_cache(CERTIFICATES_REMEMBERED)
def _serial(certificate_pem: bytes) -> int:
    return x509.load_pem_x509_certificate(certificate_pem).serial_number

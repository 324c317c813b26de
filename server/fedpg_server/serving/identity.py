"""Who calls, by the certificate."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import grpc
from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.oid import NameOID

CERTIFICATES_REMEMBERED = 20_000


def common_name(context: grpc.ServicerContext | grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """The common name in the caller's certificate, whole; None without a certificate or for one without a name.

    gRPC's own `x509_common_name` ends at a NUL, so that agent-1 followed by a NUL and anything would be agent 1.
    """
    certificate = certificate_pem(context)
    return None if certificate is None else name_in(certificate)


def certificate_pem(context: grpc.ServicerContext | grpc.aio.ServicerContext[Any, Any]) -> bytes | None:
    """The caller's certificate; None without one."""
    certificates: list[Any] = list(context.auth_context().get("x509_pem_cert", ()))
    return certificates[0] if certificates else None


@lru_cache(CERTIFICATES_REMEMBERED)
def name_in(pem: bytes) -> str | None:
    """The common name in a certificate, whole; None for one without a name."""
    names = load_pem_x509_certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else None

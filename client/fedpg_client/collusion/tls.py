"""Who may listen in on the attackers: nobody who does not have their secret.

Attackers have no authority that all of them trust but their secret. So the key of one follows from it: each attacker
signs itself a certificate with that key, and accepts the certificates that the same key has signed. Whoever lacks the
secret can neither read what they pool nor add to it.
"""

from __future__ import annotations

import datetime
import hashlib

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CURVE = ec.SECP256R1()
CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Private keys are the numbers below it (SEC 2, section 2.4.2)."""
HOST = "attackers"
"""The name that every attacker's certificate is for, wherever the pool is served."""
BEGINNING = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
"""No clock decides who is an attacker."""


def pool_server_credentials(secret: str) -> grpc.ServerCredentials:
    """For serving the pool to those who have the secret."""
    authority, certificate, key = _identity(secret)
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def pool_client_credentials(secret: str) -> grpc.ChannelCredentials:
    """For calling the pool of those who have the secret."""
    authority, certificate, key = _identity(secret)
    return grpc.ssl_channel_credentials(authority, key, certificate)


def _identity(secret: str) -> tuple[bytes, bytes, bytes]:
    """The secret's authority, and a new certificate of it with its key, in PEM."""
    number = int.from_bytes(hashlib.sha512(f"fedpg/attackers-channel/{secret}".encode()).digest(), "big")
    authority_key = ec.derive_private_key(number % (CURVE_ORDER - 1) + 1, CURVE)
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attackers' authority")])
    authority = _certificate(authority_name, authority_key, authority_name, authority_key, is_authority=True)
    key = ec.generate_private_key(CURVE)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attacker")])
    certificate = _certificate(name, key, authority_name, authority_key, is_authority=False)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return authority, certificate, key_pem


def _certificate(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_authority: bool,
) -> bytes:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINNING)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(issuer_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )

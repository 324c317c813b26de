"""Certificates of every sort, made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fedpg_common.transport.channels import TlsFiles

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """For a file or for gRPC."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """For a file or for gRPC."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_identity(common_name: str, signer: Identity | None = None, expired: bool = False) -> Identity:
    """An identity signed by `signer`, or an authority of its own. It is good for loopback addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    hosts = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer.certificate.subject if signer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now - DAY if expired else now + DAY)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(hosts, critical=False)
    )
    return Identity(builder.sign(signer.key if signer else key, hashes.SHA256()), key)


def write_files(folder: Path, authority: Identity, identity: Identity) -> TlsFiles:
    """One end's three files."""
    folder.mkdir()
    files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    files.authority.write_bytes(authority.certificate_pem)
    files.certificate.write_bytes(identity.certificate_pem)
    files.key.write_bytes(identity.key_pem)
    return files


def client_credentials(authority: Identity, identity: Identity | None) -> grpc.ChannelCredentials:
    """A client's credentials, whatever they are worth."""
    if identity is None:
        return grpc.ssl_channel_credentials(authority.certificate_pem)
    return grpc.ssl_channel_credentials(authority.certificate_pem, identity.key_pem, identity.certificate_pem)

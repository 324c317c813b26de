"""Addresses, channel options and credentials of both ends, in one place."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import grpc
from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound, load_pem_x509_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedpg_common.checks import show
from fedpg_common.errors import UsageError

Option = tuple[str, int]

KEEPALIVE_TIME_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000
CONNECT_BACKOFF_MIN_MS = 100
CONNECT_BACKOFF_MAX_MS = 2_000
CONNECT_TIMEOUT_MS = 5_000
"""For one attempt: over a slow link to a busy server, the handshakes of TCP, TLS and HTTP/2 take their time."""
JOIN_MESSAGE_BYTES_MAX = 1024 * 1024
"""Message limit before a run's own limit is known, that is for Join."""
AGENT_NAME_PREFIX = "agent-"
OPERATOR_NAME = "operator"
"""Common name of the certificate of who runs the federation."""
SERVER_NAME = "server"
REVOCATION_LIST = "crl.pem"
"""In the server's folder, if there is one."""
AGENT_DIGITS_MAX = 9

# What one caller can make a server hold (gRPC core, grpc/impl/channel_arg_names.h).
STREAMS_PER_CONNECTION_MAX = 100
"""Calls under way on one connection; more wait at the caller's end."""
HANDSHAKE_TIMEOUT_MS = 10_000
"""A connection that is not HTTP/2, over TLS where there is TLS, by then is closed."""
CONNECTION_IDLE_MAX_MS = 300_000
"""A connection without a call for so long is closed; a long poll is a call. Its client opens another when needed."""

_CLOSED = ("Socket closed", "Connection reset", "Broken pipe", "handshak", "GOAWAY")
"""In the text of a call that failed: something listens there, and has hung up."""
_OTHER_HOST = "Hostname Verification Check failed"
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "certificate signature failure", "BAD_SIGNATURE")
"""In such a text: this end's authority has not signed the other end's certificate, or this is not its time."""
_DATES = {
    "certificate has expired": "has expired: `fedpg certs` renews it (unless this machine's clock is wrong)",
    "certificate is not yet valid": "is not valid yet, by this machine's clock: set the clock",
}

_SHARED_OPTIONS: tuple[Option, ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of one end: the authority that signed the other end, the own certificate and its key."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def revocation_list(self) -> Path:
        """Where a server looks for a list of certificates that are not to be trusted any more. It is optional."""
        return self.certificate.with_name(REVOCATION_LIST)

    def read(self) -> tuple[bytes, bytes, bytes]:
        """The three files' contents.

        Raises UsageError for a file that cannot be read or is not PEM, a key of another certificate, and an own
        certificate that has expired, or is not valid yet, by this machine's clock, which is the one that TLS goes by.
        """
        contents = []
        for path in (self.authority, self.certificate, self.key):
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise UsageError(f"TLS file {path} cannot be read: {error.strerror}") from error
        self._check(certificate=contents[1])
        return contents[0], contents[1], contents[2]

    def _check(self, certificate: bytes) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_verify_locations(self.authority)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"TLS file {self.authority} holds no certificate in PEM") from error
        try:
            context.load_cert_chain(self.certificate, self.key, password="")
            own = load_pem_x509_certificate(certificate)
        except (ssl.SSLError, OSError, ValueError) as error:
            if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                raise UsageError(
                    f"TLS file {self.key} is the key of another certificate than {self.certificate}"
                ) from (error)
            raise UsageError(
                f"TLS files {self.certificate} and {self.key} are not a certificate and its key in PEM"
            ) from error
        now = datetime.now(UTC)
        if own.not_valid_after_utc <= now:
            raise UsageError(
                f"the TLS certificate {self.certificate} has expired on {own.not_valid_after_utc:%Y-%m-%d}"
            )
        if own.not_valid_before_utc > now:
            valid, today = (f"{time:%Y-%m-%d %H:%M}" for time in (own.not_valid_before_utc, now))
            raise UsageError(
                f"the TLS certificate {self.certificate} is valid from {valid} UTC on, and by this machine's clock "
                f"it is {today}: set the clock"
            )


def tls_files(folder: Path | None) -> TlsFiles | None:
    """The files ca.pem, cert.pem and key.pem in a participant's folder, as `fedpg certs` makes it; None without one.

    Raises UsageError if one is missing.
    """
    if folder is None:
        return None
    files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    files.read()
    return files


def client_options(message_bytes: int, use_proxy: bool = False) -> list[Option]:
    """Options of a client's channel. With `use_proxy`, gRPC heeds http_proxy, https_proxy, grpc_proxy and no_proxy."""
    return [
        ("grpc.enable_http_proxy", int(use_proxy)),  # gRPC would send loopback's traffic there too
        *_SHARED_OPTIONS,
        *_message_limits(message_bytes, message_bytes),
        ("grpc.initial_reconnect_backoff_ms", CONNECT_BACKOFF_MIN_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", CONNECT_BACKOFF_MAX_MS),
        ("grpc.enable_retries", 0),  # retries are the agent's own: see fedpg_client.calls
        ("grpc.use_local_subchannel_pool", 1),  # agents that share a process keep connections of their own
    ]


def server_options(message_bytes: int, send_bytes: int = 0, connections_max: int | None = None) -> list[Option]:
    """Options of a server. `send_bytes` is the limit for what it sends, where that is the larger one.

    Connections beyond `connections_max` are closed as soon as they are opened, whoever's they are.
    """
    connections = [] if connections_max is None else [("grpc.max_allowed_incoming_connections", connections_max)]
    return [
        *_SHARED_OPTIONS,
        *_message_limits(message_bytes, max(message_bytes, send_bytes)),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_connection_idle_ms", CONNECTION_IDLE_MAX_MS),
        ("grpc.http2.bdp_probe", 0),  # it would let a fast caller send megabytes on every stream, read or not
        *connections,
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server behind it
    ]


def _message_limits(receive_bytes: int, send_bytes: int) -> Sequence[Option]:
    return (
        ("grpc.max_receive_message_length", receive_bytes),
        ("grpc.max_send_message_length", send_bytes),
    )


def open_channel(
    address: str,
    message_bytes: int,
    tls: TlsFiles | grpc.ChannelCredentials | None,
    use_proxy: bool = False,
    server_name: str = "",
) -> grpc.Channel:
    """A lazy channel to `address` (HOST:PORT). Nothing is sent before the first call.

    `server_name` is the name that the other end's certificate has, where that is not the address's host.

    It goes straight there whatever the environment says of proxies, unless `use_proxy`. Every channel of the code base
    is opened here.
    """
    parse_address(address)
    options: list[tuple[str, int | str]] = [*client_options(message_bytes, use_proxy)]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    if isinstance(tls, TlsFiles):
        authority, certificate, key = tls.read()
        tls = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.secure_channel(address, tls, options=options)


def why_untrusted(details: str) -> str:
    """Of a call that failed since this end does not trust the other's certificate, what is wrong with that; else "".

    gRPC's own words nest several causes.
    """
    if _OTHER_HOST in details:
        return "is for another host name: `fedpg certs --server-name` adds names to it"
    if any(sign in details for sign in _UNTRUSTED):
        for sign, meaning in _DATES.items():
            if sign in details:
                return meaning
        return "is not signed by the authority in ca.pem here"
    return ""


def tls_hint(details: str, whose: str | None) -> str:
    """What may be wrong with TLS, to be added to a failed call's text; empty where nothing points to it.

    `whose` certificate this end has shown, for example "this agent's"; None if it does not use TLS.
    """
    if whose and "WRONG_VERSION_NUMBER" in details:
        return "; what listens there does not use TLS: leave out --tls, or check the address"
    closed = any(sign in details for sign in _CLOSED)
    if whose and closed:
        return f"; a server also closes the connection if it does not accept {whose} certificate"
    return "; a server that uses TLS closes the connection like this: then give --tls" if closed else ""


def server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate signed by the authority.

    Raises UsageError as `TlsFiles.read`, and for a certificate that no client would take for a server's.
    """
    authority, certificate, key = tls.read()
    own = load_pem_x509_certificate(certificate)
    try:
        purposes = set(own.extensions.get_extension_for_class(ExtendedKeyUsage).value)
    except ExtensionNotFound:  # one from elsewhere, which is for any purpose
        purposes = {ExtendedKeyUsageOID.SERVER_AUTH}
    if not purposes & {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}:
        raise UsageError(
            f"the TLS certificate {tls.certificate} is not for a server ({own.subject.rfc4514_string()}): "
            "give the folder `server` of fedpg certs"
        )
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPV6]:PORT. Raises UsageError for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise UsageError(f"{show(address)} is not an address: write HOST:PORT, for example 127.0.0.1:50051")
    return host, int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a server bound to `address`."""
    host, _ = parse_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def is_loopback_peer(peer: str) -> bool:
    """Whether a caller, as gRPC names it ("ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711"), is on this machine."""
    kind, _, address = unquote(peer).partition(":")
    if kind == "unix":
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def agent_of_name(common_name: str) -> int | None:
    """The agent index in a certificate's common name "agent-<index>", or None."""
    digits = common_name.removeprefix(AGENT_NAME_PREFIX)
    if not digits.isascii() or not digits.isdecimal() or len(digits) > AGENT_DIGITS_MAX:
        return None
    index = int(digits)
    return index if index >= 1 and common_name == f"{AGENT_NAME_PREFIX}{index}" else None

"""`fedpg certs`: idempotent, renews what is about to expire, and no one but their owner can read keys."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fedpg_common.errors import StorageError, UsageError
from fedpg_common.transport.channels import tls_files
from fedpg_lab.deploy.certificates import RENEWED_BEFORE, make_certificates

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
NAMES = ("localhost", "127.0.0.1")
EVERYONE = ["authority", "server", "operator", "agent-1", "agent-2"]


def make(
    folder: Path, agents: int = 2, names: tuple[str, ...] = NAMES, days: int = 90, now: datetime.datetime = NOW
) -> list[str]:
    return make_certificates(folder, agents, names, days, now)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / name / "cert.pem").read_bytes())


def test_everyone_gets_a_folder_that_tls_can_use(tmp_path: Path) -> None:
    assert make(tmp_path) == EVERYONE
    authority = x509.load_pem_x509_certificate((tmp_path / "authority" / "ca.pem").read_bytes())
    for name in EVERYONE[1:]:
        files = tls_files(tmp_path / name)
        assert files is not None
        assert files.authority.read_bytes() == (tmp_path / "authority" / "ca.pem").read_bytes()
        certificate(tmp_path, name).verify_directly_issued_by(authority)
        assert certificate(tmp_path, name).subject.rfc4514_string() == f"CN={name}"


def test_only_the_server_can_pass_as_a_server(tmp_path: Path) -> None:
    make(tmp_path)

    def purposes(name: str) -> set[str]:
        usage = certificate(tmp_path, name).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return {purpose._name for purpose in usage}

    assert purposes("server") == {"serverAuth", "clientAuth"}
    assert purposes("agent-1") == purposes("operator") == {"clientAuth"}
    for name in ("server", "operator", "agent-1"):
        assert not certificate(tmp_path, name).extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_making_them_again_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path, now=NOW + 10 * DAY) == []
    assert contents(tmp_path) == before


def test_short_lived_ones_are_not_made_anew_at_once(tmp_path: Path) -> None:
    make(tmp_path, days=1)
    assert make(tmp_path, days=1, now=NOW + datetime.timedelta(hours=12)) == []
    assert make(tmp_path, days=1, now=NOW + datetime.timedelta(hours=20)) == EVERYONE


def test_more_agents_get_theirs_from_the_same_authority(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path, agents=4) == ["agent-3", "agent-4"]
    assert before.items() <= contents(tmp_path).items()


def test_what_is_missing_is_made_again(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "agent-2" / "key.pem").unlink()
    assert make(tmp_path) == ["agent-2"]
    assert tls_files(tmp_path / "agent-2") is not None


@pytest.mark.parametrize("age", [90 * DAY - RENEWED_BEFORE + DAY, 90 * DAY + DAY], ids=["about to expire", "expired"])
def test_the_end_of_the_authority_renews_everyone(tmp_path: Path, age: datetime.timedelta) -> None:
    make(tmp_path)
    assert make(tmp_path, now=NOW + age) == EVERYONE
    assert certificate(tmp_path, "agent-1").not_valid_after_utc > NOW + age + 80 * DAY


def test_one_that_is_about_to_expire_is_renewed_alone(tmp_path: Path) -> None:
    make(tmp_path, agents=1, days=365)
    make(tmp_path, agents=2, days=30)
    assert make(tmp_path, days=30, now=NOW + 25 * DAY) == ["agent-2"]


def test_none_outlives_the_authority(tmp_path: Path) -> None:
    make(tmp_path, days=30)
    make(tmp_path, agents=3, days=365)
    assert certificate(tmp_path, "agent-3").not_valid_after_utc <= certificate(tmp_path, "agent-1").not_valid_after_utc


def test_another_name_of_the_server_renews_the_server_alone(tmp_path: Path) -> None:
    make(tmp_path)
    assert make(tmp_path, names=(*NAMES, "fedpg.example", "10.1.2.3")) == ["server"]
    assert make(tmp_path, names=("fedpg.example",)) == []
    names = certificate(tmp_path, "server").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "fedpg.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.1.2.3"]


def test_another_authority_replaces_everyone_even_those_left_out_at_first(tmp_path: Path) -> None:
    make(tmp_path)
    assert make_certificates(tmp_path, 1, NAMES, 90, NOW, new_authority=True) == [
        "authority", "server", "operator", "agent-1"
    ]  # fmt: skip
    assert make(tmp_path, agents=2) == ["agent-2"]
    certificate(tmp_path, "agent-2").verify_directly_issued_by(
        x509.load_pem_x509_certificate((tmp_path / "authority" / "ca.pem").read_bytes())
    )


def test_a_key_of_another_certificate_is_replaced(tmp_path: Path) -> None:
    make(tmp_path)
    os.replace(tmp_path / "agent-2" / "key.pem", tmp_path / "agent-1" / "key.pem")
    assert make(tmp_path) == ["agent-1", "agent-2"]


def test_anothers_certificate_in_a_folder_is_replaced(tmp_path: Path) -> None:
    make(tmp_path)
    for path in (tmp_path / "agent-2").iterdir():
        (tmp_path / "agent-1" / path.name).write_bytes(path.read_bytes())
    assert make(tmp_path) == ["agent-1"]
    assert certificate(tmp_path, "agent-1").subject.rfc4514_string() == "CN=agent-1"


def test_keys_are_their_owners_alone_from_the_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    rename = os.replace

    def spy(source: Path, target: Path) -> None:
        seen[f"{Path(target).parent.name}/{Path(target).name}"] = stat.S_IMODE(os.stat(source).st_mode)
        rename(source, target)

    monkeypatch.setattr(os, "replace", spy)
    previous = os.umask(0)
    try:
        make(tmp_path)
    finally:
        os.umask(previous)
    keys = {name: mode for name, mode in seen.items() if name.endswith(("ca.key", "key.pem"))}
    assert sorted(keys) == [
        "agent-1/key.pem", "agent-2/key.pem", "authority/ca.key", "operator/key.pem", "server/key.pem"
    ]  # fmt: skip
    assert set(keys.values()) == {0o600}
    for path in tmp_path.rglob("*key*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "agent-1").stat().st_mode) == 0o700
    assert not list(tmp_path.rglob("*.new"))


def rsa_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("name", ["authority/ca.pem", "authority/ca.key", "server/cert.pem", "agent-1/key.pem"])
@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    make(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match=rf"^\S+{name} is not a .* in PEM.*: delete it to have a new one made$"):
        make(tmp_path)


def test_keys_that_are_not_its_own_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "authority" / "ca.key").write_bytes((tmp_path / "agent-1" / "key.pem").read_bytes())
    with pytest.raises(StorageError, match=r"ca\.pem is not the certificate of .*ca\.key$"):
        make(tmp_path)
    (tmp_path / "authority" / "ca.key").write_bytes(rsa_key())
    with pytest.raises(StorageError, match="is not an elliptic-curve key"):
        make(tmp_path)


@pytest.mark.parametrize("name", ["", "server:50051", "-x", "a b", "a..b", "Ω", "*.example"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a host name or an address"):
        make(tmp_path, names=(name,))
    assert not list(tmp_path.iterdir())


def test_an_unusable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be kept in"):
        make(tmp_path / "file")

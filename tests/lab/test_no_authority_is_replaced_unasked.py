"""`fedpg certs` asks for an authority kept elsewhere, never replaces it unasked, and puts right what is open."""

from __future__ import annotations

import datetime
import shutil
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from fedpg_common.errors import ExitCode, StorageError
from fedpg_lab.deploy.certificates import make_certificates
from support.lab import Command

NOW = datetime.datetime.now(datetime.UTC)
NAMES = ("localhost", "127.0.0.1")


def make(folder: Path, agents: int = 2, authority: Path | None = None, new_authority: bool = False) -> list[str]:
    return make_certificates(folder, agents, NAMES, 90, NOW, authority, new_authority)


def noted(folder: Path) -> list[str]:
    """What is put right, in sentences."""
    sentences: list[str] = []
    make_certificates(folder, 2, NAMES, 90, NOW, note=sentences.append)
    return sentences


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def authority_of(folder: Path) -> bytes:
    return (folder / "agent-1" / "ca.pem").read_bytes()


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A federation of two whose folder has the authority's certificate and not its key, which is in `offline`."""
    folder = tmp_path / "certs"
    make(folder)
    (tmp_path / "offline").mkdir()
    shutil.copy(folder / "authority" / "ca.pem", tmp_path / "offline" / "ca.pem")
    shutil.move(folder / "authority" / "ca.key", tmp_path / "offline" / "ca.key")
    return folder


def test_an_agent_more_needs_the_key(certs: Path) -> None:
    before = contents(certs)
    with pytest.raises(StorageError, match=r"key is needed to make certificates for agent-3, agent-4: put it to .*ca"):
        make(certs, agents=4)
    assert contents(certs) == before, "nothing is changed"
    assert not (certs / "agent-3").exists()


def test_what_needs_no_signature_needs_no_key(certs: Path) -> None:
    assert make(certs) == []


def test_an_authority_kept_elsewhere_can_be_named(certs: Path, tmp_path: Path) -> None:
    before = contents(certs)
    assert make(certs, agents=3, authority=tmp_path / "offline") == ["agent-3"]
    assert before.items() <= contents(certs).items()
    made = x509.load_pem_x509_certificate((certs / "agent-3" / "cert.pem").read_bytes())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_of(certs)))
    assert not (certs / "authority" / "ca.key").exists()


def test_an_authority_can_be_kept_elsewhere_from_the_first(tmp_path: Path) -> None:
    make(tmp_path / "certs", authority=tmp_path / "keys" / "offline")
    assert not (tmp_path / "certs" / "authority").exists()
    assert stat.S_IMODE((tmp_path / "keys" / "offline" / "ca.key").stat().st_mode) == 0o600
    assert make(tmp_path / "certs", authority=tmp_path / "keys" / "offline") == []


@pytest.mark.parametrize("lost", ["authority", "authority/ca.pem and ca.key"])
def test_an_authority_that_is_gone_is_asked_for(certs: Path, lost: str) -> None:
    shutil.rmtree(certs / "authority")
    if lost != "authority":
        (certs / "authority").mkdir()
    before = contents(certs)
    with pytest.raises(StorageError, match=r"there is no authority in .*: say where it is kept with --authority, or"):
        make(certs)
    assert contents(certs) == before


def test_a_wrong_place_is_not_taken_for_a_new_authority(certs: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no authority in"):
        make(certs, authority=tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_its_certificate_comes_back_from_those_who_have_it(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "authority" / "ca.pem").unlink()
    assert any("ca.pem was missing" in sentence for sentence in noted(tmp_path))
    assert contents(tmp_path) == before


def test_a_new_authority_is_made_when_it_is_asked_for(certs: Path) -> None:
    before = authority_of(certs)
    assert make(certs, new_authority=True) == ["authority", "server", "operator", "agent-1", "agent-2"]
    assert authority_of(certs) != before
    assert make(certs) == []


def test_an_authority_that_ends_while_its_key_is_elsewhere(certs: Path) -> None:
    with pytest.raises(StorageError, match=r"ends on \d{4}-\d\d-\d\d: replace it .* with --new-authority"):
        make_certificates(certs, 2, NAMES, 90, NOW + datetime.timedelta(days=89))


def test_anothers_certificate_is_named_and_replaced(tmp_path: Path) -> None:
    make(tmp_path)
    for path in (tmp_path / "agent-2").iterdir():
        shutil.copy(path, tmp_path / "agent-1" / path.name)
    assert noted(tmp_path) == [f"{tmp_path}/agent-1/cert.pem is the certificate of CN=agent-2: it is replaced"]
    made = x509.load_pem_x509_certificate((tmp_path / "agent-1" / "cert.pem").read_bytes())
    assert made.subject.rfc4514_string() == "CN=agent-1"


@pytest.mark.parametrize("name", ["agent-1/key.pem", "server/key.pem", "operator/key.pem", "authority/ca.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_key_that_others_can_read_is_named_and_closed(tmp_path: Path, name: str, mode: int) -> None:
    make(tmp_path)
    (tmp_path / name).chmod(mode)
    assert [sentence for sentence in noted(tmp_path) if f"{tmp_path}/{name} could be read by others" in sentence]
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert noted(tmp_path) == []


def test_a_folder_that_others_can_write_is_named_and_closed(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "agent-2").chmod(0o777)
    assert "agent-2 could be written by others" in "".join(noted(tmp_path))
    assert stat.S_IMODE((tmp_path / "agent-2").stat().st_mode) == 0o755


def test_two_at_once_make_one_authority(tmp_path: Path) -> None:
    made: list[list[str]] = []
    threads = [threading.Thread(target=lambda: made.append(make(tmp_path, agents=3))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, made)) == [0, 0, 0, 0, 0, 6]
    assert make(tmp_path, agents=3) == []


def test_the_command_says_it(certs: Path, tmp_path: Path, fedpg: Command) -> None:
    code, _, text = fedpg("certs", "--agents", "3", "--out", certs)
    assert code == ExitCode.STORAGE
    assert "--authority" in text
    assert len(text.splitlines()) == 1
    code, out, text = fedpg("certs", "--agents", "3", "--out", certs, "--authority", tmp_path / "offline")
    assert code == ExitCode.OK, text
    assert "made agent-3" in out
    code, out, text = fedpg("certs", "--agents", "3", "--out", certs, "--new-authority")
    assert code == ExitCode.OK, text
    assert "made authority, server, operator and 3 more" in out

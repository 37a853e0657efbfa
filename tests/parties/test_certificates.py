"""Certificates: who is whom, refused with a word on what is wrong."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from lpmppl.errors import InputError
from lpmppl.parties.certificates import Credentials, issue
from tests.parties.parts import modes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    issue(tmp_path / "certificates", ["coordinator", "helper-0", "bronx"], days=30)
    return tmp_path / "certificates"


def test_a_time_without_a_zone_is_of_utc(folder: Path) -> None:
    issue(folder, ["bronx"], days=1, since=ago(0.5).replace(tzinfo=None))
    assert Credentials(folder, "bronx").name == "bronx"


def ago(days: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)


def test_keys_are_for_their_owner_and_of_the_curve(folder: Path) -> None:
    found = modes(folder)
    assert set(found) == {
        f"{name}.{kind}" for name in ("ca", "coordinator", "helper-0", "bronx") for kind in ("pem", "key")
    }
    assert {mode for name, mode in found.items() if name.endswith(".key")} == {0o600}
    certificate = x509.load_pem_x509_certificate((folder / "bronx.pem").read_bytes())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["bronx", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert certificate.not_valid_after_utc - ago(0) < datetime.timedelta(days=30)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_more_are_issued_by_the_same_authority(folder: Path) -> None:
    before = (folder / "ca.pem").read_bytes()
    issue(folder, ["queens"], days=29)
    assert (folder / "ca.pem").read_bytes() == before
    assert Credentials(folder, "queens").name == "queens"
    assert "key" not in repr(Credentials(folder, "queens"))


def test_an_expired_certificate_says_when(folder: Path) -> None:
    issue(folder, ["bronx"], days=1, since=ago(3))
    with pytest.raises(InputError, match=r"certificate of 'bronx' .* expired on \d{4}-\d\d-\d\d .*issue it again"):
        Credentials(folder, "bronx")


def test_a_certificate_of_the_future_says_so(folder: Path) -> None:
    issue(folder, ["bronx"], days=1, since=ago(-3))
    with pytest.raises(InputError, match=r"valid from .* on only; set this machine's clock"):
        Credentials(folder, "bronx")


def test_an_expired_authority_is_named(tmp_path: Path) -> None:
    issue(tmp_path, ["bronx"], days=1, since=ago(3))
    issue(tmp_path / "new", ["bronx"])
    for name in ("bronx.pem", "bronx.key"):
        shutil.copy(tmp_path / "new" / name, tmp_path / name)
    with pytest.raises(InputError, match=r"certificate authority .* expired"):
        Credentials(tmp_path, "bronx")


def test_another_authoritys_certificate_is_refused(folder: Path, tmp_path: Path) -> None:
    issue(tmp_path / "other", ["bronx"])
    shutil.copy(tmp_path / "other" / "ca.pem", folder / "ca.pem")
    with pytest.raises(InputError, match=r"certificate of 'bronx' .* isn't of its authority ca\.pem"):
        Credentials(folder, "bronx")


def test_someone_elses_certificate_or_key_is_refused(folder: Path) -> None:
    issue(folder, ["queens"], days=29)
    (folder / "bronx.key").write_bytes((folder / "queens.key").read_bytes())
    with pytest.raises(InputError, match=r"bronx\.key isn't the key of .*bronx\.pem"):
        Credentials(folder, "bronx")
    (folder / "bronx.pem").write_bytes((folder / "queens.pem").read_bytes())
    with pytest.raises(InputError, match=r"bronx\.pem is the certificate of 'queens', not of 'bronx'"):
        Credentials(folder, "bronx")


@pytest.mark.parametrize("name", ["", "../x", "ca", "a b", "x" * 64])
def test_names_that_are_no_file_or_host_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="can't be a party's name"):
        issue(tmp_path, [name])


def test_other_bad_input(folder: Path, tmp_path: Path) -> None:
    for days in (0, -1, float("nan"), 1e9):
        with pytest.raises(InputError, match="days="):
            issue(tmp_path, ["bronx"], days=days)
    with pytest.raises(InputError, match=r"is valid until .* only; give fewer days"):
        issue(folder, ["queens"], days=60)
    with pytest.raises(InputError, match=r"queens\.pem can't be read as a certificate"):
        Credentials(folder, "queens")
    (folder / "bronx.key").write_text("no key")
    with pytest.raises(InputError, match=r"bronx\.key can't be read as a key"):
        Credentials(folder, "bronx")
    (folder / "file").write_text("")
    with pytest.raises(InputError, match="certificates can't be written"):
        issue(folder / "file" / "x", ["bronx"])

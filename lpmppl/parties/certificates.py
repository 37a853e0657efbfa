"""Certificates by which the parties of a session know one another."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lpmppl.errors import InputError
from lpmppl.parties.kept import replace

__all__ = ["Credentials", "issue"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MOST_DAYS = 36_500
_UsageOID = ExtendedKeyUsageOID
_UNREADABLE = (OSError, ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def issue(folder: str | Path, names: Iterable[str], days: float = 30, since: datetime.datetime | None = None) -> None:
    """Write a certificate authority and, for each party, a key and a certificate of that authority.

    In the folder, `ca.pem` and `<name>.pem` are public; `ca.key` and `<name>.key` can be read by their owner alone.
    A party needs `ca.pem` and its own two files, and nobody needs `ca.key` but to issue more: an authority that is
    there already is used again. Keys are on the curve P-256.

    Args:
        folder: where to; made if need be.
        names: of the parties, as in `Session.parties`.
        days: of validity.
        since: when validity begins, in UTC if it has no time zone; now if it isn't given.
    Raises:
        InputError: for a name that can't be used, days that aren't above 0, or an authority that ends before.
    """
    folder, names = Path(folder), list(names)
    since = since or datetime.datetime.now(datetime.UTC)
    if since.tzinfo is None:
        since = since.replace(tzinfo=datetime.UTC)
    if not 0 < days <= _MOST_DAYS:
        raise InputError(f"days={days}: give how long the certificates are valid, above 0 and up to {_MOST_DAYS}")
    for name in names:
        if not _NAME.fullmatch(name) or name == "ca":
            raise InputError(f"{name!r} can't be a party's name: give 1 to 63 letters, digits, '-', '_' or '.'")
    until = since + datetime.timedelta(days=days)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / "ca.pem").exists():
            _authority(folder, since, until)
        ca, key = _certificate(folder / "ca.pem"), _key(folder / "ca.key")
        if ca.not_valid_after_utc < until - datetime.timedelta(seconds=1):
            raise InputError(
                f"the authority in {folder} is valid until {ca.not_valid_after_utc:%Y-%m-%d %H:%M} UTC only; give "
                "fewer days, or make all certificates anew in an empty folder"
            )
        for name in names:
            _issue(folder, name, ca, key, since, until)
    except OSError as e:
        raise InputError(f"certificates can't be written to {folder}: {e}") from e


class Credentials:
    """A party's key and certificate, and the authority that it trusts.

    Args:
        folder: with `ca.pem`, `<name>.pem` and `<name>.key`, as `issue` has written them.
        name: the party's.
    Raises:
        InputError: for files that can't be read, or a certificate that is expired, not valid yet, of another
            authority or of another party.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder, self.name = Path(folder), name
        self.paths = self.folder / "ca.pem", self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self.check()

    def check(self) -> None:
        """Refuse what can't be used, as at the beginning: certificates expire while one works."""
        folder, name = self.folder, self.name
        ca, mine, key = _certificate(self.paths[0]), _certificate(self.paths[1]), _key(self.paths[2])
        now, remedy = datetime.datetime.now(datetime.UTC), "issue it again with certificates.issue(…)"
        if _common_name(mine) != name:
            raise InputError(f"{self.paths[1]} is the certificate of '{_common_name(mine)}', not of '{name}'")
        for what, certificate in ((f"certificate of '{name}'", mine), ("certificate authority", ca)):
            if certificate.not_valid_after_utc < now:
                raise InputError(
                    f"the {what} in {folder} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; {remedy}"
                )
            if certificate.not_valid_before_utc > now:
                raise InputError(
                    f"the {what} in {folder} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on "
                    f"only; set this machine's clock, or {remedy}"
                )
        try:
            mine.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as e:
            raise InputError(f"the certificate of '{name}' in {folder} isn't of its authority ca.pem; {remedy}") from e
        if key.public_key() != mine.public_key():
            raise InputError(f"{self.paths[2]} isn't the key of {self.paths[1]}; {remedy}")

    def __repr__(self) -> str:
        return f"Credentials({str(self.folder)!r}, {self.name!r})"

    def server(self) -> grpc.ServerCredentials:
        """What a gRPC server needs, so that only parties with a certificate of the authority get to it."""
        ca, mine, key = (path.read_bytes() for path in self.paths)
        return grpc.ssl_server_credentials([(key, mine)], ca, require_client_auth=True)

    def channel(self) -> grpc.ChannelCredentials:
        """What a gRPC channel needs."""
        ca, mine, key = (path.read_bytes() for path in self.paths)
        return grpc.ssl_channel_credentials(ca, key, mine)


def _authority(folder: Path, since: datetime.datetime, until: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("lpmppl parties")
    builder = (
        _builder(name, name, key.public_key(), key.public_key(), since, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
    )
    _write(folder, "ca", key, builder.sign(key, hashes.SHA256()))


def _issue(
    folder: Path,
    name: str,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        _builder(_named(name), ca.subject, key.public_key(), ca_key.public_key(), since, until)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_UsageOID.SERVER_AUTH, _UsageOID.CLIENT_AUTH]), critical=False)
    )
    _write(folder, name, key, builder.sign(ca_key, hashes.SHA256()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    # A minute back, because other machines' clocks may be a little behind.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - datetime.timedelta(minutes=1))
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    replace(folder / f"{name}.key", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    replace(folder / f"{name}.pem", certificate.public_bytes(pem), mode=0o644)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return os.fsdecode(names[0].value) if names else ""


def _certificate(path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        # Its parts are read only when they are asked for.
        _common_name(certificate), certificate.public_key()
    except _UNREADABLE as e:
        raise InputError(f"{path} can't be read as a certificate ({e}); write it with certificates.issue(…)") from e
    return certificate


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except _UNREADABLE as e:
        raise InputError(f"{path} can't be read as a key ({e}); write it with certificates.issue(…)") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{path} is a key of another kind than P-256; write it with certificates.issue(…)")
    return key

"""A certificate authority and a certificate a role, for clusters that encrypt (TLS).

Every process of such a cluster shows a certificate that this authority signed, and asks for one:
whoever has none cannot connect. Needs the library ``cryptography``.
"""

from __future__ import annotations

import datetime
import importlib.util
import os
from pathlib import Path
from typing import Any

from netflixdask.cluster.files import ROLES
from netflixdask.errors import ConfigError, InputError

CA_DAYS = 1825
DAYS = 365
CLOCKS = datetime.timedelta(minutes=5)  # by which the clocks of two hosts may differ


def make_certificates(
    folder: str | Path,
    *,
    days: int = DAYS,
    renew: bool = False,
    start: datetime.datetime | None = None,
) -> dict[str, datetime.datetime]:
    """Write ``ca.crt``, ``ca.key`` and a ``.crt`` and ``.key`` for scheduler, worker and client.

    Keys are ECDSA on P-256, readable by their owner alone; the authority lasts five years. The
    client's certificate serves no scheduler or worker. ``ca.key`` is needed by no cluster: whoever
    has it can make certificates, so keep it where nobody else reads it.

    Args:
        folder: is made if need be; a file that is there already is never overwritten.
        days: how long the certificates of the roles last.
        renew: replace the certificates and keys of the roles by new ones of the same authority.
        start: when they become valid; by default now.

    Returns:
        When each file's certificate ends, by file name.

    Raises:
        InputError: if there are files already, or with ``renew`` no authority.
        ConfigError: if ``cryptography`` is not installed, or ``days`` is less than 1.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise ConfigError(
            "certificates need the library cryptography, which is not installed; "
            "expected pip install 'netflixdask[tls]'"
        )
    if days < 1:
        raise ConfigError(f"days = {days}: expected at least 1")
    folder = Path(folder)
    now = (start or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)
    if renew:
        authority, signer = _read_authority(folder)
        end = authority.not_valid_after_utc
        if end < now + datetime.timedelta(days=days):
            raise InputError(
                f"{folder / 'ca.crt'}: ends {end:%Y-%m-%d}, before the new certificates would; "
                "expected fewer days, or another folder with an authority of its own"
            )
    else:
        names = ["ca.crt", "ca.key", *[f"{r}.{what}" for r in ROLES for what in ("crt", "key")]]
        there = [name for name in names if os.path.lexists(folder / name)]
        if there:
            raise InputError(
                f"{folder}: holds {', '.join(there)} already, and nothing was written; expected "
                "another folder, or --renew for new certificates of the authority that is there"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority, signer = _new_authority(now)
        _write(folder / "ca.key", _key_bytes(signer), secret=True)
        _write(folder / "ca.crt", _pem(authority))
    ends = {"ca.crt": authority.not_valid_after_utc}
    for role in ROLES:
        certificate, key = _of_role(role, authority, signer, now, days)
        _write(folder / f"{role}.key", _key_bytes(key), secret=True, replace=renew)
        _write(folder / f"{role}.crt", _pem(certificate), replace=renew)
        ends[f"{role}.crt"] = certificate.not_valid_after_utc
    return ends


def _new_authority(now: datetime.datetime) -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own tells two authorities apart in what OpenSSL says.
    name = _name(f"netflixdask CA {x509.random_serial_number() & 0xFFFFFFFF:08x}")
    certificate = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_others=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _of_role(
    role: str, authority: Any, signer: Any, now: datetime.datetime, days: int
) -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role != "client":  # schedulers and workers call each other, and are called
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _builder(_name(f"netflixdask {role}"), authority.subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(signed_by, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return certificate, key


def _builder(name: Any, issuer: Any, public_key: Any, now: datetime.datetime, days: int) -> Any:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs_others: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_others,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _read_authority(folder: Path) -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder}: --renew found no authority in ca.crt and ca.key ({error}); expected a "
            "folder that 'netflixdask cluster certs' made"
        ) from None
    return certificate, key


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return bytes(certificate.public_bytes(Encoding.PEM))


def _key_bytes(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))


def _write(path: Path, content: bytes, *, secret: bool = False, replace: bool = False) -> None:
    """Write a new file; a secret one is its owner's alone from the first byte on."""
    target = path.with_name(f"{path.name}.new") if replace else path
    if replace:
        target.unlink(missing_ok=True)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    if replace:
        target.replace(path)

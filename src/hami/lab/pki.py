"""The lab's own certificates: one authority, server certificates, and a client certificate for any user and group."""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=365)
# A clock that steps back a little must not make a fresh certificate invalid.
BACKDATE = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class KeyPair:
    """Files of one certificate and its key, with the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


class Pki:
    """An authority in a folder; every file is readable by its owner alone."""

    def __init__(self, folder: Path, name: str = "hami-lab") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.authority = folder / "ca.crt"
        certificate = _unsigned(self._name, self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = certificate.add_extension(_usage(sign_certificates=True), critical=True)
        _write(self.authority, _pem(certificate.sign(self._key, hashes.SHA256())))

    def server(self, name: str, hosts: Iterable[str]) -> KeyPair:
        """A server certificate for these DNS names and IP addresses."""
        extra = [(x509.SubjectAlternativeName([_host(host) for host in hosts]), False)]
        return self._issue(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), SERVER, extra)

    def client(self, user: str, groups: Iterable[str] = (), file: str | None = None) -> KeyPair:
        """A client certificate: the API server takes CN as the user and each O as a group."""
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        return self._issue(file or user.replace(":", "-"), x509.Name(subject), CLIENT)

    def service_account(self) -> tuple[Path, Path]:
        """Private and public key that sign and check service account tokens."""
        key = ec.generate_private_key(ec.SECP256R1())
        private, public = self.folder / "sa.key", self.folder / "sa.pub"
        _write(private, _private_pem(key))
        _write(
            public,
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        )
        return private, public

    def _issue(
        self,
        file: str,
        subject: x509.Name,
        purpose: x509.ObjectIdentifier,
        extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        unsigned = _unsigned(subject, self._name, key.public_key())
        unsigned = unsigned.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        unsigned = unsigned.add_extension(_usage(sign_certificates=False), critical=True)
        unsigned = unsigned.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        for extension, critical in extra:
            unsigned = unsigned.add_extension(extension, critical)
        pair = KeyPair(self.folder / f"{file}.crt", self.folder / f"{file}.key", self.authority)
        _write(pair.certificate, _pem(unsigned.sign(self._key, hashes.SHA256())))
        _write(pair.key, _private_pem(key))
        return pair


SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # "EC PRIVATE KEY": the API server reads its signing key only in this form.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)

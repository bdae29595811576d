"""A signature holds for one record and one key, and OpenSSL agrees."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import write_run

from foundation.errors import UsageError
from foundation.record import read_record, write_record
from foundation.run_folder import RunFolder
from pipeline.custody.check import check_run
from pipeline.custody.signature import sign_run

cryptography = pytest.importorskip("cryptography", reason="the extra edgeproof[sign] is not installed")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402
from cryptography.hazmat.primitives.serialization import (  # noqa: E402
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def private_pem(key: object, encryption: object = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def public_pem(key: object) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_pair(folder: Path, name: str, seed: bytes) -> tuple[Path, Path]:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    private.write_bytes(private_pem(key))
    public.write_bytes(public_pem(key))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path, "key", b"1" * 32)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run")


def test_a_signed_run_is_verified_and_the_signature_is_always_the_same(
    run: RunFolder, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    assert check_run(run, public).faults[0].startswith("run.json.sig: expected a signature of run.json, found none.")
    assert sign_run(run, private) == run.root / "run.json.sig"
    first = run.signature.read_bytes()
    assert len(first) == 64
    checked = check_run(run, public)
    assert (checked.exit_code, checked.signature) == (0, "signed by the key of key.public.pem")
    sign_run(run, private)
    assert run.signature.read_bytes() == first
    assert check_run(run, None).signature == "signed; --public-key verifies it"


def test_who_edits_and_computes_all_digests_anew_is_found_by_the_signature(
    run: RunFolder, keys: tuple[Path, Path]
) -> None:
    sign_run(run, keys[0])
    write_record(run, replace(read_record(run), name="another"))
    assert check_run(run, None).exit_code == 0
    checked = check_run(run, keys[1])
    assert checked.exit_code == 2
    assert "expected a signature of this run.json by the key of key.public.pem, found another" in checked.faults[0]


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content + b"\n", lambda _: b""])
def test_a_changed_signature_and_another_key_are_told(
    run: RunFolder, keys: tuple[Path, Path], tmp_path: Path, damage: object
) -> None:
    sign_run(run, keys[0])
    _, other = write_pair(tmp_path, "other", b"2" * 32)
    assert "by the key of other.public.pem, found another" in check_run(run, other).faults[0]
    run.signature.write_bytes(damage(run.signature.read_bytes()))
    assert check_run(run, keys[1]).exit_code == 2


def test_an_edited_run_is_not_signed(run: RunFolder, keys: tuple[Path, Path]) -> None:
    run.measurements.write_text("[]")
    with pytest.raises(UsageError, match=r"measurements\.json: expected sha256 \w{12} as recorded, found"):
        sign_run(run, keys[0])
    assert not run.signature.exists()


def test_what_is_no_key_is_one_sentence(run: RunFolder, keys: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    contents = {
        b"": "found something else",
        b"\0" * 100_000: "found something else",
        keys[1].read_bytes(): "found something else",
        private_pem(ec.generate_private_key(ec.SECP256R1())): r"found a key of another kind \(ECPrivateKey\)",
        private_pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"secret")): "one with a password",
    }
    for content, found in contents.items():
        wrong.write_bytes(content)
        with pytest.raises(
            UsageError, match=rf"wrong\.pem: expected an Ed25519 private key .*{found}.*openssl genpkey"
        ):
            sign_run(run, wrong)
    wrong.write_bytes(keys[0].read_bytes())
    with pytest.raises(UsageError, match=r"expected an Ed25519 public key in PEM, found something else.*-pubout"):
        check_run(run, wrong)
    with pytest.raises(UsageError, match=r"nowhere\.pem: expected an Ed25519 private key in PEM, found no file"):
        sign_run(run, tmp_path / "nowhere.pem")
    with pytest.raises(UsageError, match=r"run\.json: expected a file, found nothing"):
        sign_run(RunFolder(tmp_path / "no-run"), keys[0])
    assert not (tmp_path / "no-run").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_the_signature_too(run: RunFolder, keys: tuple[Path, Path]) -> None:
    sign_run(run, keys[0])
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys[1]), "-rawin"]
    done = subprocess.run(
        [*command, "-in", "run.json", "-sigfile", "run.json.sig"], cwd=run.root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout

"""The signature of a run: Ed25519 over the bytes of `run.json`, which names every file with its digest.

The file beside it holds the 64 bytes of the signature and nothing else, so that OpenSSL verifies it as well:
`openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in run.json -sigfile run.json.sig`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundation.errors import UsageError
from foundation.files import write_bytes
from foundation.lock import lock_folder
from foundation.record import read_record
from foundation.run_files import refuse_changed, why_unverified
from foundation.run_folder import RunFolder

_LARGEST_KEY_BYTES = 10_000
_SIGNATURE_BYTES = 64


def sign_run(run: RunFolder, key: Path) -> Path:
    """Sign a run's record, after every file was held against it, and return the path of the signature.

    Args:
        run: the folder.
        key: PEM file of an Ed25519 private key without a password.

    Raises:
        UsageError: the package `cryptography` is missing, the key is none, or the run is not as it was recorded.
    """
    loaded = _load_private(key)
    read_record(run)  # what is no run is no folder to lock
    with lock_folder(run.root):
        record = read_record(run)
        unverified = why_unverified(record)
        if unverified is not None:
            raise UsageError(f"{run.root}: {unverified}")
        refuse_changed(run, record)
        write_bytes(run.signature, loaded.sign(run.record.read_bytes()))
    return run.signature


def signature_fault(run: RunFolder, public_key: Path) -> str | None:
    """Return why a run's signature is not one of its record by a key, as a sentence; None where it is.

    Args:
        run: the folder.
        public_key: PEM file of an Ed25519 public key.

    Raises:
        UsageError: the package `cryptography` is missing, or the key is none.
    """
    loaded = _load_public(public_key)
    if not run.signature.is_file():
        return "run.json.sig: expected a signature of run.json, found none. Sign it: `edgeproof sign RUN --key FILE`."
    from cryptography.exceptions import InvalidSignature

    try:
        with run.signature.open("rb") as stream:
            loaded.verify(stream.read(_SIGNATURE_BYTES + 1), run.record.read_bytes())
    except InvalidSignature:
        return (
            f"run.json.sig: expected a signature of this run.json by the key of {public_key.name}, found another. "
            "Another key signed it, or one of the two files was changed since; ask whoever signed it."
        )
    return None


def _load_private(path: Path) -> Any:
    serialization, ed25519 = _cryptography()
    mend = "Make one: `openssl genpkey -algorithm ed25519 -out key.pem`."
    load = serialization.load_pem_private_key
    return _load(path, lambda content: load(content, None), ed25519.Ed25519PrivateKey, "private", mend)


def _load_public(path: Path) -> Any:
    serialization, ed25519 = _cryptography()
    mend = "Take it from the private one: `openssl pkey -in key.pem -pubout -out public.pem`."
    return _load(path, serialization.load_pem_public_key, ed25519.Ed25519PublicKey, "public", mend)


def _load(path: Path, load: Callable[[bytes], Any], kind: type, which: str, mend: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    expected = f"{path}: expected an Ed25519 {which} key in PEM"
    if not path.is_file():
        raise UsageError(f"{expected}, found no file. {mend}")
    with path.open("rb") as stream:
        content = stream.read(_LARGEST_KEY_BYTES + 1)
    try:
        key = load(content[:_LARGEST_KEY_BYTES])
    except TypeError as error:
        raise UsageError(f"{expected} without a password, found one with a password. {mend}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{expected}, found something else. {mend}") from error
    if not isinstance(key, kind):
        raise UsageError(f"{expected}, found a key of another kind ({type(key).__name__}). {mend}")
    return key


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UsageError(
            "a signature: expected the package cryptography, found none. Install it with "
            "`pip install 'edgeproof[sign]'`."
        ) from error
    return serialization, ed25519

"""The manifest as an in-toto Statement in a DSSE envelope, signed with Ed25519.

The private key comes from the environment: FEEDBACK_ASSETS_SIGNING_KEY is the path of a PEM file, or the PEM itself.
Envelope: https://github.com/secure-systems-lab/dsse; Statement: https://in-toto.io/Statement/v1.
"""

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback_assets.digests import canonical_json
from feedback_assets.errors import FeedbackError, Refused
from feedback_assets.snapshots.store import Store

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer  # pyright: ignore[reportPrivateImportUsage]

SIGNING_KEY = "FEEDBACK_ASSETS_SIGNING_KEY"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:feedback-assets:release:1"
PAYLOAD = "application/vnd.in-toto+json"
MANIFEST = "manifest.json"
ENVELOPE = "manifest.intoto.json"


def statement(manifest: bytes) -> dict[str, Any]:
    """The in-toto Statement of a release.

    Args:
        manifest: the bytes of `manifest.json`.

    Returns:
        Subjects are the manifest and every file of the release with its SHA-256; the predicate is the manifest.
    """
    value = json.loads(manifest)
    subjects = [(MANIFEST, hashlib.sha256(manifest).hexdigest())]
    subjects += [(file["path"], file["digest"]) for file in value["circumstances"]["files"]]
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": found}} for name, found in subjects],
        "predicateType": PREDICATE,
        "predicate": value,
    }


def sign(manifest: bytes, key: str | None = None) -> dict[str, Any]:
    """The DSSE envelope of a release's Statement; without a key it has no signatures.

    Args:
        manifest: the bytes of `manifest.json`.
        key: an Ed25519 private key, as PEM or the path of a PEM file.

    Raises:
        FeedbackError: the key cannot be used.
    """
    from securesystemslib.dsse import Envelope

    envelope = Envelope(canonical_json(statement(manifest)), PAYLOAD, {})
    if key is not None:
        envelope.sign(_signer(key))
    return envelope.to_dict()


def check(envelope: Mapping[str, Any], public_keys: Iterable[str]) -> dict[str, Any]:
    """The Statement in an envelope, once one of the keys has verified its signature.

    Args:
        envelope: as `sign` gave it.
        public_keys: Ed25519 public keys, each as PEM or the path of a PEM file.

    Raises:
        FeedbackError: this is no envelope of a release, or a key cannot be read.
        Refused: no signature on it is by one of the keys, or what was signed was changed.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    keys = [public_key(key) for key in public_keys]
    if not keys:
        raise FeedbackError("no public key to check the signature with; name a PEM file")
    try:
        opened = Envelope.from_dict(copy.deepcopy(dict(envelope)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FeedbackError(f"not a DSSE envelope: {type(error).__name__}: {error}") from None
    if not opened.signatures:
        raise Refused("the envelope is not signed")
    try:
        opened.verify(keys, 1)
    except VerificationError:
        known = ", ".join(keyid[:16] for keyid in opened.signatures)
        raise Refused(
            f"the signature does not verify: it says key {known}, asked for was {', '.join(k.keyid[:16] for k in keys)}"
            "; the envelope was changed, or another key signed it"
        ) from None
    return _statement(opened.payload, opened.payload_type)


def unsigned(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The Statement in an envelope, whoever signed it.

    Raises:
        FeedbackError: this is no envelope of a release.
    """
    from base64 import b64decode

    try:
        return _statement(b64decode(envelope["payload"], validate=True), envelope["payloadType"])
    except (KeyError, TypeError, ValueError) as error:
        raise FeedbackError(f"not a DSSE envelope: {type(error).__name__}: {error}") from None


def signing_key() -> str | None:
    """The key that the environment names, or None.

    Raises:
        FeedbackError: it cannot be used.
    """
    key = os.environ.get(SIGNING_KEY) or None
    if key is not None:
        _signer(key)
    return key


def attest(store: Store, folder: str) -> tuple[dict[str, Any], bool]:
    """The envelope of the release in `folder` of a store, and whether it lies signed beside the manifest.

    It is signed once, when the environment names a key.

    Raises:
        FeedbackError: the key cannot be used, or another one has signed the release.
    """
    key = signing_key()
    place = f"{folder}/{ENVELOPE}"
    if key is None and store.exists(place):
        return json.loads(store.get(place)), True
    made = sign(store.get(f"{folder}/{MANIFEST}"), key)
    if key is not None and not store.put(place, canonical_json(made)) and json.loads(store.get(place)) != made:
        raise FeedbackError(f"{store.uri(place)}: signed with another key already; check it with that one")
    return made, key is not None


def _statement(payload: bytes, payload_type: str) -> dict[str, Any]:
    value = json.loads(payload) if payload_type == PAYLOAD else None
    if not isinstance(value, dict) or value.get("predicateType") != PREDICATE:
        raise FeedbackError("the envelope holds no Statement of a release")
    return value


def _signer(key: str) -> "Signer":
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]

    data, where = _pem(key, SIGNING_KEY)
    try:
        loaded = load_pem_private_key(data, password=None)
    except (TypeError, ValueError) as error:
        raise FeedbackError(f"{where}: not a private key in PEM without a password: {_line(error)}") from None
    _only_ed25519(loaded, where)
    return CryptoSigner(loaded)


def public_key(key: str) -> "Key":
    """An Ed25519 key from PEM, or from the path of a PEM file.

    Raises:
        FeedbackError: it is none.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey  # pyright: ignore[reportPrivateImportUsage]

    data, where = _pem(key, "public key")
    try:
        loaded = load_pem_public_key(data)
    except ValueError as error:
        raise FeedbackError(f"{where}: not a public key in PEM: {_line(error)}") from None
    _only_ed25519(loaded, where)
    return SSlibKey.from_crypto(loaded)


def _pem(key: str, what: str) -> tuple[bytes, str]:
    if "-----BEGIN" in key:
        return key.encode(), what
    try:
        return Path(key).read_bytes(), key
    except OSError as error:
        raise FeedbackError(f"{what}: {error.strerror}: neither a PEM nor the path of one") from None


def _only_ed25519(key: Any, where: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    if not isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        raise FeedbackError(f"{where}: not an Ed25519 key; `openssl genpkey -algorithm ed25519` makes one")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

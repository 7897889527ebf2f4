"""The manifest as a signed in-toto Statement: what was signed is what is believed."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from feedback_assets.errors import FeedbackError, Refused
from feedback_assets.materialize.project import Project
from feedback_assets.provenance.release import find
from feedback_assets.provenance.release import release as make
from feedback_assets.provenance.signature import PAYLOAD, SIGNING_KEY, attest, check, sign, unsigned
from feedback_assets.snapshots.store import LocalStore

MANIFEST = json.dumps(
    {"id": "0" * 64, "content": {}, "circumstances": {"files": [{"path": "a.parquet", "digest": "1" * 64}]}}
).encode()


def pair(seed: int = 1) -> tuple[str, str]:
    """A private and its public key, as PEM."""
    key: Any = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return private(key), key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_what_one_key_signed_its_public_key_verifies_and_no_other() -> None:
    mine, public = pair()
    envelope = sign(MANIFEST, mine)
    statement = check(envelope, [pair(2)[1], public])
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicate"] == json.loads(MANIFEST)
    assert statement["subject"] == [
        {"name": "manifest.json", "digest": {"sha256": hashlib.sha256(MANIFEST).hexdigest()}},
        {"name": "a.parquet", "digest": {"sha256": "1" * 64}},
    ]
    assert envelope == sign(MANIFEST, mine)
    with pytest.raises(Refused, match="another key signed it"):
        check(envelope, [pair(2)[1]])


def test_the_signature_is_over_the_encoding_that_dsse_prescribes() -> None:
    mine, _ = pair()
    envelope = sign(MANIFEST, mine)
    payload = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)
    (signature,) = envelope["signatures"]
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    key.public_key().verify(base64.b64decode(signature["sig"]), signed)


@pytest.mark.parametrize("where", ["payload", "payloadType", "sig"])
def test_one_changed_character_is_found(where: str) -> None:
    mine, public = pair()
    envelope = sign(MANIFEST, mine)
    holder = envelope["signatures"][0] if where == "sig" else envelope
    text = holder[where]
    holder[where] = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
    with pytest.raises(Refused, match="the signature does not verify"):
        check(envelope, [public])


def test_without_a_key_the_envelope_says_so_and_is_not_believed() -> None:
    envelope = sign(MANIFEST)
    assert envelope["signatures"] == []
    assert unsigned(envelope)["predicate"] == json.loads(MANIFEST)
    with pytest.raises(Refused, match="the envelope is not signed"):
        check(envelope, [pair()[1]])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nowhere.pem", "FEEDBACK_ASSETS_SIGNING_KEY: No such file or directory: neither a PEM nor the path of one"),
        (
            "-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----",
            "FEEDBACK_ASSETS_SIGNING_KEY: not a private key",
        ),
        (private(generate_private_key(65537, 2048)), "FEEDBACK_ASSETS_SIGNING_KEY: not an Ed25519 key"),
    ],
)
def test_a_key_that_cannot_be_used_is_one_line(key: str, said: str) -> None:
    with pytest.raises(FeedbackError) as error:
        sign(MANIFEST, key)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("envelope", [{}, {"payload": "x", "payloadType": PAYLOAD, "signatures": "no"}])
def test_what_is_no_envelope_is_one_line(envelope: dict[str, Any]) -> None:
    with pytest.raises(FeedbackError, match="not a DSSE envelope"):
        check(envelope, [pair()[1]])


def test_a_release_is_signed_beside_its_manifest_and_answers_from_its_envelope(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(sample / "store")
    release = find(store, "latest")
    folder = f"releases/{release.id[:16]}"
    assert attest(store, folder)[1] is False
    key = tmp_path / "key.pem"
    key.write_text(pair()[0])
    monkeypatch.setenv(SIGNING_KEY, str(key))
    envelope, signed = attest(store, folder)
    assert signed
    assert attest(store, folder) == (envelope, True)
    path = store.path(f"{folder}/manifest.intoto.json")
    assert check(json.loads(path.read_bytes()), [pair()[1]])["predicate"]["id"] == release.id
    assert find(LocalStore(tmp_path), str(path)) == release
    monkeypatch.setenv(SIGNING_KEY, pair(2)[0])
    with pytest.raises(FeedbackError, match="signed with another key already"):
        attest(store, folder)


def test_a_release_is_signed_as_it_is_made(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.open(sample / "policy.yaml", sample / "store")
    monkeypatch.setenv(SIGNING_KEY, "nowhere.pem")
    with pytest.raises(FeedbackError, match=SIGNING_KEY):
        make(project, run_id="a test")
    assert project.commits.of_run("training_set", "a test") is None
    monkeypatch.setenv(SIGNING_KEY, pair()[0])
    _, made = make(project, run_id="a test")
    assert made is not None
    (path,) = (sample / "store" / "releases").glob("*/manifest.intoto.json")
    assert check(json.loads(path.read_bytes()), [pair()[1]])["predicate"]["id"] == made.id
    assert pair()[0].splitlines()[1] not in path.with_name("manifest.json").read_text()

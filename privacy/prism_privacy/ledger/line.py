"""The canonical form of a ledger line, its hash and its signature."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from prism_privacy.errors import InvalidParameter
from prism_privacy.ledger.key import LedgerKey, signature_is_valid

VERSION: Final = "prism-privacy/v1/ledger"
ZERO_HASH: Final = "0" * 64
CHAIN_FIELDS: Final = frozenset({"version", "index", "previous"})
"""What a line's body holds beside its entry or header."""


def encode_line(key: LedgerKey, body: dict[str, Any], *, index: int, previous: str) -> bytes:
    """One signed line, without its newline."""
    whole = body | {"version": VERSION, "index": index, "previous": previous}
    return _signed(key, "line", whole)


def decode_line(line: bytes, public_key: bytes) -> dict[str, Any]:
    """The body of a line whose form and signature are right.

    Raises:
        InvalidParameter: what is wrong, for a caller that knows which line it is.
    """
    return _checked(line, "line", public_key)


def encode_head(key: LedgerKey, lines: int, last: str) -> bytes:
    """The content of a head file."""
    return _signed(key, "head", {"version": VERSION, "lines": lines, "hash": last}) + b"\n"


def decode_head(content: bytes, public_key: bytes) -> tuple[int, str]:
    """Number of lines and hash of the last one, from a head file; raises like :func:`decode_line`."""
    body = _checked(content.removesuffix(b"\n"), "head", public_key)
    lines, last = body.get("lines"), body.get("hash")
    if not isinstance(lines, int) or not isinstance(last, str):
        raise InvalidParameter("it does not say how many lines there are")
    return lines, last


def line_hash(line: bytes) -> str:
    """SHA-256 of a line, newline left out, in hexadecimal."""
    return hashlib.sha256(f"{VERSION}/hash\0".encode() + line).hexdigest()


def parse(line: bytes) -> dict[str, Any]:
    """The object on a line, signature unchecked.

    Raises:
        InvalidParameter: it is not the canonical form of a signed object.
    """
    try:
        whole = json.loads(line)
        if _canonical(whole) != line:
            raise ValueError
        body, signature = whole["body"], whole["signature"]
        if set(whole) != {"body", "signature"} or not isinstance(body, dict):
            raise ValueError
        bytes.fromhex(signature)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidParameter("not a signed entry in canonical form") from None
    return {"body": body, "signature": signature}


def _signed(key: LedgerKey, usage: str, body: dict[str, Any]) -> bytes:
    signature = key.sign(_message(usage, body))
    return _canonical({"body": body, "signature": signature.hex()})


def _checked(line: bytes, usage: str, public_key: bytes) -> dict[str, Any]:
    whole = parse(line)
    body: dict[str, Any] = whole["body"]
    if not signature_is_valid(public_key, bytes.fromhex(whole["signature"]), _message(usage, body)):
        raise InvalidParameter(f"the signature is not that of key {public_key.hex()[:16]}...")
    return body


def _message(usage: str, body: dict[str, Any]) -> bytes:
    return f"{VERSION}/{usage}\0".encode() + _canonical(body)


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")

"""What only this server knows, kept in its output folder."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from t2i_tools.files import replacing

LENGTH = 32


def read_secret(path: Path) -> bytes:
    """The secret in this file, which is made where it is missing and which no other user of the machine can read."""
    if not path.exists():
        with replacing(path) as part, os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(secrets.token_bytes(LENGTH))
    return path.read_bytes()


def keyed(secret: bytes, text: str) -> str:
    """16 hexadecimal digits of a text that nobody can work out without the secret (HMAC-SHA-256)."""
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:16]

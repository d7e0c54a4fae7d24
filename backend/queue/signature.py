"""Signatures of jobs: who can write to the queue, but doesn't know the webhooks' secret, can't make a job that runs.

Each job carries an HMAC-SHA256 of its id and of its payload as it is stored. The key is derived from
RIS_WEBHOOK_SECRET, which all parts of an installation share and the queue never holds. What RQ notes on a job while it
waits and runs (status, times, tries) can't be signed: of that, allow_list.py believes nothing that leads anywhere.
"""

import hashlib
import hmac

from backend.settings import Settings

_PURPOSE = b"ris-studio: jobs, version 1"


class Signer:
    """Signs jobs, and recognises its own signatures."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), _PURPOSE, hashlib.sha256)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Signer":
        """That of an installation. Raises SettingsError if RIS_WEBHOOK_SECRET isn't set."""
        return cls(settings.secret("webhook_secret"))

    def sign(self, job_id: str, payload: bytes) -> bytes:
        """The signature of a job, 64 hexadecimal digits."""
        # No id holds a zero byte, so that no other id and payload are the same bytes.
        return hmac.new(self._key, b"\0".join([job_id.encode(), payload]), hashlib.sha256).hexdigest().encode()

    def is_ours(self, job_id: str, payload: bytes, signature: bytes) -> bool:
        """Whether the signature is right; takes the same time for each wrong one."""
        return hmac.compare_digest(self.sign(job_id, payload), signature)

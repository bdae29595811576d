"""Whom a nightly tells of a change, as the configuration names them."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from foundation.settings import Settings

SIGNATURE_HEADER = "X-Edgeproof-Signature-256"


class WebhookSettings(Settings):
    """An address that takes notices as JSON by POST."""

    url: str = Field(description="https://…; http only to this machine")
    secret_env: str | None = Field(
        None, description=f"environment variable with the secret of the HMAC-SHA256 in {SIGNATURE_HEADER}"
    )
    timeout_s: float = Field(10.0, gt=0.0, le=300.0, description="after so long it counts as not delivered")

    @field_validator("url")
    @classmethod
    def _reachable(cls, value: str) -> str:
        parts = urlsplit(value)
        here = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and here)):
            raise ValueError("expected an address that begins with https:// (http:// only to this machine)")
        if parts.username or parts.password:
            raise ValueError("expected an address without a name and a password; sign with secret_env")
        return value


class NoticeSettings(Settings):
    """Who is told when the outcome of a night is another one than the night's before."""

    command: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="program and arguments; it gets the notice as JSON on its standard input, without a shell"
    )
    command_timeout_s: float = Field(30.0, gt=0.0, le=3600.0, description="after so long it is ended")
    webhook: WebhookSettings | None = Field(None, description="an address that takes the notice by POST")

    @model_validator(mode="after")
    def _somebody_is_told(self) -> Self:
        if not self.command and self.webhook is None:
            raise ValueError("expected a command or a webhook, found neither; leave `notices` out for none")
        return self

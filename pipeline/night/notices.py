"""Who is told when a nightly changes: a command, a webhook; once per change, not per night.

Nothing is sent unless the configuration names where to. A notice that could not be delivered is tried again after the
next night, and costs the night nothing but a sentence.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import EdgeproofError, UsageError
from foundation.files import JSON, sha256_of_json
from foundation.lock import lock_folder
from foundation.sealed_files import refuse_broken_seal, write_sealed
from pipeline.night.notice_settings import SIGNATURE_HEADER, NoticeSettings, WebhookSettings

if TYPE_CHECKING:
    from pipeline.night.nightly import NightlyResult

NOTIFIED_NAME = "notified.json"
FORMAT_VERSION = 1


def notice_of(name: str, result: NightlyResult) -> dict[str, JSON]:
    """Return what is told of a night: its outcome, what is red and why; no path, no host, no image.

    Args:
        name: of the configuration.
        result: of the night.
    """
    comparison = result.comparison
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "run": result.run.root.name,
        "exit_code": int(result.exit_code),
        "gates_exit_code": int(result.gates_exit_code),
        "summary": comparison.summary if comparison else None,
        "red": red_rows(result),
        "causes": [cause.sentence for cause in result.causes],
    }


def notice_of_error(name: str, error: EdgeproofError) -> dict[str, JSON]:
    """Return what is told of a night that an error ended.

    Args:
        name: of the configuration.
        error: what ended it.
    """
    own: dict[str, JSON] = {"run": None, "exit_code": int(error.exit_code), "gates_exit_code": None}
    return {"format_version": FORMAT_VERSION, "name": name, **own, "summary": str(error), "red": [], "causes": []}


def red_rows(result: NightlyResult) -> list[JSON]:
    """Return the rows of the comparison that make a night red, "METRIC/VARIANT", each once, sorted."""
    differences = result.comparison.differences if result.comparison else ()
    return sorted({f"{one.metric}/{one.variant}" for one in differences if one.status in ("regressed", "missing")})


def notify(settings: NoticeSettings, root: Path, notice: Mapping[str, JSON]) -> tuple[str, ...]:
    """Tell whom the settings name of a night that came out otherwise than the last one that they were told of.

    The first night of all is told only if it is not green. Each receiver is remembered by itself, so that one which
    failed is tried again and another is not told twice.

    Args:
        settings: who is told.
        root: the nightly's folder.
        notice: of `notice_of`.

    Returns:
        Who could not be told, and why, one sentence each.
    """
    with lock_folder(root):
        return _notify(settings, root / NOTIFIED_NAME, notice)


def _notify(settings: NoticeSettings, path: Path, notice: Mapping[str, JSON]) -> tuple[str, ...]:
    state = sha256_of_json({key: notice[key] for key in ("exit_code", "red")})
    quiet = sha256_of_json({"exit_code": 0, "red": []})
    told = _read(path)
    problems = []
    body = json.dumps(dict(notice), sort_keys=True, ensure_ascii=False).encode()
    receivers = {"command": settings.command, "webhook": settings.webhook}
    for receiver in [name for name, there in receivers.items() if there]:
        if told.get(receiver, quiet) == state:
            continue
        problem = _run(settings, body) if receiver == "command" else _post(settings.webhook, body)
        if problem is None:
            told[receiver] = state
            write_sealed(path, {"format_version": FORMAT_VERSION, "told": dict(told)})
        else:
            problems.append(f"The {receiver} of `nightly.notices` could not be told: {problem}. It is tried again.")
    return tuple(problems)


def _read(path: Path) -> dict[str, str]:
    """Return what each receiver was told last; nothing where the file is damaged: better twice than never."""
    try:
        refuse_broken_seal(path, "Delete it.")
        told = json.loads(path.read_bytes())["told"]
        return {str(receiver): str(state) for receiver, state in told.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, UsageError):
        return {}


def _run(settings: NoticeSettings, body: bytes) -> str | None:
    try:
        ended = subprocess.run(
            settings.command, input=body, capture_output=True, timeout=settings.command_timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {settings.command_timeout_s:g} s"
    except OSError as error:
        return f"it could not be started ({error.strerror})"
    return None if ended.returncode == 0 else f"it ended with exit code {ended.returncode}"


def _post(webhook: WebhookSettings | None, body: bytes) -> str | None:
    assert webhook is not None
    headers = {"Content-Type": "application/json"}
    if webhook.secret_env is not None:
        secret = os.environ.get(webhook.secret_env)
        if not secret:
            return f"the environment variable {webhook.secret_env} of its secret is not set"
        headers[SIGNATURE_HEADER] = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    answers: list[str | None] = []
    # A thread that is left behind: the timeout of a socket starts anew with every byte that drips.
    sender = threading.Thread(target=lambda: answers.append(_send(webhook, body, headers)), daemon=True)
    sender.start()
    sender.join(webhook.timeout_s)
    return answers[0] if answers else _too_slow(webhook)


def _too_slow(webhook: WebhookSettings) -> str:
    return f"it did not answer within {webhook.timeout_s:g} s"


def _send(webhook: WebhookSettings, body: bytes, headers: Mapping[str, str]) -> str | None:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None  # a notice goes where the configuration says

    request = Request(webhook.url, data=body, headers=dict(headers), method="POST")
    try:
        with build_opener(Stay, ProxyHandler()).open(request, timeout=webhook.timeout_s) as answer:
            answer.read(64)
    except HTTPError as error:
        return f"it answered with status {error.code}"
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return _too_slow(webhook) if isinstance(reason, TimeoutError) else f"it could not be reached ({reason})"
    return None

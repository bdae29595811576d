"""Show the kit's page to this machine, or to the devices of the local network. Python alone.

Only `index.html` is served, and only the one that was bundled. Behind https, and on this machine itself, browsers let
the page use several threads and WebGPU, for which it needs the two headers about other origins.
"""

from __future__ import annotations

import argparse
import hashlib
import secrets
import socket
import ssl
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .files import PAGE, Kit, KitError, checked, own_kit

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def main(arguments: Sequence[str] | None = None, kit: Kit | None = None) -> int:
    """Run the command line until it is interrupted, and return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        server, address = opened(given.kit or kit or own_kit(__file__), given.lan, given.port, given.certificate)
    except (KitError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"the kit's page: {address}", flush=True)
    if given.lan and given.certificate is None:
        print("without https browsers give it one thread and no WebGPU; --certificate mends that.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


def opened(kit: Kit, lan: bool, port: int, certificate: Path | None) -> tuple[ThreadingHTTPServer, str]:
    """Return a server of a kit's page that listens already, and its address.

    On the local network the address holds a random part, so that nobody happens upon the images.

    Raises:
        KitError: the kit was changed, or has no page.
        OSError: the port is taken, or the certificate cannot be used.
    """
    if PAGE not in checked(kit):
        raise KitError(
            f"{kit.root}: expected a kit with {PAGE}, found one without: it was bundled without a browser's runtime."
        )
    page = kit.read(PAGE)
    path = f"/{secrets.token_urlsafe(9)}/" if lan else "/"
    server = ThreadingHTTPServer(("0.0.0.0" if lan else "127.0.0.1", port), _handler(page, path))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    host = _own_address() if lan else "127.0.0.1"
    return server, f"{'https' if certificate else 'http'}://{host}:{server.server_address[1]}{path}"


def _handler(page: bytes, path: str) -> type[BaseHTTPRequestHandler]:
    digest = hashlib.sha256(page).hexdigest()

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page, or with nothing."""

        server_version, sys_version, timeout = "edgeproof-kit", "", 60

        def do_GET(self) -> None:
            """Send the page."""
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            """Send what the page's answer begins with."""
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            if self.path == "/favicon.ico":
                self.send_response(204)
                self.end_headers()
                return
            if self.path not in (path, f"{path}{PAGE}"):
                self.send_error(404)
                return
            self.send_response(200)
            for name, value in {**HEADERS, "Content-Length": str(len(page)), "ETag": f'"{digest}"'}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: who asked is nobody's business."""

    return Handler


def _own_address() -> str:
    """Return this machine's address on its network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serve", description="Show the kit's page in a browser.")
    parser.add_argument("kit", nargs="?", type=lambda text: Kit(Path(text)), help="the zip, or where it was unpacked")
    parser.add_argument(
        "--lan", action="store_true", help="for other devices of the local network, not only this one"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--certificate", type=Path, help="PEM file of a certificate and its key, for https")
    return parser

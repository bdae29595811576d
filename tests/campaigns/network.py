"""Trace a run's system calls: no socket has an address outside the machine, and nothing is written elsewhere.

Allowed are the run folder, the temporary folder, `/dev`, `/proc`, the caches of Matplotlib (fonts) and PyTorch, and
the host's locks in our own. A socket without an address is allowed too: in Neural Compressor's environment, libuuid
asks the kernel for the network card's number through one. Without strace, the run is made in a network namespace that
has nothing in it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from campaign import Tally, tell
from small_commands import CONFIGURATION, TUNED
from whole_process import COMMAND, environment

_ADDRESS = re.compile(r"\b(?:connect|bind|sendto|sendmsg|sendmmsg)\(.*sa_family=(AF_INET6?|AF_PACKET)")
_STREAM = re.compile(r"\bsocket\((AF_INET6?|AF_PACKET), SOCK_(?!DGRAM)")
_WRITING = re.compile(r"\b(?:open|openat|creat|mkdir|mkdirat|rename\w*|unlink\w*|link\w*|symlink\w*)\((.*)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CALLS = (
    "socket,connect,bind,sendto,sendmsg,sendmmsg,chdir,"
    "open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,link,symlink"
)
_CACHES = (".cache", ".config", "torchinductor_")
_HARMLESS = ("/dev/", "/proc/")


def network(scratch: Path, budget: int) -> list[Tally]:
    """Trace a run with every kind of variant, and with a large budget the whole demonstration too."""
    tiny = CONFIGURATION["variants"] | {"weights": {"method": "weight_only"}}
    if budget and budget <= 10:
        return [_traced(scratch, "run", tiny)]
    tiny |= {"tuned": TUNED, "inc": {"method": "neural_compressor", "mode": "static", "images": 4}}
    return [
        _traced(scratch, "run", tiny | {"fused": {"method": "graph_optimized"}}),
        _traced(scratch, "demo", None),
    ]


def _traced(scratch: Path, name: str, variants: Mapping[str, object] | None) -> Tally:
    """Trace a run of these variants, or the demonstration."""
    folder, temporary, home = (scratch / f"traced-{name}{part}" for part in ("", "-tmp", "-home"))
    for path in (folder, temporary, home):
        path.mkdir()
    command = [*COMMAND, "demo", "--run", "runs/demo", "--quiet"]
    if variants is not None:
        (folder / "tiny.json").write_text(json.dumps({**CONFIGURATION, "variants": variants}))
        command = [*COMMAND, "run", "tiny.json", "--quiet"]
    variables = environment(
        TMPDIR=str(temporary), HOME=str(home), XDG_CACHE_HOME=str(home / ".cache"), PYTHONDONTWRITEBYTECODE="1"
    )
    if shutil.which("strace") is None:
        return _without_strace(name, command, folder, variables)
    trace = scratch / f"{name}.trace"
    tracing = ["strace", "-f", "-y", "-qq", "-s", "300", "-e", f"trace={_CALLS}", "-o", str(trace)]
    ended = subprocess.run(
        [*tracing, *command], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    finds: list[str] = []
    if ended.returncode not in (0, 3):
        tell(finds, f"network, {name}: it ended with {ended.returncode}: {ended.stderr[-300:]}")
    allowed = (folder / "runs", temporary, home / ".cache", home / ".config")
    calls, complaints = 0, set[str]()
    with trace.open(errors="replace") as lines:
        for line in lines:
            calls += 1
            complaints.update(_complaints(line, allowed))
    trace.unlink()
    for find in sorted(complaints):
        tell(finds, f"network, {name}: {find}")
    for path in sorted(path.name for path in folder.iterdir() if path.name not in ("runs", "tiny.json")):
        tell(finds, f"network, {name}: {path} was left in the working directory")
    for place in (temporary, home):
        for path in sorted(place.iterdir()):
            if not path.name.startswith(_CACHES):
                tell(finds, f"network, {name}: {path.relative_to(scratch)} was left behind")
    return Tally(name, "strace", calls, 1, tuple(finds))


def _complaints(line: str, allowed: tuple[Path, ...]) -> list[str]:
    """Return what one traced call does that it should not."""
    if found := _ADDRESS.search(line) or _STREAM.search(line):
        return [f"a socket of {found[1]}: {line[:200]}"]
    call = _WRITING.search(line)
    if call is None or " = -1 " in line:
        return []
    if "open" in line.split("(")[0] and not re.search(r"O_(WRONLY|RDWR|CREAT)", line):
        return []
    if "O_TMPFILE" in line:
        return []
    base = re.match(r"(?:AT_FDCWD|\d+)<([^>]*)>", call[1])
    # A bare name without a folder's descriptor lies where the process works; what stays there is seen afterwards.
    names = (Path(name) for name in _QUOTED.findall(call[1]))
    paths = [
        Path(base[1]) / name if base else name for name in names if base or name.is_absolute() or ".." in name.parts
    ]
    outside = [
        str(path)
        for path in paths
        if not str(path).startswith(_HARMLESS) and not any(path.is_relative_to(place) for place in allowed)
    ]
    return [f"it writes to {path}" for path in outside]


def _without_strace(name: str, command: list[str], folder: Path, variables: dict[str, str]) -> Tally:
    """Run without any network device."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        print("network: skipped, there is no strace and no right to a network namespace of one's own")
        return Tally(name, "strace", 0, 0, ())
    ended = subprocess.run(
        ["unshare", "-n", *command], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    finds = (
        () if ended.returncode in (0, 3) else (f"network: it ended with {ended.returncode}: {ended.stderr[-300:]}",)
    )
    return Tally(name, "no network", 0, 1, finds)

"""The nights of examples/nightly as their container runs them: no network, no name, nothing writable but two folders.

`bwrap` makes the container's paths around the Python of these tests; the file that builds the image and the one that
starts it say how it is run.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_run import ROOT, VALUES

FOLDER = ROOT / "examples" / "nightly"
OWN = ("proc", "dev", "tmp", "sys", "run", "runs", "images", "configurations", "lost+found")
CONFINED = (
    "--unshare-all",
    "--die-with-parent",
    "--cap-drop",
    "ALL",
    "--clearenv",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
)


def can_confine():
    program = shutil.which("bwrap")
    probe = [program or "false", "--ro-bind", "/", "/", "--unshare-all", "--uid", "10001", "true"]
    return program is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def pod():
    job, _ = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def environment_of_the_image():
    (line,) = re.findall(r"^ENV (.*)$", (FOLDER / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)
    return dict(one.split("=", 1) for one in shlex.split(line)) | {"PATH": "/usr/bin:/bin"}


def seen():
    """Return what makes this system visible, read-only, below a root that nothing can be written to."""
    options = []
    for path in Path("/").iterdir():
        if path.name in OWN:
            continue
        options += ["--symlink", str(path.readlink()), str(path)] if path.is_symlink() else ["--ro-bind", *[path] * 2]
    hidden = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), ROOT}
    for path in [*hidden, *(Path(one).resolve() for one in sys.path if one)]:
        if path.exists() and path.is_relative_to("/tmp"):
            options += ["--ro-bind", path, path]
    return options


def confined(scratch, *arguments):
    """Do an `edgeproof` command as the pod does: its user and group, its folders, its environment."""
    security = pod()["securityContext"]
    user = ("--uid", str(security["runAsUser"]), "--gid", str(security["runAsGroup"]))
    (scratch / "tmp").mkdir(exist_ok=True)
    folders = ["--bind", scratch / "tmp", "/tmp", "--bind", scratch / "runs", "/runs"]
    folders += ["--ro-bind", scratch / "configurations", "/configurations", "--dir", "/images"]
    set_to = {**environment_of_the_image(), "PYTHONPATH": str(ROOT)}
    variables = [part for name, value in set_to.items() for part in ("--setenv", name, value)]
    own = [*CONFINED, *user, *folders, *seen(), "--remount-ro", "/", *variables, "--chdir", "/runs"]
    program = [sys.executable, "-m", "pipeline", *arguments]
    command = [str(part) for part in ("bwrap", *own, *program)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.long
@pytest.mark.skipif(not can_confine(), reason="bwrap is not installed, or may not make namespaces here")
def test_the_nights_of_the_manifest_need_no_network_no_name_and_no_other_folder(tmp_path):
    for name in ("runs", "configurations"):
        (tmp_path / name).mkdir()
    arguments = pod()["containers"][0]["args"]
    paths = [Path(one) for one in arguments if one.startswith("/configurations/")]
    for path in paths:
        values = {**VALUES, "name": path.stem, "nightly": {"quiet_wait_minutes": 0.0}}
        (tmp_path / "configurations" / path.name).write_text(yaml.safe_dump(values))
    ended = confined(tmp_path, *arguments)
    assert (ended.returncode, len(paths)) == (0, 2), ended.stderr[-4000:]
    said = ended.stderr.lower()
    assert not [word for word in ("traceback", "warning", "permission denied", "read-only") if word in said], said
    for path in paths:
        history = (tmp_path / "runs" / "nightly" / path.stem / "history.jsonl").read_text().splitlines()
        assert json.loads(history[-1])["exit_code"] == 0
    assert (tmp_path / "runs" / "nightly" / "_overview" / "index.html").is_file()
    written = {path.name for path in (tmp_path / "runs").iterdir()}
    assert written == {"nightly"}

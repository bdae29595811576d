from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "nightly"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
COMMANDS = {
    "demo", "init", "run", "train", "export", "quantize", "validate", "report", "nightly", "accept", "compare",
    "doctor",
}  # fmt: skip
COMMAND_LINE = re.compile(r"(?:^ *(?:- )?|run: |/bin/|`)edgeproof\"? (\S+)", re.MULTILINE)


def commands_in(path: Path) -> list[str]:
    return [found.strip("`") for found in COMMAND_LINE.findall(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_command_line_is_one_of_the_programs(path: Path) -> None:
    assert set(commands_in(path)) <= COMMANDS


def test_each_way_of_starting_it_starts_the_nightly() -> None:
    found = {path.name: commands_in(path) for path in FILES}
    assert found == {
        "README.md": ["nightly", "accept", "accept"],
        "crontab": ["nightly"],
        "edgeproof-nightly.service": ["nightly"],
        "edgeproof-nightly.timer": [],
        "github-workflow.yml": ["doctor", "nightly", "accept"],
        "gitlab-ci.yml": ["doctor", "nightly"],
        "ray-nightly.sh": ["nightly"],
        "kubernetes.yaml": [],  # the image's entry point is the program: see below
        "Containerfile": [],
    }


def test_every_own_module_that_is_run_has_a_main() -> None:
    named = {name for path in FILES for name in re.findall(r"python -m ([\w.]+)", path.read_text(encoding="utf-8"))}
    own = {name for name in named if (ROOT / name.partition(".")[0]).is_dir()}
    assert own
    for name in own:
        module = ROOT.joinpath(*name.split("."))
        runnable = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        assert runnable.is_file(), name
        assert runnable.name == "__main__.py" or '__name__ == "__main__"' in runnable.read_text("utf-8"), name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_valid(tmp_path: Path) -> None:
    for name in ("edgeproof-nightly.service", "edgeproof-nightly.timer"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(
            text.replace("/opt/edgeproof/.venv/bin/edgeproof", "/bin/true"), encoding="utf-8"
        )
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=60
    )
    told = [line for line in verified.stderr.splitlines() if "edgeproof" in line]
    assert (verified.returncode, told) == (0, [])


def test_workflow_keeps_report_and_history_of_a_red_night() -> None:
    workflow = yaml.safe_load((FOLDER / "github-workflow.yml").read_text(encoding="utf-8"))
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as a boolean
    assert triggers["schedule"] == [{"cron": "0 2 * * *"}]
    steps = workflow["jobs"]["nightly"]["steps"]
    order = [step.get("name", step.get("uses")) for step in steps]
    after = steps[order.index("Run and compare") + 1 :]
    always = [step["name"] for step in after if step["if"] == "${{ always() }}"]
    assert always == ["Summary", "Report", "Keep the history and the accepted run"]
    actions = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z/-]+@v\d+", action) for action in actions)
    restored, saved = (step["with"] for step in steps if "actions/cache" in step.get("uses", ""))
    assert (restored["path"], restored["key"]) == (saved["path"], saved["key"])
    assert saved["key"].startswith(restored["restore-keys"])
    assert "$GITHUB_STEP_SUMMARY" in next(step["run"] for step in after if step["name"] == "Summary")


def test_crontab_has_one_line_that_prints_only_when_red(tmp_path: Path) -> None:
    lines = (FOLDER / "crontab").read_text(encoding="utf-8").splitlines()
    (job,) = (line for line in lines if re.match(r"[\d*]", line))
    *schedule, command = job.split(maxsplit=5)
    assert schedule == ["0", "2", "*", "*", "*"]
    assert "%" not in command  # cron would read it as a newline

    program = tmp_path / "edgeproof"
    command = command.replace("/var/lib/edgeproof", str(tmp_path))
    command = command.replace("/opt/edgeproof/.venv/bin/edgeproof", str(program))
    for code, printed in ((0, ""), (3, "exit code 3\nwhat it said\n")):
        program.write_text(f"#!/bin/sh\necho what it said\nexit {code}\n")
        program.chmod(0o755)
        told = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
        assert told.stdout == printed


def test_the_host_that_takes_times_joins_ray_without_a_cpu_for_tasks(tmp_path: Path) -> None:
    said = tmp_path / "said.txt"
    (tmp_path / "bin").mkdir()
    for name in ("ray", "edgeproof", "pgrep"):
        program = tmp_path / "bin" / name
        program.write_text(
            f"#!/bin/sh\necho {name} $* >> {said}\nexit {3 if name == 'edgeproof' else int(name == 'pgrep')}\n"
        )
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "VENV": str(tmp_path)}
    script = ["/bin/sh", FOLDER / "ray-nightly.sh", "head:6379", "one.yaml", "two.yaml"]
    assert subprocess.run(script, env=environment, check=False).returncode == 3
    assert said.read_text().splitlines()[1:] == [
        "ray start --address=head:6379 --num-cpus=0",
        "edgeproof nightly one.yaml two.yaml --ray head:6379",
    ]


def test_readme_is_short_and_names_every_file() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 55
    for path in FILES:
        assert path.name in text or path.name == "README.md", path.name


def test_the_image_and_its_job_agree_and_run_without_rights() -> None:
    lines = (FOLDER / "Containerfile").read_text(encoding="utf-8").splitlines()
    assert 'ENTRYPOINT ["edgeproof"]' in lines
    (user,) = (line.split()[1] for line in lines if line.startswith("USER "))
    job, policy = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["jobTemplate"]["spec"]["template"]
    security = pod["spec"]["securityContext"]
    assert user == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert security["runAsNonRoot"] is True
    (container,) = pod["spec"]["containers"]
    assert container["args"][0] == "nightly"
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"] == container["resources"]["limits"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/runs", "/tmp"}
    assert policy["spec"]["podSelector"]["matchLabels"] == pod["metadata"]["labels"]
    assert (policy["spec"]["policyTypes"], policy["spec"].get("egress")) == (["Ingress", "Egress"], None)


def test_gitlab_keeps_what_a_red_night_left() -> None:
    (job,) = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text(encoding="utf-8")).values()
    assert (job["artifacts"]["when"], job["cache"]["when"]) == ("always", "always")
    assert job["script"] == ['edgeproof nightly "$CONFIG"']
    assert job["artifacts"]["reports"]["junit"] == "runs/nightly/_overview/junit.xml"

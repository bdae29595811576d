from __future__ import annotations

from pathlib import Path

import pytest

from foundation.versions import commit_of

SHA = "5f1d" * 10


@pytest.mark.parametrize("form", ["detached", "loose", "packed", "worktree"])
def test_the_commit_is_read_from_every_form_of_a_checkout(tmp_path: Path, form: str) -> None:
    git = tmp_path / ".git"
    git.mkdir()
    (git / "HEAD").write_text(f"{SHA}\n" if form == "detached" else "ref: refs/heads/main\n")
    if form in ("loose", "worktree"):
        (git / "refs" / "heads").mkdir(parents=True)
        (git / "refs" / "heads" / "main").write_text(f"{SHA}\n")
    if form == "packed":
        (git / "packed-refs").write_text(f"# pack-refs\n{'0' * 40} refs/heads/other\n{SHA} refs/heads/main\n")
    folder = tmp_path / "below" / "it"
    if form == "worktree":
        own = git / "worktrees" / "w"
        own.mkdir(parents=True)
        (own / "HEAD").write_text("ref: refs/heads/main\n")
        (own / "commondir").write_text("../..\n")
        folder = tmp_path / "w"
        folder.mkdir()
        (folder / ".git").write_text(f"gitdir: {own}\n")
    folder.mkdir(parents=True, exist_ok=True)
    assert commit_of(folder) == SHA


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none\n", "<script>", "ref: ../../../../etc/passwd\n"])
def test_what_is_no_commit_is_none(tmp_path: Path, head: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert commit_of(tmp_path) is None

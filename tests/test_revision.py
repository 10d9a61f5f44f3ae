"""A daemon says which commit runs, or that it does not know."""

import shutil
import subprocess

import pytest

from monitor.revision import UNKNOWN, checked_out, revision

git = shutil.which("git")


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one commit, the commit, and how to run git in it."""
    if git is None:
        pytest.skip("there is no git")
    top = tmp_path / "top"

    def run(*words):
        named = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            [git, "-C", top, *named, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    top.mkdir()
    run("init")
    assert checked_out(top) is None, "there is no commit yet"
    run("commit", "--allow-empty", "-m", "first")
    return top, run


@pytest.mark.parametrize("then", [(), ("pack-refs", "--all"), ("checkout", "--detach")])
def test_the_commit_is_read_from_a_branch_a_packed_one_or_none(checkout, then):
    top, run = checkout
    if then:
        run(*then)
    assert checked_out(top) == run("rev-parse", "HEAD")


def test_a_linked_worktree_knows_its_own_commit(checkout, tmp_path):
    top, run = checkout
    run("worktree", "add", "-b", "other", str(tmp_path / "linked"))
    first = run("rev-parse", "HEAD")
    run("commit", "--allow-empty", "-m", "second")
    assert checked_out(tmp_path / "linked") == first
    assert checked_out(top) == run("rev-parse", "HEAD") != first


@pytest.mark.parametrize("head", [b"", b"ref: refs/heads/none", b"not a commit", b"\xff\xfe"])
def test_what_makes_no_sense_is_no_commit(tmp_path, head):
    assert checked_out(tmp_path) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_bytes(head)
    assert checked_out(tmp_path) is None


def test_what_an_image_was_told_comes_first(monkeypatch):
    monkeypatch.setenv("CASCADE_REVISION", "abc")
    assert revision() == "abc"
    monkeypatch.setattr("monitor.revision.checked_out", lambda _: None)
    monkeypatch.setenv("CASCADE_REVISION", "")
    assert revision() == UNKNOWN, "a build argument that was left empty"
    monkeypatch.delenv("CASCADE_REVISION")
    assert revision() == UNKNOWN

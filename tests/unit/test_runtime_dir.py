"""Where a device's processes are met, and the sentences of those that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.errors import ServerError
from backend.runtime_dir import VARIABLE, meeting_point, runtime_dir
from tests.fakes.fake_model import FakeModel

pytestmark = pytest.mark.usefixtures("runtime_dir")


def refused_folder(monkeypatch: pytest.MonkeyPatch, folder: Path | str) -> str:
    monkeypatch.setenv(VARIABLE, str(folder))
    with pytest.raises(ServerError) as refused:
        FakeModel()
    return str(refused.value)


@pytest.mark.parametrize("folder", ["/proc/isochrone", "/sys/isochrone", "/dev/null/isochrone"])
def test_a_folder_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    sentence = refused_folder(monkeypatch, folder)
    assert sentence.startswith(f"the scheduler's socket cannot go to '{folder}': ")
    assert sentence.endswith(f"; set {VARIABLE} to a folder that only this user can write to")


def within(folder: Path) -> Path:
    return folder / f"isochrone-{os.getuid()}"


def shared(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """As Kubernetes makes an emptyDir, and told to be used."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


def test_in_a_folder_that_others_may_write_to_is_a_private_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shared(monkeypatch, tmp_path)
    assert [runtime_dir(), runtime_dir()] == [within(folder)] * 2
    assert within(folder).stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv(VARIABLE, str(within(folder)))  # as the processes started from there are told
    assert runtime_dir() == within(folder)


def test_a_private_one_that_others_may_write_to_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shared(monkeypatch, tmp_path)
    within(folder).mkdir()
    within(folder).chmod(0o770)
    assert refused_folder(monkeypatch, folder) == (
        f"the scheduler's socket cannot go to '{within(folder)}': it is not this user's alone; "
        f"set {VARIABLE} to a folder that only this user can write to"
    )


def test_a_link_in_its_place_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, elsewhere = shared(monkeypatch, tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    within(folder).symlink_to(elsewhere)
    assert "it is not this user's alone" in refused_folder(monkeypatch, folder)


def test_a_link_in_the_place_of_the_default_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "isochrone").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServerError, match="it is a link"):
        runtime_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_private_one_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shared(monkeypatch, tmp_path)
    within(folder).mkdir()
    os.chown(within(folder), 65534, 65534)
    assert "it is not this user's alone" in refused_folder(monkeypatch, folder)


def test_a_folder_without_a_path_short_enough_for_a_socket_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    assert refused_folder(monkeypatch, long) == (
        f"the scheduler's socket path '{long}/cpu.sock' is longer than 107 bytes; set {VARIABLE} to a shorter folder"
    )


def test_the_folder_is_made_and_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "a" / "b"))
    assert meeting_point("cpu").socket == tmp_path / "a" / "b" / "cpu.sock"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("named", ["run", "./run", "~/run"])
def test_a_folder_is_the_same_wherever_a_process_runs(
    named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ISOCHRONE_RUNTIME_DIR", named)
    assert runtime_dir() == tmp_path / "run"


def test_the_default_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert meeting_point("cpu").lock == tmp_path / "isochrone" / "cpu.lock"


def test_a_file_where_the_socket_should_be_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    tmp_path.chmod(0o700)
    (tmp_path / "cpu.sock").symlink_to(tmp_path / "cpu.sock")
    with pytest.raises(ServerError, match=r"the scheduler's socket '.*/cpu\.sock' cannot be used: "):
        FakeModel()

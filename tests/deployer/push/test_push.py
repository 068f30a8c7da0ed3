"""Folders by content: whole or not at all, and never twice."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest

from deployer import push
from deployer.errors import MachineError, UnreachableError, UsageError
from deployer.remote import tree
from deployer.ssh import HostKeyPin, Machine, connect, pin_host_key
from tests.deployer.push.conftest import Box


class Counter:
    """A TCP relay that counts the bytes of both directions."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [near, far]
            threading.Thread(target=self._relay, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(far, near, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, count: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if count:
                    self.sent += len(data)
                sink.sendall(data)
        except OSError:
            pass

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._server.close()
        self.cut()


@contextmanager
def through_counter(box: Box) -> Iterator[tuple[Machine, Counter]]:
    counter = Counter(box.port)
    pin_host_key(box.known_hosts, HostKeyPin("127.0.0.1", counter.port, box.host_public_key))
    with connect("127.0.0.1", counter.port, box.user, box.key_path, box.known_hosts, 10, name="site-1") as machine:
        yield machine, counter
    counter.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree with modes that matter: a private key, a script, an empty folder, a private folder."""
    top = tmp_path / "kit"
    (top / "startup").mkdir(parents=True)
    (top / "startup" / "key").write_bytes(b"secret")
    (top / "startup" / "key").chmod(0o600)
    (top / "start.sh").write_text("#!/bin/sh\n")
    (top / "start.sh").chmod(0o755)
    (top / "transfer").mkdir(mode=0o700)
    (top / "big").write_bytes(os.urandom(3_000_000))
    return top


def contents(top: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(top)): (path.stat().st_mode & 0o777, path.read_bytes() if path.is_file() else b"")
        for path in sorted(top.rglob("*"))
    }


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


def test_what_arrives_is_the_same_to_the_mode(login: Machine, folder: Path) -> None:
    there = Path(login.path("/opt/fedspan/kit"))
    pushed = login.put_tree(folder, str(there))
    assert contents(there) == contents(folder)
    assert pushed.changed
    assert pushed.tree == push.local_tree(folder) == push.remote_tree(login, str(there))
    assert left_over(there) == []


def test_pushing_twice_moves_nothing(machine: Box, folder: Path) -> None:
    with through_counter(machine) as (login, counter):
        there = login.path("/opt/fedspan/kit")
        login.put_tree(folder, there)
        first = counter.sent
        again = login.put_tree(folder, there)
        second = counter.sent - first
    assert first > 3_000_000
    assert second < 60_000  # the question, the program that answers it, and the list of paths
    assert (again.changed, again.sent_files, again.sent_bytes) == (False, 0, 0)


def test_one_changed_file_moves_alone(machine: Box, folder: Path) -> None:
    with through_counter(machine) as (login, counter):
        there = Path(login.path("/opt/fedspan/kit"))
        login.put_tree(folder, str(there))
        first = counter.sent
        (folder / "start.sh").write_text("#!/bin/sh\necho new\n")
        (folder / "transfer").rmdir()
        pushed = login.put_tree(folder, str(there))
        assert counter.sent - first < 60_000
        assert pushed.sent_files == 1
        assert contents(there) == contents(folder)
        assert left_over(there) == []


def test_a_mode_that_changed_is_a_change(login: Machine, folder: Path) -> None:
    there = Path(login.path("/opt/kit"))
    login.put_tree(folder, str(there))
    (folder / "startup" / "key").chmod(0o640)
    assert login.put_tree(folder, str(there)).changed
    assert contents(there) == contents(folder)


def test_what_was_changed_on_the_machine_is_noticed_and_mended(login: Machine, folder: Path) -> None:
    there = Path(login.path("/opt/kit"))
    login.put_tree(folder, str(there))
    (there / "startup" / "key").write_bytes(b"tamper")
    (there / "extra").write_text("x")
    assert login.put_tree(folder, str(there)).changed
    assert contents(there) == contents(folder)


def test_an_interrupted_push_leaves_the_old_folder_whole(machine: Box, folder: Path) -> None:
    with machine.connect() as login:
        there = Path(login.path("/opt/fedspan/kit"))
        login.put_tree(folder, str(there))
    before = contents(there)
    (folder / "more").write_bytes(os.urandom(30_000_000))
    with through_counter(machine) as (login, counter):

        def on_bytes(sent: int, total: int) -> None:
            assert contents(there) == before
            if sent > 5_000_000:
                counter.cut()

        with pytest.raises(UnreachableError):
            login.put_tree(folder, str(there), on_bytes=on_bytes)
    assert contents(there) == before
    with machine.connect() as login:
        login.put_tree(folder, str(there))
    assert contents(there) == contents(folder)
    assert left_over(there) == []


def test_a_machine_that_died_while_switching_gets_its_folder_back(login: Machine, folder: Path) -> None:
    there = Path(login.path("/opt/fedspan/kit"))
    login.put_tree(folder, str(there))
    before = contents(there)
    there.rename(there.with_name("kit.old-0123456789abcdef"))  # killed between the two renames
    there.with_name("kit.new-0123456789abcdef").mkdir()
    assert not login.put_tree(folder, str(there)).changed
    assert contents(there) == before
    assert left_over(there) == []


def test_the_switch_works_without_an_atomic_exchange(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "exchange", lambda one, other: False)
    old = tmp_path / "there"
    old.mkdir()
    (old / "x").write_text("old")
    tree.switch(str(folder), str(old), "0" * 64)
    assert (old / "start.sh").exists()
    assert not (old / "x").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("there.")] == []


def test_the_exchange_is_atomic_here(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "of-a").touch()
    assert tree.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b" / "of-a").exists()


def test_a_path_that_belongs_to_the_machine_is_kept(login: Machine, folder: Path) -> None:
    there = Path(login.path("/opt/kit"))
    keep = ("transfer", "startup/endpoint.yml")
    login.put_tree(folder, str(there), keep=keep)
    login.put_file(b"server: a:1\n", str(there / "startup/endpoint.yml"))
    (there / "transfer").mkdir()
    (there / "transfer" / "mine").write_text("mine")
    assert not login.put_tree(folder, str(there), keep=keep).changed
    (folder / "start.sh").write_text("new")
    assert login.put_tree(folder, str(there), keep=keep).changed
    assert (there / "startup/endpoint.yml").read_text() == "server: a:1\n"
    assert (there / "transfer" / "mine").read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "folder", "dangling", "pipe"])
def test_links_and_special_files_are_refused_by_name(login: Machine, folder: Path, kind: str) -> None:
    odd = folder / "startup" / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to({"file": "key", "folder": "..", "dangling": "nowhere"}[kind])
    with pytest.raises(UsageError) as caught:
        login.put_tree(folder, login.path("/opt/kit"))
    assert str(odd) in str(caught.value)
    assert not Path(login.path("/opt/kit")).exists()


def test_a_file_in_the_place_of_the_folder_is_not_overwritten(login: Machine, folder: Path) -> None:
    there = Path(login.path("/opt"))
    there.mkdir(parents=True)
    (there / "kit").write_text("something of somebody")
    with pytest.raises(MachineError, match="is not a folder"):
        login.put_tree(folder, str(there / "kit"))
    assert (there / "kit").read_text() == "something of somebody"


@pytest.mark.parametrize("path", ["../out", "/etc/x", "a//b", "a/../../b", "missing/file", "a\0b"])
def test_a_manifest_that_leads_outside_is_refused(path: str) -> None:
    with pytest.raises(tree.Refused):
        tree.checked({path: [0o644, 0, ""]})


def test_two_pushes_at_once_end_with_one_of_them(machine: Box, tmp_path: Path) -> None:
    with machine.connect() as login:
        there = Path(login.path("/opt/kit"))
        sources = []
        for name in "ab":
            source = tmp_path / name
            source.mkdir()
            for number in range(20):
                (source / f"{number}").write_text(name * 1000)
            sources.append(source)
        threads = [threading.Thread(target=login.put_tree, args=(source, str(there))) for source in sources * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert contents(there) in [contents(source) for source in sources]
        assert left_over(there) == []


def test_a_small_file_is_replaced_atomically_and_only_when_it_differs(login: Machine) -> None:
    path = Path(login.path("/etc/thing/endpoint.yml"))
    assert login.put_file(b"one", str(path), 0o640).changed
    inode = path.stat().st_ino
    assert not login.put_file(b"one", str(path), 0o640).changed
    assert path.stat().st_ino == inode
    assert login.put_file(b"two", str(path), 0o600).changed
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert left_over(path) == []


def test_merging_leaves_what_else_is_there(login: Machine, folder: Path) -> None:
    there = Path(login.path("/srv/data"))
    there.mkdir(parents=True)
    (there / "other").write_text("other")
    (there / "link").symlink_to("other")
    pushed = push.merge_tree(login, folder, str(there))
    assert pushed.sent_files == 3
    assert (there / "other").read_text() == "other"
    assert (there / "link").is_symlink()
    assert contents(folder).items() <= contents(there).items()
    assert not push.merge_tree(login, folder, str(there)).changed


def test_fetching_a_folder_and_a_file(login: Machine, folder: Path, tmp_path: Path) -> None:
    there = login.path("/srv/x")
    login.put_tree(folder, there)
    login.get(there, tmp_path / "deep" / "back")
    assert contents(tmp_path / "deep" / "back") == contents(folder)
    login.get(there + "/startup/key", tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(MachineError, match="does not exist"):
        login.get(there + "/nothing", tmp_path / "nothing")
    with pytest.raises(UsageError, match="is a folder"):
        login.get(there + "/start.sh", tmp_path / "deep")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_fetching_that_breaks_leaves_what_was_here(machine: Box, tmp_path: Path) -> None:
    big = machine.root / "big"
    big.write_bytes(os.urandom(20_000_000))
    target = tmp_path / "target"
    target.write_text("old")
    with through_counter(machine) as (login, counter), pytest.raises(UnreachableError):
        push.get(login, str(big), target, on_bytes=lambda moved, total: counter.cut() if moved > 1e6 else None)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".target")] == []


def test_a_full_disk_or_a_missing_right_is_told_in_the_machines_words(login: Machine, folder: Path) -> None:
    with pytest.raises(MachineError) as caught:
        login.put_tree(folder, "/proc/fedspan/kit")
    assert "/proc/fedspan" in str(caught.value)


def test_progress_reaches_the_end(login: Machine, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    login.put_tree(folder, login.path("/opt/kit"), on_bytes=lambda sent, total: seen.append((sent, total)))
    assert seen[-1][0] == seen[-1][1] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert [sent for sent, _ in seen] == sorted(sent for sent, _ in seen)


def test_many_small_files_take_no_round_trip_each(
    login: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(2000):
        (source / f"{number:04}.txt").write_text(str(number))
    opened: list[object] = []
    open_session = paramiko.Transport.open_session

    def counted(*args: Any, **kwargs: Any) -> paramiko.Channel:
        opened.append(args)
        return open_session(*args, **kwargs)

    monkeypatch.setattr(paramiko.Transport, "open_session", counted)
    login.put_tree(source, login.path("/srv/many"))
    assert 0 < len(opened) < 20
    assert contents(Path(login.path("/srv/many"))) == contents(source)

"""`isochrone top` at a publisher of a device's state, and sentences where there is none or it refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from msgspec.structs import replace

from backend.commands import main as cli
from backend.commands.top import Viewer
from backend.fleet.snapshot import FLEET_PROTOCOL, encode
from backend.scheduler_process.state_address import TOKEN_VARIABLE, VARIABLE, StateAddress
from backend.scheduler_process.state_publisher import StatePublisher
from backend.top import snapshot_stream
from backend.top.snapshot_stream import SnapshotStream
from tests.fakes.fake_model import eventually
from tests.unit.top.test_frame import SNAPSHOT

TOKEN = "a secret"
Run = Callable[..., str]


@pytest.fixture
def port() -> int:
    """A port that was free."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        found: int = listener.getsockname()[1]
    return found


@pytest.fixture
def publisher(port: int) -> Iterator[StatePublisher]:
    """Publishes the snapshot again and again, as a scheduler does."""
    made = StatePublisher(StateAddress("127.0.0.1", port, TOKEN))
    made.start()
    eventually(lambda: made.port is not None)
    over = threading.Event()

    def publish() -> None:
        while not over.wait(0.02):
            made.offer(SNAPSHOT)

    thread = threading.Thread(target=publish)
    thread.start()
    yield made
    over.set()
    thread.join(timeout=10.0)
    made.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)

    def ran(*options: object) -> str:
        """Returns the printed text; of a failure, the sentence."""
        monkeypatch.setattr("sys.argv", ["isochrone", "top", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return printed.out if ended.value.code in (0, None) else printed.err

    return ran


@contextmanager
def saying(port: int, said: bytes) -> Iterator[None]:
    """Something that listens, says this to whoever comes, and closes."""
    with closing(socket.create_server(("127.0.0.1", port))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(timeout=10.0)


@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_frame_is_printed_once(
    publisher: StatePublisher, run: Run, port: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{port}"
    monkeypatch.setenv(VARIABLE, address if named == "environment" else "nowhere")
    printed = run("--once", *(("--state", address) if named == "option" else ()))
    assert printed.startswith("gpu-0  A100")
    assert "resnet50 × 8, vgg19 × 4" in printed
    eventually(lambda: publisher.subscribers == 0)


def test_a_wrong_token_is_a_sentence(
    publisher: StatePublisher,  # noqa: ARG001
    run: Run,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a guess")
    printed = run("--state", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port} refuses: the token is not the one" in printed
    assert "a guess" not in printed


def test_where_nothing_listens_is_a_sentence(run: Run, port: int) -> None:
    assert f"no device's state is published at 127.0.0.1:{port}: Connection refused" in run(
        "--state", f"127.0.0.1:{port}"
    )


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what was sent is no device's state"),
        (b"", "sent no device's state and closed"),
        (encode(SNAPSHOT).replace(b'"protocol":1', b'"protocol":9'), "protocol 9 is not spoken here, only 1"),
        (b'{"type":"snapshot","protocol":9}\n', "(protocol 9, where 1 is spoken here)"),
    ],
    ids=["http", "nothing", "protocol", "fields"],
)
def test_what_is_no_publisher_of_ours_is_a_sentence(run: Run, port: int, said: bytes, sentence: str) -> None:
    assert FLEET_PROTOCOL == 1
    with saying(port, said):
        assert sentence in run("--state", f"127.0.0.1:{port}")


def test_one_that_says_nothing_is_given_up(run: Run, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_stream, "FIRST_S", 0.05)
    with closing(socket.create_server(("127.0.0.1", port))):
        assert "sent no device's state within" in run("--state", f"127.0.0.1:{port}")


def test_a_bad_address_or_none_or_a_bad_token_is_a_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--state is 'here', but must be HOST:PORT" in run("--state", "here")
    assert "no device's state is named; name one with --state HOST:PORT" in run()
    monkeypatch.setenv(TOKEN_VARIABLE, "\udcff")
    assert f"{TOKEN_VARIABLE} is no text" in run("--state", "127.0.0.1:8003")


def test_a_publisher_that_goes_is_looked_for_until_it_is_back(publisher: StatePublisher, port: int) -> None:
    def drawn() -> str:
        viewer.read()
        return viewer.drawn().plain

    with closing(Viewer(lambda: SnapshotStream("127.0.0.1", port, TOKEN))) as viewer:
        viewer.first()
        assert drawn().startswith("gpu-0")
        publisher.close()
        eventually(lambda: drawn().startswith("THE SCHEDULER IS GONE"))
        again = StatePublisher(StateAddress("127.0.0.1", port, TOKEN))
        with closing(again):
            again.start()
            eventually(lambda: not drawn().startswith("THE SCHEDULER IS GONE"))
            again.offer(replace(SNAPSHOT, device="gpu-1"))
            eventually(lambda: drawn().startswith("gpu-1"))


def test_only_the_newest_of_several_snapshots_is_taken(port: int) -> None:
    lines = [encode(SNAPSHOT).replace(b'"sequence":7', b'"sequence":%d' % i) for i in range(1, 30)]
    taken: list[int] = []

    def last() -> bool:
        if found := subscriber.newest(1.0):
            taken.append(found.sequence)
        return taken[-1:] == [29]

    with saying(port, b"".join(lines) + lines[-1][:100]), closing(SnapshotStream("127.0.0.1", port, "")) as subscriber:
        eventually(last)
        assert len(taken) < len(lines)
        with pytest.raises(ConnectionError):
            while True:
                subscriber.newest(1.0)

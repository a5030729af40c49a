"""A server on this machine that answers every request with the same bytes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served(data: bytes) -> Iterator[str]:
    """The address under which `data` is the whole response; the connection closes behind it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        ends = threading.Event()

        def answer() -> None:
            while not ends.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    continue
                with connection:
                    try:
                        connection.settimeout(1)
                        connection.recv(1 << 16)
                        connection.sendall(data)
                    except OSError:
                        continue

        worker = threading.Thread(target=answer, daemon=True)
        worker.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/x"
        finally:
            ends.set()
            worker.join()

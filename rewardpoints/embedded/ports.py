import secrets
import socket

HOST = "127.0.0.1"

# Below the ranges that Linux (32768+) and the BSDs (49152+) take the ports of outgoing connections from. A client that
# keeps reconnecting to a server that is down can otherwise be given the server's own port and then talks to itself.
_FIRST_PORT, _LAST_PORT = 15_000, 31_999


def nudge(port: int) -> None:
    """Connects once: secantusd-py otherwise notices only after 2 s of waiting for a connection that it is to stop."""
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex((HOST, port))


def free_port() -> int:
    """A port of loopback that nobody listens on right now; the server's own bind decides."""
    while True:
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT + 1)
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            return port

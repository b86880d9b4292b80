"""kafka-ready.py HOST:PORT SECONDS: waits until the broker names itself in a Metadata answer.

A TCP connect and ApiVersions succeed while the broker still refuses work.
"""
import socket
import struct
import sys
import time


def brokers(host, port):
    client = b"ready"
    # Metadata v1 for no topics, correlation id 1
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection((host, port), 2) as s:
        s.settimeout(2)
        s.sendall(struct.pack(">i", len(request)) + request)
        answer = b""
        while len(answer) < 12:
            part = s.recv(4096)
            if not part:
                return 0
            answer += part
    return struct.unpack(">i", answer[8:12])[0]


host, port = sys.argv[1].rsplit(":", 1)
end = time.monotonic() + float(sys.argv[2])
while True:
    try:
        if brokers(host, int(port)) > 0:
            sys.exit(0)
    except OSError:
        pass
    if time.monotonic() > end:
        sys.exit(f"no broker at {sys.argv[1]} after {sys.argv[2]} s")
    time.sleep(0.1)

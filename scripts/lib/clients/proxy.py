"""One address for three nodes: each request goes to the next one, whatever the connection."""

import http.client
import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER_SECONDS = 30
# They concern one connection only (RFC 9110, section 7.6.1); the length is set anew.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class RoundRobin:
    """addresses are HOST:PORT; served counts the requests that each has answered."""

    def __init__(self, port, addresses):
        self.url = f"http://127.0.0.1:{port}/v1"
        self.served = dict.fromkeys(addresses, 0)
        self._turn = itertools.cycle(addresses)
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = ANSWER_SECONDS

            def forward(self):
                owner.forward(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = forward

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def next(self):
        with self._lock:
            address = next(self._turn)
            self.served[address] += 1
            return address

    def forward(self, request):
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length) if length else None
        connection = http.client.HTTPConnection(self.next(), timeout=ANSWER_SECONDS)
        try:
            # The client's Host goes along: Next-Page must lead back to this address.
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(length))
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            request.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    request.send_header(name, value)
            if answer.status not in (204, 304):
                request.send_header("Content-Length", answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)
        finally:
            connection.close()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

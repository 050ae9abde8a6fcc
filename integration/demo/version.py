"""The application of the quick start: answers every GET with its name. version.py ADDRESS PORT NAME"""

import http.server
import sys

ADDRESS, PORT, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Version(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    def do_GET(self):
        body = f"{NAME}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server((ADDRESS, PORT), Version).serve_forever()

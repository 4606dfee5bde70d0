"""A web server on loopback that cuts and fails: for doors, the hub and Kaggle."""

import http.server
import json
import threading
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Web:
    """Files behind a web server that does what `faults` says, one a request: a status, ("cut", bytes) or "whole"."""

    def __init__(self, port: int = 0):
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.faults: list = []
        self.asked: list[tuple[str, str, str | None]] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                web.answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path, asked_range = handler.path.split("?")[0], handler.headers.get("Range")
        self.asked.append((handler.command, path, asked_range))
        fault = self.faults.pop(0) if self.faults else None
        status = fault if isinstance(fault, int) else self.statuses.get(path, 200 if path in self.files else 404)
        body = self.files.get(path, b"") if status == 200 else b""
        first = 0
        if status == 200 and asked_range and fault != "whole":
            first, total = int(asked_range.removeprefix("bytes=").rstrip("-")), len(body)
            status = 206 if first < total else 416
            handler.send_response(status)
            handler.send_header(
                "Content-Range", f"bytes {first}-{total - 1}/{total}" if status == 206 else f"bytes */{total}"
            )
            body = body[first:]
        else:
            handler.send_response(status)
        for key, value in self.headers.get(path, {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[: fault[1]] if isinstance(fault, tuple) else body)
        handler.close_connection = True

    def put_on_the_hub(self, repo: str, folder: Path, card: dict | None = None) -> None:
        """Serve the files of a folder as a model of the hub at COMMIT; card: what heads its model card."""
        listed = [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
            for file in folder.iterdir()
        ]
        about = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": one["path"]} for one in listed]}
        about |= {"cardData": card} if card else {}
        for path, answer in {f"tree/{COMMIT}": listed, f"revision/{COMMIT}": about}.items():
            self.files[f"/api/models/{repo}/{path}"] = json.dumps(answer).encode()
            self.headers[f"/api/models/{repo}/{path}"] = {"Content-Type": "application/json"}
        for file in folder.iterdir():
            path = f"/{repo}/resolve/{COMMIT}/{file.name}"
            self.files[path] = file.read_bytes()
            self.headers[path] = {"ETag": f'"{file.name}"', "X-Repo-Commit": COMMIT}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

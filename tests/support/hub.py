"""A hub of models on this machine: what huggingface_hub asks of one, for the repositories of one user."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import yaml

TOKEN = "hf_of_the_test"


@dataclass
class Hub:
    """The repositories by name, each with the content of its files by their paths.

    Attributes:
        address: of the server.
        repositories: what was pushed.
        private: the names of the repositories that were made private.
        asked: the method and path of every request.
    """

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def environment(self, home: str, token: str = TOKEN) -> dict[str, str]:
        """That of a process which takes this for the hub."""

        return {
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": token,
            "HF_HOME": home,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def commit(self, name: str) -> str:
        """The number of the last commit of a repository."""

        return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    """Runs a hub until the end of the block."""

    held = Hub()

    class Handler(_Handler):
        hub = held

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield held
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid user token."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                return self._answer({"error": "exists", "url": f"{self.hub.address}/{name}"}, 409)
            self.hub.repositories[name] = {}
            self.hub.private |= {name} if asked.get("private") or asked.get("visibility") == "private" else set()
            return self._answer({"url": f"{self.hub.address}/{name}"})
        if path == "/api/validate-yaml":
            told = yaml.safe_load(json.loads(body)["content"].split("\n---")[0].removeprefix("---\n"))
            wrong = [] if isinstance(told, dict) and "license" in told else [{"message": "no license"}]
            return self._answer({"errors": wrong, "warnings": []}, 400 if wrong else 200)
        name = "/".join(path.split("/")[3:5])
        if path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if path.endswith("/commit/main"):
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    content = base64.b64decode(told["value"]["content"])
                    self.hub.repositories[name][told["value"]["path"]] = content
                elif told["key"] == "deletedFile":
                    del self.hub.repositories[name][told["value"]["path"]]
            commit = self.hub.commit(name)
            return self._answer({"commitUrl": f"{self.hub.address}/{name}/commit/{commit}", "commitOid": commit})
        return self._answer({"error": "no such place"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            if name not in self.hub.repositories:
                return self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            commit, files = self.hub.commit(name), self.hub.repositories[name]
            if rest[:1] == ["tree"]:
                return self._answer(
                    [
                        {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": file}
                        for file, content in files.items()
                    ]
                )
            if rest[:1] == ["revision"] and rest[1] not in ("main", commit):
                return self._answer({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return self._answer({"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]})
        name, file = "/".join(parts[:2]), "/".join(parts[4:])
        if parts[2:3] != ["resolve"] or file not in self.hub.repositories.get(name, {}):
            return self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = self.hub.repositories[name][file]
        told = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.hub.commit(name)}
        return self._answer(content, 200, told)

    def _answer(self, value: object, status: int = 200, told: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for header, text in (told or {}).items():
            self.send_header(header, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

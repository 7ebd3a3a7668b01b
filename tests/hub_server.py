"""Serve models on loopback as the Hugging Face Hub does: the protocol of its files, with faults on demand, and uploads.

Small files come at once, under Git's checksum; the others by a redirect to ``/cdn/SHA256``, which knows ranges. Plain
files are under ``/files/NAME``.
"""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

SMALL = 1024  # bytes of the largest file that comes at once


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Holds the repositories of a server, its faults, and what was asked of it.

    Attributes:
        repos: ``{repository: {revision: {file name: content}}}``.
        plain: ``{file name: content}`` of plain files.
        faults: ``{file name: list of faults}``, of which each request for the body of the file takes one: ``"torn"``
            ends the connection after half of the body, ``"short"`` sends half as if it were all, ``"changed"`` sends
            other bytes; or the number of an HTTP error. Errors of ``HEAD`` are under ``"HEAD file name"``, and
            ``"always"`` behind a fault keeps it.
        gated: repositories that nobody may read.
        asked: ``(method, path, range)`` of each request.
        commits: what was uploaded: ``(repository, branch, header, {file name: content})``.
    """

    def __init__(self):
        self.repos, self.plain, self.faults, self.gated = {}, {}, {}, set()
        self.asked, self.commits = [], []
        self.url = self.elsewhere = ""  # the large files are elsewhere, as on the hub
        self.lock = threading.Lock()

    def add(self, repo, files, revision="main"):
        self.repos.setdefault(repo, {})[revision] = dict(files)
        return self.commit_of(repo, revision)

    def commit_of(self, repo, revision):
        files = {name: git_sha1(content) for name, content in self.repos[repo][revision].items()}
        return hashlib.sha1(json.dumps([repo, files], sort_keys=True).encode()).hexdigest()

    def blobs(self):
        contents = [file for each in self.repos.values() for files in each.values() for file in files.items()]
        return {hashlib.sha256(content).hexdigest(): (name, content) for name, content in contents}

    def take_fault(self, name):
        with self.lock:
            left = self.faults.get(name) or [None]
            return left[0] if left[1:] == ["always"] else left.pop(0)

    def downloads(self, beginning="/cdn/"):
        """Count the requests for the bodies of large files, or of those whose path begins so."""
        return sum(method == "GET" and path.startswith(beginning) for method, path, _ in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def answer(self, status, headers=(), content=b"", sent=None):
        """Send headers for ``content``, and of its body what is in ``sent``."""
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if sent is None else sent)

    def refuse(self, status, code, message="no"):
        self.answer(status, {"X-Error-Code": code, "X-Error-Message": message})

    def as_json(self, value):
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def body(self, name, content, headers):
        """Answer with the body of a file, or the range of it that is asked for; a fault if there is one."""
        fault = self.hub.take_fault(f"HEAD {name}" if self.command == "HEAD" else name)
        if isinstance(fault, int):
            return self.answer(fault)
        begin, status = 0, 200
        if self.headers.get("Range"):
            begin = int(self.headers["Range"].partition("=")[2].partition("-")[0])
            headers = {**headers, "Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
            content, status = content[begin:], 206
        half = content[: len(content) // 2]
        if fault == "short":
            return self.answer(status, headers, half)
        if fault == "changed":
            return self.answer(status, headers, half + bytes(byte ^ 1 for byte in content[len(half) :]))
        if fault == "torn":
            self.close_connection = True
            return self.answer(status, headers, content, sent=half)
        return self.answer(status, headers, content)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.asked.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts == [""]:
            return self.answer(200)
        if parts[0] == "cdn":
            name, content = self.hub.blobs()[parts[1]]
            return self.body(name, content, {"ETag": f'"{parts[1]}"'})
        if parts[0] == "files":
            content = self.hub.plain.get(parts[1])
            return self.answer(404) if content is None else self.body(parts[1], content, {})
        if parts[:2] == ["api", "models"]:
            return self.describe("/".join(parts[2:4]), parts[4:])
        return self.resolve("/".join(parts[:2]), *parts[3:])

    do_HEAD = do_GET

    def find(self, repo, revision):
        """Return the files of a repository and the number of the commit; None after an answer that there are none."""
        if repo in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        revisions = self.hub.repos.get(repo)
        if revisions is None:
            return self.refuse(401, "RepoNotFound")
        names = {name: name for name in revisions} | {self.hub.commit_of(repo, name): name for name in revisions}
        if revision not in names:
            return self.refuse(404, "RevisionNotFound")
        return revisions[names[revision]], self.hub.commit_of(repo, names[revision])

    def resolve(self, repo, revision, *name):
        found, name = self.find(repo, revision), "/".join(name)
        if found is None:
            return None
        files, commit = found
        headers = {"X-Repo-Commit": commit}
        if name not in files:
            return self.answer(404, {**headers, "X-Error-Code": "EntryNotFound"})
        content = files[name]
        if len(content) <= SMALL:
            return self.body(name, content, {**headers, "ETag": f'"{git_sha1(content)}"'})
        fault = self.hub.take_fault(f"HEAD {name}")
        if fault is not None:
            return self.answer(fault)
        digest = hashlib.sha256(content).hexdigest()
        headers.update({"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": len(content)})
        return self.answer(302, {**headers, "Location": f"{self.hub.elsewhere}/cdn/{digest}"})

    def describe(self, repo, rest):
        found = self.find(repo, rest[1] if rest else "main")
        if found is None:
            return None
        files, commit = found
        if rest[:1] == ["tree"]:
            return self.as_json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": git_sha1(content)}
                    for name, content in files.items()
                ]
            )
        return self.as_json({"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        content = self.read_body()
        with self.hub.lock:
            self.hub.asked.append(("POST", path, None))
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            asked = json.loads(content)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.repos.setdefault(repo, {"main": {}})
            return self.as_json({"url": f"{self.hub.url}/{repo}", "id": "1", "name": repo})
        if path == "/api/validate-yaml":
            return self.as_json({"errors": [], "warnings": []})
        repo, what, branch = "/".join(parts[2:4]), parts[4], parts[5]
        if what == "preupload":
            files = [file["path"] for file in json.loads(content)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.as_json({"files": [{"path": name, **modes} for name in files]})
        fault = self.hub.take_fault("commit")
        return self.answer(fault) if fault else self.commit(repo, branch, content)

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def commit(self, repo, branch, content):
        lines = [json.loads(line) for line in content.decode().splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        self.hub.commits.append((repo, branch, header, files))
        self.hub.repos[repo].setdefault(branch, {}).update(files)
        number = self.hub.commit_of(repo, branch)
        return self.as_json(
            {
                "success": True,
                "commitOid": number,
                "commitUrl": f"{self.hub.url}/{repo}/commit/{number}",
                "hookOutput": "",
            }
        )


@contextlib.contextmanager
def serve():
    """Run a `Hub` on loopback while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    port = server.server_address[1]
    hub.url, hub.elsewhere = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

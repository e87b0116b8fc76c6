"""The protocol, line by line, over both ways through a Request."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from ctsd.errors import LostScan, StoreError, Unavailable
from ctsd.interfaces.scanning import IScans, ISpool
from ctsd.model import PASSWORD, Artifact
from tests.web_fakes import FakeScans
from tests.web_fixtures import BOUNDARY, MULTIPART, WebCase, multipart, part, request, upload

IP = b'{"type":"net.ip","value":"192.168.1.1"}'
LOCALHOST = b'{"type":"net.name","value":"localhost"}'


class FakeScansTests(WebCase):
    """The fake that we ship keeps the interface."""

    def test_interfaces(self) -> None:
        """It provides IScans, and the spool ISpool."""
        verifyObject(IScans, FakeScans())
        verifyObject(ISpool, self.spool)


class ProtocolTests(WebCase):
    """What the platform asks, and what it gets."""

    def test_options(self) -> None:
        """Files are wanted where a searcher can use them."""
        for path, wanted in (("/", True), ("/phish", False), ("/phish/", False), ("//", True)):
            reply = self.ask(request("OPTIONS", path)).reply
            self.assertEqual((reply.status, json.loads(reply.body)), (200, {"upload_file": wanted}))

    def test_options_without_uploads(self) -> None:
        """Nobody wants files when uploads are off."""
        self.serve(uploads_enabled=False)
        reply = self.ask(request("OPTIONS")).reply
        self.assertEqual(json.loads(reply.body), {"upload_file": False})

    def test_post_json(self) -> None:
        """A finished scan is a 200 with its hits, readable by its id."""
        reply = self.post(IP)
        self.assertEqual(reply.status, 200)
        told = json.loads(reply.body)
        self.assertEqual(told["hits"][0]["props"][0]["value"], "X")
        self.assertNotIn("retry_secs", told)
        again = self.ask(request("GET", "/" + told["id"])).reply
        self.assertEqual((again.status, again.body), (200, reply.body))

    def test_unfinished(self) -> None:
        """A scan that goes on is a 303 without Location, until it ends."""
        self.scans.retry_secs = 7
        reply = self.post(IP)
        self.assertEqual(reply.status, 303)
        self.assertNotIn("Location", reply.headers)
        told = json.loads(reply.body)
        self.assertEqual(told["retry_secs"], 7)
        path = "/" + told["id"]
        self.assertEqual(self.ask(request("GET", path)).reply.status, 303)
        self.scans.finish(service="", scan_id=told["id"])
        self.assertEqual(self.ask(request("GET", path)).reply.status, 200)

    def test_headers(self) -> None:
        """Every answer has a type, a length and a date, and is not to be cached."""
        headers = self.post(IP).headers
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(set(headers), {"Content-Type", "Cache-Control", "Content-Length", "Date"})

    def test_paths(self) -> None:
        """All forms of a path are answered directly."""
        scan_id = json.loads(self.post(IP, "/phish").body)["id"]
        for path in (
            f"/phish/{scan_id}",
            f"/phish/{scan_id}/",
            f"//phish//{scan_id}//",
            f"/%70hish/{scan_id}?x=y",
            f"http://ctsd.example/phish/{scan_id}",
        ):
            self.assertEqual(self.ask(request("GET", path)).reply.status, 200, path)
        for path in ("/", "//", "/?x", "/phish", "/phish/", "//phish//", "*"):
            self.assertEqual(self.post(IP, path).status, 200, path)

    def test_services_apart(self) -> None:
        """A scan is readable only within its service."""
        scan_id = json.loads(self.post(IP, "/phish").body)["id"]
        for path in (f"/{scan_id}", f"/nope/{scan_id}"):
            reply = self.ask(request("GET", path)).reply
            self.assertEqual((reply.status, reply.body), (204, b""))

    def test_unknown_ids(self) -> None:
        """An id that can't be ours is 204, with neither body nor length."""
        for path in ("/" + "0" * 32, "/phish/x", "/x", "/a/b/c", "/phish/" + "A" * 32, "/%ff%0a"):
            reply = self.ask(request("GET", path)).reply
            self.assertEqual((reply.status, reply.body), (204, b""), path)
            self.assertNotIn("Content-Length", reply.headers)

    def test_lost_id(self) -> None:
        """An id that was ours and is lost is 503."""
        self.scans.broken = LostScan("its answer is lost", retry_secs=9)
        reply = self.ask(request("GET", "/" + "0" * 32)).reply
        self.assertEqual((reply.status, reply.headers["Retry-After"]), (503, "9"))

    def test_unknown_service(self) -> None:
        """A service that is not there is 503: the artifact must come again."""
        for path in ("/nope", "/nope/", "/" + "0" * 32, "/phish/x", "/health", "/a%0ab"):
            reply = self.ask(request("POST", path, IP)).reply
            self.assertEqual(reply.status, 503, path)
            self.assertIn("Retry-After", reply.headers)
            self.assertIn("error", json.loads(reply.body))
        self.assertEqual(self.scans.submitted, [])

    def test_other_methods(self) -> None:
        """Other methods are 405, and the answer says which are allowed."""
        for method, path, allow in (
            ("GET", "/", "OPTIONS, POST"),
            ("HEAD", "/phish/", "OPTIONS, POST"),
            ("DELETE", "/", "OPTIONS, POST"),
            ("PUT", "/" + "0" * 32, "GET, HEAD"),
            ("TRACE", "/nope", "GET, HEAD"),
            ("OPTIONS", "/nope", "GET, HEAD"),
            ("POST", "/health/ready", "GET, HEAD"),
        ):
            client = self.ask(request(method, path))
            self.assertIn(b"HTTP/1.1 405 ", client.wire.value())
            self.assertIn(f"\r\nAllow: {allow}\r\n".encode(), client.wire.value())

    def test_head(self) -> None:
        """HEAD gives the headers of GET."""
        scan_id = json.loads(self.post(IP).body)["id"]
        full = self.ask(request("GET", f"/{scan_id}")).wire.value()
        head = self.ask(request("HEAD", f"/{scan_id}")).wire.value()
        self.assertEqual(head, full.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")

    def test_bad_bodies(self) -> None:
        """What is no artifact is 400, with the reason."""
        for body in (b"", b"x", b"[]", b"{}", b'{"type":"net.ip"}', b'{"value":1}', b"\xff\xfe"):
            reply = self.post(body)
            self.assertEqual(reply.status, 400, body)
            self.assertIn("error", json.loads(reply.body))

    def test_any_content_type(self) -> None:
        """JSON is taken whatever its Content-Type says."""
        for content_type in ("text/plain", "", "x", "multipart/form-data", MULTIPART):
            client = self.ask(request("POST", "/", IP, content_type))
            self.assertEqual(client.reply.status, 200, content_type)

    def test_json_that_says_it_is_multipart(self) -> None:
        """JSON is JSON, with blanks or a byte order mark before it, wherever it was cut."""
        for body in (
            IP,
            b"\r\n \t" + IP,
            b" " * 5000 + IP,
            b"\xef\xbb\xbf" + IP,
            IP.decode().encode("utf-16"),
            IP.decode().encode("utf-16-be"),
        ):
            for by in (0, 1, 3):
                client = self.ask(request("POST", "/", body, MULTIPART), by=by)
                self.assertEqual(client.statuses, [200], (body, by))
            self.assertEqual(self.scans.submitted[-1][1], Artifact("net.ip", "192.168.1.1"))
        for body in (b" ", b"\r\n" * 3000, b"\xef\xbb\xbf", b" [1]"):
            self.assertEqual(self.ask(request("POST", "/", body, MULTIPART), by=1).statuses, [400])

    def test_unavailable(self) -> None:
        """What can't be taken now is 503 with Retry-After and a reason."""
        for error in (Unavailable("too much in flight", retry_secs=11), StoreError("away")):
            self.scans.broken = error
            reply = self.post(IP)
            self.assertEqual(reply.status, 503)
            self.assertEqual(reply.headers["Retry-After"], str(error.retry_secs))
            self.assertEqual(json.loads(reply.body), {"error": error.reason})

    def test_incident(self) -> None:
        """What is a fault of ours is 500 with an id that is in the log, and no traceback."""
        self.scans.broken = ValueError("secret detail")
        reply = self.post(IP)
        self.assertEqual(reply.status, 500)
        self.assertIn(b"incident ", reply.body)
        self.assertNotIn(b"secret", reply.body)
        self.assertEqual(self.incidents(), 1)

    def test_broken_synchronously(self) -> None:
        """Neither does an error outside of a Deferred reach the client."""

        def working() -> str:
            raise ValueError("secret detail")

        self.scans = FakeScans()
        self.patch(FakeScans, "working", lambda self: working())
        self.serve()
        for data in (request("GET", "/health/ready"), request("POST", "/", LOCALHOST)):
            self.assertEqual(self.ask(data).statuses, [500])
        self.assertEqual(self.incidents(), 2)

    def test_connection_test(self) -> None:
        """resutil's test is answered at once, when all works, and nothing is scanned."""
        ids = set()
        for body in (
            LOCALHOST,
            LOCALHOST.upper()
            .replace(b"TYPE", b"type")
            .replace(b"NET.NAME", b"net.name")
            .replace(b"VALUE", b"value"),
            b'{"type":"net.name","value":["localhost."]}',
        ):
            for path in ("/", "//", "/phish"):
                reply = self.post(body, path)
                told = json.loads(reply.body)
                self.assertEqual((reply.status, told["hits"]), (200, []))
                ids.add(told["id"])
        self.assertEqual(len(ids), 9)
        self.assertEqual(self.scans.submitted, [])

    def test_connection_test_fails(self) -> None:
        """resutil's test is 503 when scans can't be answered."""
        self.scans.not_working = "the store is away"
        reply = self.post(LOCALHOST)
        self.assertEqual(reply.status, 503)
        self.assertIn(b"the store is away", reply.body)

    def test_ready(self) -> None:
        """Load balancers get a status without a body."""
        for not_working, status in (("", 200), ("away", 503)):
            self.scans.not_working = not_working
            for path in ("/health/ready", "//health//ready/"):
                reply = self.ask(request("GET", path)).reply
                self.assertEqual((reply.status, reply.body), (status, b""))

    def test_many_hits(self) -> None:
        """A large answer arrives whole."""
        self.scans.hits = self.scans.hits * 5000
        self.assertEqual(len(json.loads(self.post(IP).body)["hits"]), 5000)

    def test_large_json(self) -> None:
        """A body above inline_json_bytes is decoded in a thread."""
        self.serve(inline_json_bytes=10)
        self.threads.held = True
        client = self.ask(request("POST", "/", IP))
        self.assertEqual(client.replies, [])
        self.threads.run()
        self.assertEqual(client.statuses, [200])
        for bad in (
            request("POST", "/", b"x" * 20),
            request("POST", "/", multipart(part("artifact", b"x" * 20)), MULTIPART),
        ):
            client = self.ask(bad)
            self.threads.run()
            self.assertEqual(client.statuses, [400])

    def test_answer_later(self) -> None:
        """A scan that takes a while is answered when it is known."""
        self.scans.held = []
        client = self.ask(request("POST", "/", IP))
        self.assertEqual(client.replies, [])
        self.scans.release()
        self.assertEqual(client.statuses, [200])

    def test_client_leaves(self) -> None:
        """A client that leaves cancels nothing, and nothing is written to it."""
        self.scans.held = []
        cancelled = []
        client = self.ask(request("POST", "/", IP))
        ((waiting, _),) = self.scans.held
        waiting._canceller = cancelled.append
        client.leave()
        self.scans.release()
        self.assertEqual((client.wire.value(), cancelled), (b"", []))
        self.assertEqual(self.incidents(), 0)

    def test_client_leaves_before_failure(self) -> None:
        """A failure that nobody hears is an incident all the same."""
        self.scans.held = []
        client = self.ask(request("POST", "/", IP))
        client.leave()
        held, self.scans.held = self.scans.held, None
        held[0][0].errback(ValueError())
        self.assertEqual(client.wire.value(), b"")
        self.assertEqual(self.incidents(), 1)


class MultipartProtocolTests(WebCase):
    """What the platform normally sends."""

    def ask_parts(self, *parts: bytes, path: str = "/") -> int:
        """The status of a multipart body, whole and in chunks alike."""
        whole = self.ask(request("POST", path, multipart(*parts), MULTIPART)).reply.status
        chunked = self.ask(request("POST", path, multipart(*parts), MULTIPART, chunks=7))
        self.assertEqual(chunked.reply.status, whole)
        return whole

    def test_artifact_alone(self) -> None:
        """The artifact comes as a part, with or without a header of its own."""
        for headers in ((), ("Content-Type: application/json", "X-Y: z")):
            self.assertEqual(self.ask_parts(part("artifact", IP, *headers)), 200)
        self.assertEqual({artifact.value for _, artifact in self.scans.submitted}, {"192.168.1.1"})

    def test_blanks_before(self) -> None:
        """What stands before the first part is nothing, blanks too, wherever it was cut."""
        body = multipart(part("artifact", IP))
        for before, status in (
            (b"\r\n", 200),
            (b" \t\r\n\r\n", 200),
            (b"  x\r\n", 200),
            (b" " * 5000 + b"\r\n", 200),
            (b"  ", 400),
        ):
            for by in (0, 1, 2):
                client = self.ask(request("POST", "/", before + body, MULTIPART), by=by)
                self.assertEqual(client.statuses, [status], (before, by))

    def test_no_artifact(self) -> None:
        """Without that part it is 400, and its file is gone."""
        self.assertEqual(self.ask_parts(part("file", b"abc", file_name="x")), 400)
        self.assertEqual(self.ask_parts(part("other", IP)), 400)
        self.assertEqual(self.ask_parts(), 400)
        self.assertEqual(self.files(), [])

    def test_strange_parts(self) -> None:
        """Parts that are no fields of a form are skipped, whatever they call themselves."""
        for head in (
            "X-Y: z\r\n",
            "Content-Type: text/plain\r\n",
            "",
            'Content-Disposition: attachment; name="artifact"\r\n',
            "Content-Disposition: form-data\r\n",
            "Content-Disposition: \r\n",
        ):
            strange = f"--{BOUNDARY}\r\n{head}\r\n".encode() + b"x\r\n"
            for parts in (
                (strange, part("artifact", IP)),
                (part("artifact", IP), strange),
                (part("artifact", IP), strange, part("file", b"abc", file_name="x")),
            ):
                self.assertEqual(self.ask_parts(*parts), 200, head)
                self.assertEqual(self.scans.submitted[-1][1].value, "192.168.1.1")
            self.assertEqual(self.ask_parts(strange), 400)
            self.assertEqual(self.files(), [])

    def test_broken(self) -> None:
        """A body that is no multipart, or ends early, is 400."""
        body = multipart(part("artifact", IP))
        for bad in (body[:-5], b"x" * 200, b"", b"--" + body, body.replace(b"form-data", b"x")):
            reply = self.ask(request("POST", "/", bad, MULTIPART)).reply
            self.assertEqual(reply.status, 400, bad)

    def test_file_content_without_file(self) -> None:
        """file.content without its file is 400 only where OPTIONS says that files are wanted."""
        named = part("artifact", b'{"type":"file.content","value":"a.exe"}')
        self.assertEqual(self.ask_parts(named), 400)
        self.assertEqual(self.ask_parts(named, path="/phish"), 200)
        self.assertEqual(self.post(b'{"type":"file.content","value":"a.exe"}').status, 200)
        self.serve(uploads_enabled=False)
        self.assertEqual(self.ask_parts(named), 200)
        self.assertTrue(all(artifact.value == "a.exe" for _, artifact in self.scans.submitted))

    def test_file_with_any_type(self) -> None:
        """A file may come with any type, and then the value may be missing."""
        self.assertEqual(self.ask(upload(b'{"type":"email"}')).reply.status, 200)
        ((_, artifact),) = self.scans.submitted
        assert artifact.file is not None
        self.assertEqual((artifact.type, artifact.value), ("email", "a.exe"))
        self.assertEqual((artifact.file.name, artifact.file.size), ("a.exe", 3))

    def test_uploads_disabled(self) -> None:
        """With uploads off a file is read and forgotten; its name remains."""
        self.serve(uploads_enabled=False)
        self.assertEqual(self.ask(upload()).reply.status, 200)
        ((_, artifact),) = self.scans.submitted
        self.assertEqual((artifact.value, artifact.file), ("a.exe", None))
        self.assertFalse(self.directory.exists())

    def test_refused_artifact_drops_file(self) -> None:
        """A file that came with a bad artifact is removed, also when that is large."""
        for inline_json_bytes in (1000, 0):
            self.serve(inline_json_bytes=inline_json_bytes)
            for artifact in (b"x", b'{"type":""}'):
                self.assertEqual(self.ask(upload(artifact)).reply.status, 400)
            self.assertEqual((self.files(), self.spool.used_bytes), ([], 0))

    def test_connection_test_drops_file(self) -> None:
        """The connection test keeps nothing, either."""
        self.assertEqual(self.ask(upload(LOCALHOST)).reply.status, 200)
        self.assertEqual((self.files(), self.scans.submitted), ([], []))

    def test_password(self) -> None:
        """A password's file is not kept, wherever it stands in the body."""
        self.scans.keep_files = True
        parts = [part("artifact", b'{"type":"%b"}' % PASSWORD.encode()), part("file", b"abc")]
        for inline_json_bytes in (5, 1000):
            self.serve(inline_json_bytes=inline_json_bytes)
            for each in (parts, parts[::-1]):
                self.assertEqual(self.ask_parts(*each), 200)
        for _, artifact in self.scans.submitted:
            self.assertEqual((artifact.type, artifact.file), (PASSWORD, None))
        self.assertEqual((self.files(), self.spool.used_bytes, self.spool.writing), ([], 0, 0))

    def test_password_touches_no_disk(self) -> None:
        """When it is known in time, a password's file never reaches the disk."""
        self.ask(upload(b'{"type":"%b","value":"x"}' % PASSWORD.encode()))
        self.assertFalse(self.directory.exists())


class AnyBodyTests(WebCase):
    """Whatever the body is, over both ways."""

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=300), st.integers(0, 9))
    @example(b'{"type":"net.ip","value":"\\ud800"}', 0)
    @example(b'\xef\xbb\xbf{"type":"net.ip","value":1e999}', 0)
    def test_json(self, body: bytes, chunks: int) -> None:
        """Any bytes as JSON are 200 or 400, never anything else."""
        for self.site.short_path in (True, False):
            data = request("POST", "/", body, chunks=chunks)
            self.assertIn(self.ask(data).reply.status, (200, 400))
        self.assertEqual(self.incidents(), 0)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from(
                    [
                        b"------xyz\r\n",
                        b"------xyz--",
                        b"\r\n",
                        b"\r\n------xyz\r\n",
                        b"\n",
                        b'Content-Disposition: form-data; name="artifact"\r\n\r\n',
                        b'Content-Disposition: form-data; name="file"; filename=\xff\r\n\r\n',
                        b"Content-Length: 3\r\n",
                        b'{"type":"net.ip","value":"1"}',
                    ]
                ),
            ),
            max_size=12,
        )
    )
    def test_multipart(self, pieces: list[bytes]) -> None:
        """Any bytes as multipart are 200 or 400, and leave no file."""
        for self.site.short_path in (True, False):
            data = request("POST", "/", b"".join(pieces), MULTIPART)
            self.assertIn(self.ask(data).reply.status, (200, 400))
        self.assertEqual((self.files(), self.incidents()), ([], 0))


class KleinProtocolTests(ProtocolTests):
    """The same, by way of Klein."""

    short_path = False


class KleinMultipartProtocolTests(MultipartProtocolTests):
    """The same, by way of Klein."""

    short_path = False

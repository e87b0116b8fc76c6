"""Feeds in a real daemon, from a provider on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import ssl
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.certificates import make_pair
from tests.live.daemon import Answer, Daemon, wait_until
from tests.live.provider import Connection, Provider, says, serves
from tests.web_fixtures import MULTIPART, multipart, part

#: URLhaus' sample, longer.
HEAD = b"# URLhaus\n# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter\n"
LISTED = "http://203.0.113.5:41522/bin.sh"


def urlhaus(*urls: str) -> bytes:
    """A file of URLhaus with these URLs."""
    return HEAD + b"".join(
        f'"{number}","2026-01-20 09:58:12","{url}","online","2026-01-20 09:58:12",'
        f'"malware_download","elf","https://urlhaus.abuse.ch/url/{number}/","someone"\n'.encode()
        for number, url in enumerate(urls, 3_500_001)
    )


def properties(answer: Answer) -> list[dict[str, Any]]:
    """Each hit's properties, by name."""
    return [{one["name"]: one["value"] for one in hit["props"]} for hit in answer.json["hits"]]


class FeedsTests(TestCase):
    """A catalogue feed whose URL leads to a provider of ours."""

    timeout = 180

    def setUp(self) -> None:
        """A provider, and a configuration of a few lines."""
        self.provider = Provider()
        self.addCleanup(self.provider.end)
        self.provider.vices["/recent.csv"] = serves(urlhaus(LISTED), 'ETag: "one"')
        self.config = f"""
[searchers]
async = []

[feeds.urlhaus]
enabled = true
url = "{self.provider.url("/recent.csv")}"
insecure_http = true
internal = true
min_rows = 1
min_interval_secs = 0
every_secs = 1
"""
        self.daemon = self.made(self.config)

    def made(self, config: str) -> Daemon:
        """A daemon, not started."""
        daemon = Daemon(Path(self.mktemp()), config)
        self.addCleanup(daemon.stop)
        return daemon

    def hits(self, type: str, value: Any) -> list[dict[str, Any]]:
        """The properties of the hits of a scan that is complete."""

        def complete() -> Answer | None:
            answer = self.daemon.post(type, value)
            return answer if answer.status == 200 else None

        what = f"an answer without anything missing on {value}"
        return properties(wait_until(complete, what, secs=60))

    def test_a_feed(self) -> None:
        """It is downloaded, indexed, and found, the whole URL and parts of it."""
        self.daemon.start()
        (hit,) = self.hits("net.uri", LISTED)
        self.assertEqual(
            hit,
            {
                "feed": "URLhaus",
                "verdict": "malicious",
                "threat": "malware_download",
                "url": LISTED,
                "tags": "elf",
                "status": "online",
                "added": "2026-01-20 09:58:12",
                "reporter": "someone",
                "link": "https://urlhaus.abuse.ch/url/3500001/",
                "credit": "URLhaus, abuse.ch",
            },
        )
        kinds = {
            one["name"]: one["type"]
            for one in self.daemon.post("net.uri", LISTED).json["hits"][0]["props"]
        }
        self.assertEqual((kinds["url"], kinds["link"]), ("string", "uri"))
        (through,) = self.hits("net.uri", "hxxp://203[.]0[.]113[.]5:41522/bin.sh#x")
        self.assertEqual(through["link"], hit["link"])
        (on_host,) = self.hits("net.ip", "203.0.113.5")
        self.assertEqual(on_host["Matched"], "URL on the address")
        self.assertEqual(self.hits("net.uri", "http://203.0.113.5:41522/other"), [])
        (within,) = self.hits("string", f"please open {LISTED} now")
        self.assertEqual(within["url"], LISTED)
        told = self.daemon.ctsd("feeds").stdout
        self.assertRegex(told, r"urlhaus +\d+ s +1 +0 .*good")
        self.assertRegex(self.daemon.ctsd("searchers").stdout, "feeds +sync +on")

    def test_the_provider_dies(self) -> None:
        """What there is goes on answering, and says of when it is; after a restart, too."""
        self.daemon.config.write_text(
            self.daemon.config.read_text().replace("every_secs = 1", "every_secs = 5")
        )
        self.daemon.start()
        first = self.hits("net.uri", LISTED)
        self.provider.vices["/recent.csv"] = says("500 Broken")
        wait_until(
            lambda: "it answered 500" in self.daemon.ctsd("feeds").stdout, "the failure is shown"
        )
        self.assertEqual(self.hits("net.uri", LISTED), first)
        self.assertEqual(self.daemon.ask("GET", "/health/ready").status, 200)
        self.assertEqual(self.daemon.stop(), 0)
        # The copy is from two days ago; nobody can be asked.
        self.provider.end()
        state = self.daemon.state_dir / "feeds" / "urlhaus" / "feed.json"
        kept = json.loads(state.read_bytes())
        kept["copy"]["checked"] -= 2 * 86400
        kept["due"] = kept["tried"] + 3600
        state.write_text(json.dumps(kept))
        self.daemon.start()
        (hit,) = self.hits("net.uri", LISTED)
        self.assertRegex(hit.pop("stale since"), r"\d{4}-\d\d-\d\d")
        self.assertEqual(hit, first[0])
        self.assertIn("stale", self.daemon.ctsd("feeds").stdout)
        # Past its age nothing in it counts, and it is away.
        self.assertEqual(self.daemon.stop(), 0)
        kept["copy"]["checked"] -= 40 * 86400
        state.write_text(json.dumps(kept))
        self.daemon.start()
        answer = self.daemon.post("net.uri", LISTED)
        self.assertEqual((answer.status, answer.json["hits"]), (303, []))
        self.assertIn("too old", self.daemon.ctsd("feeds").stdout)

    def test_never_loaded(self) -> None:
        """A feed that never came is "later", one that is not required is not waited for."""
        self.provider.vices["/recent.csv"] = says("404 Not Found")
        self.daemon.start()
        answer = self.daemon.post("net.uri", LISTED)
        self.assertEqual((answer.status, answer.json["hits"]), (303, []))
        self.assertEqual(self.daemon.ask("GET", "/health/ready").status, 200)
        self.daemon.config.write_text(self.daemon.config.read_text() + "required = false\n")
        self.daemon.signal(signal.SIGHUP)
        wait_until(
            lambda: self.daemon.post("net.uri", LISTED + "?2").status == 200, "nobody is waited for"
        )

    def test_both(self) -> None:
        """While one feed is away the hits of another are shown, and the scan stays open."""
        self.provider.vices["/list.txt"] = serves(b"203.0.113.5\n")
        mine = f"""
[feeds.mine]
url = "{self.provider.url("/list.txt")}"
insecure_http = true
internal = true
format = "lines"
indicators = [{{ field = "line", type = "net.ip" }}]
"""
        self.provider.vices["/recent.csv"] = says("404 Not Found")
        self.daemon = self.made(self.config.replace("every_secs = 1", "every_secs = 600") + mine)
        self.daemon.start()

        def shown() -> Answer | None:
            answer = self.daemon.post("net.ip", "203.0.113.5")
            return answer if answer.json["hits"] else None

        answer = wait_until(shown, "a hit of the feed that is there")
        self.assertEqual(answer.status, 303)
        (hit,) = properties(answer)
        self.assertEqual(hit["feed"], "mine")

    def test_new_copies(self) -> None:
        """A newer file is served soon; one that is a page of HTML is not taken."""
        self.daemon.start()
        self.hits("net.uri", LISTED)
        other = "http://203.0.113.6/new"
        self.provider.vices["/recent.csv"] = serves(urlhaus(LISTED, other))
        wait_until(lambda: self.hits("net.uri", other), "the newer file is served")
        self.provider.vices["/recent.csv"] = serves(b"<html><body>Moved</body></html>")
        wait_until(
            lambda: "HTML" in self.daemon.ctsd("feeds").stdout, "the page is refused", secs=60
        )
        self.assertEqual(len(self.hits("net.uri", other)), 1)

    def test_warninglists(self) -> None:
        """What a warninglist has is no hit, or is marked; so is what people allow."""
        listed, other = "203.0.113.21", "203.0.113.22"
        self.provider.vices["/list.txt"] = serves(f"{listed}\n{other}\n8.8.8.8\n".encode())
        known = {"name": "Known", "version": 1, "type": "string", "list": [listed]}
        self.provider.vices["/list.json"] = serves(json.dumps(known).encode())
        own = {"name": "Ours", "version": 1, "type": "cidr", "list": ["198.51.100.0/24"]}
        where = "insecure_http = true\ninternal = true\nmin_interval_secs = 0\n"
        daemon = self.daemon = self.made(
            f"""
[feeds.mine]
url = "{self.provider.url("/list.txt")}"
{where}
format = "lines"
indicators = [{{ field = "line", type = "net.ip" }}]

[feeds.marking]
url = "{self.provider.url("/list.txt")}"
{where}
format = "lines"
on_warninglist = "mark"
indicators = [{{ field = "line", type = "net.ip" }}]

[feeds.known]
url = "{self.provider.url("/list.json")}"
{where}
format = "warninglist"

[feeds.ours]
file = "ours.json"
format = "warninglist"
"""
        )
        (daemon.directory / "ours.json").write_text(json.dumps(own))
        daemon.start()
        self.assertEqual([hit["feed"] for hit in self.hits("net.ip", other)], ["marking", "mine"])
        (hit,) = wait_until(
            lambda: hits if len(hits := self.hits("net.ip", listed)) == 1 else None,
            "the list is served",
            secs=90,
        )
        self.assertEqual((hit["feed"], hit["Warninglist"]), ("marking", "Known"))
        self.assertEqual(len(self.hits("net.ip", "8.8.8.8")), 1, "a built-in list")
        daemon.ctsd("allow", "add", f"net.ip={other}", "--why", "our scanner", "--by", "me")
        wait_until(lambda: not self.hits("net.ip", other), "it is allowed")

    def history(self, scan_id: str) -> dict[str, Any]:
        """How the feeds' part of a scan stands."""

        def told() -> Answer | None:
            answer = self.daemon.ask("GET", f"/console/scan/{scan_id}")
            return answer if answer.status == 200 else None

        answer = wait_until(told, "the scan is written")
        (one,) = [one for one in answer.json["searches"] if one["searcher"] == "feeds"]
        return dict(one)

    def test_history(self) -> None:
        """A scan tells what was found and is no hit, after a restart, too, without its value."""
        daemon = self.daemon = self.made(
            """
[feeds.mine]
file = "mine.txt"
format = "lines"
indicators = [{ field = "line", type = ["net.ip", "net.name"] }]
"""
        )
        (daemon.directory / "mine.txt").write_text("8.8.8.8\nours.example\nbad.example\n")
        daemon.start()
        self.assertEqual(len(self.hits("net.name", "bad.example")), 1)
        daemon.ctsd("allow", "add", "net.name=ours.example", "--why", "we own it", "--by", "me")
        wait_until(lambda: not self.hits("net.name", "ours.example"), "it is allowed")
        asked = (("net.name", "ours.example"), ("net.ip", "8.8.8.8"))
        scans = [daemon.post(*one).json for one in asked]
        self.assertEqual([scan["hits"] for scan in scans], [[], []])
        before = [self.history(scan["id"]) for scan in scans]
        allowed, listed = (one["suppressed"] for one in before)
        self.assertEqual(
            allowed, [{"feed": "mine", "type": "net.name", "by": "allowed by me: we own it"}]
        )
        self.assertEqual([(one["feed"], one["type"]) for one in listed], [("mine", "net.ip")])
        self.assertNotIn("8.8.8.8", json.dumps(listed))
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual([self.history(scan["id"]) for scan in scans], before)
        told = daemon.ctsd("scan", "net.ip", "8.8.8.8", "--searcher", "feeds").stdout
        self.assertIn(f"no hit: net.ip of feed mine: {listed[0]['by']}", told)

    def test_certificate(self) -> None:
        """An uploaded certificate is found by its fingerprint, whichever form it has."""
        pem = make_pair().pem
        der = ssl.PEM_cert_to_DER_cert(pem.decode())
        daemon = self.daemon = self.made(
            """
[feeds.mine]
file = "mine.txt"
format = "lines"
indicators = [{ field = "line", type = "cert.x509" }]
"""
        )
        (daemon.directory / "mine.txt").write_text(hashlib.sha1(der).hexdigest() + "\n")
        daemon.start()
        self.assertEqual(len(self.hits("cert.x509", hashlib.sha1(der).hexdigest())), 1)
        for data in (pem, der):
            body = multipart(
                part("artifact", b'{"type":"cert.x509"}'),
                part("file", data, file_name='"c.crt"'),
            )
            answer = daemon.ask("POST", "/", body, {"Content-Type": MULTIPART})
            self.assertIn(answer.status, (200, 303))
            final = answer if answer.status == 200 else daemon.finished(answer.json["id"])
            (hit,) = properties(final)
            self.assertEqual(hit["Matched"], "certificate in the file")
        wait_until(lambda: not daemon.uploads(), "the files are removed")

    def test_files(self) -> None:
        """A file of which no feed knows anything is done with when it was read, and removed."""
        daemon = self.daemon = self.made(
            """
[feeds.mine]
file = "mine.txt"
format = "lines"
indicators = [{ field = "line", type = "net.name" }]
"""
        )
        (daemon.directory / "mine.txt").write_text("bad.example\n")
        daemon.start()
        self.assertEqual(len(self.hits("net.name", "bad.example")), 1)
        for type in ("file.content", "email", "cert.x509"):
            body = multipart(
                part("artifact", json.dumps({"type": type, "value": "a"}).encode()),
                part("file", b"Subject: x\r\n\r\nsee http://good.example/", file_name='"a"'),
            )
            answer = daemon.ask("POST", "/", body, {"Content-Type": MULTIPART})
            final = answer if answer.status == 200 else daemon.finished(answer.json["id"])
            self.assertEqual((final.status, properties(final)), (200, []), type)
        wait_until(lambda: not daemon.uploads(), "the files are removed")

    def test_own_file(self) -> None:
        """A file of ours is taken, and again when it changes."""
        daemon = self.daemon = self.made("")
        file = daemon.directory / "list.csv"
        file.write_text("value,why\n203.0.113.9,ours\n")
        daemon.config.write_text(
            daemon.config.read_text()
            + """
[feeds.ours]
title = "Our own list"
file = "list.csv"
format = "csv"
header = true
indicators = [{ field = "value", type = ["net.ip", "net.name", "net.uri"] }]
properties = { why = "why" }
"""
        )
        daemon.start()
        (hit,) = self.hits("net.ip", "203.0.113.9")
        self.assertEqual(hit, {"feed": "Our own list", "verdict": "malicious", "why": "ours"})
        file.write_text("value,why\n203.0.113.9,ours\nbad.example,ours too\n")
        wait_until(lambda: self.hits("net.name", "bad.example"), "the change is seen")

    def test_taxii(self) -> None:
        """
        A collection, given the discovery, a user and a password: page by page, with these to each
        of its addresses. It is as medallion 3.0.0 has it, and OpenTAXII 0.9.3 its addresses.
        """
        wanted = "Basic " + base64.b64encode(b"soc:open sesame").decode()
        collection = "/taxii2/r1/collections/91a7b528-80eb-42ed-a74d-c6fbd5a26116/"
        there = {
            "/taxii2/": {"title": "T", "default": "/taxii2/r1/", "api_roots": ["/taxii2/r1/"]},
            "/taxii2/r1/collections/": {
                "collections": [
                    {"id": collection.split("/")[-2], "title": "Shared", "can_read": True}
                ]
            },
        }
        patterns = [
            "[domain-name:value = 'one.example'] OR [ipv4-addr:value = '203.0.113.9']",
            "[url:value = 'http://two.example/x']",
            "[domain-name:value = 'three.example']",
        ]
        objects = [
            {
                "type": "indicator",
                "id": f"indicator--00000000-0000-4000-8000-{number:012}",
                "pattern": pattern,
                "pattern_type": "stix",
                "valid_from": "2026-01-01T00:00:00Z",
                "revoked": number == 2,
            }
            for number, pattern in enumerate(patterns)
        ]
        asked: list[str] = []

        def server(connection: Connection) -> None:
            path, _, query = connection.asked.path.partition("?")
            if connection.asked.headers.get("authorization") != wanted:
                connection.answer("401 Unauthorized")
                return
            asked.append(query)
            at = len(asked) - 3
            page = {"objects": objects[at : at + 1], "more": at < 2, "next": "a0c5"}
            body = json.dumps(there.get(path, page)).encode()
            added = f"X-TAXII-Date-Added-Last: 2026-01-01T00:00:0{at % 10}.000001Z"
            connection.answer("200 OK", added, body=body)

        for path in (*there, collection + "objects/"):
            self.provider.vices[path] = server
        config = f"""
[searchers]
async = []

[feeds.taxii]
enabled = true
url = "{self.provider.url("/taxii2/")}"
collection = "%s"
page_objects = 1
user = "soc"
password = {{ env = "TAXII_PASSWORD" }}
insecure_http = true
internal = true
min_interval_secs = 0
"""
        environ = {"TAXII_PASSWORD": "open sesame"}
        mistaken = Daemon(Path(self.mktemp()), config % "nope", environ=environ)
        done = mistaken.ctsd("feeds", "update", "taxii", check=False)
        self.assertIn(f"there are: Shared ({collection.split('/')[-2]})", done.stderr)
        asked.clear()
        self.daemon = Daemon(Path(self.mktemp()), config % "shared", environ=environ)
        self.addCleanup(self.daemon.stop)
        self.daemon.start()
        self.assertEqual(len(self.hits("net.name", "one.example")), 1)
        self.assertEqual(len(self.hits("net.uri", "http://two.example/x")), 1)
        self.assertEqual(self.hits("net.name", "three.example"), [], "it is revoked")
        self.assertEqual(asked, ["", "", "limit=1", *["limit=1&next=a0c5"] * 2])
        self.assertNotIn("open sesame", self.daemon.log.read_text())

    def test_workers(self) -> None:
        """Of several processes one brings a feed, one builds its index, and all serve it."""
        config = "workers = 2\n" + self.config.replace("every_secs = 1", "every_secs = 600")
        self.daemon = self.made(config)
        self.daemon.start()
        wait_until(lambda: self.hits("net.uri", LISTED), "one of them serves it")
        for number in range(20):
            self.assertEqual(len(self.hits("net.uri", f"{LISTED}#{number}")), 1)
        log = self.daemon.log.read_text()
        self.assertEqual(log.count("records indexed"), 1, log)
        self.assertEqual(len(self.provider.asked), 1)

    def test_wrong(self) -> None:
        """A feed that is wrong stops the start with one line."""
        daemon = self.made("[feeds.openphish]\nenabled = true\n")
        self.assertEqual(daemon.run().wait(60), 1)
        (line,) = [
            each for each in daemon.log.read_text().splitlines() if "feeds.openphish" in each
        ]
        self.assertRegex(line, r'ctsd\.toml:\d+: feeds\.openphish\.?\w*: .*"accepted"')

    def test_commands(self) -> None:
        """Bringing a file, updating, accepting what was refused, without a daemon."""
        done = self.daemon.ctsd("feeds", "update", "urlhaus")
        self.assertIn("urlhaus: 1 records, 0 rows refused", done.stdout)
        brought = self.daemon.directory / "brought.csv"
        brought.write_bytes(HEAD)
        done = self.daemon.ctsd("feeds", "import", "urlhaus", str(brought), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("0 records", done.stderr)
        self.assertIn("0 records", self.daemon.ctsd("feeds", "accept", "urlhaus").stdout)
        self.daemon.ctsd("feeds", "update")
        tried = self.daemon.ctsd("feeds", "try", "urlhaus", LISTED).stdout
        self.assertIn("1 rows: 1 records", tried)
        self.assertIn("1 found", tried)

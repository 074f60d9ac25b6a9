"""`llmchaos metrics`: pages from addresses and files, its output and exit status."""

import json
import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import promql_parser
import pytest
import yaml
from support.api_server import Reply, api
from support.server_pages import bare, full_page

from pytest_llmchaos.cli import main
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.prometheus import metrics_command, metrics_page
from pytest_llmchaos.servers.canonical import CANONICAL
from pytest_llmchaos.servers.catalogue import server, servers
from pytest_llmchaos.servers.contract import BROKEN, check, selectors_of
from pytest_llmchaos.servers.exposition import parse_page
from pytest_llmchaos.servers.mapping import parse_server, version_key
from pytest_llmchaos.servers.rules import recording_rules

EXPOSITIONS = sorted((Path(__file__).parent / "expositions").glob("*.txt"))
EXPOSITIONS_BY_NAME = {path.stem: path for path in EXPOSITIONS}
PLAIN = "text/plain; version=0.0.4"


def text_of(page):
    """The page as a server writes it."""
    lines = []
    for one in page.series:
        labels = ",".join(f'{name}="{value}"' for name, value in one.labels.items())
        lines.append(f"{one.name}{{{labels}}} {one.value}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def vllm(tmp_path):
    path = tmp_path / "vllm.txt"
    path.write_text(text_of(full_page(server("vllm"))))
    return path


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yml"
    path.write_text("groups: [{name: a, rules: [{alert: Full, expr: 'vllm:gpu_cache_usage_perc > 0.9 and up'}]}]")
    return path


@pytest.fixture
def llmchaos(capsys):
    """Run the command: its exit status, output and errors."""

    def run(*words):
        try:
            status = main(["metrics", *map(str, words)])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def serving(pages):
    """A server of pages by path."""

    def answer(asked):
        found = pages.get(asked.path)
        if found is None:
            return Reply(b'{"detail":"Not Found"}', 404, "application/json")
        return found if isinstance(found, Reply) else Reply(found.encode(), 200, PLAIN)

    return api(answer)


def test_a_file_is_recognised_and_shown(llmchaos, vllm):
    status, out, err = llmchaos(vllm)

    assert (status, err) == (0, "")
    assert re.search(r"^  vLLM .* \(certain\)$", out, re.MULTILINE)
    assert re.search(r"^  llmchaos:requests_running +found +vllm:num_requests_running", out, re.MULTILINE)
    assert "vLLM cannot show:" in out
    assert f"- {server('vllm').never[0]}" in out
    assert all(one.name in out for one in CANONICAL)
    assert max(map(len, out.splitlines())) < 300


def name_of(path):
    return next(one for one in sorted(servers(), key=len, reverse=True) if path.stem.startswith(one))


VERSIONS = {
    name: [path.stem.removeprefix(f"{name}-") for path in EXPOSITIONS if name_of(path) == name] for name in servers()
}


@pytest.mark.parametrize("told", [True, False], ids=["version", "names"])
@pytest.mark.parametrize("path", EXPOSITIONS, ids=lambda path: path.stem)
def test_every_exposition_is_recognised_and_whole(llmchaos, path, told):
    version = path.stem.removeprefix(f"{name_of(path)}-")

    status, out, err = llmchaos(path, "--json", *(["--at", version] if told else []))

    (page,) = json.loads(out)["pages"]
    # Without a version, most pages of old versions may be of new ones that lack a name.
    is_newest = version == max((one for one in VERSIONS[name_of(path)]), key=version_key)
    assert (page["server"], err) == (name_of(path), "")
    assert page["certainty"] == "certain" or (page["certainty"] == "likely" and not told and not is_newest)
    assert [one["name"] for one in page["metrics"] if one["state"] in ("missing", "renamed")] == []
    assert status == 0


def families(path):
    """The first word of each family's names, for each exposition."""
    return sorted({one.split("{")[0].split()[0] for one in path.read_text().splitlines() if one and one[0] != "#"})


@pytest.mark.parametrize("path", EXPOSITIONS, ids=lambda path: path.stem)
def test_a_series_that_an_exposition_loses_is_reported_if_a_metric_reads_it(path):
    """Every series in turn, under its version, with its HELP and TYPE lines."""
    one, version = servers()[name_of(path)], path.stem.removeprefix(f"{name_of(path)}-")
    lines = path.read_text().splitlines()
    before = {cell.metric.key: cell for cell in check(one, parse_page("\n".join(lines)), version)}
    for name in families(path):
        family = re.sub("_(total|bucket|sum|count)$", "", name)
        kept = [line for line in lines if not re.match(rf"(# (HELP|TYPE) ({family}|{name}) |{name}[{{ ])", line)]
        after = {cell.metric.key: cell.state for cell in check(one, parse_page("\n".join(kept)), version)}
        for key, cell in before.items():
            reads = cell.state == "found" and name in {selector.name for selector in selectors_of(cell.entry)}
            either = " or " in cell.entry.expr  # the other side is enough
            assert (after[key] != cell.state) == reads or (reads and either), (name, key)
            assert not reads or either or after[key] in BROKEN or cell.entry.late or cell.entry.needs, (name, key)


def test_a_lost_series_is_an_error(llmchaos, vllm):
    vllm.write_text(vllm.read_text().replace("vllm:num_requests_waiting", "vllm:num_requests_queued"))

    status, out, _ = llmchaos(vllm)

    assert status == 1
    assert re.search(r"llmchaos:requests_waiting +missing +vllm:num_requests_waiting", out)


def test_the_metrics_and_the_version_of_an_address_without_a_path_are_read(llmchaos, vllm):
    with serving({"/metrics": vllm.read_text(), "/version": '{"version": "0.25.1"}'}) as (url, asked):
        status, out, err = llmchaos(url)

    assert (status, err) == (0, "")
    assert out.startswith(f"{url}/metrics\n  vLLM 0.25.1 (certain)\n")
    assert [one.path for one in asked] == ["/metrics", "/version"]
    assert asked[0].headers["accept"].startswith("text/plain;version=0.0.4")


def test_a_version_of_a_build_from_source_breaks_nothing(llmchaos, vllm):
    for words in ((), ("--server", "vllm")):
        with serving({"/metrics": vllm.read_text(), "/version": '{"version": "0.1.dev1+gabc"}'}) as (url, _):
            status, out, err = llmchaos(url, *words)

        assert (status, err) == (0, "")
        assert out.count("It reports version 0.1.dev1+gabc, and its names are of versions at least ") == 1
        assert "renamed" not in out
        assert llmchaos(vllm, *words, "--at", "0.1.dev1+gabc")[0] == 1


def test_a_version_is_no_command_for_the_terminal(llmchaos, vllm):
    with serving({"/metrics": vllm.read_text(), "/version": '{"version": "0.25.1\\u001b[2J"}'}) as (url, _):
        assert "vLLM 0.25.12J (certain)" in llmchaos(url)[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ollama", "--server names {vllm} as ollama, whose metrics begin with "),
        ("vllm-router", "and the metrics page is another: it is of vLLM; correct the entry"),
        ("openai", "--server must be a server with a metrics page, got openai: "),
    ],
)
def test_a_page_of_another_server_than_the_given_one_is_refused(llmchaos, vllm, name, message):
    status, out, err = llmchaos(vllm, "--server", name)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message.format(vllm=vllm) in err


@pytest.mark.parametrize("text", ["", "up 1\n", "node_load1 1\n"])
def test_a_page_without_a_metric_of_the_given_server_is_status_1(llmchaos, tmp_path, text):
    (tmp_path / "m").write_text(text)

    for warm in ((), ("--warm",)):
        status, out, err = llmchaos(tmp_path / "m", "--server", "sglang", *warm)

        assert (status, err) == (1, "")
        assert "SGLang" in out
        assert "(unclear)" in out
        assert "None of the metrics of SGLang is on the page, so nothing shows that it is of this server." in out


def test_the_paths_of_other_servers_are_tried(llmchaos):
    page = text_of(full_page(server("tensorrt-llm")))
    with serving({"/prometheus/metrics": page, "/version": '{"version": 7}'}) as (url, asked):
        status, out, _ = llmchaos(url)

    assert status == 0
    assert out.startswith(f"{url}/prometheus/metrics\n")
    assert asked[0].path == "/metrics"


def test_a_slash_that_the_server_adds_is_followed_once(llmchaos, vllm):
    moved = Reply(b"", 307, PLAIN, {"location": "/metrics/"})
    with serving({"/metrics": moved, "/metrics/": vllm.read_text()}) as (url, _):
        assert llmchaos(url)[0] == 0
    loop = {"/metrics": moved, "/metrics/": Reply(b"", 307, PLAIN, {"location": "/metrics"})}
    with serving(loop) as (url, _):
        status, _, err = llmchaos(url)
        assert (status, err) == (
            2,
            f"llmchaos metrics: {url}/metrics must answer with a metrics page, got 307 to /metrics; give that address\n",
        )


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"", 401, PLAIN), "got 401; give its credentials, such as --header 'Authorization: Bearer $TOKEN'"),
        (Reply(b"", 403, PLAIN), "got 403; give its credentials"),
        (Reply(b"", 404, PLAIN), "got 404; give the path of the metrics"),
        (Reply(b"", 500, PLAIN), "got 500; give the path of the metrics"),
        (
            Reply(b"", 302, PLAIN, {"location": "https://login.example/"}),
            "got 302 to https://login.example/; give that",
        ),
        (Reply(b"<html>", 200, "text/html"), "must be a metrics page in Prometheus' format, got HTML: '<html>'"),
        (Reply(b'{"a": 1}', 200, "application/json"), "must be a metrics page in Prometheus' format, got JSON"),
        (Reply(b"ok\n", 200, PLAIN), "line 1 must be a sample"),
        (None, "must answer within 5 s, got "),
    ],
)
def test_an_address_without_a_page_is_one_error(llmchaos, reply, message):
    with api(lambda _: reply) as (url, _):
        status, out, err = llmchaos(f"{url}/metrics")

    assert (status, out) == (2, "")
    assert err.startswith(f"llmchaos metrics: {url}/metrics")
    assert message in err
    assert err.count("\n") == 1


CREDENTIALS = ("s3cret", "abc", "user")


def test_no_credential_of_an_address_is_printed(llmchaos, vllm):
    def given(url, path="/metrics?token=abc&abc"):
        return f"http://user:s3cret@{url.removeprefix('http://')}{path}"

    with serving({"/metrics?token=abc&abc": vllm.read_text()}) as (url, asked):
        plain, as_json = llmchaos(given(url)), llmchaos(given(url), "--json")
    assert (plain[0], as_json[0]) == (0, 0)
    assert plain[1].startswith(f"{url}/metrics?token=...&...\n  vLLM")
    assert asked[0].headers["authorization"].startswith("Basic ")
    moved = Reply(b"", 302, PLAIN, {"location": "https://user:s3cret@other/metrics?token=abc#abc"})
    replies = [moved, *(Reply(b"", status, PLAIN) for status in (401, 500)), Reply(b"<html>", 200, PLAIN), None]
    tried = [plain, as_json]
    for reply in replies:
        with api(lambda _, reply=reply: reply) as (url, _):
            tried += [llmchaos(given(url)), llmchaos(given(url, ""))]
    assert "got 302 to https://other/metrics?token=...; give" in tried[2][2]
    tried += [llmchaos("http://user:s3cret/abc@host/metrics"), llmchaos("http://user:s3cret@[abc"), llmchaos("http://")]
    tried += [llmchaos("user:s3cret@host/metrics?token=abc"), llmchaos("//user:s3cret@host?abc")]
    assert [status for status, *_ in tried[2:]] == [2] * 15
    assert [(text, word) for _, *texts in tried for text in texts for word in CREDENTIALS if word in text] == []
    assert all(err.count("\n") == 1 for _, _, err in tried[2:])
    assert "the address of a page must have a host and a port" in tried[-3][2]


@pytest.mark.parametrize("wbits", [31, 15], ids=["gzip", "deflate"])
def test_a_page_that_is_compressed_unasked_is_read(llmchaos, vllm, wbits):
    body = zlib.compress(vllm.read_bytes(), wbits=wbits)
    reply = Reply(body, 200, PLAIN, {"content-encoding": "gzip" if wbits == 31 else "deflate"})
    with serving({"/metrics": reply}) as (url, _):
        status, out, err = llmchaos(url)

    assert (status, err) == (0, "")
    assert "vLLM" in out


@pytest.mark.parametrize(
    ("how", "body", "message"),
    [
        ("br", b"x", "must answer without compression or with gzip, got br; turn its compression off"),
        ("gzip", b"a metrics page", "must answer with gzip, as its header states, got other bytes"),
        ("gzip", zlib.compress(b"a 1\n" * 99, wbits=31)[:-9], "but its compressed data ends early"),
        ("gzip", zlib.compress(b"a 1\n" * 999, wbits=31), "but it is longer than 900 bytes"),
    ],
)
def test_an_answer_that_cannot_be_unpacked_is_one_error(llmchaos, monkeypatch, how, body, message):
    monkeypatch.setattr(metrics_page, "_MOST_BYTES", 900)
    with api(lambda _: Reply(body, 200, PLAIN, {"content-encoding": how})) as (url, _):
        status, out, err = llmchaos(f"{url}/metrics")

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_file_is_read_up_to_the_limit_of_an_address(llmchaos, monkeypatch):
    monkeypatch.setattr(metrics_page, "_MOST_BYTES", 900)

    status, _, err = llmchaos("/dev/zero")

    assert (status, err) == (2, "llmchaos metrics: /dev/zero must be a metrics page, got more than 900 bytes\n")


def test_a_closed_port_is_one_error(llmchaos):
    with serving({}) as (url, _):
        pass
    status, out, err = llmchaos(f"{url}/metrics", "--timeout", "2")

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "must answer within 2 s, got ConnectError" in err
    assert "check the address, and that the server runs" in err


def test_headers_have_values_of_variables_and_no_error_shows_them(llmchaos, vllm, monkeypatch):
    monkeypatch.setenv("KEY_OF_TEST", "s3cret")
    line = "Authorization: Bearer $KEY_OF_TEST"
    with serving({"/metrics": vllm.read_text()}) as (url, asked):
        assert llmchaos(url, "--header", line)[0] == 0
    assert {one.headers["authorization"] for one in asked} == {"Bearer s3cret"}
    with api(lambda _: Reply(b"", 401, PLAIN)) as (url, _):
        assert "s3cret" not in llmchaos(url, "--header", line)[2]
    monkeypatch.delenv("KEY_OF_TEST")
    status, _, err = llmchaos(url, "--header", line)
    assert status == 2
    assert "--header: Authorization needs the environment variable KEY_OF_TEST, which is not set" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give the address or file of a metrics page"),
        (
            ["nowhere.txt"],
            "nowhere.txt must be a readable file with a metrics page, or an address that begins with http://",
        ),
        (["PAGE", "--rules", "nowhere.yml"], "nowhere.yml must be a readable file: No such file"),
        (["PAGE", "--slo", "nowhere.yml"], "nowhere.yml: must be a text file"),
        (["PAGE", "--server", "parrot"], "there is no model server 'parrot'"),
        (["PAGE", "--timeout", "0"], "argument --timeout: must be a number of seconds above 0, got '0'"),
        (["PAGE", "--timeout", "soon"], "argument --timeout: must be a number of seconds above 0, got 'soon'"),
        (["PAGE", "--header", "nothing"], "--header must be lines such as"),
        (["PAGE", "--dashboard", "PAGE"], "must be a Grafana dashboard in JSON"),
        (["PAGE", "--tls", "nowhere.pem"], ""),
    ],
)
def test_a_wrong_option_is_status_2(llmchaos, vllm, words, message):
    status, out, err = llmchaos(*[str(vllm) if word == "PAGE" else word for word in words])

    assert message in err
    assert (status, out) == ((2, "") if message else (0, out))


def test_an_unknown_server_is_status_1(llmchaos, tmp_path):
    (tmp_path / "m").write_text("node_load1 1\n")

    status, out, _ = llmchaos(tmp_path / "m")

    assert status == 1
    assert "unknown server" in out
    assert "expected names that begin with one of" in out
    assert llmchaos(tmp_path / "m", "--server", "vllm")[0] == 1
    assert llmchaos(tmp_path / "m", "--write-rules", "-")[0] == 2


def test_every_series_that_a_file_lacks_is_listed_with_its_new_name(llmchaos, vllm, rules):
    status, out, _ = llmchaos(vllm, "--rules", rules)

    assert status == 1
    assert f"  {rules}: alert Full\n    vllm:gpu_cache_usage_perc -> vllm:kv_cache_usage_perc\n" in out
    assert "The same for every server, with recording rules: llmchaos:kv_cache_usage_ratio" in out
    assert "series that the files want: 0 found, 1 not there" in out
    assert "not judged, because they are of other systems: up\n" in out


def test_all_kinds_of_files_are_read(llmchaos, vllm, tmp_path):
    rules, board = tmp_path / "r.yml", tmp_path / "b.json"
    scaled, slo = tmp_path / "k.yml", tmp_path / "s.yml"
    rules.write_text("groups: [{rules: [{record: own, expr: 'vllm:num_requests_running'}]}]")
    board.write_text(json.dumps({"panels": [{"title": "A", "targets": [{"expr": "own + vllm:gone"}]}]}))
    scaled.write_text(
        "{kind: ScaledObject, metadata: {name: m}, spec: {triggers: [{type: prometheus, metadata: {query: 'vllm:gpu_cache_usage_perc'}}]}}"
    )
    objective = yaml.safe_load((Path(__file__).parents[1] / "stack" / "slo.yaml").read_text().split("\n---\n")[1])
    ratio = objective["spec"]["indicator"]["spec"]["ratioMetric"]
    for side, name in (("good", 'llmchaos:requests_done_total{a="b"}'), ("total", "llmchaos:engine_healthy")):
        ratio[side]["metricSource"]["spec"]["query"] = name
    slo.write_text(yaml.safe_dump(objective))

    status, out, err = llmchaos(
        vllm, "--rules", rules, "--dashboard", board, "--scaledobject", scaled, "--slo", slo, "--json"
    )

    found = json.loads(out)
    assert (status, err, found["ok"]) == (1, "", False)
    assert [(one["place"], one["series"], one["new"]) for one in found["wanted"]["lacks"]] == [
        ("panel 'A'", "vllm:gone", []),
        ("ScaledObject m, trigger 1", "vllm:gpu_cache_usage_perc", ["vllm:kv_cache_usage_perc"]),
        ("SLO availability", "llmchaos:engine_healthy", []),
    ]
    assert found["wanted"]["found"] == ["llmchaos:requests_done_total", "own", "vllm:num_requests_running"]


def test_files_that_want_only_what_is_there_are_status_0(llmchaos, vllm, rules):
    rules.write_text("groups: [{rules: [{record: a, expr: 'vllm:kv_cache_usage_perc + llmchaos:requests_running'}]}]")

    status, out, _ = llmchaos(vllm, "--rules", rules)

    assert status == 0
    assert "series that the files want: 2 found\n" in out
    assert "not judged" not in out


def test_several_servers_are_shown_side_by_side(llmchaos, vllm, tmp_path):
    (tmp_path / "sglang.txt").write_text(text_of(full_page(server("sglang"))))

    status, out, _ = llmchaos(vllm, tmp_path / "sglang.txt")

    assert status == 0
    assert re.search(r"^side by side\n  canonical metric +vLLM +SGLang$", out, re.MULTILINE)
    assert re.search(r"^  llmchaos:engine_healthy +absent +absent$", out, re.MULTILINE)
    assert re.search(r"^  llmchaos:requests_running +found +found$", out, re.MULTILINE)


def test_the_json_has_its_shape(llmchaos, vllm):
    found = json.loads(llmchaos(vllm, "--json")[1])

    assert list(found) == ["schema", "ok", "pages", "wanted"]
    assert (found["schema"], found["ok"], found["wanted"]) == ("llmchaos-metrics/1", True, None)
    (page,) = found["pages"]
    assert list(page) == [
        "page",
        "server",
        "title",
        "package",
        "version",
        "since",
        "until",
        "certainty",
        "reasons",
        "metrics",
        "never",
    ]
    assert (page["server"], page["certainty"], page["version"]) == ("vllm", "certain", None)
    assert [one["name"] for one in page["metrics"]] == [one.name for one in CANONICAL]
    assert list(page["metrics"][0]) == ["key", "name", "kind", "unit", "state", "origin", "series", "seen", "note"]
    assert page["metrics"][0]["series"] == ["vllm:num_requests_running"]


def test_recording_rules_are_written(llmchaos, vllm, tmp_path):
    path = tmp_path / "canonical.yml"

    status, out, _ = llmchaos(vllm, "--write-rules", path, "--matchers", 'job="m"')

    assert status == 0
    assert out.endswith(f"wrote {path}\n")
    (group,) = yaml.safe_load(path.read_text())["groups"]
    assert 'vllm:num_requests_running{job="m"}' in [bare(rule["expr"]) for rule in group["rules"]]
    for rule in group["rules"]:
        promql_parser.parse(rule["expr"])
    status, out, err = llmchaos(vllm, "--write-rules", "-", "--matchers", 'job="m"')
    assert (status, out) == (0, path.read_text())
    assert "vLLM" in err
    assert llmchaos("--server", "vllm", "--write-rules", path)[:2] == (0, f"wrote {path}\n")
    assert json.loads(llmchaos(vllm, "--write-rules", path, "--json")[1])["ok"]
    assert llmchaos("--server", "vllm", "--write-rules", tmp_path)[0] == 2


def test_a_version_may_be_given(llmchaos, vllm):
    vllm.write_text(vllm.read_text().replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"))

    status, out, _ = llmchaos(vllm, "--at", "0.25")

    assert status == 1
    assert "vLLM 0.25" in out
    assert "renamed" in out


def test_a_warm_server_must_have_what_is_late(llmchaos, tmp_path):
    page = text_of(full_page(server("sglang")))
    path = tmp_path / "m"
    path.write_text("\n".join(line for line in page.splitlines() if "inter_token" not in line) + "\n")

    assert llmchaos(path)[0] == 0
    assert llmchaos(path, "--warm")[0] == 1


def test_a_query_of_a_dashboard_that_cannot_be_read_is_status_1(llmchaos, vllm, tmp_path):
    board = tmp_path / "b.json"
    panels = [{"title": one, "targets": [{"expr": one}]} for one in ("vllm:num_requests_running", "sum(up", "rate(")]
    panels.append({"title": "Logs", "targets": [{"expr": '{app="x"} |= "y"'}]})

    for count, said in ((3, "1 query could not be read"), (4, "2 queries could not be read")):
        board.write_text(json.dumps({"panels": [*panels[: count - 1], panels[-1]]}))
        status, out, _ = llmchaos(vllm, "--dashboard", board)
        assert status == 1
        assert (
            f"  {said}, so nothing is known about the series:\n  - {board}: panel 'sum(up': the query must be PromQL ("
            in out
        )
        assert out.index("panel 'Logs'") < out.index(said)
    unread = json.loads(llmchaos(vllm, "--dashboard", board, "--json")[1])["wanted"]["unread"]
    assert [one.split(": ")[1] for one in unread] == ["panel 'sum(up'", "panel 'rate('"]
    board.write_text(json.dumps({"panels": [panels[0], panels[-1]]}))
    assert llmchaos(vllm, "--dashboard", board)[0] == 0


def test_a_server_of_another_package_is_named_with_it(llmchaos, vllm, monkeypatch):
    theirs = {"vllm": replace(server("vllm"), package="their-vllm 3.1")}
    monkeypatch.setattr(metrics_command, "servers", lambda: servers() | theirs)

    (line,) = (one for one in llmchaos("--list")[1].splitlines() if one.startswith("vllm "))
    assert " their-vllm 3.1 " in line
    assert "\n  Its file is from their-vllm 3.1.\n" in llmchaos(vllm)[1]
    assert json.loads(llmchaos(vllm, "--json")[1])["pages"][0]["package"] == "their-vllm 3.1"


def test_the_known_servers_are_listed(llmchaos):
    status, out, _ = llmchaos("--list")

    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", *servers()]
    assert re.search(r"^azure .*provider .*\(no metrics page\)$", out, re.MULTILINE)


def test_the_page_may_come_from_the_standard_input(vllm):
    done = subprocess.run(
        [sys.executable, "-m", "pytest_llmchaos.cli", "metrics", "-"],
        input=vllm.read_text(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("-\n  vLLM")


def test_an_address_alone_needs_no_reader_of_files(vllm):
    code = (
        "import sys; from pytest_llmchaos.cli import main; main(['metrics', sys.argv[1]]); "
        "sys.exit(','.join({'yaml', 'pytest_llmchaos.servers.wanted_files'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, vllm], capture_output=True, text=True, check=False, timeout=60)

    assert done.stderr.strip() == ""
    assert "vLLM" in done.stdout


def test_the_help_has_examples(llmchaos):
    status, out, _ = llmchaos("--help")

    assert status == 0
    assert "llmchaos metrics http://localhost:8000 --rules alerts.yml" in out


# --- docs/metrics-contract.md

GUIDE = (Path(__file__).parents[1] / "docs" / "metrics-contract.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guide_has_every_canonical_name_with_its_unit():
    rows = re.findall(r"^\| [^|]+ \| `([\w:]+)` \| (\w+) \|$", GUIDE, re.MULTILINE)

    assert rows == [(one.name, one.unit) for one in CANONICAL]


def test_the_guide_has_the_real_output(llmchaos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("alerts.yml").write_text(blocks("yaml")[0])

    status, out, _ = llmchaos(EXPOSITIONS_BY_NAME["sim-1"], "--rules", "alerts.yml")

    assert status == 1
    for line in blocks("text")[0].splitlines():
        assert line in out.splitlines()


def test_the_guide_has_every_key_of_the_json(llmchaos, vllm, rules):
    found = json.loads(llmchaos(vllm, "--rules", rules, "--json")[1])
    keys = {
        *found,
        *found["pages"][0],
        *found["pages"][0]["metrics"][0],
        *found["wanted"],
        *found["wanted"]["lacks"][0],
    }
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", GUIDE[GUIDE.index("## JSON") :]))))

    assert keys - named == set()


def test_the_guides_server_is_a_valid_file():
    example = next(one for one in blocks("toml") if "title" in one)

    found = parse_server(example, "parrot")

    assert [entry.expr for entry in found.of("waiting")] == ["parrot_queued{}", "parrot_queue_size{}"]
    assert recording_rules([found]).count("record: ") == 10
    with pytest.raises(BadScenario, match="must map each canonical metric"):
        parse_server(example[: example.index("[metrics]\n")], "parrot")


def test_the_guides_package_is_found(tmp_path):
    example, project = (next(one for one in blocks("toml") if key in one) for key in ("title", "[project]"))
    (tmp_path / "parrot.toml").write_text(example)
    (tmp_path / "parrot_metrics.py").write_text(blocks("python")[0])
    (info := tmp_path / "parrot_metrics-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot-metrics\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(project[project.index("[project.entry") :].partition("\n\n")[0].replace(
        '[project.entry-points."pytest_llmchaos.servers"]', "[pytest_llmchaos.servers]").replace('"', ""))  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-m", "pytest_llmchaos.cli", "metrics", "--list"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^parrot +Parrot +engine +2.1 +parrot-metrics 1.0 +parrot_$", done.stdout, re.MULTILINE)

"""The dashboard's server: what it shows, and whom it lets in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from metta.common.errors import UserError
from metta.sweep.report.dashboard import live, server
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store, SweepNotFoundError
from metta.sweep.trial import TrialState
from tests.sweep.report.conftest import EVIL, MADE

LOCAL = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def client(url: str, store: Store) -> Iterator[TestClient]:
    with TestClient(server.make_app(open_store(url), None), base_url=LOCAL) as opened:
        yield opened


@pytest.fixture(scope="module")
def guarded(url: str, store: Store) -> Iterator[TestClient]:
    with TestClient(server.make_app(open_store(url), "right"), base_url="http://10.0.0.7:8765") as opened:
        yield opened


def test_what_the_page_asks_for_is_there(client: TestClient) -> None:
    assert "<title>Metta Sweep</title>" in client.get("/").text
    for name in ("style.css", "page.js", "dashboard.js"):
        assert client.get(f"/assets/{name}").status_code == 200
    assert "Plotly" in client.get("/assets/plotly.js").text
    assert set(client.get("/api/sweeps").json()["sweeps"]) >= {"made", "empty", "failing", EVIL}


def test_a_sweep_is_shown_in_pieces(client: TestClient) -> None:
    overview = client.get("/api/overview", params={"name": "made"}).json()
    rows = client.get("/api/rows", params={"name": "made", "since": 0}).json()
    assert len(rows["rows"]) == MADE
    assert len(rows["rows"][0]) == len(overview["columns"])
    assert client.get("/api/rows", params={"name": "made", "since": rows["revision"]}).json()["rows"] == []
    for plot in overview["plots"]:
        figure = client.get("/api/figure", params={"name": "made", "figure": plot["name"]}).json()
        assert figure["data"]
    trial = client.get("/api/trial", params={"name": "made", "number": 3}).json()
    assert trial["number"] == 3
    assert trial["curve"]["data"]
    assert any("trial=3" in command for _, command in trial["commands"])


def test_the_model_is_asked_in_the_background(client: TestClient) -> None:
    def settled() -> bool:
        revision, known, _ = client.get("/api/version", params={"name": "made"}).json()["version"].split(".")
        return bool(revision == known)

    _wait(settled)
    listed = client.get("/api/overview", params={"name": "made"}).json()
    assert "importance" in [plot["name"] for plot in listed["plots"]]
    assert "Its order of them was good" in listed["findings"]


def test_who_comes_first_finds_the_model_asked(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE", 60.0)
    with TestClient(server.make_app(open_store(url), None, "made"), base_url=LOCAL) as client:
        assert "Its order of them was good" in client.get("/api/overview", params={"name": "made"}).json()["findings"]


def test_a_sweep_that_is_not_there_is_said_at_once(url: str, store: Store) -> None:
    with pytest.raises(SweepNotFoundError):
        server.make_app(open_store(url), None, "nobody")


def test_a_trial_that_ends_is_read_alone(client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = client.get("/api/rows", params={"name": "failing", "since": 0}).json()
    number = store.add("failing", store.trials("failing")[0].params, Outcome(TrialState.COMPLETED, 2.5, 3.0))
    after = client.get("/api/rows", params={"name": "failing", "since": before["revision"]}).json()
    assert [row[:5] for row in after["rows"]] == [[number, "completed", "", 2.5, 3.0]]
    assert client.get("/api/overview", params={"name": "failing"}).json()["ranking"]["best"] == number


def test_what_confirms_a_sweep_is_noticed(client: TestClient, store: Store) -> None:
    before = client.get("/api/version", params={"name": "failing"}).json()["version"]
    store.create_sweep("failing.confirm", store.sweep("failing").config)
    store.enqueue("failing.confirm", store.trials("failing")[0].params, {"source": "confirmation", "trial": 0})
    assert client.get("/api/version", params={"name": "failing"}).json()["version"] != before


def test_running_trials_say_how_far_they_are(client: TestClient, store: Store) -> None:
    from metta.sweep.trial import Progress

    driver = store.join("empty")
    attempt = store.start(driver, 0, store.trials("made")[0].params)
    store.record_progress(attempt, [Progress(500, 1000, 1.0, {"reward": 1.5, "steps_per_second": 500.0})])
    running = client.get("/api/version", params={"name": "empty"}).json()["running"]
    speed = {"speed": 500.0, "speed_unit": "steps/s"}
    assert running == [{"number": 0, "step": 500, **speed, "metric": "reward", "value": 1.5}]
    store.leave(driver)
    assert client.get("/api/version", params={"name": "empty"}).json()["running"] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/overview?name=nobody", 404),
        ("/api/overview", 404),
        ("/api/figure?name=made&figure=nothing", 404),
        ("/api/trial?name=made&number=9999", 404),
        ("/api/trial?name=made&number=-1", 400),
        ("/api/trial?name=made&number=1e3", 400),
        ("/api/rows?name=made&since=", 400),
        ("/assets/report.js", 404),
        ("/assets/..%2f..%2fplots.py", 404),
    ],
)
def test_what_is_not_there_is_refused(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_nothing_can_be_changed(client: TestClient, guarded: TestClient) -> None:
    bearer = {"authorization": "Bearer right"}
    for path in ("/", "/api/overview?name=made", "/api/sweeps", "/assets/page.js"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, path).status_code == 405
            assert guarded.request(method, path, headers=bearer).status_code == 405


def test_names_are_escaped_where_they_become_markup(client: TestClient) -> None:
    overview = client.get("/api/overview", params={"name": EVIL}).json()
    assert "<img" not in overview["findings"] + overview["facts"]
    assert "&lt;img" in overview["findings"]
    assert client.get("/api/overview", params={"name": EVIL}).headers["content-type"] == "application/json"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8765", "localhost.evil", "", "10.0.0.7:8765"])
def test_another_name_than_loopback_is_refused(client: TestClient, host: str) -> None:
    """So that a page elsewhere cannot make its own name lead here (DNS rebinding)."""
    for path in ("/", "/api/sweeps", "/assets/page.js", "/nothing"):
        assert client.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LocalHost:9000", "127.0.0.1:1", "[::1]:8765", "[::1]"])
def test_names_of_loopback_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/sweeps", headers={"host": host}).status_code == 200


def test_without_the_token_nothing_is_shown(guarded: TestClient) -> None:
    for path in ("/", "/api/sweeps", "/api/overview?name=made", "/assets/page.js", "/api/sweeps?token=right"):
        assert guarded.get(path).status_code == 401
        assert guarded.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert guarded.get(path, headers={"cookie": f"{server.COOKIE}8765=wrong"}).status_code == 401
    assert guarded.get("/?token=wrong").status_code == 401
    assert guarded.get("/?token=%C3%A4").status_code == 401


def test_the_token_is_taken_once_and_kept_in_a_cookie(url: str, store: Store) -> None:
    with TestClient(server.make_app(open_store(url), "right"), base_url="http://10.0.0.7:8765") as visitor:
        answer = visitor.get("/?sweep=made&token=right", follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/?sweep=made"
        assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().replace(" ", "").split(";"))
        assert visitor.get("/api/sweeps").status_code == 200
    with TestClient(server.make_app(open_store(url), "right"), base_url="http://10.0.0.7") as program:
        assert program.get("/api/sweeps", headers={"authorization": "Bearer right"}).status_code == 200


def test_dashboards_on_one_host_keep_their_tokens_apart(url: str, store: Store) -> None:
    """A browser sends the cookies of a host to all of its ports."""
    first = TestClient(server.make_app(open_store(url), "one"), base_url="http://10.0.0.7:8765")
    second = TestClient(server.make_app(open_store(url), "two"), base_url="http://10.0.0.7:8766")
    with first, second:
        assert first.get("/?token=one").status_code == 200
        second.cookies = first.cookies
        assert second.get("/api/sweeps").status_code == 401
        assert second.get("/?token=two").status_code == 200
        first.cookies = second.cookies
        assert first.get("/api/sweeps").status_code == second.get("/api/sweeps").status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/sweeps", "/assets/plotly.js", "/nothing"])
def test_every_answer_keeps_the_page_to_itself(client: TestClient, guarded: TestClient, path: str) -> None:
    for answer in (client.get(path), guarded.get(path)):
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_only_loopback_needs_no_token() -> None:
    assert all(server.is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(server.is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.7", "example.org", ""))
    assert server.new_token() != server.new_token()
    assert len(server.new_token()) >= 32


def test_a_port_that_is_taken_is_said() -> None:
    with server.bind("127.0.0.1", 0) as first, pytest.raises(UserError, match="cannot listen on"):
        server.bind("127.0.0.1", first.getsockname()[1])


def test_a_sweep_that_is_removed_or_made_anew_is_noticed(url: str, store: Store) -> None:
    from tests.support.made_sweep import make_sweep

    make_sweep(store, "short", 10)
    with TestClient(server.make_app(open_store(url), None), base_url=LOCAL) as client:
        assert len(client.get("/api/rows", params={"name": "short", "since": 0}).json()["rows"]) == 10
        store.remove_sweep("short")
        assert client.get("/api/rows", params={"name": "short", "since": 0}).status_code == 404
        store.create_sweep("short", store.sweep("empty").config)
        assert client.get("/api/rows", params={"name": "short", "since": 0}).json()["rows"] == []


def _wait(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        threading.Event().wait(0.05)

"""Secrets of URLs are hidden, wherever a URL can hold one; the rest of it stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.common.command_line import shell_line
from metta.common.data_dir import store_in_command
from metta.common.entry_point import EntryPoint, metta_sweep_command
from metta.common.urls import has_hidden, public_text, public_url, secrets_of


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("postgresql+psycopg://me:open@host:5432/d?sslmode=require", "postgresql+psycopg://me:***@host:5432/d?sslmode=require"),
        ("postgresql://me@host/d?password=open&connect_timeout=3", "postgresql://me@host/d?password=***&connect_timeout=3"),
        ("postgresql:///d?host=/run&user=me&pass%77ord=open", "postgresql:///d?host=/run&user=me&pass%77ord=***"),
        ("postgresql://me@host/d?sslkey=open&sslpassword=open", "postgresql://me@host/d?sslkey=***&sslpassword=***"),
        ("postgresql://me:op@en@host/d", "postgresql://me:***@host/d"),
        ("postgresql://me:1/open@host/d", "postgresql://me:***@host/d"),
        ("postgresql://me:o?open#@host/d", "postgresql://me:***@host/d"),
        ("s3://open:open@bucket/runs", "s3://***@bucket/runs"),
        ("https://open@host/x.json", "https://***@host/x.json"),
        ("https://host/x.json?X-Amz-Signature=open&v=1#access_token=open", "https://host/x.json?X-Amz-Signature=***&v=1#access_token=***"),
        ("https://host:8080/@user/x", "https://host:8080/@user/x"),
        ("http://[::1]:80/x@y", "http://[::1]:80/x@y"),
        ("sqlite:////runs of mine/a?b#c%.db", "sqlite:////runs of mine/a?b#c%.db"),
        ("runs/a.json", "runs/a.json"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_secrets(url: str, public: str) -> None:
    assert public_url(url) == public
    assert public_url(public) == public
    assert has_hidden(public) is bool(secrets_of(url)) is (url != public)
    assert public_text(f"store {url}: refused, {url}") == f"store {public}: refused, {public}".replace("***: ", "*** ")


@given(password=st.text(st.characters(codec="utf-8", exclude_characters="\r\n", min_codepoint=33), min_size=6))
@settings(max_examples=50, deadline=None)
def test_no_password_is_shown_however_it_is_written(password: str) -> None:
    assert password not in public_url(f"postgresql://me:{password}@localhost/d")
    assert password not in public_text(f"cannot connect as {password!s}", f"postgresql://me:{password}@localhost/d")


def test_a_printed_command_takes_a_url_with_a_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "postgresql://me:open@host/d"
    for url in (secret, public_url(secret)):  # a store shows its public URL only
        assert metta_sweep_command(url, "show", "a").endswith('metta-sweep show a --store "$METTA_STORE"')
    entry_point = EntryPoint(path="a.b", args={"store": secret}, overrides={"policies": "s3://id:open@bucket/x"})
    assert entry_point.command().endswith("a.b --args store=\"$METTA_STORE\" --overrides 'policies=s3://***@bucket/x'")
    monkeypatch.setenv("METTA_STORE", "postgresql://me@host/d")
    assert store_in_command("postgresql://me@host/d") is None
    assert shell_line(["echo", "x$METTA_STORE"]) == "echo 'x$METTA_STORE'"

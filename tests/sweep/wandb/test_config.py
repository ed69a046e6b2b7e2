"""Whether Weights & Biases is used, and what is said of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metta.common.config import ConfigError
from metta.common.errors import UserError
from metta.sweep.wandb.config import WandbConfig, destination

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without any login."""
    for name in ("API_KEY", "IDENTITY_TOKEN_FILE", "BASE_URL", "MODE", "ENTITY", "PROJECT", "DIR", "CONFIG_DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_nobody_who_is_not_logged_in_hears_of_it() -> None:
    where = destination(WandbConfig())
    assert (where.mode, where.sentence) == ("off", "")


@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_a_login_in_the_environment_counts(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, KEY)
    where = destination(WandbConfig(entity="team", project="games"))
    assert where.mode == "online"
    assert "project team/games" in where.sentence
    assert "--overrides wandb.enabled=false" in where.sentence
    assert KEY not in f"{where}"


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
@pytest.mark.parametrize("file", [".netrc", "_netrc", "elsewhere"])
def test_a_login_in_netrc_counts(file: str, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / file, f"machine {host}\n  login user\n  password {KEY}\n")
    if file == "elsewhere":
        monkeypatch.setenv("NETRC", "~/elsewhere")
    assert destination(WandbConfig()).mode == "online"


def test_a_login_for_another_server_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / ".netrc", f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert destination(WandbConfig()).mode == "off"
    write(tmp_path / ".netrc", f"machine wandb.example.org\n  login user\n  password {KEY}\n")
    assert destination(WandbConfig()).mode == "online"


def test_a_login_and_a_server_in_settings_files_count(tmp_path: Path) -> None:
    write(tmp_path / ".config/wandb/settings", f"[default]\nbase_url = https://one.example.org\napi_key = {KEY}\n")
    write(tmp_path / "wandb/settings", "[default]\nbase_url = https://two.example.org/\n")
    where = destination(WandbConfig(project="games"))
    assert (where.mode, where.mirror) == ("online", "https://two.example.org games")


@pytest.mark.parametrize("text", ["machine", "\x00", "machine a login b"])
def test_a_damaged_netrc_is_no_login(text: str, tmp_path: Path) -> None:
    write(tmp_path / ".netrc", text)
    assert destination(WandbConfig()).mode == "off"


def test_turned_off_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert destination(WandbConfig(enabled=False)).mode == "off"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert destination(WandbConfig()).mode == "off"


def test_offline_needs_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    where = destination(WandbConfig())
    assert where.mode == "offline"
    assert "wandb sync" in where.sentence


def test_asked_for_without_a_login_is_an_error() -> None:
    with pytest.raises(UserError, match="wandb login"):
        destination(WandbConfig(enabled=True))


def test_asked_for_without_the_client_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, *more: Any) -> Any:
        return None if name == "wandb" else whole(name, *more)

    whole = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert destination(WandbConfig()).mode == "off"
    with pytest.raises(UserError, match="the client is missing: "):
        destination(WandbConfig(enabled=True))


def test_the_environment_names_entity_and_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_PROJECT", "games")
    config = WandbConfig()
    assert (config.entity, config.project) == ("team", "games")
    assert WandbConfig(project="own").project == "own"


@pytest.mark.parametrize("value", ["perhaps", 3, None])
def test_enabled_is_yes_no_or_auto(value: Any) -> None:
    with pytest.raises(ConfigError, match="enabled"):
        WandbConfig().override("enabled", value)


def test_finding_out_does_not_import_the_client() -> None:
    code = (
        "import sys; from metta.sweep.wandb import mirror, training; "
        "mirror.destination(mirror.WandbConfig()); sys.exit('wandb' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

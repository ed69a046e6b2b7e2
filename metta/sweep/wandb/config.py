"""Whether and where to log to Weights & Biases. The client is not imported here, because that takes a second."""

from __future__ import annotations

import configparser
import importlib.util
import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from metta.common.config import Config
from metta.common.data_dir import data_dir
from metta.common.distribution import install_command
from metta.common.errors import UserError

DEFAULT_URLS = ("https://api.forge.coreweave.com", "https://api.wandb.ai")
"""The client's default server, and its older name. A login may be stored under either."""

Mode = Literal["online", "offline", "off"]


class WandbConfig(Config):
    """Logging to Weights & Biases.

    Attributes:
        enabled: "auto" logs if the client is installed and logged in.
        entity: user or team; None is the default of the login.
        project: the project's name.
        log_policy: log the policy of the best trial, when the sweep ends, as an artefact of its run.
    """

    enabled: bool | Literal["auto"] = "auto"
    entity: str | None = Field(default_factory=lambda: os.environ.get("WANDB_ENTITY") or None)
    project: str = Field(
        default_factory=lambda: os.environ.get("WANDB_PROJECT") or "metta-sweep",
        pattern=r"^[^/\\#?%:]{1,128}$",
    )
    log_policy: bool = False


@dataclass(frozen=True)
class Destination:
    """Where runs are logged.

    Attributes:
        mode: "offline" keeps them in files for ``wandb sync``.
        mirror: identifies the destination; the store records sent items under it.
        sentence: tells the user where runs are logged and how to turn that off; empty if there is nothing to say.
    """

    mode: Mode
    mirror: str
    sentence: str


def destination(config: WandbConfig) -> Destination:
    """Determine where runs are logged, without network access.

    Raises:
        UserError: W&B was requested but cannot be used; the message says what to do.
    """
    installed = importlib.util.find_spec("wandb") is not None
    mode = os.environ.get("WANDB_MODE", "").strip().lower() or _settings().get("mode", "online")
    if config.enabled is False:
        return Destination("off", "", "")
    if config.enabled is True and not installed:
        raise UserError(f"wandb.enabled=true: the client is missing: {install_command('wandb')}")
    if not installed or mode == "disabled":
        return Destination("off", "", "")
    place = f"{config.entity or ''}/{config.project}".removeprefix("/")
    turn_off = "turn that off with --overrides wandb.enabled=false"
    if mode in ("offline", "dryrun"):
        folder = data_dir() / "wandb"
        sentence = f"Weights & Biases is offline: runs for {place} are kept in {folder} for `wandb sync`; {turn_off}"
        return Destination("offline", f"offline {folder.resolve()} {place}", sentence)
    url = base_url()
    if not logged_in():
        if config.enabled is True:
            raise UserError(f"wandb.enabled=true: not logged in to {url}; run: wandb login")
        return Destination("off", "", "")
    host = urlsplit(url).netloc
    sentence = f"every trial is logged to Weights & Biases, project {place} at {host}; {turn_off}"
    return Destination("online", f"{url} {place}", sentence)


def base_url() -> str:
    """The server's address, found as the client finds it."""
    return (os.environ.get("WANDB_BASE_URL") or _settings().get("base_url") or DEFAULT_URLS[0]).rstrip("/")


def logged_in() -> bool:
    """Whether the client would find credentials for the server. The key itself is not kept."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _settings().get("api_key"):
        return True
    url = base_url()
    hosts = {urlsplit(name).netloc for name in (DEFAULT_URLS if url in DEFAULT_URLS else (url,))}
    try:
        return bool(hosts & netrc.netrc(_netrc_path()).hosts.keys())
    except (OSError, netrc.NetrcParseError):
        return False


def _netrc_path() -> Path:
    if path := os.environ.get("NETRC"):
        return Path(path).expanduser()
    paths = [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]
    return next((path for path in paths if path.exists()), paths[0])


def _settings() -> dict[str, str]:
    """The client's settings: the user's file, overridden by the working folder's file."""
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    local = Path(os.environ.get("WANDB_DIR") or ".")
    files = configparser.ConfigParser(interpolation=None)
    try:
        files.read([user / "settings", local / ".wandb" / "settings", local / "wandb" / "settings"])
        return dict(files["default"]) if "default" in files else {}
    except (OSError, configparser.Error):
        return {}

"""URLs that may be shown: the secrets in them are hidden."""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"
"""Replaces a secret."""

_URL = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]{0,40}://[^\s"'<>`]*""")  # bounded: a text may be one long word
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|signature|^sig$|^auth|jwt", re.IGNORECASE)
_PAIR = re.compile(r"(?<=[?&;#])([^=&;#\s]+)=([^&;#\s]*)")
_DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite")


def public_url(url: str) -> str:
    """The URL with ``***`` for each secret: a password, the login of a file server, a query such as ``?token=``.

    It is for messages. Parts that cannot be parsed as a URL are hidden.

    Example:
        >>> public_url("postgresql://me:open@host/sweeps?sslmode=require&password=open")
        'postgresql://me:***@host/sweeps?sslmode=require&password=***'
        >>> public_url("s3://id:secret@bucket/runs"), public_url("runs/a.json")
        ('s3://***@bucket/runs', 'runs/a.json')
    """
    public, _ = _split(url)
    return public


def secrets_of(url: str) -> list[str]:
    """The secrets in a URL, as written there and decoded."""
    _, secrets = _split(url)
    return [each for each in dict.fromkeys(each for text in secrets for each in (text, unquote(text))) if each]


def public_text(text: str, *urls: str) -> str:
    """Text with hidden secrets: those of every URL in it, and those of `urls` anywhere in it."""
    for secret in sorted({each for url in urls for each in secrets_of(url)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _URL.sub(lambda match: public_url(match[0]), text) if "://" in text else text


def has_hidden(public: str) -> bool:
    """Whether `public_url` has hidden a part of this URL, so that it cannot be used."""
    return HIDDEN in public


def _split(url: str) -> tuple[str, list[str]]:
    """The public form of a URL, and its secrets as written."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url, []
    is_database = scheme.partition("+")[0].lower() in _DATABASES
    login, place = _login(rest, is_database)
    secrets: list[str] = []

    def hidden(match: re.Match[str]) -> str:
        if match[2].startswith(HIDDEN) or not _SECRET_NAME.search(unquote_plus(match[1])):
            return match[0]
        secrets.append(match[2])
        return f"{match[1]}={HIDDEN}"

    place = _PAIR.sub(hidden, place)
    user, colon, password = login.partition(":")
    secrets += [password] if is_database or not user else [login, user, password]
    shown = f"{user}:{HIDDEN}@" if colon and is_database else f"{user if is_database else HIDDEN}@"
    return f"{scheme}://{shown if login else ''}{place}", [each for each in secrets if each and each != HIDDEN]


def _login(rest: str, is_database: bool) -> tuple[str, str]:
    """The parts before and after the @ of a URL. A password should not contain @ / ? or #, but may."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    port = re.sub(r"^\[[^]]*\]", "", authority).partition(":")
    is_password = bool(port[1]) and (is_database or not port[2].isdecimal())
    end = rest.rfind("@") if is_password and "@" in rest[len(authority) :] else authority.rfind("@")
    return rest[: max(end, 0)], rest[end + 1 :]

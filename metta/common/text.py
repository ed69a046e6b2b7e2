"""Text from outside: in UTF-8, UTF-16 or UTF-32, which its first bytes show, and of any length."""

from __future__ import annotations

import codecs

UTF_8 = "utf-8-sig"
_BY_MARK = {  # UTF-32 first, because its mark begins as that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BY_ZEROS = {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}


def encoding_of(data: bytes) -> str:
    """The encoding that the beginning of `data` shows: by its byte order mark, or by the zeros in two ASCII letters."""
    marked = (name for mark, name in _BY_MARK.items() if data.startswith(mark))
    zeros = "".join("x" if byte else "0" for byte in data[:4])
    return next(marked, _BY_ZEROS.get(zeros, UTF_8))


def decoded(data: bytes, errors: str = "strict") -> str:
    """Text without its byte order mark.

    Example:
        >>> decoded("a".encode("utf-16")), decoded(b"\\xef\\xbb\\xbfa")
        ('a', 'a')
    """
    return data.decode(encoding_of(data), errors)


def shortened(text: str, longest: int) -> str:
    """The beginning and the end of a text with more than `longest` characters."""
    left_out = len(text) - longest
    if left_out <= 0:
        return text
    return f"{text[: longest // 2]}\n... {left_out:,} characters ...\n{text[-(longest // 2) :]}"

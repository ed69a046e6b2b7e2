"""Errors for users."""

from metta.common.errors import UserError


def test_a_message_with_a_very_long_text_is_shown_in_part() -> None:
    message = str(UserError(f"the file {'x' * 1_000_000}: not found"))
    assert message.startswith("the file x")
    assert message.endswith("x: not found")
    assert len(message) < 20_000

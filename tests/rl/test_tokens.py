import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metta.rl.environment import EMPTY, GLOBAL_LOCATION, EnvironmentSpec
from metta.rl.policy import Policy
from metta.rl.tokens import PIECE, TokenBatch, Vocabulary, sum_embeddings

SPEC = EnvironmentSpec(
    num_agents=1,
    num_tokens=12,
    view=(3, 5),
    actions=("noop", "north"),
    features=("tag", "last_action", "inv:ore", "agent_id", "vibe"),
    tags=("type:wall", "type:altar", "type:mine"),
    vibes=(),
)
LOCATIONS = [row << 4 | column for row in range(3) for column in range(5)]


def token() -> st.SearchStrategy[tuple[int, int, int]]:
    location = st.sampled_from([*LOCATIONS, GLOBAL_LOCATION])
    amount = st.tuples(location, st.sampled_from([2, 3, 4]), st.integers(0, 255))
    return st.one_of(
        amount,
        st.tuples(location, st.just(0), st.integers(0, 2)),
        st.tuples(location, st.just(1), st.integers(0, 1)),
    )


def observations() -> st.SearchStrategy[list[list[tuple[int, int, int]]]]:
    return st.lists(st.lists(token(), max_size=12), min_size=1, max_size=5)


def pack(batch: list[list[tuple[int, int, int]]]) -> np.ndarray:
    packed = np.full((len(batch), 12, 3), EMPTY, dtype=np.uint8)
    for row, tokens in zip(packed, batch, strict=True):
        for place, each in enumerate(tokens):
            row[place] = each
    return packed


def expected_sum(tokens: list[tuple[int, int, int]], vocabulary: Vocabulary, table: torch.Tensor) -> torch.Tensor:
    """The sum of one observation's embeddings, token by token: 3 tags, ore and vibe have places, 2 actions do not."""
    total = torch.zeros(table.shape[1])
    for location, feature, value in tokens:
        if feature == 3 or (feature in (2, 4) and value == 0):
            continue
        if feature == 1:
            total += table[value]
            continue
        place = 15 if location == GLOBAL_LOCATION else LOCATIONS.index(location)
        channel = {0: value, 2: 3, 4: 4}[feature]
        weight = 1.0 if feature == 0 else 1 + float(np.log2(value)) / 8
        total += weight * table[2 + place * 5 + channel]
    return total


@settings(max_examples=60, deadline=None)
@given(observations())
def test_an_observation_is_the_sum_of_its_tokens(batch: list[list[tuple[int, int, int]]]) -> None:
    vocabulary = Vocabulary(SPEC)
    assert (vocabulary.num_placeless, vocabulary.num_channels) == (2, 5)
    table = torch.randn(2 + 16 * 5, 4, generator=torch.Generator().manual_seed(0))
    tokens = vocabulary.encode(pack(batch))
    sums = sum_embeddings(table, tokens)
    for got, observation in zip(sums, batch, strict=True):
        torch.testing.assert_close(got, expected_sum(observation, vocabulary, table), atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(observations())
def test_the_gradient_of_the_sums_is_that_of_torch(batch: list[list[tuple[int, int, int]]]) -> None:
    assert_gradient_is_torchs(Vocabulary(SPEC).encode(pack(batch)), rows=2 + 16 * 5)


@pytest.mark.parametrize("uses", [PIECE - 1, PIECE, PIECE + 1, 5 * PIECE])
def test_the_gradient_of_a_row_that_is_used_often_is_that_of_torch(uses: int) -> None:
    rows = torch.cat([torch.ones(uses), torch.full((3,), 2)]).to(torch.int32)
    weights = torch.linspace(0.5, 1.5, len(rows))
    assert_gradient_is_torchs(TokenBatch(rows, weights, torch.arange(len(rows) + 1, dtype=torch.int32)), rows=4)


def assert_gradient_is_torchs(tokens: TokenBatch, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(rows, 4, generator=generator, requires_grad=True)
    upstream = torch.randn(len(tokens), 4, generator=generator)
    expected = torch.nn.functional.embedding_bag(
        tokens.rows,
        table,
        tokens.offsets,
        mode="sum",
        per_sample_weights=tokens.weights,
        include_last_offset=True,
    )
    torch.testing.assert_close(
        torch.autograd.grad(sum_embeddings(table, tokens), table, upstream),
        torch.autograd.grad(expected, table, upstream),
        atol=1e-5,
        rtol=1e-5,
    )


@settings(max_examples=60, deadline=None)
@given(observations(), observations(), st.data())
def test_selecting_from_joined_batches_is_encoding_the_selected(
    first: list[list[tuple[int, int, int]]], second: list[list[tuple[int, int, int]]], data: st.DataObject
) -> None:
    vocabulary = Vocabulary(SPEC)
    joined = TokenBatch.concatenate([vocabulary.encode(pack(first)), vocabulary.encode(pack(second))])
    both = first + second
    assert len(joined) == len(both)
    chosen = data.draw(st.lists(st.integers(0, len(both) - 1), min_size=1, max_size=6))
    selected = joined.select(torch.tensor(chosen))
    direct = vocabulary.encode(pack([both[index] for index in chosen]))
    for name in ("rows", "weights", "offsets"):
        torch.testing.assert_close(getattr(selected, name), getattr(direct, name))


def test_a_higher_digit_is_a_larger_amount_of_the_same() -> None:
    spec = EnvironmentSpec(1, 4, (3, 3), ("noop",), ("inv:ore", "inv:ore:p1"), (), ())
    vocabulary = Vocabulary(spec)
    assert vocabulary.num_channels == 1
    tokens = vocabulary.encode(np.array([[(17, 0, 255)], [(17, 1, 1)], [(17, 1, 2)]], dtype=np.uint8))
    assert len(set(tokens.rows.tolist())) == 1
    torch.testing.assert_close(tokens.weights, torch.tensor([2.0, 2.0, 2.125]), atol=1e-3, rtol=0)


def test_places_are_grouped_by_direction() -> None:
    directions = Vocabulary(SPEC).directions
    grid = directions[:-1].reshape(3, 5)  # the agent is in the middle
    assert grid[1, 3] == grid[1, 4]  # both straight to the right
    assert grid[0, 4] == grid[0, 3]  # both to the right and up, and not more up than right
    assert len({grid[0, 2], grid[2, 2], grid[1, 0], grid[1, 4], grid[0, 0], grid[0, 4], grid[2, 0], grid[2, 4]}) == 8
    assert directions[-1] not in grid


def test_what_is_learnt_about_a_direction_applies_to_all_its_places() -> None:
    vocabulary = Vocabulary(SPEC)
    policy = Policy(vocabulary, num_actions=2, hidden_size=8)
    with torch.no_grad():
        policy.place_embeddings.zero_()
        near, far, left = (policy.embeddings()[2:].view(16, 5, 8)[place] for place in (8, 9, 5))
    torch.testing.assert_close(near, far)
    assert not torch.allclose(near, left)


def test_a_policy_treats_each_observation_independently() -> None:
    vocabulary = Vocabulary(SPEC)
    policy = Policy(vocabulary, num_actions=2, hidden_size=8)
    batch = [[(0, 0, 1), (GLOBAL_LOCATION, 1, 1)], [], [(18, 2, 3)]]
    logits, values = policy(vocabulary.encode(pack(batch)))
    assert logits.shape == (3, 2)
    for index, observation in enumerate(batch):
        alone, value = policy(vocabulary.encode(pack([observation])))
        torch.testing.assert_close(logits[index], alone[0])
        torch.testing.assert_close(values[index], value[0])

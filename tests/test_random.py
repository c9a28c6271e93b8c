import jax

from floral.random import stream

KEY = jax.random.key(3)


def _numbers(key):
    return tuple(jax.random.key_data(key).tolist())


def test_the_same_name_and_indices_give_the_same_key(same):
    same(stream(KEY, "order", 3, 1), stream(KEY, "order", 3, 1))


def test_name_number_of_indices_and_their_order_all_tell_streams_apart():
    keys = [
        KEY,
        stream(KEY, "order"),
        stream(KEY, "cohort"),
        stream(KEY, "order", 0),
        stream(KEY, "order", 1),
        stream(KEY, "order", 0, 1),
        stream(KEY, "order", 1, 0),
        stream(jax.random.key(4), "order"),
    ]
    assert len({_numbers(key) for key in keys}) == len(keys)


def test_an_index_is_folded_in_last_so_a_stream_can_be_made_once_for_many_clients(same):
    same(jax.random.fold_in(stream(KEY, "order", 2), 5), stream(KEY, "order", 2, 5))


def test_a_traced_index_gives_the_key_of_the_number(same):
    same(jax.jit(lambda i: stream(KEY, "order", i))(7), stream(KEY, "order", 7))


def test_a_stream_folds_in_the_checksum_of_its_name_then_its_indices(same):
    # Saved states resume on other randomness if this changes. CRC-32 of b"order" is the number.
    by_hand = jax.random.fold_in(jax.random.fold_in(KEY, 4113142680), 3)
    same(stream(KEY, "order", 3), by_hand)

"""Coins: private, reproducible, separated by use, and exactly the law that is claimed."""

import copy
import hashlib
import hmac
import os
import pickle
import stat
import tempfile

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from prism_privacy.errors import CoinError, InvalidParameter
from prism_privacy.masks.coins import CoinSecret, CoinStream, release_bits
from prism_privacy.masks.fixed_point import SCALE

KEY = bytes(range(32))
HASH = hashlib.sha256(b"theta").digest()


def stream(purpose="mask", round=1, federation="fed", broadcast=HASH, key=KEY):
    return CoinSecret.for_test(key).stream(federation, round, broadcast, purpose)


def documented_words(count, federation="fed", round=1, broadcast=HASH, purpose="mask"):
    """The stream as its docstring says, from hmac and AES alone."""
    fields = [federation.encode(), round.to_bytes(8, "big"), broadcast, purpose.encode()]
    info = b"prism-privacy/v1/coins/stream\0" + b"".join(len(f).to_bytes(4, "big") + f for f in fields)
    extracted = hmac.new(bytes(32), KEY, hashlib.sha256).digest()
    key = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * count)), dtype="<u4")


@pytest.mark.parametrize("size", [0, 1, 5, 32_767, 32_768, 32_769, 100_001])
def test_bits_are_the_documented_comparison_whatever_the_chunks(size):
    p = np.random.default_rng(size).integers(0, SCALE + 1, size, dtype=np.uint32)
    expected = (documented_words(size) >> 8 < p).astype(np.uint8) if size else np.zeros(0, np.uint8)
    bits = release_bits(p, stream())
    assert bits.dtype == np.uint8
    assert np.array_equal(bits, expected)


def test_a_stream_read_in_pieces_gives_the_same_bits_as_at_once():
    p = np.random.default_rng(0).integers(0, SCALE + 1, 1000, dtype=np.uint32)
    coins = stream()
    pieces = np.concatenate([release_bits(p[:300], coins), release_bits(p[300:], coins)])
    assert np.array_equal(pieces, release_bits(p, stream()))
    assert np.array_equal(release_bits(p.reshape(10, 100), stream()).ravel(), pieces)


def test_probability_zero_and_one_are_certain_and_their_neighbours_compare_to_single_draws():
    words = documented_words(4096) >> 8
    bits = release_bits(np.full(4096, SCALE, np.uint32), stream())
    assert bits.all()
    assert not release_bits(np.zeros(4096, np.uint32), stream()).any()
    # the bit turns at k = u + 1 exactly: Bernoulli(k / 2^24) counts k of the 2^24 equally likely draws
    assert release_bits(words + np.uint32(1), stream()).all()
    assert not release_bits(words.astype(np.uint32), stream()).any()


@pytest.mark.parametrize(
    "level", [1 << 8, SCALE // 20, SCALE // 4, SCALE // 2, SCALE - SCALE // 4, SCALE - 1]
)
def test_the_number_of_ones_fits_its_exact_binomial_law(level):
    size = 1 << 21
    ones = int(release_bits(np.full(size, level, np.uint32), stream(purpose=f"fit {level}")).sum())
    assert stats.binomtest(ones, size, level / SCALE).pvalue > 1e-4


def test_a_flip_that_is_one_percent_off_would_be_seen():
    size = 1 << 21
    ones = int(release_bits(np.full(size, SCALE // 4, np.uint32), stream(purpose="power")).sum())
    assert stats.binomtest(ones, size, 0.24).pvalue < 1e-60


def test_mixed_probabilities_fit_bin_by_bin():
    size = 1 << 21
    p = np.random.default_rng(4).integers(0, SCALE + 1, size, dtype=np.uint32)
    bits = release_bits(p, stream(purpose="mixed"))
    band = (p >> np.uint32(18)).clip(0, 63)
    ones = np.bincount(band, weights=bits, minlength=64)
    mean = np.bincount(band, weights=p / SCALE, minlength=64)
    variance = np.bincount(band, weights=p / SCALE * (1 - p / SCALE), minlength=64)
    assert stats.chi2.sf(float(((ones - mean) ** 2 / variance).sum()), 64) > 1e-4


def test_neighbouring_bits_and_rounds_and_clients_are_independent():
    size = 1 << 20
    p = np.full(size, SCALE // 2, np.uint32)
    a = release_bits(p, stream())
    for b in (
        np.roll(a, 1), release_bits(p, stream(round=2)), release_bits(p, stream(purpose="other")),
        release_bits(p, stream(federation="fee")), release_bits(p, stream(broadcast=bytes(32))),
        release_bits(p, stream(key=bytes(32))),
    ):  # fmt: skip
        assert stats.binomtest(int((a ^ b).sum()), size, 0.5).pvalue > 1e-4


def test_fields_cannot_be_shifted_into_one_another():
    assert stream(federation="ab", purpose="c").bytes(16) != stream(federation="a", purpose="bc").bytes(16)


def test_the_same_round_gives_the_same_coins_after_a_restart(tmp_path):
    path = tmp_path / "coins"
    first = CoinSecret.create(path).stream("fed", 3, HASH, "mask").bytes(64)
    assert CoinSecret.load(path).stream("fed", 3, HASH, "mask").bytes(64) == first
    assert not CoinSecret.load(path).is_test
    assert not CoinSecret.load(path).stream("fed", 3, HASH, "mask").is_test


def test_two_clients_never_share_a_secret(tmp_path):
    streams = {CoinSecret.create(tmp_path / str(i)).stream("f", 0, HASH, "m").bytes(32) for i in range(20)}
    assert len(streams | {CoinSecret().stream("f", 0, HASH, "m").bytes(32)}) == 21


def test_the_file_is_private_and_is_never_overwritten(tmp_path):
    path = tmp_path / "coins"
    old = os.umask(0)
    try:
        CoinSecret.create(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(CoinError, match="exists already"):
        CoinSecret.create(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o610])
def test_a_secret_that_others_can_touch_is_refused(tmp_path, mode):
    path = tmp_path / "coins"
    CoinSecret.create(path)
    path.chmod(mode)
    with pytest.raises(CoinError, match=f"mode {mode:04o}"):
        CoinSecret.load(path)


def test_what_is_no_coin_secret_is_refused_without_showing_it(tmp_path):
    path = tmp_path / "coins"
    header = b"prism-privacy/v1/coins "
    for content in (b"", header + b"zz\n", header + b"ab" * 31, b"\xff" * 99, b"other " + b"ab" * 32):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(CoinError, match="does not hold a coin secret") as caught:
            CoinSecret.load(path)
        assert "abab" not in str(caught.value)
    with pytest.raises(CoinError, match="does not exist"):
        CoinSecret.load(tmp_path / "none")
    with pytest.raises(CoinError, match="not a regular file"):
        CoinSecret.load(tmp_path)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(CoinError, match="cannot be opened"):
        CoinSecret.load(tmp_path / "link")


def test_a_secret_of_another_user_or_that_is_no_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "coins"
    CoinSecret.create(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(CoinError, match="belongs to user"):
        CoinSecret.load(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(CoinError, match="not a regular file"):
        CoinSecret.load(tmp_path / "pipe")


def test_where_no_file_is_private_no_secret_is_kept(tmp_path, monkeypatch):
    real = tempfile.mkstemp

    def open_to_all(**more):
        descriptor, name = real(**more)
        os.fchmod(descriptor, 0o644)
        return descriptor, name

    monkeypatch.setattr(tempfile, "mkstemp", open_to_all)
    with pytest.raises(CoinError, match="cannot keep a file private"):
        CoinSecret.create(tmp_path / "coins")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_finished_is_not_left_behind(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        CoinSecret.create(tmp_path / "coins")
    assert list(tmp_path.iterdir()) == []


def test_secrets_show_in_no_repr_pickle_or_copy():
    secret = CoinSecret.for_test(KEY)
    coins = secret.stream("fed", 1, HASH, "mask")
    for thing in (secret, coins):
        assert KEY.hex() not in repr(thing)
        assert repr(KEY) not in repr(thing)
        assert not hasattr(thing, "__dict__")
        for spread in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(CoinError, match="cannot be pickled"):
                spread(thing)
    assert repr(secret) == "CoinSecret(test)"
    assert repr(CoinSecret()) == "CoinSecret(secret)"
    assert repr(coins) == "CoinStream(test)"
    assert secret.is_test
    assert coins.is_test


@pytest.mark.parametrize(
    "arguments",
    [("", 1, HASH, "mask"), ("f", -1, HASH, "mask"), ("f", 1 << 64, HASH, "mask"), ("f", True, HASH, "mask"),
     ("f", 1, b"short", "mask"), ("f", 1, HASH.hex(), "mask"), ("f", 1, HASH, ""), (b"f", 1, HASH, "mask"),
     ("f", 1.0, HASH, "mask")],
)  # fmt: skip
def test_a_stream_without_its_context_is_refused(arguments):
    with pytest.raises(InvalidParameter):
        CoinSecret.for_test(KEY).stream(*arguments)


@pytest.mark.parametrize("key", [b"", bytes(31), bytearray(32), "k" * 32])
def test_a_test_key_of_another_form_is_refused(key):
    with pytest.raises(InvalidParameter):
        CoinSecret.for_test(key)


@pytest.mark.parametrize(
    "p", [np.zeros(3), np.zeros(3, np.int64), [1, 2], np.array([SCALE + 1], np.uint32), np.zeros(3, np.uint8)]
)
def test_probabilities_that_are_not_units_are_refused(p):
    with pytest.raises(InvalidParameter, match="p must"):
        release_bits(p, stream())


def test_a_probability_out_of_range_is_counted_and_not_quoted():
    with pytest.raises(InvalidParameter, match=r"^p must lie in \[0, 2\^24\] units, 1 of 2 do not$"):
        release_bits(np.array([3, SCALE + 12345], np.uint32), stream())


def test_a_stream_ends_with_an_error_and_not_with_repeated_coins():
    coins = stream()
    coins._left = 100
    assert isinstance(coins, CoinStream)
    with pytest.raises(CoinError, match="at most"):
        release_bits(np.zeros(26, np.uint32), coins)
    with pytest.raises(InvalidParameter, match="count"):
        coins.bytes(-1)


def test_input_probabilities_are_left_untouched_and_may_be_strided():
    p = np.random.default_rng(9).integers(0, SCALE + 1, 2000, dtype=np.uint32)
    kept = p.copy()
    bits = release_bits(p[::2], stream())
    assert np.array_equal(p, kept)
    assert np.array_equal(bits, release_bits(p[::2].copy(), stream()))

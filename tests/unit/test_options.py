"""Numbers on the command line."""

import argparse

import pytest

from gridmad.options import count, seconds


def test_times() -> None:
    for text in ("0.001", "1", "2.5", "1e9", " 3 "):
        assert seconds(text) == float(text)
    for text in ("", "x", "nan", "inf", "-1", "0", "1e-300", "1e10", "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is no time from 0\.001 to 1e"):
            seconds(text)
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to"):
        seconds("0.9", shortest=1.0)


def test_counts() -> None:
    for text in ("1", "007", "1000000"):
        assert count(text) == int(text)
    for text in ("", "0", "-1", "1.0", "+1", "1_0", "\u0663", "1000001", "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError, match=r"from 1 to 1000000$"):
            count(text)
    assert count("256", most=256) == 256
    with pytest.raises(argparse.ArgumentTypeError, match=r"from 1 to 256$"):
        count("257", most=256)

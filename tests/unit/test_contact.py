"""Contacts: one word that names a job for good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import UnknownJobError
from gridmad.execution.contact import JobName, group_name, new_tags, number_in_group

TAG = "0123456789ab0007"


@given(st.text(max_size=30), st.text(min_size=1, max_size=60))
def test_a_contact_is_one_word_and_says_all(endpoint: str, job: str) -> None:
    try:
        contact = str(JobName("slurm", endpoint, job, TAG))
    except UnicodeEncodeError:
        return  # a lone surrogate
    assert contact.isascii()
    assert contact.isprintable()
    assert " " not in contact
    assert JobName.parse(contact, "slurm") == ("slurm", endpoint, job, TAG)


@pytest.mark.parametrize(
    "contact",
    [
        "",
        "-",
        f"sge://host/1/{TAG}",
        f"slurm://host/1/{TAG[:-1]}",
        f"slurm://host/1/{TAG.upper()}",
        f"slurm://host//{TAG}",
        f"slurm://host/1/2/{TAG}",
        f"slurm://host/%31/{TAG}",
        f"slurm://host/1/{TAG}\n",
        "fork://host/boot/1/2/0123456789abcdef",
    ],
)
def test_what_we_did_not_write_is_unknown(contact: str) -> None:
    with pytest.raises(UnknownJobError):
        JobName.parse(contact, "slurm")


def test_tags_of_one_group() -> None:
    tags, others = new_tags(300), new_tags(300)
    assert len({*tags, *others}) == 600
    assert len({group_name(tag) for tag in tags}) == 1
    assert group_name(tags[0]) != group_name(others[0])
    assert [number_in_group(tag) for tag in tags] == list(range(300))
    with pytest.raises(ValueError, match="65536"):
        new_tags(65537)

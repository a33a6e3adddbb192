"""What msgpeek is told: every kind of value, where it may come from, and who wins."""

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import UsageError
from gridmad.peek import settings
from gridmad.peek.settings import Layers
from gridmad.peek.values import Address, address, addresses, moment, port, rate, seconds, size


def layers(
    tmp_path: Path, content: str | None = None, environment: dict[str, str] | None = None,
    **options: object,
) -> Layers:  # fmt: skip
    file = tmp_path / "gridmad" / "msgpeek.toml"
    file.parent.mkdir(exist_ok=True)
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    return Layers(options, {"XDG_CONFIG_HOME": str(tmp_path), **(environment or {})})


# ---------------------------------------------------------------- brokers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker", Address("broker", 61613, False)),
        ("broker.example.org.", Address("broker.example.org.", 61613, False)),
        ("broker:1", Address("broker", 1, False)),
        ("10.0.0.1:65535", Address("10.0.0.1", 65535, False)),
        ("[::1]", Address("::1", 61613, False)),
        ("[fe80::1%eth0]:7", Address("fe80::1%eth0", 7, False)),
        ("::1", Address("::1", 61613, False)),
        ("stomp://broker", Address("broker", 61613, False)),
        ("stomp://broker:5/", Address("broker", 5, False)),
        ("STOMP+SSL://broker", Address("broker", 61614, True)),
        ("stomp+ssl://[::1]:7", Address("::1", 7, True)),
    ],
)
def test_a_broker(text: str, expected: Address) -> None:
    assert address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", "a:0", "a:65536", "a:²", "a b", "a/b", "[::1", "::1]:5", "[10.0.0.1]",
     "https://a", "stomp://", "stomp:///x", "stomp://a/b", "a:5:6", "-a", "a\nb", "é", "a" * 300,
     "a" * 64, "a..b", ".a", "a.-b", "a." * 127 + "aa", "a:" + "9" * 10_000],
)  # fmt: skip
def test_no_broker(text: str) -> None:
    with pytest.raises(ValueError, match=r"no|scheme") as error:
        address(text)
    assert len(str(error.value)) < 200
    assert str(error.value).isprintable()


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="takes no user") as error:
        address("stomp://me:secret@broker")
    assert "secret" not in str(error.value)


def test_several_brokers() -> None:
    found = addresses(["a,b:5", "stomp+ssl://c", "a"], 7)
    assert found == [Address("a", 7, False), Address("b", 5, False), Address("c", 7, True)]
    with pytest.raises(ValueError, match="more than 64"):
        addresses([",".join(f"h{number}" for number in range(65))])


@given(st.text(max_size=30))
def test_any_text_is_a_broker_or_a_value_error(text: str) -> None:
    try:
        found = address(text)
    except ValueError:
        return
    assert found.host
    assert 0 < found.port < 65536


# ---------------------------------------------------------------- quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("4096", 4096), ("64k", 65536), ("64K", 65536), ("64M", 64 << 20),
     ("1GiB", 1 << 30), ("64MB", 64_000_000), ("1.5M", 3 << 19), ("5B", 5), ("2 T", 2 << 40)],
)  # fmt: skip
def test_a_size(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1X", "M", "1e9", "0.1", "9" * 19, "999999999T", "٣"]
)
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        size(text)


def test_a_rate() -> None:
    assert rate("1M/s") == rate("1M") == 1 << 20


def test_a_moment() -> None:
    assert moment("10m", 1000.0) == 400_000
    assert moment("1.5h ago", 10_000.0) == 4_600_000
    assert moment("2d", 1000.0) == 0
    assert moment("2026-11-20T12:00:00Z", 0) == 1_795_176_000_000
    assert moment("2026-11-20T12:00+01:00", 0) == 1_795_172_400_000


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10 weeks", "1800-01-01", "9" * 99 + "s"])
def test_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        moment(text, 0.0)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e10", "x"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="is no number of seconds"):
        seconds(text)


# ---------------------------------------------------------------- who wins


def test_an_option_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    content = 'timeout = 3\nuser = "file"\nvhost = "file"'
    found = layers(
        tmp_path, content, {"MSGPEEK_USER": "environment", "MSGPEEK_VHOST": "environment"},
        vhost="option",
    )  # fmt: skip
    assert found.value("vhost", str, None) == "option"
    assert found.value("user", str, None) == "environment"
    assert found.value("timeout", seconds, 9.0) == 3.0
    assert found.value("port", port, 5) == 5


def test_a_mistake_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--port: 'x' is no port"):
        layers(tmp_path, port="x").value("port", port, None)
    with pytest.raises(UsageError, match=r"^MSGPEEK_PORT: 'x' is no port"):
        layers(tmp_path, None, {"MSGPEEK_PORT": "x"}).value("port", port, None)
    with pytest.raises(UsageError, match=r"msgpeek.toml: port: '0' is no port"):
        layers(tmp_path, "port = 0").value("port", port, None)


def test_brokers_from_each_place(tmp_path: Path) -> None:
    assert layers(tmp_path, None, {"MSGPEEK_HOST": "a,b"}).addresses() == addresses(["a", "b"])
    assert layers(tmp_path, 'host = ["a", "b"]\nport = 5').addresses() == addresses(["a", "b"], 5)
    assert layers(tmp_path, 'host = "f"', host=["o"]).addresses() == addresses(["o"])
    with pytest.raises(UsageError, match="no broker is named: -H HOST"):
        layers(tmp_path, "").addresses()


def test_patterns_to_mask_add_up(tmp_path: Path) -> None:
    found = layers(tmp_path, '[wrap]\nredact = ["a", "b"]', redact=["c", "a"])
    assert found.all_values("redact") == ["c", "a", "b"]


# ---------------------------------------------------------------- the file


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown: 'hots', 'wrap.spool'"):
        layers(tmp_path, 'hots = "x"\n[wrap]\nspool = 1')


@pytest.mark.parametrize(
    "content", ["host = ", "\udcff", "wrap = 1", "[wrap.lease]\na = 1", "a = " + "[" * 5000]
)
def test_a_broken_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as error:
        Layers({"config": str(file)}, {}).value("lease", seconds, 1.0)
    assert "broken.toml" in str(error.value)


def test_a_value_of_the_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="user: a text or number is expected"):
        layers(tmp_path, "user = true").value("user", str, None)


def test_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"msgpeek.toml: port: the number is too large"):
        layers(tmp_path, f"port = 0x{'f' * 6000}").value("port", port, None)


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(UsageError, match="No such file"):
        Layers({"config": absent}, {})
    with pytest.raises(UsageError, match="No such file"):
        Layers({}, {"MSGPEEK_CONFIG": absent})
    Layers({}, {"XDG_CONFIG_HOME": absent})
    Layers({}, {})


def test_a_file_with_a_password_is_private(tmp_path: Path) -> None:
    content = 'user = "u"\npassword = "p"'
    assert layers(tmp_path, content).password() == "p"
    (tmp_path / "gridmad" / "msgpeek.toml").chmod(0o640)
    with pytest.raises(UsageError, match="others may read"):
        layers(tmp_path)


def test_destinations_are_configured(tmp_path: Path) -> None:
    templates = layers(tmp_path, '[destinations]\nroll = "/topic/mine"').templates()
    assert templates.roll == "/topic/mine"
    with pytest.raises(UsageError, match=r"msgpeek.toml: the data destination .* must have"):
        layers(tmp_path, '[destinations]\ndata = "/queue/x"').templates()


# ---------------------------------------------------------------- secrets


def test_the_password_leaves_the_environment(tmp_path: Path) -> None:
    environment = {"MSGPEEK_PASSWORD": "secret"}
    found = Layers({}, environment)
    assert environment == {}
    assert found.password() == "secret"
    assert "secret" not in repr(found)


def test_passwords_are_not_in_the_text_of_the_object(tmp_path: Path) -> None:
    told = layers(
        tmp_path, 'password = "from-file"', {"MSGPEEK_PASSWORD": "from-there"}, password="given"
    )
    assert not any(word in repr(told) for word in ("from-file", "from-there", "given"))


def test_the_password_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\nanything\n")
    file.chmod(0o600)
    assert layers(tmp_path, password_file=str(file)).password() == "secret"
    # The nearer place wins, whatever kind it is.
    assert layers(tmp_path, None, {"MSGPEEK_PASSWORD": "other"}, password_file=str(file)
                  ).password() == "secret"  # fmt: skip
    assert layers(tmp_path, None, {"MSGPEEK_PASSWORD_FILE": str(file)}, password="other"
                  ).password() == "other"  # fmt: skip
    file.chmod(0o604)
    with pytest.raises(UsageError, match="others may read"):
        layers(tmp_path, password_file=str(file)).password()
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(UsageError, match="holds no password"):
        layers(tmp_path, password_file=str(file)).password()


def test_the_password_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret\nrest")))
    assert layers(tmp_path, password="-").password() == "secret"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UsageError, match="stdin holds no password"):
        layers(tmp_path, password="-").password()


def test_dangerous_passwords_are_warned_of(tmp_path: Path) -> None:
    def warnings(**options: object) -> list[str]:
        return layers(tmp_path, **options).warnings()  # type: ignore[arg-type]

    assert len(warnings(host=["far"], password="x")) == 2
    assert len(warnings(host=["localhost", "127.0.0.1", "::1"], password="x")) == 1
    assert warnings(host=["localhost"], password="-") == []
    assert warnings(host=["stomp+ssl://far"], password="-") == []
    [warning] = warnings(host=["stomp+ssl://far", "near"], password_file="x")
    assert "stomp+ssl://near" in warning
    assert warnings(host=["far"]) == []


def test_a_key(tmp_path: Path) -> None:
    file = tmp_path / "key"

    def read(content: bytes, mode: int = 0o600) -> bytes:
        file.write_bytes(content)
        file.chmod(mode)
        return settings.read_key(file)

    assert read(b"0" * 31 + b"\n") == b"0" * 31 + b"\n"
    assert read(b"0f" * 16 + b"\n") == b"\x0f" * 16
    assert read(bytes(range(128, 192))) == bytes(range(128, 192))
    for content in (b"", b"short", b"\x80" * 65, b"00" * 65, b"x" * 100_000):
        with pytest.raises(UsageError):
            read(content)
    for mode in (0o640, 0o604, 0o620):
        with pytest.raises(UsageError, match="others may read"):
            read(b"\x80" * 16, mode)
    with pytest.raises(UsageError, match="No such file"):
        settings.read_key(tmp_path / "absent")
    with pytest.raises(UsageError, match="Is a directory"):
        settings.read_key(tmp_path)

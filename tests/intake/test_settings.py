"""The intake's TOML file: what does not fit is one sentence that names the file and the key."""

from pathlib import Path

import pytest

from deployments.intake.settings import Settings, Syslog, read_settings, secret_in
from deployments.intake.syslog import DEFAULT_TEMPLATE
from tasks.errors import ConfigurationError

ZONE = "write it like Europe/Berlin or UTC"
TABLE = "write it as a table, [name] on a line of its own"
UNKNOWN = "there is no such key"
FORMAT = "report format: '[' is not allowed; use letters, digits, space and _ . - | $ { }"
ENDPOINT = "endpoint: write the region's SMN address, like https://smn.eu-de.otc.t-systems.com"

BAD = {
    'syslog = "on"': f"syslog: {TABLE}",
    "syslog = []": f"syslog: {TABLE}",
    "[sysloq]\nport = 1": f"sysloq: {UNKNOWN}",
    "[syslog]\nprot = 5140": f"syslog.prot: {UNKNOWN}",
    "[syslog]\nport = 65536": "syslog.port: Input should be less than or equal to 65535",
    "[syslog]\nport = -1": "syslog.port: Input should be greater than or equal to 0",
    "[syslog]\nport = 'high'": "syslog.port: Input should be a valid integer, unable to parse string as an integer",
    "[syslog]\nprotocols = ['tls']": "syslog.protocols.0: Input should be 'udp' or 'tcp'",
    "[syslog]\ntls_port = 6514": "syslog: tls_port and tls belong together: give both or none",
    "[syslog.tls]\ncertificate = 'c'\nkey = 'k'": "syslog: tls_port and tls belong together: give both or none",
    "[syslog]\ntls_port = 6514\n[syslog.tls]\ncertificate = 'c'": "syslog.tls.key: Field required",
    "[syslog]\ntemplate = '[bold]'": f"syslog.template: {FORMAT}",
    "[syslog]\nzone = 'Mars/Phobos'": f"syslog.zone: no such time zone: 'Mars/Phobos'; {ZONE}",
    "[syslog]\nzone = '../[etc]/passwd'": f"syslog.zone: no such time zone: '../[etc]/passwd'; {ZONE}",
    "[syslog]\nzone = ''": f"syslog.zone: no such time zone: ''; {ZONE}",
    "[syslog]\nallowed = ['10.0.0.1/8']": "syslog.allowed.0: 10.0.0.1/8 has host bits set",
    "[syslog]\nallowed = ['here']": "syslog.allowed.0: 'here' does not appear to be an IPv4 or IPv6 network",
    "[syslog]\nmax_line = 100": "syslog.max_line: Input should be greater than or equal to 480",
    "[smn.topics]\n'urn:smn:x' = ['prod']": f"smn: {ENDPOINT}",
    "[smn]\nendpoint = 'http://smn.example.com'\n[smn.topics]\n'urn:smn:x' = ['prod']": f"smn: {ENDPOINT}",
    "[smn]\nendpoint = 'https://smn.example.com/x'\n[smn.topics]\n'urn:smn:x' = ['prod']": f"smn: {ENDPOINT}",
    "[smn]\nendpoint = 'https://smn.example.com'\n[smn.topics]\n'urn:smn:x' = []": (
        "smn: topics: urn:smn:x names no cluster: list the blocks whose alarms it carries"
    ),
    "[webhook]\ntoken = 'hush'": f"webhook.token: {UNKNOWN}",
    "[webhook]\nmax_age = 0": "webhook.max_age: Input should be greater than 0",
    "[polling]\ninterval = 1": "polling.interval: Input should be greater than or equal to 5",
    "[polling]\nconcurrency = 0\n[http]\nport = 99999": (
        "http.port: Input should be less than or equal to 65535; "
        "polling.concurrency: Input should be greater than or equal to 1"
    ),
    "[http": "not TOML (Expected ']' at the end of a table declaration (at end of document))",
}


def refusal_of(path: Path) -> str:
    """With what words a file is refused."""
    with pytest.raises(ConfigurationError) as refused:
        read_settings(path)
    return str(refused.value)


@pytest.mark.parametrize("text", BAD)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str) -> None:
    """A key or value that does not fit is one line with the file, the key and what is wrong."""
    path = tmp_path / "[intake].toml"
    path.write_text(text)
    assert refusal_of(path) == f"{path}: {BAD[text]}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is missing, a folder, or no text is refused with its name and what to do."""
    missing, latin = tmp_path / "missing.toml", tmp_path / "latin.toml"
    latin.write_bytes("# größer".encode("latin-1"))
    assert refusal_of(missing) == f"{missing}: No such file or directory: name the intake's TOML file"
    assert refusal_of(tmp_path) == f"{tmp_path}: Is a directory: name the intake's TOML file"
    assert refusal_of(latin).startswith(f"{latin}: not TOML ('utf-8' codec can't decode byte")


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    """No file and an empty file are the same: loopback, syslog, HTTP and polling on, SMN and webhook off."""
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    settings = read_settings(None)
    assert read_settings(empty) == settings == Settings()
    assert (settings.http.host, settings.http.port, settings.syslog.host, settings.syslog.port) == (
        "127.0.0.1",
        8088,
        "127.0.0.1",
        5140,
    )
    assert (settings.syslog.enabled, settings.polling.enabled) == (True, True)
    assert (settings.smn.topics, settings.webhook.token_file, settings.webhook.secret_file) == ({}, None, None)
    assert (settings.syslog.template, settings.syslog.tls_port) == (DEFAULT_TEMPLATE, None)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Every table of the file arrives in the settings."""
    path = tmp_path / "intake.toml"
    path.write_text(
        "[http]\nport = 0\n[syslog]\nhost = '0.0.0.0'\nport = 514\nprotocols = ['tcp']\nzone = 'Europe/Berlin'\n"
        "allowed = ['10.0.0.0/8', 'fd00::/8']\nheartbeat = 'alive'\n[smn]\nendpoint = 'https://smn.example.com'\n"
        "[smn.topics]\n'urn:smn:eu-de:p:t' = ['prod-a', 'prod-b']\n[webhook]\ntoken_file = '/etc/token'\n"
        "[polling]\nenabled = false\n"
    )
    settings = read_settings(path)
    assert settings.http.port == 0
    assert settings.syslog == Syslog.model_validate(
        {
            "host": "0.0.0.0",  # noqa: S104 - nothing listens there
            "port": 514,
            "protocols": ("tcp",),
            "zone": "Europe/Berlin",
            "allowed": ("10.0.0.0/8", "fd00::/8"),
            "heartbeat": "alive",
        }
    )
    assert settings.smn.topics == {"urn:smn:eu-de:p:t": ("prod-a", "prod-b")}
    assert settings.webhook.token_file == Path("/etc/token")
    assert not settings.polling.enabled


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "the secret file {} cannot be read (No such file or directory)"),
        (b"\xff\xfe" * 20, "the secret file {} cannot be read (it is no text)"),
        (b"", "the secret in {} is shorter than 16 characters: make a longer one"),
        (b"hush-hush\n", "the secret in {} is shorter than 16 characters: make a longer one"),
    ],
)
def test_a_secret_that_is_no_good_is_not_shown(tmp_path: Path, content: bytes | None, words: str) -> None:
    """A secret's file that is missing, no text, empty or short is refused with its name, never with what it holds."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as refused:
        secret_in(path)
    assert str(refused.value) == words.format(path)


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    """What an editor adds at the end is no part of a secret."""
    path = tmp_path / "token"
    path.write_text("a-token-of-the-tests\r\n")
    assert secret_in(path) == "a-token-of-the-tests"

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.channels.ssh_config import DEFAULT_ROOT, DeviceURL, Endpoint, parse_url, resolve
from edgepack.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EDGEPACK_SSH_CONFIG", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def lookup(url: str, config: str = "", home: Path | None = None) -> Endpoint:
    file = Path("~/.ssh/config").expanduser()
    file.write_text(config)
    return resolve(parse_url(url), config_file=file)


@pytest.mark.parametrize(
    ("url", "host", "user", "port", "root"),
    [
        ("ssh://pi", "pi", None, None, DEFAULT_ROOT),
        ("ssh://pi/", "pi", None, None, DEFAULT_ROOT),
        ("ssh://root@pi:2222/opt/edge", "pi", "root", 2222, "/opt/edge"),
        ("ssh://pi/with%20space/", "pi", None, None, "/with space"),
        ("ssh://[::1]:22/x", "::1", None, 22, "/x"),
        ("ssh://MyPi", "MyPi", None, None, DEFAULT_ROOT),
        ("ssh://10.0.0.7:22", "10.0.0.7", None, 22, DEFAULT_ROOT),
    ],
)
def test_urls(url: str, host: str, user: str | None, port: int | None, root: str) -> None:
    assert parse_url(url) == DeviceURL(host=host, user=user, port=port, root=root)


@pytest.mark.parametrize(
    "url",
    [
        "ssh://",
        "ssh:///root",
        "ssh://pi:99999",
        "ssh://pi:port",
        "ssh://user:secret@pi",
        "ssh://-oProxyCommand=x",
        "ssh://a;reboot",
        "ssh://$(reboot)@pi",
        "ssh://pi/a/../../etc",
        "ssh://pi/a%0Ab",
        "ssh://pi/a$HOME",
        "ssh://pi/a'b",
        "ssh://pi/x?y",
        "ssh://pi/x#y",
        "ssh://[::1",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_url(url)


def test_alias_gives_name_port_user_and_files(home: Path) -> None:
    found = lookup(
        "ssh://pi",
        """
        Host pi
          HostName 10.0.0.7
          Port 2200
          User edge
          IdentityFile ~/.ssh/pi_key
          IdentitiesOnly yes
          UserKnownHostsFile ~/.ssh/pi_hosts ~/.ssh/more
        """,
    )
    assert (found.host, found.port, found.user) == ("10.0.0.7", 2200, "edge")
    assert found.identities == (home / ".ssh/pi_key",)
    assert found.identities_only
    assert found.known_hosts[:2] == (home / ".ssh/pi_hosts", home / ".ssh/more")
    assert found.host_key_name == "[10.0.0.7]:2200"
    assert str(found) == "pi (edge@10.0.0.7 port 2200)"


def test_url_goes_before_the_configuration() -> None:
    found = lookup("ssh://me@pi:22", "Host pi\n User other\n Port 2200\n")
    assert (found.user, found.port, found.host_key_name) == ("me", 22, "pi")


def test_host_key_alias_has_no_port() -> None:
    assert lookup("ssh://pi:2200", "Host pi\n HostKeyAlias fleet").host_key_name == "fleet"


def test_identity_option_is_the_only_key(home: Path) -> None:
    (home / ".ssh/config").write_text("IdentityFile ~/.ssh/other\n")
    found = resolve(parse_url("ssh://pi"), identity=Path("~/key"))
    assert found.identities == (home / "key",)
    assert found.identities_only


def test_without_configuration_the_usual_keys_and_known_hosts(home: Path) -> None:
    found = resolve(parse_url("ssh://u@pi"), config_file=Path("/dev/null"))
    assert home / ".ssh/id_ed25519" in found.identities
    assert found.known_hosts[0] == home / ".ssh/known_hosts"
    assert found.use_agent


def test_environment_names_the_configuration(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "elsewhere").write_text("Host pi\n HostName 10.0.0.9\n")
    monkeypatch.setenv("EDGEPACK_SSH_CONFIG", str(home / "elsewhere"))
    assert resolve(parse_url("ssh://pi")).host == "10.0.0.9"


def test_configuration_that_is_named_must_be_there(home: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        resolve(parse_url("ssh://pi"), config_file=home / "none")


def test_include_is_followed_and_the_block_goes_on_after_it(home: Path) -> None:
    (home / ".ssh/conf.d").mkdir()
    (home / ".ssh/conf.d/a.conf").write_text("Host pi\n HostName 10.0.0.7\n")
    (home / ".ssh/conf.d/b.conf").write_text("Host other\n HostName 10.0.0.8\n")
    config = "Include conf.d/*.conf\nUser everyone\nHost pi\n Port 2200\n"
    assert lookup("ssh://pi", config).host == "10.0.0.7"
    assert lookup("ssh://pi", config).port == 2200
    assert lookup("ssh://third", config).user == "everyone"


def test_include_of_itself_ends(home: Path) -> None:
    with pytest.raises(ConfigError, match="deep"):
        lookup("ssh://pi", "Include config\n")


def test_proxies_and_agent_are_read() -> None:
    found = lookup(
        "ssh://pi",
        "Host pi\n ProxyJump a,b:22\n IdentityAgent none\nHost *\n ProxyCommand nc %h %p\n",
    )
    assert found.proxy_jump == ("a", "b:22")
    assert not found.use_agent
    assert lookup("ssh://x:7", "ProxyCommand nc %h %p").proxy_command.startswith("nc x ")


@pytest.mark.parametrize("name", ["-x", "a b", "a;b", "`a`"])
def test_host_name_out_of_the_configuration_cannot_reach_a_shell(name: str) -> None:
    with pytest.raises(ConfigError):
        lookup("ssh://pi", f"Host pi\n HostName {name}\n ProxyCommand nc %h\n")


@pytest.mark.parametrize("config", ["Port many\n", "nonsense-without-value\n", 'Include "open\n'])
def test_configuration_that_is_none_is_a_config_error(config: str) -> None:
    with pytest.raises(ConfigError):
        lookup("ssh://pi", config)

"""The file's clusters: what they take from the defaults, and everything that is wrong, each with its line."""

from pathlib import Path

import pytest

from deployments.inventory.inventory import Inventory, WrongInventory, inventory_of, read_inventory, source_of
from tasks.blocks import Cluster

EXAMPLE = Path(__file__).parents[3] / "deployments/clusters.example.yaml"
FILE = Path("clusters.yaml")
HEAD = """clouds:
  prod: {read: cloud-r, change: cloud-w}
logins:
  ops: {read: manager-r}
defaults: {cloud: prod, login: ops}
clusters:
"""
ONE = HEAD + "  a:\n    manager: {url: 'https://10.0.0.1/x'}\n"  # its lines are 7 and 8


def problems(text: str) -> list[str]:
    """The lines of the error."""
    with pytest.raises(WrongInventory) as caught:
        inventory_of(FILE, text)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


def read(text: str) -> Inventory:
    """A right file."""
    return inventory_of(FILE, text)


def test_a_new_cluster_is_safe() -> None:
    """An entry that says nothing about them has the settings of a new block: approve, escalate, no agency."""
    entry = read(ONE).clusters["a"]
    fields = {name: Cluster.model_fields[name].default for name in entry.settings()}
    assert entry.settings() == fields
    assert (fields["mode"], fields["on_unbound"], fields["agency"]) == ("approve", "escalate", "")
    assert entry.address() == {
        "url": "https://10.0.0.1/x",
        "cluster_number": 1,
        "ca_pem": "",
        "ca_file": "",
        "routes": {},
    }


def test_every_setting_of_the_block_can_be_written() -> None:
    """All fields of the cluster's block are the file's, but for those in which it names other blocks."""
    named = {"cluster_id", "source", "manager", "cloud", "changing_manager", "changing_cloud"}
    assert set(read(ONE).clusters["a"].settings()) == set(Cluster.model_fields) - named


def test_defaults_are_joined_with_what_a_cluster_says() -> None:
    """Mappings are joined key by key, everything else is the cluster's where it says something."""
    text = """clouds: {prod: {read: c}, lab: {read: d}}
logins: {ops: {read: m}}
defaults:
  cloud: prod
  login: ops
  manager: {ca_file: /ca.pem, routes: {alarms: GET a, hosts: GET h}}
  mode: observe
  windows: [daily 01:30-04:00]
  labels: {stage: prod, team: x}
clusters:
  a:
    cloud: lab
    manager: {url: https://a, routes: {alarms: GET b}}
    windows: []
    labels: {team: y}
"""
    entry = read(text).clusters["a"]
    settings = entry.settings()
    assert (entry.cloud, entry.login, settings["mode"], settings["windows"]) == ("lab", "ops", "observe", [])
    assert settings["labels"] == {"stage": "prod", "team": "y"}
    assert (entry.manager.url, entry.address()["ca_file"]) == ("https://a", "/ca.pem")
    assert entry.address()["routes"] == {"alarms": "GET b", "hosts": "GET h"}


@pytest.mark.parametrize(
    ("more", "source"),
    [("", "a"), ("    name_in_cloud: mrs_a\n", "mrs_a"), ("    name_in_cloud: mrs_a\n    source: s\n", "s")],
)
def test_alarms_call_a_cluster_by_what_is_known_best(more: str, source: str) -> None:
    """Its source, else its name in the cloud, else its key."""
    assert source_of("a", read(ONE + more).clusters["a"]) == source


def test_the_example_is_right() -> None:
    """The file that is shipped can be read; what it says about the first cluster is there."""
    inventory = read_inventory(EXAMPLE)
    first = inventory.clusters["billing-1"]
    assert list(inventory.clusters) == ["billing-1", "reporting", "sandbox"]
    assert (first.settings()["restart_mode"], first.settings()["labels"]) == (
        "auto",
        {"stage": "production", "team": "billing"},
    )


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("    mod: auto", "9: clusters.a.mod: unknown key, did you mean mode?"),
        ("    mode: atuo", "9: clusters.a.mode: 'atuo' is none of observe, approve, auto"),
        ("    mode: [auto]", "9: clusters.a.mode: should be 'observe', 'approve' or 'auto'"),
        ("    four_eyes: 'yes'", "9: clusters.a.four_eyes: should be a valid boolean"),
        ("    approval_expires: 0", "9: clusters.a.approval_expires: should be greater than 0"),
        ("    labels:\n      stage: no", "10: clusters.a.labels.stage: must be text: put it into quotes"),
        ("    labels: stage", "9: clusters.a.labels: must be a mapping of keys to values"),
        ("    windows: daily", "9: clusters.a.windows: must be a list"),
        (
            "    windows:\n    - daily 01:30-04:00\n    - Mon 22-06",
            "11: clusters.a.windows.1: maintenance window 'Mon 22-06': '22' is no time between 00:00 and 24:00; "
            "write it like 'Mon-Fri 22:00-06:00', 'Sat,Sun 00:00-24:00' or 'daily 01:30-04:00'",
        ),
        (
            "    password: x",
            "9: clusters.a.password: secrets do not belong here: name the block that holds them, in clouds or logins",
        ),
        ("    cloud: prd", "9: clusters.a.cloud: 'prd' is none of clouds, did you mean prod?"),
        ("    login: me", "9: clusters.a.login: 'me' is none of logins, there is ops"),
        ("    on_unbound: rebind", "9: clusters.a.on_unbound: rebind needs the name of an agency to bind"),
        (
            "    labels: {region: x}",
            "9: clusters.a.labels.region: no name for a label: name, cloud, region, mode have a meaning of their own, "
            "and = ends a name",
        ),
        ("  b:", "9: clusters.b.manager.url: is missing: without its Manager a cluster cannot be looked at"),
        (
            "  b:\n    manager: {url: http://10.0.0.2}",
            "10: clusters.b.manager.url: no address of a Manager: write it like https://10.0.0.1:28443/web/api/v2",
        ),
        ("  b:\n    manager: {url: https://10.0.0.1/x/}", "10: clusters.b.manager.url: is the same as of a, in line 8"),
        ("  a: {}", "9: clusters.a: is there already, in line 7"),
        (
            "  B_1: {manager: {url: https://b}}",
            "9: clusters.B_1: only letters, digits and dashes, as in the name of a block (there without capitals)",
        ),
        ("  b: [1]", "9: clusters.b: must be a mapping of keys to values"),
        ("cluster: {}", "9: cluster: unknown key, did you mean clusters?"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(more: str, problem: str) -> None:
    """File, line, the keys that lead there, and what to do."""
    assert problems(f"{ONE}{more}\n") == [f"clusters.yaml:{problem}"]


@pytest.mark.parametrize(
    ("key", "first", "second"), [("cluster_id", "AB-1", "ab-1"), ("source", "s", "s"), ("name_in_cloud", "n", "n")]
)
def test_two_entries_are_two_clusters(key: str, first: str, second: str) -> None:
    """The same id in any case, the same name in one cloud, the same source: told where the second one says it."""
    text = f"{HEAD}  a: {{manager: {{url: https://a}}, {key}: {first}}}\n  b:\n    manager: {{url: https://b}}\n"
    said = [line for line in problems(f"{text}    {key}: {second}\n") if f".{key}:" in line]
    assert said == [f"clusters.yaml:10: clusters.b.{key}: is the same as of a, in line 7"]


def test_the_same_name_in_two_clouds_is_two_clusters() -> None:
    """Names are looked up in their own cloud; their sources must differ all the same."""
    text = """clouds: {one: {read: a}, two: {read: b}}
logins: {ops: {read: m}}
defaults: {login: ops}
clusters:
  a: {cloud: one, name_in_cloud: n, source: a, manager: {url: https://a}}
  b: {cloud: two, name_in_cloud: n, source: b, manager: {url: https://b}}
"""
    assert list(read(text).clusters) == ["a", "b"]


def test_everything_is_told_at_once() -> None:
    """A wrong section, a wrong entry and a wrong default hide nothing of each other, in the order of the lines."""
    text = """clouds:
  prod: {reed: x}
defaults:
  cloud: prd
  login: ops
  mod: auto
logins:
  ops: {read: m}
clusters:
  a:
    mode: atuo
    login: opps
    manager: {url: https://a}
  b: {manager: {url: https://a}}
  b: {}
"""
    assert problems(text) == [
        "clusters.yaml:2: clouds.prod.read: is missing",
        "clusters.yaml:2: clouds.prod.reed: unknown key, did you mean read?",
        "clusters.yaml:4: defaults.cloud: 'prd' is none of clouds, did you mean prod?",
        "clusters.yaml:6: defaults.mod: unknown key, did you mean mode?",
        "clusters.yaml:11: clusters.a.mode: 'atuo' is none of observe, approve, auto",
        "clusters.yaml:12: clusters.a.login: 'opps' is none of logins, did you mean ops?",
        "clusters.yaml:14: clusters.b.manager.url: is the same as of a, in line 13",
        "clusters.yaml:15: clusters.b: is there already, in line 14",
    ]


def test_a_wrong_default_is_told_once() -> None:
    """A thousand clusters that take it say it once, where it stands."""
    entries = "".join(f"  c-{n}: {{manager: {{url: 'https://c-{n}'}}}}\n" for n in range(1000))
    text = HEAD.replace("cloud: prod, login: ops", "cloud: nowhere, login: ops, on_unbound: rebind") + entries
    assert problems(text) == [
        "clusters.yaml:5: defaults.cloud: 'nowhere' is none of clouds, there is prod",
        "clusters.yaml:5: defaults.on_unbound: rebind needs the name of an agency to bind",
    ]


def test_two_manager_blocks_need_two_names() -> None:
    """A cluster called like the Manager block that another one needs for changes is refused."""
    text = ONE.replace("{read: manager-r}", "{read: manager-r, change: manager-w}")
    assert problems(text + "  a-changing: {manager: {url: https://b}}\n") == [
        "clusters.yaml:9: clusters.a-changing: both it and its login for changes need a Manager block of that name: "
        "rename it, or a"
    ]


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are one problem of its first line."""
    path = tmp_path / "clusters.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(WrongInventory) as caught:
        read_inventory(path)
    assert caught.value.lines == [f"{path}:1: this is no UTF-8 text: invalid start byte"]

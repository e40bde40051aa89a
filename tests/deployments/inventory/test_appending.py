"""One more entry: at its place, with everything else byte for byte as it was."""

from pathlib import Path

import pytest

from deployments.inventory.appending import new_file, with_entry
from deployments.inventory.inventory import WrongInventory, inventory_of
from tasks.errors import ConfigurationError

FILE = Path("clusters.yaml")
ENTRY = {"cloud": "prod", "login": "ops", "cluster_id": "x-1", "manager": {"url": "https://new"}}
WRITTEN = "{0}new:\n{0}  cloud: prod\n{0}  login: ops\n{0}  cluster_id: x-1\n{0}  manager:\n{0}    url: https://new\n"
HEAD = "clouds: {prod: {read: c}}   # where\nlogins: {ops: {read: m}}\n"
OLD = "    manager:\n      url: https://old\n"


@pytest.mark.parametrize(
    ("before", "after", "indent"),
    [
        (f"{HEAD}clusters:\n", "", "  "),
        (f"{HEAD}clusters:   # none yet\n", "\n# the end\n", "  "),
        (HEAD, "", None),
        (f"{HEAD}clusters: {{}}\n", "# the end\n", "  "),
        (f"{HEAD}clusters:\n  old:   # keep me\n    cloud: prod\n    login: ops\n{OLD}", "", "  "),
        (
            f"{HEAD}clusters:\n  old:\n    cloud: prod\n    login: ops\n{OLD}  # of old\n",
            "\n# what follows\ndefaults: {}\n",
            "  ",
        ),
        (f"{HEAD}clusters:\n      old: {{cloud: prod, login: ops, manager: {{url: https://old}}}}\n", "\n\n", "      "),
        (
            f"{HEAD}clusters:\n  old:\n    cloud: prod\n    login: ops\n    manager:\n      url: https://old\n"
            "      ca_pem: |\n        line\n        # no comment\n",
            "\ndefaults: {mode: observe}\n",
            "  ",
        ),
    ],
)
def test_an_entry_is_added_at_the_end_of_the_clusters(before: str, after: str, indent: str | None) -> None:
    """After the last one and its comments, indented as they are; where there is no section it is made."""
    added = WRITTEN.format("  " if indent is None else indent)
    section = "clusters:\n" if indent is None else ""
    expected = before.replace("clusters: {}", "clusters:") + section + added + after
    assert with_entry(FILE, before + after, "new", ENTRY) == expected


def test_a_file_without_a_last_newline_gets_one() -> None:
    """The entry begins in a line of its own."""
    before = f"{HEAD}clusters:\n  old:\n    cloud: prod\n    login: ops\n    manager:\n      url: https://old"
    assert with_entry(FILE, before, "new", ENTRY) == before + "\n" + WRITTEN.format("  ")


def test_a_new_file_takes_its_first_entry() -> None:
    """It names the cloud and the login, and is right once the entry is in."""
    added = with_entry(FILE, new_file("prod", "ops"), "new", ENTRY)
    assert added.splitlines()[0] == "# yaml-language-server: $schema=clusters.schema.json"
    assert {name: entry.manager.url for name, entry in inventory_of(FILE, added).clusters.items()} == {
        "new": "https://new"
    }


def test_a_cluster_that_is_there_is_not_added_again() -> None:
    """The same key is a problem of the file that would come of it, told with its line."""
    text = with_entry(FILE, HEAD, "new", ENTRY)
    with pytest.raises(WrongInventory, match=r"^clusters\.yaml:10: clusters\.new: is there already, in line 4$"):
        with_entry(FILE, text, "new", ENTRY)


def test_where_there_is_no_place_for_it_a_person_is_asked() -> None:
    """Clusters written in braces are left alone, and the entry is shown."""
    text = f"{HEAD}clusters: {{old: {{cloud: prod, login: ops, manager: {{url: https://old}}}}}}\n"
    with pytest.raises(ConfigurationError) as caught:
        with_entry(FILE, text, "new", ENTRY)
    shown = WRITTEN.format("  ")
    assert str(caught.value) == f"clusters.yaml: write this entry below clusters: yourself\n{shown}"

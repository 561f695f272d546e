"""README and its companions obey their rules, and each rule catches its violation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repository import document_rules as rules
from tests.repository.tree import ROOT, plant

Rule = Callable[[Path], list[str]]
GOOD = {
    "README.md": "make claim ID=C1\n<!-- verdicts:begin -->\n<!-- verdicts:end -->\n[L](LICENSE)\n",
    "Makefile": "claim: setup\n",
    "LICENSE": "MIT License\nCopyright (c) Ada Lovelace\n",
    "comparison/claims.py": 'Claim(id="C1")\n',
    "DEVIATIONS.md": "## D1 The size of upsampled streams\n",
    "reproduction/hrnet.py": "# D1\n",
    "CITATION.cff": (
        "{cff-version: 1.2.0, message: m, title: t, license: MIT, version: 1.0.0, references: [],\n"
        " authors: [{given-names: Ada, family-names: Lovelace}]}\n"
    ),
}
# rule, file, text to replace, its replacement, the finding
PLANTED = [
    (rules.readme_is_short, "README.md", "make", "\n" * 150 + "make", "154 lines"),
    (rules.readme_has_room_for_verdicts, "README.md", "<!-- verdicts:end -->", "", "markers"),
    (rules.readme_has_room_for_verdicts, "README.md", "make", "<!-- verdicts:end -->", "markers"),
    (rules.claims_are_in_the_readme, "comparison/claims.py", "C1", "C2", "no command for claim C2"),
    (rules.claims_are_in_the_readme, "README.md", "ID=C1", "ID=C3", "a command for C3"),
    (rules.commands_exist, "README.md", "make claim", "make clame", "`make clame`"),
    (rules.links_lead_somewhere, "README.md", "(LICENSE)", "(LICENCE)", "links to LICENCE"),
    (rules.deviations_are_numbered, "reproduction/hrnet.py", "D1", "D1 and D2", "D2, unknown"),
    (rules.deviations_are_numbered, "reproduction/hrnet.py", "D1", "", "D1 is cited nowhere"),
    (rules.citation_is_complete, "CITATION.cff", "title: t,", "", "lacks title"),
    (rules.citation_is_complete, "CITATION.cff", "given-names", "name", "without a full name"),
    (rules.license_names_the_authors, "LICENSE", "Ada", "Eda", "does not say Ada Lovelace"),
    (rules.license_names_the_authors, "LICENSE", "MIT", "GPL", "does not say MIT License"),
]
RULES = list(dict.fromkeys(row[0] for row in PLANTED))


def good_tree(root: Path) -> Path:
    """Write a small tree that obeys every rule."""
    for name, text in GOOD.items():
        plant(root, name, text)
    return root


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_obeys(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_tree_is_let_through(tmp_path: Path, rule: Rule) -> None:
    assert rule(good_tree(tmp_path)) == []


@pytest.mark.parametrize(("rule", "name", "old", "new", "finding"), PLANTED)
def test_a_planted_violation_is_found(
    tmp_path: Path, rule: Rule, name: str, old: str, new: str, finding: str
) -> None:
    findings = rule(plant(good_tree(tmp_path), name, GOOD[name].replace(old, new)))

    assert any(finding in found for found in findings), findings

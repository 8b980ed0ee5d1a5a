"""The recipes of the documents: each fenced block behind a comment `<!-- recipe: NAME -->`, as it stands there."""

import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "packaging/deployment.md")
TRIED = {
    "unbound-stub", "unbound-forward", "bind-options", "bind-forward", "bind-static-stub", "dnsmasq", "coredns",
    "systemd-resolved", "dnsdist", "delegation", "delegated", "one-address", "keepalived", "anycast-bird", "anycast-check",
}
"""The recipes that the tests know, so that none is written down and not tried."""
BLOCK = re.compile(r"^<!-- recipe: (?P<name>[a-z0-9-]+) -->\n+```[a-z]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def recipes():
    """Their texts, by name."""
    found = {}
    for document in DOCUMENTS:
        text = (TOP / document).read_text()
        blocks = {match["name"]: match["text"] for match in BLOCK.finditer(text)}
        if text.count("<!-- recipe: ") != len(blocks) or found.keys() & blocks:
            raise ValueError(f"{document} has a recipe without a block behind it, or one that is there twice")
        found |= blocks
    if found.keys() != TRIED:
        raise ValueError(f"these recipes are not tried, or not there: {found.keys() ^ TRIED}")
    return found


def without(text, part):
    """A recipe without the lines that have this part."""
    kept = "".join(line for line in text.splitlines(keepends=True) if part not in line)
    if kept == text:
        raise ValueError(f"no line of the recipe has {part}")
    return kept

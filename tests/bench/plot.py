"""A picture of what was measured, written by hand: SVG needs no library."""

from html import escape

WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 900, 300, 90, 50, 16, 14
COLOURS = {"alternator-dns": "#1b6ca8", "echo": "#b8b8b8", "echo again": "#d0d0d0"}
OTHERS = "#d9a441"
"""The colour of servers without one of their own."""


def bars(title, rows):
    """One bar for each row `(group, name, middle, least, most)`, groups apart, with a line from least to most."""
    scale = (WIDTH - LEFT - RIGHT) / (max((most for *_, most in rows), default=1) or 1)
    drawn, y, group = [], TOP, None
    for own_group, name, middle, least, most in rows:
        if own_group != group:
            group, y = own_group, y + GAP + BAR
            drawn.append(text(10, y - 4, own_group, "bold"))
        centre, colour = y + BAR / 2, COLOURS.get(name, OTHERS)
        drawn.append(text(LEFT - 8, centre + 4, name, "end"))
        drawn.append(f'<rect x="{LEFT}" y="{y + 2}" width="{middle * scale:.1f}" height="{BAR - 4}" fill="{colour}"/>')
        drawn.append(
            f'<line x1="{LEFT + least * scale:.1f}" x2="{LEFT + most * scale:.1f}" y1="{centre}" y2="{centre}"'
            ' stroke="#333"/>'
        )
        drawn.append(text(LEFT + most * scale + 6, centre + 4, f"{middle:.2f}"))
        y += BAR
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 20}" viewBox="0 0 {WIDTH} {y + 20}">\n'
        "<style>text { font: 12px sans-serif; fill: #222 } .bold { font-weight: bold } .end { text-anchor: end }"
        "</style>\n"
        f'<rect width="{WIDTH}" height="{y + 20}" fill="white"/>\n{text(10, 24, title, "bold")}\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def text(x, y, words, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'

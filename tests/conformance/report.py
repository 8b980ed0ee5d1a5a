"""What was asked, demanded and seen: lines for the eye and the collector, and tables for RESULTS.md."""

from servers import GDNSD, KNOT, NSD, OURS

COLUMNS = (OURS, GDNSD, NSD, KNOT)


class Report:
    def __init__(self):
        self.rows = []
        self.sections = []
        self.passed = self.failed = 0

    def judge(self, sentence, complaint=None):
        """One line for one promise of ours."""
        self.passed += not complaint
        self.failed += bool(complaint)
        print(f"{'not ok' if complaint else 'ok'} - {sentence}", flush=True)
        if complaint:
            print(f"    {complaint}", flush=True)
        return not complaint

    def skip(self, sentence):
        print(f"skipped - {sentence}", flush=True)

    def case(self, case, question, demand, seen, complaint):
        """One row of the big table. `seen` is what each server did, in a few words."""
        ours = seen.get(OURS, "")
        passed = self.judge(f"case {case}, {question}: {ours}", complaint and f"{complaint}; demanded: {demand}")
        cells = [ours if passed else f"**not ok:** {ours}", *[seen.get(name, "-") for name in COLUMNS[1:]]]
        self.rows.append([case, question, demand, *cells])

    def ours(self, case, question, demand, seen, complaint=None):
        """A row about our server alone."""
        self.case(case, question, demand, {OURS: seen}, complaint)

    def section(self, title, *parts):
        self.sections.append("\n\n".join([f"## {title}", *parts]))

    def markdown(self, command, versions):
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        verdict = f"{self.passed} promises of alternator-dns kept, {self.failed} not. Beside it ran {told}."
        cases = table(["case", "question", "demanded", *COLUMNS], sorted(self.rows, key=lambda row: row[0]))
        return (
            "\n\n".join(
                [
                    f"Made by `{command}`.",
                    "# What this server and its neighbours answer",
                    verdict,
                    "## Case by case",
                    "Records are counted by type: a bare number belongs to the answer, `+` to the authority section,"
                    " `add` to the additional one. `12 B` is a header alone, `opt` an OPT record,"
                    " `drop` no reply at all, `-` not asked.",
                    cases,
                    *self.sections,
                ]
            )
            + "\n"
        )


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)

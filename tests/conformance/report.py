"""Each question, the demanded reply and the actual ones: lines for people and the log, and tables for RESULTS.md."""

from servers import GDNSD, KNOT, NSD, OURS

COLUMNS = (OURS, GDNSD, NSD, KNOT)


class Report:
    def __init__(self):
        self.rows = []
        self.sections = []
        self.passed = self.failed = 0

    def check(self, sentence, problem=None):
        """One line for one requirement of ours."""
        self.passed += not problem
        self.failed += bool(problem)
        print(f"{'not ok' if problem else 'ok'} - {sentence}", flush=True)
        if problem:
            print(f"    {problem}", flush=True)
        return not problem

    def skip(self, sentence):
        print(f"skipped - {sentence}", flush=True)

    def case(self, case, question, demand, seen, problem):
        """One row of the big table. `seen` is the reply of each server, in a few words."""
        ours = seen.get(OURS, "")
        passed = self.check(f"case {case}, {question}: {ours}", problem and f"{problem}; demanded: {demand}")
        cells = [ours if passed else f"**not ok:** {ours}", *[seen.get(name, "-") for name in COLUMNS[1:]]]
        self.rows.append([case, question, demand, *cells])

    def ours(self, case, question, demand, seen, problem=None):
        """A row about our server alone."""
        self.case(case, question, demand, {OURS: seen}, problem)

    def section(self, title, *parts):
        self.sections.append("\n\n".join([f"## {title}", *parts]))

    def markdown(self, command, versions):
        others = ", ".join(f"{name} {version}" for name, version in versions.items())
        verdict = f"{self.passed} requirements met by alternator-dns, {self.failed} not. Compared with {others}."
        cases = table(["case", "question", "demanded", *COLUMNS], sorted(self.rows, key=lambda row: row[0]))
        return (
            "\n\n".join(
                [
                    f"Made by `{command}`.",
                    "# Replies of this server and of others",
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

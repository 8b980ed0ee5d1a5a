# Completion of alternator-dns for fish. The program makes the script, so it always fits its version.
alternator-dns completions fish | source

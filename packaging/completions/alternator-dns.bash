# Completion of alternator-dns for bash. The program makes the script, so it always fits its version.
source <(alternator-dns completions bash)

# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_alternator_dns_global_optspecs
    string join \n h/help V/version
end

function __fish_alternator_dns_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_alternator_dns_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_alternator_dns_using_subcommand
    set -l cmd (__fish_alternator_dns_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -s V -l version -d 'Print version'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "run" -d 'Serve the zones of a configuration file'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "check" -d 'Read a configuration file and list every error in it; uses no network'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "demo" -d 'Run a demonstration: two simulated clusters, the resolver and its status page'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "reload" -d 'Make the running server read its file again, and wait for the outcome'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "status" -d 'Show all zones of the running server, the worst first; exit status 1 if one is unanswered or the file is refused'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "plan" -d 'Show what a reload of a file would change, and change nothing; exit status 2 if it would change something'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "explain" -d 'Explain a name or a node of the running server: from the file over lists, rules and health to what DNS answers'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "history" -d 'Show the last configurations that were applied or refused, or the last changes of a zone'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "drain" -d 'Take a node out of the answers for some time, or list the nodes that are taken out'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "undrain" -d 'Put a drained node back into the answers'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "flush" -d 'Make the running server remove the cached answers of other resolvers'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "log" -d 'Change what the running server logs'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "config" -d 'Show the configuration of a file'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "schema" -d 'Print the JSON Schema of the configuration file, for editors and linters'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "completions" -d 'Print a script that completes this command in a shell'
complete -c alternator-dns -n "__fish_alternator_dns_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand run" -l log -d 'Least level to log, or a filter such as "info,alternator_dns::discovery=debug" [default: $RUST_LOG, else info]' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand run" -l log-format -d 'How to write log lines' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand run" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand check" -l format -d 'How to report: text for people, json for programs, github for annotations of a workflow' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand check" -l last-good -d 'Check the last good configuration in place of the file: the one that a start with a refused file would serve'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand check" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand demo" -l log -d 'Least level to log, or a filter such as "info,alternator_dns::discovery=debug" [default: $RUST_LOG, else info]' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand demo" -l log-format -d 'How to write log lines' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand demo" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand reload" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand reload" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand status" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand status" -l admin -d 'Read another server, at its admin interface, for example http://10.0.0.2:9153' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand status" -l compare -d 'Print in what the server differs from the one with this admin interface; exit status 1 if there is any difference' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand status" -l json -d 'Print the document of /api/zones'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand status" -l watch -d 'Show it again every second, until ^C'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand status" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand plan" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand plan" -l json -d 'Print the plan as JSON'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand plan" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand explain" -l client -d 'Also say whether this client may ask, and answer as it would be answered' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand explain" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand explain" -l admin -d 'Read another server, at its admin interface, for example http://10.0.0.2:9153' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand explain" -l json -d 'Print the document of /api/explain'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand explain" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand history" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand history" -l admin -d 'Read another server, at its admin interface, for example http://10.0.0.2:9153' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand history" -l json -d 'Print the document of /api/history'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand history" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand drain" -l for -d 'For how long: 1s to 7d' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand drain" -l zone -d 'Only in this zone [default: in all zones]' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand drain" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand drain" -l list -d 'List the drains in force, as without a node'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand drain" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand undrain" -l zone -d 'Only in this zone [default: in all zones]' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand undrain" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand undrain" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand flush" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand flush" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and not __fish_seen_subcommand_from level queries help" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and not __fish_seen_subcommand_from level queries help" -f -a "level" -d 'Log more or less for some time; then the running server returns to the level of its start'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and not __fish_seen_subcommand_from level queries help" -f -a "queries" -d 'Log queries and how they were answered for some time, at most 200 in a second'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and not __fish_seen_subcommand_from level queries help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from level" -l for -d 'For how long: 1s to 24h' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from level" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from level" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from queries" -l zone -d 'Only queries that this zone answers [default: all queries]' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from queries" -l client -d 'Only queries of this client [default: of all clients]' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from queries" -l for -d 'For how long: 1s to 1h' -r
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from queries" -l socket -d 'The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from queries" -l stop -d 'Log no more queries'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from queries" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "level" -d 'Log more or less for some time; then the running server returns to the level of its start'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "queries" -d 'Log queries and how they were answered for some time, at most 200 in a second'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand config; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Print every key with its value and where that comes from; no secrets, which are in files of their own'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'The configuration file' -r -F
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print every key with its value and where that comes from; no secrets, which are in files of their own'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand schema" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand completions" -s h -l help -d 'Print help'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "run" -d 'Serve the zones of a configuration file'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "check" -d 'Read a configuration file and list every error in it; uses no network'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "demo" -d 'Run a demonstration: two simulated clusters, the resolver and its status page'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "reload" -d 'Make the running server read its file again, and wait for the outcome'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "status" -d 'Show all zones of the running server, the worst first; exit status 1 if one is unanswered or the file is refused'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "plan" -d 'Show what a reload of a file would change, and change nothing; exit status 2 if it would change something'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "explain" -d 'Explain a name or a node of the running server: from the file over lists, rules and health to what DNS answers'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "history" -d 'Show the last configurations that were applied or refused, or the last changes of a zone'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "drain" -d 'Take a node out of the answers for some time, or list the nodes that are taken out'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "undrain" -d 'Put a drained node back into the answers'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "flush" -d 'Make the running server remove the cached answers of other resolvers'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "log" -d 'Change what the running server logs'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "config" -d 'Show the configuration of a file'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "schema" -d 'Print the JSON Schema of the configuration file, for editors and linters'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "completions" -d 'Print a script that completes this command in a shell'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and not __fish_seen_subcommand_from run check demo reload status plan explain history drain undrain flush log config schema completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and __fish_seen_subcommand_from log" -f -a "level" -d 'Log more or less for some time; then the running server returns to the level of its start'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and __fish_seen_subcommand_from log" -f -a "queries" -d 'Log queries and how they were answered for some time, at most 200 in a second'
complete -c alternator-dns -n "__fish_alternator_dns_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Print every key with its value and where that comes from; no secrets, which are in files of their own'

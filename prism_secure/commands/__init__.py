"""One module a command; each has `add_to(commands)`, and `prism_secure.cli` lists them.

A command is a function `(options, command_line) -> exit code` that the parser carries as `options.command`.
What it needs beyond the configuration is imported when it runs: nobody waits for torch to read `--help`.
"""

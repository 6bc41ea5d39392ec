"""``layerfs completion``: the script that lets a shell complete verbs, options and names of images."""

from __future__ import annotations

from importlib import import_module

from layerfs.cli.commands import GROUPS, VERBS, Entry
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "bash|zsh|fish",
    least=1,
    most=1,
    notes="For bash: source <(layerfs completion bash); for fish: layerfs completion fish | source",
)

_BASH = """\
_layerfs() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" line="${{COMP_WORDS[*]:1:COMP_CWORD-1}}" words
    case "$line" in
{cases}
    esac
    if [[ $word != -* && ${{#COMP_WORDS[@]}} -gt 2 ]]; then
        words+=" $(layerfs images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' 2>/dev/null)"
        words+=" $(layerfs ps -a --format '{{{{.Names}}}}' 2>/dev/null)"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] || compopt -o default
    __ltrim_colon_completions "$word" 2>/dev/null
}}
complete -F _layerfs layerfs
"""


def run(args: Args, context: Context) -> None:
    """Print the script."""
    shell = args.rest[0]
    if shell == "fish":
        context.out(_fish())
    elif shell in ("bash", "zsh"):
        head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
        context.out(head + _BASH.format(cases="\n".join(_cases())))
    else:
        raise InvalidInputError(f"shell {shell!r}: not known", hint="known are bash, zsh and fish")


def _options(entry: Entry) -> list[str]:
    module = import_module(f"layerfs.cli.verbs.{entry.module}")
    command: Command = module.COMMANDS[entry.kind] if hasattr(module, "COMMANDS") else module.COMMAND
    return [*(name for option in command.options for name in option.names if name.startswith("--")), "--help"]


def _cases() -> list[str]:
    """The branches of the shell's ``case``: which words may follow a verb, the longest first."""
    cases = [f"        '{verb}'*) words='{' '.join(_options(entry))}' ;;" for verb, entry in _verbs()]
    cases += [f"        '{group}') words='{' '.join(verbs)}' ;;" for group, (_, verbs) in GROUPS.items()]
    return [*sorted(cases, key=len, reverse=True), f"        '') words='{' '.join([*VERBS, *GROUPS])}' ;;"]


def _verbs() -> list[tuple[str, Entry]]:
    grouped = [(f"{group} {verb}", entry) for group, (_, verbs) in GROUPS.items() for verb, entry in verbs.items()]
    return [*VERBS.items(), *grouped]


def _fish() -> str:
    lines = ["complete -c layerfs -f"]
    for name, summary in [*((verb, entry.summary) for verb, entry in VERBS.items())] + [
        (group, summary) for group, (summary, _) in GROUPS.items()
    ]:
        lines.append(f"complete -c layerfs -n __fish_use_subcommand -a {name} -d '{summary.replace(chr(39), '')}'")
    for group, (_, verbs) in GROUPS.items():
        lines.append(f"complete -c layerfs -n '__fish_seen_subcommand_from {group}' -a '{' '.join(verbs)}'")
    for verb, entry in VERBS.items():
        for option in _options(entry):
            lines.append(f"complete -c layerfs -n '__fish_seen_subcommand_from {verb}' -l {option[2:]}")
    return "\n".join(lines) + "\n"

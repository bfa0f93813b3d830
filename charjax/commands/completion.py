"""`charjax completion`: what teaches a shell to complete the words of `charjax`."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from charjax.commands import cli
from charjax.commands.fields import Option, options
from charjax.commands.signals import Signals
from charjax.config.presets import presets

Shell = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True)
class Options:
    """Print what makes a shell complete commands, options and choices."""

    shell: Positional[Shell]
    """The shell whose start-up file has one of these lines: ~/.bashrc or ~/.zshrc, or
    ~/.config/fish/config.fish."""


EXAMPLES = (
    'eval "$(charjax completion bash)"      # or zsh',
    "charjax completion fish | source",
)

# readline cuts words at "=". Where nothing fits, files are completed.
_BASH = """\
_charjax() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" last=$((COMP_CWORD - 1)) words="" word
  if [[ $current == "=" ]]; then
    current=""
  elif [[ ${{COMP_WORDS[last]}} == "=" ]]; then
    last=$((last - 1))
  fi
  local before="${{COMP_WORDS[last]}}"
  if [[ $current == --* ]]; then current="${{current//_/-}}"; fi
  if [[ $before == --* ]]; then before="${{before//_/-}}"; fi
  case "$COMP_CWORD ${{COMP_WORDS[1]}} $before" in
    "1 "*) words={commands} ;;
{cases}
  esac
  COMPREPLY=()
  for word in $words; do
    if [[ $word == "$current"* ]]; then COMPREPLY+=("$word"); fi
  done
}}
complete -o bashdefault -o default -F _charjax charjax"""

_ZSH = """\
#compdef charjax
_charjax() {{
  if (( CURRENT == 2 )); then
    local -a commands
    commands=({commands})
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{cases}
  esac
}}
if [[ $funcstack[1] == _charjax ]]; then
  _charjax "$@"
else
  (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
  compdef _charjax charjax
fi"""


def run(chosen: Options, _: Signals) -> int:
    """Prints the script."""
    print("\n".join({"bash": _bash, "zsh": _zsh, "fish": _fish}[chosen.shell]()))
    return 0


def _commands() -> Iterator[tuple[str, str, list[Option]]]:
    """Each command: its name, its sentence, its options."""
    for name, command in cli.found().items():
        help_option = Option("--help", "Show this help.", (), True)
        yield name, command.Options.__doc__ or "", [*options(command.Options), help_option]


def _choices(command: str, option: str = "") -> tuple[str, ...]:
    """What an option can be beside its own choices, or the word after the command."""
    return {
        **dict.fromkeys(("train --config", "compile --config"), tuple(presets())),
        "help ": tuple(cli.found()),
        "completion ": ("bash", "zsh", "fish"),
    }.get(f"{command} {option}", ())


def _bash() -> Iterator[str]:
    cases = []
    for name, _, own in _commands():
        if positional := _choices(name):
            cases.append((f'"2 {name} {name}"', positional))
        choices = {
            option.name: option.choices or _choices(name, option.name)
            for option in own
            if not option.switch
        }
        cases += [(f'*" {name} {each}"', words) for each, words in choices.items() if words]
        if freely := [f'*" {name} {each}"' for each, words in choices.items() if not words]:
            cases.append((" | ".join(freely), ()))
        cases.append((f'*" {name} "*', [option.name for option in own]))
    yield _BASH.format(
        commands=shlex.quote(" ".join(name for name, *_ in _commands())),
        cases="\n".join(
            f"    {case}) words={shlex.quote(' '.join(words))} ;;" for case, words in cases
        ),
    )


def _zsh() -> Iterator[str]:
    cases = []
    for name, _, own in _commands():
        specs = ["*:file:_files"]
        if positional := _choices(name):
            specs = [f"1:word:({' '.join(positional)})"]
        for option in own:
            said = option.description.partition(". ")[0].replace("[", r"\[")
            said = said.replace("]", r"\]").replace(":", r"\:")
            if option.switch:
                specs.append(f"{option.name}[{said}]")
                continue
            choices = option.choices or _choices(name, option.name)
            values = f"({' '.join(choices)})" if option.choices else "_files"
            if choices and not option.choices:
                values = f"{{compadd -- {' '.join(choices)}; _files}}"
            specs.append(f"{option.name}=[{said}]:value:{values}")
        cases.append(f"    {name}) _arguments {shlex.join(specs)} ;;")
    yield _ZSH.format(
        commands=shlex.join(f"{name}:{said}" for name, said, _ in _commands()),
        cases="\n".join(cases),
    )


def _fish() -> Iterator[str]:
    yield "complete -c charjax -e"
    for name, said, own in _commands():
        quoted = shlex.quote(said)
        first = "test (count (commandline -opc)) = 1"
        yield f"complete -c charjax -f -n '{first}' -a {name} -d {quoted}"
        here = f'set -l w (commandline -opc); test "$w[2]" = {name}'
        start = f"complete -c charjax -n '{here}'"
        if positional := _choices(name):
            yield f"{start} -f -a {shlex.quote(' '.join(positional))}"
        for option in own:
            said = shlex.quote(option.description.partition(". ")[0])
            choices = option.choices or _choices(name, option.name)
            value = "" if option.switch else " -r"
            if choices:
                value += f" {'-f ' if option.choices else ''}-a '{' '.join(choices)}'"
            yield f"{start} -l {option.name.removeprefix('--')}{value} -d {said}"

"""Reads a command line as the `pulumi` command does: flags anywhere, `--flag value` or `--flag=value`, `--` ends
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .problems import CommandFailed

_VALUES = frozenset(
    [
        "stack",
        "cwd",
        "color",
        "verbose",
        "tracing",
        "client",
        "exec-kind",
        "exec-agent",
        "event-log",
        "parallel",
        "message",
        "target",
        "exclude",
        "replace",
        "plan",
        "save-plan",
        "config-file",
        "config",
        "secrets-provider",
        "file",
        "page",
        "page-size",
        "policy-pack",
        "policy-pack-config",
        "out",
        "from",
        "version",
        "memprofilerate",
        "profiling",
        "target-replace",
        "import-file",
        "suppress-stream-logs",
        "show-secrets-provider",
        "name",
        "type",
    ]
)
_SHORT = {
    "s": "stack",
    "C": "cwd",
    "v": "verbose",
    "y": "yes",
    "f": "skip-preview",
    "p": "parallel",
    "m": "message",
    "t": "target",
    "r": "refresh",
    "d": "debug",
    "j": "json",
    "a": "all",
    "h": "help",
    "i": "show-ids",
    "u": "show-urns",
    "c": "config",
    "Q": "suppress-outputs",
    "e": "emoji",
}


@dataclass
class Line:
    """Words that are not flags, and the flags with all the values they were given."""

    words: list[str] = field(default_factory=list)
    flags: dict[str, list[str]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a yes-no flag is set (`--flag`, `--flag=true`)."""
        return name in self.flags and self.flags[name][-1] not in {"false", "0"}

    def get(self, name: str, default: str = "") -> str:
        return self.flags[name][-1] if name in self.flags else default

    def all(self, name: str) -> list[str]:
        return self.flags.get(name, [])

    def number(self, name: str, default: int = 0) -> int:
        text = self.get(name)
        if not text:
            return default
        if not text.isdigit():
            raise CommandFailed(f'invalid argument "{text}" for "--{name}" flag: it is not a number')
        return int(text)


def parse(
    argv: list[str], *, more_values: frozenset[str] = frozenset(), no_values: frozenset[str] = frozenset()
) -> Line:
    """`more_values` and `no_values` say where a command's flags differ from the others'."""
    line = Line()
    values = (_VALUES | more_values) - no_values
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if word == "--":
            line.words += argv[position:]
            break
        if not word.startswith("-") or word == "-":
            line.words.append(word)
            continue
        name, given, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            name = _SHORT.get(name, name)
        if name in values and not given:
            if position == len(argv):
                raise CommandFailed(f"flag needs an argument: --{name}")
            value = argv[position]
            position += 1
        line.flags.setdefault(name, []).append(value if given or name in values else "true")
    return line

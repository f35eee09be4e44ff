"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

from hssl_search.engine.config import NO_FLAG, SearchConfig, flag, gather
from hssl_search.errors import UserError, advice
from hssl_search.interrupts import interrupt, on_interrupt
from hssl_search.output import Stream, standard_streams
from hssl_search.reporting.dashboard import HOST, PORT
from hssl_search.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from hssl_search.engine.records.run import Run

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it; SIGTERM and the SIGHUP of a closed terminal stop a
command in the same way."""

EPILOG = """\
commands (hssl-search COMMAND --help tells more):
  plan ...          what a search with these flags would do and cost, measured; --json for machines
  resume RUN        continue with a search that was stopped, or with --budget +10gpu-h extend one
  status RUN        where a search stands
  report RUN        write its report and tables again
  dashboard RUN     open the Optuna dashboard on it
  replay RUN TRIAL  train a trial again from its record, and compare
  spaces | trainers | families    what there is to choose from

exit codes:
  0 success, 2 something you can mend (stderr says what), 130 Ctrl-C or SIGTERM, 1 anything else, or
  a replay that differs; whoever reads the output may close it early, as `head` does: the command
  ends as it would have

example:
  hssl-search --base resnet50 --data photos/ --budget 40gpu-h
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, with the nearest valid flag."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[0].lower()}{message[1:]}; see {self.prog} --help.")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        # argparse's own refusal names no flag that is near.
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise UserError(f"unknown argument {unknown[0]!r}; {self._remedy(unknown[0])}")
        return parsed

    def _remedy(self, unknown: str) -> str:
        flags = [
            flag
            for action in self._actions
            for flag in action.option_strings
            if flag not in ("-h", "--help")
        ]
        if not flags:
            return f"remove it; see {self.prog} --help."
        if unknown.startswith("-"):
            return advice(unknown.split("=")[0], flags)
        return "remove it, or write the flag that it belongs to before it."


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 when it succeeded, 2 for a mistake the user can mend, 1 for a
    replay that differs, 130 when stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with standard_streams() as output:
        try:
            with on_interrupt(interrupt):
                _run(arguments, output)
        except UserError as error:
            print(f"hssl-search: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt as error:
            # On a line of its own: the terminal has shown ^C in this one.
            print(f"\nhssl-search: {str(error) or 'stopped.'}", file=sys.stderr)
            sys.exit(INTERRUPTED)


def _run(arguments: list[str], output: Stream) -> None:
    # A search needs no command: `hssl-search --base ...`.
    command = COMMANDS.get(arguments[0]) if arguments else None
    try:
        command(arguments[1:]) if command else _search(arguments)
    except SystemExit:  # argparse ends like this after --help
        output.require_written()
        raise
    output.require_written()


def search_parser() -> Parser:
    parser = Parser(
        prog="hssl-search",
        description="Searches for the auxiliary head that teaches a self-supervised base the most.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a further flag would change what an abbreviation means
    )
    parser.add_argument("--version", action="version", version=f"hssl-search {__version__}")
    return _with_options(parser)


def _with_options(parser: Parser) -> Parser:
    """Add the options of a search to the parser, and return it."""
    for name, field in SearchConfig.model_fields.items():
        if name in NO_FLAG:
            continue
        if name == "base_arg":
            how: dict[str, Any] = {"action": "append", "metavar": "KEY=VALUE"}
        elif name == "warm_start":
            how = {"action": "extend", "nargs": "+", "metavar": "RUN"}
        else:
            choices = _choices(field.annotation)
            how = {"choices": choices, "metavar": "|".join(choices or [name.upper()])}
        parser.add_argument(flag(name), help=field.description, **how)
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with these options as keys; flags go before it"
    )
    return parser


def _choices(annotation: Any) -> list[str] | None:
    """Return what an option may be where it is one of a few names; else None."""
    parts = (annotation,) if get_origin(annotation) is Literal else get_args(annotation)
    parts = tuple(part for part in parts if part is not type(None))
    if not parts or any(get_origin(part) is not Literal for part in parts):
        return None
    return [choice for part in parts for choice in get_args(part)]


def _search(arguments: Sequence[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        raise UserError(f"unknown command {arguments[0]!r}; {advice(arguments[0], COMMANDS)}")
    if not arguments:
        search_parser().print_help()
        return
    config = _config(vars(search_parser().parse_args(arguments)))
    # What loads for seconds is imported once the flags are known to be good.
    from hssl_search.api import run_search

    with _console() as console:
        _print_status(run_search(config, console=console), console)


@contextmanager
def _console(stderr: bool = False) -> Iterator[Console]:
    """Give a console, on which what the package logs is printed."""
    from rich.console import Console

    from hssl_search.reporting.progress import log_shown

    console = Console(stderr=stderr, markup=False)
    with log_shown(console):
        yield console


def _print_status(run: Run | str, console: Console) -> None:
    from hssl_search.api import status
    from hssl_search.reporting.terminal import print_verdict

    now = status(run)
    print_verdict(console, now.record, now.charges, now.run.folder)


def _config(flags: dict[str, Any]) -> SearchConfig:
    config_file = flags.pop("config")
    if flags["base_arg"] is not None:
        flags["base_arg"] = _key_values(flags["base_arg"])
    return gather(flags, config_file, from_flags=True)


def _plan(arguments: Sequence[str]) -> None:
    parser = _with_options(
        Parser(
            prog="hssl-search plan",
            description="Say what a search with these flags would do and cost, from a few real "
            "steps; nothing is left behind but the image cache. Exit code 2 when the budget is too "
            "small for a search: what was measured is printed, and what would be enough.",
            allow_abbrev=False,
        )
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document and nothing else; `enough` says whether the budget "
        "buys a search, `smallest_s` the device-seconds that would",
    )
    flags = vars(parser.parse_args(arguments))
    as_json = flags.pop("json")
    config = _config(flags)
    from hssl_search.api import plan_search

    # Standard output is for the plan alone.
    with _console(stderr=True) as console:
        page = plan_search(config, console)
    from rich.console import Console

    from hssl_search.engine.planning.plan import BudgetTooSmall
    from hssl_search.reporting.terminal import print_plan, too_small

    if as_json:
        print(json.dumps(page, indent=2))
    else:
        print_plan(Console(markup=False), page)
    # After the page: what was measured is told all the same.
    if not page["enough"]:
        raise BudgetTooSmall(too_small(page))


def _key_values(pairs: Sequence[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for key, value in map(key_value, pairs):
        if key in arguments:
            raise UserError(
                f"--base-arg {key} is given twice, as {arguments[key]} and as {value}; give it "
                "once."
            )
        arguments[key] = value
    return arguments


def key_value(pair: str) -> tuple[str, Any]:
    """Split KEY=VALUE; the value is read as YAML reads it: a number, true, false or text."""
    import yaml

    key, sign, value = pair.partition("=")
    if not sign or not key:
        raise UserError(
            f"--base-arg {pair!r} is not KEY=VALUE; write for example --base-arg patch_size=4."
        )
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(
            f"--base-arg {pair!r} has a value that is neither number nor text; write for example "
            "--base-arg patch_size=4."
        ) from None


def _run_parser(command: str, does: str) -> Parser:
    """Return the parser of a command on a run."""
    parser = Parser(prog=f"hssl-search {command}", description=does)
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder, such as runs/resnet50-photos, or its name"
    )
    return parser


def _resume(arguments: Sequence[str]) -> None:
    parser = _run_parser(
        "resume",
        "Go on with a search that was stopped, or with more budget with one that ended.",
    )
    parser.add_argument(
        "--budget",
        metavar="+BUDGET",
        help="device-time to add to the run's budget, for example +10gpu-h",
    )
    asked = parser.parse_args(arguments)
    from hssl_search.api import resume

    with _console() as console:
        _print_status(resume(asked.run, asked.budget, console=console), console)


def _status(arguments: Sequence[str]) -> None:
    asked = _run_parser("status", "Say where a search stands.").parse_args(arguments)
    with _console() as console:
        _print_status(asked.run, console)


def _report(arguments: Sequence[str]) -> None:
    parser = _run_parser("report", "Write a run's report and tables again.")
    asked = parser.parse_args(arguments)
    from hssl_search.api import write_report

    for path in write_report(asked.run):
        print(path)


def _dashboard(arguments: Sequence[str]) -> None:
    parser = _run_parser("dashboard", "Open the Optuna dashboard on a run; Ctrl-C ends it.")
    parser.add_argument(
        "--host",
        metavar="HOST",
        default=HOST,
        help=f"address to listen at (default: {HOST}, this machine alone); "
        "0.0.0.0 lets in whoever reaches this machine, without a password",
    )
    parser.add_argument(
        "--port",
        metavar="PORT",
        type=_port,
        help=f"port to listen at (default: {PORT}, or the next free one)",
    )
    asked = parser.parse_args(arguments)
    from hssl_search.api import dashboard

    with dashboard(asked.run, asked.host, asked.port) as server:
        # In a URL an IPv6 address stands in brackets.
        address = f"[{asked.host}]" if ":" in asked.host else asked.host
        moved = asked.port is None and server.server_port != PORT
        print(
            f"{f'Port {PORT} is taken. ' if moved else ''}Listening on "
            f"http://{address}:{server.server_port}/",
            "Hit Ctrl-C to quit.",
            sep="\n",
            file=sys.stderr,
            # `serve_forever` does not return: without it a pipe would show nothing.
            flush=True,
        )
        server.serve_forever()


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _replay(arguments: Sequence[str]) -> None:
    parser = _run_parser(
        "replay",
        "Train a trial again from its record alone, and compare: on a CPU, with the same versions, "
        "all numbers are equal. The run is not changed; exit code 1 when a number differs.",
    )
    parser.add_argument("trial", metavar="TRIAL", type=int, help="the trial's number, such as 7")
    parser.add_argument(
        "--seed",
        metavar="SEED",
        type=int,
        help="of one of its confirming runs; without it, its proxy",
    )
    asked = parser.parse_args(arguments)
    from hssl_search.api import replay
    from hssl_search.engine.replay import Differs
    from hssl_search.reporting.terminal import print_replay
    from hssl_search.reporting.text import replay_sentence

    with _console() as console:
        with console.status(f"Replaying trial {asked.trial}"):
            replayed = replay(asked.run, asked.trial, asked.seed)
        print_replay(console, replayed)
        if not replayed.equal:
            raise Differs(replay_sentence(replayed))
        console.print(replay_sentence(replayed), highlight=False, soft_wrap=True)


def _list(command_name: str, kind: Any, does: str) -> Callable[[Sequence[str]], None]:
    def command(arguments: Sequence[str]) -> None:
        Parser(prog=f"hssl-search {command_name}", description=does).parse_args(arguments)
        from hssl_search.bundled import find, names
        from hssl_search.configfile import read_yaml

        for name in names(kind):
            print(f"{name:16} {read_yaml(find(kind, name)).get('description', '')}")

    return command


def _families(arguments: Sequence[str]) -> None:
    Parser(
        prog="hssl-search families", description="List the head families, the controls among them."
    ).parse_args(arguments)
    from hssl_search.heads.families import families

    for family in families().values():
        reads = (
            " ".join(f"{key}={value}" for key, value in family.defaults.items()) or "no parameters"
        )
        print(f"{family.name:16} {'control: ' if family.control else ''}{family.summary} ({reads})")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "plan": _plan,
    "resume": _resume,
    "status": _status,
    "report": _report,
    "dashboard": _dashboard,
    "replay": _replay,
    "spaces": _list(
        "spaces", "search_spaces", "List the search spaces, your own in ./search_spaces included."
    ),
    "trainers": _list(
        "trainers", "trainers", "List the training recipes, your own in ./trainers included."
    ),
    "families": _families,
}
